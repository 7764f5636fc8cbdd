package oidc

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// A user sees which clients they have let in, and takes back what one was given:
// that one alone, of their own.
func TestApplications(t *testing.T) {
	s := provider(t)
	alice, bob := s.browser(), s.browser()
	alice.signUp("alice@example.com")
	bob.email = "bob@example.com"
	bob.signUp(bob.email)
	offline := url.Values{"scope": {"openid email offline_access"}}
	ofAlice := alice.redeem("app", alice.code("app", offline)).json(t)
	ofSPA := alice.redeem("spa", alice.code("spa", nil)).json(t)
	ofBob := bob.redeem("app", bob.code("app", offline)).json(t)

	account := alice.get("/auth/account")
	if !strings.Contains(account.body, `<a href="/oidc/applications">`) {
		t.Errorf("the account page does not lead there: %s", account.body)
	}
	page := alice.get("/oidc/applications")
	for _, text := range []string{"The App", "Stays connected", "See your e-mail address", "Stay connected when you are not here", "spa", "alice@example.com"} {
		if !strings.Contains(page.body, text) {
			t.Errorf("the page has no %q: %s", text, page.body)
		}
	}
	if strings.Contains(page.header.Get("Cache-Control"), "no-store") == false || !strings.Contains(page.header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("headers %v", page.header)
	}
	if to := s.browser().get("/oidc/applications").to(t); to.Path != "/auth/login" || to.Query().Get("return_to") != "/oidc/applications" {
		t.Errorf("nobody is led to %s", to)
	}
	if got := alice.post("/oidc/applications", url.Values{"client_id": {"app"}}, "Sec-Fetch-Site: cross-site"); got.status != 403 {
		t.Errorf("from another site: %d", got.status)
	}
	if !alice.live(ofAlice["access_token"]) {
		t.Error("from another site it had an effect")
	}

	alice.post("/oidc/applications", url.Values{"client_id": {"app"}}).to(t)
	if alice.live(ofAlice["access_token"]) || alice.refresh("app", ofAlice["refresh_token"].(string)).status != http.StatusBadRequest {
		t.Error("what the client was given is still good")
	}
	if !alice.live(ofSPA["access_token"]) || !alice.live(ofBob["access_token"]) {
		t.Error("what others were given is gone too")
	}
	if page := alice.get("/oidc/applications"); strings.Contains(page.body, "The App") || !strings.Contains(page.body, "spa") {
		t.Errorf("afterwards: %s", page.body)
	}
	if to := alice.get(s.authorizeURL("app", offline)).to(t); to.Path != "/oidc/consent" {
		t.Errorf("the client is let in without a question: %s", to)
	}
}
