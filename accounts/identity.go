package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/passkey"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
	"go.uber.org/zap"
)

// Kinds of records about identities at other providers.
const (
	kindIdentity  = "external identity"
	KindOffered   = "external identity offered" // to an account that has not said yes
	kindByID      = "external session"          // by the provider's sid
	KindBySubject = "external session by sub"
	kindLogOut    = "external log-out" // tokens that were used
	// kindDisconnected is the kind of records for an identity and a user that were
	// disconnected: the identity is not connected to that user again automatically.
	kindDisconnected = "external identity disconnected"
)

// LinkedIdentity connects (issuer, subject) at a provider with a user here, the owner of
// the record.
type LinkedIdentity struct {
	Issuer  string    `json:"issuer"`          // the provider's `iss`
	Subject string    `json:"subject"`         // the user's ID at the issuer
	Label   string    `json:"label"`           // of the `login_with` that connected it
	Email   string    `json:"email,omitempty"` // only for display
	At      time.Time `json:"at"`              // when it was connected
	// Roles are those that the user has because of the identity.
	Roles []string `json:"roles,omitempty"`
}

// disconnectedID returns the record ID of kindDisconnected for an identity and a user.
func disconnectedID(identityID, userID string) string {
	return store.HashToken(identityID + "\n" + userID)
}

// Linked returns an identity as it is stored when it is connected.
func Linked(login *LoginProvider, identity *ExternalIdentity) LinkedIdentity {
	return LinkedIdentity{
		Issuer: identity.Issuer, Subject: identity.Subject,
		Label: login.Label, Email: Cut(identity.Email, store.MaxEmailBytes),
	}
}

// ID returns the ID of the identity in paths.
func (l LinkedIdentity) ID() string { return identityKey(l.Issuer, l.Subject) }

// Name returns the name of the user at the provider, with invisible characters escaped, so
// that one address cannot look like another.
func (l LinkedIdentity) Name() string {
	if l.Email != "" {
		return refusal.Visible(l.Email)
	}
	return refusal.Visible(Cut(l.Subject, store.MaxEmailBytes))
}

// identityKey returns the key of an identity. Its parts cannot be confused, because an
// issuer is a URL and has no line break.
func identityKey(issuer, subject string) string { return store.HashToken(issuer + "\n" + subject) }

// AccountExists means that an account has the e-mail address of an identity that is not
// connected to any account.
type AccountExists struct {
	UserID string         // of the account
	Link   LinkedIdentity // the identity
}

// Error names the user who is logged in at the provider, who may be somebody else than the
// person at the browser.
func (e *AccountExists) Error() string {
	return "You are logged in to " + e.Link.Label + " as " + e.Link.Name() + ". " +
		refusal.AccountExists.Answer().Description
}

// Unwrap returns the refusal.
func (*AccountExists) Unwrap() error { return &refusal.Error{Reason: refusal.AccountExists} }

// Identities logs users in with their identities at other providers, and connects and
// disconnects these.
type Identities struct {
	*site
	sessions *Sessions
	factors  *Factors
	attempts *Attempts
}

// ExternalEntry is a log-in at a provider, by which a user comes in.
type ExternalEntry struct {
	Issuer    string    `json:"issuer"`               // the provider's `iss`
	Subject   string    `json:"subject"`              // the user's ID there
	SessionID string    `json:"session_id,omitempty"` // the session there
	AuthTime  time.Time `json:"auth_time,omitzero"`   // see [ExternalIdentity]
}

// LogIn starts a session for the user of an identity, and creates an account for a
// new identity. A second factor may be needed first; see [Factors.Enter].
func (i *Identities) LogIn(
	ctx context.Context, login *LoginProvider, identity *ExternalIdentity, client Client,
) (*Grant, error) {
	user, err := i.user(ctx, login, identity, client)
	if errors.Is(err, store.ErrNotFound) {
		user, err = i.signUp(ctx, login, identity, client)
	}
	if err != nil {
		return nil, err
	}
	if user.Disabled {
		i.Audit("login refused", user.ID, "", client, zap.String("reason", "disabled"))
		return nil, &refusal.Error{Reason: refusal.Disabled}
	}
	if user, err = i.verify(ctx, user, identity); err != nil {
		return nil, err
	}
	if user, err = i.giveRoles(ctx, user, identity, client); err != nil {
		return nil, err
	}
	return i.factors.Enter(ctx, Entry{User: user, External: &ExternalEntry{
		Issuer: identity.Issuer, Subject: identity.Subject, SessionID: identity.SessionID, AuthTime: identity.AuthTime,
	}}, client)
}

