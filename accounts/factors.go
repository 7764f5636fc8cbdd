package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/passkey"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/sealing"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Factors let users in, with a second factor if one is needed, and manage these factors.
type Factors struct {
	*site
	sessions   *Sessions
	logIns     *LogIns
	identities *Identities
	attempts   *Attempts
	box        *sealing.Box

	unreadable outage.Outage // never ends, so that it is logged now and then
}

// Entry is a user who has proved to be the user in one way, and now comes in.
type Entry struct {
	// User is the user as stored when the proof was checked.
	User store.User
	// Methods are the ways (RFC 8176); none at another provider.
	Methods []string
	// External is the log-in at a provider; nil for none.
	External *ExternalEntry
}

// Need is what a user must still do to come in.
type Need int

// The needs of users.
const (
	NeedNothing   Need = iota
	NeedFactor         // prove a second factor
	NeedEnrolment      // set up a second factor, because the site requires one
)

// Needed returns what a user who has proved to be the user by these methods must still do.
func (f *Factors) Needed(ctx context.Context, user store.User, methods []string) (Need, error) {
	if f.Config.SecondFactor == "" || slices.Contains(methods, MethodMultiple) {
		return NeedNothing, nil
	}
	has, err := f.has(ctx, user.ID)
	if err == nil && !has && f.Required(user) && f.Config.Passkeys != nil {
		// otherwise who knows the password alone could set up a factor; where a second factor is
		// optional, a passkey alone is none, as its user has no recovery codes
		var passkeys []passkey.Passkey
		passkeys, err = passkey.Of(ctx, f.Users(), user.ID, f.Now())
		has = len(passkeys) > 0
	}
	switch {
	case err != nil:
		return NeedNothing, StoreRefusal(err)
	case has:
		return NeedFactor, nil
	case f.Required(user):
		return NeedEnrolment, nil
	}
	return NeedNothing, nil
}

// Required reports whether the site requires a second factor of a user.
func (f *Factors) Required(user store.User) bool {
	if f.Config.SecondFactor != "required" {
		return false
	}
	roles := f.Config.SecondFactorRoles
	return len(roles) == 0 || slices.ContainsFunc(roles, func(role string) bool {
		return slices.Contains(user.Roles, role)
	})
}

