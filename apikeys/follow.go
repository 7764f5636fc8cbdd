package apikeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

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
		r.full.Works(now)
	}
	err := r.learn(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.notReadable.Note(r.log, now, err, help.See("api-keys-not-readable"),
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
				"so raise max_keys, or revoke keys",
				help.See("too-many-api-keys"), zap.Int64("max_keys", r.most.Load()))
		}
		return
	}
	next := &entry{subject: row.Subject, value: row.Value, owner: of}
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
		of = new(owner)
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

// ReadAgain makes the next Learn load everything: the store may be another one than before.
func (r *Ring) ReadAgain() {
	r.learning.Lock()
	defer r.learning.Unlock()
	r.since = time.Time{}
}

// poll is how often the store is read, so that all nodes know a change within a second.
const poll = 400 * time.Millisecond

// Start loads the keys, for the first config only, and follows the changes in the store.
func (r *Ring) Start(ctx context.Context) {
	r.starts.Do(func() {
		if err := r.Learn(ctx); err == nil && r.Size() == 0 { // an error is already logged
			r.log.Info("there are no API keys yet; make one with: caddy jwt key add --config <file> --subject <user>")
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
			r.ReadAgain() // changes are selected by time
		}
		last = now
		_ = r.Learn(ctx) // which logs
		if r.cleans && cleanUps.Due(now) {
			_ = r.Users().CleanUp(ctx, now) // the next one removes what this one did not
		}
	}
}
