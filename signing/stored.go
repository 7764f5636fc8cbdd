package signing

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// Stored are the signing keys in Caddy's storage, newest first.
type Stored struct {
	Keys []StoredKey `json:"keys"` // newest first; see Signs
	// TokenLifetime is the maximum lifetime of a token of these keys, in seconds, leeway
	// included. A rotation uses it.
	TokenLifetime int64 `json:"token_lifetime"`
	// Issuer is the `iss` of the tokens, if a command can only find the keys by it.
	Issuer string `json:"issuer,omitempty"`
}

// StoredKey is a stored private key.
type StoredKey struct {
	// JWK is the private key (RFC 7517).
	JWK jsontext.Value `json:"jwk"`
	// CreatedAt is when the key was created.
	CreatedAt time.Time `json:"created_at"`
	// SignsFrom is when the key replaces the previous one.
	SignsFrom time.Time `json:"signs_from,omitzero"`
	// VerifyUntil is when the last token of a rotated key expires.
	VerifyUntil time.Time `json:"verify_until,omitzero"`
}

// keyLoadTimeout is the maximum time for loading keys. A storage may ignore the context,
// for example a network file system that hangs.
const keyLoadTimeout = 5 * time.Second

// ErrNoStoredKey means that a storage has no keys at a path.
var ErrNoStoredKey = errors.New("there is no key yet; Caddy creates it when it first runs with this config")

// Folder is the path of all signing keys in a storage.
const Folder = "jwt/signing_keys"

// Path returns the storage path of an issuer's keys. Issuers with different users have
// different keys, so that a token of one is not valid for the other.
func Path(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	return Folder + "/" + hex.EncodeToString(sum[:]) + ".json"
}

// Signs returns the index of the signing key: the newest one that may already sign.
func (s Stored) Signs(now time.Time) int {
	return max(0, slices.IndexFunc(s.Keys, func(k StoredKey) bool { return !k.SignsFrom.After(now) }))
}

// Rotation is a change of the stored keys.
type Rotation struct {
	// Now is the time of the rotation.
	Now time.Time
	// Lead is how long the new key is published before it signs.
	Lead time.Duration
	// Withdraw makes the old keys invalid at once.
	Withdraw bool
	// Remember records the IDs of withdrawn keys, so that they are refused from now on. If
	// it fails, the keys are withdrawn nevertheless. Default: they are not recorded.
	Remember func(ids []string) error
}

// Rotate adds a new key before the others. The old key verifies until its last token has
// expired.
func Rotate(
	ctx context.Context, storage certmagic.Storage, storageKey string, r Rotation,
) (old, successor string, err error) {
	unlock, err := lockStorage(ctx, storage, storageKey)
	if err != nil {
		return "", "", err
	}
	defer unlock()
	stored, err := load(ctx, storage, storageKey)
	if err != nil {
		return "", "", err
	}
	if len(stored.Keys) == 0 {
		return "", "", ErrNoStoredKey
	}
	last, err := jwk.ParseKey(stored.Keys[0].JWK)
	if err != nil {
		return "", "", errors.New("the signing key is corrupt")
	}
	key, err := newStoredKey(last.Algorithm().String(), r.Now)
	if err != nil {
		return "", "", err
	}
	key.SignsFrom = r.Now.Add(r.Lead).UTC()
	old, successor = stored.Keys[stored.Signs(r.Now)].ID(), key.ID()
	verifyUntil := key.SignsFrom.Add(time.Duration(stored.TokenLifetime)*time.Second + rotationMargin)
	kept := []StoredKey{key}
	for i, known := range stored.Keys {
		if i == 0 || known.VerifyUntil.After(verifyUntil) { // one that was to sign for longer does not
			known.VerifyUntil = verifyUntil
		}
		// by no node's clock
		neverSigns := !known.SignsFrom.Before(key.SignsFrom) && known.SignsFrom.After(r.Now.Add(rotationMargin))
		if !r.Withdraw && !neverSigns && known.VerifyUntil.After(r.Now) {
			kept = append(kept, known)
		}
	}
	var rememberErr error
	if r.Withdraw && r.Remember != nil {
		var ids []string
		for _, known := range stored.Keys {
			ids = append(ids, known.ID())
		}
		if err := r.Remember(ids); err != nil {
			rememberErr = fmt.Errorf("the keys are withdrawn, but this was not recorded in the user store, "+
				"so do not restore a backup of them: %w", err)
		}
	}
	stored.Keys = kept
	return old, successor, errors.Join(saveStoredKeys(ctx, storage, storageKey, stored), rememberErr)
}

// ID returns the key ID of a stored key, empty if the key is corrupt.
func (k StoredKey) ID() string {
	parsed, err := jwk.ParseKey(k.JWK)
	if err != nil {
		return ""
	}
	return parsed.KeyID()
}

// newStoredKey creates a key for RS256, EdDSA or ES256.
func newStoredKey(algorithm string, now time.Time) (StoredKey, error) {
	var private any
	var err error
	switch algorithm {
	case "RS256":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "EdDSA":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	default:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return StoredKey{}, err
	}
	key, err := jwk.FromRaw(private)
	if err == nil {
		err = jwk.AssignKeyID(key) // RFC 7638
	}
	if err == nil {
		err = key.Set(jwk.AlgorithmKey, algorithm)
	}
	if err != nil {
		return StoredKey{}, err
	}
	text, err := json.Marshal(key)
	return StoredKey{JWK: text, CreatedAt: now.UTC()}, err
}

func lockStorage(ctx context.Context, storage certmagic.Storage, name string) (unlock func(), err error) {
	if err := storage.Lock(ctx, name); err != nil {
		return nil, fmt.Errorf("locking the signing keys in Caddy's storage: %w", err)
	}
	return func() { _ = storage.Unlock(context.WithoutCancel(ctx), name) }, nil
}

func load(ctx context.Context, storage certmagic.Storage, name string) (stored Stored, err error) {
	text, err := storage.Load(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return stored, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &stored)
	}
	if err != nil { // an error about malformed JSON may quote the key
		if _, broken := errors.AsType[*json.SemanticError](err); broken {
			err = errors.New("they are corrupt")
		}
		return stored, fmt.Errorf("reading the signing keys at %s in Caddy's storage: %w", name, err)
	}
	return stored, nil
}

func saveStoredKeys(ctx context.Context, storage certmagic.Storage, name string, stored Stored) error {
	text, err := json.Marshal(stored)
	if err == nil {
		err = storage.Store(ctx, name, text)
	}
	if err != nil {
		return fmt.Errorf("storing the signing keys at %s in Caddy's storage: %w", name, err)
	}
	return nil
}

// Load returns the stored keys at a path. It returns an error if there are none.
func Load(ctx context.Context, storage certmagic.Storage, path string) (Stored, error) {
	stored, err := load(ctx, storage, path)
	if err == nil && len(stored.Keys) == 0 {
		err = ErrNoStoredKey
	}
	return stored, err
}
