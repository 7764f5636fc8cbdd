package web_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
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
		"passwd": func(email, _ string) { c.Must(otherPassword, "user", "passwd", email) },
		"disable and enable": func(email, _ string) {
			c.Must("", "user", "disable", "--yes", email)
			c.Must("", "user", "enable", email)
		},
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

// failingUpdates is a store in which no user can be changed.
type failingUpdates struct{ store.UserStore }

func (failingUpdates) UpdateUser(
	context.Context, string, time.Time, func(*store.User) error,
) (store.User, error) {
	return store.User{}, errors.New("unplugged")
}

// The old address is told of a change only if there was one, and a change is not undone if it cannot be told.
func TestOldAddressIsToldAfterTheChange(t *testing.T) {
	option, write := ownMails(t)
	p := mailSite(t, "verify_email"+option)
	token := p.verified("alice@example.com").Token
	ask := func(email string) string {
		p.MustAnswer(202, p.Post("/auth/email", sitetest.JSON{"email": email}, bearer(token)), "asking")
		return p.next().Code
	}
	confirm := func(code string) sitetest.Reply {
		return p.Post("/auth/email/confirm", sitetest.JSON{"code": code}, bearer(token))
	}
	code := ask("new@example.com")
	var faulty store.UserStore = failingUpdates{accountstest.StoreOf(t)}
	accountstest.ServiceOf(t).AddStore(&faulty)
	p.MustAnswer(503, confirm(code), "a store that fails")
	accountstest.ServiceOf(t).DropStore(&faulty)
	p.MustAnswer(204, confirm(code), "the same code again")
	if told := p.next(); told.To != "<alice@example.com>" {
		t.Errorf("the first notice: %+v", told)
	}
	code = ask("newer@example.com") // else a second notice was before it
	write("email-changed.txt", "{{if}}")
	p.MustAnswer(204, confirm(code), "a notice that cannot be written")
	if !strings.Contains(p.Log(), "notice-not-queued") || strings.Contains(p.Log(), "newer@example.com") {
		t.Error("no warning, or an address in it")
	}
}
