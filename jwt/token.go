package jwt

import (
	"sync/atomic"
	"time"
)

// Token is the content of a verified token.
type Token struct {
	// Claims of the token.
	Claims Claims
	// UserID is the text of the claim that names the user.
	UserID string

	expiry  float64 // seconds since 1970, the leeway included; 0 for none
	begins  float64 // likewise
	key     *Key
	issuer  *Issuer
	boxedID any // UserID in an interface, made once and not per request
	session liveness
	memo    atomic.Pointer[any]
}

// NewToken returns a token for a credential that is not a JWT, such as an API key, and was
// verified otherwise. userID is the text that names the user. expiry is when the credential
// expires; zero for never.
func NewToken(claims Claims, userID string, expiry time.Time) *Token {
	t := &Token{Claims: claims, UserID: userID, boxedID: userID, key: noKey}
	if !expiry.IsZero() {
		t.expiry = seconds(expiry)
	}
	return t
}

// noKey is the key of tokens that have none; it is never withdrawn.
var noKey = new(Key)

// lastSecond is the end of the year 9999, the last one that RFC 3339 can represent.
const lastSecond = 253402300799

// Issuer returns the issuer by whose rules the token was accepted. It is nil for a credential
// that is not a token of an issuer, such as an API key.
func (t *Token) Issuer() *Issuer { return t.issuer }

// UserIDValue returns UserID as an interface, without an allocation.
func (t *Token) UserIDValue() any { return t.boxedID }

// Expiry returns the time when the token expires, leeway included, but not after the year
// 9999; zero if it never expires.
func (t *Token) Expiry() time.Time {
	if t.expiry == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(min(t.expiry, lastSecond) * 1000))
}

// Memo returns what another package remembers beside the token, such as a token that was made
// for it, or nil. It is safe for concurrent use.
func (t *Token) Memo() any {
	if memo := t.memo.Load(); memo != nil {
		return *memo
	}
	return nil
}

// SetMemo replaces the memo. It is safe for concurrent use.
func (t *Token) SetMemo(memo any) { t.memo.Store(&memo) }

// good reports whether a token that was verified before is still valid, also if the clock
// was set back in the meantime.
func (t *Token) good(now time.Time) bool {
	at := seconds(now)
	return !t.key.Withdrawn.Load() && (t.expiry == 0 || at < t.expiry) && at >= t.begins && !t.session.ended()
}
