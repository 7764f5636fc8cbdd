package migration_test

import (
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// crypted is the sha512crypt of the password of the tests.
const crypted = "$6$aFr56HjK3DrB8t3S$" +
	"rPHKmNpdVZHlyATkyEBOXD0qiJsIAQpXORzcsRUisMG1Gsbjifha8cCAiNbfVtQXenqLCzjrQ9XrSpVzVLLzx."

// autheliaUsers is a users_database.yml with hashes as Authelia makes them.
const autheliaUsers = `
users:
  john:
    disabled: false
    displayname: 'John Doe'
    password: '$argon2id$v=19$m=65536,t=3,p=4$YW4gQXV0aGVsaWEgc2FsdA$ATMTta1M0tuKELKcJ2N2rcSvXgKa+f0VcSDwnimVeHI'
    email: 'john.doe@example.com'
    groups:
      - 'admins'
      - 'dev'
  bob:
    displayname: 'Bob Dylan'
    password: '` + crypted + `'
    email: 'bob.dylan@example.com'
    groups: ['dev']
  harry:
    disabled: true
    displayname: 'Harry Potter'
    password: '` + crypted + `'
    email: 'harry.potter@example.com'
    groups: ['dev']
  eve:
    displayname: 'Eve'
    password: '$argon2d$v=19$m=65536,t=3,p=2$BpLnfgDsc2WD8F2q$o/vzA4myCqZZ36bUGsDY//8mKUYNZZaR0t4MFFSs+iM'
    email: 'eve@example.com'
`

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// shell runs the command of a page that makes users.jsonl, in a folder, and returns what it makes. The pairs
// replace paths in it.
func shell(t *testing.T, page, folder string, pairs []string, programs ...string) string {
	t.Helper()
	caddytest.Needs(t, programs...)
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	block := shellBlock.FindSubmatch(text)
	if block == nil {
		t.Fatal("the page has no command")
	}
	convert, _, found := strings.Cut(string(block[1]), "caddy jwt user import")
	if !found {
		t.Fatalf("no import in %s", block[1])
	}
	command := exec.Command("bash", "-euo", "pipefail", "-c", replaced(t, convert, pairs...))
	command.Dir = folder
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	made, err := os.ReadFile(filepath.Join(folder, "users.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return string(made)
}

// runAfter runs a Caddyfile of a page, whose site is app.example.com and whose upstream echoes.
func runAfter(t *testing.T, block string) *sitetest.Site {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", sitetest.TempDir(t)) // where accounts are by default
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t)}
	s.LogFile = filepath.Join(sitetest.TempDir(t), "log.json")
	sitetest.RunSites(t, s.LogFile, replaced(
		t, block, "app.example.com {", s.URL+" {", "localhost:3000", sitetest.NewUpstream(t),
	))
	return s
}

// logIn sends the form of the log-in page.
func logIn(v *sitetest.Visitor, who, password, to string) sitetest.Reply {
	return v.Post("/auth/login", url.Values{"email": {who}, "password": {password}, "return_to": {to}})
}

// Users of Authelia log in by their names and passwords, and the app gets the headers that Authelia gave it.
// Its rules for the groups and the second factor hold.
func TestAuthelia(t *testing.T) {
	const page = "docs/migration/authelia.md"
	folder := sitetest.TempDir(t)
	if err := os.WriteFile(filepath.Join(folder, "users_database.yml"), []byte(autheliaUsers), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := shell(t, page, folder, nil, "yq", "jq")
	s := runAfter(t, blocks(t, page)[0])
	command := &accountstest.CommandLine{TB: t, Where: []string{"--format", "jsonl"}}
	counts, report, _ := command.Run(lines, "user", "import", "-")
	accountstest.Has(t, counts+report, "imported 3, skipped 0, refused 1", "line 4 refused")

	for _, c := range []struct{ who, headers string }{
		{"john", "Remote-Email: john.doe@example.com\r\nRemote-Groups: admins,dev\r\n" +
			"Remote-Name: John Doe\r\nRemote-User: john\r\n"},
		{"BOB.dylan@example.com", "Remote-Email: bob.dylan@example.com\r\nRemote-Groups: dev\r\n" +
			"Remote-Name: Bob Dylan\r\nRemote-User: bob\r\n"},
	} {
		v := s.Visitor()
		if got := logIn(v, c.who, "wrong horse battery", "/"); got.Status != http.StatusUnauthorized {
			t.Errorf("%s with a wrong password: %d", c.who, got.Status)
		}
		if got := logIn(v, c.who, sitetest.GoodPassword, "/notes"); got.To(t).Path != "/notes" {
			t.Errorf("%s: %d %s", c.who, got.Status, got.Brief())
		}
		got := v.Do(http.MethodGet, "/notes", nil, "Remote-User: root", "Remote_Groups: admins")
		if !strings.Contains(got.Body, c.headers) || strings.Contains(got.Body, "root") ||
			strings.Contains(got.Body, "Remote_Groups") {
			t.Errorf("%s: %d %s", c.who, got.Status, got.Body)
		}
		admin := v.Get("/admin/")
		if c.who == "john" {
			if to := admin.To(t).Path; !strings.HasPrefix(to, "/auth/factors") {
				t.Errorf("an admin without a second factor is sent to %s", to)
			}
		} else if admin.Status != http.StatusForbidden {
			t.Errorf("who is no admin: %d", admin.Status)
		}
	}
	if got := logIn(s.Visitor(), "harry", sitetest.GoodPassword, "/"); got.Status == http.StatusSeeOther {
		t.Error("a disabled user logs in")
	}
	if to := s.Visitor().Get("/notes").To(t).Path; to != "/auth/login" {
		t.Errorf("a browser is sent to %s", to)
	}
	s.MustAnswer(401, s.Get("/notes"), "a program")
	s.MustAnswer(200, s.Get("/static/x"), "what was bypass")
}
