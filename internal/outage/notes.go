package outage

import (
	"sync"
	"time"
)

// maxNotes is how many different things are remembered; then all are forgotten.
const maxNotes = 1000

// Notes remembers what was logged, so that what anybody can cause again and again is logged once in a
// while. The zero value is ready to use. It is safe for concurrent use.
type Notes struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// IsNew reports whether a thing was not logged within the pause before now, and remembers it.
func (n *Notes) IsNew(what string, now time.Time, pause time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at, ok := n.last[what]; ok && now.Sub(at).Abs() < pause {
		return false
	}
	if n.last == nil || len(n.last) >= maxNotes {
		n.last = make(map[string]time.Time)
	}
	n.last[what] = now
	return true
}
