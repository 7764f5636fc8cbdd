package postgres_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A pooler in transaction mode requires the DSN of the docs. A node then gets no notifications, and
// polls.
func TestPgBouncer(t *testing.T) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		caddytest.Missing(t, "pgbouncer")
	}
	s := start(t)
	s.database("pooled")
	host, port, _ := net.SplitHostPort(sitetest.FreeAddress(t))
	config := filepath.Join(s.dir, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\npooled = host=%s dbname=pooled user=test\n[pgbouncer]\nlisten_addr = %s\n"+
		"listen_port = %s\nauth_type = any\npool_mode = transaction\nunix_socket_dir =\n", s.dir, host, port)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	pooler := exec.Command(program, config)
	pooler.SysProcAttr, pooler.Dir = s.attr, s.dir // it does not run as root
	said := new(sitetest.Output)
	pooler.Stdout, pooler.Stderr = said, said
	scenario.Start(t, pooler)
	t.Cleanup(func() {
		_ = pooler.Process.Kill()
		_ = pooler.Wait()
		if t.Failed() {
			t.Logf("pgbouncer says:\n%s", said)
		}
	})
	sitetest.Eventually(t, "pgbouncer listens", func() bool {
		connection, err := net.Dial("tcp", net.JoinHostPort(host, port))
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	})
	docs, err := os.ReadFile("../docs/accounts.md")
	if err != nil {
		t.Fatal(err)
	}
	const options = "default_query_exec_mode=exec&statement_timeout=0"
	if !strings.Contains(string(docs), options) {
		t.Errorf("the docs do not have %s", options)
	}
	nodes := startNodes(t, 2, accountsOnly(
		"postgres://test@"+net.JoinHostPort(host, port)+"/pooled?sslmode=disable&"+options, "throttle off",
	))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			email := fmt.Sprintf("user%d@example.com", i)
			if status, body := nodes[i%2].send(
				"POST", "/auth/signup", "", sitetest.CredentialsOf(email),
			); status != 201 {
				t.Errorf("sign-up: %d %v", status, body)
			}
			if status, body := nodes[1-i%2].send(
				"POST", "/auth/login", "", sitetest.CredentialsOf(email),
			); status != 200 {
				t.Errorf("log-in: %d %v", status, body)
			}
		})
	}
	all.Wait()
	_, given := nodes[0].send("POST", "/auth/login", "", sitetest.CredentialsOf("user0@example.com"))
	token := given["token"].(string)
	if status, body := nodes[1].send("GET", "/todos/", token, nil); status != 200 {
		t.Fatalf("control: %d %v", status, body)
	}
	if status, body := nodes[0].send("POST", "/auth/logout", token, nil); status != 204 {
		t.Fatalf("log-out: %d %v", status, body)
	}
	sitetest.Eventually(t, "the other node refuses the token", func() bool {
		status, _ := nodes[1].send("GET", "/todos/", token, nil)
		return status == 401
	})
}
