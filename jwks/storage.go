package jwks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
)

// Storage keeps the last good set over restarts. A certmagic.Storage is one.
type Storage interface {
	// Load returns the value of a key, or fs.ErrNotExist.
	Load(ctx context.Context, key string) ([]byte, error)
	// Store keeps the value of a key.
	Store(ctx context.Context, key string, value []byte) error
}

type storageRef struct{ Storage }

// noStorage is for a program that keeps no set.
type noStorage struct{}

func (noStorage) Load(context.Context, string) ([]byte, error) { return nil, fs.ErrNotExist }

func (noStorage) Store(context.Context, string, []byte) error { return nil }

// storedKeySet is the last good set in Caddy's storage.
type storedKeySet struct {
	URL       string         `json:"url"`
	FetchedAt time.Time      `json:"fetched_at"`
	KeySet    jsontext.Value `json:"key_set"`
}

func (c *KeySet) storageKey() string {
	sum := sha256.Sum256([]byte(c.source()))
	return "jwt/key_sets/" + hex.EncodeToString(sum[:]) + ".json"
}

// maxClockDifference is how far ahead the clock of another node may be.
const maxClockDifference = 5 * time.Minute

// load takes the set from storage, if one is there and not beyond max_stale,
// and returns how long it is good before the next fetch.
func (c *KeySet) load() time.Duration {
	text, err := c.storage.Load().Load(c.ctx, c.storageKey())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.log().Warn("stored key set not readable; fetching it again", zap.Error(err))
		}
		return 0
	}
	var stored storedKeySet
	if err := json.Unmarshal(text, &stored); err != nil || stored.URL != c.Name() {
		c.log().Warn("stored key set corrupt; fetching it again", zap.String("storage_key", c.storageKey()))
		return 0
	}
	age := clock.Now().Sub(stored.FetchedAt)
	keys, _, err := jwt.ParseKeySet(stored.KeySet)
	if err != nil {
		return 0
	}
	if age < -maxClockDifference {
		return 0
	}
	age = max(0, age)
	if age > c.MaxStale {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fetchedAt = stored.FetchedAt // keys were had, and are out of date
		return 0
	}
	c.accept(keys, clock.Now().Add(-age))
	return max(0, c.beforeRefresh()-age)
}

func (c *KeySet) save(document []byte, fetchedAt time.Time) {
	text, err := json.Marshal(storedKeySet{URL: c.Name(), FetchedAt: fetchedAt.UTC(), KeySet: document})
	if err == nil {
		err = c.storage.Load().Store(c.ctx, c.storageKey(), text)
	}
	if err != nil {
		c.log().Warn("key set not stored; after a restart, tokens cannot be verified until it is fetched", zap.Error(err))
	}
}
