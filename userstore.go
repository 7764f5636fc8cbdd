package caddyjwt

import (
	"github.com/caddy-jwt/caddy-jwt/store"
	_ "github.com/caddy-jwt/caddy-jwt/store/filestore" // `store file`, which is always there
)

// These are the names of package store for implementing another kind of user store, a Caddy
// module in the namespace `jwt.stores`. Package store documents the requirements, and
// package store/storetest tests them.
type (
	// UserStore stores users, their sessions and revocations.
	UserStore = store.UserStore
	// RecordStore stores data of other modules.
	RecordStore = store.RecordStore
	// User is a user with an account.
	User = store.User
	// Session is a log-in and its family of refresh tokens.
	Session = store.Session
	// Rotation is the use of a refresh token.
	Rotation = store.Rotation
	// Revocation revokes the access tokens of a session.
	Revocation = store.Revocation
	// OneTimeToken is a token that can be used once.
	OneTimeToken = store.OneTimeToken
	// Record is an entry of a RecordStore.
	Record = store.Record
	// RevocationListener is an optional interface of a UserStore that can notify of
	// revocations by other processes.
	RevocationListener = store.RevocationListener
	// AttemptCounter is an optional interface of a UserStore that counts attempts for several
	// nodes.
	AttemptCounter = store.AttemptCounter
)

// Errors of a UserStore; compare them with errors.Is.
var (
	ErrNotFound     = store.ErrNotFound
	ErrEmailTaken   = store.ErrEmailTaken
	ErrStoreFull    = store.ErrStoreFull
	ErrRecordExists = store.ErrRecordExists
	ErrNewerSchema  = store.ErrNewerSchema
	ErrCannotListen = store.ErrCannotListen
)

// EmailKey returns the normalized form of an e-mail address. Addresses with the same key
// belong to the same user.
func EmailKey(email string) (string, error) { return store.EmailKey(email) }
