package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// leadsOn reports whether a page has a link to a path with this return path.
func leadsOn(page sitetest.Reply, path string) bool {
	return strings.Contains(page.Body, `href="`+path+`?return_to=%2ftodos%2f1"`)
}

// Where a browser wanted to go is not lost on the way through a mail: in the browser that asked.
func TestReturnToThroughMails(t *testing.T) {
	p := mailSite(t, "verify_email\nemail_login\nsecond_factor optional")
	for returnTo, want := range map[string]string{
		"/todos/1": "/todos/1", "//evil.example/": "", "https://evil.example": "",
	} {
		chrome, other := p.Visitor(), p.Visitor()
		email := fmt.Sprintf("user%d@example.com", len(returnTo))
		linked := func(why string, link *url.URL) {
			t.Helper()
			p.MustAnswer(200, chrome.Get(link.RequestURI()), why)
			if got := chrome.Get(link.RequestURI()).HiddenFields().Get("return_to"); got != want {
				t.Errorf("%s: the link leads to %q", why, got)
			}
			if got := other.Get(link.RequestURI()).HiddenFields().Get("return_to"); got != "" {
				t.Errorf("%s: in another browser, the link leads to %q", why, got)
			}
		}
		form := sitetest.FormOf(email)
		form.Set("return_to", returnTo)
		chrome.Post("/auth/signup", form)
		verify := p.next().Link
		linked("sign-up", verify)
		form = chrome.Get(verify.RequestURI()).HiddenFields()
		if to := chrome.Post("/auth/verify", form).To(t); want != "" && to.Path != want || want == "" && to.Host != "" {
			t.Errorf("sign-up: the button leads to %s", to)
		}
		if want == "" {
			continue
		}
		chrome.Post("/auth/logout", url.Values{})

		page := chrome.Get("/auth/login?return_to=" + url.QueryEscape(returnTo))
		if !leadsOn(page, "/auth/forgot") || !leadsOn(page, "/auth/code") {
			t.Errorf("the log-in page: %s", page.Body)
		}
		page = chrome.Get("/auth/forgot?return_to=" + url.QueryEscape(returnTo))
		form = page.HiddenFields()
		form.Set("email", email)
		if page = chrome.Post("/auth/forgot", form); page.HiddenFields().Get("return_to") != want ||
			!leadsOn(page, "/auth/forgot") || !leadsOn(page, "/auth/login") {
			t.Errorf("the code page: %s", page.Body)
		}
		mail := p.next()
		shown := chrome.Get(chrome.Get(mail.Link.RequestURI()).To(t).String())
		if got := shown.HiddenFields().Get("return_to"); got != want {
			t.Errorf("the page of a new password leads to %q", got)
		}
		form = shown.HiddenFields()
		form.Set("newPassword", otherPassword)
		if page = chrome.Post("/auth/reset", form); page.Status != 200 || !leadsOn(page, "/auth/login") {
			t.Errorf("after a new password: %d %s", page.Status, page.Body)
		}
	}
}

// The mail with a log-in code has a link, which logs in the browser that asked, and only by its button.
func TestLogInLink(t *testing.T) {
	p := mailSite(t, "email_login")
	p.SignedUp("alice@example.com")
	chrome, other := p.Visitor(), p.Visitor()
	ask := func(v *sitetest.Visitor) *url.URL {
		t.Helper()
		page := v.Post("/auth/code", url.Values{"email": {"alice@example.com"}, "return_to": {"/todos/1"}})
		p.MustAnswer(200, page, "asking")
		mail := p.next()
		if mail.Code == "" || mail.Link == nil || mail.Link.Path != "/auth/code" {
			t.Fatalf("the mail: %+v", mail)
		}
		return mail.Link
	}
	link := ask(chrome)
	for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodGet} {
		got := chrome.Do(method, link.RequestURI(), nil)
		if got.Status != 200 || got.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %d", method, got.Status)
		}
	}
	p.MustAnswer(401, chrome.Get("/auth/whoami"), "opening it logs nobody in")
	form := chrome.Get(link.RequestURI()).HiddenFields()
	for _, stranger := range []*sitetest.Visitor{other, p.Visitor()} {
		if got := stranger.Get(link.RequestURI()); got.Status != 403 || got.HiddenFields().Get("token") != "" {
			t.Errorf("in another browser: %d %s", got.Status, got.Body)
		}
		p.MustAnswer(403, stranger.Post("/auth/login", form), "the button in another browser")
		ask(other) // the second has a secret of its own
		link = ask(chrome)
		form = chrome.Get(link.RequestURI()).HiddenFields()
	}
	p.MustAnswer(403, chrome.Post("/auth/login", form, "Sec-Fetch-Site: cross-site"), "a page of another site")
	if to := chrome.Post("/auth/login", form).To(t); to.Path != "/todos/1" {
		t.Errorf("the button leads to %s", to)
	}
	p.MustAnswer(200, chrome.Get("/auth/whoami"), "logged in")
	if got := chrome.Post("/auth/login", form); got.Status == 303 || got.Status == 200 {
		t.Errorf("twice: %d", got.Status)
	}
	p.MustAnswer(401, p.Visitor().Get("/auth/code?token=x"), "a link that is none")
	if strings.Contains(p.Log(), form.Get("token")) {
		t.Error("the log has the token")
	}

	p.MustAnswer(202, p.Post("/auth/code", sitetest.JSON{"email": "alice@example.com"}), "a program asks")
	if mail := p.next(); mail.Link != nil || mail.Code == "" {
		t.Errorf("its mail: %+v", mail)
	}
}

// Another account leads to the same page.
func TestAnotherAccountReturns(t *testing.T) {
	body := sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "")
	s := sitetest.Serve(t, strings.Replace(body, "leeway 0s", "require role admin", 1))
	v := s.Visitor()
	v.Post("/auth/signup", sitetest.FormOf("alice@example.com"))
	page := v.Do("GET", "/todos/1", nil, "Accept: text/html")
	form := page.HiddenFields()
	if page.Status != 403 || form.Get("return_to") != "/todos/1" {
		t.Fatalf("refused: %d %s", page.Status, page.Body)
	}
	if to := v.Post("/auth/logout", form).To(t); to.Path != "/auth/login" || to.Query().Get("return_to") != "/todos/1" {
		t.Errorf("it leads to %s", to)
	}
	v.Post("/auth/login", sitetest.FormOf("alice@example.com"))
	if to := v.Post("/auth/logout", url.Values{"return_to": {"//evil.example"}}).To(t); to.RawQuery != "" {
		t.Errorf("an unsafe path leads to %s", to)
	}
}
