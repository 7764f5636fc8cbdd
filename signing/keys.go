// Package signing manages the keys that sign tokens: keys in Caddy's storage, with rotation
// and withdrawal, and keys in the config.
package signing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/certmagic"
	"github.com/go-json-experiment/json"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"go.uber.org/zap"
)

// Sign returns the claims as a JWS in compact form (RFC 7515 §7.1). typ is set in the
// header unless it is empty.
func (s Signer) Sign(typ string, claims map[string]any) (string, error) {
	payload, err := jwt.MarshalClaims(claims)
	if err != nil {
		return "", err
	}
	header := jws.NewHeaders()
	for name, value := range map[string]string{jws.TypeKey: typ, jws.KeyIDKey: s.ID} {
		if value == "" {
			continue
		}
		if err := header.Set(name, value); err != nil {
			return "", err
		}
	}
	token, err := jws.Sign(
		payload, jws.WithKey(jwa.SignatureAlgorithm(s.Algorithm), s.Key, jws.WithProtectedHeaders(header)),
	)
	return string(token), err
}

const (
	// ReloadInterval is how often stored keys are reloaded, to notice a rotation by a
	// command or another node.
	ReloadInterval = 15 * time.Second
	// unknownKeyCooldown is the minimum time between two reloads for unknown key IDs.
	unknownKeyCooldown = time.Second
	// rotationMargin is how long another node may still sign with a rotated key.
	rotationMargin = time.Minute
	// DefaultLead is how long a new key is published before it signs: until all nodes have
	// loaded it (ReloadInterval), clients that cache the key set have fetched it again (10
	// s), and all clocks have reached the time (10 s).
	DefaultLead = 45 * time.Second
	// LongestLead is longer than anyone caches a key set, and short enough to catch a typo.
	LongestLead = 30 * 24 * time.Hour
)

// keyRing is a consistent set of signing and verifying keys.
type keyRing struct {
	signers []Signer // newest first
	set     *jwt.KeySet
	public  []byte // the JWK set (RFC 7517 §5) for other services
}

// current returns the newest key that may already sign.
func (r *keyRing) current(now time.Time) Signer {
	for _, s := range r.signers {
		if !s.from.After(now) {
			return s
		}
	}
	return r.signers[len(r.signers)-1]
}

// Options configure [New].
type Options struct {
	// Algorithm of new keys: ES256, RS256 or EdDSA (RFC 7518 §3.1).
	Algorithm string
	// Issuer becomes Stored.Issuer of new keys. Default: none.
	Issuer string
	// Storage stores the keys.
	Storage certmagic.Storage
	// Path is the key of the signing keys in Storage.
	Path string
	// TokenLifetime is the maximum lifetime of a token, leeway included. A rotated key
	// still verifies for this long.
	TokenLifetime time.Duration
	// MayMake is called before the first key is created. [ErrNoKeysYet] wraps its error.
	// Default: creating is always allowed.
	MayMake func(context.Context) error
	// Withdrawn returns the IDs of keys that must not be used, wherever they come from. If
	// it fails, its last result is used. Default: none.
	Withdrawn func(context.Context) ([]string, error)
	// Now is the clock. Default: the system's.
	Now func() time.Time
	// Log returns the logger. Default: nothing is logged.
	Log func() *zap.Logger
}

// Keys sign tokens, and implement [jwt.KeySource] to verify them. Unless the keys are in
// the config, they are kept in Caddy's storage, which the nodes of a cluster share. Keys is
// safe for concurrent use.
type Keys struct {
	o         Options
	outage    outage.Outage
	withdrawn map[string]bool // key IDs, as of the last result
	reported  string          // the withdrawn keys that were logged because they are still stored

	ring     atomic.Pointer[keyRing]
	mu       sync.Mutex
	loadedAt time.Time
	loading  atomic.Bool // whether a call to the storage is in progress
}

// New returns the keys in a storage. [Keys.Ensure] loads them or creates the first one.
func New(o Options) *Keys {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = zap.NewNop
	}
	return &Keys{o: o}
}

// Fixed returns a single key from the config.
func Fixed(s Signer) (*Keys, error) {
	k := New(Options{Algorithm: s.Algorithm})
	ring, err := newKeyRing(new(jwt.KeySet), s)
	k.ring.Store(ring)
	return k, err
}

// ErrNoKeysYet means that no keys are created because the user store does not exist yet.
// Stored keys would be proof that it existed.
var ErrNoKeysYet = errors.New("there are no signing keys yet")

