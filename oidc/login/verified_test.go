package login_test

import (
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// An address that a provider has verified counts, if it is the one of the account.
func TestLoginWithVerifiesTheAddress(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", ""))
	verified := func(email string) bool {
		t.Helper()
		user, err := s.store().UserByEmail(t.Context(), email)
		if err != nil {
			t.Fatal(err)
		}
		return user.EmailVerified
	}
	p.Lie(sitetest.Lies{Subject: "new", Email: "new@example.com"})
	s.Visitor().LogInBy("fake")
	if !verified("new@example.com") {
		t.Error("a new user's address is not verified")
	}
	for email, there := range map[string]string{
		"alice@example.com": "Alice@example.com", "bob@example.com": "other@example.com",
	} {
		b := s.Visitor()
		b.SignUp(email)
		p.Lie(sitetest.Lies{Subject: "of " + email, Email: there})
		decideOffer(b, connectOut(b, "fake"), "yes", "")
		if verified(email) {
			t.Errorf("%s is verified before a log-in there", email)
		}
		if got := s.Visitor().LogInBy("fake"); got.Status != 303 {
			t.Errorf("log-in: %s", got.Brief())
		}
		if verified(email) != (email == "alice@example.com") {
			t.Errorf("%s, there %s: verified %v", email, there, verified(email))
		}
	}
}
