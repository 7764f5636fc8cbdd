package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// A backup is made and restored while Caddy runs. Caddy goes on with what is in the backup, and
// what ended since stays ended.
func TestStoreBackupAndRestore(t *testing.T) {
	dir := sitetest.TempDir(t)
	path, backup := filepath.Join(dir, "users.db"), filepath.Join(dir, "a folder.db")
	s := sitetest.Serve(t, `
	jwt {
		accounts {
			signup open
			store file `+path+`
		}
		api_keys
		public /auth/*
	}
	respond "{http.auth.user.id}"`)
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	key := func(name string) string { return strings.TrimSpace(c.Must("", "key", "add", "--subject", name)) }
	id := func(key string) string { return strings.Split(key, "_")[1] }
	answers := func(what, credential string, status int) {
		t.Helper()
		sitetest.Eventually(t, what, func() bool { return s.Bearer("/", credential).Status == status })
	}
	stays := s.SignedUp("alice@example.com")
	loggedOut := s.LoggedIn("alice@example.com")
	staysKey, revokedKey := key("stays"), key("revoked")
	answers("the keys are known", revokedKey, 200)

	c.Where = append(c.Where, backup)
	accountstest.Has(t, c.Must("", "store", "backup"), "is complete; users: 1")
	c.Refuses("", "already exists", "store", "backup")
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	c.Where = c.Where[:2]
	look := &accountstest.CommandLine{TB: t, Where: []string{"--store", backup}}
	accountstest.Has(t, look.Must("", "user", "list"), "alice@example.com") // which may leave a -wal beside it

	later := s.SignedUp("bob@example.com")
	laterSession := s.LoggedIn("alice@example.com")
	laterKey := key("later")
	answers("a key that was made since", laterKey, 200)
	c.Must("", "key", "revoke", "--yes", id(revokedKey))
	s.MustAnswer(204, s.Do("POST", "/auth/logout", "Authorization: Bearer "+loggedOut.Token), "log-out")
	accountstest.WithUsers(t, path, func(users store.UserStore) {
		if err := store.WithdrawKeys(t.Context(), users, "a place", []string{"a key"}); err != nil {
			t.Fatal(err)
		}
	})

	c.Refuses("", "confirm with --yes", "store", "restore", backup)
	answers("nothing is restored without --yes", later.Token, 200)
	accountstest.Has(t, c.Must("", "store", "restore", "--yes", backup), "is restored; users: 1")

	answers("a user who signed up since", later.Token, 401)
	answers("a session that began since", laterSession.Token, 401)
	answers("a key that was made since", laterKey, 401)
	answers("a key that was revoked since", revokedKey, 401)
	answers("a session that ended since", loggedOut.Token, 401)
	answers("control: a session of the backup", stays.Token, 200)
	answers("control: a key of the backup", staysKey, 200)
	if got := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": loggedOut.RefreshToken}); got.Status != 401 {
		t.Errorf("a session that ended is back: %d %s", got.Status, got.Body)
	}
	renewed := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": stays.RefreshToken}).Tokens(t)
	answers("control: it is refreshed", renewed.Token, 200)
	s.LoggedIn("alice@example.com")
	s.SignedUp("carol@example.com") // the running Caddy writes the store
	accountstest.Has(t, c.Must("", "user", "list"), "carol@example.com")
	accountstest.WithUsers(t, path, func(users store.UserStore) {
		ids, err := store.WithdrawnKeys(t.Context(), users, "a place", time.Now())
		if err != nil || len(ids) != 1 {
			t.Errorf("withdrawn keys after the restore: %v %v", ids, err)
		}
	})
	if log := s.Log(); strings.Contains(log, `"level":"error"`) {
		t.Errorf("Caddy logs errors: %s", log)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || left != nil {
		t.Errorf("left behind: %v %v", left, err)
	}

	// In another place, everything is as in the backup.
	elsewhere := &accountstest.CommandLine{TB: t, Where: []string{"--store", filepath.Join(dir, "new.db")}}
	elsewhere.Refuses("", "there is no user store", "store", "restore", backup)
	elsewhere.Must("", "store", "restore", "--create", backup)
	shown := elsewhere.Must("", "user", "show", "alice@example.com")
	if strings.Count(shown, "192.0.2.")+strings.Count(shown, "127.0.0.1") != 2 {
		t.Errorf("sessions in a new store: %s", shown)
	}
	accountstest.Has(t, elsewhere.Must("", "key", "list"), id(revokedKey))
	for what, text := range map[string]string{"the backup": "file is corrupt", "no such file": "no such file"} {
		other := filepath.Join(dir, what)
		if what == "the backup" {
			if err := os.WriteFile(other, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c.Refuses("", text, "store", "restore", "--yes", other)
	}
	answers("nothing of it is restored", renewed.Token, 200)
}
