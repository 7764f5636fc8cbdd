package migration_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// What oauth2-proxy let in gets in, with its headers: users of the domain and the group, tokens of the
// issuer, and the paths without a log-in.
func TestOAuth2Proxy(t *testing.T) {
	t.Setenv("CLIENT_ID", "site")
	t.Setenv("CLIENT_SECRET", "the-secret-of-the-site")
	p := sitetest.NewOpenIDProvider(t)
	s := runAfter(t, replaced(t, blocks(t, "docs/migration/oauth2-proxy.md")[0], "https://id.example.com", p.URL))

	p.Lie(sitetest.Lies{More: sitetest.JSON{"groups": []string{"staff", "dev"}}})
	alice := s.Visitor()
	if to := alice.Get("/notes").To(t).Path; to != "/auth/login" {
		t.Errorf("a browser is sent to %s", to)
	}
	if to := alice.Get("/auth/login?return_to=/notes").To(t).Path; to != "/authorize" {
		t.Errorf("auto_login leads to %s", to)
	}
	id := alice.MustBeIn(alice.LogInBy("company"))
	got := alice.Do(http.MethodGet, "/notes", nil, "X-Forwarded-User: root", "X_Forwarded_Email: root@example.com")
	for _, header := range []string{
		"X-Forwarded-User: " + id, "X-Forwarded-Email: alice@example.com", "X-Forwarded-Groups: dev,staff",
	} {
		if !strings.Contains(got.Body, header+"\r\n") || strings.Contains(got.Body, "root") {
			t.Errorf("the app does not get %s: %d %s", header, got.Status, got.Body)
		}
	}

	for name, lies := range map[string]sitetest.Lies{
		"another group":  {Subject: "bob", Email: "bob@example.com", More: sitetest.JSON{"groups": []string{"dev"}}},
		"another domain": {Subject: "eve", Email: "eve@example.org", More: sitetest.JSON{"groups": []string{"staff"}}},
		"an unverified address": {
			Subject: "ed", Email: "ed@example.com", Unverified: true, More: sitetest.JSON{"groups": []string{"staff"}},
		},
	} {
		p.Lie(lies)
		v := s.Visitor()
		if got := v.LogInBy("company"); got.Status != http.StatusForbidden || v.Get("/auth/whoami").Status != 401 {
			t.Errorf("%s: %d %s", name, got.Status, got.Brief())
		}
	}

	token := func(audience string) string {
		now := time.Now().Unix()
		return p.Sign(sitetest.JSON{"iss": p.URL, "aud": audience, "sub": "job", "iat": now, "exp": now + 60}, p.Key)
	}
	if got := s.Bearer("/notes", token("my-api")); !strings.Contains(got.Body, "X-Forwarded-User: job\r\n") {
		t.Errorf("a bearer token: %d %s", got.Status, got.Body)
	}
	s.MustAnswer(401, s.Bearer("/notes", token("another")), "for another audience")
	if got := s.Post("/auth/signup", sitetest.CredentialsOf("mallory@example.com")); got.Status != 404 {
		t.Errorf("a sign-up with a password: %d %s", got.Status, got.Body)
	}
	s.MustAnswer(401, s.Get("/notes"), "a program")
	s.MustAnswer(200, s.Get("/static/x"), "a path without a log-in")
	s.MustAnswer(200, s.Get("/health"), "the health check")
}

// A server in front asks as it asked oauth2-proxy: who is logged in, and whether.
func TestOAuth2ProxyVerify(t *testing.T) {
	t.Setenv("CLIENT_ID", "site")
	t.Setenv("CLIENT_SECRET", "the-secret-of-the-site")
	p := sitetest.NewOpenIDProvider(t)
	page := blocks(t, "docs/migration/oauth2-proxy.md")
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t)}
	t.Setenv("XDG_DATA_HOME", sitetest.TempDir(t)) // where accounts are by default
	sitetest.RunSites(t, sitetest.TempDir(t)+"/log.json", replaced(
		t, page[len(page)-1], "https://id.example.com", p.URL, "app.example.com {", s.URL+" {",
	))
	v := s.Visitor()
	const program = "Accept: application/json"
	got := v.Do(http.MethodGet, "/verify", nil, program)
	if got.Status != 401 || got.Header.Get("X-Auth-Request-User") != "" {
		t.Errorf("without a session: %d %v", got.Status, got.Header)
	}
	id := v.MustBeIn(v.LogInBy("company"))
	got = v.Do(http.MethodGet, "/verify", nil, program)
	if got.Status != 204 || got.Header.Get("X-Auth-Request-User") != id ||
		got.Header.Get("X-Auth-Request-Email") != "alice@example.com" {
		t.Errorf("with a session: %d %v", got.Status, got.Header)
	}
}