// began completes the start of a session of a user who came in through a provider.
func (i *Identities) began(ctx context.Context, identity *ExternalEntry, grant *Grant) error {
	if err := i.remember(ctx, identity, grant); err != nil {
		return err
	}
	// In the meantime, the identity may have been disconnected and the user's sessions
	// ended, before this session started.
	there, err := i.IsConnected(ctx, grant.User.ID, LinkedIdentity{Issuer: identity.Issuer, Subject: identity.Subject})
	if err == nil && !there {
		err = &refusal.Error{Reason: refusal.LoginState}
	}
	if err != nil {
		err = errors.Join(err, i.sessions.End(context.WithoutCancel(ctx), grant.User.ID, grant.SessionID, ""))
	}
	return err
}

// verify marks the address of a user as verified if it is the one that the provider has verified.
func (i *Identities) verify(ctx context.Context, user store.User, identity *ExternalIdentity) (store.User, error) {
	key, err := store.EmailKey(identity.Email)
	if user.EmailVerified || !identity.EmailVerified || err != nil || key != user.EmailKey {
		return user, nil
	}
	user, err = i.Users().UpdateUser(ctx, user.ID, i.Now(), func(u *store.User) error {
		u.EmailVerified = u.EmailVerified || u.EmailKey == key
		return nil
	})
	return user, StoreRefusal(err)
}

// newUserID returns the ID of the user for a new identity. It is deterministic, so that the
// next log-in completes an interrupted sign-up, and two concurrent sign-ups create one
// user.
func newUserID(identity *ExternalIdentity) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(identity.Issuer+"\n"+identity.Subject)).String()
}

// user returns the user of an identity, or [store.ErrNotFound].
func (i *Identities) user(
	ctx context.Context, login *LoginProvider, identity *ExternalIdentity, client Client,
) (store.User, error) {
	record, err := i.Users().Record(ctx, kindIdentity, identityKey(identity.Issuer, identity.Subject), i.Now())
	if err == nil {
		user, err := i.Users().User(ctx, record.Owner)
		return user, StoreRefusal(err)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, StoreRefusal(err)
	}
	// Complete an interrupted sign-up, unless the identity was disconnected from the
	// account since.
	user, err := i.Users().User(ctx, newUserID(identity))
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, err
	}
	if err != nil {
		return store.User{}, StoreRefusal(err)
	}
	_, err = i.Users().Record(
		ctx, kindDisconnected, disconnectedID(identityKey(identity.Issuer, identity.Subject), user.ID), i.Now(),
	)
	if err == nil {
		return store.User{}, &AccountExists{UserID: user.ID}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, StoreRefusal(err)
	}
	return user, i.Connect(ctx, user.ID, "", Linked(login, identity), client)
}

