// Package clock is the time by which all is judged, and which tests set.
package clock

import (
	"math/rand/v2"
	"time"
)

// Now is the time by which tokens, sessions and key sets are judged. Tests
// set another, before they load a config.
var Now = time.Now

// Trust is how long a clock that was set to another time must stay so
// until that is believed for what cannot be undone.
const Trust = time.Hour

// CleanUps says when to remove what has expired: each Interval, the first time
// within it, so that nodes that start together do not do it together; and not before a
// clock that was set has stayed so for Trust.
type CleanUps struct{ last, next time.Time }

// NewCleanUps begins at a time.
func NewCleanUps(now time.Time) *CleanUps {
	return &CleanUps{now, now.Add(rand.N(Interval))}
}

// Due is asked often, and always with the time as it is.
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

// Moved tells by how much the system clock was changed between two
// readings: what it differs by from the monotonic clock in them.
func Moved(before, after time.Time) (by time.Duration, moved bool) {
	by = after.Round(0).Sub(before.Round(0)) - after.Sub(before)
	return by, by.Abs() > time.Second
}

const (
	// Interval is as long as what strangers have kept lives at least, so that
	// little of it outlives its time.
	Interval = time.Minute
)
