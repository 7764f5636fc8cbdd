package caddyjwt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "jwt",
		Short: "Works with JSON Web Tokens",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(tokenCommand(), inspectCommand(), userCommand(), keysCommand(), storeCommand())
			for _, further := range furtherCommands {
				cmd.AddCommand(further())
			}
			groups(cmd)
		},
	})
}

var furtherCommands []func() *cobra.Command

// AddCommand puts a command of another module under `caddy jwt`. It is called
// by init functions.
func AddCommand(command func() *cobra.Command) { furtherCommands = append(furtherCommands, command) }

// groups has commands that only group others refuse what is none of them, so
// that a script learns of a slip.
func groups(cmd *cobra.Command) {
	for _, inner := range cmd.Commands() {
		groups(inner)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return fmt.Errorf("%s has no command %s; `%s --help` lists them", cmd.CommandPath(), refusal.Quoted(args[0]), cmd.CommandPath())
	})
}

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token (--secret <source> | --key <source>) [flags]",
		Short: "Mints a signed token, for tests and for services that sign their own",
		Long: `
Mints a JWT and prints it. It is signed with a shared secret or a private key,
which is read from a source, and never taken from the command line itself:

    -           standard input
    @<file>     a file
    env:<NAME>  an environment variable

A private key is PEM (PKCS#8, PKCS#1 or SEC 1) or a JWK. One line end after a
secret is not part of it.`,
		Example: `  caddy jwt token --secret env:JWT_SECRET --claim sub=alice --claim scope="read write"
  caddy jwt token --key @private.pem --claim iss=https://example.com --claim-json 'roles=["admin"]' --lifetime 5m`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().String("secret", "", "Source of the shared secret")
	cmd.Flags().String("encoding", "", "Encoding of the secret, base64 or hex; its bytes as they are by default")
	cmd.Flags().String("key", "", "Source of the private key")
	cmd.Flags().StringArray("claim", nil, "A claim with a text value; may be repeated")
	cmd.Flags().StringArray("claim-json", nil, "A claim with a JSON value; may be repeated")
	cmd.Flags().String("lifetime", "1h", "Time until the token expires; 0 for a token that never does")
	cmd.Flags().String("alg", "", "Algorithm; by default HS256 for a secret, and what the key is made for")
	cmd.Flags().String("kid", "", "Key ID for the header; that of a JWK by default")
	cmd.Flags().String("typ", "JWT", "Type for the header, such as at+jwt")
	cmd.RunE = runs(mintToken)
	return cmd
}

func mintToken(cmd *cobra.Command, _ []string) error {
	flags := flagsOf(cmd)
	signer, err := newSigner(cmd.InOrStdin(), flags)
	if err != nil {
		return err
	}
	claims, err := claimsFromFlags(flags)
	if err != nil {
		return err
	}
	token, err := signer.Sign(flags.String("typ"), claims)
	if err == nil {
		fmt.Fprintln(cmd.OutOrStdout(), token)
	}
	return err
}

func claimsFromFlags(flags caddycmd.Flags) (map[string]any, error) {
	lifetime, err := caddy.ParseDuration(flags.String("lifetime"))
	if err != nil || lifetime < 0 {
		return nil, fmt.Errorf("--lifetime %q: it is a duration, as in 5m, 1h or 30d, or 0 for no expiry", flags.String("lifetime"))
	}
	now := time.Now()
	claims := map[string]any{"iat": now.Unix()}
	if lifetime > 0 {
		claims["exp"] = now.Add(lifetime).Unix()
	}
	texts, err := flags.GetStringArray("claim")
	if err != nil {
		return nil, err
	}
	for _, text := range texts {
		name, value, found := strings.Cut(text, "=")
		if !found || name == "" {
			return nil, fmt.Errorf("--claim %q: it is a name and a text, as in sub=alice", text)
		}
		if _, twice := claims[name].(string); twice {
			return nil, fmt.Errorf("--claim %s is specified twice; a list is one value of --claim-json, as in %s=[\"a\",\"b\"]", name, name)
		}
		if slices.Contains([]string{"exp", "nbf", "iat"}, name) {
			return nil, fmt.Errorf("--claim %s is a text, and a time is a number; give it by --claim-json", name)
		}
		claims[name] = value
	}
	values, err := flags.GetStringArray("claim-json")
	if err != nil {
		return nil, err
	}
	for _, text := range values {
		name, raw, _ := strings.Cut(text, "=")
		object, err := jwt.ParseClaims([]byte(`{"value":` + raw + `}`))
		if err != nil || name == "" || len(object) != 1 {
			return nil, fmt.Errorf(`--claim-json %q: it is a name and a JSON value, as in roles=["admin"]`, text)
		}
		claims[name] = object["value"]
	}
	return claims, nil
}

