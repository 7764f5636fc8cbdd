package apikeys

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
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
type owner struct {
	id    string
	state atomic.Pointer[ownerState]
}

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
			keys: make(map[string]*entry), owners: make(map[string]*owner), uses: newUses(),
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
	if err != nil || len(key.Hash) == 0 {
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

// rowsAtOnce is how many keys are read at once.
const rowsAtOnce = 5000

// overlap is read again, for changes that were written late or with a slow clock.
const overlap = 10 * time.Second

// Learn reads the changes in the store.
func (r *Ring) Learn(ctx context.Context) error {
	r.learning.Lock()
	defer r.learning.Unlock()
	now := clock.Now()
	if now.Sub(r.readAt) > store.RevokedKeyKept/2 || now.Before(r.readAt) {
		r.since = time.Time{}
	}
	if r.dropped && int64(r.Size()) < r.most.Load() { // there is room again
		r.since, r.dropped = time.Time{}, false
	}
	err := r.learn(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.notReadable.Note(r.log, now, err,
		"API keys not readable; those in memory are used, and keys that other processes revoke stay valid",
		"API keys readable again")
	if err == nil {
		r.since, r.readAt = now.Add(-overlap), now
	}
	return err
}

func (r *Ring) learn(ctx context.Context) error {
	keys, ok := r.Users().(store.KeyStore)
	if !ok {
		return fmt.Errorf("%T: %w", r.Users(), ErrNotSupported)
	}
	owners, err := keys.ChangedOwners(ctx, r.since)
	if err != nil {
		return err
	}
	r.learnOwners(owners)
	if !r.since.IsZero() {
		return r.eachChanged(ctx, keys, func(rows []store.APIKey, of []*owner) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for i := range rows {
				r.put(r.keys, &rows[i], of[i])
			}
		})
	}
	all := make(map[string]*entry, len(r.keys))
	err = r.eachChanged(ctx, keys, func(rows []store.APIKey, of []*owner) {
		for i := range rows {
			r.put(all, &rows[i], of[i])
		}
	})
	if err == nil {
		r.mu.Lock()
		r.keys = all
		r.mu.Unlock()
		r.loaded.Store(true)
	}
	return err
}

func (r *Ring) eachChanged(ctx context.Context, keys store.KeyStore, put func([]store.APIKey, []*owner)) error {
	for after := ""; ; {
		rows, err := keys.ChangedKeys(ctx, r.since, after, rowsAtOnce)
		if err != nil || len(rows) == 0 {
			return err
		}
		of := make([]*owner, len(rows))
		for i := range rows {
			if of[i], err = r.ownerOf(ctx, &rows[i]); err != nil {
				return err
			}
		}
		put(rows, of)
		if after = rows[len(rows)-1].ID; len(rows) < rowsAtOnce {
			return nil
		}
	}
}

// put replaces or removes a key. A key that has not changed stays as it is.
func (r *Ring) put(into map[string]*entry, row *store.APIKey, of *owner) {
	if !row.RevokedAt.IsZero() {
		delete(into, row.ID)
		return
	}
	if into[row.ID] == nil && int64(len(into)) >= r.most.Load() {
		r.dropped = true
		if say, _ := r.full.Fails(clock.Now()); say {
			r.log.Error("there are more API keys than max_keys; those that are not in memory are refused, "+
				"so raise max_keys, or revoke keys", zap.Int64("max_keys", r.most.Load()))
		}
		return
	}
	next := &entry{subject: row.Subject, value: row.Value, owner: of}
	if of != nil && of.id == row.Subject {
		next.subject = of.id // share the memory
	}
	if !row.ExpiresAt.IsZero() {
		next.expires = row.ExpiresAt.UnixMilli()
	}
	if known := r.keys[row.ID]; known != nil {
		if bytes.Equal(known.value, next.value) && known.expires == next.expires && known.subject == next.subject {
			next = known
		} else {
			next.limiter.Store(known.limiter.Load())
		}
	}
	into[row.ID] = next
}

func (r *Ring) learnOwners(changed []store.User) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, user := range changed {
		r.ownerLocked(user.ID).state.Store(&ownerState{roles: user.Roles, gone: user.Disabled})
	}
}

func (r *Ring) ownerLocked(id string) *owner {
	of := r.owners[id]
	if of == nil {
		of = &owner{id: id}
		of.state.Store(&ownerState{gone: true})
		r.owners[id] = of
	}
	return of
}

// ownerOf returns the owner of a key, or nil for a service. A user who had no key before is
// read.
func (r *Ring) ownerOf(ctx context.Context, row *store.APIKey) (*owner, error) {
	if row.Owner == "" || !row.RevokedAt.IsZero() {
		return nil, nil
	}
	r.mu.RLock()
	of := r.owners[row.Owner]
	r.mu.RUnlock()
	if of != nil {
		return of, nil
	}
	user, err := r.Users().User(ctx, row.Owner)
	if errors.Is(err, store.ErrNotFound) {
		user, err = store.User{ID: row.Owner, Disabled: true}, nil
	}
	if err != nil {
		return nil, err
	}
	r.learnOwners([]store.User{user})
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.owners[row.Owner], nil
}

// LearnAll makes all rings of this process read the changes in their stores now. A failure is
// logged, and they read again soon.
func LearnAll(ctx context.Context) {
	rings.Range(func(_, ring any) bool {
		_ = ring.(*Ring).Learn(ctx)
		return true
	})
}

// poll is how often the store is read, so that all nodes know a change within a second.
const poll = 400 * time.Millisecond

// Start loads the keys, for the first config only, and follows the changes in the store.
func (r *Ring) Start(ctx context.Context) {
	r.starts.Do(func() {
		if err := r.Learn(ctx); err == nil && r.Size() == 0 { // an error is already logged
			r.log.Info("there are no API keys yet; make one with: caddy jwt key add --subject <user or service>")
		}
		var followed context.Context
		followed, r.stop = context.WithCancel(context.Background())
		r.running.Go(func() { r.follow(followed) })
	})
}

func (r *Ring) follow(ctx context.Context) {
	last := clock.Now()
	cleanUps := clock.NewCleanUps(last)
	noteUses := time.NewTicker(useInterval)
	defer noteUses.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-noteUses.C:
			r.storeUses(ctx)
			continue
		case <-time.After(poll):
		}
		now := clock.Now()
		if _, moved := clock.Moved(last, now); moved {
			r.learning.Lock()
			r.since = time.Time{} // changes are selected by time
			r.learning.Unlock()
		}
		last = now
		_ = r.Learn(ctx) // which logs
		if r.cleans && cleanUps.Due(now) {
			_ = r.Users().CleanUp(ctx, now) // the next one removes what this one did not
		}
	}
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

// uses are keys whose use is not yet stored, by ID.
type uses struct {
	mu      *sync.Mutex
	pending map[string]time.Time
}

// lastUsesTimeout is how long Caddy waits for the store when it stops.
const lastUsesTimeout = 2 * time.Second

// useInterval is how often uses are stored, and how exactly they are known.
const useInterval = time.Minute

func newUses() uses { return uses{new(sync.Mutex), make(map[string]time.Time)} }

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
