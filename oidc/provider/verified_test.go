package provider_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// The claim email_verified of ID tokens and userinfo is that of the account.
func TestEmailVerified(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	for _, verified := range []bool{false, true} {
		user, err := s.store().UserByEmail(t.Context(), "alice@example.com")
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.store().UpdateUser(t.Context(), user.ID, time.Now(), func(u *store.User) error {
			u.EmailVerified = verified
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		idToken := chrome.Get(s.authorizeURL("web", url.Values{"response_type": {"id_token"}})).To(t)
		values, _ := url.ParseQuery(idToken.Fragment)
		if claims := sitetest.ClaimsOf(t, values.Get("id_token")); claims["email_verified"] != verified {
			t.Errorf("ID token: %v, expected %v", claims["email_verified"], verified)
		}
		access := chrome.redeem("web", chrome.code("web", nil)).JSON(t)["access_token"].(string)
		info := chrome.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+access)
		if !strings.Contains(info.Body, `"email_verified":`+map[bool]string{true: "true", false: "false"}[verified]) {
			t.Errorf("userinfo: %s, expected %v", info.Body, verified)
		}
	}
}
