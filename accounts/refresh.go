package accounts

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"
)

// Each use of a refresh token N0 replaces it by a successor N1 (RFC 9700 §4.14.2). If the
// response with N1 is lost, for example in an outage of some hours, the client still has only
// N0. This client is not a thief, so N0 stays valid until N1 is used:
//
//   - If N0 is used again within repeatWithin, the response has N1 again, and nothing is
//     written. So two tabs, or a client that retries at once, share one line of tokens.
//   - If N0 is used again later, the response has another successor, and N1 becomes invalid.
//   - The use of any other token of the family is a reuse and ends the session: N0 after N1 was
//     used, or an N1 that became invalid.
//
// Suppose that a thief and the owner both have N0. Then at most one of them has a valid token,
// except during repeatWithin. If the other one uses an invalid token, the session ends. This
// happens at the latest when both have used the successors that they got. If the thief
// refreshes first and the owner after that, the thief's next use ends the session. If the thief
// has already used the successor, the owner's use ends it.
//
// Two limits remain. First, two clients that always refresh within repeatWithin of each other
// share one line unnoticed. So a thief who learns of each refresh of the owner within these
// 10 s, and repeats it, stays until the session expires. Nothing reveals this to the thief: for
// a request with one of its tokens, the session list shows the session as used just now. Second,
// if the owner never comes back, a thief stays until the session expires.
//
// N1 is computed from N0 and the time in the row. It is not random, because the store keeps
// only its hash and could not return it again.

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