func newSigner(stdin io.Reader, flags caddycmd.Flags) (signing.Signer, error) {
	secret, key := flags.String("secret"), flags.String("key")
	var s signing.Signer
	var algorithms []string
	switch {
	case key != "" && flags.String("encoding") != "":
		return s, errors.New("--encoding is that of a secret, and --key is none; remove it")
	case (secret == "") == (key == ""):
		return s, errors.New("give either --secret or --key: -, @<file> or env:<NAME>")
	case secret != "":
		text, err := readSource(stdin, "--secret", secret)
		if err != nil {
			return s, err
		}
		verifier, err := config.DecodeSecret(string(text), flags.String("encoding"))
		if err != nil {
			return s, fmt.Errorf("--secret: %w", err)
		}
		s.Key, algorithms = verifier.Material, verifier.Algorithms()
	default:
		text, err := readSource(stdin, "--key", key)
		if err != nil {
			return s, err
		}
		if s, algorithms, err = signing.ParsePrivateKey(text); err != nil {
			return s, fmt.Errorf("--key: %w", err)
		}
	}
	if id := flags.String("kid"); id != "" {
		s.ID = id
	}
	s.Algorithm = algorithms[0]
	if wanted := flags.String("alg"); wanted != "" {
		if !slices.Contains(algorithms, wanted) {
			return s, fmt.Errorf("--alg %s: this key is for %s", wanted, strings.Join(algorithms, ", "))
		}
		s.Algorithm = wanted
	}
	return s, nil
}

// readSource reads a secret from where people may keep one.
func readSource(stdin io.Reader, flag, source string) (text []byte, err error) {
	switch {
	case source == "-":
		text, err = io.ReadAll(io.LimitReader(stdin, jwks.MaxDocumentBytes))
	case strings.HasPrefix(source, "@"):
		text, err = os.ReadFile(source[1:])
	case strings.HasPrefix(source, "env:"):
		text = []byte(os.Getenv(source[len("env:"):]))
	default:
		return nil, fmt.Errorf("%s takes -, @<file> or env:<NAME>, not the value itself, which others could see in the list of processes", flag)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	if len(text) == 0 {
		return nil, fmt.Errorf("%s: nothing is there", flag)
	}
	return text, nil
}

// runs makes a command of a function. Its error is told as Caddy tells its own,
// and makes the exit code.
func runs(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
			if err := run(cmd, args); err != nil {
				return caddy.ExitCodeFailedStartup, err
			}
			return caddy.ExitCodeSuccess, nil
		})(cmd, args)
	}
}

func flagsOf(cmd *cobra.Command) caddycmd.Flags { return caddycmd.Flags{FlagSet: cmd.Flags()} }

func addConfigFlags(cmd *cobra.Command, usage string) {
	cmd.PersistentFlags().String("config", "", usage)
	cmd.PersistentFlags().String("adapter", "", "Adapter of the config; by default caddyfile for a Caddyfile, and none for JSON")
}

// openContext is a context of Caddy for modules, which are cleaned up when it
// is cancelled. Its storage is as in the config; none is Caddy's default. What
// the modules log is left out, as the commands tell their errors themselves.
func openContext(storage json.RawMessage) (caddy.Context, context.CancelFunc, error) {
	quiet := &caddy.CustomLog{BaseLog: caddy.BaseLog{Level: "ERROR"}, Exclude: []string{"jwt", "http.handlers.jwt", "http.handlers.jwt_accounts"}}
	base, err := caddy.ProvisionContext(&caddy.Config{
		StorageRaw: storage,
		Logging:    &caddy.Logging{Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: quiet}},
	})
	if err != nil {
		return base, nil, err
	}
	ctx, cancel := caddy.NewContext(base)
	return ctx, cancel, nil
}

// siteConfig is a config of Caddy, as far as the commands need it.
type siteConfig struct {
	file    string
	content any             // its JSON
	storage json.RawMessage // of Caddy; empty for the default
}

func loadConfig(flags caddycmd.Flags) (*siteConfig, error) {
	_, quiet, err := openContext(nil) // Caddy logs what it reads
	if err != nil {
		return nil, err
	}
	defer quiet()
	text, file, _, err := caddycmd.LoadConfig(flags.String("config"), flags.String("adapter"))
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	if file == "" {
		return nil, errors.New("which config? There is no Caddyfile in this folder; name it by --config <file>")
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

// handlerConfig is a handler as it stands in a config.
type handlerConfig struct {
	text   json.RawMessage
	places []string // the addresses, hosts and paths of the routes around it
}

// handlers are those of the config with the name. Equal ones are one.
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

// HandlersOf are those with the name, as JSON, in the config that a command's flag
// --config names; none without the flag.
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
	text, err := json.Marshal(handler) // as Caddy itself does before it loads a config
	if err != nil {
		return all // what was JSON has JSON
	}
	for _, known := range all {
		if bytes.Equal(known.text, text) {
			known.places = append(known.places, place)
			return all
		}
	}
	return append(all, &handlerConfig{text, []string{place}})
}

// matched are the addresses of a server, or the hosts and paths of a route.
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

// accounts are those of the config, ready for use.
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
		return nil, fmt.Errorf("%s has no accounts, so it has neither users nor keys of its own", c.file)
	}
	return all, nil
}
