package apikeys

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// uses are keys whose use is not yet stored, by ID.
type uses struct {
	mu      sync.Mutex
	pending map[string]time.Time
}

// lastUsesTimeout is how long Caddy waits for the store when it stops.
const lastUsesTimeout = 2 * time.Second

// useInterval is how often uses are stored, and how exactly they are known.
const useInterval = time.Minute

// note notes that a key is used, once a minute.
func (u *uses) note(key *parsed, id string, now time.Time) {
	minute := now.Unix() / int64(useInterval/time.Second)
	if key.noted.Load() == minute {
		return
	}
	key.noted.Store(minute)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pending[id] = now
}

// storeUses stores when keys were used. A failure is not logged, because the store is read all
// the time, and that is.
func (r *Ring) storeUses(ctx context.Context) {
	r.uses.mu.Lock()
	used := r.uses.pending
	r.uses.pending = make(map[string]time.Time)
	r.uses.mu.Unlock()
	keys, ok := r.Users().(store.KeyStore)
	if len(used) == 0 || !ok || keys.NoteKeysUsed(ctx, used) == nil {
		return
	}
	r.uses.mu.Lock()
	defer r.uses.mu.Unlock()
	maps.Copy(used, r.uses.pending)
	r.uses.pending = used
}
