package web_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddyserver/caddy/v2"
	"github.com/go-json-experiment/json"
)

// A withdrawn signing key no longer verifies tokens, even if a backup restores it.
func TestThreatWithdrawnKeyComesBack(t *testing.T) {
	dir := sitetest.TempDir(t)
	data, store, config := filepath.Join(dir, "data"), filepath.Join(dir, "users.db"), filepath.Join(dir, "Caddyfile")
	body := sitetest.AccountsBody(store, "signup open")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(
		"{\n storage file_system %s\n}\n:1 {\n%s\n}", data, strings.Replace(body, "metrics /metrics", "", 1),
	)), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(dir, "log.json")}
	s.Load(body, data)
	t.Cleanup(func() { stopCaddy(t) })
	old := s.SignedUp("alice@example.com")
	s.MustAnswer(200, s.Bearer("/todos/", old.Token), "control")
	keys := accountstest.ServiceOf(t).Keys
	file := filepath.Join(data, signing.Path(accountstest.ServiceOf(t).Config.KeyScope()))
	backup, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// one in this process would take the log
	if output, err := exec.Command(
		caddytest.Binary(t), "jwt", "keys", "rotate", "--withdraw", "--yes", "--config", config,
	).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, output)
	}
	look := func() {
		t.Helper()
		if err := keys.Reload(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
	}
	look()
	s.MustAnswer(401, s.Bearer("/todos/", old.Token), "withdrawn")
	fresh := s.LoggedIn("alice@example.com")
	if err := os.WriteFile(file, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	look()
	s.MustAnswer(401, s.Bearer("/todos/", old.Token), "after the backup is back")
	s.MustAnswer(200, s.Bearer("/todos/", fresh.Token), "control: the key in memory goes on")
	if !strings.Contains(s.Log(), "withdrawn signing keys are in the storage again") {
		t.Error("the log has no warning")
	}
	stopCaddy(t)
	s.Load(body, data)
	s.MustAnswer(401, s.Bearer("/todos/", old.Token), "after a restart with the backup")
	s.MustAnswer(200, s.Bearer("/todos/", s.LoggedIn("alice@example.com").Token), "control: a new key is made")
	if published := s.Get("/auth/jwks.json").Body; strings.Contains(published, jwkIDs(t, backup)[0]) {
		t.Errorf("it is published: %s", published)
	}
}

func stopCaddy(t testing.TB) {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Error(err)
	}
}

func jwkIDs(t testing.TB, text []byte) (ids []string) {
	t.Helper()
	var stored signing.Stored
	if err := json.Unmarshal(text, &stored); err != nil {
		t.Fatal(err)
	}
	for _, key := range stored.Keys {
		ids = append(ids, key.ID())
	}
	return ids
}
