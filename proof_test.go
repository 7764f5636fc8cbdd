package caddyjwt_test

import (
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A token that is bound to a key or certificate of the client is not valid without it (RFC 9449
// §7.2, RFC 8705 §3).
func TestBoundTokens(t *testing.T) {
	s := sitetest.Serve(t, `
	jwt {
		secret "`+sitetest.Secret+`"
	}
	respond ok`)
	for name, of := range map[string]struct {
		cnf    any
		status int
	}{
		"control: not bound":   {nil, 200},
		"DPoP":                 {sitetest.JSON{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}, 401},
		"mutual TLS":           {sitetest.JSON{"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}, 401},
		"a key (RFC 7800)":     {sitetest.JSON{"jwk": sitetest.JSON{"kty": "OKP"}}, 401},
		"a method of tomorrow": {sitetest.JSON{"x": 1}, 401},
		"not an object":        {"0ZcOCORZNYy", 401},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.Bearer("/", sitetest.HS256(t, sitetest.JSON{"cnf": of.cnf}))
			s.MustAnswer(of.status, got, name)
			if of.status == 401 && !strings.Contains(got.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
				t.Errorf("challenge: %s", got.Header.Get("WWW-Authenticate"))
			}
		})
	}
}
