package provider_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Users see which clients have access, and can revoke the access of one of them. This affects
// neither other clients nor other users.
func TestApplications(t *testing.T) {
	s := serveClients(t)
	alice, bob := s.browser(), s.browser()
	alice.SignUp("alice@example.com")
	bob.Email = "bob@example.com"
	bob.SignUp(bob.Email)
	offline := url.Values{"scope": {"openid email offline_access"}}
	ofAlice := alice.redeem("app", alice.code("app", offline)).JSON(t)
	ofSPA := alice.redeem("spa", alice.code("spa", nil)).JSON(t)
	ofBob := bob.redeem("app", bob.code("app", offline)).JSON(t)

	account := alice.Get("/auth/account")
	if !strings.Contains(account.Body, `<a href="/oidc/applications">`) {
		t.Errorf("the account page does not lead there: %s", account.Body)
	}
	export := alice.Get("/auth/export").Body
	if !strings.Contains(export, `"clientId":"app","name":"The App"`) || !strings.Contains(export, `"staysWhenAway":true`) {
		t.Errorf("the export of the account has no application: %s", export)
	}
	page := alice.Get("/oidc/applications")
	for _, text := range []string{
		"The App", "Stays connected", "See your e-mail address",
		"Stay connected when you are not here", "spa", "alice@example.com",
	} {
		if !strings.Contains(page.Body, text) {
			t.Errorf("the page has no %q: %s", text, page.Body)
		}
	}
	if strings.Contains(page.Header.Get("Cache-Control"), "no-store") == false ||
		!strings.Contains(page.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("headers %v", page.Header)
	}
	if to := s.browser().Get("/oidc/applications").To(t); to.Path != "/auth/login" ||
		to.Query().Get("return_to") != "/oidc/applications" {
		t.Errorf("nobody is led to %s", to)
	}
	if got := alice.Post(
		"/oidc/applications", url.Values{"client_id": {"app"}}, "Sec-Fetch-Site: cross-site",
	); got.Status != 403 {
		t.Errorf("from another site: %d", got.Status)
	}
	if !alice.live(ofAlice["access_token"]) {
		t.Error("from another site it had an effect")
	}

	unused := alice.code("app", offline)
	alice.Post("/oidc/applications", url.Values{"client_id": {"app"}}).To(t)
	if alice.live(ofAlice["access_token"]) ||
		alice.refresh("app", ofAlice["refresh_token"].(string)).Status != http.StatusBadRequest {
		t.Error("what the client was given is still good")
	}
	alice.redeem("app", unused).MustFail(t, http.StatusBadRequest, "invalid_grant")
	if !alice.live(ofSPA["access_token"]) || !alice.live(ofBob["access_token"]) {
		t.Error("what others were given is gone too")
	}
	if page := alice.Get("/oidc/applications"); strings.Contains(page.Body, "The App") ||
		!strings.Contains(page.Body, "spa") {
		t.Errorf("afterwards: %s", page.Body)
	}
	if to := alice.Get(s.authorizeURL("app", offline)).To(t); to.Path != "/oidc/consent" {
		t.Errorf("the client is let in without a question: %s", to)
	}
}

// If the user revokes the access before the client has fetched its tokens, the client cannot fetch
// them later.
func TestThreatFetchedAfterTakenBack(t *testing.T) {
	s := serveClients(t)
	alice := s.browser()
	alice.SignUp("alice@example.com")
	takeBack := func(client string) {
		t.Helper()
		if page := alice.Get("/oidc/applications"); !strings.Contains(page.Body, `value="`+client+`"`) {
			t.Fatalf("the page has no %s: %s", client, page.Body)
		}
		alice.Post("/oidc/applications", url.Values{"client_id": {client}}).To(t)
	}
	connect := func() url.Values {
		t.Helper()
		device := alice.Post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid"}}).JSON(t)
		page := alice.Get("/oidc/device?user_code=" + device["user_code"].(string))
		if got := alice.Decide("/oidc/device", page, "allow"); !strings.Contains(got.Body, "is connected") {
			t.Fatalf("%d %s", got.Status, got.Body)
		}
		return url.Values{"grant_type": {grantDevice}, "device_code": {device["device_code"].(string)}}
	}
	hybrid := func() (code string, access any) {
		t.Helper()
		answer, _ := url.ParseQuery(
			alice.Get(s.authorizeURL("web", url.Values{"response_type": {"code token"}})).To(t).Fragment,
		)
		return answer.Get("code"), answer.Get("access_token")
	}

	if got := alice.exchange("tv", connect()); got.Status != http.StatusOK {
		t.Fatalf("control: a device: %d %s", got.Status, got.Body)
	}
	device := connect()
	takeBack("tv")
	alice.exchange("tv", device).MustFail(t, http.StatusBadRequest, "expired_token")

	code, access := hybrid()
	if got := alice.redeem("web", code); got.Status != http.StatusOK || !alice.live(access) {
		t.Fatalf("control: hybrid: %d %s", got.Status, got.Body)
	}
	code, access = hybrid()
	takeBack("web")
	alice.redeem("web", code).MustFail(t, http.StatusBadRequest, "invalid_grant")
	if alice.live(access) {
		t.Error("the access token that came with the code is still good")
	}
}
