package accountstest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// CommandLine is where the commands of a test are run: with a user store, or a
// config.
type CommandLine struct {
	testing.TB
	Where []string
}

// Run runs `caddy jwt …` with a standard input.
func (c *CommandLine) Run(stdin string, args ...string) (stdout, stderr string, err error) {
	c.Helper()
	registered, root := caddycmd.Commands()["jwt"], &cobra.Command{
		Use: "caddy", SilenceUsage: true, SilenceErrors: true,
	}
	parent := &cobra.Command{Use: registered.Name}
	registered.CobraFunc(parent)
	root.AddCommand(parent)
	var out, errOut bytes.Buffer
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(append(append([]string{"jwt"}, args...), c.Where...))
	err = root.Execute()
	return out.String(), errOut.String(), err
}

// Must is what a command that succeeds writes.
func (c *CommandLine) Must(stdin string, args ...string) string {
	c.Helper()
	stdout, stderr, err := c.Run(stdin, args...)
	if err != nil {
		c.Fatalf("%q: %v\n%s", args, err, stderr)
	}
	return stdout
}

// Refuses runs a command that must fail, with this in its error.
func (c *CommandLine) Refuses(stdin, want string, args ...string) {
	c.Helper()
	stdout, stderr, err := c.Run(stdin, args...)
	if err == nil || !strings.Contains(err.Error(), want) {
		c.Errorf("%q: the error is %v, expected %q; output %q, %q", args, err, want, stdout, stderr)
	}
	for _, text := range []string{stdout, stderr, fmt.Sprint(err)} {
		if secret := strings.TrimSpace(stdin); secret != "" && strings.Contains(text, secret) {
			c.Errorf("%q shows its input: %q", args, text)
		}
	}
}

// Has checks that an output has each of the texts.
func Has(t testing.TB, output string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(output, want) {
			t.Errorf("it has no %q:\n%s", want, output)
		}
	}
}

// ModuleContext is a context in which modules are provisioned without a site.
func ModuleContext(t testing.TB) (caddy.Context, context.CancelFunc) {
	t.Helper()
	quiet := &caddy.CustomLog{BaseLog: caddy.BaseLog{Level: "ERROR"}}
	base, err := caddy.ProvisionContext(&caddy.Config{
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: quiet}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return caddy.NewContext(base)
}

// OpenUsers is the store at a path, as a second process opens it beside the site
// that runs, until the test ends.
func OpenUsers(t testing.TB, path string) store.UserStore {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()}) // its log is the site's
	t.Cleanup(cancel)
	users := openUsers(t, ctx, path)
	t.Cleanup(func() { _ = users.Cleanup() })
	return users
}

// WithUsers calls a function with the store at a path, as a server opens it.
func WithUsers(t testing.TB, path string, do func(store.UserStore)) {
	t.Helper()
	ctx, cancel := ModuleContext(t)
	defer cancel()
	users := openUsers(t, ctx, path)
	defer func() {
		if err := users.Cleanup(); err != nil {
			t.Error(err)
		}
	}()
	do(users)
}

func openUsers(t testing.TB, ctx caddy.Context, path string) *filestore.Store {
	t.Helper()
	users := &filestore.Store{Path: path}
	if err := users.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return users
}

// RunSite runs a site whose storage is known.
func RunSite(t testing.TB, s *sitetest.Site, body, storage string) {
	t.Helper()
	s.Load(body, storage)
	sitetest.StopAfter(t)
}
