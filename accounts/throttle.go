package accounts

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"
)

// Attempts that may fail before clients have to wait.
const (
	DefaultThrottleFailures = 10 // of an account, within defaultThrottleWindow
	defaultThrottleWindow   = 15 * time.Minute
	ClientFailuresPerMinute = 30      // of a client, of IPv6 a /64
	maxThrottled            = 100_000 // remembered accounts or clients
)

// Throttle counts failures by a key, such as an account or a client. After burst failures,
// another attempt is allowed each time a share of the window has passed, so that nobody is
// locked out permanently. A nil throttle counts nothing.
//
// It counts in memory and, if the store supports it, for all nodes. If the store fails,
// only the count of this node applies.
type Throttle struct {
	name   string // unique among throttles
	every  time.Duration
	burst  int
	Counts *otter.Cache[string, *rate.Limiter] // of this node, by key
	shared func() store.AttemptCounter         // nil without other nodes
}

func newThrottle(name string, failures int, window time.Duration) *Throttle {
	if failures <= 0 {
		return nil
	}
	return &Throttle{
		name:  name,
		every: window / time.Duration(failures),
		burst: failures,
		Counts: otter.Must(&otter.Options[string, *rate.Limiter]{
			MaximumSize:      maxThrottled,
			ExpiryCalculator: otter.ExpiryAccessing[string, *rate.Limiter](window),
		}),
	}
}

// attemptCounts are the counts of this process, by issuer and store. Neither another site nor a
// config reload resets them.
type attemptCounts struct{ sync.Map }

var attemptCountSets = caddy.NewUsagePool()

// Destruct implements caddy.Destructor.
func (*attemptCounts) Destruct() error { return nil }

// attempt is an attempt that is counted as a failure until it is forgiven.
type attempt struct {
	forgiveHere, forgiveThere func()
}

// Forgive removes the attempt from the counts.
func (a attempt) Forgive() {
	if a.forgiveHere != nil {
		a.forgiveHere()
	}
	if a.forgiveThere != nil {
		a.forgiveThere()
	}
}

// sharedCountTimeout is the maximum time for counting in the store.
const sharedCountTimeout = 2 * time.Second

// Begin counts an attempt as a failure before its result is known, so that concurrent
// attempts cannot exceed the limit. If there were too many, it returns how long to wait. An
// attempt of an IPv6 client also counts for its /48.
func (t *Throttle) Begin(ctx context.Context, key string, now time.Time) (attempt, time.Duration) {
	if t == nil {
		return attempt{}, 0
	}
	narrow, wait := t.count(ctx, key, t.burst, t.every, now)
	wider := widerKey(key)
	if wait > 0 || wider == "" {
		return narrow, wait
	}
	wide, wait := t.count(ctx, wider, t.burst*networkFactor, t.every/networkFactor, now)
	if wait > 0 {
		narrow.Forgive()
		return attempt{}, wait
	}
	return attempt{forgiveHere: func() { narrow.Forgive(); wide.Forgive() }}, 0
}

func (t *Throttle) count(
	ctx context.Context, key string, burst int, every time.Duration, now time.Time,
) (a attempt, wait time.Duration) {
	limiter, _ := t.Counts.ComputeIfAbsent(key, func() (*rate.Limiter, bool) {
		return rate.NewLimiter(rate.Every(every), burst), false
	})
	reservation := limiter.ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return attempt{}, wait
	}
	a.forgiveHere = func() { reservation.CancelAt(now) }
	if t.shared == nil {
		return a, 0
	}
	counter := t.shared()
	if counter == nil {
		return a, 0
	}
	shared := store.HashToken(t.name + "\n" + key)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sharedCountTimeout)
	defer cancel()
	wait, err := counter.CountAttempt(ctx, shared, burst, every, now)
	if err != nil {
		return a, 0
	}
	if wait > 0 {
		a.forgiveHere()
		return attempt{}, wait
	}
	a.forgiveThere = func() {
		ctx, cancel := context.WithTimeout(context.Background(), sharedCountTimeout)
		defer cancel()
		_ = counter.ForgiveAttempt(ctx, shared, every) // on failure one attempt too many is counted, until it expires
	}
	return a, 0
}

// networkFactor is the limit of an IPv6 /48 relative to a /64: providers assign a /48, with
// 65,536 of them, to one customer.
const networkFactor = 10

// widerKey returns a key that ends in a client's /64 with its /48 instead; empty for any
// other key.
func widerKey(key string) string {
	at := strings.LastIndexByte(key, '\n') + 1
	network, err := netip.ParsePrefix(key[at:])
	if err != nil || network.Bits() != 64 || !network.Addr().Is6() {
		return ""
	}
	return key[:at] + netip.PrefixFrom(network.Addr(), 48).Masked().String()
}
