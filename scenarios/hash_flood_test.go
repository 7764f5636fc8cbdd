package scenarios_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2"
)

// A log-in goes before those of strangers if its address has logged in to the account before,
// also after a restart if the session is still active. Nothing else reveals whether the user
// exists.
func TestThreatFamiliarLogInsGoFirst(t *testing.T) {
	s := sitetest.Serve(t, "respond ok")
	dir := sitetest.TempDir(t)
	load := func() {
		t.Helper()
		s.Load(`servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+sitetest.AccountsBody(filepath.Join(dir, "users.db"), "signup open\n hash_queue 1"), dir)
	}
	restart := func() {
		t.Helper()
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		load()
	}
	load()
	const home = "198.51.100.7"
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	for _, email := range []string{"alice@example.com", "bob@example.com"} {
		s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf(email), from("192.0.2.1")), "sign-up")
	}
	first := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), from(home))
	s.MustAnswer(200, first, "log-in")
	// The queue is full when a log-in comes, so one request must leave.
	logIn := func(email, ip string) sitetest.Reply {
		t.Helper()
		stop := accountstest.FillHashGate(t, "10.0.0.1")
		got := make(chan sitetest.Reply, 1)
		go func() { got <- s.Post("/auth/login", sitetest.CredentialsOf(email), from(ip)) }()
		sitetest.Eventually(t, "it waits, or is answered", func() bool {
			familiar, _ := password.Waiting()
			return familiar == 1 || len(got) == 1
		})
		stop()
		return <-got
	}
	goesFirst := func(when string) {
		t.Helper()
		s.MustAnswer(503, logIn("alice@example.com", "203.0.113.1"), when+": from another address")
		s.MustAnswer(503, logIn("bob@example.com", home), when+": another user")
		s.MustAnswer(503, logIn("nobody@example.com", home), when+": an unknown user")
		got := logIn("alice@example.com", home)
		s.MustAnswer(200, got, when+": from an address where somebody has logged in")
		s.MustAnswer(
			204, s.Send("POST", "/auth/logout", "", "Authorization: Bearer "+got.Tokens(t).Token), when+": its log-out",
		)
	}
	goesFirst("at first")
	restart()
	goesFirst("after a restart")
	s.MustAnswer(204, s.Send("POST", "/auth/logout", "", "Authorization: Bearer "+first.Tokens(t).Token), "log-out")
	restart()
	s.MustAnswer(
		503, logIn("alice@example.com", home), "from there, where nobody is logged in any more, after a restart",
	)
}

// An attacker who floods the hash queue from one address or many of a network does not delay
// log-ins from another one. An attacker from many networks does not delay users who have logged
// in from their address before.
func TestScenarioHashFlood(t *testing.T) {
	seen := scenario.Promise(
		t,
		"no flood of sign-ups or log-ins has a log-in refused of a user who has logged in from the same address before",
	)
	s := sitetest.Serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "signup open"))
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	s.MustAnswer(
		201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), from("198.51.100.7")), "sign-up",
	)
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), from("198.51.100.7")),
		"log-in before the floods",
	)
	one := func(int) string { return "203.0.113.1" }
	for _, flood := range []struct {
		name    string
		address func(i int) string
		path    string
	}{
		{"sign-ups of one address", one, "/auth/signup"},
		{"sign-ups of a /24", func(i int) string { return fmt.Sprint("203.0.113.", i%250) }, "/auth/signup"},
		{"sign-ups of a /48", func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i%0x10000) }, "/auth/signup"},
		{
			"sign-ups of many networks",
			func(i int) string { return fmt.Sprintf("10.%d.%d.1", i/250%250, i%250) }, "/auth/signup",
		},
		{"log-ins of a /24", func(i int) string { return fmt.Sprint("203.0.113.", i%250) }, "/auth/login"},
		{"log-ins of a /48", func(i int) string { return fmt.Sprintf("2001:db8:2:%x::1", i%0x10000) }, "/auth/login"},
		{"log-ins of 100 networks", func(i int) string { return fmt.Sprintf("10.%d.0.1", i%100) }, "/auth/login"},
	} {
		t.Run(flood.name, func(t *testing.T) {
			s.T = t
			var next, answered atomic.Int64
			var stop atomic.Bool
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					for !stop.Load() {
						i := int(next.Add(1))
						email := fmt.Sprintf("%s%d@flood.example", strings.ReplaceAll(flood.name, " ", ""), i)
						s.Post(flood.path, sitetest.CredentialsOf(email), from(flood.address(i)))
						answered.Add(1)
					}
				})
			}
			sitetest.Eventually(t, "the flood has come", func() bool {
				return answered.Load() > 100 && password.Busy() > 0
			})
			var longest time.Duration
			refused := 0
			for range 15 {
				began := time.Now()
				if got := s.Post(
					"/auth/login", sitetest.CredentialsOf("alice@example.com"), from("198.51.100.7"),
				); got.Status != 200 {
					refused++
				}
				longest = max(longest, time.Since(began))
			}
			stop.Store(true)
			all.Wait()
			if refused > 0 {
				t.Errorf("%d of 15 log-ins were refused", refused)
			}
			seen(
				"%s: %d of 15 log-ins were refused, the longest took %s, beside %d requests",
				flood.name, refused, longest.Round(time.Millisecond), answered.Load(),
			)
		})
	}
	s.T = t
}

// A right password returns its attempt, so that a user who logs in often is not locked out by the
// guesses of others.
func TestThreatRightLogInsSpendNothing(t *testing.T) {
	s := sitetest.Serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "signup open"))
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), from("10.20.0.1")), "sign-up")
	s.MustAnswer(200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), from("10.20.0.1")), "at home")
	wrong := sitetest.JSON{"email": "alice@example.com", "password": "wrong password"}
	for range 10 {
		s.MustAnswer(401, s.Post("/auth/login", wrong, from("203.0.113.1")), "a guess")
	}
	for range 2*accounts.DefaultThrottleFailures + 1 {
		s.MustAnswer(
			200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), from("10.20.0.1")),
			"at home, where somebody has logged in",
		)
	}
	for i := range 2 * accounts.StrangerAttempts { // from different networks, so that each is a stranger
		s.MustAnswer(
			200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), from("10.30.0.1")),
			fmt.Sprint("at a new address, ", i),
		)
	}
	// Of all strangers together, too.
	service, now := accountstest.ServiceOf(t), time.Now()
	for i := range 2 * accounts.SparedFactor * accounts.DefaultThrottleFailures {
		used, allowed := service.LogIns.Spares(
			t.Context(), false, "bob@example.com",
			accounts.Client{Address: fmt.Sprint("10.40.", i/250, ".", i%250)}, now,
		)
		if !allowed {
			t.Fatalf("stranger %d", i)
		}
		for _, a := range used {
			a.Forgive()
		}
	}
	// Control: wrong ones are spent.
	for range accounts.StrangerAttempts {
		s.MustAnswer(429, s.Post("/auth/login", wrong, from("203.0.113.9")), "a wrong guess of a stranger")
	}
	s.MustAnswer(
		429, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), from("203.0.113.9")),
		"a right guess after too many",
	)
}

// A client can find out for only a few addresses per minute whether they are taken.
func TestThreatSignUpOracle(t *testing.T) {
	s := sitetest.Serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "signup open"))
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), from("192.0.2.1")), "sign-up")
	s.MustAnswer(
		409, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), from("2001:db8::1")),
		"control: the first question",
	)
	for range accounts.ClientFailuresPerMinute - 1 { // at once, because some are allowed again over time
		accountstest.ServiceOf(t).Attempts.RefusedSignUps.Begin(t.Context(), network.Key("2001:db8::2"), time.Now())
	}
	got := s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), from("2001:db8::3"))
	s.MustAnswer(429, got, "31st of a client, by its /64")
	if got.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	s.MustAnswer(
		429, s.Post("/auth/signup", sitetest.CredentialsOf("nobody@example.com"), from("2001:db8::4")),
		"of an address that is free the same",
	)
	s.MustAnswer(
		409, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), from("192.0.2.9")),
		"control: another client",
	)
	for i := range 3 {
		s.MustAnswer(
			201, s.Post("/auth/signup", sitetest.CredentialsOf(fmt.Sprintf("new%d@example.com", i)), from("192.0.2.9")),
			"control: sign-ups that succeed",
		)
	}
	limiter, _ := accountstest.ServiceOf(t).Attempts.RefusedSignUps.Counts.GetIfPresent(network.Key("192.0.2.9"))
	if left := limiter.Tokens(); left < accounts.ClientFailuresPerMinute-2 {
		t.Errorf("sign-ups that succeeded are counted: %v left", left)
	}
}
