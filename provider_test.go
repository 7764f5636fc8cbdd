package caddyjwt_test

import (
	stdjson "encoding/json"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2"
)

func providerConfig(t testing.TB, address, provider string) []byte {
	t.Helper()
	return []byte(`{
		"admin": {"disabled": true, "config": {"persist": false}},
		"storage": {"module": "file_system", "root": ` + sitetest.Marshal(t, t.TempDir()) + `},
		"apps": {"http": {"servers": {"s": {
			"listen": ["` + address + `"],
			"automatic_https": {"disable": true},
			"routes": [{"handle": [
				{"handler": "authentication", "providers": {
					"jwt_bearer": ` + provider + `,
					"http_basic": {"hash": {"algorithm": "bcrypt"}, "accounts": [{"username": "carol", "password": ` +
		sitetest.Marshal(t, sitetest.BcryptHash(t, "opensesame")) + `}]}
				}},
				{"handler": "static_response", "body": "user=[{http.auth.user.id}] email=[{http.auth.user.email}]"}
			]}]
		}}}}
	}`)
}

// Caddy's own authentication handler accepts a user whom any of its providers knows.
func TestProviderBesideBasicAuth(t *testing.T) {
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t)}
	config := providerConfig(t, strings.TrimPrefix(s.URL, "http://"), `{"issuers": [{"secrets": [{"value": "`+
		sitetest.Secret+`"}]}], "require": [{"role": ["admin"]}]}`)
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	admin := sitetest.HS256(t, sitetest.JSON{"roles": "admin", "email": "alice@example.com"})
	if got := s.Bearer("/", admin); got.Status != 200 || got.Body != "user=[alice] email=[alice@example.com]" {
		t.Errorf("bearer: %d %q", got.Status, got.Body)
	}
	if got := s.Get("/", "Authorization: Basic "+sitetest.BasicCredentials("carol", "opensesame")); got.Status != 200 ||
		!strings.HasPrefix(got.Body, "user=[carol]") {
		t.Errorf("basic: %d %q", got.Status, got.Body)
	}
	s.MustAnswer(401, s.Get("/"), "neither")
	s.MustAnswer(401, s.Bearer("/", sitetest.HS256(t, nil)), "rule not met")
	if got := s.Bearer("/", admin+"x"); got.Status != 401 || got.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("tampered: %d %v", got.Status, got.Header)
	}
}

// Rules see the user, as in the handler; nothing of a refused user is left where another
// provider lets the request in.
func TestProviderRulesSeeTheUser(t *testing.T) {
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t)}
	config := providerConfig(t, strings.TrimPrefix(s.URL, "http://"), `{"issuers": [{"secrets": [{"value": "`+
		sitetest.Secret+`"}]}], "from": [{"query": "token"}],
		"require": [{"expression": "{http.auth.user.role} == 'admin'"}]}`)
	if err := caddy.Load(config, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	admin := sitetest.HS256(t, sitetest.JSON{"role": "admin", "email": "alice@example.com"})
	if got := s.Get("/?token=" + admin); got.Status != 200 || got.Body != "user=[alice] email=[alice@example.com]" {
		t.Errorf("admin: %d %q", got.Status, got.Body)
	}
	guest := sitetest.HS256(t, sitetest.JSON{"role": "guest", "email": "alice@example.com"})
	s.MustAnswer(401, s.Get("/?token="+guest), "guest")
	basic := s.Get("/?token="+guest, "Authorization: Basic "+sitetest.BasicCredentials("carol", "opensesame"))
	if basic.Status != 200 ||
		basic.Body != "user=[carol] email=[]" && basic.Body != "user=[carol] email=[{http.auth.user.email}]" {
		t.Errorf("basic beside a refused token: %d %q", basic.Status, basic.Body)
	}
}

func TestProviderRefusesHandlerOptions(t *testing.T) {
	for _, option := range []string{
		`"optional": true`, `"public": ["/x"]`, `"allow_preflight": true`,
		`"strip_token": true`, `"claim_headers": [{"header": "X", "claim": "sub"}]`,
	} {
		var config caddy.Config
		text := providerConfig(
			t, "127.0.0.1:0", `{"issuers": [{"secrets": [{"value": "`+sitetest.Secret+`"}]}], `+option+`}`,
		)
		if err := stdjson.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&config); err == nil ||
			!strings.Contains(err.Error(), "only work in the `jwt` handler") {
			t.Errorf("%s: %v", option, err)
		}
	}
}
