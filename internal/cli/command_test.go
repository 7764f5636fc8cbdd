package cli_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	stdjson "encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/google/uuid"
	"golang.org/x/crypto/bcrypt"
)

func hasNot(t testing.TB, output string, unwanted ...string) {
	t.Helper()
	for _, text := range unwanted {
		if strings.Contains(output, text) {
			t.Errorf("it has %q:\n%s", text, output)
		}
	}
}

func newUserStore(t testing.TB) (c *accountstest.CommandLine, path string) {
	t.Helper()
	path = filepath.Join(sitetest.TempDir(t), "users.db")
	accountstest.CreateStore(t, path)
	return &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}, path
}

// LogIn starts a session of a user, as a server would.
func logIn(t testing.TB, path, userID string) (sessionID string) {
	t.Helper()
	now, session := time.Now(), uuid.NewString()
	accountstest.WithUsers(t, path, func(users store.UserStore) {
		user, err := users.User(t.Context(), userID)
		if err != nil {
			t.Fatal(err)
		}
		err = users.CreateSession(t.Context(), store.Session{
			ID: session, UserID: userID, FamilyHash: session,
			CreatedAt: now, UsedAt: now, ExpiresAt: now.Add(time.Hour),
			LastTokenUntil: now.Add(time.Hour), UserAgent: "Mozilla/5.0 \x1b[31m", Address: "192.0.2.1",
		}, user.PasswordHash)
		if err != nil {
			t.Fatal(err)
		}
	})
	return session
}

