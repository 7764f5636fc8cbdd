package web_test

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// stepUpSite is a site of which a part requires more than a password.
func stepUpSite(t *testing.T, options, rule string) *sitetest.Site {
	t.Helper()
	return sitetest.Serve(t, `
		jwt /secure/* {
			leeway 0s
			accounts {
				store file `+filepath.Join(sitetest.TempDir(t), "users.db")+`
				signup open
				`+options+`
			}
			require `+rule+`
		}
		respond /secure/* "acr=[{http.auth.user.acr}] amr=[{http.auth.user.amr}]"`)
}

// A program is told what is missing (RFC 9470), proves the second factor, and refreshes its token.
func TestStepUpOfAProgram(t *testing.T) {
	c := sitetest.SetClock(t)
	s := stepUpSite(t, "second_factor optional", "acr mfa within 5m")
	tokens := s.SignedUp("alice@example.com")
	refused := s.Bearer("/secure/x", tokens.Token)
	mustRefuse(t, refused, 401, "insufficient_user_authentication", "a password")
	want := `error="insufficient_user_authentication", ` +
		`error_description="a stronger or more recent authentication of the user is required", ` +
		`acr_values="mfa", max_age="300"`
	if got := refused.Header.Get("WWW-Authenticate"); !strings.Contains(got, want) {
		t.Errorf("the challenge is %s", got)
	}
	claims := sitetest.ClaimsOf(t, tokens.Token)
	if claims["acr"] != "pwd" || claims["auth_time"] == nil {
		t.Errorf("the claims are %v", claims)
	}
	mustRefuse(t, s.Post("/auth/factors/prove", sitetest.JSON{"code": "123456"}, bearer(tokens.Token)),
		409, "no_factor", "without a factor")
	app, codes := accountstest.WithApp(s, tokens.Token)
	refresh := func() sitetest.Tokens {
		tokens = s.Post("/auth/refresh", sitetest.JSON{"refreshToken": tokens.RefreshToken}).Tokens(t)
		return tokens
	}
	got := s.Bearer("/secure/x", refresh().Token)
	if got.Status != 200 || got.Body != "acr=[mfa] amr=[pwd,otp,mfa]" {
		t.Errorf("after the set-up: %d %s", got.Status, got.Body)
	}
	c.Ahead.Add(301)
	mustRefuse(t, s.Bearer("/secure/x", tokens.Token), 401, "insufficient_user_authentication", "5 minutes later")
	prove := func(code string) sitetest.Reply {
		return s.Post("/auth/factors/prove", sitetest.JSON{"code": code}, bearer(tokens.Token))
	}
	mustRefuse(t, prove(app.Wrong()), 401, "invalid_code", "a wrong code")
	mustRefuse(t, s.Bearer("/secure/x", refresh().Token), 401, "insufficient_user_authentication", "and refreshed")
	s.MustAnswer(204, prove(app.Code(0)), "the code")
	mustRefuse(t, prove(app.Code(0)), 401, "code_used", "the code again")
	mustRefuse(t, s.Bearer("/secure/x", tokens.Token), 401, "insufficient_user_authentication", "the old token")
	s.MustAnswer(200, s.Bearer("/secure/x", refresh().Token), "the new token")
	c.Ahead.Add(301)
	s.MustAnswer(204, prove(codes[0]), "a recovery code")
	s.MustAnswer(200, s.Bearer("/secure/x", refresh().Token), "the newest token")
	entered := answerTo(s, challengeOf(s, "alice@example.com"), app.Code(0)).Tokens(t)
	s.MustAnswer(200, s.Bearer("/secure/x", entered.Token), "a log-in with the factor")
}

