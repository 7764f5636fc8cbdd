package apikeys

import (
	"context"
	"crypto/subtle"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// Ring has all live keys of a store in memory, so that no request waits for the store. It is
// shared by the handlers with the same store, also across config reloads.
type Ring struct {
	store.Newest
	pooled string // the key under which it is shared
	log    *zap.Logger
	most   atomic.Int64 // keys
	cleans bool         // the store has no accounts that clean it up

	mu     sync.RWMutex
	keys   map[string]*entry
	owners map[string]*owner // that have keys
	loaded atomic.Bool

	learning    sync.Mutex // of the following
	since       time.Time  // for the next look at the store; zero to load everything
	readAt      time.Time  // when the store was last read
	notReadable outage.Outage
	full        outage.Outage
	dropped     bool // keys beyond the maximum

	uses    uses
	starts  sync.Once
	stop    context.CancelFunc
	running sync.WaitGroup
}

// entry is a live key. Its value is only parsed when it is used, because most keys of a large
// store are not.
type entry struct {
	subject string
	value   []byte
	expires int64 // in milliseconds since 1970; 0 for never
	owner   *owner
	parsed  atomic.Pointer[parsed]
	limiter atomic.Pointer[limiter]
}

// owner is a user who has keys. Its state is replaced when the user changes.
type owner struct{ state atomic.Pointer[ownerState] }

type ownerState struct {
	roles []string
	gone  bool // disabled or deleted
}

// parsed is a key with the token that stands for it while its owner has this state.
type parsed struct {
	Key
	token *jwt.Token
	state *ownerState
	noted atomic.Int64 // when its use was last noted, in minutes since 1970
}

// rings are the rings in use, by store.
var rings = caddy.NewUsagePool()

// OpenRing returns the ring of a store, which is shared by all callers with the same name. Each
// caller must release it. cleans means that nothing else cleans the store up.
func OpenRing(name string, most int, cleans bool) (*Ring, error) {
	shared, _, err := rings.LoadOrNew(name, func() (caddy.Destructor, error) {
		return &Ring{
			pooled: name, log: caddy.Log().Named("jwt.credentials.api_keys"), cleans: cleans,
			keys: make(map[string]*entry), owners: make(map[string]*owner),
			uses: uses{pending: make(map[string]time.Time)},
		}, nil
	})
	if err != nil {
		return nil, err
	}
	ring := shared.(*Ring)
	ring.most.Store(int64(most))
	return ring, nil
}

// Release releases a ring that was returned by OpenRing.
func (r *Ring) Release() error {
	_, err := rings.Delete(r.pooled)
	return err
}

// Find returns the key with the prefix, ID and secret, and the token that stands for it.
func (r *Ring) Find(prefix, id, secret string, now time.Time) (*parsed, *entry, *refusal.Error) {
	if !r.loaded.Load() {
		return nil, nil, &refusal.Error{
			Reason: refusal.StoreUnavailable, Detail: "the API keys are not loaded yet", RetryAfter: time.Second,
		}
	}
	r.mu.RLock()
	found := r.keys[id]
	r.mu.RUnlock()
	var key *parsed
	if found != nil {
		key = found.key(id)
	}
	if known := key.knows(hash(secret), now); !known || key.Prefix != prefix {
		return nil, nil, refusal.New(refusal.APIKey, "there is no such key, or it was revoked")
	}
	if found.owner != nil && key.state.gone {
		return nil, nil, refusal.New(refusal.APIKey, "the user of key %s is disabled", id)
	}
	if found.expires != 0 && now.UnixMilli() >= found.expires {
		return nil, nil, refusal.New(
			refusal.APIKey, "key %s expired at %s", id, key.ExpiresAt.UTC().Format(time.RFC3339),
		)
	}
	return key, found, nil
}

// unknown is compared with secrets of unknown keys, so that these take as long.
var unknown = parsed{Key: Key{Hash: hashed("")}}

// knows reports, in constant time, whether a hash is that of the secret.
func (p *parsed) knows(secret [32]byte, now time.Time) bool {
	of := p
	if of == nil {
		of = &unknown
	}
	same := subtle.ConstantTimeCompare(secret[:], of.Hash)
	previous := subtle.ConstantTimeCompare(secret[:], of.PreviousHash)
	return p != nil && (same == 1 || previous == 1 && now.Before(of.PreviousUntil))
}

// key returns the parsed key, or nil if it cannot be parsed.
func (e *entry) key(id string) *parsed {
	var state *ownerState
	if e.owner != nil {
		state = e.owner.state.Load()
	}
	if known := e.parsed.Load(); known != nil && known.state == state {
		return known
	}
	row := store.APIKey{ID: id, Subject: e.subject, Value: e.value}
	if e.expires != 0 {
		row.ExpiresAt = time.UnixMilli(e.expires)
	}
	key, err := fromStored(row)
	if err != nil || len(key.Hash) == 0 { // also `caddy jwt key list` says so
		return nil
	}
	var roles []string
	if state != nil {
		roles = state.roles
	}
	found := &parsed{Key: key, state: state, token: jwt.NewToken(key.claims(roles), key.Subject, key.ExpiresAt)}
	e.parsed.Store(found)
	return found
}

// Size returns the number of live keys.
func (r *Ring) Size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.keys)
}

// Destruct implements caddy.Destructor.
func (r *Ring) Destruct() error {
	r.starts.Do(func() {}) // so that it does not start any more
	if r.stop != nil {
		r.stop()
		r.running.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), lastUsesTimeout)
		defer cancel()
		r.storeUses(ctx) // unless the store is already closed
	}
	return nil
}
