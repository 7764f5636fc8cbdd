package web_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
)

// Log-ins with a wrong password for an existing and for an unknown user, mixed: the medians must
// not differ. -benchtime 500x makes 500 of each. They do not alternate strictly: each hash takes
// the same memory, so the garbage collector would always run during the same kind.
func BenchmarkEnumeration(b *testing.B) {
	s := sitetest.AccountsSite(b, "throttle off")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	took := map[string][]time.Duration{}
	for b.Loop() {
		pair := []string{"alice@example.com", "nobody@example.com"}
		rand.Shuffle(2, func(i, j int) { pair[i], pair[j] = pair[j], pair[i] })
		for _, email := range pair {
			start := time.Now()
			s.MustAnswer(401, s.Post("/auth/login", sitetest.JSON{"email": email, "password": "wrong password"}), email)
			took[email] = append(took[email], time.Since(start))
		}
	}
	known, unknown := median(took["alice@example.com"]), median(took["nobody@example.com"])
	b.ReportMetric(float64(known.Microseconds()), "known-µs")
	b.ReportMetric(float64(unknown.Microseconds()), "unknown-µs")
	b.ReportMetric(float64(unknown)/float64(known), "ratio")
	b.ReportMetric(0, "ns/op")
}

func median(of []time.Duration) time.Duration {
	slices.Sort(of)
	return of[len(of)/2]
}

// A log-in and the look-up of its user, compared with a store of 10 users.
func BenchmarkStoreOfManyUsers(b *testing.B) {
	small := filledStore(b, 10)
	for _, users := range []int{1000, 1_000_000} {
		large := filledStore(b, users)
		b.Run("look-up/users="+strconv.Itoa(users), func(b *testing.B) {
			find := func(store *filestore.Store, users int) func() {
				n := 0
				return func() {
					n = (n + 7919) % users
					if _, err := store.UserByEmail(b.Context(), fmt.Sprintf("user%d@example.com", n)); err != nil {
						b.Fatal(err)
					}
				}
			}
			sitetest.Ratio(b, find(small, 10), find(large, users))
		})
		b.Run("log-in/users="+strconv.Itoa(users), func(b *testing.B) {
			sitetest.LoadText(
				b, sitetest.GlobalOptions(sitetest.TempDir(b), filepath.Join(sitetest.TempDir(b), "log.json"), "")+
					siteOf(b, small)+siteOf(b, large),
			)
			login := func(users *filestore.Store) func() {
				all := accounts.Running()
				i := slices.IndexFunc(all, func(s *accounts.Service) bool { return s.Config.Issuer == users.Path })
				return func() {
					_, err := all[i].LogIns.CheckPassword(
						b.Context(), store.User{EmailKey: "user7@example.com"}, "wrong password", accounts.Client{},
					)
					if refusal.Of(err).Reason != refusal.WrongCredentials {
						b.Fatal(err)
					}
				}
			}
			sitetest.Ratio(b, login(small), login(large))
		})
	}
}

// siteOf returns a site with a store; the store's name is also part of its issuer.
func siteOf(b *testing.B, users *filestore.Store) string {
	return fmt.Sprintf(
		"http://%s {\njwt {\naccounts {\nstore file %s\nissuer %[2]s\nthrottle off\n}\n}\n}\n",
		sitetest.FreeAddress(b), users.Path,
	)
}

