package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Kinds of records in the store. A record that is identified by a secret is stored under
// the secret's hash.
const (
	kindClient      = "oidc client"
	kindGrant       = "oidc grant"
	kindCode        = "oidc code"
	kindInteraction = "oidc interaction"
	kindConsent     = "oidc consent"
	kindSealingKey  = "oidc sealing key"
	kindPushed      = "oidc pushed request"
	kindDevice      = "oidc device"
	kindUserCode    = "oidc user code"
	kindAssertion   = "oidc assertion"
	kindRevoked     = "oidc revoked token"
	kindLogout      = "oidc log-out"
	kindClientLogin = "oidc client of a session"
)

// state stores data that must survive a restart, as JSON in the accounts' store. Only
// clients are shared by all issuers with the same store.
type state struct {
	accounts *web.Shared
	issuer   string
}

func (s state) kind(kind string) string {
	if kind == kindClient {
		return kind
	}
	return kind + " of " + s.issuer
}

var errNotFound = store.ErrNotFound

func (s state) create(ctx context.Context, kind, id, owner string, value any, lifetime time.Duration) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	record := store.Record{Kind: s.kind(kind), ID: id, Owner: owner, Value: text}
	if lifetime > 0 {
		record.ExpiresAt = s.accounts.Now().Add(lifetime)
	}
	return s.accounts.Store().CreateRecord(ctx, record)
}

func load[T any](ctx context.Context, s state, kind, id string) (value T, err error) {
	record, err := s.accounts.Store().Record(ctx, s.kind(kind), id, s.accounts.Now())
	if err == nil {
		err = json.Unmarshal(record.Value, &value)
	}
	return value, err
}

// take removes a record and returns it: of several callers, only one succeeds.
func take[T any](ctx context.Context, s state, kind, id string) (value T, err error) {
	record, err := s.accounts.Store().TakeRecord(ctx, s.kind(kind), id, s.accounts.Now())
	if err == nil {
		err = json.Unmarshal(record.Value, &value)
	}
	return value, err
}

// change changes a record atomically. If f returns an error, nothing is changed.
func change[T any](ctx context.Context, s state, kind, id string, f func(*T) error) (value T, err error) {
	return store.ChangeValue(ctx, s.accounts.Store(), s.kind(kind), id, s.accounts.Now(), f)
}

// list returns the records of a kind: those of an owner, or all if owner is empty.
func list[T any](ctx context.Context, s state, kind, owner string) (ids []string, values []T, err error) {
	return store.Values[T](ctx, s.accounts.Store(), s.kind(kind), owner, s.accounts.Now())
}

// remove removes a record if it exists.
func (s state) remove(ctx context.Context, kind, id string) error {
	_, err := s.accounts.Store().TakeRecord(ctx, s.kind(kind), id, s.accounts.Now())
	if errors.Is(err, errNotFound) {
		return nil
	}
	return err
}

// hashed returns the hash of a random secret for storage. A fast hash is sufficient,
// because nobody can guess that many random bits.
func hashed(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
