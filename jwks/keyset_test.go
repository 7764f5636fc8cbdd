package jwks

import (
	"testing"
	"time"
)

// A request waits at most one timeout for a key set, even if a fetch is in progress and it may
// cause another one.
func TestRequestWaitsForOneTimeout(t *testing.T) {
	c, err := Open(
		Settings{URL: "https://127.0.0.1:1/", Timeout: 300 * time.Millisecond, Cooldown: time.Nanosecond}, Options{},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	c.starting.Do(func() {}) // nothing runs but what this test does
	first := c.ongoing
	second := &fetch{done: make(chan struct{})} // as another request's
	ends := time.AfterFunc(200*time.Millisecond, func() {
		c.mu.Lock()
		c.ongoing = second
		c.mu.Unlock()
		close(first.done)
	})
	defer ends.Stop()
	began := time.Now()
	if _, err := c.Find(t.Context(), "RS256", "a"); err == nil {
		t.Error("control: there are keys")
	}
	if took := time.Since(began); took > 450*time.Millisecond {
		t.Errorf("it waited for %s", took)
	}
}
