package apikeys

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"golang.org/x/time/rate"
)

// limiter counts the requests with a key, on this node and, if the store supports it, on all
// nodes. It counts in the store a tenth of the allowed requests at once, if they can be divided
// so, in order that a request rarely waits for the store; what a node counted but did not use
// is lost for the window. If the store fails, only the count of this node applies.
type limiter struct {
	limit Rate
	here  *rate.Limiter

	mu     sync.Mutex
	leased int       // counted in the store for this node, but not used yet
	retry  time.Time // when to try a store that failed again
}

const (
	countTimeout = 2 * time.Second
	retryCount   = 5 * time.Second
)

func newLimiter(limit Rate) *limiter {
	return &limiter{limit: limit, here: rate.NewLimiter(rate.Every(limit.every()), limit.Requests)}
}

// every is the time after which one more request is allowed.
func (r Rate) every() time.Duration { return r.Window / time.Duration(r.Requests) }

// lease is how many requests are counted in the store at once: the largest divisor of the
// number of requests that is at most a tenth of it, so that the limit is exact.
func (r Rate) lease() int {
	for n := r.Requests / 10; n > 1; n-- {
		if r.Requests%n == 0 {
			return n
		}
	}
	return 1
}

// limiterOf returns the limiter of a key, or nil if it has no rate.
func (e *entry) limiterOf(limit Rate) *limiter {
	if limit.Requests == 0 {
		return nil
	}
	for {
		known := e.limiter.Load()
		if known != nil && known.limit == limit {
			return known
		}
		if made := newLimiter(limit); e.limiter.CompareAndSwap(known, made) {
			return made
		}
	}
}

// take counts a request with the key. It returns how long to wait if there were too many.
func (l *limiter) take(ctx context.Context, counter store.AttemptCounter, id string, now time.Time) time.Duration {
	reservation := l.here.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait <= 0 && counter != nil {
		wait = l.takeShared(ctx, counter, id, now)
	}
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return max(wait, 0)
}

func (l *limiter) takeShared(
	ctx context.Context, counter store.AttemptCounter, id string, now time.Time,
) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leased > 0 {
		l.leased--
		return 0
	}
	if now.Before(l.retry) {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTimeout)
	defer cancel()
	lease := l.limit.lease()
	wait, err := counter.CountAttempt(
		ctx, store.HashToken("API key "+id+" "+l.limit.String()), l.limit.Requests/lease,
		l.limit.every()*time.Duration(lease), now,
	)
	if err != nil {
		l.retry = now.Add(retryCount)
		return 0
	}
	if wait == 0 {
		l.leased = lease - 1
	}
	return wait
}

// announce sets the fields of draft-ietf-httpapi-ratelimit-headers-10: the limit and, as far
// as this node knows, what remains of it and in how many seconds it is whole again.
func (l *limiter) announce(w http.ResponseWriter, wait time.Duration, now time.Time) {
	remaining := int(max(l.here.TokensAt(now), 0))
	if wait > 0 {
		remaining = 0
	}
	whole := time.Duration(l.limit.Requests-remaining) * l.limit.every()
	w.Header().Set("RateLimit-Policy", fmt.Sprintf(
		`"key";q=%d;w=%d`, l.limit.Requests, int(math.Ceil(l.limit.Window.Seconds())),
	))
	w.Header().Set("RateLimit", fmt.Sprintf(`"key";r=%d;t=%d`, remaining, int(math.Ceil(whole.Seconds()))))
}

// tooMany is the refusal of a request that must wait.
func tooMany(id string, limit Rate, wait time.Duration) *refusal.Error {
	return &refusal.Error{
		Reason: refusal.RateLimit, Detail: fmt.Sprintf("key %s may be used %s", id, limit), RetryAfter: wait,
	}
}