func revoked(t testing.TB, path, sessionID string) (is bool) {
	t.Helper()
	accountstest.WithUsers(t, path, func(store store.UserStore) {
		revocations, err := store.Revocations(t.Context(), time.Time{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, revocation := range revocations {
			is = is || revocation.SessionID == sessionID
		}
	})
	return is
}

func hashOf(t testing.TB, path, email string) (hash string) {
	t.Helper()
	accountstest.WithUsers(t, path, func(store store.UserStore) {
		user, err := store.UserByEmail(t.Context(), email)
		if err != nil {
			t.Fatal(err)
		}
		hash = user.PasswordHash
	})
	return hash
}

func TestUserCommands(t *testing.T) {
	c, path := newUserStore(t)
	id := strings.TrimSpace(c.Must(
		sitetest.GoodPassword+"\n", "user", "add", "--role", "admin",
		"--role", "editor", "--profile", "name=Alice <A>", "Alice@Example.com",
	))
	if _, err := uuid.Parse(id); err != nil {
		t.Errorf("the ID is %q", id)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the store: %v, %v", info, err)
	}
	if right, err := password.Check(
		t.Context(), password.Turn{Queue: 1}, hashOf(t, path, "alice@example.com"), sitetest.GoodPassword,
	); err != nil || !right {
		t.Errorf("the password is not the one that was given: %v", err)
	}
	c.Must("", "user", "add", "--no-password", "bob@example.com")

	t.Run("list", func(t *testing.T) {
		table := c.Must("", "user", "list")
		accountstest.Has(
			t, table, "ID ", "E-MAIL", "ROLES", "STATE", "CREATED", id,
			"Alice@Example.com", "admin editor", "active", "bob@example.com", "no password",
		)
		lines := strings.Split(strings.TrimSpace(c.Must("", "user", "list", "--json")), "\n")
		if len(lines) != 2 {
			t.Fatalf("%d lines for two users: %q", len(lines), lines)
		}
		var user map[string]any
		if err := stdjson.Unmarshal([]byte(lines[0]), &user); err != nil || user["id"] != id ||
			user["email"] != "Alice@Example.com" || user["disabled"] != false {
			t.Errorf("the first line is %s, %v", lines[0], err)
		}
		accountstest.Has(
			t, lines[0], `"roles":["admin","editor"]`, `"profile":{"name":"Alice <A>"}`, `"has_password":true`,
		)
		hasNot(t, table+lines[0]+lines[1], "argon2id", "hash", sitetest.GoodPassword)
	})
	t.Run("show, disable, enable", func(t *testing.T) {
		session := logIn(t, path, id)
		shown := c.Must("", "user", "show", "alice@example.com")
		accountstest.Has(
			t, shown, id, "admin editor", `{"name":"Alice \u003cA\u003e"}`,
			session, "192.0.2.1", `Mozilla/5.0 \u001b[31m`,
		)
		hasNot(t, shown+c.Must("", "user", "show", "--json", id), "argon2id", "\x1b")
		accountstest.Has(t, c.Must("", "user", "show", "--json", id), `"sessions":[{`, session)

		accountstest.Has(
			t, c.Must("", "user", "disable", "--yes", "alice@example.com"), "Alice@Example.com is disabled, sessions ended: 1",
		)
		accountstest.Has(t, c.Must("", "user", "show", id), "disabled")
		if !revoked(t, path, session) {
			t.Error("the session of a disabled user is not revoked")
		}
		accountstest.Has(t, c.Must("", "user", "enable", id), "is enabled")
		hasNot(t, c.Must("", "user", "show", id), "disabled", session)
	})
	t.Run("roles", func(t *testing.T) {
		for _, step := range []struct{ want, args string }{
			{"admin\neditor\n", ""},
			{"admin\nauthor\n", "--add author --add admin --remove editor"},
			{"x\ny\n", "--set x,y,x"},
			{"", "--set="},
		} {
			if got := c.Must(
				"", append([]string{"user", "roles", id}, strings.Fields(step.args)...)...,
			); got != step.want {
				t.Errorf("%s: the roles are %q, expected %q", step.args, got, step.want)
			}
		}
		c.Refuses("", "a role must be a single word", "user", "roles", id, "--add", "a b")
		c.Refuses("", "none of the others can be", "user", "roles", id, "--add", "a", "--set", "b")
	})
	t.Run("update", func(t *testing.T) {
		accountstest.Has(t, c.Must(
			"", "user", "update", id, "--profile", "name=Alice B.", "--profile", "phone_verified:=true",
			"--profile", `address:={"country":"DE"}`, "--profile", "big:=9007199254740993", "--json",
		), `"profile":{"address":{"country":"DE"},"big":9007199254740993,"name":"Alice B.","phone_verified":true}`)
		accountstest.Has(t, c.Must(
			"", "user", "update", "alice@example.com", "--remove", "address", "--remove", "big", "--remove", "absent",
			"--profile", "name=Alice <A>", "--remove", "phone_verified",
		), "the profile of Alice@Example.com is changed")
		accountstest.Has(t, c.Must("", "user", "show", id, "--json"), `"profile":{"name":"Alice <A>"}`)
		for given, want := range map[string]string{
			"email_verified=true": `"email_verified":true,`, "email_verified=false": `"email_verified":false,`,
			"phone_number_verified=true": `"phone_number_verified":true`, "phone_number=+1": `"phone_number":"+1"}`,
		} {
			accountstest.Has(t, c.Must("", "user", "update", id, "--profile", given, "--json"), want)
			c.Must("", "user", "update", id, "--remove", strings.Split(given, "=")[0])
		}
		for want, args := range map[string][]string{
			"there is nothing to change":      nil,
			"do only one of them":             {"--profile", "name=x", "--remove", "name"},
			"must be JSON, as in":             {"--profile", "name:=x"},
			"it must be a name and a text":    {"--profile", "name"},
			`"roles" cannot be the name of a`: {"--profile", "roles=admin"},
		} {
			c.Refuses("", want, append([]string{"user", "update", id}, args...)...)
		}
		c.Refuses("", "must be JSON, as in", "user", "update", id, "--profile", `name:=1},"x":{"y":2`)
	})
	t.Run("passwd", func(t *testing.T) {
		session, before := logIn(t, path, id), hashOf(t, path, "alice@example.com")
		accountstest.Has(
			t, c.Must("another good password\r\nand more\n", "user", "passwd", id), "is set, sessions ended: 1",
		)
		if right, err := password.Check(
			t.Context(), password.Turn{Queue: 1}, hashOf(t, path, "alice@example.com"), "another good password",
		); err != nil || !right {
			t.Errorf("the password is not the first line: %v", err)
		}
		if !revoked(t, path, session) {
			t.Error("the session is not revoked when the password is set")
		}
		c.Refuses("short\n", "the password must have at least 8 characters", "user", "passwd", id)
		if hashOf(t, path, "alice@example.com") == before {
			t.Error("the hash is the old one")
		}
	})
	t.Run("delete", func(t *testing.T) {
		session := logIn(t, path, id)
		c.Refuses("", "confirm with --yes", "user", "delete", id)
		accountstest.Has(t, c.Must("", "user", "delete", "--yes", id), "Alice@Example.com is deleted")
		if !revoked(t, path, session) {
			t.Error("the session of a deleted user is not revoked")
		}
		c.Refuses("", "there is no user", "user", "show", id)
	})
	if leftovers, err := filepath.Glob(path + "-*"); err != nil || leftovers != nil {
		t.Errorf("files are left behind: %v, %v", leftovers, err)
	}
}

func TestUserCommandsRefuse(t *testing.T) {
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	for _, args := range [][]string{
		{"list"}, {"export"}, {"show", "a@example.com"}, {"disable", "--yes", "a@example.com"},
		{"enable", "a@example.com"}, {"delete", "--yes", "a@example.com"},
		{"passwd", "a@example.com"}, {"roles", "a@example.com"}, {"update", "a@example.com", "--remove", "name"},
		{"reset-link", "--base", "https://example.com", "a@example.com"},
		{"add", "--no-password", "a@example.com"}, {"invite", "--base", "https://example.com", "a@example.com"},
	} {
		c.Refuses(
			"", "there is no user store at "+path+"; choose another store with --store <path> or --config <file>",
			append([]string{"user"}, args...)...,
		)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a command without --create made the store")
	}
	for _, args := range [][]string{
		{"add", "--create", "alice"}, {"add", "--create", "--role", "a b", "a@example.com"},
		{"add", "--create", "--profile", "x", "a@example.com"}, {"import", "--create", "none.csv"},
		{"import", "--create", "--format", "cvs", "none.csv"},
	} {
		if _, stderr, err := c.Run("", append([]string{"user"}, args...)...); err == nil ||
			strings.Contains(stderr, "it is created now") {
			t.Errorf("%q: %v, %s", args, err, stderr)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a command with wrong arguments made the store")
	}
	_, stderr, err := c.Run(sitetest.GoodPassword, "user", "add", "--create", "alice@example.com")
	if err != nil || !strings.Contains(stderr, path+", so it is created now") {
		t.Errorf("the first user: %v, %q", err, stderr)
	}
	for _, refused := range []struct {
		stdin, want string
		args        []string
	}{
		{"", "unknown flag: --rol; did you mean --role?", []string{"add", "--rol", "admin", "bob@example.com"}},
		{"", "another user has this e-mail address", []string{"add", "ALICE@example.com"}},
		{"", "must look like name@example.com", []string{"add", "alice"}},
		{"", "must look like name@example.com", []string{"add", "Alice <alice@example.com>"}},
		{"", "takes an e-mail address, but no argument is given", []string{"add"}},
		{"", "takes an e-mail address, but 2 arguments are given", []string{
			"add", "bob@example.com", sitetest.GoodPassword,
		}},
		{"", "the first line of standard input is empty; it must be the password", []string{"add", "bob@example.com"}},
		{"seven77\n", "the password must have at least 8 characters", []string{"add", "bob@example.com"}},
		{"password123\n", "is too common, so it is easy to guess", []string{"add", "bob@example.com"}},
		{strings.Repeat("x", 1025), "longer than 1024 bytes", []string{"add", "bob@example.com"}},
		{strings.Repeat("x", 100_000), "longer than 1024 bytes", []string{"add", "bob@example.com"}},
		{sitetest.GoodPassword, "a role must be a single word", []string{
			"add", "--role", "admin,editor", "bob@example.com",
		}},
		{sitetest.GoodPassword, "a role must be a single word", []string{
			"add", "--role", "site admin", "bob@example.com",
		}},
		{sitetest.GoodPassword, `"roles" cannot be the name of a profile property`, []string{
			"add", "--profile", "roles=admin", "bob@example.com",
		}},
		{sitetest.GoodPassword, "it must be a name and a text", []string{"add", "--profile", "Bob", "bob@example.com"}},
		{"", "there is no user \"bob@example.com\"", []string{"show", "bob@example.com"}},
		{"", "there is no user \"bob\"", []string{"show", "bob"}},
		{"", "must look like name@example.com", []string{"show", "b ob@example.com"}},
		{"", "there is no user", []string{"disable", "bob@example.com"}},
		{"", "there is no user", []string{"enable", "bob@example.com"}},
		{"", "there is no user", []string{"delete", "--yes", "bob@example.com"}},
		{sitetest.GoodPassword, "there is no user", []string{"passwd", "bob@example.com"}},
		{"", "there is no user", []string{"roles", "bob@example.com", "--add", "admin"}},
		{"", "--store and --config are both set", []string{"list", "--config", "Caddyfile"}},
		{
			"", `--format: unknown format "cvs"; did you mean csv? Supported: csv, jsonl`,
			[]string{"export", "--format", "cvs"},
		},
		{"", `--format: unknown format "json"; did you mean jsonl?`, []string{
			"import", "--format", "json", "users.csv",
		}},
		{
			"", `caddy jwt user has no command "lst"; ` + "`caddy jwt user --help` lists them; did you mean list?",
			[]string{"lst"},
		},
	} {
		c.Refuses(refused.stdin, refused.want, append([]string{"user"}, refused.args...)...)
	}
	if users := strings.Count(c.Must("", "user", "list", "--json"), "\n"); users != 1 {
		t.Errorf("there are %d users after refused commands", users)
	}

	damaged := filepath.Join(sitetest.TempDir(t), "users.db")
	if err := os.WriteFile(damaged, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	(&accountstest.CommandLine{TB: t, Where: []string{"--store", damaged}}).
		Refuses("", "the file is corrupt; restore a backup", "user", "list")
}

func TestUserListPages(t *testing.T) {
	c, path := newUserStore(t)
	const count = 2*500 + 1 // pages of users
	accountstest.WithUsers(t, path, func(users store.UserStore) {
		for i := range count {
			email := fmt.Sprintf("user%d@example.com", i)
			if err := users.CreateUser(t.Context(), store.User{
				ID: uuid.NewString(), Email: email, EmailKey: email,
			}); err != nil {
				t.Fatal(err)
			}
		}
	})
	seen := make(map[string]bool)
	for line := range strings.Lines(c.Must("", "user", "list", "--json")) {
		seen[line] = true
	}
	if lines := strings.Count(c.Must("", "user", "list"), "\n"); len(seen) != count || lines != count+1 {
		t.Errorf("%d users are listed as JSON, %d lines as a table, expected %d", len(seen), lines, count)
	}
}

func TestUserImport(t *testing.T) {
	argon2idHash := sitetest.WeakArgon2id(sitetest.GoodPassword)
	bcryptBytes, err := bcrypt.GenerateFromPassword([]byte(sitetest.GoodPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	bcryptHash, id := string(bcryptBytes), uuid.NewString()
	formats := map[string]string{
		"users.csv": "\ufeffemail,id, roles,password_hash,disabled,created_at,name\r\n" +
			"alice@example.com," + id + ",admin  editor,\"" + argon2idHash +
			"\",,2020-02-03T04:05:06Z,\"Alice, A.\"\r\n" +
			"bob@example.com,,," + bcryptHash + ",true,,\r\n" +
			"\r\n" +
			"carol@example.com,,,,,,\r\n" +
			"dave@example.com,,,plain text password,,,\r\n" +
			"ALICE@example.com,,," + bcryptHash + ",,,\r\n" +
			"erin@example.com," + bcryptHash + ",,,,,\r\n" +
			"frank@example.com,,,," + bcryptHash + ",,\r\n" +
			"grace@example.com,,,,," + bcryptHash + ",\r\n" +
			"heidi@example.com,,," + bcryptHash + "\r\n" +
			"ivan,,," + bcryptHash + ",,,\r\n" +
			"judy@example.com," + strings.ToUpper(id) + ",," + bcryptHash + ",,,\r\n" +
			"kim@example.com,,,\"" + bcryptHash + ",,,\r\n" +
			strings.Repeat("x", 16*web.MaxBodyBytes) + "\r\n" +
			"last@example.com,507f1f77bcf86cd799439011,," + bcryptHash + ",,,",
		"users.jsonl": `{"email":"alice@example.com","id":"` + id + `","roles":["admin","editor"],"password_hash":"` +
			argon2idHash +
			`","created_at":"2020-02-03T04:05:06Z","profile":{"name":"Alice, A."}}` + "\n" +
			`{"email":"bob@example.com","password_hash":"` + bcryptHash + `","disabled":true}` + "\n" +
			"\n" +
			`{"email":"carol@example.com","password_hash":""}` + "\n" +
			`{"email":"dave@example.com","password_hash":"plain text password"}` + "\n" +
			`{"email":"ALICE@example.com","password_hash":"` + bcryptHash + `"}` + "\n" +
			`{"email":"erin@example.com","password_hash":"","id":"` + bcryptHash + `"}` + "\n" +
			`{"email":"frank@example.com","password_hash":"","disabled":"` + bcryptHash + `"}` + "\n" +
			`{"email":"grace@example.com","password_hash":"","created_at":"` + bcryptHash + `"}` + "\n" +
			`{"email":"heidi@example.com"}` + "\n" +
			`{"email":"ivan","password_hash":"` + bcryptHash + `"}` + "\n" +
			`{"email":"judy@example.com","id":"` + strings.ToUpper(id) + `","password_hash":"` +
			bcryptHash + `"}` + "\n" +
			`{"email":"kim@example.com","password_hash":"","profile":{"born":1e999}}` + "\n" +
			strings.Repeat("x", 16*web.MaxBodyBytes) + "\n" +
			`{"email":"last@example.com","id":"507f1f77bcf86cd799439011","password_hash":"` + bcryptHash + `"}`,
	}
	for name, text := range formats {
		t.Run(name, func(t *testing.T) {
			c, path := newUserStore(t)
			file := filepath.Join(sitetest.TempDir(t), name)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, err := c.Run("", "user", "import", file)
			accountstest.Has(t, stdout, "imported 4, skipped 1, refused 9\n")
			if err == nil || !strings.Contains(err.Error(), "some lines were refused") {
				t.Errorf("the error is %v", err)
			}
			first := 0 // the number of the line of Alice
			if name == "users.csv" {
				first = 1
			}
			for offset, want := range map[int]string{
				5: "refused: password_hash: the hash is of an unknown kind",
				6: "skipped: another user has this e-mail address",
				7: "refused: id must be a UUID, or", 8: "refused: ", 9: "refused: created_at must be a time",
				10: "refused: ", 11: "refused: email must look like",
				12: "refused: another user has this ID", 13: "refused: ", 14: "refused: it is longer than 524288 bytes",
			} {
				accountstest.Has(t, stderr, fmt.Sprintf("line %d %s", first+offset, want))
			}
			hasNot(t, stdout+stderr+err.Error(), bcryptHash, argon2idHash, "plain text password", bcryptHash[10:])

			accountstest.Has(
				t, c.Must("", "user", "show", "--json", id), "alice@example.com",
				`"roles":["admin","editor"]`, `"profile":{"name":"Alice, A."}`,
				`"created_at":"2020-02-03T04:05:06Z"`, `"disabled":false`,
			)
			accountstest.Has(
				t, c.Must("", "user", "show", "--json", "bob@example.com"), `"disabled":true`, `"roles":[]`,
			)
			accountstest.Has(t, c.Must("", "user", "show", "carol@example.com"), "no password")
			accountstest.Has(t, c.Must("", "user", "show", "507f1f77bcf86cd799439011"), "last@example.com")
			for _, email := range []string{"alice@example.com", "bob@example.com", "last@example.com"} {
				if right, err := password.Check(
					t.Context(), password.Turn{Queue: 1}, hashOf(t, path, email), sitetest.GoodPassword,
				); err != nil || !right {
					t.Errorf("%s cannot log in by the hash that was imported: %v", email, err)
				}
			}
			again, _, _ := c.Run("", "user", "import", file)
			accountstest.Has(t, again, "imported 0, skipped 5, refused 9\n")
		})
	}
}

func TestUserImportRefuses(t *testing.T) {
	c, _ := newUserStore(t)
	dir := sitetest.TempDir(t)
	for _, refused := range []struct{ name, text, want string }{
		{"users.txt", "", "set --format csv, jsonl or htpasswd"},
		{"users.csv", "", "the first line of the CSV: it is empty"},
		{"users.csv", "email;password_hash\n", "it must name the columns email and password_hash, separated by commas"},
		{"users.csv", "email,password\n", "it must name the columns email and password_hash"},
		{"users.csv", "email,password_hash,email\n", `the column "email" is specified twice`},
		{"users.csv", "email,password_hash,password\n", `"password" cannot be the name of a profile property`},
		{
			"users.csv", "email,password_hash,OldPassword\n",
			`the column "OldPassword" would become a profile property, which is visible to the user`,
		},
		{"users.csv", "email,password_hash,profile\n", ""},
		{"users.csv", "email,password_hash,\n", `"" cannot be the name of a profile property`},
		{"users.csv", "email,password_hash,stra\xdfe\n", "it is not valid UTF-8"},
		{"users.csv", "email,\"password_hash\n", "its quotation marks do not match"},
	} {
		file := filepath.Join(dir, refused.name)
		if err := os.WriteFile(file, []byte(refused.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if refused.want == "" {
			c.Must("", "user", "import", file)
			continue
		}
		c.Refuses("", refused.want, "user", "import", file)
	}
	c.Refuses("", "no such file", "user", "import", filepath.Join(dir, "none.csv"))
	for line, want := range map[string]string{
		`[]`:                             `it is not a JSON object`,
		`{"email":1,"password_hash":""}`: `"/email" has the wrong JSON type`,
		`{"email":"a@example.com","email":"b@example.com"}`:                    `a name that appears twice`,
		`{"email":"a@example.com","password":"x"}`:                             `unknown member "password"; put other properties into profile`,
		`{"Email":"a@example.com","password_hash":""}`:                         `unknown member "Email"`,
		`{"password_hash":""}`:                                                 `email must look like`,
		`{"email":"a@example.com","password_hash":null}`:                       `password_hash is missing`,
		`{"email":"a@example.com","password_hash":"","roles":"admin"}`:         `"/roles" has the wrong JSON type`,
		`{"email":"a@example.com","password_hash":"","roles":[1]}`:             `"/roles/0" has the wrong JSON type`,
		`{"email":"a@example.com","password_hash":"","roles":["a b"]}`:         `a role must be a single word`,
		`{"email":"a@example.com","password_hash":"","profile":[]}`:            `profile: not a JSON object`,
		`{"email":"a@example.com","password_hash":"","profile":{"id":"x"}}`:    `"id" cannot be the name`,
		`{"email":"a@example.com","password_hash":"","profile":{"a":1,"a":2}}`: `a name that appears twice`,
		`{"email":"a@example.com","password_hash":"$2b$20$` + "x" +
			`"}`: `the bcrypt hash is corrupt`,
		`{"email":"a@example.com","password_hash":"$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"}`: `a faulty bcrypt`,
		`{"email":"a@example.com","password_hash":"$argon2id$v=19$m=9999999,t=1,p=1$c2FsdHNhbHRzYWx0$a2V5"}`:       `parameters outside`,
	} {
		stdout, stderr, err := c.Run(line+"\n", "user", "import", "--format", "jsonl", "-")
		if err == nil || !strings.Contains(stderr, "line 1 refused: ") || !strings.Contains(stderr, want) ||
			stdout != "imported 0, skipped 0, refused 1\n" {
			t.Errorf("%s: %q, expected %q; output %q, error %v", line, stderr, want, stdout, err)
		}
	}
}

func TestUserExport(t *testing.T) {
	c, _ := newUserStore(t)
	c.Must(
		sitetest.GoodPassword, "user", "add", "--role", "admin", "--role", "editor",
		"--profile", `name=Alice "A", B.`, "--profile", "hue= red", "Alice@example.com",
	)
	c.Must("", "user", "add", "--no-password", "--disabled", "bob@example.com")
	c.Must("", "user", "verify", "bob@example.com")
	for _, format := range []string{"csv", "jsonl"} {
		exported := c.Must("", "user", "export", "--format", format)
		accountstest.Has(t, exported, "$argon2id$v=19$")
		other, path := newUserStore(t)
		accountstest.Has(
			t, other.Must(exported, "user", "import", "--format", format, "-"), "imported 2, skipped 0, refused 0\n",
		)
		if again := other.Must("", "user", "export", "--format", format); again != exported {
			t.Errorf("%s: exported, imported and exported it is\n%s\nand was\n%s", format, again, exported)
		}
		if right, err := password.Check(
			t.Context(), password.Turn{Queue: 1}, hashOf(t, path, "alice@example.com"), sitetest.GoodPassword,
		); err != nil || !right {
			t.Errorf("%s: the password is lost: %v", format, err)
		}
	}
	// JSON lines can hold values that CSV cannot.
	line := `{"id":"` + uuid.NewString() +
		`","email":"carol@example.com","password_hash":"","roles":[],"profile":%s,"disabled":false,"email_verified":true,"created_at":"2026-01-02T03:04:05.006Z"}` +
		"\n"
	for profile, want := range map[string]string{
		`{"age":12}`:         `the property "age" is not a string of one line`,
		`{"text":"a\nb"}`:    `the property "text" is not a string of one line`,
		`{"disabled":"no"}`:  `the column "disabled" is specified twice`,
		`{"hash tag":"no"}`:  `the column "hash tag" would become a profile property`,
		`{"list":["a","b"]}`: `the property "list" is not a string of one line`,
		`{"text":""}`:        `the property "text" is an empty string`,
	} {
		other, _ := newUserStore(t)
		text := fmt.Sprintf(line, profile)
		other.Must(text, "user", "import", "--format", "jsonl", "-")
		if got := other.Must("", "user", "export"); got != text {
			t.Errorf("imported was\n%s\nexported is\n%s", text, got)
		}
		other.Refuses("", want, "user", "export", "--format", "csv")
	}
}

func TestUserResetLink(t *testing.T) {
	c, path := newUserStore(t)
	c.Must("", "user", "add", "--no-password", "alice@example.com")
	for want, args := range map[string]string{
		"https://example.com/auth/reset":       "--base https://example.com",
		"http://localhost:8080/app/auth/reset": "--base http://localhost:8080/app/ --lifetime 2d",
		"https://example.com/users/reset":      "--base https://example.com/ --prefix /users",
	} {
		link, err := url.Parse(strings.TrimSpace(c.Must(
			"", append([]string{"user", "reset-link", "alice@example.com"}, strings.Fields(args)...)...,
		)))
		if err != nil {
			t.Fatal(err)
		}
		token := link.Query().Get("token")
		if link.RawQuery = ""; link.String() != want || len(token) < 43 {
			t.Errorf("%s: the link is to %s with a token of %d characters, expected %s", args, link, len(token), want)
		}
		accountstest.WithUsers(t, path, func(users store.UserStore) {
			if taken, err := users.TakeOneTimeToken(
				t.Context(), store.HashToken(token), accounts.PurposeReset, time.Now().Add(59*time.Minute),
			); err != nil {
				t.Errorf("%s: the token is not good: %v, %v", args, taken, err)
			}
		})
	}
	for want, args := range map[string]string{
		"--base":                         "",
		"it must be the URL of the site": "--base example.com",
		"--base \"https://a?b\"":         "--base https://a?b",
		"--lifetime \"0\"":               "--base https://example.com --lifetime 0",
		"--lifetime \"soon\"":            "--base https://example.com --lifetime soon",
		"--prefix: \"auth\"":             "--base https://example.com --prefix auth",
	} {
		c.Refuses("", want, append([]string{"user", "reset-link", "alice@example.com"}, strings.Fields(args)...)...)
	}
	c.Refuses("", "there is no user", "user", "reset-link", "--base", "https://example.com", "bob@example.com")
	c.Must("", "user", "disable", "--yes", "alice@example.com")
	c.Refuses("", "is disabled", "user", "reset-link", "--base", "https://example.com", "alice@example.com")
}

// withCaddyfile writes a config, and returns the command line that uses it.
func withCaddyfile(t testing.TB, text string) *accountstest.CommandLine {
	t.Helper()
	file := filepath.Join(sitetest.TempDir(t), "Caddyfile")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &accountstest.CommandLine{TB: t, Where: []string{"--config", file}}
}

func TestUserCommandsWithConfig(t *testing.T) {
	dir := sitetest.TempDir(t)
	site := func(address, store, options string) string {
		return address + " {\n jwt {\n accounts " + options + "\n store file " + filepath.Join(dir, store) +
			"\n }\n }\n}\n"
	}
	c := withCaddyfile(t, site(":1", "users.db", "/users {\n password_min_length 12"))
	c.Refuses("eleven 7890", "the password must have at least 12 characters", "user", "add", "--create", "alice@example.com")
	c.Must("twelve 789012", "user", "add", "alice@example.com")
	accountstest.Has(
		t, c.Must("", "user", "reset-link", "--base", "https://example.com", "alice@example.com"),
		"https://example.com/users/reset?token=",
	)
	accountstest.Has(
		t, c.Must("", "user", "reset-link", "--base", "https://example.com", "--prefix", "/a", "alice@example.com"),
		"https://example.com/a/reset?token=",
	)
	(&accountstest.CommandLine{TB: t, Where: []string{"--store", filepath.Join(dir, "users.db")}}).
		Must("", "user", "show", "alice@example.com")

	same := withCaddyfile(t, site(":1", "users.db", "{")+site(":2", "users.db", "/users {\n password_min_length 20"))
	same.Must("", "user", "show", "alice@example.com")
	same.Refuses("twelve 789012", "at least 20 characters", "user", "passwd", "alice@example.com")
	same.Refuses(
		"", "choose one with --prefix", "user", "reset-link", "--base", "https://example.com", "alice@example.com",
	)

	withCaddyfile(t, site(":1", "users.db", "{")+site(":2", "others.db", "{")).
		Refuses("", "choose one with --store", "user", "list")
	withCaddyfile(t, site(":1", "none.db", "{")).
		Refuses("", "there is no user store at "+filepath.Join(dir, "none.db"), "user", "list")
	withCaddyfile(t, ":1 {\n jwt {\n secret "+strings.Repeat("s", 32)+"\n }\n}").
		Refuses("", "has no accounts", "user", "list")
	withCaddyfile(t, ":1 {\n jwt {\n accounts {\n signup open\n nonsense\n }\n }\n}").
		Refuses("", `accounts has no option "nonsense"`, "user", "list")
	(&accountstest.CommandLine{TB: t, Where: []string{"--config", filepath.Join(dir, "Caddyfile.none")}}).
		Refuses("", "no such file", "user", "list")
}

func TestUserCommandsDefaultStore(t *testing.T) {
	data := sitetest.TempDir(t)
	t.Setenv("XDG_DATA_HOME", data)
	c := &accountstest.CommandLine{TB: t, Where: nil}
	c.Refuses("", "there is no user store at "+filepath.Join(data, "caddy", "jwt", "users.db"), "user", "list")
	c.Must(sitetest.GoodPassword, "user", "add", "--create", "alice@example.com")
	withCaddyfile(t, ":1 {\n jwt {\n accounts\n }\n}").Must("", "user", "show", "alice@example.com")
}

// TestUserCommandsWhileCaddyRuns uses the same store as a server.
func TestUserCommandsWhileCaddyRuns(t *testing.T) {
	store := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(store, ""))
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", store}}
	c.Must(sitetest.GoodPassword, "user", "add", "--role", "admin", "alice@example.com")
	given := s.LoggedIn("alice@example.com")
	s.MustAnswer(200, s.Bearer("/todos/", given.Token), "a user of the command")
	c.Must("", "user", "disable", "--yes", "alice@example.com")
	disabled := time.Now()
	sitetest.Eventually(t, "the token of a disabled user is refused", func() bool {
		return s.Bearer("/todos/", given.Token).Status == 401
	})
	t.Logf("the token was refused after %s", time.Since(disabled).Round(time.Millisecond))
	c.Must("", "user", "enable", "alice@example.com")
	earlier := c.Must("", "user", "reset-link", "--base", s.URL, "alice@example.com")
	link := c.Must("", "user", "reset-link", "--base", s.URL, "alice@example.com")
	token := strings.TrimSpace(link[strings.Index(link, "token=")+len("token="):])
	s.MustAnswer(
		204, s.Post("/auth/reset", sitetest.JSON{"token": token, "newPassword": "a password by link"}), "the link",
	)
	s.MustAnswer(
		401, s.Post("/auth/reset", sitetest.JSON{"token": token, "newPassword": "a password by link"}),
		"the link once more",
	)
	token = strings.TrimSpace(earlier[strings.Index(earlier, "token=")+len("token="):])
	s.MustAnswer(
		401, s.Post("/auth/reset", sitetest.JSON{"token": token, "newPassword": "a password by link"}),
		"an earlier link",
	)
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": "a password by link"}),
		"the new password",
	)
}

// A private key is accepted in all usual formats.
func TestTokenByKey(t *testing.T) {
	c := &accountstest.CommandLine{TB: t}
	text, err := os.ReadFile("../../testdata/keys/p256.pem")
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := string(text)
	signer, _, err := signing.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(signer.Key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	// as openssl ecparam -genkey writes it
	curve := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
	ec := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	public, err := os.ReadFile("../../testdata/keys/p256.pub.pem")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jwt.ParsePublicKeys(string(public))
	if err != nil {
		t.Fatal(err)
	}
	set := jwt.NewKeySet(keys...)
	verifier, err := jwt.NewVerifier(jwt.VerifierConfig{
		Issuers: []jwt.Issuer{{Keys: []jwt.KeySource{set}, Algorithms: set.Algorithms()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]string{
		"PKCS#8": pkcs8, "SEC 1": ec, "SEC 1 after its curve": curve + ec,
		"indented":    strings.ReplaceAll(pkcs8, "\n", "\n\t\t"),
		"in one line": strings.ReplaceAll(strings.TrimSpace(pkcs8), "\n", `\n`),
	} {
		token, _, err := c.Run(key, "token", "--key", "-", "--claim", "sub=alice")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if verified, refusal := verifier.Verify(t.Context(), strings.TrimSpace(token), time.Now()); refusal != nil ||
			verified.UserID != "alice" {
			t.Errorf("%s: %v", name, refusal)
		}
	}
	for _, key := range []string{
		pkcs8 + ec,
		"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AA\n\nAAAA\n" +
			"-----END EC PRIVATE KEY-----\n",
		"-----BEGIN PRIVATE KEY-----\nAAAA",
	} {
		c.Refuses(
			key, "--key: it is neither one PEM (PKCS#8, PKCS#1, SEC 1; not encrypted) nor a JWK",
			"token", "--key", "-", "--claim", "sub=alice",
		)
	}
	c.Refuses(string(public), "--key: it is not a private key", "token", "--key", "-", "--claim", "sub=alice")
}

// An Ed25519 key signs by the name of RFC 8037, or by that of RFC 9864.
func TestTokenByEd25519(t *testing.T) {
	private := sitetest.Keys().Ed25519
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	s := sitetest.Serve(t, "jwt {\n public_key `"+sitetest.PEM(t, private)+"`\n}\n respond ok")
	c := &accountstest.CommandLine{TB: t}
	for algorithm, args := range map[string][]string{
		"EdDSA": nil, "Ed25519": {"--alg", "Ed25519"},
	} {
		token := strings.TrimSpace(c.Must(key, append([]string{"token", "--key", "-", "--claim", "sub=a"}, args...)...))
		decoded, err := jwt.Decode(token)
		if err != nil || !strings.Contains(string(decoded.Header), `"alg":"`+algorithm+`"`) {
			t.Errorf("%s: %s, %v", algorithm, decoded.Header, err)
		}
		s.MustAnswer(200, s.Bearer("/", token), algorithm)
	}
	c.Refuses(key, "this key is for EdDSA, Ed25519", "token", "--key", "-", "--claim", "sub=a", "--alg", "ES256")
}

// The keys of upstream_token are found by its issuer, or by the site that has it.
func TestKeysOfUpstreamToken(t *testing.T) {
	for name, issuer := range map[string]string{"by the site": "", "by name": "issuer https://id.example/tokens"} {
		t.Run(name, func(t *testing.T) {
			storage := sitetest.TempDir(t)
			s := &sitetest.Site{
				T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(sitetest.TempDir(t), "log.json"),
			}
			body := "jwt {\nsecret `" + sitetest.Secret + "`\nupstream_token {\n" + issuer + "\n}\n}"
			c := withCaddyfile(t, sitetest.GlobalOptions(storage, s.LogFile, "")+s.URL+" {\n"+body+"\n}")
			c.Refuses("", "there is no key yet; Caddy creates it", "keys", "list")
			accountstest.RunSite(t, s, body, storage)
			named := s.URL + "/jwt"
			if issuer != "" {
				named = "https://id.example/tokens"
			}
			list := c.Must("", "keys", "list")
			if !regexp.MustCompile(regexp.QuoteMeta(named) + ` +[\w-]{43} +20\S+Z +upstream_token +\w+ +signs\n`).MatchString(list) {
				t.Fatalf("the list of keys is:\n%s", list)
			}
			old := regexp.MustCompile(`[\w-]{43}`).FindString(list)
			said := c.Must("", "keys", "rotate")
			when := regexp.MustCompile(`signs from (20\S+Z) on, and ` + old + ` verifies what it signed\n`).
				FindStringSubmatch(said)
			if when == nil {
				t.Fatalf("a rotation says %s", said)
			}
			from, err := time.Parse(time.RFC3339, when[1])
			if lead := time.Until(from); err != nil || lead < 14*time.Minute || lead > 15*time.Minute {
				t.Errorf("the new key signs after %s: services cache key sets for 10 minutes", lead)
			}
		})
	}
}

func TestKeysCommands(t *testing.T) {
	storage, store := sitetest.TempDir(t), filepath.Join(sitetest.TempDir(t), "users.db")
	s := &sitetest.Site{
		T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(sitetest.TempDir(t), "log.json"),
	}
	body := sitetest.AccountsBody(store, "")
	c := withCaddyfile(t, sitetest.GlobalOptions(storage, s.LogFile, "")+s.URL+" {\n"+body+"\n}")
	c.Refuses("", "there is no key yet; Caddy creates it", "keys", "list")
	if out, _, _ := c.Run("", "keys", "list"); out != "" {
		t.Errorf("a list without keys has %q", out)
	}
	accountstest.Has(
		t, (&accountstest.CommandLine{TB: t}).Must("", "user", "reset", "--help"),
		"caddy jwt user reset-link <user>",
	)
	c.Refuses("", "there is no key yet; Caddy creates it", "keys", "rotate")
	accountstest.RunSite(t, s, body, storage)
	given := s.SignedUp("alice@example.com")
	before := c.Must("", "keys", "list")
	if strings.Count(before, "\n") != 2 ||
		!regexp.MustCompile(`caddy-jwt-accounts +[\w-]{43} +20\S+Z +accounts +ES256 +signs\n`).MatchString(before) {
		t.Errorf("the list of keys is:\n%s", before)
	}
	old := regexp.MustCompile(`[\w-]{43}`).FindString(before)
	accountstest.Has(t, c.Must("", "keys", "rotate", "--lead", "0"), " signs within 15 seconds, and "+old+
		" verifies what it signed\n")
	after := c.Must("", "keys", "list")
	if !regexp.MustCompile(`[\w-]{43} +\S+ +accounts +\w+ +signs\n\S+ +` + old + ` +\S+ +accounts +\w+ +verifies until 20\S+Z\n`).MatchString(after) {
		t.Errorf("the list of keys after a rotation is:\n%s", after)
	}
	hasNot(t, before+after, `"d"`)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Load(body, storage)
	s.MustAnswer(200, s.Bearer("/todos/", given.Token), "a token of the old key")
	described, _, err := c.Run(s.LoggedIn("alice@example.com").Token, "inspect")
	fresh := regexp.MustCompile(`[\w-]{43}`).FindString(after)
	if accountstest.Has(t, described, `"kid": "`+fresh+`"`, ": accepted\n"); err != nil {
		t.Error(err)
	}

	if said := c.Must("", "keys", "rotate"); !regexp.MustCompile(`: [\w-]{43} signs from 20\S+Z on, and ` + fresh +
		` verifies what it signed\n`).MatchString(said) {
		t.Errorf("a rotation with a lead says %s", said)
	}
	if list := c.Must("", "keys", "list"); !regexp.MustCompile(`signs from 20\S+Z\n\S+ +` + fresh +
		` +\S+ +accounts +\w+ +signs\n\S+ +` + old + ` +\S+ +accounts +\w+ +verifies until 20\S+Z\n`).MatchString(list) {
		t.Errorf("the list of keys before the newest signs is:\n%s", list)
	}
	c.Must("", "keys", "rotate", "--lead", "1d")
	c.Must("", "keys", "rotate", "--lead", "10m")
	if list := c.Must("", "keys", "list"); strings.Count(list, "signs from") != 2 {
		t.Errorf("a key that never signs is listed:\n%s", list)
	}
	accountstest.Has(t, c.Must("", "keys", "rotate", "--lead", "0"), "and "+fresh+" verifies what it signed\n")
	if list := c.Must("", "keys", "list"); strings.Contains(list, "signs from") || strings.Count(list, "signs\n") != 1 {
		t.Errorf("keys that never sign are listed:\n%s", list)
	} else {
		for _, until := range regexp.MustCompile(`verifies until (\S+)`).FindAllStringSubmatch(list, -1) {
			// a rotation in a day was given up
			if at, err := time.Parse(time.RFC3339, until[1]); err != nil || time.Until(at) > 12*time.Hour {
				t.Errorf("a key verifies for longer than its tokens: %v\n%s", err, list)
			}
		}
	}
	c.Refuses("", "--withdraw and --lead cannot be combined", "keys", "rotate", "--withdraw", "--lead", "1m")
	for _, lead := range []string{"-1s", "31d"} {
		c.Refuses("", "--lead "+lead+": it must be from 0 to 30d", "keys", "rotate", "--lead", lead)
	}

	token := s.LoggedIn("alice@example.com").Token
	accountstest.Has(t, c.Must("", "keys", "rotate", "--withdraw", "--yes"), " and all older keys are withdrawn\n")
	if list := c.Must("", "keys", "list"); strings.Count(list, "\n") != 2 {
		t.Errorf("the list of keys after a withdrawal is:\n%s", list)
	}
	sitetest.Eventually(t, "a running server refuses a token of a key that was withdrawn", func() bool {
		return s.Bearer("/todos/", token).Status == 401
	})
	s.MustAnswer(200, s.Bearer("/todos/", s.LoggedIn("alice@example.com").Token), "a token of the new key")

	for _, signing := range []string{
		"secret " + strings.Repeat("s", 32), "signing_key " + filepath.Join("..", "..", "testdata", "keys", "p256.pem"),
	} {
		c := withCaddyfile(
			t, sitetest.GlobalOptions(storage, s.LogFile, "")+s.URL+" {\n"+sitetest.AccountsBody(store, signing)+"\n}",
		)
		for _, command := range []string{"list", "rotate"} {
			c.Refuses("", "so no key is stored; change that option", "keys", command)
		}
	}
	t.Chdir(sitetest.TempDir(t))
	(&accountstest.CommandLine{TB: t, Where: nil}).Refuses("", "there is no Caddyfile in this folder", "keys", "rotate")
}

func TestInspect(t *testing.T) {
	c := &accountstest.CommandLine{TB: t, Where: nil}
	token := sitetest.HS256(t, sitetest.JSON{
		"nbf": 1e300, "iat": time.Now().Add(-72 * time.Hour).Unix(),
		"nested": sitetest.JSON{"exp": 1}, "text": "\u009b31m",
	})
	described := c.Must("Bearer "+token+"\n", "inspect")
	accountstest.Has(
		t, described, "header\n{\n  \"alg\": \"HS256\"", "claims\n{\n", `"sub": "alice"`, `"text": "\u009b31m"`,
		"signature not checked; to check the token with the jwt handlers of a config, set --config",
	)
	for _, want := range []string{
		`"exp": \d+,?  // 20\S+Z, in (59m5.|1h0m0)s\n`, `"nbf": 1e\+300,?  // beyond all years\n`,
		`"iat": \d+,?  // 20\S+Z, 3 days ago\n`, `    "exp": 1\n`,
	} {
		if !regexp.MustCompile(want).MatchString(described) {
			t.Errorf("it has no %s:\n%s", want, described)
		}
	}
	file := filepath.Join(sitetest.TempDir(t), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TOKEN_OF_TEST", token)
	for _, source := range []string{"-", "@" + file, "env:TOKEN_OF_TEST"} {
		accountstest.Has(t, c.Must(token, "inspect", source), `"sub": "alice"`)
	}
	_, _, err := c.Run("", "inspect", token)
	if err == nil || !strings.Contains(err.Error(), "inspect takes -, @<file> or env:<NAME>, not the value itself") ||
		strings.Contains(err.Error(), token) {
		t.Errorf("a token as an argument: %v", err)
	}
	accountstest.Has(
		t, c.Must(sitetest.HS256(t, sitetest.JSON{"exp": time.Now().Add(-time.Minute).Unix()}), "inspect"), "Z, 1m",
	)

	header, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for _, malformed := range []struct{ token, want, shown string }{
		{"", "is empty", ""},
		{"opaque", "a signed JWT has 3 parts, not 1", ""},
		{token + ".x.y", "a signed JWT has 3 parts, not 5", ""},
		{"=" + token, "the header is empty or not strict base64url", ""},
		{header + ".." + signature, "the payload is empty or not strict base64url", `"alg"`},
		{header + "." + payload + ".", "the signature is empty or not strict base64url", `"sub"`},
		{sitetest.Encode("[]") + "." + payload + "." + signature, "the token header is not valid", "claims"},
		{
			sitetest.Encode(`{"alg":"HS256","alg":"none"}`) + "." + payload + "." + signature,
			"a name that appears twice", `"alg": "none"`,
		},
		{
			sitetest.Encode(`{"alg":"HS256","crit":["exp"]}`) + "." + payload + "." + signature,
			"it has crit or b64", `"crit"`,
		},
		{header + "." + sitetest.Encode(`{"sub":`) + "." + signature, "payload: malformed JSON", `"alg"`},
		{
			header + "." + sitetest.Encode(`{"sub":"a","Exp":1}`) + "." + signature,
			`"Exp" differs from "exp" only in case`, `"Exp"`,
		},
		{strings.Repeat("x", jwt.MaxTokenBytes) + token, "the token is too large", ""},
	} {
		stdout, _, err := c.Run(malformed.token, "inspect")
		if err == nil || !strings.Contains(err.Error(), malformed.want) || !strings.Contains(stdout, malformed.shown) {
			t.Errorf("%.80q: the error is %v, expected %q; output %q", malformed.token, err, malformed.want, stdout)
		}
		hasNot(t, stdout+fmt.Sprint(err), signature)
	}
}

// A rule that asks a service has no request to ask about.
func TestInspectWithAuthorizer(t *testing.T) {
	c := withCaddyfile(t, ":1004 {\njwt {\nsecret `"+sitetest.Secret+"`\nrequire http http://localhost:1/\n}\n}")
	accountstest.Has(
		t, c.Must(sitetest.HS256(t, nil), "inspect"), "accepted, if the authorizer of the rule allows the request\n",
	)
}

func TestInspectWithConfig(t *testing.T) {
	handlers := func(more string) string {
		return ` {
		jwt /api/* {
			secret ` + "`" + sitetest.Secret + "`" + `
			issuer https://issuer.example
			` + more + `
		}
	}
	`
	}
	c := withCaddyfile(t, ":1001"+handlers("")+":1002"+handlers("")+"http://admin.example:1003"+handlers(`
			require role admin
			require expression `+"`claims.level > 3`"+`
			require expression `+"`claims.sub == {http.request.uri.path.1}`"))
	for _, accepted := range []struct {
		token string
		want  []string
	}{
		{sitetest.HS256(t, nil), []string{
			"jwt :1001 /api/*; :1002 /api/*: accepted\n",
			`jwt :1003 admin.example /api/*: refused by the check "role": You do not have a role that is required here: requires one of ["admin"] in roles`,
		}},
		{sitetest.HS256(t, sitetest.JSON{"roles": []string{"admin"}, "level": 1}), []string{
			": accepted\n",
			`refused by the check "expression": You are not allowed to do this: claims.level > 3 is false`,
		}},
		{sitetest.HS256(t, sitetest.JSON{"roles": []string{"admin"}, "level": 4}), []string{
			"/api/*: accepted\n", "/api/*: accepted, if the request meets: claims.sub == {http.request.uri.path.1}\n",
		}},
	} {
		got := c.Must(accepted.token, "inspect")
		accountstest.Has(t, got, accepted.want...)
		hasNot(t, got, "signature not checked", accepted.token)
	}
	good := sitetest.HS256(t, nil)
	for _, refused := range []struct{ token, want string }{
		{
			sitetest.HS256(t, sitetest.JSON{"exp": time.Now().Add(-time.Hour).Unix()}),
			`refused by the check "expired": the token has expired: exp was 36`,
		},
		{sitetest.HS256(t, sitetest.JSON{"iss": "https://stranger.example"}), `refused by the check "issuer"`},
		{good[:len(good)-10] + "AAAAAAAAAA", `refused by the check "signature"`},
		{sitetest.Sign(t, "HS384", []byte(sitetest.Secret), nil, sitetest.Claims(nil)), ": accepted"},
		{sitetest.Sign(t, "RS256", sitetest.Keys().RSA, nil, sitetest.Claims(nil)), `refused by the check "algorithm"`},
	} {
		stdout, stderr, err := c.Run(refused.token, "inspect")
		accountstest.Has(t, stdout, refused.want)
		if accepts := strings.Contains(refused.want, "accepted"); accepts != (err == nil) ||
			!accepts && !strings.Contains(err.Error(), "no jwt handler in ") {
			t.Errorf("%s: %v", refused.want, err)
		}
		hasNot(t, stdout+stderr+fmt.Sprint(err), refused.token, sitetest.Secret)
	}
	c = withCaddyfile(t, ":1 {\n jwt {\n issuer https://id.example/*/v2.0\n tenants contoso\n secret `"+
		sitetest.Secret+"`\n require role admin of https://id.example/*/v2.0\n role_claim groups\n}\n}")
	for want, claims := range map[string]sitetest.JSON{
		"accepted": {"iss": "https://id.example/contoso/v2.0", "groups": "admin"},
		`refused by the check "role": You do not have a role that is required here: requires one of ["admin"] in groups`: {
			"iss": "https://id.example/contoso/v2.0", "roles": "admin",
		},
		`refused by the check "issuer"`: {"iss": "https://id.example/fabrikam/v2.0", "groups": "admin"},
		`refused by the check "claims": the token claims are not valid: exp is in milliseconds; it must be in seconds`: {
			"iss": "https://id.example/contoso/v2.0", "exp": time.Now().UnixMilli(),
		},
	} {
		stdout, _, _ := c.Run(sitetest.HS256(t, claims), "inspect")
		accountstest.Has(t, stdout, "jwt :1: "+want)
	}
	c.Refuses("", "standard input is empty; give the token there, or as @<file> or env:<NAME>", "inspect")
	c.Refuses("a.b", "a signed JWT has 3 parts, not 2", "inspect")
	c = withCaddyfile(t, ":1 {\n respond hello\n}")
	if _, _, err := c.Run(good, "inspect"); err == nil || !strings.Contains(err.Error(), "has no jwt handler") {
		t.Errorf("a config without a jwt handler: %v", err)
	}
}

// TestInspectFetchesKeys uses a key set that can be reached, and one that cannot.
func TestInspectFetchesKeys(t *testing.T) {
	key := sitetest.Keys().P256
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"keys":[`+sitetest.Marshal(t, sitetest.JWK(t, key, sitetest.JSON{"kid": "1"}))+`]}`)
	}))
	defer keys.Close()
	config := func(url string) *accountstest.CommandLine {
		return withCaddyfile(t, "{\n storage file_system "+sitetest.TempDir(t)+
			"\n}\n:1 {\n jwt {\n issuer https://issuer.example\n jwks "+url+"\n }\n}")
	}
	token := sitetest.Sign(t, "ES256", key, sitetest.JSON{"kid": "1"}, sitetest.Claims(nil))
	accountstest.Has(t, config(keys.URL).Must(token, "inspect"), "jwt :1: accepted\n")
	stdout, _, err := config("http://"+sitetest.FreeAddress(t)).Run(token, "inspect")
	if accountstest.Has(t, stdout, `refused by the check "keys_unavailable"`, "connection refused"); err == nil {
		t.Error("a token is accepted whose keys cannot be fetched")
	}
}

func TestInspectAccounts(t *testing.T) {
	storage, dir := sitetest.TempDir(t), sitetest.TempDir(t)
	store := filepath.Join(dir, "users.db")
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(dir, "log.json")}
	body := sitetest.AccountsBody(store, "")
	c := withCaddyfile(t, sitetest.GlobalOptions(storage, s.LogFile, "")+s.URL+" {\n"+body+"\n}")
	stdout, _, err := c.Run(sitetest.HS256(t, nil), "inspect")
	if accountstest.Has(t, stdout, "cannot check the token: there is no user store at "+store); err == nil {
		t.Error("a token is accepted before Caddy has run")
	}
	if entries, err := os.ReadDir(storage); err != nil || len(entries) > 0 {
		t.Errorf("inspect made keys: %v, %v", entries, err)
	}
	accountstest.RunSite(t, s, body, storage)
	given := s.SignedUp("alice@example.com")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	accountstest.Has(t, c.Must(given.Token, "inspect"), "/todos/*: accepted\n", `"typ": "at+jwt"`)
	(&accountstest.CommandLine{TB: t, Where: []string{"--store", store}}).
		Must("", "user", "disable", "--yes", "alice@example.com")
	stdout, _, err = c.Run(given.Token, "inspect")
	if accountstest.Has(t, stdout, `refused by the check "revoked"`); err == nil {
		t.Error("the token of a disabled user is accepted")
	}
}

// inspect also uses the providers of Caddy's own authentication handler.
func TestInspectAsksProviders(t *testing.T) {
	config := filepath.Join(sitetest.TempDir(t), "caddy.json")
	text := `{"apps":{"http":{"servers":{"s":{"listen":[":1"],"routes":[{"match":[{"path":["/api/*"]}],"handle":[{"handler":"authentication","providers":{"jwt_bearer":{"issuers":[{"secrets":[{"value":"` +
		sitetest.Secret + `"}]}]}}}]}]}}}}}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &accountstest.CommandLine{TB: t, Where: []string{"--config", config}}
	accountstest.Has(t, c.Must(sitetest.HS256(t, nil), "inspect"), "jwt :1 /api/*: accepted\n")
	c.Refuses(sitetest.HS256(t, sitetest.JSON{"exp": 1}), "accepts the token", "inspect")
}

func TestCommandsRefuseWhatWouldBeLost(t *testing.T) {
	c, _ := newUserStore(t)
	c.Must(sitetest.GoodPassword, "user", "add", "alice@example.com")
	var many []string
	for i := range 40 {
		many = append(many, "--add", fmt.Sprintf("a-role-with-a-long-name-%08d", i))
	}
	c.Refuses("", "a token can hold at most 1024", append([]string{"user", "roles", "alice@example.com"}, many...)...)
	c.Refuses(
		"", "the role admin is both added and removed", "user", "roles",
		"alice@example.com", "--add", "admin", "--remove", "admin",
	)
	damaged := `{"email":"bob@example.com","password_hash":"$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhW!"}`
	if _, said, _ := c.Run(damaged, "user", "import", "--format", "jsonl", "-"); !strings.Contains(
		said, "the bcrypt hash is corrupt",
	) {
		t.Errorf("import says %s", said)
	}
	c.Where = nil
	t.Setenv("TOKEN_SECRET", sitetest.Secret)
	for want, claims := range map[string][]string{
		"--claim aud is specified twice":                       {"--claim", "aud=a", "--claim", "aud=b"},
		"--claim exp is a string, but a time must be a number": {"--claim", "exp=5"},
		"--lifetime": {"--lifetime", "soon"},
		"--alg hs256: this key is for HS256, HS384, HS512; did you mean HS256?":      {"--alg", "hs256"},
		`--secret: unknown encoding "bas64"; did you mean base64? Supported: base64`: {"--encoding", "bas64"},
	} {
		c.Refuses("", want, append([]string{"token", "--secret", "env:TOKEN_SECRET"}, claims...)...)
	}
}
