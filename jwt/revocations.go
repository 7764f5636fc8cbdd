package jwt

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Revocations holds the revoked sessions that this process knows. A look-up usually costs one
// atomic load: a token is looked up once, and again only after another session was revoked.
type Revocations struct {
	version  atomic.Uint64 // grows with each revocation; never 0
	mu       sync.RWMutex
	sessions map[string]time.Time // session ID to when its tokens have expired

	listeners map[int]func(sessionID string)
	listened  int // number of listeners ever added; the next key
}

// NewRevocations returns Revocations without any session.
func NewRevocations() *Revocations {
	r := &Revocations{sessions: make(map[string]time.Time), listeners: make(map[int]func(string))}
	r.version.Store(1)
	return r
}

// Add revokes a session. Its last token expires at until.
func (r *Revocations) Add(sessionID string, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.sessions[sessionID]; ok && !known.Before(until) {
		return
	}
	r.sessions[sessionID] = until
	r.version.Add(1)
	for _, listener := range r.listeners {
		listener(sessionID)
	}
}

// Listen calls a function with each session that is revoked, until stop is called.
func (r *Revocations) Listen(f func(sessionID string)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listened++
	id := r.listened
	r.listeners[id] = f
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, id)
	}
}

func (r *Revocations) has(sessionID string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, revoked := r.sessions[sessionID]
	return revoked
}

// ForgetExpired removes the sessions whose tokens have all expired.
func (r *Revocations) ForgetExpired(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.sessions, func(_ string, until time.Time) bool { return until.Before(now) })
}

// liveness records up to which version a verified token was not revoked.
type liveness struct {
	revoked   *Revocations
	sessionID string
	version   atomic.Uint64
}

// ended reports whether the session of the token was revoked.
func (l *liveness) ended() bool {
	if l.revoked == nil {
		return false
	}
	now := l.revoked.version.Load()
	if l.version.Load() == now {
		return false
	}
	if l.revoked.has(l.sessionID) {
		return true
	}
	l.version.Store(now)
	return false
}
