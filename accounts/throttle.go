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

const (
	DefaultThrottleFailures = 10
	defaultThrottleWindow   = 15 * time.Minute
	ClientFailuresPerMinute = 30
	maxThrottled            = 100_000 // accounts or clients that are remembered
)

// Throttle counts failures by a key, such as an account or a client. After
// burst failures, one more is let through each time a share of the window has
// passed, so that nobody is locked out for good. A nil throttle counts nothing.
//
// It counts in memory, and then with the other nodes if the store does that. If
// the store cannot, the count of this node holds.
type Throttle struct {
	name   string // no other throttle has it
	every  time.Duration
	burst  int
	Counts *otter.Cache[string, *rate.Limiter]
	shared func() store.TryCounter // nil where there are no other nodes
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

// tryCounts are what the throttles count in this process, by the issuer and the
// store: neither another site nor a config reload gives tries back.
type tryCounts struct{ sync.Map }

var tryCountSets = caddy.NewUsagePool()

// Destruct implements caddy.Destructor.
func (*tryCounts) Destruct() error { return nil }

// attempt is a try that has been counted as a failure, until it is forgiven.
type attempt struct {
	forgiveHere, forgiveThere func()
}

// Forgive takes the count back: the try was none that counts.
func (a attempt) Forgive() {
	if a.forgiveHere != nil {
		a.forgiveHere()
	}
	if a.forgiveThere != nil {
		a.forgiveThere()
	}
}

// sharedCountTimeout is how long a count with the other nodes may take.
const sharedCountTimeout = 2 * time.Second

// Begin counts a try as a failure before its outcome is known, so that many at
// once are not more than one after the other. Where there were too many, it
// returns how long to wait. A try of a client with an IPv6 address counts for its
// /48 too.
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

func (t *Throttle) count(ctx context.Context, key string, burst int, every time.Duration, now time.Time) (a attempt, wait time.Duration) {
	limiter, _ := t.Counts.ComputeIfAbsent(key, func() (*rate.Limiter, bool) { return rate.NewLimiter(rate.Every(every), burst), false })
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
	wait, err := counter.CountTry(ctx, shared, burst, every, now)
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
		_ = counter.ForgiveTry(ctx, shared, every) // one more is counted, and forgotten in time
	}
	return a, 0
}

// networkFactor is how many times as much as an IPv6 /64 its /48 may do: a provider
// hands out a /48, with 65,536 of them, to one customer.
const networkFactor = 10

// widerKey is a key that ends in the /64 of a client, with the /48 in its place;
// empty for any other key.
func widerKey(key string) string {
	at := strings.LastIndexByte(key, '\n') + 1
	network, err := netip.ParsePrefix(key[at:])
	if err != nil || network.Bits() != 64 || !network.Addr().Is6() {
		return ""
	}
	return key[:at] + netip.PrefixFrom(network.Addr(), 48).Masked().String()
}
