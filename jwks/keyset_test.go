package jwks

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// A request waits at most one timeout for a key set, even if a fetch is in progress and it may
// cause another one. The time is that of synctest.
func TestRequestWaitsForOneTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 5 * time.Second
		c, err := Open(Settings{URL: "https://127.0.0.1:1/", Timeout: timeout, Cooldown: time.Nanosecond}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.starting.Do(func() {}) // nothing runs but what this test does
		first := c.ongoing
		second := &fetch{done: make(chan struct{})} // as another request's
		time.AfterFunc(timeout/2, func() {
			c.mu.Lock()
			c.ongoing = second
			c.mu.Unlock()
			close(first.done)
		})
		began := time.Now()
		if _, err := c.FindAgain(t.Context(), jwt.KeyHint{Algorithm: "RS256", ID: "a"}, nil); err == nil {
			t.Error("control: there are keys")
		}
		if took := time.Since(began); took != timeout {
			t.Errorf("it waited for %s", took)
		}
	})
}
