package web_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A mailed code is one factor: whoever reads the mail does not get past the second one.
func TestThreatSecondFactorPassedByMail(t *testing.T) {
	clock := sitetest.SetClock(t)
	p := mailSite(t, "second_factor optional\n email_login\n verify_email")
	alice := p.verified("alice@example.com")
	app, _ := accountstest.WithApp(p.Site, alice.Token)
	p.next() // about it
	clock.Ahead.Add(60)
	code := func() string {
		p.MustAnswer(202, p.Post("/auth/code", sitetest.JSON{"email": "alice@example.com"}), "asking for a code")
		return p.next().Code
	}
	got := p.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "code": code()})
	mustRefuse(t, got, 401, "second_factor_required", "a log-in by mail")
	in := answerTo(p.Site, got.ErrorBody(t).Error.Challenge, app.Code(0)).Tokens(t)
	export := p.Bearer("/auth/export", in.Token).Body
	if !strings.Contains(export, `"recoveryCodesLeft":10`) || strings.Contains(export, string(app.Secret)) {
		t.Errorf("the export of the account has not the factor, or its secret: %s", export)
	}

	v := p.Visitor()
	v.Post("/auth/code", url.Values{"email": {"alice@example.com"}})
	form := url.Values{"email": {"alice@example.com"}, "code": {p.next().Code}, "return_to": {"/todos/"}}
	if to := v.Post("/auth/login", form).To(t); to.Path != "/auth/login/factor" || to.Query().Get("return_to") != "/todos/" {
		t.Errorf("in a browser it leads to %s", to)
	}
	clock.Ahead.Add(60)
	form = url.Values{"code": {app.Code(0)}, "return_to": {"/todos/"}}
	if to := v.Post("/auth/login/factor", form).To(t); to.Path != "/todos/" {
		t.Errorf("with the code it leads to %s", to)
	}

	p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}), "forgot")
	p.MustAnswer(204, p.Post("/auth/reset", sitetest.JSON{
		"email": "alice@example.com", "code": p.next().Code, "newPassword": otherPassword,
	}), "reset")
	got = p.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": otherPassword})
	mustRefuse(t, got, 401, "second_factor_required", "a log-in with the password of a reset by mail")
}

// Somebody signs up with an address that is not theirs, and adds a second factor. Its owner gets in.
func TestThreatSecondFactorSetUpBeforeTheOwner(t *testing.T) {
	p := mailSite(t, "second_factor optional\n email_login")
	recover := map[string]func(email string) sitetest.Reply{
		"by a new password": func(email string) sitetest.Reply {
			p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": email}), "forgot")
			p.MustAnswer(204, p.Post("/auth/reset", sitetest.JSON{
				"email": email, "code": p.next().Code, "newPassword": otherPassword,
			}), "reset")
			return p.Post("/auth/login", sitetest.JSON{"email": email, "password": otherPassword})
		},
		"by a log-in code": func(email string) sitetest.Reply {
			p.MustAnswer(202, p.Post("/auth/code", sitetest.JSON{"email": email}), "asking for a code")
			return p.Post("/auth/login", sitetest.JSON{"email": email, "code": p.next().Code})
		},
	}
	for how, email := range map[string]string{
		"by a new password": "alice@example.com", "by a log-in code": "bob@example.com",
	} {
		thief := p.SignedUp(email)
		accountstest.WithApp(p.Site, thief.Token)
		p.next() // about it
		p.MustAnswer(200, recover[how](email), how)
		p.MustAnswer(401, p.Bearer("/auth/whoami", thief.Token), how+": the session of before")
	}
}

// A log-in by the mail that completes a sign-up meets the site's requirement, too.
func TestSecondFactorRequiredAtVerification(t *testing.T) {
	p := mailSite(t, "second_factor required\n verify_email")
	p.signUp("alice@example.com", sitetest.GoodPassword)
	got := p.Post("/auth/verify", sitetest.JSON{"email": "alice@example.com", "code": p.next().Code})
	mustRefuse(t, got, 401, "second_factor_enrolment_required", "the verification")
}

// Users are told when an app is added or removed, and when there are new recovery codes.
func TestMailsAboutFactors(t *testing.T) {
	clock := sitetest.SetClock(t)
	p := mailSite(t, "second_factor optional")
	token := p.SignedUp("alice@example.com").Token
	told := func(subject string) {
		t.Helper()
		got := p.next()
		if got.To != "<alice@example.com>" || !strings.Contains(got.Subject, subject) || got.Code != "" {
			t.Errorf("told %+v, expected %s", got, subject)
		}
	}
	app, codes := accountstest.WithApp(p.Site, token)
	told("An authenticator app was added")
	clock.Ahead.Add(60)
	p.MustAnswer(401, p.Post("/auth/factors/recovery", sitetest.JSON{"code": app.Wrong()}, bearer(token)), "not proved")
	p.MustAnswer(200, p.Post("/auth/factors/recovery", sitetest.JSON{"code": codes[0]}, bearer(token)), "new codes")
	told("New recovery codes")
	p.MustAnswer(204, p.Send("DELETE", "/auth/factors/totp", `{"code":"`+app.Code(0)+`"}`,
		bearer(token), "Content-Type: application/json"), "removed")
	told("The second step of your account")

	other := mailSite(t, "second_factor required")
	v := other.Visitor()
	v.Post("/auth/signup", sitetest.FormOf("bob@example.com"))
	begun := v.Post("/auth/factors/totp", url.Values{"login": {"yes"}})
	v.Post("/auth/factors/totp/confirm", url.Values{
		"login": {"yes"}, "code": {accountstest.NewApp(t, shownSecret.FindStringSubmatch(begun.Body)[1]).Code(0)},
	})
	if got := other.next(); got.To != "<bob@example.com>" || !strings.Contains(got.Subject, "was added") {
		t.Errorf("in a log-in: %+v", got)
	}
}
