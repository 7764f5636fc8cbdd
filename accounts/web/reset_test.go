package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// An invalid body costs little, and the response is short.
func TestThreatRefusedBodies(t *testing.T) {
	s := sitetest.AccountsSite(t, "signup open\n throttle off\n profile name")
	s.SignedUp("alice@example.com")
	chrome := sitetest.Browser(t)
	s.Form(chrome, "/auth/login", sitetest.FormOf("alice@example.com"))
	unknown := func(name func(i int) string, count int) string {
		var b strings.Builder
		for i := range count {
			fmt.Fprintf(&b, `%s:1,`, sitetest.Marshal(t, name(i)))
		}
		return "{" + strings.TrimSuffix(b.String(), ",") + "}"
	}
	for what, body := range map[string]string{
		"many":               unknown(func(i int) string { return fmt.Sprint("a", i) }, 6000),
		"long names":         unknown(func(i int) string { return strings.Repeat("x", 3000) + fmt.Sprint(i) }, 20),
		"control characters": unknown(func(i int) string { return strings.Repeat("\x01", 60) + fmt.Sprint(i) }, 100),
		"quotes":             unknown(func(i int) string { return strings.Repeat(`"`, 60) + fmt.Sprint(i) }, 200),
		"tildes and slashes": unknown(func(i int) string { return strings.Repeat(`~/`, 30) + fmt.Sprint(i) }, 200),
		"angles":             unknown(func(i int) string { return strings.Repeat(`<`, 60) + fmt.Sprint(i) }, 100),
		"line separators":    unknown(func(i int) string { return strings.Repeat("\u2028", 20) + fmt.Sprint(i) }, 200),
		"other letters":      unknown(func(i int) string { return strings.Repeat("é", 30) + fmt.Sprint(i) }, 200),
		"many, and a long text": `{"email":` + sitetest.Marshal(t, strings.Repeat("x", 30000)) + "," +
			unknown(func(i int) string { return fmt.Sprint("a", i) }, 2000)[1:],
	} {
		for _, path := range []string{"/auth/signup", "/auth/login", "/auth/refresh", "/auth/reset", "/auth/password"} {
			headers := []string{}
			if path == "/auth/password" {
				headers = append(headers, "Authorization: Bearer "+s.LoggedIn("alice@example.com").Token)
			}
			got := s.Post(path, body, headers...)
			s.MustAnswer(422, got, what+" at "+path)
			if len(got.Body) >= 8<<10 {
				t.Errorf("%s at %s: %d bytes", what, path, len(got.Body))
			}
			details := got.ErrorBody(t).Error.Details
			if len(details) != web.MaxPropertyErrors+1 || details[web.MaxPropertyErrors].Code != "more" {
				t.Errorf("%s at %s: %d errors, the last %+v", what, path, len(details), details[len(details)-1])
			}
			known := 0
			for _, detail := range details {
				if detail.Path == "/email" || detail.Path == "/password" || detail.Path == "/token" ||
					detail.Path == "/newPassword" || detail.Path == "/currentPassword" ||
					detail.Path == "/refreshToken" {
					known++
				}
			}
			if known == 0 {
				t.Errorf("%s at %s: what is missing is not said", what, path)
			}
		}
	}
	long, back := strings.Repeat("<x>", 5000), "/todos/?"+strings.Repeat("a='&", 500)
	for path, form := range map[string]url.Values{
		"/auth/login":    {"email": {long}, "password": {"wrong password"}, "return_to": {back}},
		"/auth/signup":   {"email": {long}, "password": {"wrong password"}, "return_to": {back}},
		"/auth/reset":    {"token": {long}, "newPassword": {"short"}},
		"/auth/password": {"currentPassword": {long[:2000]}, "newPassword": {long[:2000]}},
	} {
		got := s.Form(chrome, path, form)
		if got.Status < 400 || len(got.Body) >= 8<<10 ||
			!strings.Contains(got.Body, `role="alert"`) && path != "/auth/reset" {
			t.Errorf("form of %s: %d, %d bytes", path, got.Status, len(got.Body))
		}
	}
	if got := s.Form(chrome, "/auth/login", url.Values{
		"email": {"alice@example.com"}, "password": {"wrong password"}, "return_to": {"/todos/?a=1&b=2"},
	}); !strings.Contains(got.Body, `value="/todos/?a=1&amp;b=2"`) ||
		!strings.Contains(got.Body, `value="alice@example.com"`) ||
		!strings.Contains(got.Body, "/auth/signup?return_to=") {
		t.Errorf("control: %s", got.Body)
	}
	got := s.Post("/auth/signup", unknown(func(i int) string { return fmt.Sprint("a", i) }, 3)).ErrorBody(t)
	if len(got.Error.Details) != 5 {
		t.Errorf("control: %+v", got.Error.Details)
	}
}

