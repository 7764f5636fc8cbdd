package provider_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// serveFactors runs a provider whose users can have a second factor.
func serveFactors(t *testing.T) *site {
	t.Helper()
	s := serveClients(t)
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.LoadText(strings.Replace(string(text), "throttle off", "throttle off\nsecond_factor optional", 1))
	return s
}

// idTokenOf follows a request from the page of the second factor on, and returns the claims of the
// tokens.
func (b *browser) tokensFrom(location string) (id, access sitetest.JSON) {
	b.T.Helper()
	back := b.GoOn(location).Query()
	if back.Get("code") == "" {
		b.T.Fatalf("the answer has %v", back)
	}
	answer := b.redeem("spa", back.Get("code")).JSON(b.T)
	return sitetest.ClaimsOf(b.T, answer["id_token"].(string)), sitetest.ClaimsOf(b.T, answer["access_token"].(string))
}

// A client that asks for a second factor by acr_values or claims gets it, or a clear answer.
func TestSecondFactorAtProvider(t *testing.T) {
	c := sitetest.SetClock(t)
	s := serveFactors(t)
	if got := fmt.Sprint(s.Get("/.well-known/openid-configuration").JSON(t)["acr_values_supported"]); got !=
		"["+acrPassword+" mfa]" {
		t.Errorf("acr_values_supported is %s", got)
	}
	b := s.browser()
	b.SignUp("alice@example.com")
	mfa := url.Values{"acr_values": {"mfa"}}
	essential := url.Values{"claims": {`{"id_token":{"acr":{"essential":true,"value":"mfa"}}}`}}

	id, access := b.tokensFrom(b.authorizeURL("spa", nil))
	if id["acr"] != nil || fmt.Sprint(id["amr"]) != "[pwd]" || access["acr"] != nil {
		t.Errorf("without being asked: %v, %v", id, access)
	}
	quiet := b.Get(b.authorizeURL("spa", url.Values{"prompt": {"none"}, "claims": essential["claims"]})).To(t).Query()
	if quiet.Get("error") != "interaction_required" {
		t.Errorf("prompt none: %v", quiet)
	}
	quiet = b.Get(b.authorizeURL("spa", url.Values{"prompt": {"none"}, "acr_values": {"mfa"}})).To(t).Query()
	if quiet.Get("code") == "" { // acr_values are voluntary (OpenID Connect Core §5.5.1.1)
		t.Errorf("prompt none, voluntary: %v", quiet)
	}

	// The user has none: it is set up on the way.
	at := b.Get(b.authorizeURL("spa", mfa)).To(t)
	if at.Path != "/auth/factors/prove" {
		t.Fatalf("it leads to %s", at)
	}
	page := b.Get(at.String())
	shown := b.Post("/auth/factors/totp", page.HiddenFields())
	secret := regexp.MustCompile(`<code class="key">([A-Z2-7 ]+)</code>`).FindStringSubmatch(shown.Body)
	if secret == nil {
		t.Fatalf("the set-up: %d %s", shown.Status, shown.Body)
	}
	app := accountstest.NewApp(t, secret[1])
	form := shown.HiddenFields()
	form.Set("code", app.Code(0))
	done := b.Post("/auth/factors/totp/confirm", form)
	next := regexp.MustCompile(`<a class="button" href="([^"]+)">I have saved`).FindStringSubmatch(done.Body)
	if done.Status != 200 || next == nil || !strings.HasPrefix(next[1], "/oidc/authorize?interaction=") {
		t.Fatalf("the recovery codes: %d %s", done.Status, done.Body)
	}
	id, access = b.tokensFrom(next[1])
	for _, claims := range []sitetest.JSON{id, access} {
		if claims["acr"] != "mfa" || fmt.Sprint(claims["amr"]) != "[pwd otp mfa]" || claims["auth_time"] == nil {
			t.Errorf("after the set-up: %v", claims)
		}
	}
	at0 := id["auth_time"].(float64)

	// The session has it already; a client that knows only the password gets what it asked for.
	if id, _ = b.tokensFrom(b.authorizeURL("spa", essential)); id["acr"] != "mfa" {
		t.Errorf("essential: %v", id)
	}
	if id, _ = b.tokensFrom(b.authorizeURL("spa", url.Values{"acr_values": {acrPassword}})); id["acr"] != acrPassword {
		t.Errorf("a password is asked for: %v", id)
	}

	// max_age asks again, with the factor.
	c.Ahead.Add(600)
	to := b.Get(b.authorizeURL("spa", url.Values{"acr_values": {"mfa"}, "max_age": {"300"}})).To(t)
	if to.Path != "/auth/login" {
		t.Fatalf("max_age leads to %s", to)
	}
	returnTo := to.Query().Get("return_to")
	b.Post("/auth/login", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "return_to": {returnTo},
	}).To(t)
	id, _ = b.tokensFrom(b.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}, "return_to": {returnTo}}).
		To(t).String())
	if id["acr"] != "mfa" || id["auth_time"].(float64) < at0+600 {
		t.Errorf("after max_age: %v", id)
	}

	// A session without it is asked for the code only.
	c.Ahead.Add(60)
	b.Post("/auth/logout", url.Values{})
	b.Post("/auth/login", sitetest.FormOf("alice@example.com"))
	b.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}, "trust": {"yes"}}).To(t)
	b.Post("/auth/login", sitetest.FormOf("alice@example.com")).To(t) // by the trusted browser
	id, _ = b.tokensFrom(b.authorizeURL("spa", nil))
	if id["acr"] != nil || fmt.Sprint(id["amr"]) != "[pwd]" {
		t.Errorf("by a trusted browser: %v", id)
	}
	c.Ahead.Add(60)
	at = b.Get(b.authorizeURL("spa", essential)).To(t)
	form = b.Get(at.String()).HiddenFields()
	form.Set("code", app.Wrong())
	if got := b.Post("/auth/factors/prove", form); got.Status != http.StatusUnauthorized ||
		strings.Contains(got.Header.Get("Content-Security-Policy"), "form-action") {
		t.Errorf("a wrong code: %d %v", got.Status, got.Header)
	}
	form.Set("code", app.Code(0))
	if id, _ = b.tokensFrom(b.Post("/auth/factors/prove", form).To(t).String()); id["acr"] != "mfa" {
		t.Errorf("after the code: %v", id)
	}
}

