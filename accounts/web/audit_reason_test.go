package web_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The audit log tells why a log-in was refused. The client gets the same answer each time.
func TestAuditReason(t *testing.T) {
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(path, ""))
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	for _, email := range []string{"alice@example.com", "bob@example.com"} {
		c.Must(sitetest.GoodPassword, "user", "add", email)
	}
	c.Must("", "user", "disable", "--yes", "bob@example.com")
	c.Must("", "user", "add", "--no-password", "carol@example.com")
	answers := make(map[string]bool)
	for email, reason := range map[string]string{
		"alice@example.com": "wrong_password", "bob@example.com": "disabled", "carol@example.com": "no_password",
		"dave@example.com": "unknown_user",
	} {
		got := s.Post("/auth/login", sitetest.JSON{"email": email, "password": "not " + sitetest.GoodPassword})
		answers[got.Body] = true
		if got.Status != 401 || !strings.Contains(s.Log(), `"reason":"`+reason+`"`) {
			t.Errorf("%s: %d, and no %s in %s", email, got.Status, reason, s.Log())
		}
	}
	if len(answers) != 1 {
		t.Errorf("answers: %v", answers)
	}
	before := strings.Count(s.Log(), `"login refused"`)
	if s.LoggedIn("alice@example.com"); before != 4 || strings.Count(s.Log(), `"login refused"`) != before {
		t.Error("control: a log-in that is right is refused")
	}
}
