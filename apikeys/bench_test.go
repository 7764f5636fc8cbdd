package apikeys

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// manyKeys is a store with many keys. Only what a ring reads works.
type manyKeys struct {
	store.UserStore
	store.KeyStore
	rows  []store.APIKey
	texts []string
}

func newManyKeys(b testing.TB, number int) *manyKeys {
	b.Helper()
	m := new(manyKeys)
	for i := range number {
		secret := random(secretLength)
		key := Key{
			ID: fmt.Sprintf("%0*d", idLength, i), Subject: fmt.Sprintf("service %d", i%1000), Name: "nightly",
			Scope: []string{"films.read", "films.write"}, Metadata: map[string]string{"team": "web"}, Hash: hashed(secret), Prefix: DefaultPrefix,
			CreatedAt: time.Now().Truncate(time.Second),
		}
		row, err := key.stored(key.CreatedAt)
		if err != nil {
			b.Fatal(err)
		}
		m.rows, m.texts = append(m.rows, row), append(m.texts, Text(DefaultPrefix, key.ID, secret))
	}
	return m
}

func (m *manyKeys) ChangedKeys(_ context.Context, since time.Time, after string, limit int) ([]store.APIKey, error) {
	if !since.IsZero() {
		return nil, nil
	}
	from, _ := strconv.Atoi(after)
	if after != "" {
		from++
	}
	return m.rows[from:min(from+limit, len(m.rows))], nil
}

func (*manyKeys) ChangedOwners(context.Context, time.Time) ([]store.User, error) { return nil, nil }

// numberOfKeys is how many keys there are: 1,000,000 with CADDY_JWT_KEYS=1000000.
func numberOfKeys(b *testing.B) int {
	if text := os.Getenv("CADDY_JWT_KEYS"); text != "" {
		number, err := strconv.Atoi(text)
		if err != nil {
			b.Fatal(err)
		}
		return number
	}
	return 20_000
}

// Keys that are seen for the first time and again, and the memory for each live key. The limit for
// the first sight is 10 µs. Run it as
//
//	CADDY_JWT_KEYS=1000000 go test -run '^$' -bench APIKeys ./apikeys
func BenchmarkAPIKeys(b *testing.B) {
	many := newManyKeys(b, numberOfKeys(b))
	var users store.UserStore = many
	used := memory()
	ring, err := OpenRing(b.Name(), len(many.rows), false)
	if err != nil {
		b.Fatal(err)
	}
	ring.AddStore(&users)
	start := time.Now()
	if err := ring.Learn(b.Context()); err != nil || ring.Size() != len(many.rows) {
		b.Fatal(err, ring.Size())
	}
	loading := time.Since(start)
	perKey := float64(memory()-used) / float64(len(many.rows))
	keys := &APIKeys{Prefix: DefaultPrefix, ring: ring}
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	verify := func(b *testing.B, key string) {
		if _, err := keys.Verify(w, r, credentials.Credential{Token: key, Source: &credentials.Source{}}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if i%len(many.texts) == 0 {
				b.StopTimer()
				ring.forget()
				b.StartTimer()
			}
			verify(b, many.texts[i*7919%len(many.texts)])
		}
		b.ReportMetric(perKey, "bytes/key")
		b.ReportMetric(loading.Seconds(), "s/load")
	})
	b.Run("seen", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			verify(b, many.texts[0])
		}
	})
	b.Run("unknown", func(b *testing.B) {
		wrong := Text(DefaultPrefix, "AAAAAAAAAAAA", random(secretLength))
		b.ReportAllocs()
		for b.Loop() {
			if _, _, failure := ring.Find(DefaultPrefix, "AAAAAAAAAAAA", wrong, clock.Now()); failure == nil {
				b.Fatal("it is accepted")
			}
		}
	})
	b.Run("checksum", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := split(DefaultPrefix, many.texts[0][:len(many.texts[0])-1]+"-"); err != errChecksum {
				b.Fatal(err)
			}
		}
	})
}

// forget makes the next sight of each key the first.
func (r *Ring) forget() {
	for _, entry := range r.keys {
		entry.parsed.Store(nil)
	}
}

func memory() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
