package accounts

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/passkey"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/internal/sealing"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
	"go.uber.org/zap"
	"golang.org/x/text/width"
)

// Kinds of records of authenticator apps (TOTP, RFC 6238).
const (
	// kindTOTP has the secret of a user's app. The ID is that of the user.
	kindTOTP = "totp"
	// kindEnrolment has the secret of an app that is about to be set up. The ID is the hash of the
	// session or the challenge in which that happens; the user is the owner.
	kindEnrolment = "totp enrolment"
)

const (
	totpStep      = 30 * time.Second // RFC 6238 §5.2
	totpWindow    = 1                // steps before and after now whose codes are accepted
	totpDigits    = otp.DigitsSix
	enrolmentTime = 10 * time.Minute
)

// totpFactor is an authenticator app.
type totpFactor struct {
	Secret  string    `json:"secret"`   // sealed
	AddedAt time.Time `json:"added_at"` // when it was set up
	// LastStep is the last time step whose code was used: a code is accepted once (RFC 6238 §5.2).
	LastStep int64 `json:"last_step"`
}

// enrolment is an app that is about to be set up.
type enrolment struct {
	Secret string    `json:"secret"` // sealed
	Until  time.Time `json:"until"`
}

// Enrolment is where a user sets up an authenticator app: in a session, or in a log-in that requires
// it.
type Enrolment struct {
	User    store.User
	session *store.Session
	waiting *Waiting
}

// InSession returns the enrolment of a user in a session, unless [Factors.Guard] refuses it.
func (f *Factors) InSession(
	ctx context.Context, party *passkey.Party, user store.User, sessionID string,
) (*Enrolment, error) {
	session, err := f.sessions.Session(ctx, user.ID, sessionID)
	if err == nil {
		err = f.Guard(ctx, party, user, sessionID)
	}
	return &Enrolment{User: user, session: &session}, StoreRefusal(err)
}

// InLogIn returns the enrolment of a log-in that requires one; otherwise, also if the user has got a passkey
// since the log-in began, the error is [refusal.ChallengeExpired].
func (f *Factors) InLogIn(ctx context.Context, waiting *Waiting) (*Enrolment, error) {
	if !waiting.Enrol {
		return nil, &refusal.Error{Reason: refusal.ChallengeExpired}
	}
	need, err := f.Needed(ctx, waiting.User, waiting.entry.Methods)
	if err != nil {
		return nil, err
	}
	if need == NeedFactor {
		has, err := f.has(ctx, waiting.User.ID) // then setting up another one is refused
		if err == nil && !has {
			err = &refusal.Error{Reason: refusal.ChallengeExpired}
		}
		if err != nil {
			return nil, StoreRefusal(err)
		}
	}
	return &Enrolment{User: waiting.User, waiting: waiting}, nil
}

func (e *Enrolment) id() string {
	if e.waiting != nil {
		return e.waiting.id
	}
	return store.HashToken(e.session.ID)
}

// until returns when the session or the log-in expires.
func (e *Enrolment) until(now time.Time) time.Time {
	if e.waiting != nil {
		return now.Add(enrolmentLifetime)
	}
	return e.session.ExpiresAt
}

// TOTPSecret is the secret of an authenticator app, which only its user may see.
type TOTPSecret struct {
	// Secret is in base32 (RFC 4648), for typing.
	Secret string
	// URI is for apps: otpauth://totp/….
	URI string
}

