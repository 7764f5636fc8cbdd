package postgres_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/opstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/postgres"
)

// host returns a machine whose environment has the server's programs and the database.
func (s *server) host(t *testing.T, dsn string) (*opstest.Host, *node) {
	t.Helper()
	host := opstest.NewHost(t, caddytest.Binary(t), "..", "ACCOUNTS_DSN="+dsn)
	for _, program := range []string{"pg_dump", "pg_restore"} {
		if err := os.Symlink(s.bin+"/"+program, host.Dir+"/bin/"+program); err != nil {
			t.Fatal(err)
		}
	}
	return host, &node{Process: &sitetest.Process{Site: &sitetest.Site{T: t, URL: host.URL}}}
}

func operatedSite(store string) string {
	return "jwt /todos/* {\n accounts {\n signup open\n " + store +
		"\n throttle off\n hash_queue 1000\n}\n}\n respond /todos/* ok"
}

// signsUp creates an account and logs in.
func (n *node) signsUp(email string) (token, refreshToken string) {
	n.T.Helper()
	if status, body := n.send("POST", "/auth/signup", "", sitetest.CredentialsOf(email)); status != 201 {
		n.T.Fatalf("sign-up: %d %v", status, body)
	}
	return n.logsIn(email)
}

func (n *node) logsIn(email string) (token, refreshToken string) {
	n.T.Helper()
	status, given := n.send("POST", "/auth/login", "", sitetest.CredentialsOf(email))
	if status != 200 {
		n.T.Fatalf("%s logs in: %d %v", email, status, given)
	}
	return given["token"].(string), given["refreshToken"].(string)
}

func (n *node) refreshes(refreshToken string) (status int, token string) {
	n.T.Helper()
	status, given := n.send("POST", "/auth/refresh", "", map[string]string{"refreshToken": refreshToken})
	if status == 200 {
		token = given["token"].(string)
	}
	return status, token
}

func (n *node) mustAllow(status int, token, why string) {
	n.T.Helper()
	if got, body := n.send("GET", "/todos/", token, nil); got != status {
		n.T.Errorf("%s: %d %v, expected %d", why, got, body, status)
	}
}

// The page's backup while users sign up, and its restore into a database without tables.
func TestOperationsBackup(t *testing.T) {
	s := start(t)
	dsn := s.database("operations")
	host, n := s.host(t, dsn)
	host.Write("Caddyfile", "", operatedSite("store postgres {env.ACCOUNTS_DSN}"))
	host.Shell("systemctl start caddy")
	token, refreshToken := n.signsUp("unused@example.com")
	_, refreshedLater := n.signsUp("refreshed@example.com")

	var all sync.WaitGroup
	var mu sync.Mutex
	var stopped atomic.Bool
	var acknowledged []string
	soFar := func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(acknowledged) }
	for worker := range 2 {
		all.Go(func() {
			for i := 0; !stopped.Load(); i++ {
				email := fmt.Sprintf("arrival-%d-%d@example.com", worker, i)
				if status, _ := n.send("POST", "/auth/signup", "", sitetest.CredentialsOf(email)); status == 201 {
					mu.Lock()
					acknowledged = append(acknowledged, email)
					mu.Unlock()
				}
			}
		})
	}
	t.Cleanup(func() { stopped.Store(true); all.Wait() })
	sitetest.Eventually(t, "users sign up", func() bool { return len(soFar()) > 3 })
	before := soFar()
	host.Type("Backing up PostgreSQL")
	sitetest.Eventually(t, "users sign up after the backup", func() bool { return len(soFar()) > len(before)+4 })
	stopped.Store(true)
	all.Wait()
	_, renewed := n.refreshes(refreshedLater)
	n.mustAllow(200, renewed, "control")
	n.signsUp("late@example.com")

	db := open(t, dsn+" application_name=vandal").(*postgres.Store)
	if _, err := db.Exec(t.Context(), "DROP TABLE users CASCADE"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(t.Context(), "DROP TABLE revocations"); err != nil {
		t.Fatal(err)
	}
	if status, _ := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("unused@example.com")); status != 503 {
		t.Errorf("control: a log-in without tables: %d", status)
	}
	n.mustAllow(200, token, "a token while the tables are gone")

	host.Type("Lost PostgreSQL")
	for _, email := range append(before, "unused@example.com", "refreshed@example.com") {
		n.logsIn(email)
	}
	if status, _ := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("late@example.com")); status != 401 {
		t.Errorf("who signed up after the backup: %d", status)
	}
	n.mustAllow(200, token, "a token of before the backup")
	if status, _ := n.refreshes(refreshToken); status != 200 {
		t.Errorf("a session that was not used since: %d", status)
	}
}

// From a file to PostgreSQL with two nodes, and back.
func TestOperationsSeveralNodes(t *testing.T) {
	s := start(t)
	dsn := s.database("several")
	host, a := s.host(t, dsn)
	shared := "storage file_system " + t.TempDir()
	host.Write("Caddyfile", "", operatedSite(""))
	host.Write("Caddyfile.nodes", shared, operatedSite("store postgres {env.ACCOUNTS_DSN}"))
	host.Shell("systemctl start caddy")
	old, refreshToken := a.signsUp("alice@example.com")

	printed := host.Type("From one node to several", 0)
	if !strings.Contains(printed, "users: 1 row, the same in both") {
		t.Error(printed)
	}
	a.mustAllow(401, old, "an access token of before the move")
	status, moved := a.refreshes(refreshToken)
	if status != 200 {
		t.Errorf("a refresh token of before the move: %d", status)
	}
	second, b := s.host(t, dsn)
	second.Write("Caddyfile", shared, operatedSite("store postgres {env.ACCOUNTS_DSN}"))
	second.Shell("systemctl start caddy")
	b.mustAllow(200, moved, "a token of the first node at the second")
	token, _ := b.logsIn("alice@example.com")
	a.mustAllow(200, token, "and the other way")
	if status, _ := a.send("POST", "/auth/logout", token, nil); status != 204 {
		t.Errorf("log-out: %d", status)
	}
	refusedBy(t, "a log-out", token, b)
	b.signsUp("bob@example.com")

	second.Shell("systemctl stop caddy")
	printed = host.Type("From one node to several", 1)
	if !strings.Contains(printed, "users: 2 rows, the same in both") {
		t.Error(printed)
	}
	a.logsIn("alice@example.com")
	a.logsIn("bob@example.com")
}
