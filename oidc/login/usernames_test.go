package login_test

import (
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Where users have names, a user of a provider has the address that the provider gives, and no name.
func TestLoginWithUserNames(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", "")+"\n identifier username")
	p.Lie(sitetest.Lies{Subject: "new", Email: "new@example.com"})
	for range 2 { // a sign-up and a log-in
		b := s.Visitor()
		b.MustBeIn(b.LogInBy("fake"))
	}
	user, err := s.store().UserByEmail(t.Context(), "new@example.com")
	if err != nil || user.Address() != "new@example.com" || user.Username() != "" || !user.EmailVerified {
		t.Errorf("user %+v, %v", user, err)
	}
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.JSON{
		"username": "new", "password": sitetest.GoodPassword,
	}), "the name is free")
}
