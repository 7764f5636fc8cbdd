package cli_test

import (
	stdjson "encoding/json"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// userIn is a user as a command prints it with --json.
type userIn struct {
	ID, Email, Link string
	Mailed          bool
	EmailVerified   bool `json:"email_verified"`
	Roles           []string
}

func decoded(t *testing.T, text string) (user userIn) {
	t.Helper()
	if err := stdjson.Unmarshal([]byte(text), &user); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return user
}

func TestUserVerifyAndEmail(t *testing.T) {
	c, _ := newUserStore(t)
	id := strings.TrimSpace(c.Must(sitetest.GoodPassword, "user", "add", "alice@example.com"))
	c.Must("", "user", "add", "--no-password", "bob@example.com")
	accountstest.Has(t, c.Must("", "user", "show", "alice@example.com"), "Verified  no")
	accountstest.Has(t, c.Must("", "user", "verify", "alice@example.com"), "the address alice@example.com is verified")
	accountstest.Has(t, c.Must("", "user", "show", "alice@example.com"), "Verified  yes")
	if user := decoded(t, c.Must("", "user", "verify", "--json", id)); !user.EmailVerified || user.ID != id {
		t.Errorf("verify --json: %+v", user)
	}
	accountstest.Has(
		t, c.Must("", "user", "email", "alice@example.com", "Alice@example.org"),
		"the address of "+id+" is Alice@example.org",
	)
	if user := decoded(t, c.Must("", "user", "show", "--json", "alice@example.org")); user.EmailVerified || user.ID != id {
		t.Errorf("a new address: %+v", user)
	}
	c.Must("", "user", "verify", id)
	user := decoded(t, c.Must("", "user", "email", "--json", id, "alice@EXAMPLE.org"))
	if !user.EmailVerified || user.Email != "alice@EXAMPLE.org" {
		t.Errorf("the same address in another spelling: %+v", user)
	}
	c.Refuses("", "another user has this e-mail address", "user", "email", id, "bob@example.com")
	c.Refuses("", "must look like name@example.com", "user", "email", id, "bob")
	c.Refuses("", "and the new address", "user", "email", id)
	c.Refuses("", "there is no user", "user", "email", "nobody@example.com", "x@example.com")
	c.Refuses("", "there is no user", "user", "verify", "nobody@example.com")
}

// Without mail, the link is printed.
func TestUserInvite(t *testing.T) {
	c, path := newUserStore(t)
	c.Refuses("", "Set --base", "user", "invite", "alice@example.com")
	link := strings.TrimSpace(c.Must(
		"", "user", "invite", "--base", "https://example.com", "--role", "editor", "alice@example.com",
	))
	if !strings.HasPrefix(link, "https://example.com/auth/reset?token=") {
		t.Errorf("the link is %s", link)
	}
	c.Refuses("", "run `caddy jwt user roles`", "user", "invite", "--base", "https://example.com", "--role", "x",
		"alice@example.com")
	c.Refuses("", "must look like name@example.com", "user", "invite", "--base", "https://example.com", "alice")
	user := decoded(t, c.Must("", "user", "invite", "--json", "--base", "https://example.com", "alice@example.com"))
	if user.Link == "" || user.Link == link || user.Mailed || len(user.Roles) != 1 {
		t.Errorf("invited again: %+v", user)
	}
	s := sitetest.Serve(t, sitetest.AccountsBody(path, ""))
	use := func(link string, status int) {
		t.Helper()
		found, _ := url.Parse(link)
		s.MustAnswer(status, s.Post("/auth/reset", sitetest.JSON{
			"token": found.Query().Get("token"), "newPassword": sitetest.GoodPassword,
		}), link)
	}
	use(user.Link, 204)
	use(user.Link, 401)
	use(link, 401)
	s.LoggedIn("alice@example.com")
	if user := decoded(t, c.Must("", "user", "show", "--json", "alice@example.com")); user.EmailVerified {
		t.Error("a link that was not mailed proves no address")
	}
	c.Refuses("", "another user has this", "user", "invite", "--base", "https://example.com", "alice@example.com")
}

// With mail, the running Caddy mails the link, and it proves the address.
func TestUserInviteByMail(t *testing.T) {
	server := sitetest.NewSMTPServer(t)
	server.Start()
	clock := sitetest.SetClock(t)
	options := "issuer https://id.example.com\nverify_email\nmail smtp://" + server.Address +
		" {\nfrom no-reply@example.com\n}"
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(path, options))
	c := withCaddyfile(t, ":1 {\n jwt {\n accounts {\n store file "+path+"\n"+options+"\n }\n }\n}")
	token := func(number int) string {
		t.Helper()
		raw := strings.NewReplacer("=\r\n", "", "=3D", "=").Replace(server.MustGet(number)[number-1].Raw)
		_, rest, found := strings.Cut(raw, "https://id.example.com/auth/reset?token=")
		if !found {
			t.Fatalf("no link in %s", raw)
		}
		return rest[:strings.IndexAny(rest, "\r\n")]
	}
	accountstest.Has(t, c.Must("", "user", "invite", "alice@example.com"), "alice@example.com is invited")
	first := token(1)
	shown := c.Must("", "user", "invite", "--json", "alice@example.com")
	if user := decoded(t, shown); !user.Mailed || user.Link != "" || strings.Contains(shown, "token") {
		t.Errorf("invited again: %s", shown)
	}
	second := token(2)
	page := s.Form(sitetest.Browser(t), "/auth/reset?token="+first, nil)
	s.MustAnswer(401, page, "a link that was replaced")
	clock.Ahead.Store(23 * 3600)
	browser := sitetest.Browser(t)
	s.MustAnswer(303, s.Form(browser, "/auth/reset?token="+second, nil), "the link")
	s.MustAnswer(200, s.Form(browser, "/auth/reset", nil), "its page")
	s.MustAnswer(200, s.Form(browser, "/auth/reset", url.Values{"newPassword": {sitetest.GoodPassword}}), "the password")
	s.LoggedIn("alice@example.com")
	if user := decoded(t, c.Must("", "user", "show", "--json", "alice@example.com")); !user.EmailVerified {
		t.Error("the address is not verified")
	}
	c.Must("", "user", "invite", "bob@example.com")
	late := token(3)
	clock.Ahead.Store(48 * 3600)
	s.MustAnswer(401, s.Form(sitetest.Browser(t), "/auth/reset?token="+late, nil), "a link after a day")
}
