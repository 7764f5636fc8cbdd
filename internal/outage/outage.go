// Package outage logs what fails for a while once, and when it works again.
package outage

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// sayAgain is how often the log says that an outage goes on.
const sayAgain = 10 * time.Minute

// Outage is something that fails, and is logged when it begins, at most each 10
// minutes while it lasts, and when it ends, however its errors differ from each other.
// The zero Outage is none. It is safe for concurrent use.
type Outage struct {
	mu                sync.Mutex
	began, said, last time.Time
}

// Fails notes a failure. It returns whether to log it, and for how long the outage has
// lasted: 0 where it begins.
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

// Works notes that it works. It returns whether an outage ends by that, and how long
// it was.
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

// Quiet tells whether there is an outage of which nothing was noted for a while, so
// that it is worth a try whether it goes on.
func (o *Outage) Quiet(now time.Time, while time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.began.IsZero() && now.Sub(o.last).Abs() >= while
}

// LastNoted is when a failure was noted last; zero for never.
func (o *Outage) LastNoted() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// Note logs the failure of something that was tried, or that it works again.
func (o *Outage) Note(log *zap.Logger, now time.Time, err error, fails, works string) {
	if err == nil {
		if ends, lasted := o.Works(now); ends {
			log.Info(works, zap.Duration("after", lasted))
		}
		return
	}
	if say, lasts := o.Fails(now); say {
		log.Warn(fails, zap.Duration("for", lasts), zap.Error(err))
	}
}
