// Package store says what a store of users keeps and promises. Package store/storetest
// tests one.
package store

import (
	"context"
	"errors"
	"time"
)

// UserStore keeps users, their sessions, and what was taken back. A store is a
// Caddy module in the namespace `jwt.stores`, chosen by the member `store` of
// the accounts config. All methods are safe for concurrent use, by several
// processes too, and what a method has acknowledged outlives a crash.
//
// Times are kept to the millisecond. Every error that is none of this file's
// means that the store could not do its work now, and nothing was changed.
type UserStore interface {
	// CreateUser adds a user. [ErrEmailTaken] if another user has the same
	// EmailKey.
	CreateUser(ctx context.Context, user User) error
	// User returns the user with the ID; [ErrNotFound] if there is none.
	User(ctx context.Context, id string) (User, error)
	// UserByEmail returns the user with the EmailKey; [ErrNotFound] if there
	// is none. It looks in an index, so its cost hardly grows with the users.
	UserByEmail(ctx context.Context, emailKey string) (User, error)
	// UpdateUser changes a user in one transaction, and returns it as changed.
	// The ID and CreatedAt stay; UpdatedAt is set to now. An error of change is
	// returned as it is, and nothing is changed. With another PasswordHash, and when
	// it is disabled, the user's one-time tokens end. [ErrNotFound], [ErrEmailTaken].
	UpdateUser(ctx context.Context, id string, now time.Time, change func(*User) error) (User, error)
	// DeleteUser removes a user and all that belongs to it, records included,
	// and ends its sessions as EndSessions does. [ErrNotFound].
	DeleteUser(ctx context.Context, id string, now time.Time) error
	// Users returns at most limit users in the order of their EmailKey, from
	// the first that comes after the given one.
	Users(ctx context.Context, afterEmailKey string, limit int) ([]User, error)

	// CreateSession adds a session of a user who logged in by the password with
	// this hash. [ErrNotFound] if the user is gone or disabled, or has another
	// PasswordHash by now.
	CreateSession(ctx context.Context, session Session, passwordHash string) error
	// SessionByFamily returns the session whose FamilyHash this is, ended and
	// expired ones excluded; [ErrNotFound].
	SessionByFamily(ctx context.Context, familyHash string, now time.Time) (Session, error)
	// RotateSession replaces the refresh token of a session, in one step that
	// of any number of callers with the same token lets one succeed:
	// RefreshHash must still be rotation.ValidHash. [ErrNotFound] if it is not,
	// or the session has ended or expired.
	RotateSession(ctx context.Context, rotation Rotation) error
	// Sessions returns the sessions of a user that have not ended or expired,
	// the last used first.
	Sessions(ctx context.Context, userID string, now time.Time) ([]Session, error)
	// EndSessions ends sessions of a user: the one with the ID if only is not
	// empty, else all but the one with the ID except. It remembers a
	// [Revocation] for each until its LastTokenUntil, and returns their IDs.
	EndSessions(ctx context.Context, userID, only, except string, now time.Time) ([]string, error)
	// Revocations returns what was revoked at or after since, and has not
	// passed its Until by now.
	Revocations(ctx context.Context, since, now time.Time) ([]Revocation, error)

	// CreateOneTimeToken keeps the hash of a token that may be used once.
	CreateOneTimeToken(ctx context.Context, token OneTimeToken) error
	// OneTimeToken returns what a token is for, and leaves it; [ErrNotFound] if
	// it was used, has expired, or never was.
	OneTimeToken(ctx context.Context, hash, purpose string, now time.Time) (OneTimeToken, error)
	// TakeOneTimeToken removes a token and returns what it was for: of any
	// number of callers one succeeds. The user's other tokens for the purpose
	// go with it. [ErrNotFound] if it was used, has expired, or never was.
	TakeOneTimeToken(ctx context.Context, hash, purpose string, now time.Time) (OneTimeToken, error)

	// A store also keeps what other modules need beside the users.
	RecordStore

	// CleanUp removes what has expired.
	CleanUp(ctx context.Context, now time.Time) error
}

// RevocationListener is what a [UserStore] has beside that hears at once of what
// other processes revoke. A word may be lost: stores are asked every 0.4 seconds
// all the same.
type RevocationListener interface {
	// ListenRevocations calls heard when it begins to listen and after each
	// revocation, until ctx ends or an error. [ErrCannotListen].
	ListenRevocations(ctx context.Context, heard func()) error
}

