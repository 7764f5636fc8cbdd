package accounts

import (
	"context"
	"errors"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Forgot mails a code and a link for a new password, if the address has an account. The result and
// the time are the same if it has none.
func (l *LogIns) Forgot(ctx context.Context, email string, asker Asker) error {
	return l.mailToUser(ctx, email, purposeReset, letterReset, asker)
}

// AskLogInCode mails a code instead of a password, if the address has an account. The result and
// the time are the same if it has none.
func (l *LogIns) AskLogInCode(ctx context.Context, email string, asker Asker) error {
	return l.mailToUser(ctx, email, purposeLogIn, letterLogIn, asker)
}

func (l *LogIns) mailToUser(ctx context.Context, email, purpose, letter string, asker Asker) error {
	key, err := store.EmailKey(email)
	if err != nil {
		return refusal.Property("email", "format", err)
	}
	user, err := l.Users().UserByEmail(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return StoreRefusal(err)
	}
	c := mailedCode{Purpose: purpose, Of: key, Email: email, EmailKey: key}
	if err == nil && !user.Disabled {
		c.Email, c.UserID = user.Email, user.ID // not as somebody else spells it
		asker = asker.speaks(user.Profile)
	} else {
		c.Void = true
	}
	return l.mailCode(ctx, letter, c, c.Void, asker)
}

// ResetByCode sets a password with a mailed code, and recovers the account as
// [LogIns.ResetPassword] does. It returns the disconnected identities.
func (l *LogIns) ResetByCode(
	ctx context.Context, email, code, password string, asker Asker,
) ([]LinkedIdentity, error) {
	key, err := store.EmailKey(email)
	if err != nil {
		key = "" // nobody's
	}
	c, err := l.useCode(ctx, purposeReset, key, code, asker.Client, nil)
	if err != nil {
		return nil, err
	}
	return l.resetBy(ctx, c, password, asker)
}

// resetBy sets a password with a code that was used up. If it fails, the code can be used again.
func (l *LogIns) resetBy(
	ctx context.Context, c mailedCode, password string, asker Asker,
) (gone []LinkedIdentity, err error) {
	if _, err = l.userOf(ctx, c); err == nil {
		gone, err = l.recoverBy(ctx, recovery{
			UserID: c.UserID, Proved: c.EmailKey, Invited: c.Purpose == purposeInvite,
		}, password, asker)
	}
	if err != nil {
		err = errors.Join(StoreRefusal(err), l.codes.giveBack(ctx, c, false, asker.Client))
	}
	return gone, err
}

// LogInByCode starts a session with a mailed code instead of a password.
//
// If the address was not verified before, somebody else may have made the account: then everything
// that was set up in it ends, its password too.
func (l *LogIns) LogInByCode(ctx context.Context, email, code string, client Client) (*Grant, error) {
	key, err := store.EmailKey(email)
	if err != nil {
		key = "" // nobody's
	}
	c, err := l.useCode(ctx, purposeLogIn, key, code, client, nil)
	if err != nil {
		return nil, err
	}
	return l.logInBy(ctx, c, client)
}

// LogInByLink is LogInByCode by the link of the mail, in the browser that has asked for it.
func (l *LogIns) LogInByLink(ctx context.Context, token string, asker Asker) (*Grant, error) {
	c, err := l.codes.takeLink(ctx, token, func(c *mailedCode) error {
		if !c.isBrowser(asker.Browser) {
			return &refusal.Error{Reason: refusal.OtherBrowser}
		}
		return nil
	}, purposeLogIn)
	if err != nil {
		return nil, codeRefusal(err)
	}
	return l.logInBy(ctx, c, asker.Client)
}

// logInBy starts a session with a code that was used up. If it fails, the code can be used again.
func (l *LogIns) logInBy(ctx context.Context, c mailedCode, client Client) (*Grant, error) {
	user, err := l.userOf(ctx, c)
	if err == nil && !user.EmailVerified {
		r := recovery{UserID: c.UserID, Proved: c.EmailKey}
		if _, err = l.recoverBy(ctx, r, "", Asker{Client: client}); err == nil {
			user, err = l.userOf(ctx, c)
		}
	}
	if err != nil {
		return nil, errors.Join(err, l.codes.giveBack(ctx, c, false, client))
	}
	return l.factors.Enter(ctx, Entry{User: user, Methods: []string{MethodMailedCode}}, client)
}