// Without second_factor a request for it is answered as before.
func TestSecondFactorAtProviderOff(t *testing.T) {
	s := serveClients(t)
	b := s.browser()
	b.SignUp("alice@example.com")
	if id, _ := b.tokensFrom(b.authorizeURL("spa", url.Values{"acr_values": {"mfa"}})); id["acr"] != nil {
		t.Errorf("voluntary: %v", id)
	}
	got := b.Get(b.authorizeURL("spa", url.Values{
		"claims": {`{"id_token":{"acr":{"essential":true,"value":"mfa"}}}`},
	})).To(t).Query()
	if got.Get("error") != "unmet_authentication_requirements" {
		t.Errorf("essential: %v", got)
	}
}

// The pages that ask for the second factor on the way to a client, or to set it up, say which client.
func TestFactorPagesNameTheClient(t *testing.T) {
	c := sitetest.SetClock(t)
	s := serveFactors(t)
	s.LoadText(strings.Replace(strings.Replace(s.text(), "throttle off", "throttle off\nsecond_factor optional", 1),
		"client spa {", "client spa {\nname \"The Shop\"", 1))
	b := s.browser()
	b.SignUp("alice@example.com")
	names := func(page sitetest.Reply, why string) {
		t.Helper()
		if page.Status != 200 || !strings.Contains(page.Body, "to continue to <strong>The Shop</strong>") {
			t.Errorf("%s: %d %s", why, page.Status, page.Body)
		}
	}
	at := b.Get(b.authorizeURL("spa", url.Values{"acr_values": {"mfa"}})).To(t)
	page := b.Get(at.String())
	names(page, "that a factor is needed")
	page = b.Post("/auth/factors/totp", page.HiddenFields())
	names(page, "the set-up")
	secret := regexp.MustCompile(`<code class="key">([A-Z2-7 ]+)</code>`).FindStringSubmatch(page.Body)
	form, app := page.HiddenFields(), accountstest.NewApp(t, secret[1])
	form.Set("code", app.Code(0))
	s.MustAnswer(200, b.Post("/auth/factors/totp/confirm", form), "the set-up")

	c.Ahead.Add(60)
	b.Post("/auth/logout", url.Values{})
	back := b.Get(b.authorizeURL("spa", nil)).To(t).Query().Get("return_to")
	form = sitetest.FormOf("alice@example.com")
	form.Set("return_to", back)
	names(b.Get(b.Post("/auth/login", form).To(t).String()), "in a log-in")
	b.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}, "trust": {"yes"}}).To(t)
	b.Post("/auth/login", sitetest.FormOf("alice@example.com")).To(t)
	names(b.Get(b.Get(b.authorizeURL("spa", url.Values{"acr_values": {"mfa"}})).To(t).String()), "a step up")
	if page = b.Get("/auth/factors/prove"); page.Status != 200 || strings.Contains(page.Body, "to continue to") {
		t.Errorf("control: %d %s", page.Status, page.Body)
	}
}
