package caddyjwt

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

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
	kindOffered   = "external identity offered" // to an account that has not said yes
	kindByID      = "external session"          // by the provider's sid
	kindBySubject = "external session by sub"
	kindLogOut    = "external log-out" // tokens that were used
	// kindDisconnected is of an identity and a user: it does not become that user's
	// again by itself.
	kindDisconnected = "external identity disconnected"
)

// linkedIdentity says that whoever is (issuer, subject) at a provider is a user
// here: the owner of the record.
type linkedIdentity struct {
	Issuer  string    `json:"issuer"`
	Subject string    `json:"subject"`
	Label   string    `json:"label"`
	Email   string    `json:"email,omitempty"` // to show, and for nothing else
	At      time.Time `json:"at"`
}

// disconnectedID names the identity and the user of a kindDisconnected.
func disconnectedID(identityID, userID string) string {
	return store.HashToken(identityID + "\n" + userID)
}

func linked(login *externalLogin, identity *ExternalIdentity) linkedIdentity {
	return linkedIdentity{Issuer: identity.Issuer, Subject: identity.Subject, Label: login.Label, Email: cut(identity.Email, store.MaxEmailBytes)}
}

// ID names the identity in paths.
func (l linkedIdentity) ID() string { return identityKey(l.Issuer, l.Subject) }

// Name is what the provider calls the user. It says all characters of an address
// that is to look like another one.
func (l linkedIdentity) Name() string {
	if l.Email != "" {
		return visible(l.Email)
	}
	return visible(cut(l.Subject, store.MaxEmailBytes))
}

// identityKey names an identity. Neither part can have a line end in it that
// would make another pair look the same: an issuer is a URL.
func identityKey(issuer, subject string) string { return store.HashToken(issuer + "\n" + subject) }

// accountExists says that an account has the e-mail address of an identity that
// is nobody's yet.
type accountExists struct {
	userID string
	link   linkedIdentity
}

// Error names whoever the browser is at the provider, who need not be the one who
// sits before it.
func (e *accountExists) Error() string {
	return "At " + e.link.Label + " you are logged in as " + e.link.Name() + ". " + refusal.AccountExists.Answer().Description
}

func (*accountExists) Unwrap() error { return &refusal.Error{Reason: refusal.AccountExists} }

// logInExternal begins a session of whoever the identity is, and makes an
// account for a new one.
func (s *accountService) logInExternal(ctx context.Context, login *externalLogin, identity *ExternalIdentity, client clientInfo) (*grant, error) {
	user, err := s.externalUser(ctx, login, identity, client)
	if errors.Is(err, store.ErrNotFound) {
		user, err = s.signUpExternal(ctx, login, identity, client)
	}
	if err != nil {
		return nil, err
	}
	if user.Disabled {
		s.audit("login refused", user.ID, "", client)
		return nil, &refusal.Error{Reason: refusal.Disabled}
	}
	given, err := s.beginSession(ctx, user, client)
	if err != nil {
		return nil, err
	}
	if err := s.rememberExternalSession(ctx, identity, given); err != nil {
		return nil, err
	}
	// The identity may have been disconnected since it was looked up, and the
	// user's sessions ended before this one began.
	if there, err := s.isConnected(ctx, user.ID, linked(login, identity)); err != nil || !there {
		if err == nil {
			err = &refusal.Error{Reason: refusal.LoginState}
		}
		return nil, errors.Join(err, s.endSessions(context.WithoutCancel(ctx), user.ID, given.sessionID, ""))
	}
	return given, nil
}

// newUserID is the ID of the user that an identity is given. It is always the
// same, so that a sign-up that stopped half way is finished by the next log-in,
// and two at once make one user.
func newUserID(identity *ExternalIdentity) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte(identity.Issuer+"\n"+identity.Subject)).String()
}

