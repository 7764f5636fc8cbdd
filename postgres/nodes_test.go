package postgres_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// node is a separate Caddy process that shares its storage with others.
type node struct {
	*sitetest.Process
	from string // address of the client; empty for this machine's
}

// accountsOnly returns a site with accounts in the database.
func accountsOnly(dsn, more string) string {
	return fmt.Sprintf("jwt /todos/* {\n accounts {\n signup open\n store postgres %q\n hash_queue 1000\n%s\n}\n}\n"+
		" respond /todos/* ok", dsn, more)
}

// startNodes runs several Caddys with the same site and storage.
func startNodes(t *testing.T, number int, site string) (nodes []*node) {
	t.Helper()
	dir := t.TempDir()
	for i := range number {
		n := newNode(t, dir, fmt.Sprint(i), site)
		n.Start()
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.mustAnswer()
	}
	return nodes
}

// newNode returns a Caddy that does not run yet. The folder has its config and the storage of all
// nodes.
func newNode(t *testing.T, dir, name, site string) *node {
	t.Helper()
	return &node{Process: sitetest.NewProcess(
		t, dir, "-"+name, sitetest.FreeAddress(t), "servers {\n trusted_proxies static private_ranges\n}", site,
	)}
}

func (n *node) mustAnswer() {
	n.T.Helper()
	n.AwaitAnswer(func(status int) bool { return status != 503 })
}

// send sends JSON, with a token if there is one.
func (n *node) send(method, path, token string, body any) (status int, object map[string]any) {
	n.T.Helper()
	headers := []string{"Content-Type: application/json"}
	if n.from != "" {
		headers = append(headers, "X-Forwarded-For: "+n.from)
	}
	if token != "" {
		headers = append(headers, "Authorization: Bearer "+token)
	}
	got := n.Send(method, path, sitetest.Marshal(n.T, body), headers...)
	_ = json.Unmarshal([]byte(got.Body), &object)
	return got.Status, object
}

