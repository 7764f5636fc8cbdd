package web_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// inviteSite is a site where users with the role host invite others. alice has the role, and bob has not.
func inviteSite(t *testing.T, options string) *postbox {
	t.Helper()
	p := mailSite(t, "invitations host\ndefault_roles reader\n"+options)
	p.SignedUp("alice@example.com")
	p.SignedUp("bob@example.com")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Roles = []string{"host"} })
	return p
}

// A user with the role invites somebody by the page, who chooses a password with the link of the mail.
func TestInvitationByPage(t *testing.T) {
	p := inviteSite(t, "")
	v := p.Visitor()
	if to := v.Get("/auth/invite").To(t); to.String() != "/auth/login?return_to=%2Fauth%2Finvite" {
		t.Errorf("without a log-in, the page leads to %s", to)
	}
	v.Post("/auth/login", sitetest.FormOf("alice@example.com"))
	mustHave(t, v.Get("/auth/account"), "the account", `href="/auth/invite"`)
	mustHave(t, v.Get("/auth/invite"), "the page", "Invite somebody", `name="email"`)
	wrong := v.Post("/auth/invite", url.Values{"email": {"carol"}})
	if wrong.Status != 422 || !strings.Contains(wrong.Body, `href="#email"`) {
		t.Errorf("no address: %d %s", wrong.Status, wrong.Body)
	}
	mustHave(t, v.Post("/auth/invite", url.Values{"email": {"carol@example.com"}}), "the answer", "on its way")
	first := p.next()
	if first.To != "<carol@example.com>" || first.Code != "" || !strings.Contains(first.Text, "24 hours") {
		t.Fatalf("the mail: %+v", first)
	}
	p.MustAnswer(202, p.Post("/auth/invite", sitetest.JSON{"email": "Carol@example.com"},
		bearer(p.LoggedIn("alice@example.com").Token)), "again, by a program")
	second := p.next()

	guest := p.Visitor()
	p.MustAnswer(401, guest.Get(first.Link.RequestURI()), "the link of the first mail")
	guest.Get(second.Link.RequestURI()).To(t)
	p.MustAnswer(200, guest.Post("/auth/reset", url.Values{"newPassword": {sitetest.GoodPassword}}), "a password")
	carol := accountstest.UserOf(t, "carol@example.com")
	if !carol.EmailVerified || len(carol.Roles) != 1 || carol.Roles[0] != "reader" {
		t.Errorf("the user: verified %v, roles %v", carol.EmailVerified, carol.Roles)
	}
	p.LoggedIn("carol@example.com")

	// somebody who has an account is told so, and the answer is the same
	p.MustAnswer(202, p.Post("/auth/invite", sitetest.JSON{"email": "carol@example.com"},
		bearer(p.LoggedIn("alice@example.com").Token)), "somebody with an account")
	if got := p.next(); !strings.Contains(got.Subject, "already have an account") {
		t.Errorf("the mail to somebody with an account: %s", got.Subject)
	}
	p.LoggedIn("carol@example.com")
}

// Who must not invite is refused, and nobody is added or written to.
func TestThreatInvitations(t *testing.T) {
	p := inviteSite(t, "")
	alice, bob := p.LoggedIn("alice@example.com").Token, p.LoggedIn("bob@example.com").Token
	eve := sitetest.JSON{"email": "eve@example.com"}
	mustRefuse(t, p.Post("/auth/invite", eve, bearer(bob)), 403, "forbidden", "without the role")
	mustRefuse(t, p.Post("/auth/invite", eve), 401, "credentials_required", "without a log-in")
	mustRefuse(t, p.Post("/auth/invite", sitetest.JSON{"email": "eve@example.com", "roles": []string{"host"}}, bearer(alice)),
		422, "VALIDATION_FAILED", "with roles")
	v := p.Visitor()
	v.Post("/auth/login", sitetest.FormOf("bob@example.com"))
	page := v.Get("/auth/invite")
	if page.Status != 403 || !strings.Contains(page.Body, "You do not have a role") ||
		strings.Contains(v.Get("/auth/account").Body, "/auth/invite") {
		t.Errorf("the page without the role: %d %s", page.Status, page.Body)
	}
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Roles = nil })
	mustRefuse(t, p.Post("/auth/invite", eve, bearer(alice)), 403, "forbidden", "without the role any more")
	if _, err := accountstest.StoreOf(t).UserByEmail(t.Context(), "eve@example.com"); err == nil {
		t.Error("eve was added")
	}
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Roles = []string{"host"} })
	p.MustAnswer(202, p.Post("/auth/invite", eve, bearer(alice)), "control")
	if got := p.next(); got.To != "<eve@example.com>" {
		t.Errorf("the first mail is to %s", got.To)
	}
}

// Too many invitations add nobody.
func TestThreatManyInvitations(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	s := sitetest.AccountsSite(t, mailOption(server, "per_client 2")+"invitations host\ndefault_roles host")
	token := s.SignedUp("alice@example.com").Token
	for _, name := range []string{"a", "b"} {
		s.MustAnswer(202, s.Post("/auth/invite", sitetest.JSON{"email": name + "@example.com"}, bearer(token)), name)
	}
	mustRefuse(t, s.Post("/auth/invite", sitetest.JSON{"email": "c@example.com"}, bearer(token)), 429, "too_many_requests",
		"one more")
	if _, err := accountstest.StoreOf(t).UserByEmail(t.Context(), "c@example.com"); err == nil {
		t.Error("a user was added without a mail")
	}
}
