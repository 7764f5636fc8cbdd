package jwt

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Revocations holds the revoked sessions, by the claim `sid`, and subjects, by `sub`, that this
// process knows. A look-up usually costs one
// atomic load: a token is looked up once, and again only after another session was revoked.
type Revocations struct {
	version  atomic.Uint64 // grows with each revocation; never 0
	mu       sync.RWMutex
	sessions map[string]time.Time // session ID to when its tokens have expired
	subjects map[string]ending    // of subject

	listeners map[int]func(sessionID string)
	listened  int // number of listeners ever added; the next key
}

// ending is up to when the tokens of a subject were issued that are revoked, in seconds since
// 1970.
type ending struct {
	all, withoutSession float64 // of all its tokens, and of those without a session ID
	until               time.Time
}

// NewRevocations returns Revocations without any session.
func NewRevocations() *Revocations {
	r := &Revocations{
		sessions: make(map[string]time.Time), subjects: make(map[string]ending), listeners: make(map[int]func(string)),
	}
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

// AddSubject revokes the tokens of a subject that were issued at a time or before: by `iat`, or
// without it. withoutSession restricts it to tokens that have no session ID, and so may belong
// to any of the subject's sessions. The last token expires at until.
func (r *Revocations) AddSubject(subject string, issued, until time.Time, withoutSession bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, known := seconds(issued), r.subjects[subject]
	if !withoutSession {
		known.all = max(known.all, at)
	}
	known.withoutSession = max(known.withoutSession, at)
	if until.After(known.until) {
		known.until = until
	}
	r.subjects[subject] = known
	r.version.Add(1)
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

func (r *Revocations) has(l *liveness) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if _, revoked := r.sessions[l.sessionID]; revoked {
		return true
	}
	ended, known := r.subjects[l.subject]
	return known && (l.issued <= ended.all || l.sessionID == "" && l.issued <= ended.withoutSession)
}

// ForgetExpired removes the sessions and subjects whose tokens have all expired.
func (r *Revocations) ForgetExpired(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.sessions, func(_ string, until time.Time) bool { return until.Before(now) })
	maps.DeleteFunc(r.subjects, func(_ string, ended ending) bool { return ended.until.Before(now) })
}

// liveness records up to which version a verified token was not revoked.
type liveness struct {
	revoked   *Revocations
	sessionID string
	subject   string
	issued    float64 // seconds since 1970; 0 if unknown
	version   atomic.Uint64
}

// of sets what the claims of a token say about its session.
func (l *liveness) of(claims Claims, revoked *Revocations) {
	l.revoked = revoked
	l.sessionID, _ = claims["sid"].(string)
	l.subject = ClaimText(claims["sub"]) // a number, too, where another claim names the user
	l.issued, _ = numericDate(claims["iat"])
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
	if l.revoked.has(l) {
		return true
	}
	l.version.Store(now)
	return false
}
