package migration_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// portalUsers is a users.json of the portal. The first user has changed the password.
const portalUsers = `{"version": "1.0.0", "revision": 3, "users": [
	{
		"id": "cd5f647a-cc04-4ae2-9d0a-2d5e9b95cf98", "username": "webadmin",
		"email_addresses": [{"address": "webadmin@example.com", "domain": "example.com"}],
		"passwords": [
			{"purpose": "generic", "algorithm": "bcrypt", "cost": 10, "created_at": "2026-05-05T18:47:51.5Z",
				"hash": "$2a$10$Luz5VvOplrYACPBLoPDqE.zEPf/aWaBb5W6NUKhGVlx08p9a8.ZDC"},
			{"purpose": "generic", "algorithm": "bcrypt", "cost": 10, "created_at": "2024-05-05T18:47:51.5Z",
				"hash": "$2a$10$B67nHY0PEdxLYdyoLk1YLOomvs.T/dSIyzPuoX9vWULrsD3PRf/sq", "disabled": true}
		],
		"roles": [{"name": "admin", "organization": "authp"}, {"name": "editor"}]
	},
	{"id": "7d9f647a-cc04-4ae2-9d0a-2d5e9b95cf98", "username": "bob", "passwords": [],
		"email_addresses": [{"address": "bob@example.com", "domain": "example.com"}]}
]}`

// Users of the portal log in by their names and passwords, keep IDs and roles, and the app gets the headers.
func TestCaddySecurity(t *testing.T) {
	const page = "docs/migration/caddy-security.md"
	folder := sitetest.TempDir(t)
	file := filepath.Join(folder, "users.json")
	if err := os.WriteFile(file, []byte(portalUsers), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := shell(t, page, folder, []string{"/etc/caddy/users.json", file}, "jq")
	s := runAfter(t, blocks(t, page)[0])
	command := &accountstest.CommandLine{TB: t}
	counts := command.Must(lines, "user", "import", "--format", "jsonl", "-")
	accountstest.Has(t, counts, "imported 2, skipped 0, refused 0")

	v := s.Visitor()
	if got := logIn(v, "webadmin", sitetest.GoodPassword, "/notes"); got.To(t).Path != "/notes" {
		t.Fatalf("%d %s", got.Status, got.Brief())
	}
	got := v.Do(http.MethodGet, "/notes", nil, "X-Token-User-Roles: root")
	if !strings.Contains(got.Body, "X-Token-Subject: cd5f647a-cc04-4ae2-9d0a-2d5e9b95cf98\r\n"+
		"X-Token-User-Email: webadmin@example.com\r\nX-Token-User-Roles: authp/admin,editor\r\n") {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if got := logIn(s.Visitor(), "bob", "", "/"); got.Status == http.StatusSeeOther {
		t.Error("a user without a password logs in")
	}
	s.MustAnswer(401, s.Get("/notes"), "a program")
}

// A policy: the portal's cookie gets in with its headers, and who has none is sent to the portal.
func TestCaddySecurityPolicy(t *testing.T) {
	key := strings.Repeat("a key of the portal; ", 4)
	t.Setenv("JWT_SECRET", key)
	s := runAfter(t, blocks(t, "docs/migration/caddy-security.md")[1])
	cookie := func(changes sitetest.JSON) string {
		return "Cookie: AUTHP_ACCESS_TOKEN=" + sitetest.Sign(t, "HS512", []byte(key), nil, sitetest.Claims(changes))
	}
	good := sitetest.JSON{"email": "alice@example.com", "name": "Alice", "roles": []string{"authp/user", "dev"}}
	got := s.Get("/notes", cookie(good), "X-Token-User-Roles: authp/admin")
	for _, header := range []string{
		"X-Token-Subject: alice", "X-Token-User-Name: Alice", "X-Token-User-Email: alice@example.com",
		"X-Token-User-Roles: authp/user,dev",
	} {
		if !strings.Contains(got.Body, "\n"+header+"\r\n") || strings.Contains(got.Body, "AUTHP_ACCESS_TOKEN") {
			t.Errorf("the app does not get %s: %d %s", header, got.Status, got.Body)
		}
	}
	guest := sitetest.JSON{"email": "eve@example.com", "roles": []string{"guest"}}
	s.MustAnswer(403, s.Get("/notes", cookie(guest)), "a guest")
	s.MustAnswer(200, s.Get("/assets/x.css"), "what was bypassed")
	if got := s.Visitor().Get("/notes?a=1"); got.Status != http.StatusFound ||
		!strings.HasPrefix(got.Header.Get("Location"), "https://auth.example.com/auth?redirect_url=") ||
		!strings.HasSuffix(got.Header.Get("Location"), "%2Fnotes%3Fa%3D1") {
		t.Errorf("a browser: %d %s", got.Status, got.Header.Get("Location"))
	}
}
