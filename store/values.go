package store

import (
	"context"
	"encoding/json"
	"time"
)

// ChangeValue changes the JSON value of a record atomically, and returns it. If change returns an
// error, nothing is changed. Errors are those of UpdateRecord.
func ChangeValue[T any](
	ctx context.Context, records RecordStore, kind, id string, now time.Time, change func(*T) error,
) (value T, err error) {
	_, err = records.UpdateRecord(ctx, kind, id, now, func(record *Record) error {
		value = *new(T)
		err := json.Unmarshal(record.Value, &value)
		if err == nil {
			err = change(&value)
		}
		if err == nil {
			record.Value, err = json.Marshal(value)
		}
		return err
	})
	return value, err
}

// Values returns the JSON values of the records of a kind with their IDs: those of an owner, or all
// if owner is empty. It skips values of another form.
func Values[T any](
	ctx context.Context, records RecordStore, kind, owner string, now time.Time,
) (ids []string, values []T, err error) {
	found, err := records.Records(ctx, kind, owner, now)
	for _, record := range found {
		var value T
		if json.Unmarshal(record.Value, &value) == nil {
			ids, values = append(ids, record.ID), append(values, value)
		}
	}
	return ids, values, err
}
