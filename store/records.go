package store

import (
	"context"
	"errors"
	"time"
)

// Record is additional data in the store, such as a client or a grant of the OpenID
// Provider, or a log-in at another provider. The store only interprets its expiry and
// owner.
type Record struct {
	// Kind and ID identify the record.
	Kind, ID string
	// Owner is the ID of the user or session that the record belongs to, or empty. If a
	// user is deleted, the records of the user and of its sessions are deleted too.
	Owner string
	// Value is JSON.
	Value []byte
	// ExpiresAt is when the record expires; zero for never.
	ExpiresAt time.Time
}

// RecordStore stores records. All operations are atomic, also between processes.
type RecordStore interface {
	// CreateRecord adds a record. It returns [ErrRecordExists] if a record of this kind has
	// the ID, even if it has expired.
	CreateRecord(ctx context.Context, record Record) error
	// Record returns a record that has not expired, or [ErrNotFound].
	Record(ctx context.Context, kind, id string, now time.Time) (Record, error)
	// UpdateRecord changes owner, value and expiry of a record atomically, and returns the
	// changed record. If change returns an error, UpdateRecord returns it and changes
	// nothing. It may call change again after a concurrent change. It returns [ErrNotFound]
	// if there is no such record.
	UpdateRecord(ctx context.Context, kind, id string, now time.Time, change func(*Record) error) (Record, error)
	// TakeRecord removes a record and returns it: of several callers, only one succeeds.
	// The others get [ErrNotFound].
	TakeRecord(ctx context.Context, kind, id string, now time.Time) (Record, error)
	// Records returns the records of a kind that have not expired, sorted by ID: those of
	// an owner, or all if owner is empty.
	Records(ctx context.Context, kind, owner string, now time.Time) ([]Record, error)
}

// ErrRecordExists means that a record of this kind already has the ID.
var ErrRecordExists = errors.New("the record already exists")