func filledStore(b *testing.B, users int) *filestore.Store {
	b.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: b.Context()})
	b.Cleanup(cancel)
	store := &filestore.Store{Path: filepath.Join(sitetest.TempDir(b), "users.db")}
	if err := store.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Cleanup() })
	_, write, err := store.Connect(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	tx, err := write.Begin()
	if err != nil {
		b.Fatal(err)
	}
	hash := sitetest.WeakArgon2id(sitetest.GoodPassword)
	insert, err := tx.Prepare(
		`INSERT INTO users (id, email, email_key, password_hash, roles, profile, disabled, created_at, updated_at, version) VALUES ($1, $2, $2, $3, '[]', '{}', false, 1, 1, 1)`,
	)
	if err != nil {
		b.Fatal(err)
	}
	for i := range users {
		if _, err := insert.Exec(
			fmt.Sprintf("%08d-0000-4000-8000-000000000000", i), fmt.Sprintf("user%d@example.com", i), hash,
		); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	return store
}

// Verification under many log-ins: the p99 of requests with a token, without and with log-ins;
// with -full until 10,000 log-ins have a response.
func BenchmarkVerifyUnderLogins(b *testing.B) {
	s := sitetest.AccountsSite(b, "throttle off")
	token := s.SignedUp("alice@example.com").Token
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "sign-up")
	samples := b.N
	if scenario.Full() {
		samples = max(samples, 2000)
	}
	quiet := verifyFor(s, token, samples)
	var stop atomic.Bool
	var logins atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for !stop.Load() && logins.Add(1) <= 10_000 {
				s.Post("/auth/login", sitetest.CredentialsOf("bob@example.com"))
			}
		})
	}
	pressed := verifyFor(s, token, samples)
	for scenario.Full() && logins.Load() < 10_000 {
		pressed = append(pressed, verifyFor(s, token, samples)...)
	}
	slices.Sort(pressed)
	stop.Store(true)
	all.Wait()
	b.ReportMetric(float64(quiet[len(quiet)/2].Microseconds()), "quiet-median-µs")
	b.ReportMetric(float64(quiet[len(quiet)*99/100].Microseconds()), "quiet-p99-µs")
	b.ReportMetric(float64(pressed[len(pressed)/2].Microseconds()), "pressed-median-µs")
	b.ReportMetric(float64(pressed[len(pressed)*99/100].Microseconds()), "pressed-p99-µs")
	b.ReportMetric(float64(min(logins.Load(), 10_000)), "log-ins")
	b.ReportMetric(0, "ns/op")
}

func verifyFor(s *sitetest.Site, token string, times int) []time.Duration {
	took := make([]time.Duration, 0, times)
	for range times {
		r, err := http.NewRequest(http.MethodGet, s.URL+"/todos/", strings.NewReader(""))
		if err != nil {
			s.T.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		start := time.Now()
		response, err := benchClient.Do(r)
		if err != nil {
			s.T.Fatal(err)
		}
		took = append(took, time.Since(start))
		_ = response.Body.Close()
		if response.StatusCode != 200 {
			s.T.Fatal(response.Status)
		}
	}
	slices.Sort(took)
	return took
}

var benchClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// A log-in by password alone, and one with a second factor: the challenge and a recovery code, as an
// app has a new code only every 30 seconds. Each is from another address.
func BenchmarkLogIn(b *testing.B) {
	s := sitetest.Serve(b, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(b), "users.db"), "second_factor optional\nthrottle off"))
	s.SignedUp("alice@example.com")
	own := "Authorization: Bearer " + s.SignedUp("bob@example.com").Token
	_, codes := accountstest.WithApp(s, strings.TrimPrefix(own, "Authorization: Bearer "))
	addresses := 0
	logIn := func(email string) (got sitetest.Reply, from string) {
		addresses++
		from = fmt.Sprintf("X-Forwarded-For: 10.%d.%d.1", addresses/250, addresses%250)
		return s.Post("/auth/login", sitetest.CredentialsOf(email), from), from
	}
	b.Run("password", func(b *testing.B) {
		for b.Loop() {
			got, _ := logIn("alice@example.com")
			got.Tokens(b)
		}
	})
	b.Run("password and factor", func(b *testing.B) {
		for b.Loop() {
			if len(codes) == 0 {
				b.StopTimer()
				codes = accountstest.RecoveryCodesOf(
					b, s.Post("/auth/factors/recovery", sitetest.JSON{"password": sitetest.GoodPassword}, own),
				)
				b.StartTimer()
			}
			got, from := logIn("bob@example.com")
			s.Post("/auth/login/factor", sitetest.JSON{
				"challenge": got.ErrorBody(b).Error.Challenge, "code": codes[0],
			}, from).Tokens(b)
			codes = codes[1:]
		}
	})
}

// A log-in with a passkey: the options and the answer, each from another address.
func BenchmarkLogInByPasskey(b *testing.B) {
	s := sitetest.ServeLocalhost(b, `servers {
			trusted_proxies static 127.0.0.1/32 ::1/128
		}
----------
`+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(b), "users.db"), "passkeys\nthrottle off"))
	p, _ := accountstest.WithPasskey(s, s.SignedUp("alice@example.com").Token)
	for b.Loop() {
		by(s, p).Tokens(b)
	}
}
