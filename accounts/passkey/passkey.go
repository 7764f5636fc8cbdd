// Package passkey keeps and verifies the passkeys of users (WebAuthn Level 3). It knows neither
// sessions nor HTTP.
package passkey

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

const (
	// Kind is the kind of records of passkeys. The ID is the hash of that of the credential; the user
	// is the owner.
	Kind = "passkey"
	// kindHandle has the user handle of a user (WebAuthn §5.4.3), which authenticators store. The ID is
	// that of the user.
	kindHandle = "passkey user"

	handleBytes = 64

	// MaxPerUser is how many passkeys a user can have.
	MaxPerUser = 20
	// MaxName is the maximum length of the name of a passkey, in characters.
	MaxName = 64
)

// Passkeys are the passkeys of the users of a site.
type Passkeys struct {
	// Records returns the store.
	Records func() store.RecordStore
	// Now is the clock.
	Now func() time.Time
	// Issuer is the issuer of the site: sites that share a store accept no challenges of each other.
	Issuer string

	key atomic.Pointer[[]byte] // see codeOf
}

// Passkey is a passkey of a user.
type Passkey struct {
	// ID identifies it, and UserID its user.
	ID     string `json:"-"`
	UserID string `json:"-"`

	// Party is the domain for which it was made; see [Party].
	Party string `json:"party"`
	// Name is what the user calls it.
	Name string `json:"name"`
	// AddedAt is when it was made, and UsedAt when it was last used; zero for never.
	AddedAt time.Time `json:"added_at"`
	UsedAt  time.Time `json:"used_at,omitzero"`
	// Suspended reports whether it is no way to log in until the user has used it together with the
	// password: the account was recovered after it was made, and its maker may be somebody else.
	Suspended bool `json:"suspended,omitempty"`

	// Credential and PublicKey (COSE) are what the authenticator returned.
	Credential []byte `json:"credential"`
	PublicKey  []byte `json:"public_key"`
	// SignCount is the last signature counter; 0 if the authenticator has none (WebAuthn §6.1.1).
	SignCount uint32 `json:"sign_count,omitempty"`
	// Flags are the flags of the last use: BE, BS and UV (WebAuthn §6.1).
	Flags byte `json:"flags"`
	// AAGUID is the model of the authenticator, and Transports are how browsers reach it.
	AAGUID     []byte   `json:"aaguid,omitempty"`
	Transports []string `json:"transports,omitempty"`
}

// Synced reports whether the passkey can be on several devices.
func (k Passkey) Synced() bool { return protocol.AuthenticatorFlags(k.Flags).HasBackupEligible() }

// Used returns the last use of the passkey, or that it was made.
func (k Passkey) Used() Used {
	return Used{k, protocol.AuthenticatorFlags(k.Flags).HasUserVerified()}
}

// credential returns the passkey as the library takes it.
func (k Passkey) credential() webauthn.Credential {
	c := webauthn.Credential{
		ID: k.Credential, PublicKey: k.PublicKey, AttestationType: "none", AttestationFormat: "none",
		Flags:         webauthn.NewCredentialFlags(protocol.AuthenticatorFlags(k.Flags)),
		Authenticator: webauthn.Authenticator{AAGUID: k.AAGUID, SignCount: k.SignCount},
	}
	for _, transport := range k.Transports {
		c.Transport = append(c.Transport, protocol.AuthenticatorTransport(transport))
	}
	return c
}

// idOf returns the ID of the record of a credential.
func idOf(credential []byte) string { return store.HashToken(string(credential)) }

// Of returns the passkeys of a user in a store, the oldest first.
func Of(ctx context.Context, records store.RecordStore, userID string, now time.Time) (all []Passkey, err error) {
	found, err := records.Records(ctx, Kind, userID, now)
	for _, record := range found {
		passkey, err := read(record)
		if err != nil {
			return nil, err
		}
		all = append(all, passkey)
	}
	slices.SortStableFunc(all, func(a, b Passkey) int { return a.AddedAt.Compare(b.AddedAt) })
	return all, err
}

