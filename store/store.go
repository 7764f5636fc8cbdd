// Package store defines the store of users and its requirements. Package store/storetest
// tests an implementation.
package store

import (
	"context"
	"errors"
	"time"
)

// Located is a store that knows where its data are, as a path or a host and a database. It never returns a
// password.
type Located interface{ Where() string }

// UserStore stores users, their sessions and revocations. A store is a Caddy module in the
// namespace `jwt.stores`, selected by the member `store` of the accounts config. All
// methods are safe for concurrent use, also by several processes. Acknowledged changes
// survive a crash.
//
// Times are stored with millisecond precision. Any error not declared in this file means
// that the store is unavailable and nothing was changed.
type UserStore interface {
	// CreateUser adds a user. It returns [ErrEmailTaken] if another user has the same
	// EmailKey.
	CreateUser(ctx context.Context, user User) error
	// User returns the user with the ID, or [ErrNotFound].
	User(ctx context.Context, id string) (User, error)
	// UserByEmail returns the user with the EmailKey, or [ErrNotFound]. It uses an index,
	// so its cost hardly depends on the number of users.
	UserByEmail(ctx context.Context, emailKey string) (User, error)
	// UpdateUser changes a user in a transaction and returns the changed user. ID and
	// CreatedAt are kept; UpdatedAt is set to now. If change returns an error, UpdateUser
	// returns it and changes nothing. If the PasswordHash changes or the user is disabled,
	// the user's one-time tokens are removed. Errors: [ErrNotFound], [ErrEmailTaken].
	UpdateUser(ctx context.Context, id string, now time.Time, change func(*User) error) (User, error)
	// DeleteUser removes a user and all its data, including records of the user and of its
	// sessions, and ends its sessions as EndSessions does: all at once, or nothing. It returns
	// [ErrNotFound] if there is no such user.
	DeleteUser(ctx context.Context, id string, now time.Time) error
	// Users returns at most limit users, sorted by EmailKey, whose key is greater than the
	// given one.
	Users(ctx context.Context, afterEmailKey string, limit int) ([]User, error)

	// CreateSession adds a session of a user who logged in with the password of this hash.
	// It returns [ErrNotFound] if the user was deleted or disabled, or now has another
	// PasswordHash.
	CreateSession(ctx context.Context, session Session, passwordHash string) error
	// SessionByFamily returns the session with the FamilyHash, or [ErrNotFound] if there is
	// none, or it has ended or expired.
	SessionByFamily(ctx context.Context, familyHash string, now time.Time) (Session, error)
	// RotateSession replaces the refresh token of a session atomically: of several callers
	// with the same token, only one succeeds. RefreshHash must still be rotation.ValidHash.
	// It returns [ErrNotFound] if it is not, or if the session has ended or expired.
	RotateSession(ctx context.Context, rotation Rotation) error
	// AuthenticateSession sets Methods and AuthenticatedAt of a session whose user has proved
	// again to be the user. It returns [ErrNotFound] if the session has ended or expired, or
	// the user has no longer the PasswordHash.
	AuthenticateSession(ctx context.Context, session Session, passwordHash string) error
	// Sessions returns the active sessions of a user, the most recently used first.
	Sessions(ctx context.Context, userID string, now time.Time) ([]Session, error)
	// EndSessions ends sessions of a user: only the session with the ID only or, if that is
	// empty, all except the session with the ID except. It keeps a [Revocation] for each of
	// them until its LastTokenUntil, and returns their IDs.
	EndSessions(ctx context.Context, userID, only, except string, now time.Time) ([]string, error)
	// Revocations returns the revocations made at or after since whose Until is after now.
	Revocations(ctx context.Context, since, now time.Time) ([]Revocation, error)

	// CreateOneTimeToken stores the hash of a token that can be used once.
	CreateOneTimeToken(ctx context.Context, token OneTimeToken) error
	// OneTimeToken returns a token without using it, or [ErrNotFound] if it does not exist,
	// was used or has expired.
	OneTimeToken(ctx context.Context, hash, purpose string, now time.Time) (OneTimeToken, error)
	// TakeOneTimeToken removes a token and returns it: of several callers, only one
	// succeeds. The user's other tokens for the same purpose are removed too. It returns
	// [ErrNotFound] if the token does not exist, was used or has expired.
	TakeOneTimeToken(ctx context.Context, hash, purpose string, now time.Time) (OneTimeToken, error)

	// A store also stores data of other modules.
	RecordStore

	// CleanUp removes expired data.
	CleanUp(ctx context.Context, now time.Time) error
}

// RevocationListener is an optional interface of a [UserStore] that can notify of
// revocations by other processes. Notifications may get lost: stores are also polled every
// 0.4 seconds.
type RevocationListener interface {
	// ListenRevocations calls heard when it starts to listen and after each revocation,
	// until ctx ends or an error occurs. It returns [ErrCannotListen] if the database does
	// not support notifications.
	ListenRevocations(ctx context.Context, heard func()) error
}

