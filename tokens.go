package caddyjwt

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"go.uber.org/zap"
)

// signToken makes a JWS in compact form (RFC 7515 §7.1) of the claims.
func signToken(s signer, typ string, claims map[string]any) (string, error) {
	payload, err := jwt.MarshalClaims(claims)
	if err != nil {
		return "", err
	}
	header := jws.NewHeaders()
	for name, value := range map[string]string{jws.TypeKey: typ, jws.KeyIDKey: s.id} {
		if value == "" {
			continue
		}
		if err := header.Set(name, value); err != nil {
			return "", err
		}
	}
	token, err := jws.Sign(payload, jws.WithKey(jwa.SignatureAlgorithm(s.algorithm), s.key, jws.WithProtectedHeaders(header)))
	return string(token), err
}

const (
	// keyReload is how often stored keys are looked at again, for a rotation
	// by the command or by another node.
	keyReload = 15 * time.Second
	// unknownKeyCooldown is the least time between two look-ups that unknown
	// key IDs cause.
	unknownKeyCooldown = time.Second
	// rotationMargin is how long a rotated key may still sign somewhere.
	rotationMargin = time.Minute
	// rotationLead is how long a new key is published before it signs: until all
	// nodes have it (keyReload), whoever keeps the key set for as long as they may
	// has fetched it anew (10 s), and by the clock of any node (10 s).
	rotationLead = 45 * time.Second
	// longestLead is more than anybody keeps a key set, and no slip of the keyboard.
	longestLead = 30 * 24 * time.Hour
)

// storedKeys are the signing keys in Caddy's storage, the newest first.
type storedKeys struct {
	Keys []storedKey `json:"keys"`
	// TokenLifetime is the longest that a token of these keys may be good, in
	// seconds, leeway included, so that a rotation knows.
	TokenLifetime int64 `json:"token_lifetime"`
}

type storedKey struct {
	JWK       jsontext.Value `json:"jwk"`
	CreatedAt time.Time      `json:"created_at"`
	// SignsFrom is when the key takes the place of the one after it.
	SignsFrom time.Time `json:"signs_from,omitzero"`
	// VerifyUntil is when the last token of a rotated key has expired.
	VerifyUntil time.Time `json:"verify_until,omitzero"`
}

// keyRing is what signs and what verifies at one time.
type keyRing struct {
	signers []signer // the newest first
	set     *jwt.KeySet
	public  []byte // the JWK set (RFC 7517 §5) for other services
}

// signer is the newest key whose time has come.
func (r *keyRing) signer(now time.Time) signer {
	for _, s := range r.signers {
		if !s.from.After(now) {
			return s
		}
	}
	return r.signers[len(r.signers)-1]
}

// SigningKeys sign tokens, and are the [KeySource] that verifies them. They are
// kept in Caddy's storage, which a cluster shares, unless they come from the
// config. They are safe for concurrent use.
type SigningKeys struct {
	algorithm  string            // of a key that is made
	storage    certmagic.Storage // nil for keys from the config
	storageKey string
	lifetime   time.Duration
	now        func() time.Time
	users      func() store.UserStore // that remembers which keys were withdrawn; may be nil

	mayMake   func(context.Context) error // nil: at any time
	outage    outage.Outage
	withdrawn map[string]bool // key IDs, as the users' store last said
	said      string          // of the withdrawn keys that are stored all the same

	ring     atomic.Pointer[keyRing]
	mu       sync.Mutex
	loadedAt time.Time
	loading  atomic.Bool // whether the storage has been asked and has not answered
}

// errNoKeysYet means that no keys are made before there is a store, to which they would
// be proof that it was there.
var errNoKeysYet = errors.New("there are no signing keys yet")

// keyLoadTimeout is how long a storage may take, which need not heed a context: a
// network file system that hangs, for example.
const keyLoadTimeout = 5 * time.Second

// load asks the storage for the keys, unless it still owes an answer.
func (k *SigningKeys) load(ctx context.Context) (storedKeys, error) {
	if !k.loading.CompareAndSwap(false, true) {
		return storedKeys{}, errors.New("the storage does not answer")
	}
	type answer struct {
		keys storedKeys
		err  error
	}
	answered, storage := make(chan answer, 1), k.storage
	go func() {
		keys, err := loadStoredKeys(ctx, storage, k.storageKey)
		k.loading.Store(false) // before whoever waits can ask again
		answered <- answer{keys, err}
	}()
	select {
	case a := <-answered:
		return a.keys, a.err
	case <-ctx.Done():
		return storedKeys{}, ctx.Err()
	case <-time.After(keyLoadTimeout):
		return storedKeys{}, fmt.Errorf("the storage does not answer within %s", keyLoadTimeout)
	}
}