// externalUser is whose identity it is; [store.ErrNotFound].
func (s *accountService) externalUser(ctx context.Context, login *externalLogin, identity *ExternalIdentity, client clientInfo) (store.User, error) {
	record, err := s.users().Record(ctx, kindIdentity, identityKey(identity.Issuer, identity.Subject), s.now())
	if err == nil {
		user, err := s.users().User(ctx, record.Owner)
		return user, storeRefusal(err)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, storeRefusal(err)
	}
	// A sign-up that stopped half way is finished, unless the identity was
	// disconnected from the account since.
	user, err := s.users().User(ctx, newUserID(identity))
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, err
	}
	if err != nil {
		return store.User{}, storeRefusal(err)
	}
	_, err = s.users().Record(ctx, kindDisconnected, disconnectedID(identityKey(identity.Issuer, identity.Subject), user.ID), s.now())
	if err == nil {
		return store.User{}, &accountExists{userID: user.ID}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, storeRefusal(err)
	}
	return user, s.connect(ctx, user.ID, "", linked(login, identity), client)
}

// signUpExternal makes an account for an identity that has none.
func (s *accountService) signUpExternal(ctx context.Context, login *externalLogin, identity *ExternalIdentity, client clientInfo) (store.User, error) {
	key, err := store.EmailKey(identity.Email)
	if err != nil {
		return store.User{}, refusal.New(refusal.EmailUnverified, "the e-mail address of the provider %v", err)
	}
	if !identity.EmailVerified {
		return store.User{}, &refusal.Error{Reason: refusal.EmailUnverified}
	}
	taken, err := s.users().UserByEmail(ctx, key)
	if err == nil {
		return store.User{}, &accountExists{userID: taken.ID}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, storeRefusal(err)
	}
	if s.config.Signup == "closed" {
		return store.User{}, &refusal.Error{Reason: refusal.SignupClosed}
	}
	if _, wait := s.signups.begin(ctx, network.Key(client.address), s.now()); wait > 0 {
		return store.User{}, throttled("sign-ups of the client", wait)
	}
	now := s.now()
	user := store.User{
		ID: newUserID(identity), Email: identity.Email, EmailKey: key, Roles: s.config.DefaultRoles,
		Profile: externalProfile(login, identity), CreatedAt: now, UpdatedAt: now,
	}
	if err := s.users().CreateUser(ctx, user); err != nil {
		// Another log-in of the same identity may have been faster.
		if user, err := s.externalUser(ctx, login, identity, client); err == nil {
			return user, nil
		}
		if errors.Is(err, store.ErrEmailTaken) {
			return store.User{}, &refusal.Error{Reason: refusal.EmailTaken}
		}
		return store.User{}, storeRefusal(err)
	}
	countEvent("signup", "ok")
	s.audit("signup", user.ID, "", client)
	return user, s.connect(ctx, user.ID, "", linked(login, identity), client)
}

// externalProfile are the properties of a new user that come from claims.
func externalProfile(login *externalLogin, identity *ExternalIdentity) map[string]any {
	profile := make(map[string]any)
	claims, err := jwt.ParseClaims(identity.Claims)
	if err != nil {
		return profile
	}
	for claim, property := range login.Profile {
		if value, _ := claims.Lookup(claim); value != nil && !store.OutOfRange(value) && store.ValueSize(value) <= store.MaxProfileBytes {
			profile[property] = store.PlainValue(value)
		}
	}
	return profile
}

// connect makes an identity that of a user. It is nobody else's then. It is not
// connected if the session that asked for it has ended; there is none where the
// account is new.
func (s *accountService) connect(ctx context.Context, userID, sessionID string, link linkedIdentity, client clientInfo) error {
	id, now := identityKey(link.Issuer, link.Subject), s.now()
	link.At = now
	text, err := json.Marshal(link)
	if err != nil {
		return err
	}
	err = s.users().CreateRecord(ctx, store.Record{Kind: kindIdentity, ID: id, Owner: userID, Value: text})
	if errors.Is(err, store.ErrRecordExists) {
		there, err := s.users().Record(ctx, kindIdentity, id, now)
		if err == nil && there.Owner != userID {
			return &refusal.Error{Reason: refusal.IdentityTaken}
		}
		return storeRefusal(err)
	}
	if err != nil {
		return storeRefusal(err)
	}
	if sessionID != "" { // after the record is there, so that whoever ends the sessions and then the identities sees it
		_, err := s.session(ctx, userID, sessionID)
		if err != nil {
			_, takeErr := s.users().TakeRecord(context.WithoutCancel(ctx), kindIdentity, id, now)
			return errors.Join(storeRefusal(err), storeRefusal(takeErr))
		}
	}
	s.audit("external identity connected", userID, sessionID, client)
	return nil
}

