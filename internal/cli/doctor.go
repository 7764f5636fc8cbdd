package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"github.com/spf13/cobra"
)

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Checks a config, and what it needs to work",
		Long: `
Loads a config as caddy validate does, without creating or changing anything, and then
checks what it needs: the keys of each issuer, the clock, the files of Caddy's storage and
of the user store, the database, the mail server (nothing is sent), the providers of
login_with, the issuer of upstream_token, https, and trusted proxies. Warnings that Caddy
logs when it loads the config are shown too.

Each line begins with ok, warning or fault. The exit code is 1 if there is a fault. Run the
command as the user who runs Caddy, with the same environment variables.`,
		Example: `  sudo -u caddy -H caddy jwt doctor --config /etc/caddy/Caddyfile
  caddy jwt doctor --json | jq 'select(.level != "ok")'`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error { return (&doctor{cmd: cmd}).run() }),
	}
	addConfigFlags(cmd, "Caddy config to check; by default the Caddyfile in this folder")
	cmd.Flags().Bool("json", false, "Print one JSON object per line")
	return cmd
}

// checkTimeout is how long a check may take.
const checkTimeout = 30 * time.Second

// doctor prints what it finds about a config.
type doctor struct {
	cmd    *cobra.Command
	config *siteConfig
	sites  []webSite
	faults int
}

// The levels of a finding.
const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelFault   = "fault"
)

func (d *doctor) say(level, what, text, help string) {
	if level == levelFault {
		d.faults++
	}
	text = strings.Join(strings.Fields(text), " ") // an error of PostgreSQL has several lines
	if flagsOf(d.cmd).Bool("json") {
		finding := map[string]string{"level": level, "what": what, "text": text}
		if help != "" {
			finding["help"] = help
		}
		_ = newJSONEncoder(d.cmd.OutOrStdout()).Encode(finding)
		return
	}
	if help != "" {
		help = "; see " + help
	}
	fmt.Fprintf(d.cmd.OutOrStdout(), "%-7s  %s: %s%s\n", level, refusal.Visible(what), refusal.Visible(text), help)
}

// found prints the result of a check that fetches from a server, or from none.
func (d *doctor) found(what, server, found string, err error) {
	if err == nil {
		d.say(levelOK, what, found, "")
		return
	}
	level, help := levelFault, ""
	if _, doubt := errors.AsType[config.Doubt](err); doubt {
		level = levelWarning
	}
	if failure, ok := errors.AsType[*refusal.Error](err); ok {
		help = failure.Reason.Help()
	}
	text := err.Error()
	if failure, ok := errors.AsType[*refusal.Error](err); ok && failure.Detail != "" {
		text = strings.Replace(text, failure.Error(), failure.Detail, 1) // without what users read
	}
	if server != "" && level == levelFault && unanswered(err) {
		if d.serves(server) {
			level, text = levelWarning, text+"; this config serves it: does Caddy run with this config?"
		} else {
			text += "; is the URL right, and may this machine connect to it (name server, firewall, proxy)?"
		}
	}
	d.say(level, what, advised(text), help)
}

// unanswered reports whether a server did not answer.
func unanswered(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok || errors.Is(err, refusal.ProviderUnavailable)
}

// advised adds what to do if a file cannot be read. Caddy returns such errors as a text.
func advised(text string) string {
	if !strings.Contains(text, fs.ErrPermission.Error()) || strings.Contains(text, "sudo ") {
		return text
	}
	return text + "; the user who runs Caddy, and this command as that user, must be allowed to read it: see ls -l, " +
		"and set its owner and mode with chown and chmod"
}

// serves reports whether a site of the config has the URL.
func (d *doctor) serves(of string) bool {
	at, err := url.Parse(of)
	return err == nil && slices.ContainsFunc(d.sites, func(site webSite) bool { return site.has(at) })
}

func (d *doctor) run() (err error) {
	file := cmp.Or(flagsOf(d.cmd).String("config"), "of this folder")
	if d.config, err = loadConfig(flagsOf(d.cmd)); err != nil {
		d.say(levelFault, "config "+file, advised(strings.TrimPrefix(err.Error(), "--config: ")), "")
		return fmt.Errorf("faults in the config %s: 1", file)
	}
	ctx, cancel, err := d.load()
	if err != nil {
		d.say(levelFault, "config "+d.config.file, advised(err.Error()), "")
	} else {
		defer cancel()
		d.say(levelOK, "config "+d.config.file, "it is valid", "")
		what, found, err := checkStorage(ctx)
		d.found(what, "", found, err)
		d.sites = sitesOf(ctx)
		d.checkServers(ctx)
		for _, check := range config.Checks(ctx) {
			timed, stop := context.WithTimeout(ctx, checkTimeout)
			found, err := check.Run(timed)
			stop()
			d.found(check.What, check.Server, found, err)
		}
	}
	if d.faults > 0 {
		return fmt.Errorf("faults in %s: %d", d.config.file, d.faults)
	}
	return nil
}

