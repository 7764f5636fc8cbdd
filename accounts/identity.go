package accounts

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
	KindOffered   = "external identity offered" // to an account that has not said yes
	kindByID      = "external session"          // by the provider's sid
	KindBySubject = "external session by sub"
	kindLogOut    = "external log-out" // tokens that were used
	// kindDisconnected is of an identity and a user: it does not become that user's
	// again by itself.
	kindDisconnected = "external identity disconnected"
)

// LinkedIdentity says that whoever is (issuer, subject) at a provider is a user
// here: the owner of the record.
type LinkedIdentity struct {
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

func Linked(login *LoginProvider, identity *ExternalIdentity) LinkedIdentity {
	return LinkedIdentity{Issuer: identity.Issuer, Subject: identity.Subject, Label: login.Label, Email: Cut(identity.Email, store.MaxEmailBytes)}
}

// ID names the identity in paths.
func (l LinkedIdentity) ID() string { return identityKey(l.Issuer, l.Subject) }

// Name is what the provider calls the user. It says all characters of an address
// that is to look like another one.
func (l LinkedIdentity) Name() string {
	if l.Email != "" {
		return refusal.Visible(l.Email)
	}
	return refusal.Visible(Cut(l.Subject, store.MaxEmailBytes))
}

// identityKey names an identity. Neither part can have a line end in it that
// would make another pair look the same: an issuer is a URL.
func identityKey(issuer, subject string) string { return store.HashToken(issuer + "\n" + subject) }

// AccountExists says that an account has the e-mail address of an identity that
// is nobody's yet.
type AccountExists struct {
	UserID string
	Link   LinkedIdentity
}

// Error names whoever the browser is at the provider, who need not be the one who
// sits before it.
func (e *AccountExists) Error() string {
	return "You are logged in to " + e.Link.Label + " as " + e.Link.Name() + ". " + refusal.AccountExists.Answer().Description
}

func (*AccountExists) Unwrap() error { return &refusal.Error{Reason: refusal.AccountExists} }

// LogInExternal begins a session of whoever the identity is, and makes an
// account for a new one.
func (s *Service) LogInExternal(ctx context.Context, login *LoginProvider, identity *ExternalIdentity, client Client) (*Grant, error) {
	user, err := s.externalUser(ctx, login, identity, client)
	if errors.Is(err, store.ErrNotFound) {
		user, err = s.signUpExternal(ctx, login, identity, client)
	}
	if err != nil {
		return nil, err
	}
	if user.Disabled {
		s.Audit("login refused", user.ID, "", client)
		return nil, &refusal.Error{Reason: refusal.Disabled}
	}
	given, err := s.BeginSession(ctx, user, client)
	if err != nil {
		return nil, err
	}
	if err := s.rememberExternalSession(ctx, identity, given); err != nil {
		return nil, err
	}
	// The identity may have been disconnected since it was looked up, and the
	// user's sessions ended before this one began.
	if there, err := s.IsConnected(ctx, user.ID, Linked(login, identity)); err != nil || !there {
		if err == nil {
			err = &refusal.Error{Reason: refusal.LoginState}
		}
		return nil, errors.Join(err, s.EndSessions(context.WithoutCancel(ctx), user.ID, given.SessionID, ""))
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
func (s *Service) externalUser(ctx context.Context, login *LoginProvider, identity *ExternalIdentity, client Client) (store.User, error) {
	record, err := s.Users().Record(ctx, kindIdentity, identityKey(identity.Issuer, identity.Subject), s.Now())
	if err == nil {
		user, err := s.Users().User(ctx, record.Owner)
		return user, StoreRefusal(err)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, StoreRefusal(err)
	}
	// A sign-up that stopped half way is finished, unless the identity was
	// disconnected from the account since.
	user, err := s.Users().User(ctx, newUserID(identity))
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, err
	}
	if err != nil {
		return store.User{}, StoreRefusal(err)
	}
	_, err = s.Users().Record(ctx, kindDisconnected, disconnectedID(identityKey(identity.Issuer, identity.Subject), user.ID), s.Now())
	if err == nil {
		return store.User{}, &AccountExists{UserID: user.ID}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, StoreRefusal(err)
	}
	return user, s.Connect(ctx, user.ID, "", Linked(login, identity), client)
}

// signUpExternal makes an account for an identity that has none.
func (s *Service) signUpExternal(ctx context.Context, login *LoginProvider, identity *ExternalIdentity, client Client) (store.User, error) {
	key, err := store.EmailKey(identity.Email)
	if err != nil {
		return store.User{}, refusal.New(refusal.EmailUnverified, "the e-mail address of the provider %v", err)
	}
	if !identity.EmailVerified {
		return store.User{}, &refusal.Error{Reason: refusal.EmailUnverified}
	}
	taken, err := s.Users().UserByEmail(ctx, key)
	if err == nil {
		return store.User{}, &AccountExists{UserID: taken.ID}
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, StoreRefusal(err)
	}
	if s.Config.Signup == "closed" {
		return store.User{}, &refusal.Error{Reason: refusal.SignupClosed}
	}
	if _, wait := s.Attempts.signUps.Begin(ctx, network.Key(client.Address), s.Now()); wait > 0 {
		return store.User{}, Throttled("sign-ups of the client", wait)
	}
	now := s.Now()
	user := store.User{
		ID: newUserID(identity), Email: identity.Email, EmailKey: key, Roles: s.Config.DefaultRoles,
		Profile: externalProfile(login, identity), CreatedAt: now, UpdatedAt: now,
	}
	if err := s.Users().CreateUser(ctx, user); err != nil {
		// Another log-in of the same identity may have been faster.
		if user, err := s.externalUser(ctx, login, identity, client); err == nil {
			return user, nil
		}
		if errors.Is(err, store.ErrEmailTaken) {
			return store.User{}, &refusal.Error{Reason: refusal.EmailTaken}
		}
		return store.User{}, StoreRefusal(err)
	}
	CountEvent("signup", "ok")
	s.Audit("signup", user.ID, "", client)
	return user, s.Connect(ctx, user.ID, "", Linked(login, identity), client)
}

// externalProfile are the properties of a new user that come from claims.
func externalProfile(login *LoginProvider, identity *ExternalIdentity) map[string]any {
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

// Connect makes an identity that of a user. It is nobody else's then. It is not
// connected if the session that asked for it has ended; there is none where the
// account is new.
func (s *Service) Connect(ctx context.Context, userID, sessionID string, link LinkedIdentity, client Client) error {
	id, now := identityKey(link.Issuer, link.Subject), s.Now()
	link.At = now
	text, err := json.Marshal(link)
	if err != nil {
		return err
	}
	err = s.Users().CreateRecord(ctx, store.Record{Kind: kindIdentity, ID: id, Owner: userID, Value: text})
	if errors.Is(err, store.ErrRecordExists) {
		there, err := s.Users().Record(ctx, kindIdentity, id, now)
		if err == nil && there.Owner != userID {
			return &refusal.Error{Reason: refusal.IdentityTaken}
		}
		return StoreRefusal(err)
	}
	if err != nil {
		return StoreRefusal(err)
	}
	if sessionID != "" { // after the record is there, so that whoever ends the sessions and then the identities sees it
		_, err := s.Session(ctx, userID, sessionID)
		if err != nil {
			_, takeErr := s.Users().TakeRecord(context.WithoutCancel(ctx), kindIdentity, id, now)
			return errors.Join(StoreRefusal(err), StoreRefusal(takeErr))
		}
	}
	s.Audit("external identity connected", userID, sessionID, client)
	return nil
}

// Identities are those of a user.
func (s *Service) Identities(ctx context.Context, userID string) ([]LinkedIdentity, error) {
	links, err := IdentitiesOf(ctx, s.Users(), userID, s.Now())
	return links, StoreRefusal(err)
}

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

// ExternalSession is a session here that came of one at a provider. Its record
// has the ID of the one here, and the one there for an owner.
type ExternalSession struct {
	UserID  string `json:"user_id"`
	Subject string `json:"subject"` // identityKey
	// AuthTime is when the user typed the password there; zero if that is not
	// known.
	AuthTime time.Time `json:"auth_time,omitzero"`
}

// rememberExternalSession lets the provider end the session later, by its own
// session or by whose it is.
func (s *Service) rememberExternalSession(ctx context.Context, identity *ExternalIdentity, given *Grant) error {
	subject := identityKey(identity.Issuer, identity.Subject)
	text, err := json.Marshal(ExternalSession{given.User.ID, subject, identity.AuthTime})
	if err != nil {
		return err
	}
	record := store.Record{Kind: KindBySubject, ID: given.SessionID, Owner: subject, Value: text, ExpiresAt: given.SessionEnds}
	err = s.Users().CreateRecord(ctx, record)
	if err == nil && identity.SessionID != "" {
		record.Kind, record.Owner = kindByID, identityKey(identity.Issuer, identity.SessionID)
		err = s.Users().CreateRecord(ctx, record)
	}
	if err == nil {
		return nil
	}
	// A session that the provider could not end is none to begin.
	return errors.Join(StoreRefusal(err), s.EndSessions(context.WithoutCancel(ctx), given.User.ID, given.SessionID, ""))
}

// LogOutExternal ends the sessions that a log-out token is about, and only
// those that came of the provider.
func (s *Service) LogOutExternal(ctx context.Context, logout *ExternalLogout, client Client) error {
	used := store.Record{Kind: kindLogOut, ID: identityKey(logout.Issuer, logout.ID), Value: []byte("{}"), ExpiresAt: logout.ExpiresAt.Add(jwt.MaxLeeway)}
	_, err := s.Users().Record(ctx, used.Kind, used.ID, s.Now())
	if err == nil {
		return refusal.New(refusal.LogoutToken, "it was already used")
	}
	if !errors.Is(err, store.ErrNotFound) {
		return StoreRefusal(err)
	}
	if err := s.endExternal(ctx, logout, client); err != nil {
		return err
	}
	// It is used when all is done, so that it may come again until then.
	if err := s.Users().CreateRecord(ctx, used); !errors.Is(err, store.ErrRecordExists) {
		return StoreRefusal(err)
	}
	return nil
}

func (s *Service) endExternal(ctx context.Context, logout *ExternalLogout, client Client) error {
	subject := identityKey(logout.Issuer, logout.Subject)
	kind, owner := KindBySubject, subject
	if logout.SessionID != "" {
		kind, owner = kindByID, identityKey(logout.Issuer, logout.SessionID)
	}
	records, err := s.Users().Records(ctx, kind, owner, s.Now())
	if err != nil {
		return StoreRefusal(err)
	}
	for _, record := range records {
		var session ExternalSession
		if err := json.Unmarshal(record.Value, &session); err != nil {
			s.Log.Warn("record of an external session is corrupt", zap.String("session_id", record.ID))
			continue
		}
		if logout.Subject != "" && session.Subject != subject {
			continue
		}
		if err := s.EndBrowser(ctx, session.UserID, record.ID); err != nil {
			return err
		}
		CountEvent("logout", "ok")
		s.Audit("logout by the provider", session.UserID, record.ID, client)
	}
	return nil
}

// freshLogin is how long after the log-in a session may change by what its user
// logs in without the password.
const freshLogin = 5 * time.Minute

// IsFresh tells whether the log-in of a session was a moment ago.
func (s *Service) IsFresh(ctx context.Context, userID, sessionID string) (bool, error) {
	session, err := s.Session(ctx, userID, sessionID)
	if err != nil {
		return false, StoreRefusal(err)
	}
	age := s.Now().Sub(session.CreatedAt)
	return age >= -jwt.MaxLeeway && age <= freshLogin, nil
}

// Session returns a session of a user if it has not ended; [store.ErrNotFound].
func (s *Service) Session(ctx context.Context, userID, sessionID string) (store.Session, error) {
	sessions, err := s.Users().Sessions(ctx, userID, s.Now())
	if err != nil {
		return store.Session{}, err
	}
	i := slices.IndexFunc(sessions, func(x store.Session) bool { return x.ID == sessionID })
	if i < 0 {
		return store.Session{}, store.ErrNotFound
	}
	return sessions[i], nil
}

// Confirm sees to it that a user is there, and not somebody with a session of
// theirs: the log-in was a moment ago, or the password is right. A wrong one counts
// as a failed log-in.
func (s *Service) Confirm(ctx context.Context, user store.User, sessionID, password string, client Client) error {
	fresh, err := s.IsFresh(ctx, user.ID, sessionID)
	if err != nil || fresh {
		return err
	}
	if password == "" || user.PasswordHash == "" {
		return &refusal.Error{Reason: refusal.NotConfirmed}
	}
	_, err = s.CheckCredentials(ctx, user.EmailKey, password, client)
	return err
}

// IsConnected tells whether an identity is that of a user.
// [ReasonIdentityTaken] if it is somebody else's.
func (s *Service) IsConnected(ctx context.Context, userID string, link LinkedIdentity) (bool, error) {
	record, err := s.Users().Record(ctx, kindIdentity, link.ID(), s.Now())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case err == nil && record.Owner != userID:
		return false, &refusal.Error{Reason: refusal.IdentityTaken}
	}
	return err == nil, StoreRefusal(err)
}

// Disconnect takes an identity from a user, who keeps a way to log in.
func (s *Service) Disconnect(ctx context.Context, user store.User, id string, client Client) error {
	if user.PasswordHash == "" {
		links, err := s.Identities(ctx, user.ID)
		if err != nil {
			return err
		}
		if len(links) == 1 && links[0].ID() == id {
			return &refusal.Error{Reason: refusal.LastLogin}
		}
	}
	if _, err := disconnect(ctx, s.Users(), user.ID, id, s.Now()); err != nil {
		return StoreRefusal(err)
	}
	s.Audit("external identity disconnected", user.ID, "", client)
	return nil
}

// disconnect takes an identity from a user; taken is false if it was not theirs.
func disconnect(ctx context.Context, users store.UserStore, userID, id string, now time.Time) (taken bool, err error) {
	record, err := users.Record(ctx, kindIdentity, id, now)
	if errors.Is(err, store.ErrNotFound) || err == nil && record.Owner != userID {
		return false, nil
	}
	// So that a log-in there does not take it for a sign-up that stopped half way.
	if err == nil {
		err = users.CreateRecord(ctx, store.Record{Kind: kindDisconnected, ID: disconnectedID(id, userID), Owner: userID, Value: []byte("{}")})
	}
	if err == nil || errors.Is(err, store.ErrRecordExists) {
		_, err = users.TakeRecord(ctx, kindIdentity, id, now)
	}
	if errors.Is(err, store.ErrNotFound) { // somebody was faster
		return false, nil
	}
	return err == nil, err
}

// RecoverAccount ends what somebody else may have set up in an account, whose new password
// is set already: sessions, identities unless they are kept, and those that wait to
// be connected. It returns the identities that were disconnected.
func RecoverAccount(ctx context.Context, users store.UserStore, userID string, keepIdentities bool, now time.Time, endSessions func() error) ([]LinkedIdentity, error) {
	if err := endSessions(); err != nil {
		return nil, err
	}
	for _, kind := range []string{KindPending, KindOffered} {
		waiting, err := users.Records(ctx, kind, userID, now)
		for _, record := range waiting {
			if _, err = users.TakeRecord(ctx, kind, record.ID, now); err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	if keepIdentities {
		return nil, nil
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
	return gone, endSessions() // one of them may have logged in meanwhile
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
