package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

// KindRehashed is the kind of records of upgraded hashes of the same password: the ID is
// the mark of the new hash, the value is the mark of the previous one.
const KindRehashed = "rehashed password"

// PasswordMark returns a value that identifies the user's password hash and is not secret.
func PasswordMark(user store.User) string { return store.HashToken(user.PasswordHash) }

// SamePassword reports whether a user still has the password of the mark, even if its hash was
// upgraded.
func SamePassword(
	ctx context.Context, users store.UserStore, user store.User, mark string, now time.Time,
) (bool, error) {
	for known := PasswordMark(user); known != mark; {
		record, err := users.Record(ctx, KindRehashed, known, now)
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		if err == nil {
			err = json.Unmarshal(record.Value, &known)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// rehash upgrades a hash with weaker parameters. If that fails, it is retried at the next
// log-in.
func (l *LogIns) rehash(ctx context.Context, user store.User, pw string, client Client) store.User {
	turn := l.HashTurn("log-in", client)
	turn.Familiar = func() bool { return true } // by now
	hash, err := password.HashAgain(ctx, turn, pw)
	var renewed store.User
	var before []byte
	if err == nil {
		before, err = json.Marshal(PasswordMark(user))
	}
	if err == nil {
		err = l.Users().CreateRecord(ctx, store.Record{
			Kind: KindRehashed, ID: store.HashToken(hash), Owner: user.ID, Value: before,
		})
	}
	if err == nil {
		renewed, err = l.Users().UpdateUser(ctx, user.ID, l.Now(), func(u *store.User) error {
			if u.PasswordHash != user.PasswordHash {
				return store.ErrNotFound // it was changed in the meantime
			}
			u.PasswordHash = hash
			return nil
		})
	}
	if err != nil {
		l.Log.Warn(
			"password hash not upgraded; will retry at the next log-in", help.See("hash-not-upgraded"),
			zap.String("user_id", user.ID), zap.Error(err),
		)
		return user
	}
	return renewed
}

// ChangePassword changes the password of a user who knows the current one, and ends the
// other sessions. If the new password is already set, the response of an earlier request
// was lost, and the remaining steps are completed.
func (l *LogIns) ChangePassword(
	ctx context.Context, userID, sessionID, current, replacement string, asker Asker,
) error {
	client := asker.Client
	user, err := l.Users().User(ctx, userID)
	if err != nil {
		return StoreRefusal(err)
	}
	checked, err := l.CheckPassword(ctx, user, current, client)
	// it is counted
	if failure, ok := errors.AsType[*refusal.Error](err); ok && failure.Reason == refusal.WrongCredentials {
		done, checkErr := password.Check(ctx, l.HashTurn("log-in", client), user.PasswordHash, replacement)
		if checkErr != nil || !done {
			return errors.Join(StoreRefusal(checkErr), err)
		}
	} else if err != nil {
		return err
	} else if err := l.SetPassword(ctx, userID, &checked.PasswordHash, replacement, client); err != nil {
		return err
	} else {
		l.tell(ctx, letterPassword, user, asker)
	}
	l.Audit("password changed", userID, sessionID, client)
	return errors.Join(
		StoreRefusal(l.codes.dropAll(ctx, userID, user.EmailKey)), l.sessions.End(ctx, userID, "", sessionID),
	)
}

// SetPassword sets a password. If checked is not nil, it must still be the hash of the
// current password.
func (l *LogIns) SetPassword(ctx context.Context, userID string, checked *string, pw string, client Client) error {
	return l.setPassword(ctx, userID, pw, client, func(u *store.User) error {
		if checked != nil && u.PasswordHash != *checked {
			return errPasswordChanged
		}
		return nil
	})
}

// setPassword sets a password, or removes it if pw is empty, if change returns nil.
func (l *LogIns) setPassword(
	ctx context.Context, userID, pw string, client Client, change func(*store.User) error,
) error {
	hash := ""
	if pw != "" {
		var err error
		if hash, err = password.Hash(ctx, l.HashTurn("new password", client), pw); err != nil {
			return StoreRefusal(err)
		}
	}
	_, err := l.Users().UpdateUser(ctx, userID, l.Now(), func(u *store.User) error {
		if err := change(u); err != nil {
			return err
		}
		u.PasswordHash = hash
		return nil
	})
	if errors.Is(err, errPasswordChanged) {
		return &refusal.Error{Reason: refusal.WrongCredentials}
	}
	return codeRefusal(err)
}

var errPasswordChanged = errors.New("the password was changed in the meantime")

// Purposes of reset tokens from `caddy jwt user reset-link`.
const (
	PurposeReset     = "reset"
	PurposeResetKeep = "reset, identities stay"
)

// ResetUser returns the user of a reset token: of a link by an operator, or of one that was
// mailed, and what the browser sees of it. It does not use up the token.
func (l *LogIns) ResetUser(ctx context.Context, token, browser string) (store.User, MailedLink, error) {
	c, err := l.codes.findLink(ctx, token, purposeReset, purposeInvite)
	if err == nil {
		user, err := l.userOf(ctx, c)
		if refusal.Of(err).Reason == refusal.MailedCode {
			return user, MailedLink{}, &refusal.Error{Reason: refusal.OneTimeToken}
		}
		return user, c.mailedLink(browser), err
	}
	if !errors.Is(err, errWrongCode) {
		return store.User{}, MailedLink{}, StoreRefusal(err)
	}
	user, _, err := l.operatorsLink(ctx, token)
	return user, MailedLink{}, err
}

// operatorsLink returns the user of a link by an operator, and the stored token.
func (l *LogIns) operatorsLink(ctx context.Context, token string) (store.User, store.OneTimeToken, error) {
	found, err := l.Users().OneTimeToken(ctx, store.HashToken(token), PurposeReset, l.Now())
	if errors.Is(err, store.ErrNotFound) {
		found, err = l.Users().OneTimeToken(ctx, store.HashToken(token), PurposeResetKeep, l.Now())
	}
	var user store.User
	if err == nil {
		user, err = l.Users().User(ctx, found.UserID)
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && user.Disabled {
		return store.User{}, store.OneTimeToken{}, &refusal.Error{Reason: refusal.OneTimeToken}
	}
	return user, found, StoreRefusal(err)
}

// ResetPassword sets a password with a one-time token and removes everything that an
// intruder may have set up in the account. It returns the disconnected identities. If it
// fails, the token can be used again to complete it.
func (l *LogIns) ResetPassword(ctx context.Context, token, password string, asker Asker) ([]LinkedIdentity, error) {
	c, err := l.codes.takeLink(ctx, token, nil, purposeReset, purposeInvite)
	if err == nil {
		gone, err := l.resetBy(ctx, c, password, asker)
		if err != nil && errors.Is(err, refusal.MailedCode) {
			return nil, &refusal.Error{Reason: refusal.OneTimeToken}
		}
		return gone, err
	}
	if !errors.Is(err, errWrongCode) {
		return nil, StoreRefusal(err)
	}
	_, link, err := l.operatorsLink(ctx, token)
	if err != nil {
		return nil, err
	}
	var gone []LinkedIdentity
	_, err = l.Users().TakeOneTimeToken(ctx, link.Hash, link.Purpose, l.Now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, &refusal.Error{Reason: refusal.OneTimeToken}
	}
	if err == nil {
		keep := link.Purpose == PurposeResetKeep
		gone, err = l.recoverBy(ctx, recovery{UserID: link.UserID, KeepIdentities: keep}, password, asker)
	}
	if err != nil {
		err = errors.Join(StoreRefusal(err), l.Users().CreateOneTimeToken(context.WithoutCancel(ctx), link))
	}
	return gone, err
}

// recovery is whose account is recovered, and how.
type recovery struct {
	UserID         string
	KeepIdentities bool
	// Proved is the key of the address that the user has proved to have; empty for none. The user
	// must still have it.
	Proved string
	// Invited means that the password is the first one, by an invitation.
	Invited bool
}

// recoverBy sets the password, or removes it if it is empty, and recovers the account. If this is the
// first proof of its address, somebody else may have made the account, and a second factor ends too. The
// user is told of a new password, unless it is the first one.
func (l *LogIns) recoverBy(
	ctx context.Context, r recovery, password string, asker Asker,
) ([]LinkedIdentity, error) {
	client := asker.Client
	before, err := l.Users().User(ctx, r.UserID)
	if err != nil {
		return nil, StoreRefusal(err)
	}
	endFactors := func() error { return nil }
	if r.Proved != "" && !before.EmailVerified {
		endFactors = func() error { return ResetFactors(ctx, l.Users(), r.UserID, l.Now()) }
	}
	if err := endFactors(); err != nil { // before the address counts as verified, so that it can be repeated
		return nil, StoreRefusal(err)
	}
	emailKey := ""
	err = l.setPassword(ctx, r.UserID, password, client, func(u *store.User) error {
		if r.Proved != "" && u.EmailKey != r.Proved {
			return errWrongCode
		}
		u.EmailVerified = u.EmailVerified || r.Proved != ""
		emailKey = u.EmailKey
		return nil
	})
	if err != nil {
		return nil, err
	}
	l.Audit("password reset", r.UserID, "", client)
	ctx = context.WithoutCancel(ctx) // the password is already changed
	if err := RevokeKeys(ctx, l.Users(), r.UserID, l.Now()); err != nil {
		return nil, err
	}
	gone, err := RecoverAccount(ctx, l.Users(), r.UserID, r.KeepIdentities, l.Now(), func() error {
		// a session may have added one in the meantime
		return errors.Join(l.sessions.End(ctx, r.UserID, "", ""), endFactors())
	})
	if len(gone) > 0 {
		l.Audit("external identities disconnected", r.UserID, "", client)
	}
	if err == nil { // at the end, so that the code can be used again until then
		err = l.codes.dropAll(ctx, r.UserID, emailKey)
	}
	if err == nil && password != "" && !r.Invited && (before.PasswordHash != "" || r.Proved != "") {
		l.tell(ctx, letterPassword, before, asker)
	}
	return gone, err
}
