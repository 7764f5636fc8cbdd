package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/postgres"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/storetest"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// server is a PostgreSQL server for the test.
type server struct {
	t    testing.TB
	dir  string
	bin  string
	attr *syscall.SysProcAttr

	wrap   []string // command that runs its programs elsewhere, instead of attr
	listen string   // the address in addition to the socket, if any
	more   string   // further options
}

func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		if resolved, err := filepath.EvalSymlinks(path); err == nil {
			if _, err := os.Stat(filepath.Join(filepath.Dir(resolved), "initdb")); err == nil {
				return resolved
			}
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// start runs a server on a socket in a new folder. The server refuses to run as root, so root
// runs it as the user postgres.
func start(t testing.TB) *server {
	t.Helper()
	initdb := program("initdb")
	if initdb == "" {
		caddytest.Missing(t, "PostgreSQL")
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, bin: filepath.Dir(initdb)}
	scenario.Ends(t, endServer, dir)
	if os.Geteuid() == 0 {
		account, err := user.Lookup("postgres")
		if err != nil {
			caddytest.Missing(t, "a user postgres, as PostgreSQL does not run as root")
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		s.attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	s.run("initdb", "-D", dir+"/data", "-U", "test", "-A", "trust", "--no-sync")
	s.begin()
	t.Cleanup(func() { s.run("pg_ctl", "-D", dir+"/data", "-m", "immediate", "stop") })
	return s
}

// endServer ends a server and all its processes, stopped or not.
const endServer = `
	if pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null); then
		kill -CONT $pid $(cat /proc/$pid/task/$pid/children 2>/dev/null) 2>/dev/null
		kill -QUIT $pid 2>/dev/null
		for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 $pid 2>/dev/null || break; sleep 0.5; done
		kill -9 $pid 2>/dev/null
	fi
	rm -rf "$1"`

func (s *server) run(name string, arguments ...string) {
	s.t.Helper()
	command := exec.Command(filepath.Join(s.bin, name), arguments...)
	command.SysProcAttr, command.Dir = s.attr, s.dir
	if len(s.wrap) > 0 {
		command = exec.Command(
			s.wrap[0], append(append(s.wrap[1:len(s.wrap):len(s.wrap)], filepath.Join(s.bin, name)), arguments...)...,
		)
		command.Dir = s.dir
	}
	log, err := os.CreateTemp("", "pg-log")
	if err != nil {
		s.t.Fatal(err)
	}
	defer os.Remove(log.Name())
	command.Stdout, command.Stderr = log, log // the server would keep a pipe open
	if err := command.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		s.t.Fatalf("%s: %v\n%s", name, err, text)
	}
}

func (s *server) begin() {
	s.t.Helper()
	s.run(
		"pg_ctl", "-D", s.dir+"/data", "-w", "-l", s.dir+"/log", "-o",
		"-c listen_addresses='"+s.listen+"' -c unix_socket_directories="+s.dir+" -c fsync=off "+s.more, "start",
	)
}

func (s *server) restart() {
	s.t.Helper()
	s.run("pg_ctl", "-D", s.dir+"/data", "-w", "-m", "immediate", "-l", s.dir+"/log", "restart")
}

// database returns the DSN of a new, empty database.
func (s *server) database(name string) string {
	s.t.Helper()
	name = strings.Trim(regexp.MustCompile(`[^a-z]+`).ReplaceAllString(strings.ToLower(name), "_"), "_")
	db, err := sql.Open("pgx", s.dsn("postgres"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE DATABASE " + name); err != nil {
		s.t.Fatal(err)
	}
	return s.dsn(name)
}

func (s *server) dsn(name string) string { return "host=" + s.dir + " user=test dbname=" + name }

// open opens a store as a node does. more changes the DSN, so that the pool is not shared.
func open(t testing.TB, dsn string) store.UserStore {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	store := &postgres.Store{DSN: dsn}
	if err := store.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// databaseOf returns the store's database connection.
func databaseOf(t testing.TB, store *postgres.Store) *sql.DB {
	t.Helper()
	db, _, err := store.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestStore(t *testing.T) {
	conforms(t, "")
}

// With stricter isolation than PostgreSQL's default, a database rolls back a transaction that
// conflicts with another; it is then repeated.
func TestStoreSerializable(t *testing.T) {
	conforms(t, " default_transaction_isolation=serializable")
}

// conforms runs the conformance suite of stores with this addition to the DSN.
func conforms(t *testing.T, more string) {
	s := start(t)
	databases := make(map[string]string)
	storetest.Run(t, func(t *testing.T, name string) store.UserStore {
		dsn, known := databases[name]
		if !known {
			dsn = s.database(name) + more
			databases[name] = dsn
		}
		if known { // a second node
			dsn += " application_name=another"
		}
		return open(t, dsn)
	})
}

// Attempts are counted at all nodes together as at one node: first the full number, then one more
// each time a part of the window has passed.
func TestTries(t *testing.T) {
	s := start(t)
	dsn := s.database("tries")
	stores := []*postgres.Store{
		open(t, dsn).(*postgres.Store), open(t, dsn+" application_name=another").(*postgres.Store),
	}
	now, every := time.Now(), time.Minute
	try := func(key string, now time.Time) (time.Duration, bool) {
		t.Helper()
		stores[0], stores[1] = stores[1], stores[0]
		wait, err := stores[0].CountAttempt(t.Context(), key, 10, every, now)
		if err != nil {
			t.Fatal(err)
		}
		return wait, wait == 0
	}
	for i := range 10 {
		if wait, ok := try("alice", now); !ok {
			t.Fatalf("try %d waits %s", i+1, wait)
		}
	}
	if wait, ok := try("alice", now); ok || wait != every {
		t.Errorf("the 11th try waits %s", wait)
	}
	if wait, ok := try("alice", now.Add(every/2)); ok || wait != every/2 {
		t.Errorf("half a share later it waits %s", wait)
	}
	if _, ok := try("bob", now); !ok {
		t.Error("control: another key waits")
	}
	if _, ok := try("alice", now.Add(every)); !ok {
		t.Error("a share later it still waits")
	}
	if _, ok := try("alice", now.Add(every)); ok {
		t.Error("a share later there is more than one")
	}
	if err := stores[0].ForgiveAttempt(t.Context(), "alice", every); err != nil {
		t.Fatal(err)
	}
	if _, ok := try("alice", now.Add(every)); !ok {
		t.Error("a try that was forgiven counts")
	}

	var all sync.WaitGroup
	var through atomic.Int64
	for i := range 100 {
		all.Go(func() {
			wait, err := stores[i%2].CountAttempt(t.Context(), "at once", 10, every, now)
			if err != nil {
				t.Error(err)
			} else if wait == 0 {
				through.Add(1)
			}
		})
	}
	all.Wait()
	if through.Load() != 10 {
		t.Errorf("of 100 at once %d are let through", through.Load())
	}
	if err := stores[0].CleanUp(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var left int
	if err := databaseOf(t, stores[0]).QueryRow(`SELECT COUNT(*) FROM tries`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d are left: %v", left, err)
	}
}

// Nodes that remove expired records at the same time do not block each other.
func TestCleanUpAtSeveralNodes(t *testing.T) {
	s := start(t)
	dsn := s.database("cleanup")
	var stores []*postgres.Store
	for i := range 3 {
		stores = append(stores, open(t, fmt.Sprint(dsn, " application_name=node", i)).(*postgres.Store))
	}
	now := time.Now()
	db := databaseOf(t, stores[0])
	_, err := db.ExecContext(t.Context(), `INSERT INTO records (kind, id, owner, value, expires_at, version)
		SELECT 'pushed', n, '', '{}', CASE WHEN n > 20000 THEN $1 + CAST(3600000 AS BIGINT) ELSE CAST($1 AS BIGINT) END, 1 FROM generate_series(1, 20010) n`,
		now.UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, store := range stores {
		all.Go(func() {
			began := time.Now()
			if err := store.CleanUp(t.Context(), now); err != nil {
				t.Error(err)
			}
			t.Logf("it took %s", time.Since(began).Round(time.Millisecond))
		})
	}
	all.Wait()
	var left int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM records`).Scan(&left); err != nil || left != 10 {
		t.Errorf("%d are left, expected those 10 that have not expired: %v", left, err)
	}
	began := time.Now()
	if err := stores[0].CleanUp(t.Context(), now); err != nil {
		t.Error(err)
	}
	t.Logf("where nothing has expired it takes %s", time.Since(began).Round(10*time.Microsecond))
}

// A node learns of sessions that another node ended, also after an outage of the database.
func TestListenRevocations(t *testing.T) {
	s := start(t)
	dsn := s.database("listen")
	a, b := open(t, dsn).(*postgres.Store), open(t, dsn+" application_name=another").(*postgres.Store)
	heard := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = b.ListenRevocations(ctx, func() { heard <- struct{}{} })
		}
	}()
	<-heard // it listens
	end := func(name string) {
		t.Helper()
		now := time.Now()
		if err := a.CreateUser(t.Context(), store.User{ID: name, Email: name, EmailKey: name}); err != nil {
			t.Fatal(err)
		}
		if err := a.CreateSession(t.Context(), store.Session{
			ID: name, UserID: name, FamilyHash: name, ExpiresAt: now.Add(time.Hour), LastTokenUntil: now.Add(time.Hour),
		}, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := a.EndSessions(t.Context(), name, "", "", now); err != nil {
			t.Fatal(err)
		}
	}
	end("first")
	<-heard
	s.restart()
	<-heard // it listens again
	sitetest.Eventually(
		t, "the database answers", func() bool { _, err := a.User(t.Context(), "first"); return err == nil },
	)
	end("second")
	<-heard
	cancel()
	<-ended
}

// The data of a file store is copied here and back without loss.
func TestStoreCopy(t *testing.T) {
	s := start(t)
	dsn := s.database("copy")
	dir := t.TempDir()
	file, back := filepath.Join(dir, "users.db"), filepath.Join(dir, "back.db")
	run := func(stdin string, args ...string) (string, error) {
		t.Helper()
		command := exec.Command(caddytest.Binary(t), append([]string{"jwt"}, args...)...)
		command.Stdin = strings.NewReader(stdin)
		command.Env = append(os.Environ(), "ACCOUNTS_DSN="+dsn)
		output, err := command.CombinedOutput()
		return string(output), err
	}
	must := func(stdin string, args ...string) string {
		t.Helper()
		output, err := run(stdin, args...)
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, output)
		}
		return output
	}
	var users strings.Builder
	for i := range 1500 {
		fmt.Fprintf(
			&users,
			`{"email":"Ünïcode-%d@example.com","password_hash":"","roles":["b","a"],"profile":{"big":9007199254740993,"text":"\u0000 \\ ' é","n":%d},"disabled":%v}`+
				"\n",
			i, i, i%2 == 0,
		)
	}
	must(users.String(), "user", "import", "--create", "--format", "jsonl", "--store", file, "-")
	must("", "client", "add", "--store", file, "--redirect-uri", "https://app.example/callback", "app")
	output := must("", "store", "copy", file, "postgres {env.ACCOUNTS_DSN}")
	if !strings.Contains(output, "users: 1500 rows, the same in both") || !strings.Contains(output, "records: 1 row") {
		t.Error(output)
	}
	must("", "store", "copy", "postgres {env.ACCOUNTS_DSN}", back)
	must("", "store", "copy", "postgresql:///copy?"+url.Values{"host": {s.dir}, "user": {"test"}}.Encode(), back+"2")
	if must("", "user", "export", "--store", file) != must("", "user", "export", "--store", back) {
		t.Error("there and back, they are not the same")
	}
	config := filepath.Join(t.TempDir(), "Caddyfile")
	site := ":1 {\njwt {\naccounts {\nstore postgres {env.ACCOUNTS_DSN}\n}\n}\n}\n"
	if err := os.WriteFile(config, []byte(site), 0o600); err != nil {
		t.Fatal(err)
	}
	output = must("", "store", "backup", "--config", config, back+"3")
	if !strings.Contains(output, "users: 1500 rows, the same in both") || !strings.Contains(output, "folder jwt") ||
		must("", "user", "export", "--store", file) != must("", "user", "export", "--store", back+"3") {
		t.Error(output)
	}
	if output, err := run("", "store", "restore", "--yes", "--config", config, back+"3"); err == nil ||
		!strings.Contains(output, "copy it into an empty one: caddy jwt store copy") {
		t.Errorf("a restore into a database: %v %s", err, output)
	}
	if output, err := run("", "store", "copy", file, "postgres {env.ACCOUNTS_DSN}"); err == nil ||
		!strings.Contains(output, "1500 rows in the table users") {
		t.Errorf("into one that is not empty: %v %s", err, output)
	}
	if output, err := run("", "store", "copy", file, "postgres {env.NOT_SET}"); err == nil ||
		!strings.Contains(output, "the DSN is empty") {
		t.Errorf("a variable that is not set: %v %s", err, output)
	}
	if output, err := run("", "store", "copy", file, "postgres host=127.0.0.1 dbname=accounts"); err == nil ||
		!strings.Contains(output, "put a DSN of several words in quotes") {
		t.Errorf("a DSN of several words without quotes: %v %s", err, output)
	}
	if output, err := run("", "store", "copy", file, "postgres "); err == nil ||
		!strings.Contains(output, "store postgres takes a DSN") {
		t.Errorf("a kind without its DSN: %v %s", err, output)
	}
	const password = "a-password-that-nobody-may-see"
	if output, err := run("", "store", "copy", file, "postgres://user:"+password+"@127.0.0.1:1/db"); err == nil ||
		strings.Contains(output, password) {
		t.Errorf("a database that is not there: %v %s", err, output)
	}
}

// If many nodes start at once on an empty database, one creates the tables, and all can use them.
func TestManyNodesStartAtOnce(t *testing.T) {
	s := start(t)
	dsn := s.database("nodes")
	var all sync.WaitGroup
	for node := range 20 {
		all.Go(func() {
			ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
			defer cancel()
			one := &postgres.Store{DSN: dsn + " pool_max_conns=2 application_name=node" + fmt.Sprint(node)}
			if err := one.Provision(ctx); err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = one.Cleanup() }()
			if _, err := one.Users(t.Context(), "", 1); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	store := open(t, dsn)
	if _, err := store.Users(t.Context(), "", 1); err != nil {
		t.Error(err)
	}
}

// While a database restarts, requests fail and nothing is done twice. Afterwards everything works
// again by itself.
func TestDatabaseRestarts(t *testing.T) {
	s := start(t)
	users := open(t, s.database("restarts"))
	now := time.Now().Truncate(time.Millisecond)
	for round := range 3 {
		key := fmt.Sprintf("user-%d@example.com", round)
		if err := users.CreateUser(t.Context(), store.User{
			ID: key, Email: key, EmailKey: key, CreatedAt: now, UpdatedAt: now,
		}); err != nil {
			t.Fatal(err)
		}
		s.restart()
		deadline := time.Now().Add(20 * time.Second)
		for {
			_, err := users.UserByEmail(t.Context(), key)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
}

// The Caddyfile of the docs adapts.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/accounts.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, block := range regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(block[1], "store postgres") {
			continue
		}
		found++
		if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(block[1]), nil); err != nil {
			t.Error(err)
		}
	}
	if found == 0 {
		t.Error("the docs have none")
	}
}

func TestWrongDSN(t *testing.T) {
	const password = "a-password-that-nobody-may-see"
	for dsn, want := range map[string]string{
		"": "the DSN is empty",
		"postgres://user:" + password + "@host:port/db":         "write postgres://",
		"host=x password=" + password + " pool_max_conns=many":  `pool_max_conns is "many"`,
		"host=x password=" + password + " pool_max_conns=16abc": `pool_max_conns is "16abc"`,
		"host=x password=" + password + " pool_min_conns=2": "pool_min_conns is not supported; " +
			"use pool_max_conns",
		"host=x password=" + password + " statement_timeout=soon":       `statement_timeout is "soon"`,
		"host=x password=" + password + " sslmode=perhaps":              "sslmode is invalid",
		"postgres://user:" + password + "@host/db?connect_timeout=soon": "invalid syntax",
	} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		err := (&postgres.Store{DSN: dsn}).Provision(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
			t.Errorf("%v, expected %s", err, want)
		}
	}
}

// Attempts counted with a wrong clock lock nobody out when the clock is right again.
func TestTriesOfAWrongClock(t *testing.T) {
	s := start(t)
	store := open(t, s.database("wrong clock")).(*postgres.Store)
	now, every := time.Now(), time.Minute
	for range 10 { // all there are, by a clock that is a year ahead
		if wait, err := store.CountAttempt(t.Context(), "alice", 10, every, now.AddDate(1, 0, 0)); err != nil ||
			wait != 0 {
			t.Fatal(wait, err)
		}
	}
	wait, err := store.CountAttempt(t.Context(), "alice", 10, every, now)
	if err != nil || wait <= 0 || wait > every {
		t.Errorf("by the right clock it waits %s, %v", wait, err)
	}
	if wait, err := store.CountAttempt(t.Context(), "alice", 10, every, now.Add(every)); err != nil || wait != 0 {
		t.Errorf("a share later it waits %s, %v", wait, err)
	}
	if wait, err := store.CountAttempt(t.Context(), "bob", 10, every, now.AddDate(1, 0, 0)); err != nil || wait != 0 {
		t.Fatal(wait, err)
	}
	if err := store.ForgiveAttempt(t.Context(), "bob", every); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if wait, err := store.CountAttempt(
			t.Context(), "bob", 10, every, now.Add(time.Duration(i)*every),
		); err != nil || i == 1 && wait != 0 {
			t.Errorf("one try that was forgiven: it waits %s, %v", wait, err)
		}
	}
}
