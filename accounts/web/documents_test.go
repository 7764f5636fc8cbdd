package web_test

import (
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A service that only knows the issuer can find the key set.
func TestIssuerDocuments(t *testing.T) {
	for name, of := range map[string]struct{ issuer, path string }{
		"name":           {"", "/auth"},
		"site":           {"http://SITE", ""},
		"site, slash":    {"http://SITE/", ""},
		"prefix":         {"http://SITE/auth", "/auth"},
		"another path":   {"http://SITE/tokens", "/tokens"},
		"another host":   {"https://id.example.com", "/auth"},
		"rs256, a key":   {"", "/auth"},
		"path in a case": {"http://SITE/Tokens", "/tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.AccountsSite(t, "")
			if of.issuer != "" {
				s.Load(sitetest.AccountsBody(
					sitetest.TempDir(t)+"/users.db",
					"issuer "+strings.Replace(of.issuer, "SITE", strings.TrimPrefix(s.URL, "http://"), 1),
				), sitetest.TempDir(t))
			}
			document := s.Get(of.path + "/.well-known/openid-configuration")
			s.MustAnswer(200, document, "the discovery document")
			t.Log(document.Body)
			s.MustAnswer(200, s.Get(of.path+"/.well-known/jwks.json"), "the key set")
		})
	}
}
