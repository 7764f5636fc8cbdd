package scenarios_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// An outage is logged when it begins, each 10 minutes, and when it ends, however its
// errors alternate.
func TestOutageIsSaidOnce(t *testing.T) {
	var o outage.Outage
	start := time.Now()
	said := 0
	for i := range 3600 { // an hour, each second
		say, lasts := o.Fails(start.Add(time.Duration(i) * time.Second))
		if say {
			if said++; lasts != time.Duration(i)*time.Second || i%600 != 0 {
				t.Errorf("said after %d s that it lasts %s", i, lasts)
			}
		}
	}
	if said != 6 {
		t.Errorf("said %d times within an hour", said)
	}
	if ends, lasted := o.Works(start.Add(time.Hour)); !ends || lasted != time.Hour {
		t.Errorf("its end: %v %s", ends, lasted)
	}
	if ends, _ := o.Works(start.Add(time.Hour)); ends {
		t.Error("it ends twice")
	}
	if say, lasts := o.Fails(start.Add(time.Hour)); !say || lasts != 0 {
		t.Errorf("the next one: %v %s", say, lasts)
	}
}

// A failing key set is logged once, even if its errors differ each time.
func TestKeySetOutageIsSaidOnce(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.JWKSSite(t, p, "refresh 100ms\n cooldown 100ms\n timeout 200ms")
	s.MustAnswer(200, s.Bearer("/api/", sitetest.SignRS(t, keys.RSA, "a")), "control")
	var asked atomic.Int64
	p.SetHandler(func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) % 3 {
		case 0:
			w.WriteHeader(http.StatusInternalServerError)
		case 1:
			_, _ = w.Write([]byte("<html>"))
		default:
			w.Header().Set("Content-Length", "100") // and the connection ends before
			_, _ = w.Write([]byte("{"))
		}
	})
	warned := func() (n int) {
		for line := range strings.Lines(s.Log()) {
			if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "key set not ") {
				n++
			}
		}
		return n
	}
	sitetest.Eventually(t, "it fails in each way, again and again", func() bool { return asked.Load() >= 12 })
	if got := warned(); got != 1 {
		t.Errorf("said %d times", got)
	}
	p.SetKeys(sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	sitetest.Eventually(t, "its end is said", func() bool {
		return strings.Count(s.Log(), "key set loaded again") == 1
	})
}

// The log does not say that a failed store works again before it does, even if the site has no
// requests.
func TestStoreOutageEndsWhenItWorks(t *testing.T) {
	var ahead atomic.Int64 // seconds
	clock.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load()) * time.Second) }
	t.Cleanup(func() { clock.Now = time.Now }) // after Caddy has stopped: serve registers its clean-up later
	file := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(file, ""))
	s.SignedUp("alice@example.com")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	s.MustAnswer(503, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "control")
	for range 3 {
		tried := accountstest.ServiceOf(t).StoreTriedAt()
		ahead.Add(61)
		sitetest.Eventually(t, "it is tried", func() bool {
			return accountstest.ServiceOf(t).StoreTriedAt().After(tried)
		})
	}
	if strings.Contains(s.Log(), "user store is working again") {
		t.Error("it is said to work")
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	ahead.Add(61)
	sitetest.Eventually(t, "its end is said", func() bool {
		return strings.Count(s.Log(), "user store is working again") == 1
	})
	if got := strings.Count(s.Log(), "user store is not working; account routes answer with an error"); got != 1 {
		t.Errorf("its beginning is said %d times", got)
	}
}
