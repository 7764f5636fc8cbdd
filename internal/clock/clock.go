// Package clock provides the time for all checks, which tests can set.
package clock

import (
	"math/rand/v2"
	"time"
)

// Now returns the time for checking tokens, sessions and key sets. Tests replace it before
// they load a config.
var Now = time.Now

// Trust is how long a changed clock must stay stable before it is trusted for irreversible
// actions.
const Trust = time.Hour

// CleanUps schedules the removal of expired data: once per Interval, first at a random
// time, so that nodes started together do not clean up together; and not until a changed
// clock has been stable for Trust.
type CleanUps struct{ last, next time.Time }

// NewCleanUps starts the schedule at a time.
func NewCleanUps(now time.Time) *CleanUps {
	return &CleanUps{now, now.Add(rand.N(Interval))}
}

// Due reports whether a clean-up is due. Call it often, with the current time.
func (c *CleanUps) Due(now time.Time) bool {
	if _, moved := Moved(c.last, now); moved {
		c.next = now.Add(Trust)
	}
	c.last = now
	if now.Before(c.next) {
		return false
	}
	c.next = now.Add(Interval)
	return true
}

// Moved returns by how much the system clock was changed between two readings: its
// difference from their monotonic clock.
func Moved(before, after time.Time) (by time.Duration, moved bool) {
	by = after.Round(0).Sub(before.Round(0)) - after.Sub(before)
	return by, by.Abs() > time.Second
}

const (
	// Interval is not longer than the minimum lifetime of data of unauthenticated clients,
	// so that expired data is removed soon.
	Interval = time.Minute
)
