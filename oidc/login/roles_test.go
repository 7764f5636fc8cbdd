package login_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// The roles of a provider are those of its claims at each log-in. Roles that the user has otherwise
// are kept, and those of the provider end when it is disconnected.
func TestLoginRolesFrom(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, "signup_limit 100\ndefault_roles member\n"+p.Option("fake", `
		roles_from groups staff editor reviewer
		roles_from groups bosses admin
		roles_from realm.roles
	`))
	users := s.store()
	logIn := func(claims sitetest.JSON) {
		t.Helper()
		p.Lie(sitetest.Lies{Subject: "alice", Email: "alice@example.com", More: claims,
			Userinfo: sitetest.JSON{"sub": "alice"}})
		chrome := s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("fake"))
	}
	alice := func() store.User {
		t.Helper()
		user, err := users.UserByEmail(t.Context(), "alice@example.com")
		if err != nil {
			t.Fatal(err)
		}
		return user
	}
	has := func(want string) {
		t.Helper()
		roles := alice().Roles
		slices.Sort(roles)
		if got := strings.Join(roles, " "); got != want {
			t.Errorf("roles %q, expected %q", got, want)
		}
	}
	logIn(sitetest.JSON{"groups": []string{"staff", "others"}})
	has("editor member reviewer")
	logIn(sitetest.JSON{"groups": "bosses", "realm": sitetest.JSON{"roles": []string{"ops", "two words"}}})
	has("admin member ops")
	logIn(sitetest.JSON{"realm": sitetest.JSON{"roles": sitetest.JSON{"ops": 1}}}) // as Zitadel writes them
	has("member ops")
	denied := sitetest.JSON{"ops": false, "bosses": nil, "dev": sitetest.JSON{"1": "example.com"}, "qa": "", "hr": 0}
	logIn(sitetest.JSON{"groups": sitetest.JSON{"staff": false, "bosses": nil}, "realm": sitetest.JSON{"roles": denied}})
	has("dev hr member qa")
	logIn(sitetest.JSON{"realm": sitetest.JSON{"roles": sitetest.JSON{"ops": true}}})
	has("member ops")
	if _, err := users.UpdateUser(t.Context(), alice().ID, alice().UpdatedAt, func(u *store.User) error {
		u.Roles = append(u.Roles, "admin") // by an administrator
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	logIn(sitetest.JSON{"groups": []string{"bosses"}})
	has("admin member")
	logIn(nil)
	has("admin member")
	logIn(sitetest.JSON{"groups": []string{"staff", strings.Repeat("x", 2000)}})
	has("admin editor member reviewer")
	logIn(sitetest.JSON{"realm": sitetest.JSON{"roles": []string{strings.Repeat("x", 600), strings.Repeat("y", 600)}}})
	has("admin member") // too long together: none of the provider's
	if !strings.Contains(s.Log(), "the roles of a provider are not given") {
		t.Error("nobody is told of roles that are too long")
	}
}
