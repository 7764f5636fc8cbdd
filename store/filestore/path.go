package filestore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// ErrNoStore means that no server and no command has made the store yet.
var ErrNoStore = errors.New("there is no user store")

// CheckExists sees to it that nothing is answered from an empty file that
// was made for the question. Other kinds of stores say it themselves.
func CheckExists(store json.RawMessage) error {
	path, err := Path(store)
	if err != nil || path == "" {
		return err
	}
	_, err = os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w at %s", ErrNoStore, path)
	}
	return err
}

// Path is where a store is if it is a file, and else empty.
func Path(store json.RawMessage) (string, error) {
	var kind struct {
		Module string `json:"module"`
	}
	var file Store
	if err := json.Unmarshal(store, &kind); err != nil || kind.Module != "file" {
		return "", err
	}
	if err := json.Unmarshal(store, &file); err != nil {
		return "", err
	}
	return file.resolve()
}

// ShellWord quotes a path for a shell, where it must.
func ShellWord(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
