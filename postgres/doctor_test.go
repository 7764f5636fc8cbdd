package postgres_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// doctor says in one line whether the database answers, and whether it has tables.
func TestDoctorOnPostgreSQL(t *testing.T) {
	dsn := start(t).database("doctor")
	const what = "user store in PostgreSQL at "
	for name, c := range map[string]struct{ dsn, want string }{
		"a server without tables": {dsn, "warning  " + what},
		"a server that is down": {
			"postgres://a:secret-of-a@" + sitetest.FreeAddress(t) + "/users?sslmode=disable", "fault    " + what,
		},
	} {
		dir := sitetest.TempDir(t)
		config := filepath.Join(dir, "Caddyfile")
		text := fmt.Sprintf("{\nstorage file_system %q\n}\nhttps://a.example {\njwt {\naccounts {\nstore postgres %q\n}\n}\n}\n",
			dir+"/storage", c.dsn)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		output, _ := exec.Command(caddytest.Binary(t), "jwt", "doctor", "--config", config).Output()
		lines := 0
		for line := range strings.Lines(string(output)) {
			if strings.HasPrefix(line, c.want) {
				lines++
			}
		}
		if lines != 1 || strings.Contains(string(output), `\u00`) || strings.Contains(string(output), "secret-of-a") {
			t.Errorf("%s: expected a line %q:\n%s", name, c.want, output)
		}
	}
}