// BeginTOTP creates a secret for an authenticator app, which is used from [Factors.ConfirmTOTP] on.
// The app shows the name of the site.
func (f *Factors) BeginTOTP(ctx context.Context, e *Enrolment, site string) (made TOTPSecret, err error) {
	has, err := f.has(ctx, e.User.ID)
	if err == nil && has {
		err = &refusal.Error{Reason: refusal.FactorExists}
	}
	if err != nil {
		return made, StoreRefusal(err)
	}
	key, err := totp.Generate(totp.GenerateOpts{
		Issuer: site, AccountName: e.User.Email, Period: uint(totpStep / time.Second), Digits: totpDigits,
	})
	if err != nil {
		return made, err
	}
	now := f.Now()
	kept := enrolment{Until: now.Add(enrolmentTime)}
	kept.Secret, err = f.box.Seal(ctx, []byte(key.Secret()), useOf(kindEnrolment, e.id()), now)
	if err != nil {
		return made, refusal.New(refusal.StorageDown, "%v", err)
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return made, err
	}
	record := store.Record{
		Kind: kindEnrolment, ID: e.id(), Owner: e.User.ID, Value: text, ExpiresAt: e.until(now),
	}
	err = f.Users().CreateRecord(ctx, record)
	if errors.Is(err, store.ErrRecordExists) { // the user starts again
		_, err = f.Users().UpdateRecord(ctx, kindEnrolment, record.ID, now, func(r *store.Record) error {
			r.Value = text
			return nil
		})
	}
	return TOTPSecret{Secret: key.Secret(), URI: key.URL()}, StoreRefusal(err)
}

// ConfirmTOTP sets up the authenticator app that shows this code, and returns the recovery codes. A
// session has proved a second factor by it; a log-in that required it is complete, and its grant is
// returned. The user is told by mail.
func (f *Factors) ConfirmTOTP(
	ctx context.Context, e *Enrolment, code string, asker Asker,
) (codes []string, grant *Grant, err error) {
	now := f.Now()
	record, err := f.Users().Record(ctx, kindEnrolment, e.id(), now)
	var kept enrolment
	if err == nil {
		err = json.Unmarshal(record.Value, &kept)
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && now.After(kept.Until) {
		return nil, nil, &refusal.Error{Reason: refusal.NoEnrolment}
	}
	if err != nil {
		return nil, nil, StoreRefusal(err)
	}
	secret, err := f.open(ctx, kept.Secret, useOf(kindEnrolment, e.id()), e.User.ID)
	if err != nil {
		return nil, nil, err
	}
	step, err := matchingStep(secret, code, now)
	if err != nil {
		return nil, nil, err
	}
	if codes, err = f.addTOTP(ctx, e.User, secret, step); err != nil {
		return nil, nil, err
	}
	_, err = f.Users().TakeRecord(ctx, kindEnrolment, e.id(), now)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, nil, StoreRefusal(err)
	}
	sessionID := ""
	if e.session != nil {
		sessionID = e.session.ID
		if err = f.proved(ctx, e.User, *e.session, byCode); err != nil { // as when the account was recovered just now
			return nil, nil, errors.Join(err, f.undoTOTP(ctx, e.User.ID))
		}
	} else if grant, err = f.complete(ctx, e.waiting, byCode, asker.Client); err == nil {
		sessionID = grant.SessionID
	}
	f.logIns.tell(ctx, letterFactorAdded, e.User, asker)
	f.CountEvent("factor", "added")
	f.Audit("factor added", e.User.ID, sessionID, asker.Client, zap.String("factor", "totp"))
	return codes, grant, err
}

