package web_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(testLogin{}) }

// testLogin is a provider from which no browser returns.
type testLogin struct{}

func (testLogin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt.logins.test", New: func() caddy.Module { return new(testLogin) }}
}

func (testLogin) Describe() accounts.ExternalLoginInfo {
	return accounts.ExternalLoginInfo{Name: "test", Label: "Test"}
}

func (testLogin) Begin(_ context.Context, _, state string, _ *time.Duration) (string, []byte, error) {
	return "https://provider.example/?state=" + state, nil, nil
}

func (testLogin) Finish(context.Context, url.Values, string, []byte) (*accounts.ExternalIdentity, error) {
	return nil, errors.New("nobody comes back")
}

func (testLogin) VerifyLogout(context.Context, string) (*accounts.ExternalLogout, error) {
	return nil, errors.New("nobody logs out")
}

// passClock makes Caddy use a clock that the test moves.
func passClock(t *testing.T) (pass func(time.Duration)) {
	t.Helper()
	var passed atomic.Int64
	clock.Now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	t.Cleanup(func() { clock.Now = time.Now })
	return func(more time.Duration) { passed.Add(int64(more)) }
}

// recordsKept returns the number of records of a kind in the store, including expired ones.
func recordsKept(t *testing.T, kind string) (kept int) {
	t.Helper()
	read, _, err := accountstest.StoreOf(t).(*filestore.Store).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := read.QueryRowContext(
		t.Context(), `SELECT count(*) FROM records WHERE kind = $1`, kind,
	).Scan(&kept); err != nil {
		t.Fatal(err)
	}
	return kept
}

// The number of log-ins that strangers begin at a provider is bounded for all addresses together,
// even if `throttle` is off. Logged-in users are not counted.
func TestThreatLogInsOfStrangersTogetherAreBounded(t *testing.T) {
	accounts.PendingKept = 20
	t.Cleanup(func() { accounts.PendingKept = 20_000 })
	pass := passClock(t)
	s := sitetest.Serve(t, "respond ok")
	config, err := sitetest.AdaptCaddyfile(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "signup open\n throttle off\n hash_queue 63"),
		strings.TrimPrefix(s.URL, "http://"), sitetest.TempDir(t), s.LogFile)
	if err == nil {
		err = caddy.Load(bytes.ReplaceAll(
			config, []byte(`"hash_queue":63`), []byte(`"hash_queue":63,"login_with":[{"module":"test"}]`),
		), true)
	}
	if err != nil {
		t.Fatal(err)
	}
	alice := s.SignedUp("alice@example.com")
	begins := func(i int) sitetest.Reply {
		return s.Send("GET", "/auth/login/test", "", fmt.Sprintf("X-Forwarded-For: 10.0.%d.%d", i/250, i%250))
	}
	for i := range accounts.PendingKept {
		s.MustAnswer(303, begins(i), fmt.Sprint("control: log-in ", i))
	}
	for i := range 5 {
		if got := begins(1000 + i); got.Status != 503 || got.Header.Get("Retry-After") == "" {
			t.Errorf("one more: %d %v", got.Status, got.Header)
		}
	}
	if kept := recordsKept(t, accounts.KindPending); kept != accounts.PendingKept {
		t.Errorf("%d are kept, expected %d", kept, accounts.PendingKept)
	}
	s.MustAnswer(
		200, s.Send("POST", "/auth/login/test", "", "Authorization: Bearer "+alice.Token),
		"a user who connects an identity",
	)
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "control: a log-in by password",
	)
	pass(accounts.PendingLifetime / time.Duration(accounts.PendingKept))
	s.MustAnswer(303, begins(2000), "control: when time has passed")

	pass(accounts.PendingLifetime + time.Minute)
	sitetest.Eventually(t, "what has expired is removed", func() bool {
		return recordsKept(t, accounts.KindPending) == 0
	})
}

// A record with a lifetime of a minute is removed within two minutes.
func TestThreatWhatStrangersKeptIsRemoved(t *testing.T) {
	pass := passClock(t)
	sitetest.AccountsSite(t, "")
	const many = 5000 + 1000
	_, write, err := accountstest.StoreOf(t).(*filestore.Store).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keep := func(kind string, lifetime time.Duration, many int) {
		t.Helper()
		_, err := write.ExecContext(
			t.Context(), `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO records (kind, id, owner, value, expires_at, version) SELECT $2, i, '', '{}', $3, 1 FROM n`,
			many, kind, clock.Now().Add(lifetime).UnixMilli(),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	keep("short", time.Minute, many)
	keep("long", time.Hour, 10)
	pass(2 * time.Minute)
	sitetest.Eventually(t, "what has expired is removed", func() bool { return recordsKept(t, "short") == 0 })
	if kept := recordsKept(t, "long"); kept != 10 {
		t.Errorf("control: of what has not expired %d are left", kept)
	}
	keep("short", time.Minute, many) // again, since the first clean-up may come at once
	pass(2 * time.Minute)
	sitetest.Eventually(t, "what has expired is removed again", func() bool { return recordsKept(t, "short") == 0 })
}
