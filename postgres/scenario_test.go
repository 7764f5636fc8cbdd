package postgres_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// answerLimit is how long a request may hang before it counts as one without a response.
const answerLimit = 30 * time.Second

// pressure is a load on a node: a token that is verified constantly, and sign-ups of new users.
type pressure struct {
	n    *node
	stop chan struct{}
	all  sync.WaitGroup

	verified, refused  atomic.Int64
	mu                 sync.Mutex
	acknowledged       []string
	unavailable, other int
	slowest            time.Duration // of the sign-ups that were answered by 503
}

var pressureClient = &http.Client{Timeout: answerLimit, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// ask returns the status of a response, 0 if there is none.
func (n *node) ask(method, path, token string, body any) (status int, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequest(method, n.URL+path, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := pressureClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

func press(n *node, token string) *pressure {
	p := &pressure{n: n, stop: make(chan struct{})}
	for range 2 {
		p.all.Go(func() {
			for p.paced(5 * time.Millisecond) {
				status, err := n.ask("GET", "/todos/", token, nil)
				if status == 200 {
					p.verified.Add(1)
				} else if p.refused.Add(1) == 1 {
					n.T.Errorf("verification: %d %v", status, err)
				}
			}
		})
	}
	for worker := range 4 {
		p.all.Go(func() {
			for i := 0; p.paced(20 * time.Millisecond); i++ {
				email := fmt.Sprintf("user-%d-%d@example.com", worker, i)
				began := time.Now()
				status, err := n.ask("POST", "/auth/signup", "", sitetest.CredentialsOf(email))
				p.count(email, status, time.Since(began), err)
			}
		})
	}
	return p
}

func (p *pressure) paced(pause time.Duration) bool {
	select {
	case <-p.stop:
		return false
	case <-time.After(pause):
		return true
	}
}

func (p *pressure) count(email string, status int, took time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch status {
	case 201:
		p.acknowledged = append(p.acknowledged, email)
	case 503:
		p.unavailable++
		p.slowest = max(p.slowest, took)
	default:
		if p.other++; p.other == 1 {
			p.n.T.Errorf("sign-up: %d %v", status, err)
		}
	}
}

func (p *pressure) signedUp() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.acknowledged)
}

func (p *pressure) answeredUnavailable() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unavailable
}

// finish ends the load, looks up each acknowledged user in the database, and reports the results.
func (p *pressure) finish(t *testing.T, dsn string, seen func(string, ...any)) {
	t.Helper()
	close(p.stop)
	p.all.Wait()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	lost := 0
	for _, email := range p.acknowledged {
		var found int
		if err := db.QueryRow(`SELECT count(*) FROM users WHERE email_key = $1`, email).Scan(&found); err != nil ||
			found != 1 {
			t.Errorf("%s stands %d times in the database, %v", email, found, err)
			lost++
		}
	}
	var doubled int
	if err := db.QueryRow(`SELECT count(*) - count(DISTINCT email_key) FROM users`).Scan(&doubled); err != nil ||
		doubled != 0 {
		t.Errorf("%d users are doubled, %v", doubled, err)
	}
	seen("%d tokens verified, %d errors", p.verified.Load(), p.refused.Load())
	seen("sign-ups: %d × 201, %d × 503, the slowest of these after %s, %d otherwise; %d acknowledged lost, %d doubled",
		len(p.acknowledged), p.unavailable, p.slowest.Round(time.Millisecond), p.other, lost, doubled)
}

// recovery polls until something works again, and reports how long that took. It asserts its limit
// only at full length, because a busy machine is slow.
func recovery(t *testing.T, since time.Time, what string, holds func() bool) time.Duration {
	t.Helper()
	sitetest.Eventually(t, what, holds)
	took := time.Since(since)
	if scenario.Full() && took > 5*time.Second {
		t.Errorf("%s after %s", what, took)
	}
	return took
}

