package provider_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// The program oauth2-proxy, with its defaults, in front of an application: users with a verified
// address log in by the provider, and programs come in with access tokens.
func TestOAuth2Proxy(t *testing.T) {
	caddytest.Needs(t, "oauth2-proxy")
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s", r.Header.Get("X-Forwarded-Email"))
	}))
	t.Cleanup(app.Close)
	proxy := sitetest.FreeLocalhost(t)
	s := serve(t, `access_token_algorithm RS256
		client proxy {
			secret `+appSecret+`
			redirect_uri http://`+proxy+`/oauth2/callback
			grant_types authorization_code refresh_token client_credentials
			consent never
		}`, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	said := func() string {
		text, _ := os.ReadFile(log.Name())
		return string(text)
	}
	command := exec.Command("oauth2-proxy",
		"--http-address", proxy, "--upstream", app.URL, "--email-domain", "*",
		"--provider", "oidc", "--oidc-issuer-url", s.URL, "--redirect-url", "http://"+proxy+"/oauth2/callback",
		"--client-id", "proxy", "--client-secret", appSecret, "--code-challenge-method", "S256",
		"--cookie-secret", base64.URLEncoding.EncodeToString(make([]byte, 32)), "--cookie-secure=false",
		"--skip-provider-button", "--skip-jwt-bearer-tokens", "--extra-jwt-issuers", s.URL+"="+s.URL,
	)
	command.Stdout, command.Stderr = log, log
	scenario.Start(t, command)
	sitetest.Eventually(t, "oauth2-proxy answers", func() bool {
		got, err := http.Get("http://" + proxy + "/ping")
		if err != nil {
			return false
		}
		got.Body.Close()
		return got.StatusCode == http.StatusOK
	})

	logIn := func() sitetest.Reply {
		back := chrome.GoOn(chrome.Get("http://" + proxy + "/films?year=1972").Header.Get("Location"))
		return chrome.Get(back.String())
	}
	if got := logIn(); got.Status != http.StatusForbidden {
		t.Errorf("a user whose address is not verified: %d %s", got.Status, got.Body)
	}
	user, err := s.store().UserByEmail(t.Context(), "alice@example.com")
	if err == nil {
		_, err = s.store().UpdateUser(t.Context(), user.ID, time.Now(), func(u *store.User) error {
			u.EmailVerified = true
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := logIn(); got.Status != http.StatusFound || got.Header.Get("Location") != "/films?year=1972" {
		t.Errorf("the log-in leads to %q: %d %s", got.Header.Get("Location"), got.Status, got.Body)
	}
	if got := chrome.Get("http://" + proxy + "/films"); got.Body != "hello alice@example.com" {
		t.Errorf("logged in: %d %s\n%s", got.Status, got.Body, said())
	}

	program := s.browser()
	token := program.Post("/oidc/token", url.Values{"grant_type": {"client_credentials"}, "resource": {s.URL}},
		sitetest.Basic("proxy", appSecret)).JSON(t)["access_token"].(string)
	with := func(token string) sitetest.Reply {
		return program.Do(http.MethodGet, "http://"+proxy+"/films", nil, "Authorization: Bearer "+token)
	}
	if got := with(token); got.Status != http.StatusOK || !strings.HasPrefix(got.Body, "hello") {
		t.Errorf("access token of a program: %d %s\n%s", got.Status, got.Body, said())
	}
	if got := with(token[:len(token)-8] + "AAAAAAAA"); got.Status == http.StatusOK {
		t.Errorf("a forged access token: %d %s", got.Status, got.Body)
	}
}
