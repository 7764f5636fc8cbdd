package migration_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The token is accepted where jwtauth accepted it, and the app gets the same headers.
func TestGgicciCaddyJWT(t *testing.T) {
	key := []byte(sitetest.Secret)
	t.Setenv("JWT_SECRET_BASE64", base64.StdEncoding.EncodeToString(key))
	s := runAfter(t, replaced(
		t, blocks(t, "docs/migration/ggicci-caddy-jwt.md")[0], "api.example.com {", "app.example.com {",
	))
	token := func(changes sitetest.JSON) string {
		claims := sitetest.JSON{
			"iss": "https://id.example.com", "aud": "https://files.example.com", "uid": 9007199254740993,
			"profile": sitetest.JSON{"name": "Alice"},
		}
		for name, value := range changes {
			claims[name] = value
		}
		return sitetest.Sign(t, "HS256", key, nil, sitetest.Claims(claims))
	}
	for _, as := range []string{"Authorization: Bearer ", "X-Api-Token: ", "Cookie: user_session="} {
		got := s.Get("/", as+token(nil), "X-User-Name: root")
		if !strings.Contains(got.Body, "\nX-User: 9007199254740993\r\nX-User-Name: Alice\r\n") {
			t.Errorf("%s: %d %s", as, got.Status, got.Body)
		}
	}
	s.MustAnswer(401, s.Bearer("/", token(sitetest.JSON{"iss": "https://evil.example"})), "another issuer")
	s.MustAnswer(401, s.Bearer("/", token(sitetest.JSON{"aud": "https://other.example"})), "another audience")
	s.MustAnswer(401, s.Get("/"), "nothing")
}