// The token of a link is neither in a log nor in the URL of a page, and the page of an invalid link
// says so.
func TestThreatResetTokenIsInNoLog(t *testing.T) {
	store := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, "log\n"+sitetest.AccountsBody(store, "signup open"))
	s.SignedUp("alice@example.com")
	command := func(args ...string) string { // in another process, because a command here would redirect the log
		t.Helper()
		output, err := exec.Command(
			caddytest.Binary(t), append([]string{"jwt", "user", "--store", store}, args...)...,
		).Output()
		if err != nil {
			t.Fatal(args, err)
		}
		return string(output)
	}
	link := func() (path, token string) {
		found, err := url.Parse(strings.TrimSpace(command("reset-link", "--base", s.URL, "alice@example.com")))
		if err != nil {
			t.Fatal(err)
		}
		return found.RequestURI(), found.Query().Get("token")
	}
	path, token := link()
	chrome := sitetest.Browser(t)
	for range 2 { // it is not used up by being looked at
		got := s.Form(chrome, path, nil)
		if got.Status != 303 || got.Header.Get("Location") != "/auth/reset" ||
			got.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Fatalf("the link: %d %v %s", got.Status, got.Header, got.Body)
		}
		cookie := got.Header.Get("Set-Cookie")
		for _, want := range []string{"reset=" + token, "Path=/auth/reset;", "HttpOnly", "SameSite=Lax", "Expires="} {
			if !strings.Contains(cookie, want) {
				t.Errorf("the cookie is %s, without %s", cookie, want)
			}
		}
	}
	s.Send(http.MethodHead, path, "")
	if cookie := s.Send(
		http.MethodGet, path, "", "X-Forwarded-Proto: https",
	).Header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "__Secure-reset=") || !strings.Contains(cookie, "Secure;") {
		t.Errorf("by https: %s", cookie)
	}
	page := s.Form(chrome, "/auth/reset", nil)
	if page.Status != 200 || strings.Contains(page.Body, token) ||
		page.Header.Get("Referrer-Policy") != "no-referrer" || !strings.Contains(page.Body, `name="newPassword"`) {
		t.Errorf("the form: %d %v %s", page.Status, page.Header, page.Body)
	}
	s.MustAnswer(422, s.Form(chrome, "/auth/reset", url.Values{"newPassword": {"short"}}), "a short password")
	s.MustAnswer(200, s.Form(chrome, "/auth/reset", url.Values{"newPassword": {"a password by link"}}), "the form")
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": "a password by link"}),
		"the new password",
	)

	second, secondToken := link()
	command("disable", "--yes", "alice@example.com")
	command("enable", "alice@example.com")
	for what, path := range map[string]string{
		"used": path, "withdrawn": second, "wrong": "/auth/reset?token=x", "damaged": path + "&x=;%zz",
		"without a token": "/auth/reset?x=" + token, "empty": "/auth/reset", "cut": path[:len(path)-5],
	} {
		for _, got := range []sitetest.Reply{
			s.Form(sitetest.Browser(t), path, nil),
			s.Form(sitetest.Browser(t), strings.Replace(path, "/auth", "/AUTH", 1), nil),
		} {
			if got.Status != 401 || !strings.Contains(got.Body, "This link does not work") ||
				!strings.Contains(got.Body, "ask the operators of this site") ||
				strings.Contains(got.Body, `name="newPassword"`) || got.Header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("%s: %d %s", what, got.Status, got.Body)
			}
		}
	}
	if got := s.Form(sitetest.Browser(t), "/auth/reset", url.Values{
		"newPassword": {"a password by link"},
	}); got.Status != 401 ||
		!strings.Contains(got.Body, "This link does not work") {
		t.Errorf("the form without a link: %d %s", got.Status, got.Body)
	}
	third, thirdToken := link()
	s.Send(http.MethodDelete, third, "")
	s.Send(http.MethodPost, third, "{}")
	s.MustAnswer(
		204, s.Post("/auth/reset", sitetest.JSON{"token": thirdToken, "newPassword": "one more password"}), "by JSON",
	)

	s.MustAnswer(200, s.Get("/auth/login?control=CONTROL"), "control")
	text := ""
	sitetest.Eventually(t, "the log has the control", func() bool {
		text = s.Log()
		return strings.Contains(text, "CONTROL")
	})
	for _, token := range []string{token, secondToken, thirdToken} {
		for _, part := range []string{token, token[:len(token)-5]} {
			if i := strings.Index(text, part); i >= 0 {
				t.Fatalf("the log has a token: %s", text[max(0, i-400):i])
			}
		}
	}
	if strings.Count(text, "whose query is secret") < 10 {
		t.Error("the requests are not logged at all")
	}
}
