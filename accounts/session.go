package accounts

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
)

const familyBytes = 16 // random bytes shared by the refresh tokens of a family

// Client is the client of a request.
type Client struct {
	Address   string // Caddy's client_ip
	UserAgent string // the header User-Agent
	Browser   bool   // it keeps cookies, and gets pages
	Trusted   string // the token of a trusted browser; empty for none
}

// Grant is the result of a log-in or refresh.
type Grant struct {
	User         store.User    // whose session it is
	SessionID    string        // the `sid` of the tokens
	AccessToken  string        // a JWT (RFC 9068)
	RefreshToken string        // may be used once; see refresh.go
	ExpiresIn    time.Duration // lifetime of AccessToken
	SessionEnds  time.Time     // however often it is refreshed
	InTime       func() bool   // for a refresh: whether RefreshToken cannot have been replaced yet
}

// Sessions starts, refreshes and ends the sessions of users.
type Sessions struct {
	*site
	keys *signing.Keys
	// Revoked has the sessions whose tokens are refused.
	Revoked *jwt.Revocations

	refreshKey atomic.Pointer[[]byte] // see UseRefreshToken
	// mayContinue reports whether a session of a user may be refreshed.
	mayContinue func(ctx context.Context, user store.User, session store.Session) (bool, error)
}

