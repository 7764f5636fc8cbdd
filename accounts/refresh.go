package accounts

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// A refresh token N0 is replaced by a successor N1 each time it is used (RFC 9700
// §4.14.2). The answer that carries N1 may be lost, in an outage that lasts for
// hours, and then the client has N0 only. It is not a thief, so N0 stays valid until
// somebody has used N1:
//
//   - N0 comes again within repeatWithin: it gives N1 again, and nothing is written.
//     So two tabs, and a client that repeats itself at once, share one line of tokens.
//   - N0 comes again later: it gives another successor, and N1 is dead.
//   - Any other token of the family, N0 after N1 was used or an N1 that is dead, is a
//     reuse, and ends the session.
//
// So of two parties that have N0, a thief and the owner, at most one has a token that
// is valid, except for those repeatWithin. Whoever of them uses a dead token ends the
// session. That is at the latest when both have used what they got: if the thief
// refreshes first and the owner after, the thief's next use ends the session, and if
// the thief used his successor before, the owner's use does. Two who always refresh
// within repeatWithin of each other share one line unnoticed, so a thief who learns
// within these 10 s of each refresh of the owner, and repeats it, stays until the session
// expires. Nothing tells him: the session that a token is of shows itself as used just
// now. A thief whom the owner leaves alone, by never coming back, stays as long.
//
// N1 is computed from N0 and the time in the row rather than drawn by lot, since the
// store has only its hash.

// repeatWithin is how long after its use a refresh token returns the same successor again.
const repeatWithin = 10 * time.Second

var (
	// ErrRefreshReused means that a refresh token was used although its successor was
	// already used.
	ErrRefreshReused = errors.New("the refresh token was already used")
	// errLateRefresh makes a client repeat a refresh that took too long: its token may have
	// been replaced in the meantime, and the next response has a valid one.
	errLateRefresh = errors.New(
		"the user store took too long to refresh a session; the client can send the same refresh token again",
	)
)

// RefreshLine is the stored state of a family of refresh tokens.
type RefreshLine struct {
	// Hash is the hash of the valid token. It replaced the token of PreviousHash at
	// RotatedAt, in milliseconds.
	Hash, PreviousHash string
	RotatedAt          time.Time
}

// RefreshUse is one request that uses a refresh token.
type RefreshUse struct {
	// Token is the refresh token, as the client sent it.
	Token string
	// Family is the prefix of Token that its successors share.
	Family string
	// HashOf returns the hash of a token for storage.
	HashOf func(token string) string
	// Began is when the request arrived. Default: now.
	Began time.Time

	key []byte
	now func() time.Time
}

// Rotate returns the successor of the token and the new state of the family, which is
// unchanged if nothing must be written. It returns [ErrRefreshReused] for a reused token.
func (u *RefreshUse) Rotate(line RefreshLine) (next RefreshLine, successor string, err error) {
	used := u.HashOf(u.Token)
	if used != line.Hash {
		if used != line.PreviousHash {
			return line, "", ErrRefreshReused
		}
		// A request that started earlier must not replace a successor that was returned in
		// the meantime, so the time when this request started counts. A time in the future
		// comes from a clock that was set, or from another node.
		same := u.successor(line.RotatedAt)
		if u.Began.Sub(line.RotatedAt) <= repeatWithin && u.HashOf(same) == line.Hash {
			return line, same, nil
		}
	}
	next = RefreshLine{PreviousHash: used, RotatedAt: time.UnixMilli(u.now().UnixMilli())}
	successor = u.successor(next.RotatedAt)
	next.Hash = u.HashOf(successor)
	return next, successor, nil
}

// InTime returns an error if the response is so late that another request may have replaced
// its refresh token. So a returned token is always valid.
func (u *RefreshUse) InTime(line RefreshLine) error {
	if u.now().Sub(line.RotatedAt) > repeatWithin {
		return errLateRefresh
	}
	return nil
}

// successor computes the successor from the token and the time of its rotation.
func (u *RefreshUse) successor(rotatedAt time.Time) string {
	mac := hmac.New(sha256.New, u.key)
	mac.Write(binary.BigEndian.AppendUint64(append([]byte(u.Token), 0), uint64(rotatedAt.UnixMilli())))
	return u.Family + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
