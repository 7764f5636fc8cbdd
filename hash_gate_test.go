package caddyjwt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fillHashGate has all hashes run, and one log-in of a client wait, until it is told
// to stop.
func fillHashGate(t testing.TB, address string) (stop func()) {
	t.Helper()
	hashing.mu.Lock()
	slots := hashing.free
	hashing.free, hashing.running = 0, hashing.running+slots
	hashing.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	before := hashing.begun()
	waiting.Go(func() { _ = hashing.enter(ctx, hashTurn{1, "log-in", address}) })
	eventually(t, "somebody waits", func() bool { return hashing.begun() > before })
	return func() {
		cancel()
		waiting.Wait()
		for range slots {
			hashing.leave()
		}
	}
}

// Whoever waits is taken in turns, whatever the order of coming.
func TestHashGateTurns(t *testing.T) {
	g := &hashGate{free: 1}
	if err := g.enter(t.Context(), hashTurn{}); err != nil {
		t.Fatal(err)
	}
	var order []string
	var mu sync.Mutex
	var all sync.WaitGroup
	wait := func(what, client, name string, queue int) {
		t.Helper()
		before := g.begun()
		full := make(chan error, 1)
		all.Go(func() {
			err := g.enter(t.Context(), hashTurn{queue, what, client})
			full <- err
			if err != nil {
				return
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
			g.leave()
		})
		eventually(t, name+" waits", func() bool { return g.begun() > before || len(full) > 0 })
	}
	for i := range 3 {
		wait("sign-up", "192.0.2.1", fmt.Sprint("flood", i), 64)
	}
	wait("sign-up", "192.0.2.2", "beside it", 64)
	wait("sign-up", "198.51.100.1", "elsewhere", 64)
	wait("log-in", "2001:db8::1", "log-in", 64)
	g.leave()
	all.Wait()
	if want := []string{"flood0", "log-in", "elsewhere", "beside it", "flood1", "flood2"}; !slices.Equal(order, want) {
		t.Errorf("order %q, expected %q", order, want)
	}
	if g.begun() != 0 || g.free != 1 {
		t.Errorf("%d are counted, %d free", g.begun(), g.free)
	}
}

// A full queue loses the last of those who wait most, and a client has its share.
func TestHashGateIsFull(t *testing.T) {
	g := &hashGate{free: 1}
	if err := g.enter(t.Context(), hashTurn{}); err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 100)
	ctx, cancel := context.WithCancel(t.Context())
	enter := func(client string) {
		t.Helper()
		before, done := g.begun(), len(results)
		go func() { results <- g.enter(ctx, hashTurn{16, "log-in", client}) }()
		eventually(t, client+" waits or is told", func() bool { return g.begun() > before || len(results) > done })
	}
	for range 5 {
		enter("192.0.2.1")
	}
	if got := g.begun() - g.running; got != 2 || len(results) != 3 {
		t.Errorf("of one client %d wait, %d were told to go", got, len(results))
	}
	for i := range 40 {
		enter(fmt.Sprintf("2001:db8:0:%x::1", i)) // of one owner
	}
	told := len(results)
	for i := range 5 {
		enter(fmt.Sprintf("198.51.%d.1", i))
	}
	if g.queue.size != 16 || len(results) != told+5 {
		t.Errorf("%d wait; %d left", g.queue.size, len(results)-told)
	}
	for i := range 5 {
		if g.queue.of([]string{"log-in", fmt.Sprintf("198.51.%d", i)}) != 1 {
			t.Errorf("the client of network %d does not wait", i)
		}
	}
	waiting := g.queue.size
	cancel()
	for range told + 5 + waiting {
		if err := <-results; !errors.Is(err, errHashQueueFull) && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	g.leave()
	if g.begun() != 0 || g.free != 1 {
		t.Errorf("%d are counted, %d free", g.begun(), g.free)
	}
}

// Whoever has others wait for hashes, from one address or many, holds up no log-in
// from another one.
func TestScenarioHashFlood(t *testing.T) {
	s := serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+accountsBody(filepath.Join(tempDir(t), "users.db"), "signup open"))
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	s.mustAnswer(201, s.post("/auth/signup", credentialsOf("alice@example.com"), from("198.51.100.7")), "sign-up")
	one := func(int) string { return "203.0.113.1" }
	for _, flood := range []struct {
		name    string
		address func(i int) string
		path    string
	}{
		{"sign-ups of one address", one, "/auth/signup"},
		{"sign-ups of a /24", func(i int) string { return fmt.Sprint("203.0.113.", i%250) }, "/auth/signup"},
		{"sign-ups of a /48", func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i%0x10000) }, "/auth/signup"},
		{"sign-ups of many networks", func(i int) string { return fmt.Sprintf("10.%d.%d.1", i/250%250, i%250) }, "/auth/signup"},
		{"log-ins of a /24", func(i int) string { return fmt.Sprint("203.0.113.", i%250) }, "/auth/login"},
		{"log-ins of a /48", func(i int) string { return fmt.Sprintf("2001:db8:2:%x::1", i%0x10000) }, "/auth/login"},
	} {
		t.Run(flood.name, func(t *testing.T) {
			s.t = t
			var next, answered atomic.Int64
			var stop atomic.Bool
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					for !stop.Load() {
						i := int(next.Add(1))
						email := fmt.Sprintf("%s%d@flood.example", strings.ReplaceAll(flood.name, " ", ""), i)
						s.post(flood.path, credentialsOf(email), from(flood.address(i)))
						answered.Add(1)
					}
				})
			}
			eventually(t, "the flood has come", func() bool { return answered.Load() > 100 && hashing.begun() > 0 })
			var longest time.Duration
			for range 15 {
				began := time.Now()
				s.mustAnswer(200, s.post("/auth/login", credentialsOf("alice@example.com"), from("198.51.100.7")), "log-in")
				longest = max(longest, time.Since(began))
			}
			stop.Store(true)
			all.Wait()
			t.Logf("of 15 log-ins the longest took %s, beside %d requests", longest.Round(time.Millisecond), answered.Load())
		})
	}
	s.t = t
}

