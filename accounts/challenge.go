package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

const (
	// kindChallenge is the kind of records of log-ins that wait for a second factor. The ID is the
	// hash of the challenge; the user is the owner.
	kindChallenge = "challenge"

	challengeBytes     = 32
	challengeLifetime  = 5 * time.Minute
	enrolmentLifetime  = 15 * time.Minute // to install an app
	triesPerChallenge  = 5
	maxChallenges      = 30 // of a user at a client within challengeLifetime
	CodeFailures       = 10 // wrong codes of a user within codeWindow
	codeWindow         = 15 * time.Minute
	recoveryCodeLength = 16
)

// challenge is a log-in that waits for a second factor, or for one to be set up.
type challenge struct {
	Password string         `json:"password"` // its mark: a new password ends the log-in
	Methods  []string       `json:"methods,omitempty"`
	External *ExternalEntry `json:"external,omitempty"`
	Browser  bool           `json:"browser,omitempty"`
	Enrol    bool           `json:"enrol,omitempty"`
	Tries    int            `json:"tries,omitempty"`
}

// challenge stores a log-in that waits, and returns the refusal that asks for the rest.
func (f *Factors) challenge(ctx context.Context, entry Entry, need Need, client Client) error {
	_, wait := f.attempts.challenges.Begin(ctx, entry.User.ID+"\n"+network.Key(client.Address), f.Now())
	if wait > 0 {
		f.CountEvent("factor", "throttled")
		return Throttled("log-ins of the user that wait for a second factor", wait)
	}
	lifetime, reason := challengeLifetime, refusal.FactorRequired
	if need == NeedEnrolment {
		lifetime, reason = enrolmentLifetime, refusal.EnrolmentRequired
	}
	text, err := json.Marshal(challenge{
		Password: PasswordMark(entry.User), Methods: entry.Methods, External: entry.External, Browser: client.Browser,
		Enrol: need == NeedEnrolment,
	})
	if err != nil {
		return err
	}
	secret := store.RandomToken(challengeBytes)
	err = f.Users().CreateRecord(ctx, store.Record{
		Kind: kindChallenge, ID: f.ownHash(secret), Owner: entry.User.ID, Value: text, ExpiresAt: f.Now().Add(lifetime),
	})
	if err != nil {
		return StoreRefusal(err)
	}
	f.CountEvent("factor", "asked")
	return &refusal.Error{Reason: reason, Challenge: secret}
}

// ownHash returns the hash of a secret of this site: sites that share a store share no log-ins.
func (f *Factors) ownHash(secret string) string {
	return store.HashToken(f.Config.Issuer + "\n" + secret)
}

// Waiting is a log-in that waits for a second factor.
type Waiting struct {
	// User is the user who logs in.
	User store.User
	// Enrol reports whether the user must first set up a factor.
	Enrol bool

	id    string // of the record
	entry Entry
}

// Challenged returns the log-in of a challenge. The error is [refusal.ChallengeExpired] if the
// challenge is unknown, expired or used, belongs to another kind of client, or the user has another
// password by now.
func (f *Factors) Challenged(ctx context.Context, secret string, client Client) (*Waiting, error) {
	record, err := f.Users().Record(ctx, kindChallenge, f.ownHash(secret), f.Now())
	var kept challenge
	if err == nil {
		err = json.Unmarshal(record.Value, &kept)
	}
	var user store.User
	if err == nil {
		user, err = f.Users().User(ctx, record.Owner)
	}
	same := false
	if err == nil {
		same, err = SamePassword(ctx, f.Users(), user, kept.Password, f.Now())
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && (!same || user.Disabled || kept.Browser != client.Browser) {
		return nil, &refusal.Error{Reason: refusal.ChallengeExpired}
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	return &Waiting{
		User: user, Enrol: kept.Enrol, id: record.ID,
		entry: Entry{User: user, Methods: kept.Methods, External: kept.External},
	}, nil
}

// Answer completes a log-in with a code: of the authenticator app, or a recovery code. It also
// returns what was used. A challenge allows few attempts, and is used up by a log-in.
func (f *Factors) Answer(ctx context.Context, secret, code string, client Client) (*Grant, Proof, error) {
	waiting, err := f.Challenged(ctx, secret, client)
	if err != nil {
		return nil, Proof{}, err
	}
	if waiting.Enrol {
		return nil, Proof{}, &refusal.Error{Reason: refusal.EnrolmentRequired}
	}
	if err := f.countTry(ctx, waiting.id); err != nil {
		return nil, Proof{}, err
	}
	proof, err := f.checkCode(ctx, waiting.User, code, client)
	if err != nil {
		return nil, proof, err
	}
	grant, err := f.complete(ctx, waiting, byCode, client)
	return grant, proof, err
}

// countTry counts an attempt to answer a challenge, and ends the challenge after too many.
func (f *Factors) countTry(ctx context.Context, id string) error {
	kept, err := store.ChangeValue(ctx, f.Users(), kindChallenge, id, f.Now(), func(kept *challenge) error {
		kept.Tries++
		return nil
	})
	if err == nil && kept.Tries > triesPerChallenge {
		_, err = f.Users().TakeRecord(ctx, kindChallenge, id, f.Now())
		if err == nil {
			err = store.ErrNotFound
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		return &refusal.Error{Reason: refusal.ChallengeExpired}
	}
	return StoreRefusal(err)
}

// complete starts the session of a log-in whose second factor was proved by these methods. Of several
// callers with one challenge, only one succeeds.
func (f *Factors) complete(ctx context.Context, waiting *Waiting, factor []string, client Client) (*Grant, error) {
	_, err := f.Users().TakeRecord(ctx, kindChallenge, waiting.id, f.Now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, &refusal.Error{Reason: refusal.ChallengeExpired}
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	entry := waiting.entry
	entry.Methods = withFactor(entry.Methods, factor)
	grant, err := f.Enter(ctx, entry, client)
	if err == nil {
		f.attempts.familiar.Set(familiarCode(waiting.User.ID, client), struct{}{})
	}
	return grant, err
}
