package accounts

import (
	"context"
	"time"

	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Invite returns the token of a link with which a user sets the first password, within 24 hours. If
// the link is mailed, using it verifies the address. A new mailed link replaces the one before.
func Invite(
	ctx context.Context, users store.UserStore, user store.User, mailed bool, now func() time.Time,
) (token string, err error) {
	if !mailed {
		token = store.RandomToken(linkBytes)
		return token, users.CreateOneTimeToken(ctx, store.OneTimeToken{
			Hash: store.HashToken(token), Purpose: PurposeReset, UserID: user.ID, ExpiresAt: now().Add(inviteLifetime),
		})
	}
	c := mailedCode{
		Purpose: purposeInvite, Of: user.EmailKey, Email: user.Email, EmailKey: user.EmailKey, UserID: user.ID,
	}
	_, token = c.draw() // the code is not mailed
	return token, codesOf(users, now).put(ctx, c, inviteLifetime)
}

// DropMailedCodes ends the codes and links that were mailed to the address of a user, and a change of
// address that waits.
func DropMailedCodes(ctx context.Context, users store.UserStore, user store.User, now func() time.Time) error {
	return codesOf(users, now).dropAll(ctx, user.ID, user.EmailKey)
}

func codesOf(users store.UserStore, now func() time.Time) mailedCodes {
	of := &site{Now: now}
	of.AddStore(&users)
	return mailedCodes{of}
}

// ResetMail returns the mail that tells a user that an operator has removed the second factors.
func (a *Config) ResetMail(mailer mail.Mailer, user store.User) (mail.Message, error) {
	message := mail.Message{Kind: letterFactorRemoved, To: user.Email, UserID: user.ID}
	err := a.MailTemplates().Write(&message, a.Site(mailer), Letter{})
	return message, err
}

// InviteMail returns the mail with the link of an invitation.
func (a *Config) InviteMail(mailer mail.Mailer, user store.User, link string, now time.Time) (mail.Message, error) {
	message := mail.Message{
		Kind: letterInvite, To: user.Email, UserID: user.ID, ExpiresAt: now.Add(inviteLifetime),
	}
	message.Language = localeOf(user.Profile, "")
	words, _ := a.Texts().Named(message.Language)
	letter := Letter{Link: link, Lifetime: words.Text("%d hours", int(inviteLifetime/time.Hour))}
	err := a.MailTemplates().Write(&message, a.Site(mailer), letter)
	return message, err
}
