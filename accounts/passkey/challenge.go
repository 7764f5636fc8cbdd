package passkey

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Purpose is what a challenge is for.
type Purpose string

// The purposes of challenges.
const (
	ToRegister Purpose = "register" // in a session
	ToLogIn    Purpose = "log in"
	ToComplete Purpose = "complete" // a log-in that waits for a second factor
	ToStepUp   Purpose = "step up"  // in a session
)

// Use is what a challenge is for, and whose: nothing else accepts it.
type Use struct {
	Purpose Purpose
	// Of is the ID of a session, or a secret that only the browser or the program has.
	Of string
}

// Lifetime is how long a challenge is valid.
const Lifetime = 5 * time.Minute

const (
	kindUsed = "passkey challenge" // used ones; the ID is their hash
	kindKey  = "passkey challenge key"

	nonceBytes = 16
	timeBytes  = 8
)

// challenge returns a new challenge: random bytes, the time, and an authentication code over these and
// the use. So a page that anybody can open stores nothing; only used challenges are stored.
func (p *Passkeys) challenge(ctx context.Context, party *Party, use Use) ([]byte, error) {
	now := p.Now()
	made := make([]byte, nonceBytes, nonceBytes+timeBytes+sha256.Size)
	_, _ = rand.Read(made) // never fails
	made = binary.BigEndian.AppendUint64(made, uint64(now.Unix()))
	code, err := p.codeOf(ctx, made, party, use)
	return append(made, code...), err
}

func (p *Passkeys) codeOf(ctx context.Context, made []byte, party *Party, use Use) ([]byte, error) {
	key := p.key.Load()
	if key == nil {
		shared, err := store.SharedKey(ctx, p.Records(), kindKey, p.Issuer, p.Now())
		if err != nil {
			return nil, err
		}
		key = &shared
		p.key.Store(key)
	}
	about, err := json.Marshal([]string{party.ID, string(use.Purpose), use.Of})
	if err != nil {
		return nil, err
	}
	sum := hmac.New(sha256.New, *key)
	sum.Write(made)
	sum.Write(about)
	return sum.Sum(nil), nil
}

// check checks that a challenge was made here for this use, and recently.
func (p *Passkeys) check(ctx context.Context, text string, party *Party, use Use) error {
	got, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(got) != nonceBytes+timeBytes+sha256.Size {
		return refusal.New(refusal.PasskeyExpired, "the challenge is not one of this site")
	}
	made, code := got[:nonceBytes+timeBytes], got[nonceBytes+timeBytes:]
	want, err := p.codeOf(ctx, made, party, use)
	if err != nil {
		return err
	}
	if !hmac.Equal(code, want) {
		return refusal.New(refusal.PasskeyExpired, "the challenge is not for this use or this browser")
	}
	age := p.Now().Sub(time.Unix(int64(binary.BigEndian.Uint64(made[nonceBytes:])), 0))
	if age > Lifetime || age < -Lifetime {
		return refusal.New(refusal.PasskeyExpired, "the challenge is %s old", age.Round(time.Second))
	}
	return nil
}

// take uses up a challenge. Of several callers, only one succeeds.
func (p *Passkeys) take(ctx context.Context, text string) error {
	err := p.Records().CreateRecord(ctx, store.Record{
		Kind: kindUsed, ID: store.HashToken(p.Issuer + "\n" + text), Value: []byte("{}"),
		ExpiresAt: p.Now().Add(3 * Lifetime), // later than its check refuses it
	})
	if errors.Is(err, store.ErrRecordExists) {
		return refusal.New(refusal.PasskeyExpired, "the challenge was used before")
	}
	return err
}