// A browser is asked for the factor where it is required, and comes back.
func TestStepUpOfABrowser(t *testing.T) {
	c := sitetest.SetClock(t)
	s := stepUpSite(t, "second_factor optional", "acr mfa within 5m")
	v := s.Visitor()
	v.SignUp("alice@example.com")
	const back = "return_to=%2Fsecure%2Fx%3Fy%3D1"
	at := v.Get("/secure/x?y=1").To(t).String()
	if at != "/auth/factors/prove?"+back {
		t.Fatalf("it leads to %s", at)
	}
	page := v.Get(at)
	if page.Status != 200 || !strings.Contains(page.Body, "requires two-step log-in") ||
		page.HiddenFields().Get("return_to") != "/secure/x?y=1" {
		t.Fatalf("without a factor: %d %s", page.Status, page.Body)
	}
	app, _, last := enrolByPage(v, page.HiddenFields())
	if !strings.Contains(last.Body, `href="/secure/x?y=1"`) {
		t.Errorf("the set-up leads elsewhere: %s", last.Body)
	}
	if got := v.Get("/secure/x?y=1"); got.Status != 200 || !strings.Contains(got.Body, "acr=[mfa]") {
		t.Errorf("after the set-up: %d %s", got.Status, got.Body)
	}
	c.Ahead.Add(301)
	page = v.Get(v.Get("/secure/x?y=1").To(t).String())
	if page.Status != 200 || !strings.Contains(page.Body, "Confirm that it is you") ||
		strings.Contains(page.Body, `name="trust"`) {
		t.Fatalf("5 minutes later: %d %s", page.Status, page.Body)
	}
	form := page.HiddenFields()
	form.Set("code", app.Wrong())
	if got := v.Post("/auth/factors/prove", form); got.Status != 401 || !strings.Contains(got.Body, "This code is wrong") ||
		got.HiddenFields().Get("return_to") != "/secure/x?y=1" {
		t.Errorf("a wrong code: %d %s", got.Status, got.Body)
	}
	form.Set("code", app.Code(0))
	if to := v.Post("/auth/factors/prove", form).To(t).String(); to != "/secure/x?y=1" {
		t.Errorf("it leads to %s", to)
	}
	s.MustAnswer(200, v.Get("/secure/x?y=1"), "back")

	// Nowhere else, and not by another site.
	for _, evil := range []string{"//evil.example", "https://evil.example/", "/\\evil.example"} {
		c.Ahead.Add(60)
		got := v.Post("/auth/factors/prove", url.Values{"code": {app.Code(0)}, "return_to": {evil}})
		if to := got.To(t).String(); to != "/auth/account" {
			t.Errorf("%s leads to %s", evil, to)
		}
	}
	s.MustAnswer(403, v.Post("/auth/factors/prove", form, "Sec-Fetch-Site: cross-site"), "another site")
	if to := s.Visitor().Get("/auth/factors/prove?" + back).To(t); to.Path != "/auth/login" {
		t.Errorf("without a session: %s", to)
	}
	if to := s.Visitor().Get("/secure/x").To(t); to.Path != "/auth/login" {
		t.Errorf("a page without a session: %s", to)
	}

	// A trusted browser is not asked at the log-in, but here.
	v.Post("/auth/logout", url.Values{})
	logIn(v, "alice@example.com", "")
	c.Ahead.Add(60)
	v.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}, "trust": {"yes"}}).To(t)
	logIn(v, "alice@example.com", "")
	if to := v.Get("/secure/x").To(t).Path; to != "/auth/factors/prove" {
		t.Errorf("a trusted browser is led to %s", to)
	}
}

// A recent password is a log-in.
func TestStepUpByPassword(t *testing.T) {
	c := sitetest.SetClock(t)
	s := stepUpSite(t, "token_lifetime 1h", "acr pwd mfa within 5m")
	v := s.Visitor()
	v.SignUp("alice@example.com")
	s.MustAnswer(200, v.Get("/secure/x"), "at once")
	c.Ahead.Add(301)
	if to := v.Get("/secure/x").To(t).String(); to != "/auth/login?return_to=%2Fsecure%2Fx" {
		t.Errorf("later: %s", to)
	}
	logIn(v, "alice@example.com", "/secure/x")
	s.MustAnswer(200, v.Get("/secure/x"), "after a log-in")

	// Where nothing can satisfy the rule, there is no loop.
	s = stepUpSite(t, "", "acr phr")
	v = s.Visitor()
	v.SignUp("alice@example.com")
	got := v.Get("/secure/x")
	s.MustAnswer(401, got, "a class that the accounts do not have")
	if challenge := got.Header.Get("WWW-Authenticate"); !strings.Contains(
		challenge, `error="insufficient_user_authentication"`,
	) {
		t.Errorf("challenge %s", challenge)
	}
	mustHave(t, got, "the page", "alice@example.com", "This log-in is not enough")
}
