package examples_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

var codeInMail = regexp.MustCompile(`(?m)^The code is: (\d{6})`)

func TestExampleMembers(t *testing.T) {
	mails := sitetest.NewSMTPServer(t).Start()
	s := runExample(t, "members", "SMTP", "smtp://"+mails.Address)
	v := s.Visitor()
	to := v.Get("/members/").To(t)
	if to.Path != "/auth/login" {
		t.Fatalf("without a session it leads to %s", to)
	}
	page := v.Post("/auth/signup", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "name": {"Alice"}, "return_to": {"/members/"},
	})
	code := codeInMail.FindStringSubmatch(mails.MustGet(1)[0].Raw)[1]
	form := page.HiddenFields()
	form.Set("email", "alice@example.com")
	form.Set("code", code)
	if to := v.Post("/auth/verify", form).To(t); to.Path != "/members/" {
		t.Fatalf("with the code %s it leads to %s", code, to)
	}
	if got := v.Get("/members/"); got.Body != "Hello, alice@example.com" {
		t.Errorf("a member: %d %s", got.Status, got.Body)
	}
	s.MustAnswer(403, v.Get("/members/board/"), "without the role")

	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Roles = []string{"board"} })
	v = s.Visitor()
	v.Post("/auth/login", sitetest.FormOf("alice@example.com")).To(t)
	if to := v.Get("/members/board/").To(t).String(); !strings.HasPrefix(to, "/auth/factors") {
		t.Errorf("without a second factor it leads to %s", to)
	}
}
