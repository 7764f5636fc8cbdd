package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// openContext returns a Caddy context for modules, which are cleaned up when it is
// canceled. An empty storage means Caddy's default. Logs of the modules are discarded,
// because commands report errors themselves.
func openContext(storage json.RawMessage) (caddy.Context, context.CancelFunc, error) {
	return provisioned(&caddy.Config{StorageRaw: storage, Logging: quiet()})
}

// quiet returns the logging of a command whose user does not read logs.
func quiet() *caddy.Logging {
	log := &caddy.CustomLog{BaseLog: caddy.BaseLog{Level: "ERROR"}, Exclude: []string{
		"jwt", "http.handlers.jwt", "http.handlers.jwt_accounts",
	}}
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: log}}
}

// parsed returns the config as Caddy has it, without the admin endpoint.
func (c *siteConfig) parsed() (*caddy.Config, error) {
	text, err := json.Marshal(c.content)
	if err != nil {
		return nil, err
	}
	cfg := new(caddy.Config)
	err = caddy.StrictUnmarshalJSON(caddy.RemoveMetaFields(text), cfg)
	cfg.Admin = &caddy.AdminConfig{Disabled: true}
	return cfg, err
}

// provisioned provisions a config, as caddy validate does, without starting it.
func provisioned(cfg *caddy.Config) (caddy.Context, context.CancelFunc, error) {
	ctx, err := caddy.ProvisionContext(cfg)
	if err != nil {
		return ctx, nil, err
	}
	ctx, cancel := caddy.NewContext(ctx)
	return ctx, cancel, nil
}

// siteConfig is the part of a Caddy config that the commands need.
type siteConfig struct {
	file    string
	content any             // its JSON
	storage json.RawMessage // of Caddy; empty for the default
}

func loadConfig(flags caddycmd.Flags) (*siteConfig, error) {
	_, cancel, err := openContext(nil) // Caddy logs what it reads
	if err != nil {
		return nil, err
	}
	defer cancel()
	text, file, _, err := caddycmd.LoadConfig(flags.String("config"), adapterOf(flags))
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	if file == "" {
		return nil, errors.New("there is no Caddyfile in this folder; set --config <file>")
	}
	var top struct {
		Storage json.RawMessage `json:"storage"`
	}
	config := &siteConfig{file: file}
	if err := errors.Join(json.Unmarshal(text, &config.content), json.Unmarshal(text, &top)); err != nil {
		return nil, fmt.Errorf("--config %s: %w", file, err)
	}
	config.storage = top.Storage
	return config, nil
}

// adapterOf returns the adapter for the config. Caddy knows a Caddyfile by its name alone; here, a
// file that does not begin as JSON is one whatever its name, because it can be nothing else.
func adapterOf(flags caddycmd.Flags) string {
	file, adapter := flags.String("config"), flags.String("adapter")
	if file == "" || file == "-" || adapter != "" {
		return adapter
	}
	text, err := os.ReadFile(file)
	if text = bytes.TrimSpace(text); err != nil || json.Valid(text) || slices.Contains(
		[]string{".json", ".yaml", ".yml", ".toml"}, strings.ToLower(filepath.Ext(file)),
	) {
		return adapter // Caddy's default, and its error
	}
	return "caddyfile"
}

// handlerConfig is a handler in a config.
type handlerConfig struct {
	text   json.RawMessage
	places []string // the addresses, hosts and paths of the routes around it
}

// handlers returns the handlers with the name in the config, without duplicates.
func (c *siteConfig) handlers(name string) []*handlerConfig {
	var all []*handlerConfig
	var look func(value any, place string)
	look = func(value any, place string) {
		switch v := value.(type) {
		case []any:
			for _, element := range v {
				look(element, place)
			}
		case map[string]any:
			if v["handler"] == name {
				all = addHandler(all, v, place)
				return
			}
			place = strings.TrimSpace(place + " " + strings.Join(matched(v), ", "))
			for _, key := range slices.Sorted(maps.Keys(v)) {
				look(v[key], place)
			}
		}
	}
	look(c.content, "")
	return all
}

// HandlersOf returns the handlers with the name, as JSON, in the config of a command's flag
// --config; none without the flag.
func HandlersOf(cmd *cobra.Command, name string) (found []json.RawMessage, err error) {
	if flagsOf(cmd).String("config") == "" {
		return nil, nil
	}
	config, err := loadConfig(flagsOf(cmd))
	if err != nil {
		return nil, err
	}
	for _, handler := range config.handlers(name) {
		found = append(found, handler.text)
	}
	return found, nil
}

func addHandler(all []*handlerConfig, handler map[string]any, place string) []*handlerConfig {
	text, err := json.Marshal(handler) // as Caddy does before it loads a config
	if err != nil {
		return all // it was unmarshaled from JSON
	}
	for _, known := range all {
		if bytes.Equal(known.text, text) {
			known.places = append(known.places, place)
			return all
		}
	}
	return append(all, &handlerConfig{text, []string{place}})
}

// matched returns the addresses of a server, or the hosts and paths of a route.
func matched(object map[string]any) []string {
	found := elements(object["listen"])
	sets, _ := object["match"].([]any)
	for _, set := range sets {
		matchers, _ := set.(map[string]any)
		found = slices.Concat(found, elements(matchers["host"]), elements(matchers["path"]))
	}
	return found
}

func elements(list any) (found []string) {
	values, _ := list.([]any)
	for _, value := range values {
		found = append(found, fmt.Sprint(value))
	}
	return found
}

// accounts returns the resolved accounts of the config.
func (c *siteConfig) accounts() ([]*accounts.Config, error) {
	var all []*accounts.Config
	for _, handler := range c.handlers("jwt_accounts") {
		a := new(accounts.Config)
		err := json.Unmarshal(handler.text, a)
		if err == nil {
			err = a.Resolve()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: accounts: %w", c.file, err)
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no accounts, so it has no users and no keys of its own", c.file)
	}
	return all, nil
}