// signUp creates an account for a new identity.
func (i *Identities) signUp(
	ctx context.Context, login *LoginProvider, identity *ExternalIdentity, client Client,
) (store.User, error) {
	key, err := store.EmailKey(identity.Email)
	if err != nil {
		reason := refusal.EmailInvalid
		if identity.Email == "" && !identity.EmailInvalid {
			reason = refusal.EmailMissing
		}
		return store.User{}, refusal.New(reason, "the e-mail address of the provider %v", err)
	}
	if !identity.EmailVerified {
		return store.User{}, &refusal.Error{Reason: refusal.EmailUnverified}
	}
	taken, err := i.Users().UserByEmail(ctx, key)
	if err == nil && taken.ID == newUserID(identity) {
		return i.user(ctx, login, identity, client) // another log-in of the same identity was first
	}
	if err == nil {
		return i.connectInvited(ctx, taken, login, identity, client)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, StoreRefusal(err)
	}
	if i.Config.Signup == "closed" {
		return store.User{}, &refusal.Error{Reason: refusal.SignupClosed}
	}
	if _, wait := i.attempts.signUps.Begin(ctx, network.Key(client.Address), i.Now()); wait > 0 {
		return store.User{}, Throttled("sign-ups of the client", wait)
	}
	now := i.Now()
	user := store.User{
		ID: newUserID(identity), Email: identity.Email, EmailKey: key, EmailVerified: true,
		Roles: i.Config.DefaultRoles, Profile: externalProfile(login, identity), CreatedAt: now, UpdatedAt: now,
	}
	if err := i.Users().CreateUser(ctx, user); err != nil {
		// The same, since then.
		if user, err := i.user(ctx, login, identity, client); err == nil {
			return user, nil
		}
		if errors.Is(err, store.ErrEmailTaken) {
			return store.User{}, &refusal.Error{Reason: refusal.EmailTaken}
		}
		return store.User{}, StoreRefusal(err)
	}
	i.CountEvent("signup", "ok")
	i.Audit("signup", user.ID, "", client)
	return user, i.Connect(ctx, user.ID, "", Linked(login, identity), client)
}

// externalProfile returns the properties of a new user from the claims.
func externalProfile(login *LoginProvider, identity *ExternalIdentity) map[string]any {
	profile := make(map[string]any)
	claims, err := jwt.ParseClaims(identity.Claims)
	if err != nil {
		return profile
	}
	for claim, property := range login.Profile {
		if value, _ := claims.Lookup(claim); value != nil && !store.OutOfRange(value) &&
			store.ValueSize(value) <= store.MaxProfileBytes {
			profile[property] = store.PlainValue(value)
		}
	}
	return profile
}

// Connect connects an identity to a user. An identity has at most one user. If the session
// that requested it has ended, nothing is connected; sessionID is empty for a new account.
func (i *Identities) Connect(ctx context.Context, userID, sessionID string, link LinkedIdentity, client Client) error {
	id, now := identityKey(link.Issuer, link.Subject), i.Now()
	link.At = now
	text, err := json.Marshal(link)
	if err != nil {
		return err
	}
	err = i.Users().CreateRecord(ctx, store.Record{Kind: kindIdentity, ID: id, Owner: userID, Value: text})
	if errors.Is(err, store.ErrRecordExists) {
		there, err := i.Users().Record(ctx, kindIdentity, id, now)
		if err == nil && there.Owner != userID {
			return &refusal.Error{Reason: refusal.IdentityTaken}
		}
		return StoreRefusal(err)
	}
	if err != nil {
		return StoreRefusal(err)
	}
	// after the record exists, so that anybody who ends the sessions and then the identities sees it
	if sessionID != "" {
		_, err := i.sessions.Session(ctx, userID, sessionID)
		if err != nil {
			_, takeErr := i.Users().TakeRecord(context.WithoutCancel(ctx), kindIdentity, id, now)
			return errors.Join(StoreRefusal(err), StoreRefusal(takeErr))
		}
	}
	i.Audit("external identity connected", userID, sessionID, client)
	return nil
}

// Of returns the identities of a user.
func (i *Identities) Of(ctx context.Context, userID string) ([]LinkedIdentity, error) {
	links, err := IdentitiesOf(ctx, i.Users(), userID, i.Now())
	return links, StoreRefusal(err)
}