// Errors of a [UserStore], to be compared by errors.Is.
var (
	// ErrCannotListen is wrapped by errors that say that the database tells
	// nobody, now or later.
	ErrCannotListen = errors.New("the database cannot notify of changes")
	ErrNotFound     = errors.New("not found")
	ErrEmailTaken   = errors.New("another user has this e-mail address")
	// ErrStoreFull is wrapped by errors that say that there is no room left.
	ErrStoreFull = errors.New("the store is full")
)

// User is somebody who has an account.
type User struct {
	// ID is the `sub` of the user's tokens: a UUID (RFC 9562), unless an
	// import brought another.
	ID string
	// Email as the user wrote it.
	Email string
	// EmailKey is Email as it is compared: see [EmailKey].
	EmailKey string
	// PasswordHash is a PHC string of argon2id, or bcrypt from an import. It
	// is empty for a user who cannot log in by password.
	PasswordHash string
	// Roles of the user, for `require role`.
	Roles []string
	// Profile has the further properties, as JSON values.
	Profile map[string]any
	// Disabled users can neither log in nor use a session.
	Disabled bool
	// CreatedAt is when the user was added, UpdatedAt when last changed.
	CreatedAt, UpdatedAt time.Time
}

// Session is a log-in, and the family of refresh tokens that came of it (RFC
// 9700 §4.14.2).
type Session struct {
	// ID is a UUID, and the `sid` of the session's access tokens.
	ID string
	// UserID is whose session it is.
	UserID string
	// FamilyHash is the SHA-256, in hex, of the site's issuer and the part that
	// all refresh tokens of the family share. A token with another FamilyHash
	// is nobody's; one with this that has neither RefreshHash nor PreviousHash was
	// used before.
	FamilyHash string
	// RefreshHash is the SHA-256, in hex, of the refresh token that is valid;
	// PreviousHash of the one before it, if there was one, which may be used again
	// until RefreshHash was.
	RefreshHash, PreviousHash string
	// RotatedAt is when RefreshHash replaced PreviousHash, to the millisecond: the
	// token of RefreshHash is computed from it.
	RotatedAt time.Time
	// CreatedAt is when the user logged in, UsedAt when the session was last
	// refreshed.
	CreatedAt, UsedAt time.Time
	// ExpiresAt ends the session, however much it is used.
	ExpiresAt time.Time
	// LastTokenUntil is when the last access token made in the session has
	// expired, leeway included: for so long the end of the session is
	// remembered.
	LastTokenUntil time.Time
	// Client is the User-Agent, and Address the client's IP address, of the
	// last use.
	Client, Address string
}

// Rotation is the use of a refresh token.
type Rotation struct {
	// FamilyHash says which session it is.
	FamilyHash string
	// OldHash is of the token that is used, and becomes the PreviousHash;
	// NewHash is of the one that takes its place.
	OldHash, NewHash string
	// ValidHash is of the token that is valid until then: OldHash, or its successor
	// that nobody has used.
	ValidHash string
	// Now becomes RotatedAt and UsedAt.
	Now time.Time
	// Client and Address become those of the session, and LastTokenUntil does if
	// it is later than the session's.
	LastTokenUntil  time.Time
	Client, Address string
}

// Revocation says that the access tokens of a session are no longer good.
type Revocation struct {
	// SessionID is the `sid` of the tokens.
	SessionID string
	// RevokedAt is when the session was ended; after Until, its tokens have
	// expired.
	RevokedAt, Until time.Time
}

// OneTimeToken is a token that may be used once, such as that of a link to
// reset a password. The store has only its hash.
type OneTimeToken struct {
	// Hash is the SHA-256, in hex, of the token.
	Hash string
	// Purpose keeps tokens of one kind from serving as another.
	Purpose string
	// UserID is whose token it is.
	UserID string
	// ExpiresAt ends it.
	ExpiresAt time.Time
}

// TryCounter is what a [UserStore] of several nodes has beside: it counts tries
// for all of them. A key stands for a user or a client, and tells nobody which.
type TryCounter interface {
	// CountTry counts a try unless there are burst of them already, of which one
	// is forgotten each time every has passed: then it returns how long to wait.
	// Of any number of callers at once no more are let through.
	CountTry(ctx context.Context, key string, burst int, every time.Duration, now time.Time) (wait time.Duration, err error)
	// ForgiveTry takes a count back.
	ForgiveTry(ctx context.Context, key string, every time.Duration) error
}

// ErrNewerSchema means that a newer program than this has made the tables.
var ErrNewerSchema = errors.New("the user store was created by a newer program")
