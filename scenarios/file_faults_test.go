package scenarios_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The disk fails while clients refresh, half of them with cookies: system calls on the store's
// files fail as on a file system that is read-only, full or broken. Each client sends the same
// token again.
func TestScenarioDiskFaults(t *testing.T) {
	caddytest.Needs(t, "strace")
	seen := scenario.Promise(t, "503 or 507 while the disk fails, and the log says what to do; "+
		"0 sessions ended, 0 tokens of an answer refused; goes on by itself")
	dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
	p := sitetest.StartAccounts(t, dir, address)
	p.SignedUp("alice@example.com")
	watched := p.LoggedIn("alice@example.com")
	clients := p.Refreshing(8)
	for _, fault := range []struct{ name, calls, errno, says string }{
		{"read-only file system", "pwrite64,ftruncate", "EROFS", "its file system is read-only"},
		{"full disk", "pwrite64,ftruncate", "ENOSPC", "the store is full"},
		{"disk quota", "pwrite64,ftruncate", "EDQUOT", "the disk refuses to write"},
		{"writes that fail", "pwrite64,ftruncate", "EIO", "the disk refuses to write"},
		{"disk that confirms nothing", "fsync,fdatasync", "EIO", "the disk refuses to write"},
	} {
		_, lostBefore := clients.Counts()
		began := len(p.Log())
		mend := p.Inject(t, fault.calls, fault.errno, filepath.Join(dir, "users.db"))
		sitetest.Eventually(t, "answers are refused: "+fault.name, func() bool {
			_, lost := clients.Counts()
			return lost >= lostBefore+20
		})
		p.MustAnswer(200, p.Bearer("/todos/", watched.Token), fault.name+": verification goes on")
		if got := p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")); got.Status != 503 &&
			got.Status != 507 || got.Header.Get("Retry-After") == "" && got.Status == 503 {
			t.Errorf("%s: a log-in is answered by %d %s", fault.name, got.Status, got.Body)
		}
		mend()
		_, lost := clients.Counts()
		before, _ := clients.GoOn(nil)
		sitetest.Eventually(
			t, "all clients go on after: "+fault.name, func() bool { _, all := clients.GoOn(before); return all },
		)
		if log := p.Log()[began:]; !strings.Contains(log, fault.says) {
			t.Errorf("%s: the log does not say %q: %s", fault.name, fault.says, log)
		}
		seen("%s: %d answers refused", fault.name, lost-lostBefore)
	}
	seen("%s", clients.Finish(t, func(_ int, token string) bool { return p.Bearer("/todos/", token).Status == 200 }))
	if strings.Contains(p.Log(), "reused") {
		t.Error("the log tells of a theft")
	}
}

// The files' permissions are changed while Caddy runs without root and clients refresh, as by an
// operator's chown -R.
func TestScenarioPermissionsChanged(t *testing.T) {
	if os.Geteuid() != 0 {
		caddytest.Missing(t, "root, to run Caddy as another user")
	}
	caddytest.Needs(t, "setpriv")
	seen := scenario.Promise(t, "200 or 503, and the log says what to do; "+
		"0 sessions ended, 0 tokens of an answer refused; goes on, at the latest by a restart")
	const nobody = 65534
	dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	p := sitetest.StartAccounts(
		t, dir, address, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", "HOME="+dir,
	)
	p.SignedUp("alice@example.com")
	clients := p.Refreshing(8)
	file := filepath.Join(dir, "users.db")
	for _, change := range []struct {
		name       string
		make, undo func() error
	}{
		{"folder read-only", func() error { return os.Chmod(dir, 0o500) }, func() error {
			return os.Chmod(dir, 0o700)
		}},
		{"folder closed", func() error { return os.Chmod(dir, 0) }, func() error { return os.Chmod(dir, 0o700) }},
		{"files read-only", func() error { return chmodAll(file, 0o400) }, func() error {
			return chmodAll(file, 0o600)
		}},
		{"files closed", func() error { return chmodAll(file, 0) }, func() error { return chmodAll(file, 0o600) }},
		{"files of root", func() error { return chownAll(file, 0) }, func() error { return chownAll(file, nobody) }},
	} {
		_, lostBefore := clients.Counts()
		if err := change.make(); err != nil {
			t.Fatal(err)
		}
		statuses := make(map[int]int)
		for range 20 {
			statuses[p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")).Status]++
		}
		if statuses[200]+statuses[503] != 20 {
			t.Errorf("%s: log-ins are answered by %v", change.name, statuses)
		}
		if err := change.undo(); err != nil {
			t.Fatal(err)
		}
		before, _ := clients.GoOn(nil)
		sitetest.Eventually(
			t, "all clients go on after: "+change.name, func() bool { _, all := clients.GoOn(before); return all },
		)
		_, lost := clients.Counts()
		seen("%s: log-ins %v, %d answers to refreshes refused", change.name, statuses, lost-lostBefore)
	}
	seen("%s", clients.Finish(t, func(_ int, token string) bool { return p.Bearer("/todos/", token).Status == 200 }))
	if log := p.Log(); !strings.Contains(log, "users.db: permission denied") || strings.Contains(log, "reused") {
		t.Errorf("the log does not say what it was: %.3000s", log)
	}
}

func chmodAll(file string, mode os.FileMode) error {
	return errors.Join(os.Chmod(file, mode), os.Chmod(file+"-wal", mode), os.Chmod(file+"-shm", mode))
}

func chownAll(file string, owner int) error {
	return errors.Join(
		os.Chown(file, owner, owner), os.Chown(file+"-wal", owner, owner), os.Chown(file+"-shm", owner, owner),
	)
}
