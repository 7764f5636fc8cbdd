package caddyjwt

import (
	"github.com/caddy-jwt/caddy-jwt/store"
	_ "github.com/caddy-jwt/caddy-jwt/store/filestore" // `store file`, which is always there
)

// Whoever writes a user store of another kind, a Caddy module in the namespace
// `jwt.stores`, finds here the names of package store, which says what a store promises.
// Package store/storetest tests that a store keeps it.
type (
	// UserStore keeps users, their sessions, and what was revoked.
	UserStore = store.UserStore
	// RecordStore keeps what other modules have beside the users.
	RecordStore = store.RecordStore
	// User is somebody who has an account.
	User = store.User
	// Session is a log-in, and the family of refresh tokens that belong to it.
	Session = store.Session
	// Rotation is the use of a refresh token.
	Rotation = store.Rotation
	// Revocation says that the access tokens of a session are no longer valid.
	Revocation = store.Revocation
	// OneTimeToken is a token that may be used once.
	OneTimeToken = store.OneTimeToken
	// Record is something that is kept beside the users.
	Record = store.Record
	// RevocationListener is what a UserStore has beside that is notified of what other
	// processes revoke.
	RevocationListener = store.RevocationListener
	// TryCounter is what a UserStore of several nodes has beside: it counts attempts
	// for all of them.
	TryCounter = store.TryCounter
)

// Errors of a UserStore, to be compared by errors.Is.
var (
	ErrNotFound     = store.ErrNotFound
	ErrEmailTaken   = store.ErrEmailTaken
	ErrStoreFull    = store.ErrStoreFull
	ErrRecordExists = store.ErrRecordExists
	ErrNewerSchema  = store.ErrNewerSchema
	ErrCannotListen = store.ErrCannotListen
)

// EmailKey is an e-mail address as it is compared: two addresses with the same key
// belong to one user.
func EmailKey(email string) (string, error) { return store.EmailKey(email) }
