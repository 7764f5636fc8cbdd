package provider

import (
	"testing"
	"time"
)

// A page that does not belong to a client does not cause a look-up of all clients.
func TestThreatOriginsCostNoLookUps(t *testing.T) {
	origins, now := new(storedOrigins), time.Now()
	looked := 0
	look := func() (map[string]bool, error) { looked++; return map[string]bool{"https://a": true}, nil }
	for range 1000 {
		if origins.has("https://evil.example", now, look) || !origins.has("https://a", now, look) {
			t.Fatal("a wrong answer")
		}
	}
	if looked != 1 {
		t.Errorf("%d look-ups", looked)
	}
	origins.has("https://a", now.Add(originsPause), look)
	if looked != 2 {
		t.Errorf("%d look-ups after the pause", looked)
	}
	origins.has("https://a", now.Add(-time.Hour), look) // the clock was set back
	if looked != 3 {
		t.Errorf("%d look-ups after the clock was set", looked)
	}
}
