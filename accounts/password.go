package accounts

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

// KindRehashed is of hashes that took the place of one of the same password: the
// ID is the mark of the new one, the value that of the one before.
const KindRehashed = "rehashed password"

// PasswordMark tells passwords apart, and is no secret.
func PasswordMark(user store.User) string { return store.HashToken(user.PasswordHash) }

// rehash replaces a hash of weaker parameters. If it cannot be done now, it is
// at the next log-in.
func (s *Service) rehash(ctx context.Context, user store.User, pw string, client Client) store.User {
	turn := s.HashTurn("log-in", client)
	turn.Familiar = func() bool { return true } // by now
	hash, err := password.Hash(ctx, turn, pw)
	var renewed store.User
	var before []byte
	if err == nil {
		before, err = json.Marshal(PasswordMark(user))
	}
	if err == nil {
		err = s.Users().CreateRecord(ctx, store.Record{Kind: KindRehashed, ID: store.HashToken(hash), Owner: user.ID, Value: before})
	}
	if err == nil {
		renewed, err = s.Users().UpdateUser(ctx, user.ID, s.Now(), func(u *store.User) error {
			if u.PasswordHash != user.PasswordHash {
				return store.ErrNotFound // it was changed meanwhile
			}
			u.PasswordHash = hash
			return nil
		})
	}
	if err != nil {
		s.Log.Warn("password hash not upgraded; will retry at the next log-in", zap.String("user_id", user.ID), zap.Error(err))
		return user
	}
	return renewed
}

// ChangePassword changes the password of somebody who knows it, and ends the
// other sessions. Where the new password is the one that the user has, it was changed by
// a request whose answer was lost, and what is left is done.
func (s *Service) ChangePassword(ctx context.Context, userID, sessionID, current, fresh string, client Client) error {
	user, err := s.Users().User(ctx, userID)
	if err != nil {
		return StoreRefusal(err)
	}
	checked, err := s.CheckCredentials(ctx, user.EmailKey, current, client)
	if failure, ok := errors.AsType[*refusal.Error](err); ok && failure.Reason == refusal.WrongCredentials { // which is counted
		done, checkErr := password.Check(ctx, s.HashTurn("log-in", client), user.PasswordHash, fresh)
		if checkErr != nil || !done {
			return errors.Join(StoreRefusal(checkErr), err)
		}
	} else if err != nil {
		return err
	} else if err := s.SetPassword(ctx, userID, &checked.PasswordHash, fresh, client); err != nil {
		return err
	}
	s.Audit("password changed", userID, sessionID, client)
	return s.EndSessions(ctx, userID, "", sessionID)
}

// SetPassword sets a password, if the hash of the one before is still what was
// checked.
func (s *Service) SetPassword(ctx context.Context, userID string, checked *string, pw string, client Client) error {
	hash, err := password.Hash(ctx, s.HashTurn("new password", client), pw)
	if err != nil {
		return StoreRefusal(err)
	}
	_, err = s.Users().UpdateUser(ctx, userID, s.Now(), func(u *store.User) error {
		if checked != nil && u.PasswordHash != *checked {
			return errPasswordChanged
		}
		u.PasswordHash = hash
		return nil
	})
	if errors.Is(err, errPasswordChanged) {
		return &refusal.Error{Reason: refusal.WrongCredentials}
	}
	return StoreRefusal(err)
}

var errPasswordChanged = errors.New("the password was changed in the meantime")

// Purposes of the tokens of `caddy jwt user reset-link`.
const (
	PurposeReset     = "reset"
	PurposeResetKeep = "reset, identities stay"
)

// ResetUser is whose password a token sets, and the token as it is kept. It is not used
// up.
func (s *Service) ResetUser(ctx context.Context, token string) (store.User, store.OneTimeToken, error) {
	found, err := s.Users().OneTimeToken(ctx, store.HashToken(token), PurposeReset, s.Now())
	if errors.Is(err, store.ErrNotFound) {
		found, err = s.Users().OneTimeToken(ctx, store.HashToken(token), PurposeResetKeep, s.Now())
	}
	var user store.User
	if err == nil {
		user, err = s.Users().User(ctx, found.UserID)
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && user.Disabled {
		return store.User{}, store.OneTimeToken{}, &refusal.Error{Reason: refusal.OneTimeToken}
	}
	return user, found, StoreRefusal(err)
}

// ResetPassword sets a password by a one-time token, and ends all that somebody
// else may have set up in the account. It returns the identities that it
// disconnected. If it fails, the token may be used again, to do what is left.
func (s *Service) ResetPassword(ctx context.Context, token, password string, client Client) ([]LinkedIdentity, error) {
	_, link, err := s.ResetUser(ctx, token)
	if err != nil {
		return nil, err
	}
	var gone []LinkedIdentity
	_, err = s.Users().TakeOneTimeToken(ctx, link.Hash, link.Purpose, s.Now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, &refusal.Error{Reason: refusal.OneTimeToken}
	}
	if err == nil {
		gone, err = s.recoverBy(ctx, link, password, client)
	}
	if err != nil {
		err = errors.Join(StoreRefusal(err), s.Users().CreateOneTimeToken(context.WithoutCancel(ctx), link))
	}
	return gone, err
}

// recoverBy does what a one-time token is for.
func (s *Service) recoverBy(ctx context.Context, link store.OneTimeToken, password string, client Client) ([]LinkedIdentity, error) {
	if err := s.SetPassword(ctx, link.UserID, nil, password, client); err != nil {
		return nil, err
	}
	s.Audit("password reset", link.UserID, "", client)
	ctx = context.WithoutCancel(ctx) // the password is another by now
	gone, err := RecoverAccount(ctx, s.Users(), link.UserID, link.Purpose == PurposeResetKeep, s.Now(), func() error {
		return s.EndSessions(ctx, link.UserID, "", "")
	})
	if len(gone) > 0 {
		s.Audit("external identities disconnected", link.UserID, "", client)
	}
	return gone, err
}
