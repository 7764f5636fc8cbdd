package accounts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
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

// repeatWithin is how long after its use a refresh token gives the same successor
// again.
const repeatWithin = 10 * time.Second

var (
	// ErrRefreshReused means that a refresh token was replaced by one that was used.
	ErrRefreshReused = errors.New("the refresh token was already used")
	// errLateRefresh is why a client whose refresh took too long repeats itself: its
	// token may be replaced by then, and the next answer has one that is valid.
	errLateRefresh = errors.New("the user store took too long to refresh a session; the client can send the same refresh token again")
)

// RefreshLine is what is kept of a family of refresh tokens.
type RefreshLine struct {
	// Hash is of the token that is valid. It replaced the one of PreviousHash at
	// RotatedAt, which is kept to the millisecond.
	Hash, PreviousHash string
	RotatedAt          time.Time
}

// RefreshUse is one request that uses a refresh token.
type RefreshUse struct {
	Token string
	// Family is the beginning of Token that its successors share.
	Family string
	// HashOf is how tokens are kept.
	HashOf func(token string) string
	// Began is when the request came. Default: now.
	Began time.Time

	key []byte
	now func() time.Time
}

// Rotate returns the successor of the token, and what is to be kept for it: the line
// as it is where nothing is to be written. [ErrRefreshReused].
func (u *RefreshUse) Rotate(line RefreshLine) (next RefreshLine, successor string, err error) {
	used := u.HashOf(u.Token)
	if used != line.Hash {
		if used != line.PreviousHash {
			return line, "", ErrRefreshReused
		}
		// A request that had begun before must not replace a successor that was
		// answered meanwhile, so it counts when this one began. A time that is still to
		// come is of a clock that was set, or of another node's.
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

// InTime refuses an answer that comes so late that another request may have replaced
// its refresh token: what was answered stays valid.
func (u *RefreshUse) InTime(line RefreshLine) error {
	if u.now().Sub(line.RotatedAt) > repeatWithin {
		return errLateRefresh
	}
	return nil
}

// successor is computed from the token and the time of its rotation.
func (u *RefreshUse) successor(rotatedAt time.Time) string {
	mac := hmac.New(sha256.New, u.key)
	mac.Write(binary.BigEndian.AppendUint64(append([]byte(u.Token), 0), uint64(rotatedAt.UnixMilli())))
	return u.Family + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// kindRefreshKey is of the key by which the successors of refresh tokens are computed.
const kindRefreshKey = "refresh key"

// UseRefreshToken begins the use of a refresh token.
func (s *Service) UseRefreshToken(ctx context.Context, use RefreshUse) (*RefreshUse, error) {
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
