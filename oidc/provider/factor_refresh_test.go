package provider_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// A grant without a second factor is not refreshed once the site requires one of its user, whether it
// belongs to a session or outlives it. One with a factor is, and one of a trusted browser.
func TestThreatRefreshWithoutFactor(t *testing.T) {
	c := sitetest.SetClock(t)
	s := serve(t, strings.ReplaceAll(clientsOfTests, "%s", "consent never"), "")
	s.LoadText(strings.Replace(s.text(), "throttle off", "throttle off\nsecond_factor required board\nrefresh_lifetime 1h", 1))
	board := func(email string) {
		accountstest.ChangeUser(t, email, func(u *store.User) { u.Roles = []string{"board"} })
	}
	offline := url.Values{"scope": {"openid offline_access"}, "prompt": {"consent"}}
	grants := func(b *browser) (ofSession, beyond string) {
		t.Helper()
		ofSession = b.redeem("spa", b.code("spa", nil)).JSON(t)["refresh_token"].(string)
		beyond = b.redeem("app", b.code("app", offline)).JSON(t)["refresh_token"].(string)
		return ofSession, beyond
	}
	mustRefresh := func(b *browser, client string, token *string, may bool, why string) {
		t.Helper()
		got := b.refresh(client, *token)
		switch {
		case may && got.Status == 200:
			*token = got.JSON(t)["refresh_token"].(string)
		case may, got.Status != 400, got.JSON(t)["error"] != "invalid_grant",
			!strings.Contains(got.JSON(t)["error_description"].(string), "second factor"):
			t.Errorf("%s, %s: %d %s", why, client, got.Status, got.Body)
		}
	}

	alice := s.browser()
	alice.SignUp("alice@example.com")
	ofSession, beyond := grants(alice)
	mustRefresh(alice, "spa", &ofSession, true, "control: before")
	mustRefresh(alice, "app", &beyond, true, "control: before")
	board("alice@example.com")
	mustRefresh(alice, "spa", &ofSession, false, "without a factor")
	mustRefresh(alice, "app", &beyond, false, "without a factor")
	if to := alice.Get(alice.authorizeURL("spa", nil)).To(t); to.Path != "/auth/login" {
		t.Errorf("the same session gives another grant: %s", to)
	}

	bob := s.browser()
	token := s.SignedUp("bob@example.com").Token
	app, _ := accountstest.WithApp(s.Site, token)
	board("bob@example.com")
	logIn := func(trust string) {
		t.Helper()
		c.Ahead.Add(60)
		bob.Post("/auth/login", sitetest.FormOf("bob@example.com"))
		bob.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}, "trust": {trust}}).To(t)
	}
	logIn("yes")
	ofSession, beyond = grants(bob)
	mustRefresh(bob, "spa", &ofSession, true, "with a factor")
	mustRefresh(bob, "app", &beyond, true, "with a factor")

	if to := bob.Post("/auth/login", sitetest.FormOf("bob@example.com")).To(t); to.Path != "/auth/account" {
		t.Fatalf("the browser is not trusted: %s", to)
	}
	ofSession, beyond = grants(bob)
	mustRefresh(bob, "spa", &ofSession, true, "by a trusted browser")
	c.Ahead.Add(3700)
	mustRefresh(bob, "app", &beyond, true, "by a trusted browser, after the session")
}
