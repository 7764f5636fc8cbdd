package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

func inspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect [<token source>] [flags]",
		Short: "Shows the contents of a token, and which check it fails",
		Long: `
Shows the header and the claims of a token. With --config, each jwt handler of
the config checks the token as it would for a request (it may fetch keys), and the
command prints whether the handler accepts it, or which check fails. The exit code
is 0 if at least one handler accepts the token; without --config, if the token is
well-formed.

The token is read from a source, never from the command line itself:

    -           standard input, the default
    @<file>     a file
    env:<NAME>  an environment variable

As in Caddy, the handlers read keys from Caddy's storage and store fetched keys
there. So run the command as the user who runs Caddy.`,
		Example: `  caddy jwt inspect < token.txt
  caddy jwt inspect --config /etc/caddy/Caddyfile env:TOKEN`,
		Args: cobra.MaximumNArgs(1),
		RunE: runs(inspect),
	}
	cmd.Flags().Bool("json", false, "Print a JSON object, with times as in the token")
	addConfigFlags(cmd, "Caddy config whose jwt handlers check the token")
	return cmd
}

func inspect(cmd *cobra.Command, args []string) error {
	source := "-"
	if len(args) > 0 {
		source = args[0]
	}
	text, err := readSource(cmd.InOrStdin(), "inspect", source)
	if errors.Is(err, errEmptySource) && source == "-" {
		return errors.New("inspect: standard input is empty; give the token there, or as @<file> or env:<NAME>")
	}
	if err != nil {
		return err
	}
	token := strings.TrimPrefix(strings.TrimSpace(string(text)), "Bearer ")
	if id := apikeys.IDIn(token); id != token {
		return fmt.Errorf(
			"this is the API key with the ID %s, not a token; see: caddy jwt key show %[1]s%[2]s", id, chosen(cmd),
		)
	}
	var config *siteConfig
	if flagsOf(cmd).String("config") != "" { // errors come before the token is shown
		if config, err = loadConfig(flagsOf(cmd)); err != nil {
			return err
		}
		if len(config.judges()) == 0 {
			return fmt.Errorf("%s has no jwt handler", config.file)
		}
	}
	if flagsOf(cmd).Bool("json") {
		return inspectJSON(cmd, token, config)
	}
	if err := describeToken(cmd.OutOrStdout(), token, time.Now()); err != nil {
		return err
	}
	if config == nil {
		fmt.Fprintln(
			cmd.OutOrStdout(),
			"\nsignature not checked; to check the token with the jwt handlers of a config, set --config <file>",
		)
		return nil
	}
	fmt.Fprintln(cmd.OutOrStdout())
	return config.check(token, func(v verdict) {
		fmt.Fprintf(cmd.OutOrStdout(), "jwt %s: %s\n", strings.Join(v.Places, "; "), refusal.Visible(v.Text))
	})
}

// inspectJSON prints what there is to know about a token as one JSON object.
func inspectJSON(cmd *cobra.Command, token string, config *siteConfig) error {
	shown := struct {
		Header   json.RawMessage `json:"header"`
		Claims   json.RawMessage `json:"claims"`
		Error    string          `json:"error,omitempty"`
		Handlers []verdict       `json:"handlers,omitempty"`
	}{}
	decoded, err := jwt.Decode(token)
	shown.Header, shown.Claims = readable(decoded.Header), readable(decoded.Payload)
	if err = malformed(err); err != nil {
		shown.Error = err.Error()
	} else if config != nil {
		err = config.check(token, func(v verdict) { shown.Handlers = append(shown.Handlers, v) })
	}
	encoder := newJSONEncoder(cmd.OutOrStdout())
	encoder.SetIndent("", "  ")
	return errors.Join(encoder.Encode(shown), err)
}

// readable returns a part of a token, or nil if it is not JSON.
func readable(part jsontext.Value) json.RawMessage {
	if part.Compact(jsontext.AllowDuplicateNames(true)) != nil {
		return nil
	}
	return json.RawMessage(part)
}

// describeToken prints the readable parts of a token, and returns why it is malformed.
func describeToken(w io.Writer, token string, now time.Time) error {
	decoded, err := jwt.Decode(token)
	for _, part := range []struct {
		name string
		text jsontext.Value
	}{{"header", decoded.Header}, {"claims", decoded.Payload}} {
		if part.text.Indent(jsontext.WithIndent("  "), jsontext.AllowDuplicateNames(true)) == nil {
			fmt.Fprintf(w, "%s\n%s", part.name, withTimes(string(part.text), now))
		}
	}
	return malformed(err)
}

// malformed returns why a token is malformed.
func malformed(err error) error {
	if failure, ok := errors.AsType[*refusal.Error](err); ok {
		return fmt.Errorf("refused by the check %q: %w; see %s", failure.Reason, failure, failure.Reason.Help())
	}
	return err
}