// identities are those of a user.
func (s *accountService) identities(ctx context.Context, userID string) ([]linkedIdentity, error) {
	links, err := identitiesOf(ctx, s.users(), userID, s.now())
	return links, storeRefusal(err)
}

func identitiesOf(ctx context.Context, store store.UserStore, userID string, now time.Time) ([]linkedIdentity, error) {
	records, err := store.Records(ctx, kindIdentity, userID, now)
	if err != nil {
		return nil, err
	}
	links := make([]linkedIdentity, len(records))
	for i, record := range records {
		if err := json.Unmarshal(record.Value, &links[i]); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(links, func(a, b linkedIdentity) int { return a.At.Compare(b.At) })
	return links, nil
}

// externalSession is a session here that came of one at a provider. Its record
// has the ID of the one here, and the one there for an owner.
type externalSession struct {
	UserID  string `json:"user_id"`
	Subject string `json:"subject"` // identityKey
	// AuthTime is when the user typed the password there; zero if that is not
	// known.
	AuthTime time.Time `json:"auth_time,omitzero"`
}

// rememberExternalSession lets the provider end the session later, by its own
// session or by whose it is.
func (s *accountService) rememberExternalSession(ctx context.Context, identity *ExternalIdentity, given *grant) error {
	subject := identityKey(identity.Issuer, identity.Subject)
	text, err := json.Marshal(externalSession{given.user.ID, subject, identity.AuthTime})
	if err != nil {
		return err
	}
	record := store.Record{Kind: kindBySubject, ID: given.sessionID, Owner: subject, Value: text, ExpiresAt: given.sessionEnds}
	err = s.users().CreateRecord(ctx, record)
	if err == nil && identity.SessionID != "" {
		record.Kind, record.Owner = kindByID, identityKey(identity.Issuer, identity.SessionID)
		err = s.users().CreateRecord(ctx, record)
	}
	if err == nil {
		return nil
	}
	// A session that the provider could not end is none to begin.
	return errors.Join(storeRefusal(err), s.endSessions(context.WithoutCancel(ctx), given.user.ID, given.sessionID, ""))
}

// logOutExternal ends the sessions that a log-out token is about, and only
// those that came of the provider.
func (s *accountService) logOutExternal(ctx context.Context, logout *ExternalLogout, client clientInfo) error {
	used := store.Record{Kind: kindLogOut, ID: identityKey(logout.Issuer, logout.ID), Value: []byte("{}"), ExpiresAt: logout.ExpiresAt.Add(jwt.MaxLeeway)}
	_, err := s.users().Record(ctx, used.Kind, used.ID, s.now())
	if err == nil {
		return refusal.New(refusal.LogoutToken, "it was used before")
	}
	if !errors.Is(err, store.ErrNotFound) {
		return storeRefusal(err)
	}
	if err := s.endExternal(ctx, logout, client); err != nil {
		return err
	}
	// It is used when all is done, so that it may come again until then.
	if err := s.users().CreateRecord(ctx, used); !errors.Is(err, store.ErrRecordExists) {
		return storeRefusal(err)
	}
	return nil
}

func (s *accountService) endExternal(ctx context.Context, logout *ExternalLogout, client clientInfo) error {
	subject := identityKey(logout.Issuer, logout.Subject)
	kind, owner := kindBySubject, subject
	if logout.SessionID != "" {
		kind, owner = kindByID, identityKey(logout.Issuer, logout.SessionID)
	}
	records, err := s.users().Records(ctx, kind, owner, s.now())
	if err != nil {
		return storeRefusal(err)
	}
	for _, record := range records {
		var session externalSession
		if err := json.Unmarshal(record.Value, &session); err != nil {
			s.log.Warn("record of an external session is damaged", zap.String("session_id", record.ID))
			continue
		}
		if logout.Subject != "" && session.Subject != subject {
			continue
		}
		if err := s.endBrowser(ctx, session.UserID, record.ID); err != nil {
			return err
		}
		countEvent("logout", "ok")
		s.audit("logout by the provider", session.UserID, record.ID, client)
	}
	return nil
}
