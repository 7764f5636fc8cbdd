package owner

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/caddyserver/certmagic"
)

// OtherError means that a file belongs to another user than the one who runs the program.
type OtherError struct {
	Path   string // of the file
	Owner  string // the user to whom it belongs
	Runner string // the user who runs the program
}

// Error says what to do if the program is Caddy, or checks what Caddy can do.
func (e *OtherError) Error() string {
	return fmt.Sprintf("%s belongs to the user %s, but this program runs as %s, so it is not used; "+
		"if it is a file of Caddy's, and Caddy runs as %[3]s, run: sudo chown %[3]s %[1]s", e.Path, e.Owner, e.Runner)
}

// OfCommand returns an error with the advice for somebody who typed a command.
func OfCommand(err error) error {
	other, ok := errors.AsType[*OtherError](err)
	if !ok || other.Owner == "root" { // who has made it by mistake
		return err
	}
	return fmt.Errorf("%s belongs to the user %s; run this as that user, as in: sudo -u %[2]s -H caddy …, "+
		"or change its owner to the user who runs Caddy, with chown", other.Path, forSudo(other.Owner))
}

// forSudo marks a user who has no name, but a number.
func forSudo(user string) string {
	if _, err := strconv.Atoi(user); err == nil {
		return "'#" + user + "'"
	}
	return user
}

// OfStorage returns an error with the folder and the advice, if the error of the signing keys is that
// files of the storage cannot be created.
func OfStorage(storage certmagic.Storage, err error) error {
	files, ok := storage.(*certmagic.FileStorage)
	if err == nil || !ok {
		return err
	}
	if blocked := Writable(filepath.Join(files.Path, "jwt")); blocked != nil {
		return fmt.Errorf("signing keys in Caddy's storage: %w", blocked)
	}
	return err
}
