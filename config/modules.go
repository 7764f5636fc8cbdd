package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// ownPackages has the modules that a Caddy may be built without: the option of each, and
// its package.
var ownPackages = map[string]struct{ option, pkg string }{
	"jwt.stores.postgres": {"store postgres", "postgres"},
	"jwt.logins.oidc":     {"login_with", "oidc"},
}

// CheckModule returns an error if a module of a namespace, such as `jwt.stores`, does not exist
// or is not built in.
func CheckModule(namespace, name string) error {
	id := namespace + "." + name
	if _, err := caddy.GetModule(id); err == nil {
		return nil
	}
	if own, ok := ownPackages[id]; ok {
		return fmt.Errorf("this Caddy is built without %s; build one with it: xcaddy build --with "+
			"github.com/caddy-jwt/caddy-jwt --with github.com/caddy-jwt/caddy-jwt/%s", own.option, own.pkg)
	}
	if strings.ContainsAny(name, ":=") { // a DSN, which includes a password
		return errors.New("store takes the kind of the store before its DSN, as in: store postgres {env.ACCOUNTS_DSN}")
	}
	ids := slices.Collect(maps.Keys(ownPackages))
	for _, module := range caddy.GetModules(namespace) {
		ids = append(ids, string(module.ID))
	}
	slices.Sort(ids)
	var known []string
	for _, id := range slices.Compact(ids) {
		if name, ok := strings.CutPrefix(id, namespace+"."); ok {
			known = append(known, name)
		}
	}
	unknown := Unknown(strings.TrimSuffix(strings.TrimPrefix(namespace, "jwt."), "s"), name, known)
	if namespace == "jwt.stores" && strings.HasPrefix(strings.ToLower(name), "sqlite") {
		return fmt.Errorf("%w; for SQLite write: store file <path>", unknown)
	}
	return unknown
}

// CheckModules is CheckModule for the JSON of modules.
func CheckModules(namespace string, modules ...json.RawMessage) error {
	for _, raw := range modules {
		var named struct {
			Module string `json:"module"`
		}
		if err := json.Unmarshal(raw, &named); err != nil {
			return err
		}
		if named.Module == "" {
			continue // Caddy's error is about that
		}
		if err := CheckModule(namespace, named.Module); err != nil {
			return err
		}
	}
	return nil
}

// ReadModule reads a module by its name and its own grammar, and returns it as JSON with the
// member `module`. takes says what an option without a name should have.
func ReadModule(b *Block, namespace, takes string) (json.RawMessage, error) {
	if !b.NextArg() {
		return nil, b.Errf("%s", takes)
	}
	return ReadNamedModule(b, namespace)
}

// ReadNamedModule is ReadModule for a block that is at the name of the module.
func ReadNamedModule(b *Block, namespace string) (json.RawMessage, error) {
	return ReadModuleNamed(b, namespace, b.Val())
}

// ReadModuleNamed is ReadModule for a module whose name is known. The module's own grammar begins
// with the current word.
func ReadModuleNamed(b *Block, namespace, name string) (json.RawMessage, error) {
	if err := CheckModule(namespace, name); err != nil {
		return nil, b.WrapErr(err)
	}
	module, err := caddyfile.UnmarshalModule(b.Dispenser, namespace+"."+name)
	if err != nil {
		return nil, err
	}
	return caddyconfig.JSONModuleObject(module, "module", name, nil), nil
}
