package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// recordEnd returns the stored expiry of a record: far in the future for never.
func recordEnd(t time.Time) int64 {
	if t.IsZero() {
		return math.MaxInt64
	}
	return t.UnixMilli()
}

const recordColumns = `kind, id, owner, value, expires_at, version`

type versionedRecord struct {
	store.Record
	version int64
}

func scanRecord(row interface{ Scan(...any) error }) (r versionedRecord, err error) {
	var expires int64
	err = row.Scan(&r.Kind, &r.ID, &r.Owner, &r.Value, &expires, &r.version)
	if expires != math.MaxInt64 {
		r.ExpiresAt = fromMilliseconds(expires)
	}
	return r, err
}

// CreateRecord implements RecordStore.
func (s *Store) CreateRecord(ctx context.Context, r store.Record) error {
	added, err := s.Exec(
		ctx, `INSERT INTO records (`+recordColumns+`) VALUES ($1, $2, $3, $4, $5, 1) ON CONFLICT (kind, id) DO NOTHING`,
		r.Kind, r.ID, r.Owner, string(r.Value), recordEnd(r.ExpiresAt),
	)
	if err == nil && added == 0 {
		return store.ErrRecordExists
	}
	return err
}

func (s *Store) record(ctx context.Context, kind, id string, now time.Time) (versionedRecord, error) {
	if !canBeThere(id) {
		return versionedRecord{}, store.ErrNotFound
	}
	return one(query(
		ctx, s, scanRecord, `SELECT `+recordColumns+` FROM records WHERE kind = $1 AND id = $2 AND expires_at > $3`,
		kind, id, milliseconds(now),
	))
}

// Record implements RecordStore.
func (s *Store) Record(ctx context.Context, kind, id string, now time.Time) (store.Record, error) {
	r, err := s.record(ctx, kind, id, now)
	return r.Record, err
}

// UpdateRecord implements RecordStore.
func (s *Store) UpdateRecord(
	ctx context.Context, kind, id string, now time.Time, change func(*store.Record) error,
) (store.Record, error) {
	for {
		r, err := s.record(ctx, kind, id, now)
		if err != nil {
			return store.Record{}, err
		}
		changed := r.Record
		if err := change(&changed); err != nil {
			return store.Record{}, err
		}
		changed.Kind, changed.ID = kind, id
		updated, err := s.Exec(
			ctx,
			`UPDATE records SET owner = $1, value = $2, expires_at = $3, version = version + 1
			WHERE kind = $4 AND id = $5 AND version = $6`,
			changed.Owner, string(changed.Value), recordEnd(changed.ExpiresAt), kind, id, r.version,
		)
		if err != nil {
			return store.Record{}, err
		}
		if updated == 1 {
			return changed, nil
		}
	}
}

// TakeRecord implements RecordStore.
func (s *Store) TakeRecord(ctx context.Context, kind, id string, now time.Time) (store.Record, error) {
	if !canBeThere(id) {
		return store.Record{}, store.ErrNotFound
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, write, err := s.Connect(ctx)
	if err != nil {
		return store.Record{}, err
	}
	var r versionedRecord
	err = s.retried(ctx, func() (err error) {
		r, err = scanRecord(write.QueryRowContext(
			ctx, `DELETE FROM records WHERE kind = $1 AND id = $2 AND expires_at > $3 RETURNING `+recordColumns,
			kind, id, milliseconds(now),
		))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return store.Record{}, store.ErrNotFound
	}
	return r.Record, s.acknowledged(ctx, err)
}

// Records implements RecordStore.
func (s *Store) Records(ctx context.Context, kind, owner string, now time.Time) ([]store.Record, error) {
	found, err := query(
		ctx, s, scanRecord,
		`SELECT `+recordColumns+
			` FROM records WHERE kind = $1 AND ($2 = '' OR owner = $2) AND expires_at > $3 ORDER BY id`,
		kind, owner, milliseconds(now),
	)
	records := make([]store.Record, len(found))
	for i := range found {
		records[i] = found[i].Record
	}
	return records, err
}
