package postgres_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A config whose database cannot be reached is refused, and the previous one keeps running. A
// config with the same database is accepted, even if the database is unavailable.
func TestReloadToADatabaseThatIsAway(t *testing.T) {
	s := start(t)
	dsn, elsewhere := s.database("reloaded"), strings.Replace(
		s.dsn("reloaded"), "host="+s.dir, "host="+s.dir+"/nowhere", 1,
	)
	n := newNode(t, t.TempDir(), "0", accountsOnly(dsn, "throttle off"))
	admin := sitetest.FreeAddress(t)
	configure := func(old, fresh string) {
		t.Helper()
		text, err := os.ReadFile(n.Config)
		if err == nil {
			err = os.WriteFile(n.Config, []byte(strings.ReplaceAll(string(text), old, fresh)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	reload := func() (said string, err error) {
		output, err := exec.Command(
			caddytest.Binary(t), "reload", "--config", n.Config, "--address", admin,
		).CombinedOutput()
		return string(output), err
	}
	configure("admin off", "admin "+admin)
	n.Start()
	n.mustAnswer()
	token, refreshToken := n.signsUp("alice@example.com")

	configure(dsn, elsewhere)
	if said, err := reload(); err == nil ||
		!strings.Contains(said, "the new config has a user store that cannot be opened") {
		t.Errorf("a reload to a database that is away: %v %s", err, said)
	}
	n.mustAllow(200, token, "a token of before")
	if status, _ := n.refreshes(refreshToken); status != 200 {
		t.Errorf("a refresh of before: %d", status)
	}

	configure(elsewhere, dsn)
	s.run("pg_ctl", "-D", s.dir+"/data", "-m", "fast", "-w", "stop")
	configure("throttle off", "throttle off\ntoken_lifetime 5m")
	if said, err := reload(); err != nil {
		t.Errorf("a reload while the database that is used is away: %v %s", err, said)
	}
	if status, _ := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com")); status != 503 {
		t.Errorf("control: a log-in while the database is away: %d", status)
	}
	n.mustAllow(200, token, "a token meanwhile")
	s.begin()
	sitetest.Eventually(t, "log-ins go on", func() bool {
		status, _ := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
		return status == 200
	})
}
