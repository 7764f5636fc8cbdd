package web_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Whoever reads a mail of before does not get the account back after its owner has set it right.
func TestThreatMailOfBefore(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	file := filepath.Join(sitetest.TempDir(t), "users.db")
	p := &postbox{Site: sitetest.Serve(t, sitetest.AccountsBody(
		file, mailOption(server, "per_address 1000\n per_client 1000")+"email_login",
	)), server: server}
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", file}}
	reset := func(email, code, password string) sitetest.Reply {
		return p.Post("/auth/reset", sitetest.JSON{"email": email, "code": code, "newPassword": password})
	}
	for name, end := range map[string]func(email, token string){
		"control": func(string, string) {},
		"the user changes the password": func(_, token string) {
			p.MustAnswer(204, p.Post("/auth/password", sitetest.JSON{
				"currentPassword": sitetest.GoodPassword, "newPassword": otherPassword,
			}, "Authorization: Bearer "+token), "new password")
		},
		"passwd":             func(email, _ string) { c.Must(otherPassword, "user", "passwd", email) },
		"disable and enable": func(email, _ string) { c.Must("", "user", "disable", email); c.Must("", "user", "enable", email) },
	} {
		email := strings.ReplaceAll(name, " ", "-") + "@example.com"
		token := p.SignedUp(email).Token
		p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": email}), "forgot")
		forgot := p.next()
		p.MustAnswer(202, p.Post("/auth/code", sitetest.JSON{"email": email}), "asking for a code")
		logIn := p.next()
		p.MustAnswer(202, p.Post(
			"/auth/email", sitetest.JSON{"email": "new-" + email}, "Authorization: Bearer "+token,
		), "a new address")
		address := p.next()
		end(email, token)
		if name == "control" {
			p.MustAnswer(204, reset(email, forgot.Code, otherPassword), name)
			continue
		}
		p.MustAnswer(401, reset(email, forgot.Code, "a third good password"), name+": the mail of forgot")
		p.MustAnswer(401, p.Post("/auth/login", sitetest.JSON{"email": email, "code": logIn.Code}), name+": the log-in code")
		if got := p.Post(
			"/auth/email/confirm", sitetest.JSON{"code": address.Code}, "Authorization: Bearer "+token,
		); got.Status < 400 {
			t.Errorf("%s: the change of address: %d", name, got.Status)
		}
		if user := accountstest.UserOf(t, email); user.Email != email {
			t.Errorf("%s: the address is %s", name, user.Email)
		}
	}
}
