package cli_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The shell is offered users, API keys and clients of the store, and nothing else is printed.
func TestCompletion(t *testing.T) {
	binary, path := caddytest.Binary(t), filepath.Join(sitetest.TempDir(t), "users.db")
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	for _, email := range []string{"alice@example.com", "alan@example.com", "bob@example.com"} {
		c.Must("", "user", "add", "--create", "--no-password", email)
	}
	key := strings.Split(c.Must("", "key", "add", "--subject", "billing"), "_")[1][:12]
	if output, err := exec.Command(binary, "jwt", "client", "add", "--store", path, "--public", "--redirect-uri",
		"https://wiki.example/", "wiki").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, output)
	}
	for _, typo := range []string{"alcie@example.com", "laice@example.com", "aalice@example.com", "aice@example.com"} {
		c.Refuses("", "did you mean alice@example.com?", "user", "show", typo)
	}
	c.Refuses("", "did you mean bob@example.com?", "user", "show", "bbo@example.com")
	c.Refuses("", "did you mean bob@example.com?", "user", "show", "obb@example.com")
	if _, _, err := c.Run("", "user", "show", "nobody@example.org"); err == nil || strings.Contains(err.Error(), "mean") {
		t.Errorf("a name like no other: %v", err)
	}
	for line, want := range map[string]string{
		"user show --store " + path + " al":               "alan@example.com\nalice@example.com\n",
		"user factors reset --store " + path + " AL":      "alan@example.com\nalice@example.com\n",
		"user show --store " + path + " alice@example.c":  "alice@example.com\n",
		"user show --store " + path + " x":                "",
		"user show --store " + path + " bob@example.com ": "",
		"user show --store " + path + "2 al":              "",
		"user add --store " + path + " al":                "",
		"key revoke --store " + path + " ":                key + "\tbilling \n",
		"client delete --store " + path + " w":            "wiki\n",
		"client update --store " + path + " x":            "",
	} {
		words := strings.Split(line, " ")
		completion := exec.Command(binary, append([]string{"__complete", "jwt"}, words...)...)
		output, err := completion.Output()
		offered, _, found := strings.Cut(string(output), ":")
		if strings.HasPrefix(line, "user add") { // files, as nothing is known about it
			offered, found = "", true
		}
		if err != nil || !found || strings.TrimSpace(offered) != strings.TrimSpace(want) {
			t.Errorf("%q: %v %q, expected %q", line, err, output, want)
		}
	}
}
