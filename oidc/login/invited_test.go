package login_test

import (
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// An account that an administrator has made, and that nobody can log in to, is connected by the
// address that the provider has verified; and no other account is.
func TestLoginInvited(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, "signup closed\n"+p.Option("fake", "")+p.Option("trusting", "trust_email"))
	users := s.store()
	add := func(t *testing.T, name string, change func(*store.User)) store.User {
		t.Helper()
		now := time.Now()
		user := store.User{
			ID: name, Email: name + "@example.com", EmailKey: name + "@example.com", CreatedAt: now, UpdatedAt: now,
		}
		if change != nil {
			change(&user)
		}
		if err := users.CreateUser(t.Context(), user); err != nil {
			t.Fatal(err)
		}
		p.Lie(sitetest.Lies{Subject: "sub of " + name, Email: name + "@example.com"})
		return user
	}
	t.Run("invited", func(t *testing.T) {
		s.T = t
		add(t, "invited", nil)
		chrome, again := s.Visitor(), s.Visitor()
		if id := chrome.MustBeIn(chrome.LogInBy("fake")); id != "invited" {
			t.Error(id)
		}
		if id := again.MustBeIn(again.LogInBy("fake")); id != "invited" {
			t.Error(id)
		}
		// the address alone is nothing any more
		p.Lie(sitetest.Lies{Subject: "somebody else", Email: "invited@example.com"})
		other := s.Visitor()
		other.MustBeOut(other.LogInBy("fake"), 409, "already exists")
	})
	t.Run("address not verified", func(t *testing.T) {
		s.T = t
		add(t, "unverified", nil)
		p.Lie(sitetest.Lies{Subject: "unverified", Email: "unverified@example.com", Unverified: true})
		chrome := s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("fake"), 403, "has not verified your e-mail address")
		chrome.MustBeOut(chrome.LogInBy("trusting"), 409, "already exists")
	})
	t.Run("with a password", func(t *testing.T) {
		s.T = t
		add(t, "password", func(u *store.User) { u.PasswordHash = "$2a$10$x" })
		chrome := s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("fake"), 409, "already exists")
	})
	t.Run("disabled", func(t *testing.T) {
		s.T = t
		add(t, "disabled", func(u *store.User) { u.Disabled = true })
		chrome := s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("fake"), 409, "already exists")
	})
}
