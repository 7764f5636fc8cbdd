// Package outage logs a lasting failure once, and when it ends.
package outage

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// sayAgain is how often a lasting outage is logged again.
const sayAgain = 10 * time.Minute

// Outage is a lasting failure. It is logged when it starts, at most every 10 minutes while
// it lasts, and when it ends, even if its errors differ. The zero Outage is ready to use.
// It is safe for concurrent use.
type Outage struct {
	mu                sync.Mutex
	began, said, last time.Time
}

// Fails records a failure. It returns whether to log it, and how long the outage has
// lasted: 0 at its start.
func (o *Outage) Fails(now time.Time) (say bool, lasts time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = now
	if o.began.IsZero() {
		o.began, o.said = now, now
		return true, 0
	}
	if say = now.Sub(o.said).Abs() >= sayAgain; say {
		o.said = now
	}
	return say, now.Sub(o.began)
}

// Works records a success. It returns whether this ends an outage, and how long the outage
// lasted.
func (o *Outage) Works(now time.Time) (ends bool, lasted time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.began.IsZero() {
		return false, 0
	}
	lasted = now.Sub(o.began)
	o.began = time.Time{}
	return true, lasted
}

// Quiet reports whether there is an outage but nothing was recorded for a while, so that it
// is worth testing.
func (o *Outage) Quiet(now time.Time, while time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.began.IsZero() && now.Sub(o.last).Abs() >= while
}

// LastNoted returns when a failure was last recorded; zero for never.
func (o *Outage) LastNoted() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// Note records the result of an attempt, and logs an outage and its end. See is the entry in
// docs/troubleshooting.md about it.
func (o *Outage) Note(log *zap.Logger, now time.Time, err error, see zap.Field, fails, works string) {
	if err == nil {
		if ends, lasted := o.Works(now); ends {
			log.Info(works, zap.Duration("after", lasted))
		}
		return
	}
	if say, lasts := o.Fails(now); say {
		log.Warn(fails, see, zap.Duration("for", lasts), zap.Error(err))
	}
}