// load provisions the config, and prints the warnings that Caddy logs meanwhile.
func (d *doctor) load() (caddy.Context, context.CancelFunc, error) {
	log, err := os.CreateTemp("", "caddy-jwt-doctor-*.log")
	if err != nil {
		return caddy.Context{}, nil, err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	cfg, err := d.config.parsed()
	if err != nil {
		return caddy.Context{}, nil, err
	}
	cfg.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{
		Level: "WARN",
		WriterRaw: caddyconfig.JSONModuleObject(
			map[string]any{"filename": log.Name(), "roll": false}, "output", "file", nil,
		),
	}}}}
	ctx, cancel, err := provisioned(cfg)
	d.showLog(log)
	return ctx, cancel, err
}

// showLog prints the warnings of this plugin.
func (d *doctor) showLog(log io.Reader) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct{ Logger, Msg, Help, Error string }
		if json.Unmarshal(lines.Bytes(), &line) != nil || !strings.Contains(line.Logger, "jwt") {
			continue
		}
		if line.Error != "" {
			line.Msg += ": " + line.Error
		}
		d.say(levelWarning, "config "+d.config.file, line.Msg, line.Help)
	}
}

// checkStorage checks the files of this plugin in Caddy's storage.
func checkStorage(ctx caddy.Context) (what, found string, err error) {
	what = fmt.Sprintf("Caddy's storage, %v", ctx.Storage())
	files, ok := ctx.Storage().(*certmagic.FileStorage)
	if !ok {
		_, err := ctx.Storage().List(ctx, "jwt", false)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return what, "it can be read", err
	}
	what = "Caddy's storage, " + files.Path
	var all []string
	err = filepath.WalkDir(filepath.Join(files.Path, "jwt"), func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return what, "it has nothing of this plugin yet; Caddy creates that when it starts",
			owner.Writable(filepath.Join(files.Path, "jwt"))
	}
	if owned := owner.SameAs(files.Path, all...); err == nil || owned != nil {
		err = owned
	}
	if err == nil {
		err = owner.Writable(filepath.Join(files.Path, "jwt"))
	}
	return what, fmt.Sprintf("its files belong to the owner of the folder: %d", len(all)), err
}

const plainHTTP = "it is served by plain http, and no trusted_proxies are set, so browsers of other machines cannot " +
	"log in, and passwords can be read on their way; serve it by https: a site address without http://, and no " +
	"auto_https off; or, if a proxy in front has https, set trusted_proxies to its address, as in: " +
	"servers { trusted_proxies static private_ranges }"

// checkServers looks for accounts that are served by plain http to other machines.
func (d *doctor) checkServers(ctx caddy.Context) {
	app, err := ctx.App("http")
	if err != nil {
		return // the config has no sites
	}
	servers, _ := app.(*caddyhttp.App)
	var root struct {
		Apps struct {
			HTTP struct{ Servers map[string]map[string]any }
		}
	}
	text, err := json.Marshal(d.config.content)
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(text)).Decode(&root)
	}
	if err != nil || servers == nil {
		return
	}
	for name, server := range servers.Servers {
		of := &siteConfig{content: any(root.Apps.HTTP.Servers[name])}
		for _, site := range of.handlers("jwt_accounts") {
			what := "https of the accounts at " + strings.Join(site.places, "; ")
			switch {
			case len(server.TLSConnPolicies) > 0:
				d.say(levelOK, what, "it is served by https", "")
			case isLocal(server.Listen, site.places):
				d.say(levelOK, what, "it is served by http to this machine only", "")
			case root.Apps.HTTP.Servers[name]["trusted_proxies"] == nil:
				d.say(levelWarning, what, plainHTTP, "")
			default:
				d.say(levelOK, what, "it is served by http, with https at the trusted proxies in front", "")
			}
		}
	}
}

// isLocal reports whether only this machine reaches what listens on these addresses, or has hosts
// that all are this machine.
func isLocal(listen, places []string) bool {
	all := true
	for _, address := range listen {
		parsed, err := caddy.ParseNetworkAddress(address)
		host := ""
		if err == nil {
			host = parsed.Host
		}
		ip, ipErr := netip.ParseAddr(host)
		all = all && err == nil && (parsed.IsUnixNetwork() || host == "localhost" || ipErr == nil && ip.IsLoopback())
	}
	if all && len(listen) > 0 {
		return true
	}
	hosts := 0
	for _, place := range places {
		for word := range strings.FieldsFuncSeq(place, func(r rune) bool { return r == ' ' || r == ',' }) {
			if strings.ContainsAny(word, "/:*") {
				continue
			}
			if hosts++; !thismachine.Is(word) {
				return false
			}
		}
	}
	return hosts > 0
}