// timeClaim matches a line with a time in indented claims, at the top level.
var timeClaim = regexp.MustCompile(`^  "(exp|nbf|iat|auth_time)": (-?[0-9.eE+-]+),?$`)

// withTimes adds each time in words.
func withTimes(object string, now time.Time) string {
	var b strings.Builder
	for line := range strings.SplitSeq(object, "\n") {
		b.WriteString(refusal.Visible(line))
		if found := timeClaim.FindStringSubmatch(line); found != nil {
			if date, err := strconv.ParseFloat(found[2], 64); err == nil {
				b.WriteString("  // " + dateText(date, now))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func dateText(date float64, now time.Time) string {
	const year10000 = 253402300800
	if date < 0 || date >= year10000 {
		return "beyond all years"
	}
	at := time.Unix(int64(date), 0)
	if away := at.Sub(now).Round(time.Second); away > 0 {
		return timeText(at) + ", in " + durationText(away)
	}
	return timeText(at) + ", " + durationText(now.Sub(at).Round(time.Second)) + " ago"
}

func durationText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

// verdict is what a handler would do with a token.
type verdict struct {
	Places   []string `json:"places"`
	Accepted bool     `json:"accepted"`
	Text     string   `json:"verdict"`
}

// judges returns the handlers of the config that verify tokens.
func (c *siteConfig) judges() []*handlerConfig { return append(c.handlers("jwt"), c.providers()...) }

// check calls a function with the verdict of each handler of the config. It returns an error if
// none accepts the token.
func (c *siteConfig) check(token string, say func(verdict)) error {
	ctx, cancel, err := openContext(c.storage)
	if err != nil {
		return err
	}
	defer cancel()
	accepted := false
	for _, handler := range c.judges() {
		text, good := judge(ctx, handler.text, token)
		accepted = accepted || good
		say(verdict{handler.places, good, text})
	}
	if !accepted {
		return fmt.Errorf("no jwt handler in %s accepts the token", c.file)
	}
	return nil
}

// providers returns the jwt providers of Caddy's authentication handlers in the config, as
// handlers.
func (c *siteConfig) providers() (found []*handlerConfig) {
	for _, handler := range c.handlers("authentication") {
		var of struct {
			Providers struct {
				Bearer map[string]json.RawMessage `json:"jwt_bearer"`
			} `json:"providers"`
		}
		if json.Unmarshal(handler.text, &of) != nil || of.Providers.Bearer == nil {
			continue
		}
		of.Providers.Bearer["handler"] = json.RawMessage(`"jwt"`)
		text, err := json.Marshal(of.Providers.Bearer)
		if err == nil {
			found = append(found, &handlerConfig{text, handler.places})
		}
	}
	return found
}

// judge returns what a handler would do with the token.
func judge(ctx caddy.Context, handler json.RawMessage, token string) (verdict string, accepted bool) {
	h, err := openHandler(ctx, handler)
	if err != nil {
		return "cannot check the token: " + err.Error(), false
	}
	return h.Judge(ctx, token, time.Now())
}

// tokenJudge is implemented by handlers that verify tokens.
type tokenJudge interface {
	// Judge returns what the handler would do with a token, and whether it would accept it.
	Judge(ctx context.Context, token string, now time.Time) (verdict string, accepted bool)
}

// openHandler sets up a handler, unless that would create users or keys.
func openHandler(ctx caddy.Context, config json.RawMessage) (tokenJudge, error) {
	var holder struct {
		Handler  json.RawMessage  `json:"-" caddy:"namespace=http.handlers inline_key=handler"`
		Accounts *accounts.Config `json:"accounts"`
	}
	if err := json.Unmarshal(config, &holder); err != nil {
		return nil, err
	}
	if holder.Accounts != nil {
		if err := mustHaveRun(ctx, holder.Accounts); err != nil {
			return nil, err
		}
	}
	holder.Handler = config
	module, err := ctx.LoadModule(&holder, "Handler")
	if err != nil {
		return nil, err
	}
	judge, ok := module.(tokenJudge)
	if !ok {
		return nil, fmt.Errorf("%T cannot verify tokens", module)
	}
	return judge, nil
}

// mustHaveRun returns an error if Caddy has not run with the accounts yet, so that their
// store and keys do not exist.
func mustHaveRun(ctx caddy.Context, site *accounts.Config) error {
	if err := site.Resolve(); err != nil {
		return err
	}
	if err := filestore.CheckExists(site.StoreRaw); err != nil {
		return err
	}
	if site.Secret != nil || site.SigningKey != "" {
		return nil
	}
	_, err := signing.Load(ctx, ctx.Storage(), site.OwnKeysPath())
	return err
}