// signingKeyPath is where the keys of an issuer are stored. Issuers with
// other users have other keys, so that no token of one serves the other.
func signingKeyPath(identity string) string {
	sum := sha256.Sum256([]byte(identity))
	return "jwt/signing_keys/" + hex.EncodeToString(sum[:]) + ".json"
}

// ensure opens the keys unless that was done.
func (k *SigningKeys) ensure(ctx context.Context) error {
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

// current are the keys, which are made if this comes before the config has started.
func (k *SigningKeys) current(ctx context.Context) (*keyRing, error) {
	if ring := k.ring.Load(); ring != nil {
		return ring, nil
	}
	err := k.ensure(ctx)
	return k.ring.Load(), err
}

// open loads the keys, and makes the first one where there is none that was not
// withdrawn.
func (k *SigningKeys) open(ctx context.Context) error {
	unlock, err := lockStorage(ctx, k.storage, k.storageKey)
	if err != nil {
		return err
	}
	defer unlock()
	stored, err := loadStoredKeys(ctx, k.storage, k.storageKey)
	if err != nil {
		return err
	}
	stored = k.withoutWithdrawn(ctx, stored)
	lifetime := int64(k.lifetime / time.Second)
	if len(stored.Keys) == 0 || stored.TokenLifetime < lifetime {
		stored.TokenLifetime = lifetime
		if len(stored.Keys) == 0 {
			if k.mayMake != nil {
				if err := k.mayMake(ctx); err != nil {
					return fmt.Errorf("%w: %w", errNoKeysYet, err)
				}
			}
			key, err := newStoredKey(k.algorithm, k.now())
			if err != nil {
				return err
			}
			stored.Keys = []storedKey{key}
		}
		if err := saveStoredKeys(ctx, k.storage, k.storageKey, stored); err != nil {
			return err
		}
	}
	return k.use(stored)
}

// signs is the key that signs: the newest whose time has come.
func (s storedKeys) signs(now time.Time) int {
	return max(0, slices.IndexFunc(s.Keys, func(k storedKey) bool { return !k.SignsFrom.After(now) }))
}

// rotation is what is asked of the stored keys, at a time: that a new key signs
// after the lead, and that those before it are withdrawn.
type rotation struct {
	now      time.Time
	lead     time.Duration
	withdraw bool
	// remember has the IDs of the keys that are withdrawn refused from now on.
	// Should it fail, they are withdrawn all the same.
	remember func(ids []string) error
}

// rotateStoredKeys puts a new key before the others. The old one verifies until
// its last token has expired.
func rotateStoredKeys(ctx context.Context, storage certmagic.Storage, storageKey string, r rotation) (old, fresh string, err error) {
	unlock, err := lockStorage(ctx, storage, storageKey)
	if err != nil {
		return "", "", err
	}
	defer unlock()
	stored, err := loadStoredKeys(ctx, storage, storageKey)
	if err != nil {
		return "", "", err
	}
	if len(stored.Keys) == 0 {
		return "", "", errors.New("there is no key yet: Caddy makes it when it first runs with this config")
	}
	last, err := jwk.ParseKey(stored.Keys[0].JWK)
	if err != nil {
		return "", "", errors.New("the key that signs is damaged")
	}
	key, err := newStoredKey(last.Algorithm().String(), r.now)
	if err != nil {
		return "", "", err
	}
	key.SignsFrom = r.now.Add(r.lead).UTC()
	old, fresh = jwkID(stored.Keys[stored.signs(r.now)].JWK), jwkID(key.JWK)
	verifyUntil := key.SignsFrom.Add(time.Duration(stored.TokenLifetime)*time.Second + rotationMargin)
	kept := []storedKey{key}
	for i, known := range stored.Keys {
		if i == 0 || known.VerifyUntil.After(verifyUntil) { // one that was to sign for longer does not
			known.VerifyUntil = verifyUntil
		}
		neverSigns := !known.SignsFrom.Before(key.SignsFrom) && known.SignsFrom.After(r.now.Add(rotationMargin)) // by no node's clock
		if !r.withdraw && !neverSigns && known.VerifyUntil.After(r.now) {
			kept = append(kept, known)
		}
	}
	var rememberErr error
	if r.withdraw && r.remember != nil {
		var ids []string
		for _, known := range stored.Keys {
			ids = append(ids, jwkID(known.JWK))
		}
		if err := r.remember(ids); err != nil {
			rememberErr = fmt.Errorf("the keys are withdrawn, but the user store does not remember it, so do not restore a backup of them: %w", err)
		}
	}
	stored.Keys = kept
	return old, fresh, errors.Join(saveStoredKeys(ctx, storage, storageKey, stored), rememberErr)
}

func jwkID(key jsontext.Value) string {
	parsed, err := jwk.ParseKey(key)
	if err != nil {
		return ""
	}
	return parsed.KeyID()
}

// newStoredKey makes a key for ES256 or RS256.
func newStoredKey(algorithm string, now time.Time) (storedKey, error) {
	var private any
	var err error
	if algorithm == "RS256" {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return storedKey{}, err
	}
	key, err := jwk.FromRaw(private)
	if err == nil {
		err = jwk.AssignKeyID(key) // RFC 7638
	}
	if err == nil {
		err = key.Set(jwk.AlgorithmKey, algorithm)
	}
	if err != nil {
		return storedKey{}, err
	}
	text, err := json.Marshal(key)
	return storedKey{JWK: text, CreatedAt: now.UTC()}, err
}

func lockStorage(ctx context.Context, storage certmagic.Storage, name string) (unlock func(), err error) {
	if err := storage.Lock(ctx, name); err != nil {
		return nil, fmt.Errorf("locking the signing keys in Caddy's storage: %w", err)
	}
	return func() { _ = storage.Unlock(context.WithoutCancel(ctx), name) }, nil
}

func loadStoredKeys(ctx context.Context, storage certmagic.Storage, name string) (stored storedKeys, err error) {
	text, err := storage.Load(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return stored, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &stored)
	}
	if err != nil { // of broken JSON it may quote the key
		if _, broken := errors.AsType[*json.SemanticError](err); broken {
			err = errors.New("they are damaged")
		}
		return stored, fmt.Errorf("reading the signing keys at %s in Caddy's storage: %w", name, err)
	}
	return stored, nil
}

