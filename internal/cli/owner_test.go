//go:build unix

package cli_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/certmagic"
)

// A file of users is not used if another user may have created it or can change it. Others cannot
// read a new one.
func TestThreatStoreFileOfOthers(t *testing.T) {
	defer func(before func() int) { owner.EffectiveUser = before }(owner.EffectiveUser)
	defer syscall.Umask(syscall.Umask(0))
	other := os.Geteuid() + 4321
	for _, c := range []struct {
		name  string
		spoil func(path string) error
		want  string // of the error; empty for none
	}{
		{"control", func(string) error { return nil }, ""},
		{"writable by the group", func(path string) error { return os.Chmod(path, 0o620) }, "chmod 600"},
		{"writable by all", func(path string) error { return os.Chmod(path, 0o666) }, "chmod 600"},
		{"a link", func(path string) error {
			return errorsOf(os.Rename(path, path+"2"), os.Symlink(path+"2", path))
		}, "symbolic link"},
		{"a dangling link", func(path string) error {
			return errorsOf(os.Remove(path), os.Symlink(path+"2", path))
		}, "symbolic link"},
		{
			"a folder", func(path string) error { return errorsOf(os.Remove(path), os.Mkdir(path, 0o700)) },
			"is a folder; use the path of a file in it",
		},
		{"a link beside it", func(path string) error {
			return errorsOf(
				os.RemoveAll(path+"-wal"), os.WriteFile(path+"2", nil, 0o600), os.Symlink(path+"2", path+"-wal"),
			)
		}, "symbolic link"},
		{"of another owner", func(string) error {
			owner.EffectiveUser = func() int { return other }
			return nil
		}, "chown"},
		{"readable by others", func(path string) error { return os.Chmod(path, 0o644) }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			owner.EffectiveUser = os.Geteuid
			path := filepath.Join(sitetest.TempDir(t), "users.db")
			command := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
			command.Must("", "user", "add", "--create", "--no-password", "alice@example.com")
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Fatal(info.Mode(), err)
			}
			if err := c.spoil(path); err != nil {
				t.Fatal(err)
			}
			if c.want != "" {
				command.Refuses("", c.want, "user", "add", "--create", "--no-password", "carol@example.com")
				return
			}
			s := sitetest.Serve(t, sitetest.AccountsBody(path, "signup open"))
			s.SignedUp("bob@example.com")
			for _, beside := range []string{"-wal", "-shm"} {
				if info, err := os.Stat(path + beside); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v %v", beside, info, err)
				}
			}
			if warned := strings.Contains(
				s.Log(), "was readable by other users",
			); warned != (c.name == "readable by others") {
				t.Errorf("a warning: %v", warned)
			}
		})
	}
}

// A file that is no user store, such as a Caddyfile after --store, is left as it is.
func TestThreatStoreIsAnotherFile(t *testing.T) {
	database := func(pragma string) func(string) error {
		return func(path string) error {
			db, err := sql.Open("sqlite", path)
			if err == nil {
				_, err = db.Exec(pragma + "; CREATE TABLE films (title)")
			}
			return errorsOf(err, db.Close())
		}
	}
	for name, write := range map[string]func(path string) error{
		"a Caddyfile": func(path string) error {
			return os.WriteFile(path, []byte("example.com {\n\trespond hi\n}\n"), 0o644)
		},
		"a database":         database("PRAGMA user_version=1"),
		"a database by WAL":  database("PRAGMA journal_mode=WAL"),
		"a folder of others": func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		folder := sitetest.TempDir(t)
		path := filepath.Join(folder, "file")
		if err := write(path); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		command := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
		for _, args := range [][]string{
			{"user", "list"}, {"user", "show", "alice@example.com"}, {"user", "export"}, {"key", "list"},
			{"user", "add", "--create", "--no-password", "alice@example.com"}, {"user", "delete", "--yes", "alice@example.com"},
			{"store", "backup", filepath.Join(folder, "backup.db")},
		} {
			if _, printed, err := command.Run("", args...); err == nil || strings.Contains(printed, "from now on") {
				t.Errorf("%s: %q: %v, %s", name, args, err, printed)
			}
		}
		after, err := os.Stat(path)
		if err != nil || after.Mode() != before.Mode() || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("%s was %v, and is %v: %v", name, before, after, err)
		}
		if found, _ := os.ReadDir(folder); len(found) != 1 {
			t.Errorf("%s: beside it there is %v", name, found)
		}
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// If root creates files for a service, they belong to the service's user.
func TestThreatRootKeepsOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		caddytest.Missing(t, "root, to give files away")
	}
	const service = 4321
	of := func(path string) int {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := owner.OwnerOf(info)
		return uid
	}
	data := filepath.Join(sitetest.TempDir(t), "data")
	if err := errorsOf(os.Mkdir(data, 0o700), os.Chown(data, service, service)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "jwt", "users.db")
	command := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	for range 2 {
		command.Must("", "user", "add", "--create", "--no-password", fmt.Sprintf("u%d@example.com", os.Getpid()+of(data)))
		command.Must("", "user", "delete", "--yes", fmt.Sprintf("u%d@example.com", os.Getpid()+of(data)))
	}
	copied := filepath.Join(data, "backup", "copy.db")
	(&accountstest.CommandLine{TB: t}).Must("", "store", "copy", path, copied)
	for _, made := range []string{filepath.Dir(path), path, filepath.Dir(copied), copied} {
		if got := of(made); got != service {
			t.Errorf("%s belongs to %d", made, got)
		}
	}
	storage := owner.KeepAll(&certmagic.FileStorage{Path: data})
	for range 2 { // made, and replaced
		if err := storage.Lock(t.Context(), "jwt/signing_keys/x.json"); err != nil {
			t.Fatal(err)
		}
		if err := storage.Store(t.Context(), "jwt/signing_keys/x.json", []byte("{}")); err != nil {
			t.Fatal(err)
		}
		if err := storage.Unlock(t.Context(), "jwt/signing_keys/x.json"); err != nil {
			t.Fatal(err)
		}
		for _, made := range []string{"locks", "jwt/signing_keys", "jwt/signing_keys/x.json"} {
			if got := of(filepath.Join(data, made)); got != service {
				t.Errorf("%s belongs to %d", made, got)
			}
		}
	}
	// Root does not use another user's file in root's own folder.
	shared := sitetest.TempDir(t)
	pre := filepath.Join(shared, "pre.db")
	if err := errorsOf(
		os.Chmod(shared, 0o1777), os.WriteFile(pre, nil, 0o600), os.Chown(pre, service, service),
	); err != nil {
		t.Fatal(err)
	}
	(&accountstest.CommandLine{TB: t, Where: []string{"--store", pre}}).
		Refuses("", "belongs to the user", "user", "list")
}
