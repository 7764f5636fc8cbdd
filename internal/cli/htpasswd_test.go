package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// An htpasswd file is imported by its name, and what is wrong in it is told by line.
func TestImportHtpasswd(t *testing.T) {
	const text = "# made by htpasswd, of \"lètmein\"\r\n" +
		"alice@example.com:$apr1$seasalt1$oBA6LCO8BnKPQOsbJpxn11\r\n" +
		"\n" +
		"  bob@example.com:{SHA}bROMo65UVjGzq9caTwds51nFcAs=\n" +
		"carol@example.com:$5$saltstring$VmYDfPvtBTeZMHMcc.g0h.YHgvhAjIQqGuyh0xpHtk0\n" +
		"dave:$apr1$seasalt1$oBA6LCO8BnKPQOsbJpxn11\n" +
		"d ave:$apr1$seasalt1$oBA6LCO8BnKPQOsbJpxn11\n" +
		"erin@example.com\n" +
		"frank@example.com:realm:0123456789abcdef0123456789abcdef\n" +
		"grace@example.com:rqXexS6ZhobKA\n" +
		"heidi@example.com:\n" +
		"\xe4@example.com:{SHA}bROMo65UVjGzq9caTwds51nFcAs=\n" +
		"ALICE@example.com:{SHA}bROMo65UVjGzq9caTwds51nFcAs=\n" +
		"DAVE:{SHA}bROMo65UVjGzq9caTwds51nFcAs="
	dir := sitetest.TempDir(t)
	for _, name := range []string{".htpasswd", "htpasswd", "users.htpasswd", "passwords"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, path := newUserStore(t)
		args := []string{"user", "import", filepath.Join(dir, name)}
		if name == "passwords" {
			c.Refuses("", "set --format csv, jsonl or htpasswd", args...)
			args = append(args, "--format", "htpasswd")
		}
		stdout, stderr, err := c.Run("", args...)
		if err == nil {
			t.Errorf("%s: refused lines are no error", name)
		}
		accountstest.Has(t, stdout, "imported 4, skipped 2, refused 6\n")
		accountstest.Has(
			t, stderr, "line 7 refused: username must have 1 to 64 letters",
			"line 8 refused: it must be a name, a colon and a hash",
			"line 9 refused: it has more than one colon", "line 10 refused: password_hash: the hash is of an unknown kind",
			"line 11 refused: it must be", "line 12 refused: it is not valid UTF-8",
			"line 13 skipped: another user has this e-mail", "line 14 skipped: another user has this user name",
			"weak until their users log in: 3",
		)
		hasNot(t, stdout+stderr, "oBA6LCO8BnKPQOsbJpxn11", "bROMo65", "0123456789abcdef")
		for _, email := range []string{"alice@example.com", "bob@example.com", "carol@example.com"} {
			for typed, want := range map[string]bool{"lètmein": true, "letmein": false} {
				if right, err := password.Check(
					t.Context(), password.Turn{Queue: 1}, hashOf(t, path, email), typed,
				); err != nil || right != want {
					t.Errorf("%s: %s matches %q: %t, %v", name, email, typed, right, err)
				}
			}
		}
	}
}