// load loads the keys from the storage, unless an earlier call is still in progress.
func (k *Keys) load(ctx context.Context) (Stored, error) {
	if !k.loading.CompareAndSwap(false, true) {
		return Stored{}, errors.New("the storage does not respond")
	}
	type answer struct {
		keys Stored
		err  error
	}
	answered, storage := make(chan answer, 1), k.o.Storage
	go func() {
		keys, err := load(ctx, storage, k.o.Path)
		k.loading.Store(false) // before any waiting caller can call again
		answered <- answer{keys, err}
	}()
	select {
	case a := <-answered:
		return a.keys, a.err
	case <-ctx.Done():
		return Stored{}, ctx.Err()
	case <-time.After(keyLoadTimeout):
		return Stored{}, fmt.Errorf("the storage does not respond within %s", keyLoadTimeout)
	}
}

// Ensure loads the keys or creates the first one, unless that was already done.
func (k *Keys) Ensure(ctx context.Context) error {
	if k.ring.Load() != nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring.Load() != nil {
		return nil
	}
	return k.open(ctx)
}

// current returns the keys. It creates them if the config has not started yet.
func (k *Keys) current(ctx context.Context) (*keyRing, error) {
	if ring := k.ring.Load(); ring != nil {
		return ring, nil
	}
	err := k.Ensure(ctx)
	return k.ring.Load(), err
}

// open loads the keys. If there is none, or all were withdrawn, it creates one.
func (k *Keys) open(ctx context.Context) error {
	unlock, err := lockStorage(ctx, k.o.Storage, k.o.Path)
	if err != nil {
		return err
	}
	defer unlock()
	stored, err := load(ctx, k.o.Storage, k.o.Path)
	if err != nil {
		return err
	}
	stored = k.withoutWithdrawn(ctx, stored)
	lifetime := int64(k.o.TokenLifetime / time.Second)
	if len(stored.Keys) == 0 || stored.TokenLifetime < lifetime {
		stored.TokenLifetime = lifetime
		if len(stored.Keys) == 0 {
			if k.o.MayMake != nil {
				if err := k.o.MayMake(ctx); err != nil {
					return fmt.Errorf("%w: %w", ErrNoKeysYet, err)
				}
			}
			key, err := newStoredKey(k.o.Algorithm, k.o.Now())
			if err != nil {
				return err
			}
			stored.Keys, stored.Issuer = []StoredKey{key}, k.o.Issuer
		}
		if err := saveStoredKeys(ctx, k.o.Storage, k.o.Path, stored); err != nil {
			return err
		}
	}
	return k.use(stored)
}

// use makes the stored keys the current ones. Keys that are no longer stored are marked as
// withdrawn, so that remembered tokens of them are rejected.
func (k *Keys) use(stored Stored) error {
	var signers []Signer
	for i, key := range stored.Keys {
		if i > 0 && !key.VerifyUntil.After(k.o.Now()) {
			continue
		}
		s, algorithms, err := ParsePrivateKey(key.JWK)
		if err != nil {
			return fmt.Errorf("stored signing key %d: %w", i, err)
		}
		s.Algorithm, s.from = algorithms[0], key.SignsFrom
		signers = append(signers, s)
	}
	known := new(jwt.KeySet)
	old := k.ring.Load()
	if old != nil {
		known = old.set
	}
	ring, err := newKeyRing(known, signers...)
	if err != nil {
		return err
	}
	k.ring.Store(ring)
	if old != nil {
		for _, key := range old.set.Keys {
			if ring.set.Same(key) != key {
				key.Withdrawn.Store(true)
			}
		}
	}
	return nil
}

// newKeyRing returns a ring of the signers, newest first. A key that was already known
// keeps its Key object.
func newKeyRing(known *jwt.KeySet, signers ...Signer) (*keyRing, error) {
	ring := &keyRing{signers: signers}
	public := jwk.NewSet()
	var keys []*jwt.Key
	for _, s := range signers {
		if secret, ok := s.Key.([]byte); ok {
			key, err := jwt.NewSecretKey(secret)
			if err != nil {
				return nil, err
			}
			keys = append(keys, key)
			continue
		}
		published, err := publicHalf(s)
		if err != nil {
			return nil, err
		}
		if err := public.AddKey(published); err != nil {
			return nil, err
		}
		text, err := json.Marshal(published)
		if err != nil {
			return nil, err
		}
		key, err := jwt.ParseJWK(text)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	ring.set = known.Replace(keys...)
	var err error
	ring.public, err = json.Marshal(public)
	return ring, err
}

func publicHalf(s Signer) (jwk.Key, error) {
	private, err := jwk.FromRaw(s.Key)
	if err != nil {
		return nil, err
	}
	public, err := private.PublicKey()
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]any{
		jwk.KeyIDKey: s.ID, jwk.AlgorithmKey: s.Algorithm, jwk.KeyUsageKey: jwk.ForSignature,
	} {
		if err := public.Set(name, value); err != nil {
			return nil, err
		}
	}
	return public, nil
}

