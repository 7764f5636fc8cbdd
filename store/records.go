package store

import (
	"context"
	"errors"
	"time"
)

// Record is something that is kept beside the users: a client or a grant of
// the OpenID Provider, a log-in at another one. What is in it is up to whoever
// keeps it; the store knows only when it ends and what it goes with.
type Record struct {
	// Kind and ID name the record.
	Kind, ID string
	// Owner is whom it belongs to: the ID of a user or a session, for example.
	// It goes with the user. Empty for nobody.
	Owner string
	// Value is JSON.
	Value []byte
	// ExpiresAt ends it. Zero for never.
	ExpiresAt time.Time
}

// RecordStore keeps records. Of any number of callers at once, in several
// processes too, one succeeds where only one may.
type RecordStore interface {
	// CreateRecord adds a record. [ErrRecordExists] if one of this kind has the
	// ID, expired or not.
	CreateRecord(ctx context.Context, record Record) error
	// Record returns a record that has not expired by now; [ErrNotFound].
	Record(ctx context.Context, kind, id string, now time.Time) (Record, error)
	// UpdateRecord changes owner, value and expiry of a record in one step, and
	// returns it as changed. An error of change is returned as it is, and
	// nothing is changed. change may be called again if another caller was
	// faster. [ErrNotFound].
	UpdateRecord(ctx context.Context, kind, id string, now time.Time, change func(*Record) error) (Record, error)
	// TakeRecord removes a record and returns it: of any number of callers one
	// succeeds. [ErrNotFound].
	TakeRecord(ctx context.Context, kind, id string, now time.Time) (Record, error)
	// Records returns the records of a kind that have not expired, in the order
	// of their IDs: those of an owner, or all if that is empty.
	Records(ctx context.Context, kind, owner string, now time.Time) ([]Record, error)
}

// ErrRecordExists means that a record of the kind has the ID already.
var ErrRecordExists = errors.New("the record already exists")
