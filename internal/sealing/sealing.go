// Package sealing encrypts small secrets at rest, such as those of authenticator apps in the user
// store, with a key in Caddy's storage. So a copy of the store alone does not reveal them.
package sealing

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// Path is where the keys are in Caddy's storage. All sites of a storage share them, so that users
// can move from one store to another.
const Path = "jwt/encryption_keys.json"

// ErrOtherKey means that a secret was sealed with a key that the storage does not have, for
// another use, or was changed since.
var ErrOtherKey = errors.New(
	"the secret cannot be decrypted with the keys at " + Path + " in Caddy's storage; was the storage replaced?",
)

const (
	keyBytes       = 32 // AES-256
	keyIDBytes     = 6
	storageTimeout = 5 * time.Second
)

// Box seals and opens secrets. It creates its key when it first seals one.
type Box struct {
	storage certmagic.Storage

	mu   sync.Mutex
	keys []key // as last loaded
}

// stored are the keys in the storage, newest first.
type stored struct {
	Keys []key `json:"keys"`
}

type key struct {
	ID        string    `json:"id"`
	Key       []byte    `json:"key"`
	CreatedAt time.Time `json:"created_at"`
}

// New returns a box with the keys of a storage.
func New(storage certmagic.Storage) *Box { return &Box{storage: storage} }

// Seal encrypts a secret for one use, which Open must name too, such as the kind and ID of the
// record that contains it. An error means that the storage does not work.
func (b *Box) Seal(ctx context.Context, secret []byte, use string, now time.Time) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.keys) == 0 {
		if err := b.ensure(ctx, now); err != nil {
			return "", err
		}
	}
	newest := b.keys[0]
	aead, err := newest.aead()
	if err != nil {
		return "", err
	}
	return newest.ID + "." + base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, secret, []byte(use))), nil
}

// Open decrypts a secret. It returns [ErrOtherKey] if it cannot be decrypted; any other error means
// that the storage does not work.
func (b *Box) Open(ctx context.Context, sealed, use string) ([]byte, error) {
	id, text, _ := strings.Cut(sealed, ".")
	content, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, ErrOtherKey
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	known := b.find(id)
	if known == nil { // another node may have created it
		if b.keys, err = b.load(ctx); err != nil {
			return nil, err
		}
		if known = b.find(id); known == nil {
			return nil, ErrOtherKey
		}
	}
	aead, err := known.aead()
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, content, []byte(use))
	if err != nil {
		return nil, ErrOtherKey
	}
	return secret, nil
}

// aead returns the cipher of a key: AES-GCM with a random nonce, which is safe for 2^32 secrets
// (NIST SP 800-38D §8.3).
func (k *key) aead() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.Key)
	if err != nil {
		return nil, fmt.Errorf("the key %s at %s in Caddy's storage: %w", k.ID, Path, err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (b *Box) find(id string) *key {
	for i := range b.keys {
		if b.keys[i].ID == id {
			return &b.keys[i]
		}
	}
	return nil
}

// ensure loads the keys, and creates one if there is none.
func (b *Box) ensure(ctx context.Context, now time.Time) (err error) {
	if err := b.storage.Lock(ctx, Path); err != nil {
		return fmt.Errorf("locking %s in Caddy's storage: %w", Path, err)
	}
	defer func() { _ = b.storage.Unlock(context.WithoutCancel(ctx), Path) }()
	if b.keys, err = b.load(ctx); err != nil || len(b.keys) > 0 {
		return err
	}
	made := key{ID: rand.Text()[:2*keyIDBytes], Key: make([]byte, keyBytes), CreatedAt: now.UTC()}
	_, _ = rand.Read(made.Key) // never fails
	text, err := json.Marshal(stored{[]key{made}})
	if err == nil {
		err = b.storage.Store(ctx, Path, text)
	}
	if err != nil {
		return fmt.Errorf("storing %s in Caddy's storage: %w", Path, err)
	}
	b.keys = []key{made}
	return nil
}

// load returns the stored keys, or none.
func (b *Box) load(ctx context.Context) ([]key, error) {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	text, err := b.storage.Load(ctx, Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s in Caddy's storage: %w", Path, err)
	}
	var found stored
	if json.Unmarshal(text, &found) != nil { // its error may quote a key
		return nil, fmt.Errorf("reading %s in Caddy's storage: it is corrupt", Path)
	}
	return found.Keys, nil
}
