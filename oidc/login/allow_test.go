package login_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Only users that have what `allow` lists may log in, at each log-in.
func TestLoginAllow(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	options := map[string]string{
		"domain": "allow domain example.com other.example",
		"group":  "allow group staff bosses", "claim": "allow claim tenant.id 7",
		"organization": "allow organization acme", "both": "allow group staff\nallow domain example.com",
	}
	all := "signup_limit 100\n"
	for name, option := range options {
		all += p.Option(name, option)
	}
	s := loginSite(t, all)
	const refused = "may not be used to log in here"
	for i, c := range []struct {
		login string
		lies  sitetest.Lies
		in    bool
	}{
		{"domain", sitetest.Lies{Email: "a@example.com"}, true},
		{"domain", sitetest.Lies{Email: "a@OTHER.example"}, true},
		{"domain", sitetest.Lies{Email: "a@sub.example.com"}, false},
		{"domain", sitetest.Lies{Email: "a@notexample.com"}, false},
		{"domain", sitetest.Lies{Email: "a@example.com", Unverified: true}, false},
		{"domain", sitetest.Lies{Email: "example.com"}, false},
		{"group", sitetest.Lies{Email: "a@example.org", More: sitetest.JSON{"groups": []string{"x", "staff"}}}, true},
		{"group", sitetest.Lies{Email: "a@example.org", More: sitetest.JSON{"groups": "staff"}}, true},
		{"group", sitetest.Lies{Email: "a@example.org", More: sitetest.JSON{"groups": []string{"STAFF"}}}, false},
		{"group", sitetest.Lies{Email: "a@example.org"}, false},
		{"claim", sitetest.Lies{Email: "a@example.org", More: sitetest.JSON{"tenant": sitetest.JSON{"id": 7}}}, true},
		{"claim", sitetest.Lies{Email: "a@example.org", More: sitetest.JSON{"tenant": sitetest.JSON{"id": 77}}}, false},
		{"organization", sitetest.Lies{Email: "a@example.org", More: sitetest.JSON{"organizations": []string{"acme"}}}, true},
		{"organization", sitetest.Lies{Email: "a@example.org", More: sitetest.JSON{"organizations": []string{}}}, false},
		{"both", sitetest.Lies{Email: "a@example.com", More: sitetest.JSON{"groups": []string{"staff"}}}, true},
		{"both", sitetest.Lies{Email: "a@example.com"}, false},
		{"both", sitetest.Lies{Email: "a@example.org", More: sitetest.JSON{"groups": []string{"staff"}}}, false},
	} {
		t.Run(fmt.Sprintf("%d %s", i, c.login), func(t *testing.T) {
			s.T = t
			c.lies.Subject = fmt.Sprint("user ", i)
			c.lies.Userinfo = sitetest.JSON{"sub": c.lies.Subject}
			if c.in {
				c.lies.Email = fmt.Sprint(i, c.lies.Email)
			}
			p.Lie(c.lies)
			chrome := s.Visitor()
			if c.in {
				chrome.MustBeIn(chrome.LogInBy(c.login))
			} else {
				chrome.MustBeOut(chrome.LogInBy(c.login), 403, refused)
			}
		})
	}
}

// With `signup login_with` a stranger cannot pass by the provider and its conditions with a password; with
// `signup open` anybody can.
func TestThreatSignupBesideTheProvider(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	for mode, c := range map[string]struct {
		signup, page int
		link         bool
	}{"open": {201, 200, true}, "login_with": {404, 404, false}} {
		t.Run(mode, func(t *testing.T) {
			s := loginSite(t, "signup "+mode+"\n"+p.Option("company", "allow domain example.com"))
			chrome := s.Visitor()
			sitetest.Eventually(t, "the log says how users come", func() bool {
				return strings.Contains(s.Log(), "there are no users yet")
			})
			if strings.Contains(s.Log(), "add the first one with: caddy jwt user add") != (mode == "open") {
				t.Errorf("the log has: %s", s.Log())
			}
			if got := s.Post("/auth/signup", sitetest.CredentialsOf("mallory@example.org")); got.Status != c.signup {
				t.Errorf("a sign-up: %d %s", got.Status, got.Body)
			}
			if got := chrome.Get("/auth/signup"); got.Status != c.page {
				t.Errorf("the page: %d %s", got.Status, got.Brief())
			}
			if got := chrome.Get("/auth/login"); strings.Contains(got.Body, `href="/auth/signup`) != c.link {
				t.Errorf("the link: %s", got.Body)
			}
			chrome.MustBeIn(chrome.LogInBy("company"))
		})
	}
}
