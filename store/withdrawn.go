package store

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// KindWithdrawn is the kind of records of signing keys that must no longer verify, even if
// the storage has them again after restoring a backup. The owner is the place of the keys.
const KindWithdrawn = "withdrawn signing key"

// WithdrawKeys records that the signing keys with these IDs, stored at a place, must be
// refused if they return.
func WithdrawKeys(ctx context.Context, store RecordStore, place string, ids []string) error {
	for _, id := range ids {
		err := store.CreateRecord(ctx, Record{
			Kind: KindWithdrawn, ID: HashToken(place + "\n" + id), Owner: place, Value: []byte(strconv.Quote(id)),
		})
		if err != nil && !errors.Is(err, ErrRecordExists) {
			return err
		}
	}
	return nil
}

// WithdrawnKeys returns the IDs of the withdrawn keys of a place.
func WithdrawnKeys(ctx context.Context, store RecordStore, place string, now time.Time) ([]string, error) {
	records, err := store.Records(ctx, KindWithdrawn, place, now)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, record := range records {
		if id, err := strconv.Unquote(string(record.Value)); err == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
