package web_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
	gooidc "github.com/coreos/go-oidc/v3/oidc"
)

// Libraries that apps use verify the accounts' tokens, with the settings of their READMEs.
func TestTokensInOtherLibraries(t *testing.T) {
	const secret = "a-secret-of-at-least-32-bytes-for-both"
	const claims = "\ntoken_claims id sub name name\nprofile name"
	site := func(t *testing.T, options string) (s *sitetest.Site, token string) {
		s = sitetest.AccountsSite(t, "")
		s.Load(sitetest.AccountsBody(sitetest.TempDir(t)+"/users.db", "issuer "+s.URL+claims+"\n"+options), sitetest.TempDir(t))
		s.SignedUp("alice@example.com")
		accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Profile = map[string]any{"name": "Alice"} })
		return s, s.LoggedIn("alice@example.com").Token
	}
	t.Run("go-oidc", func(t *testing.T) {
		s, token := site(t, "algorithm RS256")
		provider, err := gooidc.NewProvider(t.Context(), s.URL)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := provider.Verifier(&gooidc.Config{ClientID: s.URL}).Verify(t.Context(), token); err != nil {
			t.Error(err)
		}
		if _, err := provider.Verifier(&gooidc.Config{ClientID: "another"}).Verify(t.Context(), token); err == nil {
			t.Error("for another audience, too")
		}
	})
	folder := caddytest.NPM(t, "testdata/verifiers")
	for library, options := range map[string]string{
		"express-jwt": "algorithm RS256", "passport-jwt": "algorithm RS256", "express-oauth2-jwt-bearer": "algorithm RS256",
		"express-oauth2-jwt-bearer strict": "", "LoopBack": "secret " + secret,
	} {
		t.Run(library, func(t *testing.T) {
			s, token := site(t, options)
			command := exec.Command("node", folder+"/verify.mjs", library, s.URL, s.URL, secret)
			command.Env = append(os.Environ(), "NO_PROXY=127.0.0.1")
			command.Stdin, command.Stderr = strings.NewReader(token+"\n"+token[:len(token)-8]+"AAAAAAAA\n"), os.Stderr
			output, err := command.Output()
			if err != nil {
				t.Fatal(err)
			}
			var good, bad struct{ Sub, Name, Error string }
			first, second, _ := strings.Cut(string(output), "\n")
			if json.Unmarshal([]byte(first), &good) != nil || json.Unmarshal([]byte(second), &bad) != nil {
				t.Fatalf("%s", output)
			}
			if want := sitetest.ClaimsOf(t, token)["sub"]; good.Sub != want || good.Name != "Alice" || bad.Error == "" {
				t.Errorf("%s, user %v", output, want)
			}
		})
	}
}
