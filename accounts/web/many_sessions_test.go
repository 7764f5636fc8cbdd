package web_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The account page of a user with many sessions stays small, has the latest ones, and can end all others.
func TestAccountPageWithManySessions(t *testing.T) {
	hands := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "throttle off")
	s.SignedUp("alice@example.com")
	const many = 92
	var last sitetest.Tokens
	for range many - 1 {
		hands.Ahead.Add(60)
		got := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"),
			"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 "+
				"with-more-than-usual-in-it-"+strings.Repeat("x", 100))
		last = got.Tokens(t)
	}
	v := s.Visitor()
	v.Post("/auth/login", sitetest.FormOf("alice@example.com"))
	page := v.Get("/auth/account")
	s.MustAnswer(200, page, "the page")
	weight := len(page.Body) + len(v.Get("/auth/style.css").Body) + len(v.Get("/auth/script.js").Body)
	if weight > maxPageBytes {
		t.Errorf("the page has %d bytes", weight)
	}
	t.Logf("%d bytes, of which the page is %d", weight, len(page.Body))
	if got := strings.Count(page.Body, "Last used"); got != 20 || !strings.Contains(page.Body, "and 73 more") ||
		strings.Count(page.Body, "This session") != 1 || strings.Contains(page.Body, "21 minutes ago") {
		t.Errorf("%d sessions are shown: %s", got, page.Body)
	}
	s.MustAnswer(403, v.Post("/auth/sessions", url.Values{}, "Sec-Fetch-Site: cross-site"), "by another site")
	s.MustAnswer(200, s.Bearer("/auth/whoami", last.Token), "control: another session")
	page = v.Post("/auth/sessions", url.Values{})
	if page.Status != 200 || strings.Count(page.Body, "Last used") != 1 || strings.Contains(page.Body, " more</p>") ||
		strings.Contains(page.Body, "all other sessions</button>") {
		t.Errorf("after it: %d %s", page.Status, page.Body)
	}
	s.MustAnswer(401, s.Bearer("/auth/whoami", last.Token), "another session")

	one, two := s.LoggedIn("alice@example.com"), s.LoggedIn("alice@example.com")
	s.MustAnswer(401, s.Send(http.MethodDelete, "/auth/sessions", ""), "nobody")
	s.MustAnswer(204, s.Send(http.MethodDelete, "/auth/sessions", "", bearer(two.Token)), "by a program")
	s.MustAnswer(401, s.Bearer("/auth/whoami", one.Token), "the other one")
	s.MustAnswer(200, s.Bearer("/auth/whoami", two.Token), "its own")
}

// Pages that ask for the password say how long to wait.
func TestWaitOnPages(t *testing.T) {
	hands := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "throttle 3 1h\nsecond_factor optional")
	v := s.Visitor()
	v.SignUp("alice@example.com")
	hands.Ahead.Add(301)
	form := url.Values{"decision": {"yes"}, "currentPassword": {"a wrong password"}}
	var page sitetest.Reply
	for range 40 {
		if page = v.Post("/auth/delete", form); page.Status == 429 {
			break
		}
	}
	if page.Status != 429 || !strings.Contains(page.Body, "You can try again in ") {
		t.Errorf("delete: %d %s", page.Status, page.Body)
	}
}