// has reports whether a user has an authenticator app.
func (f *Factors) has(ctx context.Context, userID string) (bool, error) {
	_, err := f.Users().Record(ctx, kindTOTP, userID, f.Now())
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Enter starts a session. Every way in ends here. If the user needs a second factor, it returns a
// refusal with a challenge instead: [refusal.FactorRequired] for [Factors.Answer], or
// [refusal.EnrolmentRequired] for [Factors.Challenged]. A trusted browser is not asked.
func (f *Factors) Enter(ctx context.Context, entry Entry, client Client) (*Grant, error) {
	need, err := f.Needed(ctx, entry.User, entry.Methods)
	if err != nil {
		return nil, err
	}
	trusted := false
	if need == NeedFactor {
		if trusted, err = f.trusts(ctx, entry.User, client); err != nil {
			return nil, StoreRefusal(err)
		}
	}
	if need != NeedNothing && !trusted {
		return nil, f.challenge(ctx, entry, need, client)
	}
	grant, err := f.begin(ctx, entry, client)
	if err == nil && trusted && f.Required(entry.User) {
		err = f.letContinue(ctx, grant)
	}
	if err != nil {
		return nil, err
	}
	return grant, nil
}

// begin starts the session of an entry that needs nothing more.
func (f *Factors) begin(ctx context.Context, entry Entry, client Client) (*Grant, error) {
	grant, err := f.sessions.begin(ctx, entry.User, entry.Methods, client)
	if err == nil && entry.External != nil {
		err = f.identities.began(ctx, entry.External, grant)
	}
	if err != nil {
		return nil, err
	}
	return grant, nil
}

// byCode are the methods of a code of an authenticator app, or a recovery code.
var byCode = []string{MethodCode}

// withFactor returns the methods of a user who has proved a second factor as well, by other methods.
func withFactor(methods, factor []string) []string {
	return withMethods(withMethods(methods, factor), []string{MethodMultiple})
}

func withMethods(methods, more []string) []string {
	all := slices.Clone(methods)
	for _, method := range more {
		if !slices.Contains(all, method) {
			all = append(all, method)
		}
	}
	return all
}

// proved records that the user of a session has proved a second factor now, by these methods.
func (f *Factors) proved(ctx context.Context, user store.User, session store.Session, factor []string) error {
	return f.authenticated(ctx, user, session, withFactor(session.Methods, factor))
}

// authenticated records that the user of a session has authenticated now, and by which methods in all.
func (f *Factors) authenticated(
	ctx context.Context, user store.User, session store.Session, methods []string,
) error {
	session.Methods, session.AuthenticatedAt = methods, f.Now()
	return StoreRefusal(f.Users().AuthenticateSession(ctx, session, user.PasswordHash))
}

// StepUp proves the second factor of the user of a session again, by a code. Tokens that are issued
// from then on say so.
func (f *Factors) StepUp(ctx context.Context, user store.User, sessionID, code string, client Client) (Proof, error) {
	session, err := f.sessions.Session(ctx, user.ID, sessionID)
	if err != nil {
		return Proof{}, StoreRefusal(err)
	}
	has, err := f.has(ctx, user.ID)
	if err == nil && !has {
		err = &refusal.Error{Reason: refusal.NoFactor}
	}
	if err != nil {
		return Proof{}, StoreRefusal(err)
	}
	proof, err := f.checkCode(ctx, user, code, client)
	if err != nil {
		return proof, err
	}
	return proof, f.proved(ctx, user, session, byCode)
}

// kindExempt is the kind of records of sessions that a trusted browser has started without a second
// factor. The ID is that of the session.
const kindExempt = "session of a trusted browser"

// letContinue records that a session may go on without a second factor.
func (f *Factors) letContinue(ctx context.Context, grant *Grant) error {
	err := f.Users().CreateRecord(ctx, store.Record{
		Kind: kindExempt, ID: grant.SessionID, Owner: grant.User.ID, Value: []byte("{}"), ExpiresAt: grant.SessionEnds,
	})
	return StoreRefusal(err)
}

// mayContinue reports whether a session may be refreshed: it may not if the site requires a second
// factor by now, and the session began without one.
func (f *Factors) mayContinue(ctx context.Context, user store.User, session store.Session) (bool, error) {
	if !f.Required(user) || slices.Contains(session.Methods, MethodMultiple) {
		return true, nil
	}
	return f.exempt(ctx, session.ID)
}

func (f *Factors) exempt(ctx context.Context, sessionID string) (bool, error) {
	_, err := f.Users().Record(ctx, kindExempt, sessionID, f.Now())
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// HasProved reports whether the user of a session has proved a second factor by these methods, or has
// used a trusted browser, as far as the site requires a second factor of the user.
func (f *Factors) HasProved(ctx context.Context, user store.User, sessionID string, methods []string) (bool, error) {
	return f.mayContinue(ctx, user, store.Session{ID: sessionID, Methods: methods})
}

// Prove checks that the user is present, and not somebody who has taken over a session, before a
// second factor is removed or replaced: by a code of the factor or, in a session that has proved it, by
// the password. A recent log-in is not enough.
func (f *Factors) Prove(
	ctx context.Context, user store.User, sessionID, password, code string, client Client,
) error {
	switch {
	case code != "":
		_, err := f.checkCode(ctx, user, code, client)
		return err
	case password != "" && user.PasswordHash != "":
		if err := f.Guard(ctx, nil, user, sessionID); err != nil {
			return err
		}
		_, err := f.logIns.CheckPassword(ctx, user, password, client)
		return err
	}
	return &refusal.Error{Reason: refusal.FactorNotProved}
}

// Guard refuses a change that would let a user prove other factors, or let the account be recovered by
// another address, in a session that has proved none of the factors that the user has, for example because
// it began before they were set up. Otherwise who knows the password alone would get past them. The error
// is [refusal.FactorCodeNeeded] if there is an authenticator app, and [refusal.PasskeyNeeded] if there are
// only passkeys that log in at the party's domain. Without a party, passkeys do not count. A passkey that
// has not verified its user proves enough only to a user who has nothing better: whoever finds a security
// key must not get a passkey of their own by it.
func (f *Factors) Guard(ctx context.Context, party *passkey.Party, user store.User, sessionID string) error {
	if f.Config.SecondFactor == "" {
		return nil
	}
	session, err := f.sessions.Session(ctx, user.ID, sessionID)
	if err != nil || slices.Contains(session.Methods, MethodMultiple) {
		return StoreRefusal(err)
	}
	has, err := f.has(ctx, user.ID)
	switch {
	case err != nil:
		return StoreRefusal(err)
	case has:
		return &refusal.Error{Reason: refusal.FactorCodeNeeded}
	case party == nil:
		return nil
	}
	all, err := passkey.Of(ctx, f.Users(), user.ID, f.Now())
	nothingBetter := user.PasswordHash == "" && !slices.ContainsFunc(all, func(k passkey.Passkey) bool {
		return k.Used().Verified
	})
	if err == nil && party.Usable(all) && !(nothingBetter && provesPasskey(session.Methods)) {
		err = &refusal.Error{Reason: refusal.PasskeyNeeded}
	}
	return StoreRefusal(err)
}

// provesPasskey reports whether one of the methods is a passkey.
func provesPasskey(methods []string) bool {
	return slices.Contains(methods, MethodHardwareKey) || slices.Contains(methods, MethodSoftwareKey)
}

// FactorsOf are the second factors of a user.
type FactorsOf struct {
	// TOTP is when an authenticator app was set up; nil for none.
	TOTP *time.Time
	// RecoveryCodesLeft is the number of unused recovery codes.
	RecoveryCodesLeft int
	// Trusted are the browsers that are not asked, the newest first.
	Trusted []TrustedBrowser
	// Passkeys are the user's passkeys, the oldest first.
	Passkeys []passkey.Passkey
}

// LoadFactors returns the second factors of a user in a store.
func LoadFactors(
	ctx context.Context, users store.UserStore, userID string, now time.Time,
) (found FactorsOf, err error) {
	record, err := users.Record(ctx, kindTOTP, userID, now)
	if err == nil {
		var totp totpFactor
		err = json.Unmarshal(record.Value, &totp)
		found.TOTP = &totp.AddedAt
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return found, err
	}
	var codes recoveryCodes
	record, err = users.Record(ctx, kindRecoveryCodes, userID, now)
	if err == nil {
		err = json.Unmarshal(record.Value, &codes)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return found, err
	}
	found.RecoveryCodesLeft = len(codes.Hashes)
	if found.Trusted, err = trustedBrowsers(ctx, users, userID, now); err != nil {
		return found, err
	}
	found.Passkeys, err = passkey.Of(ctx, users, userID, now)
	return found, err
}

// Of returns the second factors of a user.
func (f *Factors) Of(ctx context.Context, userID string) (FactorsOf, error) {
	found, err := LoadFactors(ctx, f.Users(), userID, f.Now())
	return found, StoreRefusal(err)
}

// nobodyLogsIn reports whether a user has no way to log in, such as one who was invited and has not
// answered.
func (f *Factors) nobodyLogsIn(ctx context.Context, user store.User) (bool, error) {
	if user.PasswordHash != "" || f.Config.EmailLogin && user.EmailVerified {
		return false, nil
	}
	links, err := IdentitiesOf(ctx, f.Users(), user.ID, f.Now())
	if err != nil || len(links) > 0 {
		return false, StoreRefusal(err)
	}
	found, err := f.Of(ctx, user.ID)
	return len(found.Passkeys) == 0 && found.TOTP == nil, err
}

// ResetFactors removes the second factors of a user, passkeys included, whatever is about to be set up,
// the trust in browsers, and log-ins that wait for a factor.
func ResetFactors(ctx context.Context, users store.UserStore, userID string, now time.Time) error {
	if err := removeTOTP(ctx, users, userID, now); err != nil {
		return err
	}
	return takeAll(ctx, users, userID, now, passkey.Kind)
}

func removeTOTP(ctx context.Context, users store.UserStore, userID string, now time.Time) error {
	return takeAll(ctx, users, userID, now, kindTOTP, kindRecoveryCodes, kindEnrolment, kindTrusted, kindChallenge)
}

// Remove removes the authenticator app of a user, who has proved to be the user, and what belongs to it.
// The user is told by mail.
func (f *Factors) Remove(ctx context.Context, user store.User, sessionID string, asker Asker) error {
	has, err := f.has(ctx, user.ID)
	if err == nil && !has {
		return &refusal.Error{Reason: refusal.NoFactor}
	}
	if err == nil {
		err = removeTOTP(ctx, f.Users(), user.ID, f.Now())
	}
	if err != nil {
		return StoreRefusal(err)
	}
	f.CountEvent("factor", "removed")
	f.Audit("factor removed", user.ID, sessionID, asker.Client)
	f.logIns.tell(ctx, letterFactorRemoved, user, asker)
	return nil
}
