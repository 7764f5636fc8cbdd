// Package caddytest has what tests need from the machine: the program as users run it, packages
// from npm, and other programs. It does not link the plugin, so that the tests of the plugin's
// packages can use it too.
package caddytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // as in a Caddy that users build

	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
)

var (
	mu      sync.Mutex
	removed []func() // clean-ups of the folders of scratch
)

// scratch returns a folder that is removed when the tests of the package have ended, even if
// they were killed.
func scratch() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "caddy-jwt-test"); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // some tests run its programs as another user
		return "", err
	}
	remove, err := scenario.Watch(`rm -rf "$1"`, dir)
	if err != nil {
		return "", err
	}
	mu.Lock()
	defer mu.Unlock()
	removed = append(removed, remove)
	return dir, nil
}

var built = sync.OnceValues(func() (path string, err error) {
	if _, err := sources(); err != nil {
		return "", err
	}
	dir, err := scratch()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "caddy")
	output, err := exec.Command(
		"go", "build", "-p", "2", "-o", path, "github.com/caddy-jwt/caddy-jwt/cmd/caddy",
	).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, output)
	}
	return path, nil
})

// Main runs the tests of a package and removes what they built. TestMain calls it.
func Main(m *testing.M) {
	code := m.Run()
	for _, remove := range removed {
		remove()
	}
	os.Exit(code)
}

// MainIn is like Main in another working folder.
func MainIn(m *testing.M, dir string) {
	if err := os.Chdir(dir); err != nil {
		panic(err)
	}
	Main(m)
}

// Binary returns the path of cmd/caddy, built once for all tests of a package.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
