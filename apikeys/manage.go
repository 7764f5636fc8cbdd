package apikeys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// Keys makes and changes the API keys in a store.
type Keys struct {
	// Store has the keys.
	Store store.KeyStore
	// Prefix is the beginning of new keys.
	Prefix string
	// Now returns the time.
	Now func() time.Time
}

// Errors of [Keys]; compare them with errors.Is.
var (
	// ErrNotSupported means that a store cannot have API keys.
	ErrNotSupported = errors.New("this store cannot have API keys")
	// ErrInvalid means that a new key cannot be made; another error says why.
	ErrInvalid = errors.New("this key cannot be made")
	// ErrCorrupt means that what is stored of a key cannot be read.
	ErrCorrupt = errors.New("what is stored of it is corrupt")
	// ErrRolled means that somebody else has just rolled the key.
	ErrRolled = errors.New("the key was rolled a moment ago, so perhaps by somebody else: that new secret is valid")
	// ErrExpired means that the key has expired.
	ErrExpired = errors.New("the key has expired; make a new one")
)

// In returns the keys in a store. It returns [ErrNotSupported] if that cannot have any.
func In(users store.UserStore, prefix string, now func() time.Time) (Keys, error) {
	keys, ok := users.(store.KeyStore)
	if !ok {
		return Keys{}, fmt.Errorf("%T: %w", users, ErrNotSupported)
	}
	return Keys{Store: keys, Prefix: prefix, Now: now}, nil
}

// Make sets ID, CreatedAt and hash of new keys and stores them, all or none. It returns the
// texts of the keys, which are not stored. It returns [store.ErrNotFound] if the owner of one
// does not exist or is disabled, and [ErrInvalid] for a key that cannot be made.
func (k Keys) Make(ctx context.Context, keys ...*Key) (texts []string, err error) {
	now := k.Now()
	rows := make([]store.APIKey, len(keys))
	for i, key := range keys {
		if err := key.Check(now); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		secret := random(secretLength)
		key.Prefix = k.Prefix
		key.ID, key.CreatedAt, key.Hash = random(idLength), now.Truncate(time.Second), hashed(secret)
		if rows[i], err = key.stored(now); err != nil {
			return nil, err
		}
		texts = append(texts, Text(k.Prefix, key.ID, secret))
	}
	return texts, k.Store.CreateKeys(ctx, rows)
}

func hashed(secret string) []byte {
	sum := hash(secret)
	return sum[:]
}

// Get returns the key with the ID, or [store.ErrNotFound].
func (k Keys) Get(ctx context.Context, id string) (Key, error) {
	row, err := k.Store.Key(ctx, id)
	if err != nil {
		return Key{}, err
	}
	return fromStored(row)
}

// List returns at most limit keys that are not revoked, sorted by ID, from after on: those of
// a subject, or all if subject is empty. If some are corrupt, it also returns [ErrCorrupt] for
// each; of these keys only ID, Owner and Subject are known.
func (k Keys) List(ctx context.Context, subject, after string, limit int) ([]Key, error) {
	rows, err := k.Store.Keys(ctx, subject, after, limit)
	if err != nil {
		return nil, err
	}
	keys := make([]Key, len(rows))
	var errs []error
	for i := range rows {
		keys[i], err = fromStored(rows[i])
		errs = append(errs, err)
	}
	return keys, errors.Join(errs...)
}

// rollPause is how long a key cannot be rolled again. So of two who roll it at the same time,
// only one succeeds, and the secret that is in use keeps its grace period.
const rollPause = 10 * time.Second

// MaxGrace is the longest time for which the secret before a roll is accepted.
const MaxGrace = 90 * 24 * time.Hour

// Roll gives a key a new secret and returns its new text. The secret until now is accepted for
// the grace period, but the one before that no longer. Errors: [store.ErrNotFound],
// [ErrRolled], [ErrExpired].
func (k Keys) Roll(ctx context.Context, id string, grace time.Duration) (string, Key, error) {
	if grace < 0 || grace > MaxGrace {
		return "", Key{}, fmt.Errorf("the grace period is %s; it must be from 0s to 90d", grace)
	}
	now := k.Now()
	secret := random(secretLength)
	var rolled Key
	_, err := k.Store.UpdateKey(ctx, id, now, func(row *store.APIKey) (err error) {
		if rolled, err = fromStored(*row); err != nil {
			return err
		}
		if now.Sub(rolled.RolledAt).Abs() < rollPause {
			return ErrRolled
		}
		if !rolled.ExpiresAt.IsZero() && !rolled.ExpiresAt.After(now) {
			return ErrExpired
		}
		rolled.PreviousHash, rolled.PreviousUntil = nil, time.Time{}
		if grace > 0 {
			rolled.PreviousHash, rolled.PreviousUntil = rolled.Hash, now.Add(grace)
		}
		rolled.Hash, rolled.RolledAt = hashed(secret), now
		changed, err := rolled.stored(now)
		row.Value = changed.Value
		return err
	})
	if err != nil {
		return "", Key{}, err
	}
	return Text(rolled.Prefix, id, secret), rolled, nil
}

// Revoke revokes a key. It returns [store.ErrNotFound] if there is no such key.
func (k Keys) Revoke(ctx context.Context, id string) error {
	now := k.Now()
	_, err := k.Store.UpdateKey(ctx, id, now, func(row *store.APIKey) error {
		row.RevokedAt, row.KeptUntil, row.Value = now, now.Add(store.RevokedKeyKept), []byte("{}")
		return nil
	})
	return err
}