// begun returns a node with a user, and the user's token.
func begun(t *testing.T, dsn string) (n *node, token string) {
	t.Helper()
	n = startNodes(t, 1, accountsOnly(dsn, "throttle off"))[0]
	if status, body := n.send("POST", "/auth/signup", "", sitetest.CredentialsOf("alice@example.com")); status != 201 {
		t.Fatalf("%d %v", status, body)
	}
	return n, loggedIn(t, n)
}

func loggedIn(t *testing.T, n *node) string {
	t.Helper()
	status, given := n.send("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
	token, ok := given["token"].(string)
	if !ok {
		t.Fatalf("%d %v", status, given)
	}
	return token
}

// PostgreSQL crashes and starts again, many times, under load.
func TestScenarioDatabaseRestarts(t *testing.T) {
	seen := scenario.Promise(
		t, "verification 0 errors; sign-ups 201 or 503, none doubled, none acknowledged lost; recovers in ≤ 5 s",
	)
	s := start(t)
	dsn := s.database("restarts_under_load")
	n, token := begun(t, dsn)
	p := press(n, token)
	restarts := scenario.Length(4, 20)
	var slowest time.Duration
	for range restarts {
		before := p.signedUp()
		sitetest.Eventually(t, "some have signed up", func() bool { return p.signedUp() >= before+5 })
		s.restart()
		back, before := time.Now(), p.signedUp()
		slowest = max(slowest, recovery(t, back, "sign-ups go on", func() bool { return p.signedUp() > before }))
	}
	p.finish(t, dsn, seen)
	seen("%d × pg_ctl restart -m immediate; the slowest recovery %s", restarts, slowest.Round(time.Millisecond))
}

// network is a network namespace and the link to it.
type network struct {
	t                         *testing.T
	name, outside, inside     string
	outsideAddress, pgAddress string
}

func (w *network) ip(words ...string) error {
	output, err := exec.Command("ip", words...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w %s", strings.Join(words, " "), err, output)
	}
	return nil
}

func (w *network) must(words ...string) {
	w.t.Helper()
	if err := w.ip(words...); err != nil {
		w.t.Fatal(err)
	}
}

// newNetwork creates a network namespace with a link into it. Its addresses come from the range for
// network tests (RFC 2544).
func newNetwork(t *testing.T) *network {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		caddytest.Missing(t, "ip, of the package iproute2")
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		caddytest.Missing(t, "setpriv, of the package util-linux")
	}
	pid := os.Getpid()
	net := fmt.Sprintf("198.18.%d.", pid/64%256)
	w := &network{
		t: t, name: fmt.Sprintf("caddy-jwt-%d", pid),
		outside: fmt.Sprintf("cj%da", pid), inside: fmt.Sprintf("cj%db", pid),
		outsideAddress: net + strconv.Itoa(pid%64*4+1), pgAddress: net + strconv.Itoa(pid%64*4+2),
	}
	if err := w.ip("netns", "add", w.name); err != nil {
		caddytest.Missing(t, "leave to make a network namespace: "+err.Error())
	}
	scenario.Ends(t, `ip netns delete "$1" 2>/dev/null`, w.name)
	t.Cleanup(func() {
		if err := w.ip("netns", "delete", w.name); err != nil { // the link goes with it
			t.Error(err)
		}
	})
	if err := w.ip("link", "add", w.outside, "type", "veth", "peer", "name", w.inside, "netns", w.name); err != nil {
		caddytest.Missing(t, "leave to make a veth link: "+err.Error())
	}
	w.must("-n", w.name, "link", "set", w.inside, "address", "02:00:00:00:00:02")
	w.must("address", "add", w.outsideAddress+"/30", "dev", w.outside)
	w.must("-n", w.name, "address", "add", w.pgAddress+"/30", "dev", w.inside)
	w.must("link", "set", w.outside, "up")
	w.must("-n", w.name, "link", "set", "lo", "up")
	w.connect()
	// Without ARP requests, packets vanish on a link that is down, and no error says that the
	// host is unreachable.
	w.must("neighbour", "replace", w.pgAddress, "lladdr", "02:00:00:00:00:02", "dev", w.outside, "nud", "permanent")
	return w
}

