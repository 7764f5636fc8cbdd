package scenarios_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// slowClient is a connection that sends a request one byte at a time, or only half of it.
type slowClient struct {
	net.Conn
	rest string
}

// slowClients is a fixed number of slow clients. If Caddy closes a connection, a new one replaces
// it.
type slowClients struct {
	address   string
	requests  []string
	closed    atomic.Int64 // by Caddy
	failed    atomic.Int64 // connections that could not be opened
	connected sync.WaitGroup
	stop      chan struct{}
	done      sync.WaitGroup
}

const slowPace = 5 * time.Second // between two bytes

// startSlowClients returns once all are connected.
func startSlowClients(address string, number int, requests ...string) *slowClients {
	c := &slowClients{address: address, requests: requests, stop: make(chan struct{})}
	const workers = 8
	for worker := range workers {
		c.connected.Add(1)
		c.done.Go(func() {
			clients := make([]slowClient, number/workers)
			for i := range clients {
				c.open(&clients[i], worker+i*workers)
			}
			c.connected.Done()
			pace := time.NewTicker(slowPace / time.Duration(len(clients)))
			defer pace.Stop()
			for i := 0; ; i = (i + 1) % len(clients) {
				select {
				case <-c.stop:
					for _, client := range clients {
						if client.Conn != nil {
							_ = client.Close()
						}
					}
					return
				case <-pace.C:
					c.step(&clients[i], worker+i*workers)
				}
			}
		})
	}
	c.connected.Wait()
	return c
}

func (c *slowClients) open(client *slowClient, number int) {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		c.failed.Add(1)
		client.Conn = nil
		return
	}
	request := c.requests[number%len(c.requests)]
	client.Conn, client.rest = conn, request
	if head, body, found := strings.Cut(request, "\r\n\r\n"); found && body != "" { // its body is slow
		_, _ = conn.Write([]byte(head + "\r\n\r\n"))
		client.rest = body
	}
}

func (c *slowClients) step(client *slowClient, number int) {
	if client.Conn == nil {
		c.open(client, number)
		return
	}
	if client.rest == "" { // half of a request was sent; is it still open?
		_ = client.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := client.Read(make([]byte, 512))
		if failure, ok := err.(net.Error); ok && failure.Timeout() {
			return
		}
	} else if _, err := client.Write([]byte(client.rest[:1])); err == nil {
		client.rest = client.rest[1:]
		return
	}
	c.closed.Add(1)
	_ = client.Close()
	c.open(client, number)
}

func (c *slowClients) finish() {
	close(c.stop)
	c.done.Wait()
}

// With thousands of slow clients and as many real log-ins, memory stays bounded and tokens are
// verified as before.
func TestScenarioSlowClients(t *testing.T) {
	seen := scenario.Promise(t, "memory bounded; p99 of verification < 50 ms; each real log-in gets its token")
	clients, logins := scenario.Length(200, 10_000), scenario.Length(100, 10_000)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if needed := uint64(clients + 500); limit.Max < needed {
		caddytest.Missing(t, fmt.Sprintf("%d open files, and the hard limit is %d (ulimit -Hn)", needed, limit.Max))
	} else if limit.Cur < needed {
		limit.Cur = limit.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	dir, address := sitetest.TempDir(t), sitetest.FreeAddress(t)
	body := sitetest.AccountsBody(filepath.Join(dir, "users.db"), "throttle off\n hash_queue 1000\n token_lifetime 2h")
	p := sitetest.StartProcess(t, dir, address, strings.ReplaceAll(body, "/todos/", "/api/"))
	users := max(2, logins/100) // a user has 100 sessions at most
	for i := range users {
		p.MustAnswer(
			201, p.Post("/auth/signup", sitetest.CredentialsOf(fmt.Sprintf("user%d@example.com", i))), "sign-up",
		)
	}
	token := p.SignedUp("steady@example.com").Token
	verification := []labelled{{"known token", token, 200}, {"bad token", token + "x", 401}}

	l := startLoad(p.Site, 100, verification...)
	time.Sleep(scenario.Length(time.Second, 20*time.Second))
	quiet, before := l.finish(t), p.Resident(t)

	// So long that none is complete before the real log-ins, whose passwords are hashed.
	login := sitetest.Marshal(t, sitetest.JSON{"email": "slow@example.com", "password": strings.Repeat("slow", 250)})
	slow := startSlowClients(address, clients,
		fmt.Sprintf(
			"POST /auth/login HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			address, len(login), login,
		),
		"GET /api/ HTTP/1.1\r\nHost: "+address+"\r\nAuthorization: Bearer "+token, // and no more
		"GET /a")
	held := p.Resident(t)
	l = startLoad(p.Site, 100, verification...)
	var next, answered, failed atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range 64 {
		all.Go(func() {
			for i := next.Add(1); i <= int64(logins); i = next.Add(1) {
				got := p.Post("/auth/login", sitetest.CredentialsOf(fmt.Sprintf("user%d@example.com", i%int64(users))))
				if got.Status == 200 {
					answered.Add(1)
				} else if failed.Add(1) == 1 {
					t.Errorf("log-in: %d %s", got.Status, got.Body)
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	peak := held
	for working := true; working; {
		select {
		case <-finished:
			working = false
		case <-time.After(100 * time.Millisecond):
		}
		peak = max(peak, p.Resident(t))
	}
	took := time.Since(began)
	pressed := l.finish(t)
	open := clients - int(slow.failed.Load())
	slow.finish()

	if slow.failed.Load() > 0 {
		t.Errorf("%d slow clients could not connect", slow.failed.Load())
	}
	// A waiting connection needs its buffers and a goroutine, and at most 64 KiB of a request are
	// read.
	if most := before + int64(clients)*64<<10 + 200<<20; peak > most {
		t.Errorf("memory came to %.0f MiB, more than %.0f", scenario.Mebibytes(peak), scenario.Mebibytes(most))
	}
	if scenario.Full() && pressed.p99 > 50*time.Millisecond {
		t.Errorf("the p99 of verification is %s", pressed.p99)
	}
	seen(
		"%d slow clients at once, %d closed by Caddy and begun again; "+
			"%d of %d log-ins answered by 200, in %s, argon2id at its default",
		open, slow.closed.Load(), answered.Load(), logins, took.Round(time.Second),
	)
	seen(
		"memory (RSS): %.0f MiB before, %.0f MiB with the slow clients, %.0f MiB at most with the log-ins: "+
			"%.1f KiB a slow client",
		scenario.Mebibytes(before), scenario.Mebibytes(held),
		scenario.Mebibytes(peak), float64(held-before)/1024/float64(clients),
	)
	seen("verification quiet: %s", quiet)
	seen("verification pressed: %s", pressed)
}
