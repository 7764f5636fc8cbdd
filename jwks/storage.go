package jwks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.uber.org/zap"
)

// Storage keeps the last valid set across restarts. A certmagic.Storage implements it.
type Storage interface {
	// Load returns the value of a key, or fs.ErrNotExist.
	Load(ctx context.Context, key string) ([]byte, error)
	// Store sets the value of a key.
	Store(ctx context.Context, key string, value []byte) error
}

type storageRef struct{ Storage }

// noStorage stores nothing.
type noStorage struct{}

func (noStorage) Load(context.Context, string) ([]byte, error) { return nil, fs.ErrNotExist }

func (noStorage) Store(context.Context, string, []byte) error { return nil }

// storedKeySet is the last valid set in Caddy's storage.
type storedKeySet struct {
	URL       string         `json:"url"`
	FetchedAt time.Time      `json:"fetched_at"`
	KeySet    jsontext.Value `json:"key_set"`
}

func (c *KeySet) storageKey() string {
	what := c.source()
	if c.Headers != "" { // they may decide which keys the server returns
		what += "\n" + string(c.Headers)
	}
	sum := sha256.Sum256([]byte(what))
	return "jwt/key_sets/" + hex.EncodeToString(sum[:]) + ".json"
}

// maxClockDifference is how far the clock of another node may be ahead.
const maxClockDifference = 5 * time.Minute

// load restores the set from storage, unless it is missing or older than max_stale. It
// returns how long the set can be used before the next fetch.
func (c *KeySet) load() time.Duration {
	text, err := c.storage.Load().Load(c.ctx, c.storageKey())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.log().Warn(
				"stored key set not readable; fetching it again", help.See("stored-key-set-not-readable"),
				zap.Error(err),
			)
		}
		return 0
	}
	var stored storedKeySet
	if err := json.Unmarshal(text, &stored); err != nil || stored.URL != c.Name() {
		c.log().Warn(
			"stored key set corrupt; fetching it again", help.See("stored-key-set-corrupt"),
			zap.String("storage_key", c.storageKey()),
		)
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
		c.fetchedAt = stored.FetchedAt // the stored keys are out of date
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
		c.log().Warn(
			"key set not stored; after a restart, tokens cannot be verified until it is fetched",
			help.See("key-set-not-stored"), zap.Error(err),
		)
	}
}
