package provider_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A user without an address logs in at a client by a name, and has no claims of an address.
func TestUserNameClaims(t *testing.T) {
	s := serveClients(t)
	s.LoadText(strings.Replace(s.text(), "throttle off", "throttle off\n identifier any", 1))
	for email, name := range map[string]string{"": "Bob", "alice@example.com": "Alice", "carol@example.com": ""} {
		body := sitetest.JSON{"password": sitetest.GoodPassword}
		for field, value := range map[string]string{"email": email, "username": name} {
			if value != "" {
				body[field] = value
			}
		}
		s.MustAnswer(201, s.Post("/auth/signup", body), "sign-up")
		b := s.browser()
		b.Email = strings.ToUpper(name) // which goes into the log-in page
		if name == "" {
			b.Email = email
		}
		scope := url.Values{"scope": {"openid profile email"}}
		code := b.GoOn(s.authorizeURL("web", scope)).Query().Get("code")
		tokens := b.redeem("web", code).JSON(t)
		info := b.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+tokens["access_token"].(string)).JSON(t)
		asked := b.Get(s.authorizeURL("web", url.Values{
			"response_type": {"id_token"}, "scope": {"openid profile email"},
		})).To(t)
		values, _ := url.ParseQuery(asked.Fragment)
		for what, claims := range map[string]sitetest.JSON{"userinfo": info, "ID token": sitetest.ClaimsOf(t, values.Get("id_token"))} {
			gotName, _ := claims["preferred_username"].(string)
			gotEmail, _ := claims["email"].(string)
			_, verified := claims["email_verified"]
			if gotName != name || gotEmail != email || verified != (email != "") {
				t.Errorf("%s of %q %q: %v", what, name, email, claims)
			}
		}
	}
}
