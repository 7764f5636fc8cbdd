package web_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// The tokens are those of RFC 9068, with the claims of `token_claims`, and fit into a cookie.
func TestTokenClaims(t *testing.T) {
	s := sitetest.AccountsSite(t, "token_claims id sub name name\ntoken_claims mail email team team\nprofile name")
	s.SignedUp("alice@example.com")
	of := func(profile map[string]any) sitetest.JSON {
		t.Helper()
		accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Profile = profile })
		token := s.LoggedIn("alice@example.com").Token
		s.MustAnswer(200, s.Bearer("/todos/", token), "its own token")
		return sitetest.ClaimsOf(t, token)
	}
	claims := of(map[string]any{"name": "Alice A.", "team": map[string]any{"id": 7}})
	if claims["id"] != claims["sub"] || claims["name"] != "Alice A." || claims["mail"] != "alice@example.com" ||
		fmt.Sprint(claims["team"]) != "map[id:7]" || claims["client_id"] != claims["iss"] {
		t.Errorf("%v", claims)
	}
	if claims = of(nil); claims["name"] != nil || claims["team"] != nil {
		t.Errorf("without properties: %v", claims)
	}
	claims = of(map[string]any{"name": strings.Repeat("x", 900), "team": strings.Repeat("y", 4000)})
	if claims["name"] == nil || claims["team"] != nil {
		t.Errorf("properties that are too long: %v", claims)
	}
}

// The algorithm of the key that Caddy creates. After a change, sessions go on with new tokens.
func TestAccountsAlgorithm(t *testing.T) {
	dir := sitetest.TempDir(t)
	body := func(options string) string {
		return sitetest.AccountsBody(filepath.Join(dir, "users.db"), options)
	}
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(dir, "log.json")}
	s.Load(body("signup open"), dir)
	t.Cleanup(func() { stopCaddy(t) })
	before := s.SignedUp("alice@example.com")
	for _, algorithm := range []string{"RS256", "EdDSA", "ES256"} {
		s.Load(body("signup open\nalgorithm "+algorithm), dir)
		user := s.LoggedIn("alice@example.com")
		first, _, _ := strings.Cut(user.Token, ".")
		header, _ := base64.RawURLEncoding.DecodeString(first)
		s.MustAnswer(200, s.Bearer("/todos/", user.Token), algorithm)
		document := s.Get("/auth/.well-known/openid-configuration").JSON(t)
		if !strings.Contains(string(header), `"alg":"`+algorithm+`"`) ||
			fmt.Sprint(document["id_token_signing_alg_values_supported"]) != "["+algorithm+"]" {
			t.Errorf("%s: header %s, metadata %v", algorithm, header, document)
		}
		var set struct{ Keys []struct{ Alg string } }
		if err := json.Unmarshal([]byte(s.Get("/auth/jwks.json").Body), &set); err != nil || len(set.Keys) != 1 ||
			set.Keys[0].Alg != algorithm {
			t.Errorf("%s: key set %+v %v", algorithm, set, err)
		}
		old := s.Bearer("/todos/", before.Token)
		if want := map[bool]int{true: 200, false: 401}[algorithm == "ES256"]; old.Status != want {
			t.Errorf("%s: the token of before: %d", algorithm, old.Status)
		}
	}
}

// Addresses are the same by JSON and by form: without the blanks that keyboards of phones add.
func TestEmailWithBlanks(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.JSON{
		"email": " bob@example.com ", "password": sitetest.GoodPassword,
	}), "sign-up")
	for _, email := range []string{"bob@example.com ", "\tbob@example.com", "bob@example.com"} {
		s.MustAnswer(200, s.Post("/auth/login", sitetest.JSON{"email": email, "password": sitetest.GoodPassword}), email)
	}
	for length, status := range map[int]int{64: 201, 65: 422} { // RFC 5321 §4.5.3.1.1
		s.MustAnswer(status, s.Post("/auth/signup", sitetest.JSON{
			"email": strings.Repeat("x", length) + "@example.com", "password": sitetest.GoodPassword,
		}), fmt.Sprint(length))
	}
}