// Errors of a [UserStore]; compare them with errors.Is.
var (
	// ErrCannotListen means that the database cannot send notifications, now or later.
	ErrCannotListen = errors.New("the database cannot notify of changes")
	ErrNotFound     = errors.New("not found")
	ErrEmailTaken   = errors.New("another user has this e-mail address")
	// ErrStoreFull means that there is no space left.
	ErrStoreFull = errors.New("the store is full")
)

// User is a user with an account.
type User struct {
	// ID is the `sub` of the user's tokens: a UUID (RFC 9562), or the ID from an import, of at
	// most 255 bytes of visible ASCII.
	ID string
	// Email is the e-mail address as the user wrote it or, for a user without one, the user name.
	// For the one or the other see [User.Address] and [User.Username].
	Email string
	// EmailKey is the normalized Email; see [EmailKey] and [UsernameKey].
	EmailKey string
	// EmailVerified means that the user receives mail at Email.
	EmailVerified bool
	// PasswordHash is a PHC string with argon2id or, from an import, a hash of another kind. It
	// is empty for a user who cannot log in with a password.
	PasswordHash string
	// Roles of the user, for `require role`.
	Roles []string
	// Profile has the profile properties, as JSON values.
	Profile map[string]any
	// Disabled users can neither log in nor use a session.
	Disabled bool
	// CreatedAt is when the user was added, UpdatedAt when it was last changed.
	CreatedAt, UpdatedAt time.Time
}

// Session is a log-in and its family of refresh tokens (RFC 9700 §4.14.2).
type Session struct {
	// ID is a UUID, and the `sid` of the session's access tokens.
	ID string
	// UserID is the user of the session.
	UserID string
	// FamilyHash is the SHA-256, in hex, of the site's issuer and the part that all refresh
	// tokens of the family share. A token with another FamilyHash is unknown; a token with
	// this one whose hash is neither RefreshHash nor PreviousHash was already used.
	FamilyHash string
	// RefreshHash is the SHA-256, in hex, of the valid refresh token. PreviousHash is that
	// of the previous token, if any, which can be used again until the token of RefreshHash
	// is used.
	RefreshHash, PreviousHash string
	// RotatedAt is when RefreshHash replaced PreviousHash, in milliseconds: the token of
	// RefreshHash is computed from it.
	RotatedAt time.Time
	// CreatedAt is when the user logged in, UsedAt when the session was last
	// refreshed.
	CreatedAt, UsedAt time.Time
	// Methods are how the user has proved to be the user, by RFC 8176: the `amr` of the
	// tokens, such as pwd and otp. There are none in sessions of before they were kept.
	Methods []string
	// AuthenticatedAt is when the user did so: the `auth_time` of the tokens. It is CreatedAt
	// until [UserStore].AuthenticateSession.
	AuthenticatedAt time.Time
	// ExpiresAt is when the session expires, regardless of its use.
	ExpiresAt time.Time
	// LastTokenUntil is when the last access token of the session expires, leeway included.
	// The end of the session is remembered until then.
	LastTokenUntil time.Time
	// UserAgent is the User-Agent and Address the IP address of the last use.
	UserAgent, Address string
}

// Rotation is the use of a refresh token.
type Rotation struct {
	// FamilyHash identifies the session.
	FamilyHash string
	// OldHash is the hash of the token that is used, and becomes PreviousHash; NewHash is
	// the hash of its successor.
	OldHash, NewHash string
	// ValidHash is the hash of the token that is valid until now: OldHash, or its unused
	// successor.
	ValidHash string
	// Now becomes RotatedAt and UsedAt.
	Now time.Time
	// UserAgent and Address replace those of the session; LastTokenUntil does if it is later.
	LastTokenUntil     time.Time
	UserAgent, Address string
}

// Revocation revokes the access tokens of a session.
type Revocation struct {
	// SessionID is the `sid` of the tokens.
	SessionID string
	// RevokedAt is when the session ended; at Until, its tokens have expired.
	RevokedAt, Until time.Time
}

// OneTimeToken is a token that can be used once, such as the token of a password reset
// link. The store only has its hash.
type OneTimeToken struct {
	// Hash is the SHA-256, in hex, of the token.
	Hash string
	// Purpose prevents the use of a token for another purpose.
	Purpose string
	// UserID is the user of the token.
	UserID string
	// ExpiresAt is when the token expires.
	ExpiresAt time.Time
}

// AttemptCounter is an optional interface of a [UserStore] for several nodes: it counts
// attempts for all of them. A key identifies a user or a client without revealing which.
type AttemptCounter interface {
	// CountAttempt counts an attempt, unless burst attempts are already counted; then it
	// returns how long to wait. One attempt is forgotten each time every has passed.
	// Concurrent callers cannot exceed the limit.
	CountAttempt(
		ctx context.Context, key string, burst int, every time.Duration, now time.Time,
	) (wait time.Duration, err error)
	// ForgiveAttempt removes an attempt from the count.
	ForgiveAttempt(ctx context.Context, key string, every time.Duration) error
}

// ErrNewerSchema means that a newer program has created the tables.
var ErrNewerSchema = errors.New("the user store was created by a newer program")
