package store

import (
	"context"
	"time"
)

// APIKey is an API key as it is stored, without its secret.
type APIKey struct {
	// ID is the part of the key that is not secret.
	ID string
	// Owner is the ID of the user that the key belongs to; empty for a service.
	Owner string
	// Subject is the `sub` of the key: the user's ID, or the name of the service.
	Subject string
	// Value is JSON, which only package apikeys interprets.
	Value []byte
	// ExpiresAt is when the key expires; zero for never.
	ExpiresAt time.Time
	// RevokedAt is when the key was revoked or its user was deleted; zero for never. A revoked
	// key remains in the store until KeptUntil, so that other processes notice.
	RevokedAt time.Time
	// KeptUntil is when CleanUp removes the key; zero for never.
	KeptUntil time.Time
	// ChangedAt is when the key was created or last changed; its use is not a change.
	ChangedAt time.Time
	// UsedAt is about when the key was last used; zero for never.
	UsedAt time.Time
}

// RevokedKeyKept is how long a revoked key remains in the store. A process that could not read
// the store for half as long loads all keys again.
const RevokedKeyKept = 24 * time.Hour

// KeyStore is an optional interface of a [UserStore] that stores API keys. DeleteUser of such a
// store also revokes the user's keys.
type KeyStore interface {
	// CreateKeys adds keys, all or none. It returns [ErrNotFound] if the owner of one does not
	// exist or is disabled.
	CreateKeys(ctx context.Context, keys []APIKey) error
	// Key returns the key with the ID, or [ErrNotFound] if it does not exist or was revoked.
	Key(ctx context.Context, id string) (APIKey, error)
	// Keys returns at most limit keys that are not revoked and whose ID is greater than after,
	// sorted by ID: those of a subject, or all if subject is empty.
	Keys(ctx context.Context, subject, after string, limit int) ([]APIKey, error)
	// UpdateKey changes a key that is not revoked in a transaction and returns the changed key.
	// ID, Owner and UsedAt are kept; ChangedAt is set to now. If change returns an error,
	// UpdateKey returns it and changes nothing. It may call change again after a concurrent
	// change. It returns [ErrNotFound] if there is no such key.
	UpdateKey(ctx context.Context, id string, now time.Time, change func(*APIKey) error) (APIKey, error)
	// RevokeKeys revokes all keys of an owner.
	RevokeKeys(ctx context.Context, owner string, now time.Time) error
	// ChangedKeys returns at most limit keys that were changed at or after since, revoked ones
	// too, and whose ID is greater than after, sorted by ID. If since is zero, it returns all
	// keys that are not revoked.
	ChangedKeys(ctx context.Context, since time.Time, after string, limit int) ([]APIKey, error)
	// ChangedOwners returns the users that have a key and were changed at or after since, with
	// only their ID, Roles and Disabled.
	ChangedOwners(ctx context.Context, since time.Time) ([]User, error)
	// NoteKeysUsed stores when keys were used, by ID, unless they were used later.
	NoteKeysUsed(ctx context.Context, used map[string]time.Time) error
}