// begin starts a session of a user, who has proved to be the user by these methods (RFC 8176), and
// returns its tokens. Only [Factors] calls it, because a second factor may be needed first.
func (s *Sessions) begin(ctx context.Context, user store.User, methods []string, client Client) (*Grant, error) {
	now := s.Now()
	family := store.RandomToken(familyBytes)
	refresh := family + store.RandomToken(RefreshBytes)
	session := store.Session{
		ID: uuid.NewString(), UserID: user.ID, FamilyHash: s.familyHash(family), RefreshHash: store.HashToken(refresh),
		CreatedAt: now, UsedAt: now, ExpiresAt: now.Add(time.Duration(s.Config.RefreshLifetime)),
		LastTokenUntil: s.lastTokenUntil(now),
		UserAgent:      Cut(client.UserAgent, 256), Address: client.Address,
		Methods: methods, AuthenticatedAt: now,
	}
	err := s.Users().CreateSession(ctx, session, user.PasswordHash)
	if errors.Is(err, store.ErrNotFound) { // deleted, disabled, or given another password at this moment
		return nil, &refusal.Error{Reason: refusal.WrongCredentials}
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	s.CountEvent("login", "ok")
	s.Audit("login", user.ID, session.ID, client)
	if err := s.endSurplus(ctx, user); err != nil {
		return nil, err
	}
	return s.grant(user, session, refresh, now)
}

// Methods by which a user proves to be the user (RFC 8176 §2). A mailed code is a one-time password;
// there is no value that says how it came.
const (
	MethodPassword   = "pwd"
	MethodMailedCode = "otp"
	MethodCode       = "otp" // of an authenticator app, or a recovery code
	MethodMultiple   = "mfa" // more than one factor

	MethodHardwareKey = "hwk"  // a passkey of one device
	MethodSoftwareKey = "swk"  // a passkey that can be on several
	MethodPresence    = "user" // the user was present at the device
)

// knowsPassword reports whether the user has entered the password.
func knowsPassword(methods []string) bool { return slices.Contains(methods, MethodPassword) }

// Classes of authentication: the values of `acr`.
const (
	ClassPassword = "pwd" // by a password alone
	ClassMultiple = "mfa" // by more than one factor
)

// AuthenticationClass returns the class of authentication by these methods: the `acr` of the tokens
// (RFC 9068 §2.2.1). It is empty if the user has come in through a provider alone.
func AuthenticationClass(methods []string) string {
	switch {
	case slices.Contains(methods, MethodMultiple):
		return ClassMultiple
	case slices.Contains(methods, MethodPassword):
		return ClassPassword
	}
	return ""
}

// MaxSessions is the maximum number of sessions of a user. Beyond it, the least recently
// used sessions end.
const MaxSessions = 100

func (s *Sessions) endSurplus(ctx context.Context, user store.User) error {
	sessions, err := s.Users().Sessions(ctx, user.ID, s.Now())
	if err != nil {
		return StoreRefusal(err)
	}
	for _, session := range sessions[min(len(sessions), MaxSessions):] {
		if err := s.End(ctx, user.ID, session.ID, ""); err != nil {
			return err
		}
	}
	return nil
}

// familyHash returns the hash of the shared part of a family's refresh tokens and of the
// issuer: sites that share a store do not share sessions.
func (s *Sessions) familyHash(family string) string {
	return store.HashToken(s.Config.Issuer + "\n" + family)
}

// lastTokenUntil returns when a token issued now has expired everywhere, including a token
// issued by repeating the same refresh token within repeatWithin, which does not change the
// session.
func (s *Sessions) lastTokenUntil(now time.Time) time.Time {
	return now.Add(time.Duration(s.Config.TokenLifetime)).Add(jwt.MaxLeeway).Add(repeatWithin)
}

// Cut truncates a text to a length in bytes.
func Cut(text string, length int) string {
	if len(text) > length {
		text = text[:length]
	}
	return strings.ToValidUTF8(text, "")
}

func (s *Sessions) grant(user store.User, session store.Session, refresh string, now time.Time) (*Grant, error) {
	lifetime := min(time.Duration(s.Config.TokenLifetime), session.ExpiresAt.Sub(now))
	roles := user.Roles
	if roles == nil {
		roles = []string{}
	}
	claims := map[string]any{
		"iss": s.Config.Issuer, "sub": user.ID, "aud": s.Config.Audience,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(),
		"jti": uuid.NewString(), "sid": session.ID, "roles": roles, "scope": AccountScope,
		"client_id": s.Config.Issuer, // RFC 9068 §2.2: the accounts have asked for it themselves
	}
	if name := user.Username(); name != "" {
		claims["preferred_username"] = name
	}
	s.Config.addTokenClaims(claims, user)
	if address := user.Address(); address != "" {
		claims["email"] = address
		if s.Config.VerifyEmail || user.EmailVerified {
			claims["email_verified"] = user.EmailVerified
		}
	}
	if len(session.Methods) > 0 { // of a log-in at a provider, neither is known
		claims["amr"], claims["auth_time"] = session.Methods, session.AuthenticatedAt.Unix()
	}
	if class := AuthenticationClass(session.Methods); class != "" {
		claims["acr"] = class
	}
	token, err := s.keys.Sign("at+jwt", claims)
	return &Grant{
		User: user, SessionID: session.ID, AccessToken: token,
		RefreshToken: refresh, ExpiresIn: lifetime, SessionEnds: session.ExpiresAt,
	}, err
}

// rotationTries is how often a refresh is retried because another request used the token
// first.
const rotationTries = 20

// Refresh returns an access token and the successor of a refresh token. If the successor of
// the token was already used, it ends the session, because both the owner and a thief have
// the token.
func (s *Sessions) Refresh(ctx context.Context, token string, client Client) (*Grant, error) {
	family := token[:min(len(token), base64.RawURLEncoding.EncodedLen(familyBytes))]
	use, err := s.UseRefreshToken(ctx, RefreshUse{Token: token, Family: family, HashOf: store.HashToken})
	if err != nil {
		return nil, StoreRefusal(err)
	}
	for range rotationTries {
		grant, err := s.rotate(ctx, use, client)
		if !errors.Is(err, errRotatedMeanwhile) {
			return grant, err
		}
	}
	return nil, StoreRefusal(errRotatedMeanwhile)
}

var errRotatedMeanwhile = errors.New("another request used the refresh token first")

func (s *Sessions) rotate(ctx context.Context, use *RefreshUse, client Client) (*Grant, error) {
	now := s.Now()
	session, err := s.Users().SessionByFamily(ctx, s.familyHash(use.Family), now)
	if errors.Is(err, store.ErrNotFound) {
		s.CountEvent("refresh", "refused")
		return nil, &refusal.Error{Reason: refusal.RefreshToken}
	}
	if err != nil {
		return nil, StoreRefusal(err)
	}
	user, err := s.Users().User(ctx, session.UserID)
	if err != nil {
		return nil, StoreRefusal(err)
	}
	if user.Disabled {
		return nil, &refusal.Error{Reason: refusal.RefreshToken}
	}
	if may, err := s.mayContinue(ctx, user, session); err != nil || !may {
		if err != nil {
			return nil, StoreRefusal(err)
		}
		return nil, s.endWithoutFactor(ctx, session, client)
	}
	line := RefreshLine{session.RefreshHash, session.PreviousHash, session.RotatedAt}
	next, successor, err := use.Rotate(line)
	if errors.Is(err, ErrRefreshReused) {
		return nil, s.endReused(ctx, session, client)
	}
	if next != line {
		err = s.Users().RotateSession(ctx, store.Rotation{
			FamilyHash: session.FamilyHash, ValidHash: session.RefreshHash,
			OldHash: next.PreviousHash, NewHash: next.Hash, Now: next.RotatedAt,
			LastTokenUntil: s.lastTokenUntil(now), UserAgent: Cut(client.UserAgent, 256), Address: client.Address,
		})
		if errors.Is(err, store.ErrNotFound) {
			return nil, errRotatedMeanwhile
		}
		if err != nil {
			return nil, StoreRefusal(err)
		}
	}
	grant, err := s.grant(user, session, successor, now)
	if err == nil {
		err = StoreRefusal(use.InTime(next))
	}
	if err != nil {
		return nil, err
	}
	grant.InTime = func() bool { return use.InTime(next) == nil }
	if next.PreviousHash == line.PreviousHash {
		s.CountEvent("refresh", "repeated")
	} else {
		s.CountEvent("refresh", "ok")
	}
	return grant, nil
}

// endReused ends a session whose refresh token was used by two parties.
func (s *Sessions) endReused(ctx context.Context, session store.Session, client Client) error {
	if err := s.End(ctx, session.UserID, session.ID, ""); err != nil {
		return err
	}
	s.CountEvent("refresh", "reused")
	s.Audit("refresh token reused, session ended", session.UserID, session.ID, client)
	return refusal.New(refusal.RefreshToken, "it was already used; the session was ended")
}

// endWithoutFactor ends a session of a user who must have a second factor by now.
func (s *Sessions) endWithoutFactor(ctx context.Context, session store.Session, client Client) error {
	if err := s.End(ctx, session.UserID, session.ID, ""); err != nil {
		return err
	}
	s.CountEvent("refresh", "refused")
	s.Audit("session without a second factor ended", session.UserID, session.ID, client)
	return refusal.New(refusal.RefreshToken, "a second factor is required by now; the session was ended")
}

// End ends sessions of a user: only the session with the ID only or, if that is
// empty, all except the session with the ID except; then no browser of the user is trusted any
// more. Their access tokens are refused from now on.
func (s *Sessions) End(ctx context.Context, userID, only, except string) error {
	now := s.Now()
	if only != "" { // first, because it cannot be repeated once the session has ended
		if err := s.endReplaced(ctx, userID, only); err != nil {
			return err
		}
	}
	ended, err := s.Users().EndSessions(ctx, userID, only, except, now)
	if err == nil && only == "" {
		err = EndTrust(ctx, s.Users(), userID, now)
	}
	if err != nil {
		return StoreRefusal(err)
	}
	for _, id := range ended {
		s.Revoked.Add(id, s.lastTokenUntil(now))
		if only != "" {
			continue
		}
		if err := s.endReplaced(ctx, userID, id); err != nil {
			return err
		}
	}
	return nil
}

// kindReplaced is the kind of records of sessions whose browser has logged in again. They
// continue for clients that got access through them at an OpenID Provider, and end with the
// session that replaced them, which owns the record.
const kindReplaced = "replaced session"

// Replace records that a browser with a session has started another one. token is
// the refresh token of the previous session, or empty. If that session belongs to another
// user, it ends.
func (s *Sessions) Replace(ctx context.Context, grant *Grant, token string) error {
	if token == "" {
		return nil
	}
	old, err := s.Users().SessionByFamily(
		ctx, s.familyHash(token[:min(len(token), base64.RawURLEncoding.EncodedLen(familyBytes))]), s.Now(),
	)
	if errors.Is(err, store.ErrNotFound) ||
		err == nil && old.RefreshHash != store.HashToken(token) && old.PreviousHash != store.HashToken(token) {
		return nil
	}
	if err != nil {
		return StoreRefusal(err)
	}
	if old.UserID != grant.User.ID {
		return s.End(ctx, old.UserID, old.ID, "")
	}
	return s.replacedBy(ctx, old.ID, grant.SessionID, old.ExpiresAt)
}

// replacedBy records that a session ends with another one. If it was already replaced by a
// third one, for example because a form was sent twice, that one ends with it too.
func (s *Sessions) replacedBy(ctx context.Context, oldID, newID string, until time.Time) error {
	err := s.Users().CreateRecord(ctx, store.Record{
		Kind: kindReplaced, ID: oldID, Owner: newID, Value: []byte("{}"), ExpiresAt: until,
	})
	if !errors.Is(err, store.ErrRecordExists) {
		return StoreRefusal(err)
	}
	before := ""
	_, err = s.Users().UpdateRecord(ctx, kindReplaced, oldID, s.Now(), func(r *store.Record) error {
		before, r.Owner = r.Owner, newID
		return nil
	})
	if err != nil || before == newID {
		return StoreRefusal(err)
	}
	return s.replacedBy(ctx, before, newID, until)
}

// EndBrowser ends a session and all other sessions of the same browser: those that it
// replaced, and those that replaced it.
func (s *Sessions) EndBrowser(ctx context.Context, userID, sessionID string) error {
	newest, err := s.Newest(ctx, sessionID)
	if err == nil && newest != sessionID {
		err = s.End(ctx, userID, newest, "")
	}
	if err != nil {
		return err
	}
	return s.End(ctx, userID, sessionID, "")
}

// Newest returns the session that replaced a session in the end, or the session itself.
func (s *Sessions) Newest(ctx context.Context, sessionID string) (string, error) {
	for range 1000 { // a limit, in case the records form a cycle
		record, err := s.Users().Record(ctx, kindReplaced, sessionID, s.Now())
		if errors.Is(err, store.ErrNotFound) {
			break
		}
		if err != nil {
			return "", StoreRefusal(err)
		}
		sessionID = record.Owner
	}
	return sessionID, nil
}

func (s *Sessions) endReplaced(ctx context.Context, userID, sessionID string) error {
	replaced, err := s.Users().Records(ctx, kindReplaced, sessionID, s.Now())
	for _, record := range replaced {
		if err == nil {
			err = s.End(ctx, userID, record.ID, "")
		}
	}
	return StoreRefusal(err)
}

// Session returns an active session of a user, or [store.ErrNotFound].
func (s *Sessions) Session(ctx context.Context, userID, sessionID string) (store.Session, error) {
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

// freshLogin is how long after the log-in a session can change the ways to log in without
// the password.
const freshLogin = 5 * time.Minute

// IsFresh reports whether the log-in of a session was recent.
func (s *Sessions) IsFresh(ctx context.Context, userID, sessionID string) (bool, error) {
	session, err := s.Session(ctx, userID, sessionID)
	if err != nil {
		return false, StoreRefusal(err)
	}
	age := s.Now().Sub(session.CreatedAt)
	return age >= -jwt.MaxLeeway && age <= freshLogin, nil
}

// kindRefreshKey is the kind of the record with the key that computes the successors of
// refresh tokens.
const kindRefreshKey = "refresh key"

// UseRefreshToken starts the use of a refresh token.
func (s *Sessions) UseRefreshToken(ctx context.Context, use RefreshUse) (*RefreshUse, error) {
	use.now = s.Now
	if use.Began.IsZero() {
		use.Began = s.Now()
	}
	known := s.refreshKey.Load()
	if known == nil {
		key, err := store.SharedKey(ctx, s.Users(), kindRefreshKey, "of all sites", use.Began)
		if err != nil {
			return nil, err
		}
		known = &key
		s.refreshKey.Store(known)
	}
	use.key = *known
	return &use, nil
}
