package caddyjwt_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

func resourceSite(t *testing.T, matcher, options string) *sitetest.Site {
	t.Helper()
	return sitetest.Serve(t, `
	jwt `+matcher+` {
		issuer https://issuer.example {
			secret "`+sitetest.Secret+`"
		}
		resource http://localhost:8080/mcp
		`+options+`
	}
	respond ok`)
}

// A client that only knows the resource can find out where to get which token (RFC 9728).
func TestResource(t *testing.T) {
	for matcher, name := range map[string]string{"/mcp*": "a path", "": "the whole site"} {
		t.Run(name, func(t *testing.T) {
			s := resourceSite(t, matcher, "require scope orders\nrequire any scope read write")
			for _, path := range []string{
				"/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp",
			} {
				got := s.Get(path)
				s.MustAnswer(200, got, path)
				var document map[string]any
				if err := json.Unmarshal([]byte(got.Body), &document); err != nil {
					t.Fatal(err)
				}
				want := map[string]any{
					"resource": "http://localhost:8080/mcp", "authorization_servers": []any{"https://issuer.example"},
					"scopes_supported": []any{"orders", "read", "write"}, "bearer_methods_supported": []any{"header"},
				}
				if !reflect.DeepEqual(document, want) || got.Header.Get("Access-Control-Allow-Origin") != "*" {
					t.Errorf("%s: %s, %v", path, got.Body, got.Header)
				}
				preflight := s.Do(
					http.MethodOptions, path, "Origin: https://client.example",
					"Access-Control-Request-Method: GET", "Access-Control-Request-Headers: mcp-protocol-version",
				)
				if preflight.Status != 204 || preflight.Header.Get("Access-Control-Allow-Headers") != "*" {
					t.Errorf("preflight: %v", preflight)
				}
				s.MustAnswer(405, s.Do(http.MethodPost, path), "POST")
			}
		})
	}
}

func TestResourceChallenge(t *testing.T) {
	s := resourceSite(t, "", "require scope orders")
	const where = `resource_metadata="http://localhost:8080/.well-known/oauth-protected-resource/mcp"`
	meant := func(changes sitetest.JSON) string {
		changes["aud"] = "http://localhost:8080/mcp"
		return sitetest.HS256(t, changes)
	}
	for name, of := range map[string]struct {
		headers []string
		status  int
		wanted  string
	}{
		"control":  {[]string{"Authorization: Bearer " + meant(sitetest.JSON{"scope": "orders"})}, 200, ""},
		"no token": {nil, 401, `Bearer realm="restricted", ` + where + `, scope="orders"`},
		"expired":  {[]string{"Authorization: Bearer " + meant(sitetest.JSON{"exp": 1})}, 401, `error="invalid_token"`},
		"another resource": {
			[]string{"Authorization: Bearer " + sitetest.HS256(t, sitetest.JSON{"aud": "http://localhost:8080/mcp/"})},
			401, `error_description="the token is meant for another audience"`,
		},
		"no audience": {[]string{"Authorization: Bearer " + sitetest.HS256(t, nil)}, 401, `error="invalid_token"`},
		"without the scope": {
			[]string{"Authorization: Bearer " + meant(sitetest.JSON{})}, 403, `error="insufficient_scope"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.Get("/mcp", of.headers...)
			s.MustAnswer(of.status, got, name)
			challenge := strings.Join(got.Header.Values("WWW-Authenticate"), "\n")
			if of.status == 200 {
				return
			}
			for _, part := range []string{where, of.wanted, `scope="orders"`} {
				if !strings.Contains(challenge, part) {
					t.Errorf("challenge: %s\nexpected in it: %s", challenge, part)
				}
			}
			if got.Header.Get("Access-Control-Expose-Headers") != "WWW-Authenticate" {
				t.Errorf("a page cannot read the challenge: %v", got.Header)
			}
		})
	}
}