func read(record store.Record) (passkey Passkey, err error) {
	err = json.Unmarshal(record.Value, &passkey)
	passkey.ID, passkey.UserID = record.ID, record.Owner
	return passkey, err
}

// Of returns the passkeys of a user, the oldest first.
func (p *Passkeys) Of(ctx context.Context, userID string) ([]Passkey, error) {
	return Of(ctx, p.Records(), userID, p.Now())
}

// handle returns the user handle of a user, which is random and tells nothing about the user.
func (p *Passkeys) handle(ctx context.Context, userID string) ([]byte, error) {
	kept, err := p.Records().Record(ctx, kindHandle, userID, p.Now())
	if errors.Is(err, store.ErrNotFound) {
		made := make([]byte, handleBytes)
		_, _ = rand.Read(made) // never fails
		if kept.Value, err = json.Marshal(made); err != nil {
			return nil, err
		}
		kept.Kind, kept.ID, kept.Owner = kindHandle, userID, userID
		err = p.Records().CreateRecord(ctx, kept)
		if errors.Is(err, store.ErrRecordExists) {
			kept, err = p.Records().Record(ctx, kindHandle, userID, p.Now())
		}
	}
	var handle []byte
	if err == nil {
		err = json.Unmarshal(kept.Value, &handle)
	}
	return handle, err
}

// CheckName returns an error if a passkey cannot have the name.
func CheckName(name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return texts.Errorf("must not be empty")
	case len([]rune(name)) > MaxName:
		return texts.Errorf("has more than 64 characters")
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return texts.Errorf("contains a character that cannot be seen")
	}
	return nil
}

// own changes a passkey of a user. It returns [refusal.NoSuchRoute] if there is none with the ID.
func (p *Passkeys) own(ctx context.Context, userID, id string, change func(*Passkey) error) (Passkey, error) {
	record, err := p.Records().UpdateRecord(ctx, Kind, id, p.Now(), func(record *store.Record) error {
		if record.Owner != userID {
			return store.ErrNotFound
		}
		passkey, err := read(*record)
		if err == nil {
			err = change(&passkey)
		}
		if err == nil {
			record.Value, err = json.Marshal(passkey)
		}
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return Passkey{}, &refusal.Error{Reason: refusal.NoSuchRoute}
	}
	if err != nil {
		return Passkey{}, err
	}
	return read(record)
}

// Rename gives a passkey of a user another name.
func (p *Passkeys) Rename(ctx context.Context, userID, id, name string) (Passkey, error) {
	return p.own(ctx, userID, id, func(passkey *Passkey) error {
		passkey.Name = name
		return nil
	})
}

// Remove removes a passkey of a user. It returns [refusal.NoSuchRoute] if there is none with the ID.
func (p *Passkeys) Remove(ctx context.Context, userID, id string) error {
	record, err := p.Records().Record(ctx, Kind, id, p.Now())
	if err == nil && record.Owner == userID {
		_, err = p.Records().TakeRecord(ctx, Kind, id, p.Now())
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && record.Owner != userID {
		return &refusal.Error{Reason: refusal.NoSuchRoute}
	}
	return err
}

// Suspend makes the passkeys of a user no way to log in, until each was used together with the
// password.
func Suspend(ctx context.Context, records store.RecordStore, userID string, now time.Time) error {
	found, err := records.Records(ctx, Kind, userID, now)
	for _, record := range found {
		_, err := store.ChangeValue(ctx, records, Kind, record.ID, now, func(passkey *Passkey) error {
			passkey.Suspended = true
			return nil
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return err
}

// Restore ends the suspension of a passkey, which the user has used together with the password.
func (p *Passkeys) Restore(ctx context.Context, userID, id string) error {
	_, err := p.own(ctx, userID, id, func(passkey *Passkey) error {
		passkey.Suspended = false
		return nil
	})
	return err
}
