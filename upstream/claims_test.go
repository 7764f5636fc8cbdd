package upstream

import (
	"net/http"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
)

type source map[string]any

// Claims implements ClaimSource.
func (s source) Claims(*http.Request, *jwt.Token) (map[string]any, error) { return s, nil }

// A source adds claims, but does not replace those on which the meaning of a token depends, nor
// those of the credential that the config lists. Other claims yield another token.
func TestClaimSource(t *testing.T) {
	var signed map[string]any
	times := 0
	m := NewMinter(Options{
		Issuer: "https://site.example", Audience: []string{"https://api.example"}, Lifetime: time.Minute,
		Claims: []string{"email"}, Now: time.Now,
		Sign: func(_ string, claims map[string]any) (string, error) {
			signed = claims
			times++
			return time.Now().String(), nil
		},
	})
	user := jwt.NewToken(jwt.Claims{"sub": "alice", "email": "alice@example.com"}, "alice", time.Time{})
	evil := source{"tenant": "a", "email": "root@example.com"}
	for _, name := range Reserved {
		evil[name] = "evil"
	}
	token := func(s source) string {
		t.Helper()
		more, err := Collect([]ClaimSource{s, source{"tenant": "second", "plan": "pro"}}, nil, user)
		if err != nil {
			t.Fatal(err)
		}
		text, err := m.Token(user, more)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	first := token(evil)
	for name, value := range signed {
		if value == "evil" {
			t.Errorf("%s was replaced", name)
		}
	}
	if signed["tenant"] != "a" || signed["plan"] != "pro" || signed["email"] != "alice@example.com" {
		t.Errorf("claims %v", signed)
	}
	if token(evil) != first || times != 1 {
		t.Error("the same claims were signed twice")
	}
	if token(source{"tenant": "b"}) == first || signed["tenant"] != "b" {
		t.Error("another claim, and the same token")
	}
}
