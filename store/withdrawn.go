package store

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// kindWithdrawn is of signing keys that must not verify any more, whatever the storage
// has: a backup of it has them too. The owner is where they were stored.
const kindWithdrawn = "withdrawn signing key"

// WithdrawKeys remembers that the signing keys with these IDs, which were stored at a
// place, must be refused should they come back.
func WithdrawKeys(ctx context.Context, store RecordStore, place string, ids []string) error {
	for _, id := range ids {
		err := store.CreateRecord(ctx, Record{
			Kind: kindWithdrawn, ID: HashToken(place + "\n" + id), Owner: place, Value: []byte(strconv.Quote(id)),
		})
		if err != nil && !errors.Is(err, ErrRecordExists) {
			return err
		}
	}
	return nil
}

// WithdrawnKeys returns the IDs of the keys of a place that were withdrawn.
func WithdrawnKeys(ctx context.Context, store RecordStore, place string, now time.Time) ([]string, error) {
	records, err := store.Records(ctx, kindWithdrawn, place, now)
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
