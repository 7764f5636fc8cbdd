package accounts

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
	"go.uber.org/zap"
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
	return token, codesOf(users, now).put(ctx, c, c.lifetime())
}

// MayInvite reports whether a user can invite others.
func (l *LogIns) MayInvite(user store.User) bool {
	return slices.ContainsFunc(l.Config.Invitations, func(role string) bool {
		return slices.Contains(user.Roles, role)
	})
}

// SendInvitation mails somebody a link to set the first password, as [Invite] does, for a user who
// [LogIns.MayInvite]. If somebody can log in by the address already, the mail says so there, and the
// result is the same. The time is not: users who may invite are trusted so far.
func (l *LogIns) SendInvitation(
	ctx context.Context, inviter store.User, sessionID, email string, asker Asker,
) error {
	if !l.MayInvite(inviter) {
		return refusal.New(refusal.Role, "to invite others requires one of the roles %q", l.Config.Invitations)
	}
	key, err := store.EmailKey(email)
	if err != nil {
		return refusal.Property("email", "format", err)
	}
	now := l.Now()
	user, err := l.Users().UserByEmail(ctx, key)
	made := errors.Is(err, store.ErrNotFound)
	if made {
		user = store.User{
			ID: uuid.NewString(), Email: email, EmailKey: key, Roles: l.Config.DefaultRoles,
			CreatedAt: now, UpdatedAt: now,
		}
		err = l.Users().CreateUser(ctx, user)
	}
	if err != nil { // also if somebody else was first
		return StoreRefusal(err)
	}
	kind := letterInvite
	c := mailedCode{Purpose: purposeInvite, Of: key, Email: user.Email, EmailKey: key, UserID: user.ID}
	if !made {
		asker = asker.speaks(user.Profile)
		unusable, err := l.factors.nobodyLogsIn(ctx, user)
		if err != nil {
			return err
		}
		if c.Void = !unusable || user.Disabled; c.Void {
			kind = letterExists
		}
	}
	if err := l.mailCode(ctx, kind, c, user.Disabled, asker); err != nil {
		if made {
			err = errors.Join(err, l.Users().DeleteUser(context.WithoutCancel(ctx), user.ID, now))
		}
		return err
	}
	l.CountEvent("invite", "ok")
	l.Audit("invitation", inviter.ID, sessionID, asker.Client, zap.String("invited", user.ID))
	return nil
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
	return a.notice(letterFactorRemoved, mailer, user)
}

// PasswordMail returns the mail that tells a user that an operator has set another password.
func (a *Config) PasswordMail(mailer mail.Mailer, user store.User) (mail.Message, error) {
	return a.notice(letterPassword, mailer, user)
}

func (a *Config) notice(kind string, mailer mail.Mailer, user store.User) (mail.Message, error) {
	message := mail.Message{
		Kind: kind, To: user.Address(), UserID: user.ID, Language: localeOf(user.Profile, ""),
	}
	err := a.MailTemplates().Write(&message, a.Site(mailer, ""), Letter{})
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
	err := a.MailTemplates().Write(&message, a.Site(mailer, link), letter)
	return message, err
}
