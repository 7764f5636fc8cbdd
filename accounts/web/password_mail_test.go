package web_test

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Users are told of each new password, however it was set, in a mail without it, and whatever the limits of
// mails are. The first password and a refused change are none.
func TestMailsAboutPasswords(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	file := filepath.Join(sitetest.TempDir(t), "users.db")
	options := mailOption(server, "per_address 1\n per_client 1000")
	p := &postbox{Site: sitetest.Serve(t, sitetest.AccountsBody(file, options)), server: server}
	told := func(why, subject string) {
		t.Helper()
		got := p.any()
		if got.To != "<alice@example.com>" || !strings.Contains(got.Subject, subject) || got.Code != "" ||
			strings.Contains(got.Text, "horse battery") || !strings.Contains(got.Text, "/auth/forgot") ||
			!strings.Contains(got.Text, "127.0.0.1") {
			t.Errorf("%s: told %+v, expected %s", why, got, subject)
		}
	}
	const changed = "Your password at 127.0.0.1 was changed"
	token := p.SignedUp("alice@example.com").Token
	change := func(current, replacement string) sitetest.Reply {
		return p.Post("/auth/password", sitetest.JSON{"currentPassword": current, "newPassword": replacement}, bearer(token))
	}
	p.MustAnswer(401, change("not the horse battery", otherPassword), "another password")
	p.MustAnswer(422, change(sitetest.GoodPassword, "short"), "a short one")
	p.MustAnswer(204, change(sitetest.GoodPassword, otherPassword), "on the account page")
	told("on the account page", changed)
	p.MustAnswer(204, change(sitetest.GoodPassword, otherPassword), "the same request again")

	p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}), "forgot")
	reset := sitetest.JSON{"email": "alice@example.com", "code": p.any().Code, "newPassword": "a third horse battery"}
	p.MustAnswer(204, p.Post("/auth/reset", reset), "by a mailed code")
	told("by a mailed code", changed)
	p.MustAnswer(401, p.Post("/auth/reset", reset), "again")

	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", file}}
	link, err := url.Parse(strings.TrimSpace(c.Must("", "user", "reset-link", "--base", p.URL, "alice@example.com")))
	if err != nil {
		t.Fatal(err)
	}
	p.MustAnswer(204, p.Post("/auth/reset", sitetest.JSON{
		"token": link.Query().Get("token"), "newPassword": "a fourth horse battery",
	}), "by a link of the operator")
	told("by a link of the operator", changed)

	german := p.Site.SignedUp("bob@example.com").Token
	got := p.Post("/auth/password", sitetest.JSON{
		"currentPassword": sitetest.GoodPassword, "newPassword": otherPassword,
	}, bearer(german), "Accept-Language: de")
	p.MustAnswer(204, got, "in German")
	if mail := p.any(); mail.To != "<bob@example.com>" || !strings.Contains(mail.Text, "wurde geändert") {
		t.Errorf("in German: %+v", mail)
	}
}

// Whoever has an account with the address of somebody else cannot flood it by changing the password.
func TestThreatPasswordMailsFlood(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	file := filepath.Join(sitetest.TempDir(t), "users.db")
	options := mailOption(server, "per_address 1\n per_client 1000")
	p := &postbox{Site: sitetest.Serve(t, sitetest.AccountsBody(file, options)), server: server}
	token := p.SignedUp("victim@example.com").Token
	passwords := []string{sitetest.GoodPassword, otherPassword}
	for i := range 8 {
		p.MustAnswer(204, p.Post("/auth/password", sitetest.JSON{
			"currentPassword": passwords[i%2], "newPassword": passwords[(i+1)%2],
		}, bearer(token)), "a change")
	}
	p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "victim@example.com"}), "forgot")
	notices := 0
	for p.any().Code == "" {
		notices++
	}
	if notices != 4 {
		t.Errorf("%d notices", notices)
	}
}
