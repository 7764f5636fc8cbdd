package cli_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

func TestVersion(t *testing.T) {
	text, err := exec.Command(caddytest.Binary(t), "jwt", "version").Output()
	lines := strings.Split(string(text), "\n")
	if err != nil || len(lines) != 4 || !strings.HasPrefix(lines[0], "caddy-jwt ") || lines[2] != "Go "+runtime.Version() {
		t.Errorf("%v %q", err, text)
	}
	text, err = exec.Command(caddytest.Binary(t), "version").Output()
	if caddy, _, _ := strings.Cut(string(text), " "); err != nil || lines[1] != "Caddy "+strings.TrimSpace(caddy) {
		t.Errorf("%q, but caddy version prints %q", lines[1], text)
	}
	text, err = exec.Command(caddytest.Binary(t), "jwt", "version", "--json").Output()
	var versions map[string]string
	if err != nil || json.Unmarshal(text, &versions) != nil || "Caddy "+versions["caddy"] != lines[1] ||
		!strings.HasPrefix(lines[0], "caddy-jwt "+versions["caddy_jwt"]) {
		t.Errorf("%v %s", err, text)
	}
}

// The SQL of store schema makes tables that the commands use as they are.
func TestStoreSchema(t *testing.T) {
	caddytest.Needs(t, "sqlite3")
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	c := &accountstest.CommandLine{TB: t}
	sqlite := exec.Command("sqlite3", "-bail", path)
	sqlite.Stdin = strings.NewReader(c.Must("", "store", "schema", "file"))
	if output, err := sqlite.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, output)
	}
	if c.Must("", "store", "schema", "postgres") != c.Must("", "store", "schema") {
		t.Error("it is not the same for all stores")
	}
	c.Refuses("", `invalid argument "mysql"`, "store", "schema", "mysql")
	if output, err := exec.Command("chmod", "600", path).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, output)
	}
	c.Where = []string{"--store", path}
	c.Must("", "user", "add", "--no-password", "alice@example.com")
	accountstest.Has(t, c.Must("", "user", "list"), "alice@example.com")
}
