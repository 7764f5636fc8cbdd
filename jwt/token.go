package jwt

import "time"

// Token is what a verified token says.
type Token struct {
	// Claims of the token.
	Claims Claims
	// UserID is the text of the claim that names the user.
	UserID string

	expiry  float64 // seconds since 1970, the leeway included; 0 for none
	begins  float64 // likewise
	key     *Key
	boxedID any // UserID in an interface, made once and not per request
	session liveness
}

// lastSecond is the end of the year 9999, the last that RFC 3339 can write.
const lastSecond = 253402300799

// UserIDValue is UserID in an interface, and allocates nothing.
func (t *Token) UserIDValue() any { return t.boxedID }

// Expiry is when the token ends, the leeway included, in the year 9999 at the
// latest; zero if it never does.
func (t *Token) Expiry() time.Time {
	if t.expiry == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(min(t.expiry, lastSecond) * 1000))
}

// good tells whether a token that was verified before still is good, also by
// a clock that was set back.
func (t *Token) good(now time.Time) bool {
	at := seconds(now)
	return !t.key.Withdrawn.Load() && (t.expiry == 0 || at < t.expiry) && at >= t.begins && !t.session.ended()
}