// Two nodes on one database behave as one.
func TestScenarioTwoNodes(t *testing.T) {
	seen := scenario.Promise(t, "one of many sign-ups of an address is made, many uses of a refresh token give one "+
		"successor; a log-out is known at the other node within 1 s")
	s := start(t)
	nodes := startNodes(t, 2, accountsOnly(s.database("two_nodes"), "throttle off"))
	a, b := nodes[0], nodes[1]

	var all sync.WaitGroup
	var made, taken atomic.Int64
	for i := range 20 {
		all.Go(func() {
			switch status, body := nodes[i%2].send(
				"POST", "/auth/signup", "", sitetest.CredentialsOf("alice@example.com"),
			); status {
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

	_, given := a.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
	token := given["token"].(string)
	for name, n := range map[string]*node{"its own": a, "the other": b} {
		if status, body := n.send("GET", "/todos/", token, nil); status != 200 {
			t.Errorf("a token at %s node: %d %v", name, status, body)
		}
	}

	var mu sync.Mutex
	successors := make(map[any]int)
	for i := range 40 {
		all.Go(func() {
			status, got := nodes[i%2].send("POST", "/auth/refresh", "", map[string]any{
				"refreshToken": given["refreshToken"],
			})
			if status != 200 {
				t.Errorf("refresh: %d %v", status, got)
			}
			mu.Lock()
			defer mu.Unlock()
			successors[got["refreshToken"]]++
		})
	}
	all.Wait()
	if len(successors) != 1 {
		t.Errorf("40 uses of a refresh token gave %d successors", len(successors))
	}
	for successor := range successors {
		if status, body := b.send(
			"POST", "/auth/refresh", "", map[string]any{"refreshToken": successor},
		); status != 200 {
			t.Errorf("the successor: %d %v", status, body)
		}
	}
	if status, _ := a.send("POST", "/auth/refresh", "", map[string]any{
		"refreshToken": given["refreshToken"],
	}); status != 401 {
		t.Errorf("a refresh token whose successor was used: %d", status)
	}

	_, given = a.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
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
	loggedOut := refusedBy(t, "a log-out", token, b)

	_, given = a.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
	token = given["token"].(string)
	a.Command("user", "disable", "--yes", "alice@example.com")
	disabled := refusedBy(t, "disabling the user", token, a, b)
	if status, _ := b.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com")); status != 401 {
		t.Errorf("a disabled user logs in: %d", status)
	}
	seen(
		"%d of 20 sign-ups made; 40 refreshes gave %d successor; a log-out known after %s, a disabled user after %s",
		made.Load(), len(successors), loggedOut, disabled,
	)
}

// refusedBy waits until nodes refuse a token, and returns how long that took.
func refusedBy(t *testing.T, after, token string, nodes ...*node) time.Duration {
	t.Helper()
	since := time.Now()
	for _, n := range nodes {
		sitetest.Eventually(t, "a node refuses the token after "+after, func() bool {
			status, _ := n.send("GET", "/todos/", token, nil)
			return status == 401
		})
	}
	took := time.Since(since).Round(time.Millisecond)
	t.Logf("after %s all nodes refuse the token within %s", after, took)
	if scenario.Full() && took > time.Second {
		t.Errorf("after %s it took %s until all nodes refuse the token, more than a second", after, took)
	}
	return took
}

// Guesses are counted at all nodes together.
func TestTwoNodesThrottle(t *testing.T) {
	s := start(t)
	nodes := startNodes(t, 2, accountsOnly(s.database("throttle"), "throttle 5 15m"))
	if status, _ := nodes[0].send(
		"POST", "/auth/signup", "", sitetest.CredentialsOf("alice@example.com"),
	); status != 201 {
		t.Fatal(status)
	}
	at := func(i int, address string) *node {
		n := *nodes[i%2]
		n.from = address
		return &n
	}
	home := "198.51.100.1"
	for i := range 12 { // a right password forgives, at both
		if status, body := at(i, home).send(
			"POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"),
		); status != 200 {
			t.Fatalf("control: %d %v", status, body)
		}
	}
	guess := func(i int, address string) (status int) {
		status, _ = at(i, address).send("POST", "/auth/login", "", map[string]string{
			"email": "alice@example.com", "password": "a wrong password",
		})
		return status
	}
	var all sync.WaitGroup
	var wrong, throttled atomic.Int64
	for i := range 20 {
		all.Go(func() {
			switch status := guess(i, "203.0.113.1"); status {
			case 401:
				wrong.Add(1)
			case 429:
				throttled.Add(1)
			default:
				t.Errorf("a guess: %d", status)
			}
		})
	}
	all.Wait()
	if wrong.Load() != 5 || throttled.Load() != 15 {
		t.Errorf(
			"of 20 guesses at two nodes %d were made and %d throttled; 5 may be made", wrong.Load(), throttled.Load(),
		)
	}
	// Guesses from everywhere do not lock her out either: both nodes know from her sessions where
	// she was before.
	for i := range 100 { // more than allowed, because some are allowed again over time
		if status := guess(i, fmt.Sprint("203.0.113.", 10+i/2)); status != 429 {
			t.Fatalf("a guess of another address: %d", status)
		}
	}
	if status, _ := at(0, "192.0.2.1").send(
		"POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"),
	); status != 429 {
		t.Errorf("control: the right password of a stranger: %d", status)
	}
	for i := range 2 {
		if status, body := at(i, home).send(
			"POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"),
		); status != 200 {
			t.Errorf("alice is locked out at node %d: %d %v", i, status, body)
		}
	}
}