// addTOTP stores an app and new recovery codes. Of several callers, only one succeeds.
func (f *Factors) addTOTP(ctx context.Context, user store.User, secret string, step int64) ([]string, error) {
	now := f.Now()
	sealed, err := f.box.Seal(ctx, []byte(secret), useOf(kindTOTP, user.ID), now)
	if err != nil {
		return nil, refusal.New(refusal.StorageDown, "%v", err)
	}
	text, err := json.Marshal(totpFactor{Secret: sealed, AddedAt: now, LastStep: step})
	if err != nil {
		return nil, err
	}
	err = f.Users().CreateRecord(ctx, store.Record{Kind: kindTOTP, ID: user.ID, Owner: user.ID, Value: text})
	if errors.Is(err, store.ErrRecordExists) {
		return nil, &refusal.Error{Reason: refusal.FactorExists}
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	codes, err := f.makeRecoveryCodes(ctx, user.ID)
	if err != nil { // not without recovery codes
		_, undone := f.Users().TakeRecord(context.WithoutCancel(ctx), kindTOTP, user.ID, now)
		return nil, errors.Join(StoreRefusal(err), undone)
	}
	return codes, nil
}

// undoTOTP removes an app that was added just now.
func (f *Factors) undoTOTP(ctx context.Context, userID string) error {
	return StoreRefusal(takeAll(
		context.WithoutCancel(ctx), f.Users(), userID, f.Now(), kindTOTP, kindRecoveryCodes,
	))
}

// useOf returns the use of a sealed secret: the record that contains it.
func useOf(kind, id string) string { return kind + "\n" + id }

// open decrypts a secret.
func (f *Factors) open(ctx context.Context, sealed, use, userID string) (string, error) {
	secret, err := f.box.Open(ctx, sealed, use)
	if errors.Is(err, sealing.ErrOtherKey) {
		if say, _ := f.unreadable.Fails(f.Now()); say {
			f.Log.Warn(
				"secret of an authenticator app cannot be decrypted; the user needs a recovery code, "+
					"or `caddy jwt user factors reset`",
				help.See("factor-not-readable"), zap.String("user_id", userID), zap.Error(err),
			)
		}
		return "", refusal.New(refusal.FactorUnreadable, "%v", err)
	}
	if err != nil {
		return "", refusal.New(refusal.StorageDown, "%v", err)
	}
	return string(secret), nil
}

// matchingStep returns the newest time step around now with this code.
func matchingStep(secret, code string, now time.Time) (step int64, err error) {
	code = normalCode(code)
	current := now.Unix() / int64(totpStep/time.Second)
	step = -1
	for candidate := current - totpWindow; candidate <= current+totpWindow; candidate++ {
		right, err := hotp.GenerateCodeCustom(
			secret, uint64(candidate), hotp.ValidateOpts{Digits: totpDigits, Algorithm: otp.AlgorithmSHA1},
		)
		if err != nil {
			return 0, errors.New("the secret of an authenticator app is not valid") // err may quote it
		}
		if subtle.ConstantTimeCompare([]byte(right), []byte(code)) == 1 {
			step = candidate
		}
	}
	if step < 0 {
		return 0, &refusal.Error{Reason: refusal.WrongCode}
	}
	return step, nil
}

// normalCode returns a code as it is compared: without the spaces and dashes that people type, in upper
// case, and with the digits of a keyboard for Japanese or Chinese as those of any other.
func normalCode(code string) string {
	blanks := strings.NewReplacer(" ", "", "-", "", "\t", "", "\u00a0", "")
	return strings.ToUpper(blanks.Replace(width.Fold.String(code)))
}

// Proof is what has proved a second factor.
type Proof struct {
	// Recovery reports whether it was a recovery code; then Left is how many are left.
	Recovery bool
	Left     int
}

// checkCode checks a code of the authenticator app or a recovery code, and uses it up. Wrong codes are
// limited: for a client, and for a user, where a client that has passed before has attempts of its
// own. Recovery codes are too long to be guessed, so they are not limited for a user, who can
// therefore always come in with one.
func (f *Factors) checkCode(ctx context.Context, user store.User, code string, client Client) (proof Proof, err error) {
	now, code := f.Now(), normalCode(code)
	byClient, wait := f.attempts.Clients.Begin(ctx, network.Key(client.Address), now)
	if wait > 0 {
		f.CountEvent("factor", "throttled")
		return proof, Throttled("wrong codes of the client", wait)
	}
	used := []attempt{byClient}
	if proof.Recovery = len(code) > int(totpDigits); proof.Recovery {
		proof.Left, err = f.useRecoveryCode(ctx, user.ID, code)
	} else {
		var byUser attempt
		if byUser, err = f.beginCode(ctx, user.ID, client); err != nil {
			return proof, err
		}
		used = append(used, byUser)
		err = f.useTOTP(ctx, user.ID, code)
	}
	if wrong := isReason(err, refusal.WrongCode, refusal.CodeUsed); wrong {
		f.CountEvent("factor", "refused")
		f.Audit("factor refused", user.ID, "", client)
		return proof, err
	}
	for _, a := range used {
		a.Forgive()
	}
	if err != nil {
		return proof, StoreRefusal(err)
	}
	f.CountEvent("factor", "ok")
	if proof.Recovery {
		f.Audit("recovery code used", user.ID, "", client, zap.Int("left", proof.Left))
	} else {
		f.Audit("factor used", user.ID, "", client, zap.String("factor", "totp"))
	}
	return proof, nil
}

// beginCode counts an attempt of a user. Once these are used up, a client that has passed before has
// as many again, so that somebody who knows the password cannot lock the user out.
func (f *Factors) beginCode(ctx context.Context, userID string, client Client) (attempt, error) {
	begun, wait := f.attempts.factorCodes.Begin(ctx, userID, f.Now())
	if wait > 0 {
		if familiar, err := f.isFamiliar(ctx, userID, client); err != nil {
			return attempt{}, StoreRefusal(err)
		} else if familiar {
			begun, wait = f.attempts.familiarCodes.Begin(ctx, familiarCode(userID, client), f.Now())
		}
	}
	if wait > 0 {
		f.CountEvent("factor", "throttled")
		return attempt{}, Throttled("wrong codes of the user", wait)
	}
	return begun, nil
}

// isFamiliar reports whether a user has proved a second factor at this client: on this node, or in a
// session that is still active. The password alone does not make a client familiar here.
func (f *Factors) isFamiliar(ctx context.Context, userID string, client Client) (bool, error) {
	if _, here := f.attempts.familiar.GetIfPresent(familiarCode(userID, client)); here {
		return true, nil
	}
	sessions, err := f.Users().Sessions(ctx, userID, f.Now())
	return slices.ContainsFunc(sessions, func(x store.Session) bool {
		return network.Key(x.Address) == network.Key(client.Address) && slices.Contains(x.Methods, MethodMultiple)
	}), err
}

func familiarCode(userID string, client Client) string {
	return "second factor\n" + userID + "\n" + network.Key(client.Address)
}

// useTOTP checks a code of the authenticator app. Of several uses of one code, only one succeeds.
func (f *Factors) useTOTP(ctx context.Context, userID, code string) error {
	record, err := f.Users().Record(ctx, kindTOTP, userID, f.Now())
	if errors.Is(err, store.ErrNotFound) {
		return &refusal.Error{Reason: refusal.WrongCode}
	}
	var kept totpFactor
	if err == nil {
		err = json.Unmarshal(record.Value, &kept)
	}
	if err != nil {
		return err
	}
	secret, err := f.open(ctx, kept.Secret, useOf(kindTOTP, userID), userID)
	if err != nil {
		return err
	}
	step, err := matchingStep(secret, code, f.Now())
	if err != nil {
		return err
	}
	_, err = store.ChangeValue(ctx, f.Users(), kindTOTP, userID, f.Now(), func(now *totpFactor) error {
		switch {
		case now.Secret != kept.Secret: // it was replaced in the meantime
			return &refusal.Error{Reason: refusal.WrongCode}
		case step <= now.LastStep:
			return &refusal.Error{Reason: refusal.CodeUsed}
		}
		now.LastStep = step
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return &refusal.Error{Reason: refusal.WrongCode}
	}
	return err
}

// isReason reports whether an error is a refusal for one of these reasons.
func isReason(err error, reasons ...refusal.Reason) bool {
	failure, ok := errors.AsType[*refusal.Error](err)
	return ok && slices.Contains(reasons, failure.Reason)
}
