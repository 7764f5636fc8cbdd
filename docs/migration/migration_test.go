package migration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var caddyfileBlock = regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$")

// blocks returns the Caddyfiles of a page.
func blocks(t *testing.T, page string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range caddyfileBlock.FindAllStringSubmatch(string(text), -1) {
		found = append(found, block[1])
	}
	return found
}

// replaced returns a text with each first text of the pairs, which must be in it, replaced by the second.
func replaced(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("there is no %q in\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// The Caddyfiles with log-ins at other providers, and with a provider, are valid. Those without are
// validated by the package docs.
func TestDocsCaddyfiles(t *testing.T) {
	for name, value := range map[string]string{
		"XDG_DATA_HOME": sitetest.TempDir(t), "CLIENT_ID": "site", "CLIENT_SECRET": secret,
		"WIKI_SECRET": secret, "PHOTOS_SECRET": secret,
		"GITHUB_CLIENT_ID": "site", "GITHUB_CLIENT_SECRET": secret, "GOOGLE_CLIENT_ID": "site",
		"GOOGLE_CLIENT_SECRET": secret, "ENTRA_CLIENT_ID": "site", "ENTRA_CLIENT_SECRET": secret,
	} {
		t.Setenv(name, value)
	}
	pages, err := filepath.Glob("docs/migration/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append(pages, "docs/login-with.md", "docs/one-login.md") {
		for i, block := range blocks(t, page) {
			if !strings.Contains(block, "login_with") && !strings.Contains(block, "oidc_provider") {
				continue
			}
			found++
			t.Run(fmt.Sprint(filepath.Base(page), i), func(t *testing.T) {
				config := strings.ReplaceAll(block, "/var/lib/caddy/", sitetest.TempDir(t)+"/")
				adapted, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), nil)
				if err == nil {
					err = sitetest.Validate(t, adapted)
				}
				if err != nil {
					t.Errorf("%v\n%s", err, block)
				}
			})
		}
	}
	if found < 6 {
		t.Errorf("%d Caddyfiles are found", found)
	}
}

const secret = "a-secret-of-the-site-0123456789"

// users makes users of a store, each with roles.
func users(t *testing.T, store string, roles map[string][]string) {
	t.Helper()
	command := &accountstest.CommandLine{TB: t, Where: []string{"--store", store}}
	for user, roles := range roles {
		var flags []string
		for _, role := range roles {
			flags = append(flags, "--role", role)
		}
		command.Must(sitetest.GoodPassword+"\n", slices.Concat([]string{"user", "add", "--create"}, flags, []string{user})...)
	}
}
