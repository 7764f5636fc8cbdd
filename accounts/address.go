package accounts

import (
	"context"
	"errors"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// AskAddress mails a code to the new address of a user who is present, or says there that the
// address has an account. The result and the time are the same. The same address again verifies it.
func (l *LogIns) AskAddress(ctx context.Context, user store.User, email string, asker Asker) error {
	key, err := store.EmailKey(email)
	if err != nil {
		return refusal.Property("email", "format", err)
	}
	if key == user.EmailKey && email == user.Email && user.EmailVerified {
		return refusal.Property("email", "unchanged", texts.Errorf("is the address that you have"))
	}
	other, err := l.Users().UserByEmail(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return StoreRefusal(err)
	}
	c := mailedCode{Purpose: purposeEmail, Of: user.ID, Email: email, EmailKey: key, UserID: user.ID}
	if err == nil && other.ID != user.ID {
		c.Void = true
		return l.mailCode(ctx, letterExists, c, false, asker.speaks(other.Profile))
	}
	return l.mailCode(ctx, letterEmail, c, false, asker.speaks(user.Profile))
}

// ConfirmAddress changes the address of a user with the code that was mailed to the new one, and
// tells the old one. Sessions go on; codes that were mailed to the old address do not.
func (l *LogIns) ConfirmAddress(
	ctx context.Context, user store.User, sessionID, code string, asker Asker,
) error {
	c, err := l.useCode(ctx, purposeEmail, user.ID, code, asker.Client, nil)
	if err != nil {
		return err
	}
	_, err = l.Users().UpdateUser(ctx, user.ID, l.Now(), func(u *store.User) error {
		if u.EmailKey != user.EmailKey {
			return errWrongCode // another change was first
		}
		delete(u.Profile, "email_verified") // an import's, of the address before
		u.EmailVerified = true
		return u.SetEmail(c.Email) // a name stays
	})
	switch {
	case errors.Is(err, store.ErrEmailTaken): // in the meantime
		return &refusal.Error{Reason: refusal.EmailTaken}
	case err != nil:
		return errors.Join(codeRefusal(err), l.codes.giveBack(ctx, c, false, asker.Client))
	}
	l.Audit("e-mail address changed", user.ID, sessionID, asker.Client)
	if c.EmailKey == user.EmailKey {
		return nil
	}
	l.tell(ctx, letterEmailChanged, user, asker)
	return DropMailedCodes(context.WithoutCancel(ctx), l.Users(), user, l.Now) // it is changed
}
