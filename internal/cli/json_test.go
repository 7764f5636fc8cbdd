package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// inspect --json prints what programs can read, also of a token that is refused or malformed.
func TestInspectJSON(t *testing.T) {
	file := filepath.Join(sitetest.TempDir(t), "site.conf") // a Caddyfile, whatever its name
	config := fmt.Sprintf(":1 {\njwt /api/* {\nsecret %q\n}\n}\n", sitetest.Secret)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	type inspected struct {
		Header, Claims map[string]any
		Error          string
		Handlers       []struct {
			Places   []string
			Accepted bool
			Verdict  string
		}
	}
	run := func(token string, args ...string) (got inspected, err error) {
		t.Helper()
		stdout, _, err := (&accountstest.CommandLine{TB: t}).Run(token, append([]string{"inspect", "--json"}, args...)...)
		if jsonErr := json.Unmarshal([]byte(stdout), &got); jsonErr != nil {
			t.Errorf("%v in %s", jsonErr, stdout)
		}
		return got, err
	}
	good := sitetest.HS256(t, nil)
	got, err := run(good, "--config", file)
	if err != nil || got.Header["alg"] != "HS256" || len(got.Handlers) != 1 || !got.Handlers[0].Accepted ||
		got.Handlers[0].Places[0] != ":1 /api/*" {
		t.Errorf("a token that is accepted: %v %+v", err, got)
	}
	if got, err := run(good); err != nil || got.Claims["exp"] == nil || got.Handlers != nil {
		t.Errorf("without a config: %v %+v", err, got)
	}
	got, err = run(sitetest.HS256(t, sitetest.JSON{"exp": 1}), "--config", file)
	if err == nil || len(got.Handlers) != 1 || got.Handlers[0].Accepted || !strings.Contains(got.Handlers[0].Verdict, "expired") {
		t.Errorf("a token that is refused: %v %+v", err, got)
	}
	if got, err := run("a.b"); err == nil || !strings.Contains(got.Error, "malformed_token") || got.Header != nil {
		t.Errorf("what is no token: %v %+v", err, got)
	}
	(&accountstest.CommandLine{TB: t}).Refuses(good, "no such file", "inspect", "--json", "--config", file+"2")
	if stdout, _, err := (&accountstest.CommandLine{TB: t}).Run(good, "inspect", "--config", file+"2"); err == nil ||
		stdout != "" {
		t.Errorf("the config is missing, and the token is printed: %v %s", err, stdout)
	}
}

func TestKeysListJSON(t *testing.T) {
	storage, dir := sitetest.TempDir(t), sitetest.TempDir(t)
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(dir, "log.json")}
	body := sitetest.AccountsBody(filepath.Join(dir, "users.db"), "")
	c := withCaddyfile(t, sitetest.GlobalOptions(storage, s.LogFile, "")+s.URL+" {\n"+body+"\n}")
	if stdout, _, err := c.Run("", "keys", "list"); err == nil || stdout != "" {
		t.Errorf("without a key: %v, %s", err, stdout)
	}
	accountstest.RunSite(t, s, body, storage)
	c.Must("", "keys", "rotate")
	var states []string
	for line := range strings.Lines(c.Must("", "keys", "list", "--json")) {
		var key struct {
			Issuer, Kid, State string
			Signs              bool
		}
		if err := json.Unmarshal([]byte(line), &key); err != nil || key.Issuer != "caddy-jwt-accounts" || key.Kid == "" {
			t.Errorf("%v in %s", err, line)
		}
		states = append(states, fmt.Sprintf("%v %.10s", key.Signs, key.State))
	}
	if got := strings.Join(states, ", "); got != "false signs from, true signs" {
		t.Error(got)
	}
}