// IdentitiesOf returns the identities of a user in a store, sorted by the time when they
// were connected.
func IdentitiesOf(ctx context.Context, store store.UserStore, userID string, now time.Time) ([]LinkedIdentity, error) {
	records, err := store.Records(ctx, kindIdentity, userID, now)
	if err != nil {
		return nil, err
	}
	links := make([]LinkedIdentity, len(records))
	for i, record := range records {
		if err := json.Unmarshal(record.Value, &links[i]); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(links, func(a, b LinkedIdentity) int { return a.At.Compare(b.At) })
	return links, nil
}

// ExternalSession is a session here that was started by a session at a provider. Its record
// has the ID of the session here, and the session at the provider as owner.
type ExternalSession struct {
	UserID  string `json:"user_id"` // here
	Subject string `json:"subject"` // identityKey
	// AuthTime is when the user entered the password there; zero if unknown.
	AuthTime time.Time `json:"auth_time,omitzero"`
}

// remember allows the provider to end the session later, by its own session
// or by its user.
func (i *Identities) remember(ctx context.Context, identity *ExternalEntry, grant *Grant) error {
	subject := identityKey(identity.Issuer, identity.Subject)
	text, err := json.Marshal(ExternalSession{grant.User.ID, subject, identity.AuthTime})
	if err != nil {
		return err
	}
	record := store.Record{
		Kind: KindBySubject, ID: grant.SessionID, Owner: subject, Value: text, ExpiresAt: grant.SessionEnds,
	}
	err = i.Users().CreateRecord(ctx, record)
	if err == nil && identity.SessionID != "" {
		record.Kind, record.Owner = kindByID, identityKey(identity.Issuer, identity.SessionID)
		err = i.Users().CreateRecord(ctx, record)
	}
	if err == nil {
		return nil
	}
	// Do not start a session that the provider could not end.
	return errors.Join(
		StoreRefusal(err), i.sessions.End(context.WithoutCancel(ctx), grant.User.ID, grant.SessionID, ""),
	)
}

// LogOut ends the sessions that a logout token refers to, but only sessions that
// the provider started.
func (i *Identities) LogOut(ctx context.Context, logout *ExternalLogout, client Client) error {
	used := store.Record{
		Kind: kindLogOut, ID: identityKey(logout.Issuer, logout.ID),
		Value: []byte("{}"), ExpiresAt: logout.ExpiresAt.Add(jwt.MaxLeeway),
	}
	_, err := i.Users().Record(ctx, used.Kind, used.ID, i.Now())
	if err == nil {
		return refusal.New(refusal.LogoutToken, "it was already used")
	}
	if !errors.Is(err, store.ErrNotFound) {
		return StoreRefusal(err)
	}
	if err := i.end(ctx, logout, client); err != nil {
		return err
	}
	// Mark the token as used only at the end, so that the provider can send it again after
	// a failure.
	if err := i.Users().CreateRecord(ctx, used); !errors.Is(err, store.ErrRecordExists) {
		return StoreRefusal(err)
	}
	return nil
}

func (i *Identities) end(ctx context.Context, logout *ExternalLogout, client Client) error {
	subject := identityKey(logout.Issuer, logout.Subject)
	kind, owner := KindBySubject, subject
	if logout.SessionID != "" {
		kind, owner = kindByID, identityKey(logout.Issuer, logout.SessionID)
	}
	records, err := i.Users().Records(ctx, kind, owner, i.Now())
	if err != nil {
		return StoreRefusal(err)
	}
	for _, record := range records {
		var session ExternalSession
		if err := json.Unmarshal(record.Value, &session); err != nil {
			i.Log.Warn("record of an external session is corrupt", help.See("external-session-corrupt"),
				zap.String("session_id", record.ID))
			continue
		}
		if logout.Subject != "" && session.Subject != subject {
			continue
		}
		if err := i.sessions.EndBrowser(ctx, session.UserID, record.ID); err != nil {
			return err
		}
		i.CountEvent("logout", "ok")
		i.Audit("logout by the provider", session.UserID, record.ID, client)
	}
	return nil
}

// IsConnected reports whether an identity is connected to a user. It returns
// [refusal.IdentityTaken] if it is connected to another user.
func (i *Identities) IsConnected(ctx context.Context, userID string, link LinkedIdentity) (bool, error) {
	record, err := i.Users().Record(ctx, kindIdentity, link.ID(), i.Now())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case err == nil && record.Owner != userID:
		return false, &refusal.Error{Reason: refusal.IdentityTaken}
	}
	return err == nil, StoreRefusal(err)
}

