package sitetest

import (
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
)

// Clock is a clock that the test moves. As in the kernel, only the time of day jumps; the
// monotonic reading, which measures durations, continues.
type Clock struct{ Ahead atomic.Int64 } // seconds

func (c *Clock) Now() time.Time {
	now := time.Now()
	*(*uint64)(unsafe.Pointer(&now)) += uint64(c.Ahead.Load()) << 30 // the layout of time.Time; SetClock checks it
	return now
}

// SetClock makes Caddy use a clock that the test moves.
func SetClock(t *testing.T) *Clock {
	t.Helper()
	c := new(Clock)
	c.Ahead.Store(-3600)
	before := time.Now()
	if got := c.Now(); got.Unix()-before.Add(-time.Hour).Unix() > 1 || got.Sub(before) > time.Minute ||
		got.Sub(before) < 0 {
		t.Fatalf("the layout of time.Time is another than this test knows: an hour before %s is %s", before, got)
	}
	c.Ahead.Store(0)
	clock.Now = c.Now
	t.Cleanup(func() { clock.Now = time.Now }) // after Caddy has stopped: serve registers its clean-up later
	return c
}
