//go:build unix

// Package owner makes sure that files belong to the user who runs Caddy, even if another user runs
// a command. It refuses files that others may have created or can change.
package owner

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"golang.org/x/sys/unix"
)

// EffectiveUser returns the user who runs the program; tests replace it.
var EffectiveUser = os.Geteuid

// LookupUser finds a user of the machine; tests replace it.
var LookupUser = user.Lookup

// Service returns the user caddy, as whom packages and the unit of systemd run Caddy, if the machine has
// that user and root runs the program, and otherwise an empty string.
func Service() string {
	found, err := LookupUser("caddy")
	if err != nil || found.Uid == "0" || EffectiveUser() != 0 {
		return ""
	}
	return found.Username
}

// OwnerOf returns the owner and group of a file.
func OwnerOf(info fs.FileInfo) (uid, gid int) {
	stat := info.Sys().(*syscall.Stat_t)
	return int(stat.Uid), int(stat.Gid)
}

// userName returns the name of a user for chown.
func userName(uid int) string {
	if known, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return known.Username
	}
	return strconv.Itoa(uid)
}

// Check returns an error for a user file that somebody else may have created or can change.
// A missing file is no error.
func Check(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	uid, _ := OwnerOf(info)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf(
			"%s is a symbolic link, which another user may have created; use the path of the file that it points to",
			path,
		)
	case info.IsDir():
		return fmt.Errorf(
			"%s is a folder; use the path of a file in it, as in %s", path, filepath.Join(path, "users.db"),
		)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file", path)
	case !mayOwn(uid, path):
		return &OtherError{path, userName(uid), userName(EffectiveUser())}
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s is writable by users other than its owner (mode %04o); "+
			"check whether it was changed, then run: chmod 600 %[1]s", path, info.Mode().Perm())
	}
	return nil
}

// mayOwn reports whether a file of a user may be used: one's own files, and for root also
// files of the folder's owner.
func mayOwn(uid int, path string) bool {
	if me := EffectiveUser(); uid == me || me != 0 {
		return uid == me
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return false
	}
	owner, _ := OwnerOf(folder)
	return uid == owner
}

// SameAs returns an error if the user of a folder could not read and write the files, or if
// another user than that one and root runs the program. Missing files are no error.
func SameAs(folder string, files ...string) error {
	info, err := os.Stat(folder)
	if err != nil {
		return err
	}
	uid, _ := OwnerOf(info)
	if me := EffectiveUser(); me != 0 && me != uid {
		return fmt.Errorf("%s belongs to the user %s, but this command runs as %s; if Caddy runs as %[3]s, run: "+
			"sudo chown -R %[3]s %[1]s; otherwise run this command as the user who runs Caddy",
			folder, userName(uid), userName(me))
	}
	for _, path := range files {
		file, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if owner, _ := OwnerOf(file); owner != uid {
			return fmt.Errorf("%s belongs to the user %s, but its folder to %s, so Caddy cannot use it if it runs as "+
				"that user; run: chown %[3]s %[1]s", path, userName(owner), userName(uid))
		}
		if file.Mode().Perm()&0o600 != 0o600 {
			return fmt.Errorf("%s cannot be read and written by its owner (mode %04o); run: chmod u+rw %[1]s",
				path, file.Mode().Perm())
		}
	}
	return nil
}

// Creatable returns an error if the user who runs the program could not create a file that does not
// exist, with the folders above it. It creates nothing.
func Creatable(path string) error { return writable(filepath.Dir(path), path+" cannot be created") }

// Writable returns an error if the user who runs the program could not create files in a folder, which
// may not exist. It creates nothing.
func Writable(folder string) error { return writable(folder, "no files can be created in "+folder) }

func writable(folder, otherwise string) error {
	info, err := os.Stat(folder)
	for ; err != nil && folder != filepath.Dir(folder); info, err = os.Stat(folder) {
		folder = filepath.Dir(folder)
	}
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s, because %s is not a folder; use another path", otherwise, folder)
	}
	if err == nil {
		err = unix.Faccessat(unix.AT_FDCWD, folder, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s, because the file system of the folder %s is read-only; mount it for writing, or with "+
			"systemd name the folder in ReadWritePaths, or use another path: %w", otherwise, folder, err)
	}
	me := userName(EffectiveUser())
	return fmt.Errorf("%s, because the user %s cannot write to the folder %s; use a path in a folder of that user, "+
		"as made by: sudo install -d -m 700 -o %s /var/lib/caddy-jwt: %w", otherwise, me, folder, me, err)
}

// WarnOfReaders logs the warnings about a file.
func WarnOfReaders(path string) {
	for _, warning := range ReaderWarnings(path) {
		caddy.Log().Named("jwt.stores.file").Warn(warning, help.See("store-readable"))
	}
}

// ReaderWarnings returns warnings if others can read the file or replace it.
func ReaderWarnings(path string) (warnings []string) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o044 != 0 {
		warnings = append(
			warnings, "the user store, including password hashes, was readable by other users; "+
				"from now on only its owner can read it"+fmt.Sprintf(
				": %s, which had mode %04o", path, info.Mode().Perm(),
			),
		)
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err == nil && folder.Mode().Perm()&0o002 != 0 && folder.Mode()&fs.ModeSticky == 0 {
		warnings = append(
			warnings, "any user can replace the file of the user store; to prevent that, run chmod o-w on its folder"+
				fmt.Sprintf(": %s", filepath.Dir(path)),
		)
	}
	return warnings
}

// Keep returns a function that gives new files at a path, and the folders above it, to the
// owner of the file that they replace or of the existing folder. So a command that runs as
// root does not create files that the user who runs Caddy cannot read.
func Keep(path string) (give func() error) {
	nothing := func() error { return nil }
	if EffectiveUser() != 0 {
		return nothing
	}
	var made []string
	at := path
	for {
		info, err := os.Lstat(at)
		if err == nil {
			uid, gid := OwnerOf(info)
			if at == path {
				made = []string{path} // may be replaced
			}
			if uid == 0 {
				return nothing
			}
			return func() error {
				for _, path := range made {
					if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
						continue
					}
					if err := os.Lchown(path, uid, gid); err != nil {
						return fmt.Errorf("cannot set the owner of %s, who could not read it then; "+
							"run this as in: sudo -u %s -H caddy …: %w", path, forSudo(userName(uid)), err)
					}
				}
				return nil
			}
		}
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			return nothing
		}
		made = append(made, at)
		at = filepath.Dir(at)
	}
}

// KeepAll returns a storage that keeps the owners of its files, if it is a file storage.
func KeepAll(storage certmagic.Storage) certmagic.Storage {
	if files, ok := storage.(*certmagic.FileStorage); ok && EffectiveUser() == 0 {
		return ownedStorage{files}
	}
	return storage
}

type ownedStorage struct{ *certmagic.FileStorage }

// Store implements certmagic.Storage.
func (s ownedStorage) Store(ctx context.Context, key string, value []byte) error {
	give := Keep(s.Filename(key))
	return errors.Join(s.FileStorage.Store(ctx, key, value), give())
}

// Lock implements certmagic.Locker.
func (s ownedStorage) Lock(ctx context.Context, name string) error {
	give := Keep(filepath.Join(s.Path, "locks"))
	return errors.Join(s.FileStorage.Lock(ctx, name), give())
}
