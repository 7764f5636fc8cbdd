package provider

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

	unused := alice.code("app", offline)
	alice.post("/oidc/applications", url.Values{"client_id": {"app"}}).to(t)
	if alice.live(ofAlice["access_token"]) || alice.refresh("app", ofAlice["refresh_token"].(string)).status != http.StatusBadRequest {
		t.Error("what the client was given is still good")
	}
	alice.redeem("app", unused).mustFail(t, http.StatusBadRequest, "invalid_grant")
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

// What a client was given and has not fetched when the user takes it back is not
// to be had later.
func TestThreatFetchedAfterTakenBack(t *testing.T) {
	s := provider(t)
	alice := s.browser()
	alice.signUp("alice@example.com")
	takeBack := func(client string) {
		t.Helper()
		if page := alice.get("/oidc/applications"); !strings.Contains(page.body, `value="`+client+`"`) {
			t.Fatalf("the page has no %s: %s", client, page.body)
		}
		alice.post("/oidc/applications", url.Values{"client_id": {client}}).to(t)
	}
	connect := func() url.Values {
		t.Helper()
		device := alice.post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid"}}).json(t)
		page := alice.get("/oidc/device?user_code=" + device["user_code"].(string))
		if got := alice.decide("/oidc/device", page, "allow"); !strings.Contains(got.body, "is connected") {
			t.Fatalf("%d %s", got.status, got.body)
		}
		return url.Values{"grant_type": {grantDevice}, "device_code": {device["device_code"].(string)}}
	}
	hybrid := func() (code string, access any) {
		t.Helper()
		answer, _ := url.ParseQuery(alice.get(s.authorizeURL("web", url.Values{"response_type": {"code token"}})).to(t).Fragment)
		return answer.Get("code"), answer.Get("access_token")
	}

	if got := alice.exchange("tv", connect()); got.status != http.StatusOK {
		t.Fatalf("control: a device: %d %s", got.status, got.body)
	}
	device := connect()
	takeBack("tv")
	alice.exchange("tv", device).mustFail(t, http.StatusBadRequest, "expired_token")

	code, access := hybrid()
	if got := alice.redeem("web", code); got.status != http.StatusOK || !alice.live(access) {
		t.Fatalf("control: hybrid: %d %s", got.status, got.body)
	}
	code, access = hybrid()
	takeBack("web")
	alice.redeem("web", code).mustFail(t, http.StatusBadRequest, "invalid_grant")
	if alice.live(access) {
		t.Error("the access token that came with the code is still good")
	}
}