// What a right password used of the attempts it gives back, so that guesses of
// others lock nobody out who logs in often.
func TestThreatRightLogInsSpendNothing(t *testing.T) {
	s := serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+accountsBody(filepath.Join(tempDir(t), "users.db"), "signup open"))
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	s.mustAnswer(201, s.post("/auth/signup", credentialsOf("alice@example.com"), from("10.20.0.1")), "sign-up")
	s.mustAnswer(200, s.post("/auth/login", credentialsOf("alice@example.com"), from("10.20.0.1")), "at home")
	wrong := claimsMap{"email": "alice@example.com", "password": "wrong password"}
	for range 10 {
		s.mustAnswer(401, s.post("/auth/login", wrong, from("203.0.113.1")), "a guess")
	}
	for range 2*defaultThrottleFailures + 1 {
		s.mustAnswer(200, s.post("/auth/login", credentialsOf("alice@example.com"), from("10.20.0.1")), "at home, where somebody has logged in")
	}
	for i := range 2 * strangerTries { // of networks of their own, so that each is a stranger
		s.mustAnswer(200, s.post("/auth/login", credentialsOf("alice@example.com"), from("10.30.0.1")), fmt.Sprint("at a new address, ", i))
	}
	// Of all strangers together, too.
	service, now := serviceOf(t), time.Now()
	for i := range 2 * sparedFactor * defaultThrottleFailures {
		used, allowed := service.spares(t.Context(), User{}, "bob@example.com", clientInfo{address: fmt.Sprint("10.40.", i/250, ".", i%250)}, now)
		if !allowed {
			t.Fatalf("stranger %d", i)
		}
		for _, a := range used {
			a.forgive()
		}
	}
	// Control: wrong ones are spent.
	for range strangerTries {
		s.mustAnswer(429, s.post("/auth/login", wrong, from("203.0.113.9")), "a wrong guess of a stranger")
	}
	s.mustAnswer(429, s.post("/auth/login", credentialsOf("alice@example.com"), from("203.0.113.9")), "a right guess after too many")
}

// A client asks for few addresses in a minute whether they are taken.
func TestThreatSignUpOracle(t *testing.T) {
	s := serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+accountsBody(filepath.Join(tempDir(t), "users.db"), "signup open"))
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	s.mustAnswer(201, s.post("/auth/signup", credentialsOf("alice@example.com"), from("192.0.2.1")), "sign-up")
	s.mustAnswer(409, s.post("/auth/signup", credentialsOf("alice@example.com"), from("2001:db8::1")), "control: the first question")
	for range clientFailuresPerMinute - 1 { // at once, since time gives some back
		serviceOf(t).refusedSignups.begin(t.Context(), clientKey("2001:db8::2"), time.Now())
	}
	got := s.post("/auth/signup", credentialsOf("alice@example.com"), from("2001:db8::3"))
	s.mustAnswer(429, got, "31st of a client, by its /64")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.mustAnswer(429, s.post("/auth/signup", credentialsOf("nobody@example.com"), from("2001:db8::4")), "of an address that is free the same")
	s.mustAnswer(409, s.post("/auth/signup", credentialsOf("alice@example.com"), from("192.0.2.9")), "control: another client")
	for i := range 3 {
		s.mustAnswer(201, s.post("/auth/signup", credentialsOf(fmt.Sprintf("new%d@example.com", i)), from("192.0.2.9")), "control: sign-ups that succeed")
	}
	limiter, _ := serviceOf(t).refusedSignups.counts.GetIfPresent(clientKey("192.0.2.9"))
	if left := limiter.Tokens(); left < clientFailuresPerMinute-2 {
		t.Errorf("sign-ups that succeeded are counted: %v left", left)
	}
}
