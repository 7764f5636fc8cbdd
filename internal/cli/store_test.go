package cli_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
)

// fill fills a store with users, each with a session, a record and more. rowsAtOnce is the size of
// a batch of the copy.
const rowsAtOnce = 500

func fillStore(t testing.TB, path string, users int) {
	t.Helper()
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	var lines string
	for i := range users {
		lines += fmt.Sprintf(
			`{"email":"user-%d@example.com","password_hash":"","roles":["editor"],"profile":{"name":"Zoë \u0000 %d","big":9007199254740993}}`+
				"\n",
			i, i,
		)
	}
	c.Must(lines, "user", "import", "--create", "--format", "jsonl", "-")
	accountstest.WithUsers(t, path, func(users store.UserStore) {
		first, err := users.Users(t.Context(), "", 3)
		if err != nil {
			t.Fatal(err)
		}
		for i, user := range first {
			now := time.Now()
			err := errors.Join(
				users.CreateSession(t.Context(), store.Session{
					ID: user.ID, UserID: user.ID, FamilyHash: user.ID, UserAgent: "a client", CreatedAt: now,
					UsedAt: now, ExpiresAt: now.Add(time.Hour), LastTokenUntil: now.Add(time.Hour),
				}, ""),
				users.CreateRecord(t.Context(), store.Record{
					Kind: fmt.Sprint("kind ", i%2), ID: user.ID, Owner: user.ID, Value: []byte(`{"a":1}`),
				}),
				users.CreateOneTimeToken(t.Context(), store.OneTimeToken{
					Hash: user.ID, Purpose: "reset", UserID: user.ID, ExpiresAt: now.Add(time.Hour),
				}))
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := users.EndSessions(t.Context(), first[0].ID, "", "", time.Now()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestStoreCopy(t *testing.T) {
	dir := sitetest.TempDir(t)
	from, to := filepath.Join(dir, "from.db"), filepath.Join(dir, "a folder", "to.db")
	fillStore(t, from, 1200)
	c := &accountstest.CommandLine{TB: t}
	out := c.Must("", "store", "copy", from, `file "`+to+`"`)
	accountstest.Has(
		t, out, "users: 1200 rows, the same in both", "sessions: 2 rows",
		"revocations: 1 row", "one_time_tokens: 3 rows", "records: 3 rows",
	)
	export := func(path string) string {
		return (&accountstest.CommandLine{TB: t, Where: []string{"--store", path}}).Must("", "user", "export")
	}
	if export(from) != export(to) {
		t.Error("the users are not the same")
	}
	accountstest.WithUsers(t, to, func(store store.UserStore) {
		if records, err := store.Records(t.Context(), "store copy", "", time.Now()); err != nil || len(records) != 0 {
			t.Errorf("the mark of the copy is left: %v %v", records, err)
		}
	})

	c.Refuses(
		"", "the store to copy from: there is no user store at", "store", "copy", filepath.Join(dir, "none.db"), to,
	)
	c.Refuses("", "it already has 1200 rows in the table users; copy into an empty store", "store", "copy", from, to)
	c.Refuses("", "the two stores are the same", "store", "copy", from, from)
	c.Refuses("", "the two stores are the same", "store", "copy", from, `file "`+from+`"`)
	c.Refuses("", "takes two stores, as in: caddy jwt store copy users.db", "store", "copy", from)
	c.Refuses("", "for SQLite write: store file <path>", "store", "copy", from, "sqlite users.db")
	c.Refuses("", "the store to copy to: unknown store \"redis\"", "store", "copy", from, "redis localhost")
	c.Refuses(
		"",
		"this Caddy is built without store postgres; build one with it: xcaddy build --with "+
			"github.com/caddy-jwt/caddy-jwt --with github.com/caddy-jwt/caddy-jwt/postgres",
		"store", "copy", from, "postgres://localhost/db",
	)
	c.Refuses("", "this Caddy is built without store postgres", "store", "copy", from, "postgresql://localhost/db")
	c.Refuses(
		"", `unknown store "postgre"; did you mean postgres? Supported: `, "store", "copy", from, "postgre localhost",
	)
	c.Refuses(
		"", "a store file takes a path, not a URL", "user", "list", "--store", "postgres://user:password@localhost/db",
	)
	c.Refuses(
		"", "put each store in quotes", "store", "copy", from, "postgres", "host=localhost", "dbname=db", "user=caddy",
	)
	c.Refuses("", "store file takes at most one path", "store", "copy", from, "file a b")
	c.Refuses("", "it must be the path of a file, or what follows the option store", "store", "copy", "", to)
}

// copyOf opens two stores to copy one into the other.
func copyOf(t *testing.T, from, to string, progress func(doing, table string, rows, all int64)) *sqlstore.Copy {
	t.Helper()
	ctx, cancel := accountstest.ModuleContext(t)
	t.Cleanup(cancel)
	open := func(path string) *sqlstore.Store {
		users := &filestore.Store{Path: path}
		if err := users.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		if _, _, err := users.Connect(sqlstore.ForCopy(ctx)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = users.Cleanup() })
		return users.SQL()
	}
	c := &sqlstore.Copy{From: open(from), To: open(to), Source: store.HashToken(from), Progress: progress}
	return c
}

// An interrupted copy continues where it stopped.
func TestStoreCopyGoesOn(t *testing.T) {
	dir := sitetest.TempDir(t)
	from, to := filepath.Join(dir, "from.db"), filepath.Join(dir, "to.db")
	fillStore(t, from, 2*rowsAtOnce+10)
	ctx, cancel := context.WithCancel(t.Context())
	c := copyOf(t, from, to, func(string, string, int64, int64) { cancel() })
	if _, err := c.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("control: %v", err)
	}
	// No server uses the incomplete copy.
	half := &accountstest.CommandLine{TB: t, Where: []string{"--store", to}}
	half.Refuses("", "it is the unfinished copy of another", "user", "list")
	if text := sitetest.StartError(t, sitetest.AccountsBody(to, "")); !strings.Contains(
		text, "it is the unfinished copy of another",
	) {
		t.Errorf("Caddy says %s", text)
	}
	(&accountstest.CommandLine{TB: t}).Refuses(
		"", "the store to copy from: it is the unfinished copy of another",
		"store", "copy", to, filepath.Join(dir, "third.db"),
	)
	fillStore(t, filepath.Join(dir, "other.db"), 3)
	(&accountstest.CommandLine{TB: t}).Refuses(
		"", "it is the unfinished copy of another store, or of this store under another name",
		"store", "copy", filepath.Join(dir, "other.db"), to,
	)
	copied := 0
	c.Progress = func(doing, table string, rows, all int64) {
		if doing == "copied" && table == "users" {
			if copied++; copied == 1 && rows != 2*rowsAtOnce || all != 2*rowsAtOnce+10 {
				t.Errorf("it goes on at %d of %d", rows, all)
			}
		}
	}
	sums, err := c.Run(t.Context())
	if err != nil || copied != 2 || sums[0].Rows != 2*rowsAtOnce+10 {
		t.Errorf("%v %v, %d pages", sums, err, copied)
	}
}

// A difference of even one letter is found, and copied when the command runs again.
func TestStoreCopyFindsDifferences(t *testing.T) {
	dir := sitetest.TempDir(t)
	from, to := filepath.Join(dir, "from.db"), filepath.Join(dir, "to.db")
	fillStore(t, from, 20)
	changed := false
	c := copyOf(t, from, to, nil)
	c.Progress = func(doing, table string, _, _ int64) {
		if doing == "compared" && !changed {
			changed = true
			if _, err := c.From.Exec(
				t.Context(), `UPDATE users SET profile = '{"name":"b"}' WHERE email_key = $1`, "user-7@example.com",
			); err != nil {
				t.Fatal(err)
			}
			if _, err := c.To.Exec(
				t.Context(), `UPDATE records SET value = '{"a":2}' WHERE kind = $1`, "kind 1",
			); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := c.Run(t.Context()); !errors.Is(err, sqlstore.ErrCopyDiffers) {
		t.Fatalf("a difference is not found: %v", err)
	}
	if sums, err := c.Run(t.Context()); err != nil || sums[0].Rows != 20 {
		t.Errorf("run again: %v %v", sums, err)
	}
}
