package caddyjwt

import (
	"net/netip"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"
)

const (
	defaultThrottleFailures = 10
	defaultThrottleWindow   = 15 * time.Minute
	clientFailuresPerMinute = 30
	maxThrottled            = 100_000 // accounts or clients that are remembered
)

// throttle counts failures by a key, such as an account or a client. After
// burst failures, one more is let through each time a share of the window has
// passed, so that nobody is locked out for good. A nil throttle counts nothing.
type throttle struct {
	limit  rate.Limit
	burst  int
	counts *otter.Cache[string, *rate.Limiter]
}

func newThrottle(failures int, window time.Duration) *throttle {
	if failures <= 0 {
		return nil
	}
	return &throttle{
		limit: rate.Every(window / time.Duration(failures)),
		burst: failures,
		counts: otter.Must(&otter.Options[string, *rate.Limiter]{
			MaximumSize:      maxThrottled,
			ExpiryCalculator: otter.ExpiryAccessing[string, *rate.Limiter](window),
		}),
	}
}

// attempt is a try that has been counted as a failure, until it is forgiven.
type attempt struct {
	reservation *rate.Reservation
	at          time.Time
}

// begin counts a try as a failure before its outcome is known, so that many at
// once are not more than one after the other. Where there were too many, it
// returns how long to wait.
func (t *throttle) begin(key string, now time.Time) (a attempt, wait time.Duration) {
	if t == nil {
		return attempt{}, 0
	}
	limiter, _ := t.counts.ComputeIfAbsent(key, func() (*rate.Limiter, bool) { return rate.NewLimiter(t.limit, t.burst), false })
	reservation := limiter.ReserveN(now, 1)
	if wait := reservation.DelayFrom(now); wait > 0 {
		reservation.CancelAt(now)
		return attempt{}, wait
	}
	return attempt{reservation, now}, 0
}

// forgive takes the count back: the try was none that counts.
func (a attempt) forgive() {
	if a.reservation != nil {
		a.reservation.CancelAt(a.at)
	}
}

// clientKey is an IP address as it is throttled: of IPv6 the /64, since
// whoever has one address there has them all.
func clientKey(address string) string { return networkKey(address, 64) }

// networkKey is an IPv4 address, or the network of an IPv6 one.
func networkKey(address string, bits int) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, _ := ip.Prefix(bits)
	return prefix.String()
}