// Disconnect disconnects an identity from a user. It refuses if the user could no longer
// log in.
func (i *Identities) Disconnect(ctx context.Context, user store.User, id string, client Client) error {
	if user.PasswordHash == "" {
		links, err := i.Of(ctx, user.ID)
		if err != nil {
			return err
		}
		passkeys, err := passkey.Of(ctx, i.Users(), user.ID, i.Now())
		if err != nil {
			return StoreRefusal(err)
		}
		usable := func(k passkey.Passkey) bool { return i.Config.Passkeys != nil && !k.Suspended }
		if len(links) == 1 && links[0].ID() == id && !slices.ContainsFunc(passkeys, usable) {
			return &refusal.Error{Reason: refusal.LastLogin}
		}
	}
	if _, err := disconnect(ctx, i.Users(), user.ID, id, i.Now()); err != nil {
		return StoreRefusal(err)
	}
	i.Audit("external identity disconnected", user.ID, "", client)
	return nil
}

// disconnect disconnects an identity from a user; taken is false if it was not connected.
func disconnect(ctx context.Context, users store.UserStore, userID, id string, now time.Time) (taken bool, err error) {
	record, err := users.Record(ctx, kindIdentity, id, now)
	if errors.Is(err, store.ErrNotFound) || err == nil && record.Owner != userID {
		return false, nil
	}
	// Otherwise the next log-in there would treat it as an interrupted sign-up.
	if err == nil {
		err = users.CreateRecord(ctx, store.Record{
			Kind: kindDisconnected, ID: disconnectedID(id, userID), Owner: userID, Value: []byte("{}"),
		})
	}
	if err == nil || errors.Is(err, store.ErrRecordExists) {
		err = takeRoles(ctx, users, record, now)
	}
	if err == nil {
		_, err = users.TakeRecord(ctx, kindIdentity, id, now)
	}
	if errors.Is(err, store.ErrNotFound) { // somebody else was first
		return false, nil
	}
	return err == nil, err
}

// RevokeKeys revokes the API keys of a user, if the store has any.
func RevokeKeys(ctx context.Context, users store.UserStore, userID string, now time.Time) error {
	keys, ok := users.(store.KeyStore)
	if !ok {
		return nil
	}
	return keys.RevokeKeys(ctx, userID, now)
}

// RecoverAccount ends what somebody else may have set up in an account, whose new password
// is set already: sessions, identities unless they are kept, those that wait to be connected, and
// log-ins that wait for a second factor. A second factor itself is kept, because whoever can
// recover the account would otherwise get past it; see [ResetFactors]. It returns the identities
// that were disconnected.
func RecoverAccount(
	ctx context.Context, users store.UserStore, userID string, keepIdentities bool, now time.Time,
	endSessions func() error,
) ([]LinkedIdentity, error) {
	if err := endSessions(); err != nil {
		return nil, err
	}
	if err := takeAll(
		ctx, users, userID, now, KindPending, KindOffered, kindChallenge, kindEnrolment, kindTrusted,
	); err != nil {
		return nil, err
	}
	if keepIdentities {
		return nil, nil
	}
	if err := passkey.Suspend(ctx, users, userID, now); err != nil {
		return nil, err
	}
	links, err := IdentitiesOf(ctx, users, userID, now)
	if err != nil {
		return nil, err
	}
	var gone []LinkedIdentity
	for _, link := range links {
		taken, err := disconnect(ctx, users, userID, link.ID(), now)
		if err != nil {
			return gone, err
		}
		if taken {
			gone = append(gone, link)
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	return gone, endSessions() // one of them may have logged in in the meantime
}

// takeAll removes the records of a user of these kinds.
func takeAll(ctx context.Context, users store.UserStore, userID string, now time.Time, kinds ...string) error {
	for _, kind := range kinds {
		found, err := users.Records(ctx, kind, userID, now)
		if err != nil {
			return err
		}
		for _, record := range found {
			_, err := users.TakeRecord(ctx, kind, record.ID, now)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// Listed names identities in a sentence.
func Listed(links []LinkedIdentity) string {
	text := ""
	for i, link := range links {
		if i > 0 {
			text += ", "
		}
		text += refusal.Visible(link.Label) + " (" + link.Name() + ")"
	}
	return text
}
