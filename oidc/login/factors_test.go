package login_test

import (
	"html"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

var shownSecret = regexp.MustCompile(`<code class="key">([A-Z2-7 ]+)</code>`)

// enrol sets up an authenticator app on the page.
func enrol(v *sitetest.Visitor) accountstest.App {
	v.T.Helper()
	page := v.Post("/auth/factors/totp", url.Values{})
	found := shownSecret.FindStringSubmatch(page.Body)
	if found == nil {
		v.T.Fatal(page.Brief())
	}
	app := accountstest.NewApp(v.T, found[1])
	v.MustAnswer(200, v.Post("/auth/factors/totp/confirm", url.Values{"code": {app.Code(0)}}), "the first code")
	return app
}

// A log-in at a provider does not get past the second factor that the user has here.
func TestSecondFactorAfterProvider(t *testing.T) {
	c := sitetest.SetClock(t)
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, "second_factor optional\n"+p.Option("fake", ""))
	v := s.Visitor()
	userID := v.MustBeIn(v.LogInBy("fake"))
	app := enrol(v)
	v.Post("/auth/logout", url.Values{})

	c.Ahead.Add(60)
	got := v.Get(v.Out("/auth/login/fake?return_to=/private/x?y=1"))
	if to := got.To(t).String(); to != "/auth/login/factor?return_to=%2Fprivate%2Fx%3Fy%3D1" {
		t.Fatalf("it leads to %s", to)
	}
	if got := v.Get("/private/x"); got.Status != 303 {
		t.Errorf("the provider is enough: %d", got.Status)
	}
	form := v.Get(got.To(t).String()).HiddenFields()
	form.Set("code", app.Wrong())
	v.MustAnswer(401, v.Post("/auth/login/factor", form), "a wrong code")
	form.Set("code", app.Code(0))
	back := v.Post("/auth/login/factor", form)
	if to := back.To(t).String(); to != "/private/x?y=1" {
		t.Errorf("it returns to %s", to)
	}
	if again := v.MustBeIn(back); again != userID {
		t.Errorf("user %s is now %s", userID, again)
	}
	session := accountstest.UserOf(t, "alice@example.com").ID
	sessions, err := s.store().Sessions(t.Context(), session, time.Now().Add(-time.Hour))
	if err != nil || len(sessions) != 1 || strings.Join(sessions[0].Methods, " ") != "otp mfa" {
		t.Fatalf("the sessions: %+v, %v", sessions, err)
	}
	if _, err := s.store().Record(t.Context(), "external session by sub", sessions[0].ID, time.Now()); err != nil {
		t.Errorf("the provider cannot end the session: %v", err)
	}

	// An identity that was disconnected in the meantime does not come in.
	v.Post("/auth/logout", url.Values{})
	c.Ahead.Add(60)
	v.LogInBy("fake")
	records, err := s.store().Records(t.Context(), "external identity", userID, time.Now())
	if err != nil || len(records) != 1 {
		t.Fatalf("%d identities, %v", len(records), err)
	}
	if _, err := s.store().TakeRecord(t.Context(), "external identity", records[0].ID, time.Now()); err != nil {
		t.Fatal(err)
	}
	v.MustBeOut(v.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}}), 400, "This log-in has expired")
}

// The question whether to connect an identity comes after the second factor.
func TestSecondFactorBeforeConnecting(t *testing.T) {
	c := sitetest.SetClock(t)
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, "second_factor optional\n"+p.Option("fake", "label Fake"))
	v := s.Visitor()
	v.SignUp("alice@example.com")
	app := enrol(v)
	v.Post("/auth/logout", url.Values{})
	c.Ahead.Add(60)
	v.MustBeOut(v.LogInBy("fake"), 409, "already")
	got := logInAs(v, "alice@example.com", sitetest.GoodPassword)
	if to := got.To(t).Path; to != "/auth/login/factor" {
		t.Fatalf("the password leads to %s", to)
	}
	decided := decideOffer(v, v.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}}), "yes", "")
	if to := html.UnescapeString(decided.To(t).String()); to != "/auth/account" {
		t.Errorf("it leads to %s", to)
	}
	if n := s.connected("alice@example.com"); n != 1 {
		t.Errorf("%d identities", n)
	}
}

// The path of the second factor is that of no provider.
func TestProviderNamedFactor(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	body := func(more string) string {
		return sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), more+p.Option("factor", ""))
	}
	if got := sitetest.ConfigError(t, body("second_factor optional\n")); !strings.Contains(got, "path of second_factor") {
		t.Error(got)
	}
	s := sitetest.Serve(t, body(""))
	s.MustAnswer(303, s.Get("/auth/login/factor"), "without second_factor")
}
