package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	caddyjwt "github.com/caddy-jwt/caddy-jwt"
	"github.com/caddy-jwt/caddy-jwt/storetest"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// missing skips the test, except in CI, where nothing may be missing.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s, and CI=true", what)
	}
	t.Skip("this test needs " + what)
}

// server is a PostgreSQL of the test's own.
type server struct {
	t    testing.TB
	dir  string
	bin  string
	attr *syscall.SysProcAttr

	wrap   []string // words that run its programs elsewhere, in place of attr
	listen string   // the address beside the socket, if any
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

// start runs a server on a socket in a folder of its own. It does not run as
// root, so it takes the user postgres there.
func start(t testing.TB) *server {
	t.Helper()
	initdb := program("initdb")
	if initdb == "" {
		missing(t, "PostgreSQL")
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, bin: filepath.Dir(initdb)}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Geteuid() == 0 {
		account, err := user.Lookup("postgres")
		if err != nil {
			missing(t, "a user postgres, as PostgreSQL does not run as root")
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

func (s *server) run(name string, arguments ...string) {
	s.t.Helper()
	command := exec.Command(filepath.Join(s.bin, name), arguments...)
	command.SysProcAttr, command.Dir = s.attr, s.dir
	if len(s.wrap) > 0 {
		command = exec.Command(s.wrap[0], append(append(s.wrap[1:len(s.wrap):len(s.wrap)], filepath.Join(s.bin, name)), arguments...)...)
		command.Dir = s.dir
	}
	log, err := os.CreateTemp("", "pg-log")
	if err != nil {
		s.t.Fatal(err)
	}
	defer os.Remove(log.Name())
	command.Stdout, command.Stderr = log, log // a pipe would be kept open by the server
	if err := command.Run(); err != nil {
		text, _ := os.ReadFile(log.Name())
		s.t.Fatalf("%s: %v\n%s", name, err, text)
	}
}

func (s *server) begin() {
	s.t.Helper()
	s.run("pg_ctl", "-D", s.dir+"/data", "-w", "-l", s.dir+"/log", "-o", "-c listen_addresses='"+s.listen+"' -c unix_socket_directories="+s.dir+" -c fsync=off", "start")
}

func (s *server) restart() {
	s.t.Helper()
	s.run("pg_ctl", "-D", s.dir+"/data", "-w", "-m", "immediate", "-l", s.dir+"/log", "restart")
}

// database is the DSN of a new, empty database.
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

// open is a store as a node has it. more makes the DSN another, so that the pool
// is not shared.
func open(t testing.TB, dsn string) caddyjwt.UserStore {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	store := &Store{DSN: dsn}
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

func TestStore(t *testing.T) {
	s := start(t)
	databases := make(map[string]string)
	storetest.Run(t, func(t *testing.T, name string) caddyjwt.UserStore {
		dsn, known := databases[name]
		if !known {
			dsn = s.database(name)
			databases[name] = dsn
		}
		if known { // a second node
			dsn += " application_name=another"
		}
		return open(t, dsn)
	})
}

// Many nodes that start at once on an empty database: one makes the tables, and
// all can use them.
func TestManyNodesStartAtOnce(t *testing.T) {
	s := start(t)
	dsn := s.database("nodes")
	var all sync.WaitGroup
	for node := range 20 {
		all.Go(func() {
			config, err := parseDSN(dsn + " pool_max_conns=2 application_name=node" + fmt.Sprint(node))
			if err != nil {
				t.Error(err)
				return
			}
			p := newPool(config)
			defer p.db.Close()
			if _, _, err := p.connect(t.Context()); err != nil {
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

// A database that restarts: what is asked meanwhile fails and nothing is done
// twice, and after it all goes on by itself.
func TestDatabaseRestarts(t *testing.T) {
	s := start(t)
	store := open(t, s.database("restarts"))
	now := time.Now().Truncate(time.Millisecond)
	for round := range 3 {
		key := fmt.Sprintf("user-%d@example.com", round)
		if err := store.CreateUser(t.Context(), caddyjwt.User{ID: key, Email: key, EmailKey: key, CreatedAt: now, UpdatedAt: now}); err != nil {
			t.Fatal(err)
		}
		s.restart()
		deadline := time.Now().Add(20 * time.Second)
		for {
			_, err := store.UserByEmail(t.Context(), key)
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
		"": "dsn is empty",
		"postgres://user:" + password + "@host:port/db":                 "dsn, as postgres://",
		"host=x password=" + password + " pool_max_conns=many":          `pool_max_conns is "many"`,
		"host=x password=" + password + " statement_timeout=soon":       `statement_timeout is "soon"`,
		"host=x password=" + password + " sslmode=perhaps":              "sslmode is invalid",
		"postgres://user:" + password + "@host/db?connect_timeout=soon": "invalid syntax",
	} {
		ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
		err := (&Store{DSN: dsn}).Provision(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
			t.Errorf("%v, expected %s", err, want)
		}
	}
}