// After one node's command, the new signing key and the previous one verify tokens at all nodes,
// and at a service that has the keys from either node and only fetches again after its cooldown.
func TestTwoNodesRotateKeys(t *testing.T) {
	s := start(t)
	nodes := startNodes(t, 2, accountsOnly(s.database("rotate"), "throttle off"))
	a, b := nodes[0], nodes[1]
	var verifiers []*node
	for i, n := range []*node{a, b} {
		outside := newNode(
			t, t.TempDir(), fmt.Sprint("outside", i), "jwt {\n issuer caddy-jwt-accounts {\n token_type at+jwt\n jwks "+
				n.URL+"/auth/jwks.json {\n cooldown 10m\n}\n}\n}\n respond ok",
		)
		outside.Start()
		outside.mustAnswer()
		verifiers = append(verifiers, outside)
	}
	verifiers = append(verifiers, nodes...) // last, because a node learns of a key from requests
	if status, _ := a.send("POST", "/auth/signup", "", sitetest.CredentialsOf("alice@example.com")); status != 201 {
		t.Fatal(status)
	}
	logIn := func(n *node) string {
		t.Helper()
		status, given := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
		if status != 200 {
			t.Fatalf("log-in: %d %v", status, given)
		}
		return given["token"].(string)
	}
	tokens := []string{logIn(a), logIn(b)}
	keyOf := func(token string) string { header, _, _ := strings.Cut(token, "."); return header }
	if keyOf(tokens[0]) != keyOf(tokens[1]) {
		t.Error("control: two nodes sign with two keys")
	}
	for range scenario.Length(1, 3) {
		before := keyOf(tokens[len(tokens)-1])
		a.Command("keys", "rotate", "--lead", "20s") // more than it takes until both nodes publish it
		for _, n := range nodes {
			sitetest.Eventually(t, "a node signs with the new key", func() bool {
				token := logIn(n)
				tokens = append(tokens, token)
				for _, token := range tokens { // at any moment, at any node
					for i, n := range verifiers {
						if status, body := n.send("GET", "/todos/", token, nil); status != 200 {
							t.Fatalf("verifier %d refuses a token: %d %v", i, status, body)
						}
					}
				}
				tokens = tokens[max(0, len(tokens)-4):]
				return keyOf(token) != before
			})
		}
	}
}

// While the database is unavailable, tokens are verified and the response to log-ins is 503. When
// it is back, everything works again.
func TestDatabaseAway(t *testing.T) {
	s := start(t)
	n := startNodes(t, 1, accountsOnly(s.database("away"), "throttle off"))[0]
	if status, body := n.send("POST", "/auth/signup", "", sitetest.CredentialsOf("alice@example.com")); status != 201 {
		t.Fatalf("%d %v", status, body)
	}
	_, given := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
	token := given["token"].(string)
	s.run("pg_ctl", "-D", s.dir+"/data", "-m", "immediate", "stop")
	if status, body := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com")); status != 503 ||
		!strings.Contains(fmt.Sprint(body), "store_unavailable") {
		t.Errorf("log-in without a database: %d %v", status, body)
	}
	for range 50 {
		if status, body := n.send("GET", "/todos/", token, nil); status != 200 {
			t.Fatalf("verification without a database: %d %v", status, body)
		}
	}
	s.begin()
	back := time.Now()
	sitetest.Eventually(t, "log-ins go on", func() bool {
		status, _ := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
		return status == 200
	})
	t.Logf("log-ins went on %s after the database", time.Since(back).Round(time.Millisecond))
}

// without is a proxy for a database that does not know these words.
func (s *server) without(words ...string) (address string) {
	s.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			database, err := net.Dial("unix", s.dir+"/.s.PGSQL.5432")
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(client, database)
				_ = client.Close()
			}()
			go func() {
				defer database.Close()
				message := make([]byte, 64<<10)
				for {
					n, err := client.Read(message)
					if err != nil {
						return
					}
					text := message[:n]
					for _, word := range words {
						text = bytes.ReplaceAll(text, []byte(word+" "), []byte(strings.Repeat("X", len(word))+" "))
					}
					if _, err := database.Write(text); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// If the database does not support notifications, the nodes poll, and all of them still learn of a
// log-out.
func TestTwoNodesWithoutNotify(t *testing.T) {
	s := start(t)
	s.database("silent")
	host, port, _ := net.SplitHostPort(s.without("LISTEN", "NOTIFY"))
	nodes := startNodes(
		t, 2, accountsOnly("host="+host+" port="+port+" user=test dbname=silent sslmode=disable", "throttle off"),
	)
	if status, body := nodes[0].send(
		"POST", "/auth/signup", "", sitetest.CredentialsOf("alice@example.com"),
	); status != 201 {
		t.Fatalf("%d %v", status, body)
	}
	for range 3 {
		_, given := nodes[0].send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
		token := given["token"].(string)
		for _, n := range nodes {
			if status, _ := n.send("GET", "/todos/", token, nil); status != 200 {
				t.Fatalf("control: %d", status)
			}
		}
		if status, _ := nodes[0].send("POST", "/auth/logout", token, nil); status != 204 {
			t.Fatalf("log-out: %d", status)
		}
		refusedBy(t, "a log-out", token, nodes...)
	}
	sitetest.Eventually(t, "a node says that it has to ask", func() bool {
		return strings.Contains(nodes[0].Log(), "database cannot notify of ended sessions; polling it instead")
	})
}