func (w *network) cut()     { w.t.Helper(); w.must("-n", w.name, "link", "set", w.inside, "down") }
func (w *network) connect() { w.t.Helper(); w.must("-n", w.name, "link", "set", w.inside, "up") }

// moveTo runs PostgreSQL in the network, where it listens.
func (s *server) moveTo(w *network) {
	s.t.Helper()
	s.run("pg_ctl", "-D", s.dir+"/data", "-m", "fast", "-w", "stop")
	file, err := os.OpenFile(s.dir+"/data/pg_hba.conf", os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(file, "\nhost all all %s/32 trust\n", w.outsideAddress)
		_ = file.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.listen = w.pgAddress
	s.wrap = []string{"ip", "netns", "exec", w.name}
	if s.attr != nil {
		s.wrap = append(
			s.wrap, "setpriv", fmt.Sprint("--reuid=", s.attr.Credential.Uid),
			fmt.Sprint("--regid=", s.attr.Credential.Gid), "--clear-groups",
		)
	}
	s.begin()
}

// PostgreSQL is cut off: nothing refuses a connection, packets just vanish.
func TestScenarioDatabaseCutOff(t *testing.T) {
	seen := scenario.Promise(t, "verification 0 errors; log-ins and sign-ups 503 within a bounded time; "+
		"what is revoked elsewhere is known after; recovers in ≤ 5 s")
	w := newNetwork(t)
	s := start(t)
	s.moveTo(w)
	local := s.database("cut_off") // by the socket, which is not cut
	dsn := strings.Replace(local, "host="+s.dir, "host="+w.pgAddress, 1)
	if !scenario.Full() {
		dsn += " connect_timeout=2 statement_timeout=1000"
	}
	n, token := begun(t, dsn)
	revoked := loggedIn(t, n)
	elsewhere := open(t, local)
	user, err := elsewhere.UserByEmail(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := elsewhere.Sessions(t.Context(), user.ID, time.Now())
	if err != nil || len(sessions) != 2 { // the newest is the first
		t.Fatal(len(sessions), err)
	}

	p := press(n, token)
	for range scenario.Length(1, 3) {
		before := p.signedUp()
		sitetest.Eventually(t, "some have signed up", func() bool { return p.signedUp() >= before+5 })
		w.cut()
		began, failed := time.Now(), p.answeredUnavailable()
		if status, err := n.ask("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com")); status != 503 {
			t.Errorf("log-in while cut off: %d %v", status, err)
		}
		seen("cut off: a log-in is answered by 503 after %s", time.Since(began).Round(time.Millisecond))
		sitetest.Eventually(t, "sign-ups are answered", func() bool { return p.answeredUnavailable() >= failed+4 })
		if revoked != "" {
			if status, err := n.ask("GET", "/todos/", revoked, nil); status != 200 {
				t.Fatalf("control: %d %v", status, err)
			}
			if _, err := elsewhere.EndSessions(t.Context(), user.ID, sessions[0].ID, "", time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		w.connect()
		back := time.Now()
		login := recovery(t, back, "log-ins go on", func() bool {
			status, _ := n.ask("POST", "/auth/login", "", sitetest.CredentialsOf("alice@example.com"))
			return status == 200
		})
		seen("back: a log-in after %s", login.Round(time.Millisecond))
		if revoked != "" {
			known := recovery(t, back, "what was revoked elsewhere is known", func() bool {
				status, _ := n.ask("GET", "/todos/", revoked, nil)
				return status == 401
			})
			seen("what was revoked elsewhere is known after %s", known.Round(time.Millisecond))
			revoked = ""
		}
	}
	p.finish(t, local, seen)
}
