package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"
)

// RandomToken returns the given number of random bytes as text.
func RandomToken(bytes int) string {
	random := make([]byte, bytes)
	_, _ = rand.Read(random) // never fails
	return base64.RawURLEncoding.EncodeToString(random)
}

// HashToken returns the hash of a random token for storage. A fast hash is sufficient,
// because nobody can guess that many random bits.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// SharedKey returns 32 random bytes that all processes with the store share. They are
// stored in the record with the kind and ID, which the first caller creates.
func SharedKey(ctx context.Context, store RecordStore, kind, id string, now time.Time) ([]byte, error) {
	var key []byte
	kept, err := store.Record(ctx, kind, id, now)
	if errors.Is(err, ErrNotFound) {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		if kept.Value, err = json.Marshal(key); err != nil {
			return nil, err
		}
		err = store.CreateRecord(ctx, Record{Kind: kind, ID: id, Value: kept.Value})
		if errors.Is(err, ErrRecordExists) { // another node created it first
			kept, err = store.Record(ctx, kind, id, now)
		}
	}
	if err == nil {
		err = json.Unmarshal(kept.Value, &key)
	}
	return key, err
}