// Thumbprint returns a key ID for a key that has none (RFC 7638).
func Thumbprint(key any) (string, error) {
	parsed, err := jwk.FromRaw(key)
	if err == nil {
		err = jwk.AssignKeyID(parsed)
	}
	if err != nil {
		return "", err
	}
	return parsed.KeyID(), nil
}

// Sign returns a JWT in compact form, signed with the current key. typ is set in the header
// unless it is empty.
func (k *Keys) Sign(typ string, claims map[string]any) (string, error) {
	ring, err := k.current(context.Background())
	if err != nil {
		return "", err
	}
	return ring.current(k.o.Now()).Sign(typ, claims)
}

// JWKS returns the JWK set (RFC 7517 §5) that verifies the tokens.
func (k *Keys) JWKS() []byte {
	ring, err := k.current(context.Background())
	if err != nil {
		return []byte(`{"keys":[]}`)
	}
	return ring.public
}

// Algorithms returns the algorithms that the keys verify (RFC 7518 §3.1), sorted.
func (k *Keys) Algorithms() []string {
	if ring := k.ring.Load(); ring != nil {
		return ring.set.Algorithms()
	}
	return []string{k.o.Algorithm}
}

// SigningAlgorithms returns the algorithms that the keys sign with, sorted.
func (k *Keys) SigningAlgorithms() []string {
	ring := k.ring.Load()
	if ring == nil {
		return []string{k.o.Algorithm}
	}
	var algorithms []string
	for _, signer := range ring.signers {
		algorithms = append(algorithms, signer.Algorithm)
	}
	slices.Sort(algorithms)
	return slices.Compact(algorithms)
}

// Find implements KeySource. It reloads the keys for an unknown key ID, because another
// node may have just started to sign with a new key.
func (k *Keys) Find(ctx context.Context, hint jwt.KeyHint) ([]*jwt.Key, error) {
	ring, err := k.current(ctx)
	if err != nil {
		return nil, &refusal.Error{Reason: refusal.KeysUnavailable, Detail: err.Error(), RetryAfter: time.Second}
	}
	keys := ring.set.Match(hint)
	if len(keys) == 0 && k.Reload(ctx, unknownKeyCooldown) == nil {
		keys = k.ring.Load().set.Match(hint)
	}
	return keys, nil
}

// Reload reloads keys that a command or another node may have changed, unless the last
// reload was less than after ago. It logs when reloading fails, and when it works again.
func (k *Keys) Reload(ctx context.Context, after time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.o.Storage == nil || k.o.Now().Sub(k.loadedAt) < after {
		return nil
	}
	k.loadedAt = k.o.Now()
	stored, err := k.load(ctx)
	if err == nil {
		stored = k.withoutWithdrawn(ctx, stored)
	}
	if err == nil && len(stored.Keys) > 0 { // otherwise the keys in memory stay in use
		err = k.use(stored)
	}
	if ctx.Err() == nil {
		k.outage.Note(
			k.o.Log(), k.o.Now(), err, help.See("signing-keys-not-readable"),
			"signing keys not readable; using the keys in memory", "signing keys readable again",
		)
	}
	return err
}

// withoutWithdrawn returns the keys that were not withdrawn.
func (k *Keys) withoutWithdrawn(ctx context.Context, stored Stored) Stored {
	if k.o.Withdrawn == nil {
		return stored
	}
	if ids, err := k.o.Withdrawn(ctx); err == nil {
		k.withdrawn = make(map[string]bool)
		for _, id := range ids {
			k.withdrawn[id] = true
		}
	}
	var refused []string
	stored.Keys = slices.DeleteFunc(slices.Clone(stored.Keys), func(key StoredKey) bool {
		id := key.ID()
		if k.withdrawn[id] {
			refused = append(refused, id)
		}
		return k.withdrawn[id]
	})
	if text := strings.Join(refused, " "); text != k.reported {
		k.reported = text
		if text != "" {
			k.o.Log().Warn(
				"withdrawn signing keys are in the storage again, as after restoring a backup; they are refused",
				help.See("withdrawn-keys-in-storage"),
				zap.Strings("kid", refused), zap.String("storage_key", k.o.Path),
			)
		}
	}
	return stored
}

// Interface guards
var _ jwt.KeySource = (*Keys)(nil)
