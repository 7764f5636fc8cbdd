package postgres

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
)

const goodPassword = "correct horse battery"

// node is a Caddy of its own.
type node struct {
	t   *testing.T
	url string
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// startNodes runs Caddys that share a database and a storage.
func startNodes(t *testing.T, dsn string, number int) (nodes []*node) {
	t.Helper()
	dir := t.TempDir()
	binary, err := caddyBinary()
	if err != nil {
		t.Fatal(err)
	}
	for i := range number {
		n := &node{t, "http://" + freeAddress(t)}
		config := filepath.Join(dir, fmt.Sprintf("Caddyfile-%d", i))
		text := fmt.Sprintf("{\n admin off\n auto_https off\n storage file_system %s\n}\n%s {\n jwt /todos/* {\n accounts {\n store postgres %q\n throttle off\n hash_queue 1000\n}\n}\n respond /todos/* ok\n}\n", filepath.Join(dir, "storage"), n.url, dsn)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.Command(binary, "run", "--config", config)
		var output bytes.Buffer
		command.Stdout, command.Stderr = &output, &output
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = command.Process.Signal(syscall.SIGTERM)
			_ = command.Wait()
			if t.Failed() {
				t.Logf("a node says:\n%s", output.String())
			}
		})
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		eventually(t, "a node answers", func() bool {
			response, err := http.Get(n.url + "/auth/jwks.json")
			if err == nil {
				_ = response.Body.Close()
			}
			return err == nil && response.StatusCode == 200
		})
	}
	return nodes
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if holds() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it never came true: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (n *node) send(method, path, token string, body any) (status int, object map[string]any) {
	n.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		n.t.Fatal(err)
	}
	request, err := http.NewRequest(method, n.url+path, bytes.NewReader(text))
	if err != nil {
		n.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		n.t.Error(err)
		return 0, nil
	}
	defer response.Body.Close()
	_ = json.NewDecoder(response.Body).Decode(&object)
	return response.StatusCode, object
}

func credentials(email string) map[string]string {
	return map[string]string{"email": email, "password": goodPassword}
}

// Two nodes on one database behave as one.
func TestScenarioTwoNodes(t *testing.T) {
	seen := scenario.Promise(t, "one of many sign-ups of an address is made, one of many uses of a refresh token succeeds; a log-out is known at the other node within 1 s")
	s := start(t)
	nodes := startNodes(t, s.database("two_nodes"), 2)
	a, b := nodes[0], nodes[1]

	var all sync.WaitGroup
	var made, taken atomic.Int64
	for i := range 20 {
		all.Go(func() {
			switch status, body := nodes[i%2].send("POST", "/auth/signup", "", credentials("alice@example.com")); status {
			case 201:
				made.Add(1)
			case 409:
				taken.Add(1)
			default:
				t.Errorf("sign-up: %d %v", status, body)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 || taken.Load() != 19 {
		t.Errorf("of 20 sign-ups of one address %d were made and %d refused", made.Load(), taken.Load())
	}

	_, given := a.send("POST", "/auth/login", "", credentials("alice@example.com"))
	token := given["token"].(string)
	for name, n := range map[string]*node{"its own": a, "the other": b} {
		if status, body := n.send("GET", "/todos/", token, nil); status != 200 {
			t.Errorf("a token at %s node: %d %v", name, status, body)
		}
	}

	var rotated atomic.Int64
	for i := range 40 {
		all.Go(func() {
			if status, _ := nodes[i%2].send("POST", "/auth/refresh", "", map[string]any{"refreshToken": given["refreshToken"]}); status == 200 {
				rotated.Add(1)
			}
		})
	}
	all.Wait()
	if rotated.Load() != 1 {
		t.Errorf("%d of 40 uses of a refresh token succeeded", rotated.Load())
	}

	_, given = a.send("POST", "/auth/login", "", credentials("alice@example.com"))
	token = given["token"].(string)
	if status, _ := b.send("GET", "/todos/", token, nil); status != 200 { // remembered there
		t.Fatalf("control: %d", status)
	}
	if status, _ := a.send("POST", "/auth/logout", token, nil); status != 204 {
		t.Fatalf("log-out: %d", status)
	}
	if status, _ := a.send("GET", "/todos/", token, nil); status != 401 {
		t.Errorf("after the log-out at the same node: %d", status)
	}
	ended := time.Now()
	eventually(t, "the other node refuses it", func() bool { status, _ := b.send("GET", "/todos/", token, nil); return status == 401 })
	if took := time.Since(ended); took > time.Second {
		t.Errorf("the other node took %s", took)
	}
	seen("%d of 20 sign-ups made, %d of 40 refreshes succeeded; the log-out known after %s", made.Load(), rotated.Load(), time.Since(ended).Round(time.Millisecond))
}

// While the database is away, tokens are verified and log-ins answered by 503;
// when it is back, all goes on.
func TestDatabaseAway(t *testing.T) {
	s := start(t)
	n := startNodes(t, s.database("away"), 1)[0]
	if status, body := n.send("POST", "/auth/signup", "", credentials("alice@example.com")); status != 201 {
		t.Fatalf("%d %v", status, body)
	}
	_, given := n.send("POST", "/auth/login", "", credentials("alice@example.com"))
	token := given["token"].(string)
	s.run("pg_ctl", "-D", s.dir+"/data", "-m", "immediate", "stop")
	if status, body := n.send("POST", "/auth/login", "", credentials("alice@example.com")); status != 503 || !strings.Contains(fmt.Sprint(body), "store_unavailable") {
		t.Errorf("log-in without a database: %d %v", status, body)
	}
	for range 50 {
		if status, body := n.send("GET", "/todos/", token, nil); status != 200 {
			t.Fatalf("verification without a database: %d %v", status, body)
		}
	}
	s.begin()
	back := time.Now()
	eventually(t, "log-ins go on", func() bool {
		status, _ := n.send("POST", "/auth/login", "", credentials("alice@example.com"))
		return status == 200
	})
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("it took %s to go on", took)
	}
}
