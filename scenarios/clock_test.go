package scenarios_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2"
)

// The clock jumps by an hour, by a year and by decades, and back. At each moment the clock
// decides, also for remembered tokens. When it is right again, nothing is lost.
func TestScenarioClockJumps(t *testing.T) {
	seen := scenario.Promise(t, "no token accepted after its exp or before its nbf by the clock as it is, "+
		"the cache included; no refetch storm; sessions and revocations hold; all works when the clock is right again")
	hands := sitetest.SetClock(t)
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	dir := sitetest.TempDir(t)
	body := "jwt /api/* {\n issuer https://issuer.example\n jwks " + p.URL +
		"/jwks {\n cooldown 100ms\n}\n leeway 0s\n}\n respond /api/* ok\n" +
		sitetest.AccountsBody(filepath.Join(dir, "users.db"), "throttle off\n token_lifetime 24h")
	s := sitetest.Serve(t, "respond ok")
	s.Load(body, dir)

	kept, ended, endedElsewhere := s.SignedUp("alice@example.com"), s.SignedUp("bob@example.com"),
		s.SignedUp("carol@example.com")
	s.MustAnswer(200, s.Bearer("/todos/", ended.Token), "control: remembered")
	s.MustAnswer(204, s.Send("POST", "/auth/logout", "", "Authorization: Bearer "+ended.Token), "log-out")

	start := time.Now()
	const hour, day = time.Hour, 24 * time.Hour
	y2099 := time.Date(2099, 7, 1, 0, 0, 0, 0, time.UTC).Sub(start)
	type span struct {
		nbf, exp time.Duration // from the start
		token    string
	}
	var spans []span
	for _, x := range []span{
		{nbf: -400 * day, exp: y2099 + day}, {nbf: -hour / 2, exp: hour / 2}, {nbf: hour / 2, exp: 2 * hour},
		{nbf: -2 * hour, exp: -hour / 2}, {nbf: -366 * day, exp: -364 * day}, {nbf: y2099 - hour, exp: y2099 + hour},
	} {
		x.token = sitetest.Sign(t, "RS256", keys.RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{
			"nbf": start.Add(x.nbf).Unix(), "exp": start.Add(x.exp).Unix(),
		}))
		spans = append(spans, x)
	}

	decisions, wrong, jumps := 0, 0, 0
	jump := func(to time.Duration) {
		from := hands.Ahead.Swap(int64(to / time.Second))
		if from == int64(to/time.Second) {
			return
		}
		jumps++
		sitetest.Eventually(t, "the background task has seen the clock jump", func() bool {
			return strings.Count(s.Log(), "the system clock was changed") >= jumps
		})
	}
	check := func(at time.Duration) {
		t.Helper()
		for _, x := range spans {
			status := 401
			if x.nbf <= at && at < x.exp {
				status = 200
			}
			for _, how := range []string{"verified", "remembered"} {
				decisions++
				if got := s.Bearer("/api/", x.token); got.Status != status {
					wrong++
					t.Errorf(
						"clock at %s, token from %s to %s, %s: %d instead of %d",
						at, x.nbf, x.exp, how, got.Status, status,
					)
				}
			}
		}
		s.MustAnswer(401, s.Bearer("/todos/", ended.Token), fmt.Sprintf("a revoked token, the clock at %s", at))
		s.MustAnswer(
			200, s.Bearer("/todos/", s.LoggedIn("alice@example.com").Token),
			fmt.Sprintf("a token made now, the clock at %s", at),
		)
	}
	holds := func(when string) {
		t.Helper()
		s.MustAnswer(200, s.Bearer("/todos/", kept.Token), "the token from before, "+when)
		fresh := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": kept.RefreshToken})
		s.MustAnswer(200, fresh, "refresh, "+when)
		if fresh.Status == 200 {
			kept = fresh.Tokens(t)
		}
	}
	check(0)
	for _, to := range []time.Duration{hour, -hour, -365 * day, y2099} {
		jump(to)
		check(to)
		if to == y2099 { // as from another process whose clock is right, a minute before this one is
			if _, err := accountstest.StoreOf(t).EndSessions(
				t.Context(), accountstest.UserOf(t, "carol@example.com").ID, "", "", time.Now().Add(-time.Minute),
			); err != nil {
				t.Fatal(err)
			}
		}
		jump(0)
		check(0)
		holds(fmt.Sprintf("the clock is right again after %s", to))
	}
	sitetest.Eventually(t, "what was revoked elsewhere while the clock was wrong is known", func() bool {
		return s.Bearer("/todos/", endedElsewhere.Token).Status == 401
	})
	fetches := p.Fetches.Load()
	if fetches != 1 {
		t.Errorf("%d fetches of the key set, expected the first alone", fetches)
	}

	// A node whose clock jumps before its first clean-up does not remove records that have not
	// expired.
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Load(body, dir)
	jump(y2099)
	check(y2099)
	jump(0)
	check(0)
	holds("the clock is right again after a restart")
	s.MustAnswer(401, s.Bearer("/todos/", endedElsewhere.Token), "a session ended elsewhere, after a restart")

	// If a session is renewed while the clock is behind, its end also applies to its older
	// tokens, on a node that learns of it from the store.
	jump(-365 * day)
	s.MustAnswer(
		200, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": kept.RefreshToken}),
		"refresh, the clock a year back",
	)
	jump(0)
	s.MustAnswer(200, s.Bearer("/todos/", kept.Token), "control: the token from before")
	if _, err := accountstest.StoreOf(t).EndSessions(
		t.Context(), accountstest.UserOf(t, "alice@example.com").ID, "", "", time.Now(),
	); err != nil {
		t.Fatal(err)
	}
	sitetest.Eventually(t, "the token from before is refused", func() bool {
		return s.Bearer("/todos/", kept.Token).Status == 401
	})

	if n := strings.Count(s.Log(), "panic"); n > 0 {
		t.Errorf("%d panics in the log", n)
	}
	seen(
		"%d jumps: to an hour ahead, an hour back, a year back, 2099, and back each time: %d decisions, %d wrong",
		jumps, decisions, wrong,
	)
	seen("%d fetch of the key set before the restart; a revoked token was refused all the time, "+
		"a session went on after each jump", fetches)
}

// Expired records are removed periodically, but not right after the clock was set.
func TestCleanUpsByAClockThatJumps(t *testing.T) {
	hands := sitetest.SetClock(t)
	passed := time.Duration(0)
	now := func(more time.Duration) time.Time {
		passed += more // by both clocks
		return hands.Now().Add(passed)
	}
	c := clock.NewCleanUps(now(0))
	for _, step := range []struct {
		name  string
		jump  time.Duration
		after time.Duration
		due   bool
	}{
		{"after the interval", 0, clock.Interval, true},
		{"right after", 0, clock.Interval / 2, false},
		{"due, and the clock jumps ahead", 70 * 365 * 24 * time.Hour, clock.Interval, false},
		{"still ahead", 0, 2 * clock.Interval, false},
		{"and back", -70 * 365 * 24 * time.Hour, clock.Interval, false},
		{"right for a while", 0, clock.Trust - time.Minute, false},
		{"right for long", 0, time.Minute, true},
		{"after the interval again", 0, clock.Interval, true},
	} {
		hands.Ahead.Add(int64(step.jump / time.Second))
		if got := c.Due(now(step.after)); got != step.due {
			t.Errorf("%s: %v", step.name, got)
		}
	}
}