func saveStoredKeys(ctx context.Context, storage certmagic.Storage, name string, stored storedKeys) error {
	text, err := json.Marshal(stored)
	if err == nil {
		err = storage.Store(ctx, name, text)
	}
	if err != nil {
		return fmt.Errorf("storing the signing keys at %s in Caddy's storage: %w", name, err)
	}
	return nil
}

// use makes the stored keys the current ones. Those that leave are withdrawn,
// which ends the tokens that are remembered with them.
func (k *SigningKeys) use(stored storedKeys) error {
	var signers []signer
	for i, key := range stored.Keys {
		if i > 0 && !key.VerifyUntil.After(k.now()) {
			continue
		}
		s, algorithms, err := parsePrivateKey(key.JWK)
		if err != nil {
			return fmt.Errorf("stored signing key %d: %w", i, err)
		}
		s.algorithm, s.from = algorithms[0], key.SignsFrom
		signers = append(signers, s)
	}
	var known *jwt.KeySet
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

// newKeyRing takes the newest key first. A key that was known before stays the
// same Key.
func newKeyRing(known *jwt.KeySet, signers ...signer) (*keyRing, error) {
	ring := &keyRing{signers: signers}
	public := jwk.NewSet()
	var keys []*jwt.Key
	for _, s := range signers {
		if secret, ok := s.key.([]byte); ok {
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
		if known != nil && known.Same(key) != nil {
			key = known.Same(key)
		}
		keys = append(keys, key)
	}
	var err error
	if ring.set, err = jwt.NewKeySet(keys...); err != nil {
		return nil, err
	}
	ring.public, err = json.Marshal(public)
	return ring, err
}

func publicHalf(s signer) (jwk.Key, error) {
	private, err := jwk.FromRaw(s.key)
	if err != nil {
		return nil, err
	}
	public, err := private.PublicKey()
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]any{jwk.KeyIDKey: s.id, jwk.AlgorithmKey: s.algorithm, jwk.KeyUsageKey: jwk.ForSignature} {
		if err := public.Set(name, value); err != nil {
			return nil, err
		}
	}
	return public, nil
}

// thumbprint is the key ID of a key that has none (RFC 7638).
func thumbprint(key any) (string, error) {
	parsed, err := jwk.FromRaw(key)
	if err == nil {
		err = jwk.AssignKeyID(parsed)
	}
	if err != nil {
		return "", err
	}
	return parsed.KeyID(), nil
}

// Sign makes a JWT in compact form with the key that signs now. typ is that of
// its header, empty for none.
func (k *SigningKeys) Sign(typ string, claims map[string]any) (string, error) {
	ring, err := k.current(context.Background())
	if err != nil {
		return "", err
	}
	return signToken(ring.signer(k.now()), typ, claims)
}

// JWKS is the JWK set (RFC 7517 §5) that verifies the tokens.
func (k *SigningKeys) JWKS() []byte {
	ring, err := k.current(context.Background())
	if err != nil {
		return []byte(`{"keys":[]}`)
	}
	return ring.public
}

// Algorithms are those of the keys (RFC 7518 §3.1).
func (k *SigningKeys) Algorithms() []string {
	if ring := k.ring.Load(); ring != nil {
		return ring.set.Algorithms()
	}
	return []string{k.algorithm}
}

// Find implements KeySource. A key ID that is not known may be that of a key
// which another node has just begun to sign with.
func (k *SigningKeys) Find(ctx context.Context, algorithm, id string) ([]*jwt.Key, error) {
	ring, err := k.current(ctx)
	if err != nil {
		return nil, &refusal.Error{Reason: refusal.KeysUnavailable, Detail: err.Error(), RetryAfter: time.Second}
	}
	keys := ring.set.Match(algorithm, id)
	if len(keys) == 0 && k.reload(ctx, unknownKeyCooldown) == nil {
		keys = k.ring.Load().set.Match(algorithm, id)
	}
	return keys, nil
}

// reload looks at the stored keys again, if the last time was longer ago than
// this.
func (k *SigningKeys) reload(ctx context.Context, after time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.storage == nil || k.now().Sub(k.loadedAt) < after {
		return nil
	}
	k.loadedAt = k.now()
	stored, err := k.load(ctx)
	if err == nil {
		stored = k.withoutWithdrawn(ctx, stored)
	}
	if err == nil && len(stored.Keys) > 0 { // else those in memory go on
		err = k.use(stored)
	}
	if ctx.Err() == nil {
		k.outage.Note(caddy.Log().Named("http.handlers.jwt_accounts"), k.now(), err, "signing keys not readable; those in memory are used", "signing keys readable again")
	}
	return err
}

// kindWithdrawn is of signing keys that must not verify any more, whatever the
// storage has: a backup has them too. The owner is where they were stored.
const kindWithdrawn = "withdrawn signing key"

// rememberWithdrawn has the keys at a place refused from now on, should they come
// back.
func rememberWithdrawn(ctx context.Context, users store.UserStore, storageKey string, ids []string) error {
	for _, id := range ids {
		err := users.CreateRecord(ctx, store.Record{Kind: kindWithdrawn, ID: store.HashToken(storageKey + "\n" + id), Owner: storageKey, Value: []byte(strconv.Quote(id))})
		if err != nil && !errors.Is(err, store.ErrRecordExists) {
			return err
		}
	}
	return nil
}

// withoutWithdrawn leaves the keys out that were withdrawn. While the users' store
// cannot be asked, its last word holds.
func (k *SigningKeys) withoutWithdrawn(ctx context.Context, stored storedKeys) storedKeys {
	if k.users == nil {
		return stored
	}
	if records, err := k.users().Records(ctx, kindWithdrawn, k.storageKey, k.now()); err == nil {
		k.withdrawn = make(map[string]bool)
		for _, record := range records {
			if id, err := strconv.Unquote(string(record.Value)); err == nil {
				k.withdrawn[id] = true
			}
		}
	}
	var refused []string
	stored.Keys = slices.DeleteFunc(slices.Clone(stored.Keys), func(key storedKey) bool {
		id := jwkID(key.JWK)
		if k.withdrawn[id] {
			refused = append(refused, id)
		}
		return k.withdrawn[id]
	})
	if said := strings.Join(refused, " "); said != k.said {
		k.said = said
		if said != "" {
			caddy.Log().Named("http.handlers.jwt_accounts").Warn("signing keys that were withdrawn are in the storage again, as after a restore; they are refused", zap.Strings("kid", refused), zap.String("storage_key", k.storageKey))
		}
	}
	return stored
}

// Interface guards
var _ jwt.KeySource = (*SigningKeys)(nil)
