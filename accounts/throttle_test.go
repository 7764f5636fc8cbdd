package accounts

import (
	"fmt"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/network"
)

// A client with an IPv6 /48, which many hosts give to one customer, must not have as many
// attempts as there are /64s in it.
func TestThreatThrottlesByNetwork(t *testing.T) {
	now := time.Now()
	for _, prefix := range []string{"", "alice@example.com\n"} {
		counts := newThrottle("test", 5, time.Minute)
		try := func(address string) bool {
			_, wait := counts.Begin(t.Context(), prefix+network.Key(address), now)
			return wait == 0
		}
		for i := range 5 {
			if !try(fmt.Sprintf("2001:db8:1::%x", i)) {
				t.Errorf("try %d of a /64 is refused", i)
			}
		}
		if try("2001:db8:1::ffff") {
			t.Error("a /64 has more than it may")
		}
		let := 5
		for i := range 1000 {
			if try(fmt.Sprintf("2001:db8:1:%x::1", i+1)) {
				let++
			}
		}
		if let != 5*networkFactor {
			t.Errorf("%d tries of a /48 are let through, expected %d", let, 5*networkFactor)
		}
		// the controls
		for _, address := range []string{"2001:db8:2::1", "192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3"} {
			if !try(address) {
				t.Errorf("%s is refused", address)
			}
		}
	}
	// A forgiven attempt counts for neither.
	counts := newThrottle("test", 5, time.Minute)
	for i := range 1000 {
		a, wait := counts.Begin(t.Context(), network.Key(fmt.Sprintf("2001:db8:1:%x::1", i%100)), now)
		if wait > 0 {
			t.Fatalf("try %d: %s", i, wait)
		}
		a.Forgive()
	}
	// A refused /64 no longer counts for its /48.
	for range 1000 {
		counts.Begin(t.Context(), network.Key("2001:db8:1::1"), now)
	}
	if _, wait := counts.Begin(t.Context(), network.Key("2001:db8:1:1::1"), now); wait > 0 {
		t.Errorf("a /64 uses up its /48: %s", wait)
	}
	for key, wide := range map[string]string{
		"2001:db8:1:2::/64": "2001:db8:1::/48", "a\n2001:db8:1:2::/64": "a\n2001:db8:1::/48",
		"2001:db8:1::/48": "", "192.0.2.1": "", "alice@example.com": "", "": "", "x\n": "",
	} {
		if got := widerKey(key); got != wide {
			t.Errorf("%q: %q", key, got)
		}
	}
}
