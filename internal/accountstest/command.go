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

// CommandLine runs the commands of a test, with a user store or a config.
type CommandLine struct {
	testing.TB
	Where []string
}

// Run runs `caddy jwt …` with this standard input.
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

// Must runs a command that must succeed, and returns its output.
func (c *CommandLine) Must(stdin string, args ...string) string {
	c.Helper()
	stdout, stderr, err := c.Run(stdin, args...)
	if err != nil {
		c.Fatalf("%q: %v\n%s", args, err, stderr)
	}
	return stdout
}

// Refuses runs a command that must fail with this text in its error.
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

// Has checks that an output contains each of the texts.
func Has(t testing.TB, output string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(output, want) {
			t.Errorf("it has no %q:\n%s", want, output)
		}
	}
}

// ModuleContext returns a context to provision modules without a site.
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

// OpenUsers opens the store at a path until the test ends, as a second process does beside the
// running site.
func OpenUsers(t testing.TB, path string) store.UserStore {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()}) // it logs to the site's log
	t.Cleanup(cancel)
	users := openUsers(t, ctx, path)
	t.Cleanup(func() { _ = users.Cleanup() })
	return users
}

// CreateStore creates an empty store at a path, as a server does when it starts.
func CreateStore(t testing.TB, path string) {
	t.Helper()
	WithUsers(t, path, func(users store.UserStore) {
		if _, err := users.Users(context.Background(), "", 1); err != nil {
			t.Fatal(err)
		}
	})
}

// WithUsers opens the store at a path, as a server does, and calls a function with it.
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

// RunSite runs a site with this storage.
func RunSite(t testing.TB, s *sitetest.Site, body, storage string) {
	t.Helper()
	s.Load(body, storage)
	sitetest.StopAfter(t)
}
