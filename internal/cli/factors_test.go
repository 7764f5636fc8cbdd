package cli_test

import (
	stdjson "encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The commands list and reset the second factors of a user.
func TestUserFactors(t *testing.T) {
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(path, "second_factor optional"))
	token := s.SignedUp("alice@example.com").Token
	app, codes := accountstest.WithApp(s, token)
	s.SignedUp("bob@example.com")
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}

	listed := c.Must("", "user", "factors", "alice@example.com")
	accountstest.Has(t, listed, "Authenticator app", "set up 20", "Recovery codes left  10")
	var shown struct {
		TOTP *struct {
			AddedAt string `json:"added_at"`
		}
		RecoveryCodesLeft int   `json:"recovery_codes_left"`
		TrustedBrowsers   []any `json:"trusted_browsers"`
	}
	asJSON := c.Must("", "user", "factors", "alice@example.com", "--json")
	if err := stdjson.Unmarshal([]byte(asJSON), &shown); err != nil || shown.TOTP == nil ||
		shown.RecoveryCodesLeft != 10 || shown.TrustedBrowsers == nil {
		t.Errorf("%s: %v", asJSON, err)
	}
	hasNot(t, listed+asJSON, codes[0], strings.ReplaceAll(codes[0], "-", ""))
	accountstest.Has(t, c.Must("", "user", "factors", "bob@example.com"), "none", "left  0")
	c.Refuses("", "there is no user", "user", "factors", "carol@example.com")
	c.Refuses("", "there is no user", "user", "factors", "reset", "carol@example.com")
	c.Refuses("", "no argument is given", "user", "factors", "reset")

	// A new password by the operator keeps it, and says so.
	_, stderr, err := c.Run(sitetest.GoodPassword+"\n", "user", "passwd", "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	accountstest.Has(t, stderr, "still has a second factor", "factors reset")
	_, stderr, err = c.Run("", "user", "reset-link", "--base", s.URL, "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	accountstest.Has(t, stderr, "still has a second factor")
	got := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"))
	if got.ErrorBody(t).Error.Code != "second_factor_required" {
		t.Errorf("after a new password: %s", got.Body)
	}
	challenge := got.ErrorBody(t).Error.Challenge

	accountstest.Has(t, c.Must("", "user", "factors", "reset", "--yes", "alice@example.com"), "is removed", "codes: 10")
	accountstest.Has(t, c.Must("", "user", "factors", "reset", "--yes", "alice@example.com"), "had no second factor")
	asJSON = c.Must("", "user", "factors", "reset", "--yes", "alice@example.com", "--json")
	if err := stdjson.Unmarshal([]byte(asJSON), &shown); err != nil {
		t.Errorf("%s: %v", asJSON, err)
	}
	s.LoggedIn("alice@example.com")
	for _, code := range []string{app.Code(0), app.Code(1), codes[0]} {
		s.MustAnswer(401, s.Post("/auth/login/factor", sitetest.JSON{"challenge": challenge, "code": code}), "an old code")
	}
}

// The commands list and remove the passkeys of a user.
func TestUserPasskeys(t *testing.T) {
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.ServeLocalhost(t, sitetest.AccountsBody(path, "passkeys"))
	passkey, id := accountstest.WithPasskey(s, s.SignedUp("alice@example.com").Token)
	logIn := func() sitetest.Reply {
		got := s.Send("POST", "/auth/login/passkey/options", "")
		return s.Post("/auth/login/passkey", sitetest.JSON{
			"challenge":  got.JSON(t)["challenge"],
			"credential": passkey.Use(s.URL, accountstest.Options(t, got)),
		})
	}
	logIn().Tokens(t)
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	accountstest.Has(t, c.Must("", "user", "factors", "alice@example.com"), "Phone", "localhost", "LAST USED")
	accountstest.Has(t, c.Must("", "user", "factors", "alice@example.com", "--json"), id, `"synced":false`)
	accountstest.Has(t, c.Must("", "user", "factors", "reset", "--yes", "alice@example.com"), "is removed", "passkeys: 1")
	s.MustAnswer(401, logIn(), "the passkey")
	accountstest.Has(t, c.Must("", "user", "factors", "reset", "--yes", "alice@example.com"), "had no second factor")
}

// The user is told by mail of a reset by an operator.
func TestUserFactorsResetByMail(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	options := "second_factor optional\nmail smtp://" + server.Address + " {\nfrom no-reply@example.com\n}"
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(path, options))
	accountstest.WithApp(s, s.SignedUp("alice@example.com").Token)
	c := withCaddyfile(t, ":1 {\n jwt {\n accounts {\n store file "+path+"\n"+options+"\n }\n }\n}")
	server.MustGet(1)
	c.Must("", "user", "factors", "reset", "--yes", "alice@example.com")
	got := server.MustGet(2)[1]
	if got.To != "TO:<alice@example.com>" || !strings.Contains(got.Raw, "second step of your account") {
		t.Errorf("told %s: %s", got.To, got.Raw)
	}
}

// The user is told by mail of a password that an operator sets.
func TestUserPasswdByMail(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	options := "mail smtp://" + server.Address + " {\nfrom no-reply@mail.example\n}"
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(path, options))
	s.SignedUp("alice@example.com")
	c := withCaddyfile(t, ":1 {\n jwt {\n accounts {\n store file "+path+"\n"+options+"\n }\n }\n}")
	c.Must("another good password\n", "user", "passwd", "alice@example.com")
	got := server.MustGet(1)[0]
	if got.To != "TO:<alice@example.com>" || !strings.Contains(got.Raw, "Your password at mail.example was changed") ||
		strings.Contains(got.Raw, "another good") {
		t.Errorf("told %s: %s", got.To, got.Raw)
	}
}
