package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
)

// SignUpByMail begins a sign-up with `verify_email`: it mails a code and a link to the address.
// There is no account until they are used, so nobody can prepare one for the owner of the address.
// If the address has an account, the mail says so. The result and the time are the same. A name that is
// taken is refused, because anybody can see names; it is not reserved before the address is confirmed.
func (l *LogIns) SignUpByMail(ctx context.Context, as NewUser, asker Asker) error {
	wanted, err := as.user()
	if err != nil {
		return err
	}
	email, key := wanted.Email, wanted.EmailKey
	if _, wait := l.attempts.signUps.Begin(ctx, network.Key(asker.Address), l.Now()); wait > 0 {
		return Throttled("sign-ups of the client", wait)
	}
	if err := l.checkNameFree(ctx, wanted); err != nil {
		return l.refuseTakenName(ctx, err, asker.Client)
	}
	hash, err := password.Hash(ctx, l.HashTurn("sign-up", asker.Client), as.Password)
	if err != nil {
		return StoreRefusal(err)
	}
	known, err := l.Users().UserByEmail(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return StoreRefusal(err)
	}
	// The hash also if there is an account: a log-in with this password has the same answer then.
	c := mailedCode{Purpose: purposeVerify, Of: key, Email: email, EmailKey: key, PasswordHash: hash}
	if err == nil {
		c.Void = true
		return l.mailCode(ctx, letterExists, c, false, asker.speaks(known.Profile))
	}
	if c.Profile, err = json.Marshal(wanted.Profile); err != nil {
		return err
	}
	return l.mailCode(ctx, letterVerify, c, false, asker.speaks(wanted.Profile))
}

// AddressProof is what somebody shows to confirm an address.
type AddressProof struct {
	// Email and Code are what was mailed where, or Token is that of the link.
	Email, Code, Token string
	// Password is the password of the sign-up. It is required if the code was asked for in another
	// browser: who has the mailbox but did not sign up must not confirm what somebody else chose.
	Password string
	// Bound requires Browser of the Asker or Password. Without it they are only required of a browser
	// that has asked for another code.
	Bound bool
}

// Verify confirms an address, which completes a sign-up, and starts a session.
func (l *LogIns) Verify(ctx context.Context, proof AddressProof, asker Asker) (*Grant, error) {
	bound := func(c *mailedCode) error {
		if proof.Password == "" && !c.isBrowser(asker.Browser) && (proof.Bound || asker.Browser != "") {
			return &refusal.Error{Reason: refusal.OtherBrowser}
		}
		return nil
	}
	var c mailedCode
	var byClient attempt
	var err error
	if proof.Token != "" {
		// The code of a mail has its limits; who has a link may only have to guess the password.
		var wait time.Duration
		if byClient, wait = l.attempts.Clients.Begin(ctx, network.Key(asker.Address), l.Now()); wait > 0 {
			return nil, l.refuseThrottled("client", wait, asker.Client)
		}
		c, err = l.codes.takeLink(ctx, proof.Token, bound, purposeVerify)
		err = codeRefusal(err)
	} else {
		key, keyErr := store.EmailKey(proof.Email)
		if keyErr != nil {
			key = "" // nobody's
		}
		c, err = l.useCode(ctx, purposeVerify, key, proof.Code, asker.Client, bound)
	}
	if err != nil {
		byClient.Forgive()
		return nil, err
	}
	methods := []string{MethodMailedCode}
	user, wrong, err := l.verified(ctx, c, proof.Password, asker.Client)
	if !wrong {
		byClient.Forgive()
	}
	if err != nil {
		return nil, errors.Join(err, l.codes.giveBack(ctx, c, wrong, asker.Client))
	}
	if proof.Password != "" {
		methods = append(methods, MethodPassword)
	}
	return l.factors.Enter(ctx, Entry{User: user, Methods: methods}, asker.Client)
}

// verified creates the account of a sign-up, or marks the address of an account as verified. wrong
// means that the password is not right.
func (l *LogIns) verified(
	ctx context.Context, c mailedCode, pw string, client Client,
) (user store.User, wrong bool, err error) {
	hash := c.PasswordHash
	if c.UserID != "" {
		if user, err = l.userOf(ctx, c); err != nil {
			return user, false, err
		}
		hash = user.PasswordHash
	}
	if pw != "" {
		right, err := password.Check(ctx, l.HashTurn("log-in", client), hash, pw)
		if err != nil {
			return user, false, StoreRefusal(err)
		}
		if !right {
			return user, true, &refusal.Error{Reason: refusal.WrongCredentials}
		}
	}
	if c.UserID != "" {
		user, err = l.markVerified(ctx, c.UserID, c.EmailKey)
		return user, false, err
	}
	now := l.Now()
	user = store.User{
		ID: uuid.NewString(), Email: c.Email, EmailKey: c.EmailKey, EmailVerified: true, PasswordHash: c.PasswordHash,
		Roles: l.Config.DefaultRoles, CreatedAt: now, UpdatedAt: now,
	}
	profile, err := jwt.ParseClaims(c.Profile) // keeps every digit of a whole number
	if err != nil {
		return user, false, err
	}
	user.Profile, _ = store.PlainValue(profile).(map[string]any)
	err = store.AddUser(context.WithoutCancel(ctx), l.Users(), user, now)
	if isTaken(err) { // in the meantime, for example by an administrator
		return user, false, takenRefusal(err)
	}
	if err == nil {
		l.CountEvent("signup", "ok")
		l.Audit("signup", user.ID, "", client)
	}
	return user, false, StoreRefusal(err)
}

// markVerified marks an address as verified, if the user still has it.
func (l *LogIns) markVerified(ctx context.Context, userID, emailKey string) (store.User, error) {
	user, err := l.Users().UpdateUser(ctx, userID, l.Now(), func(u *store.User) error {
		if u.EmailKey != emailKey {
			return errWrongCode
		}
		u.EmailVerified = true
		return nil
	})
	return user, codeRefusal(err)
}

// MailedLink is the link of a mail.
type MailedLink struct {
	// Email is the address that it was mailed to.
	Email string
	// Bound reports whether the browser has asked for it. Then ReturnTo is where it goes on after the
	// log-in; may be empty.
	Bound    bool
	ReturnTo string
}

func (c *mailedCode) mailedLink(browser string) MailedLink {
	link := MailedLink{Email: c.Email, Bound: c.isBrowser(browser)}
	if link.Bound {
		link.ReturnTo = c.ReturnTo
	}
	return link
}

// VerifyLink returns the link that confirms an address, as a browser sees it. It changes nothing.
func (l *LogIns) VerifyLink(ctx context.Context, token, browser string) (MailedLink, error) {
	c, err := l.codes.findLink(ctx, token, purposeVerify)
	return c.mailedLink(browser), codeRefusal(err)
}

// LogInLink returns the link that logs in, as a browser sees it. It changes nothing.
func (l *LogIns) LogInLink(ctx context.Context, token, browser string) (MailedLink, error) {
	c, err := l.codes.findLink(ctx, token, purposeLogIn)
	return c.mailedLink(browser), codeRefusal(err)
}

// waitingSignUp returns who has signed up with an address and has not confirmed it, as a user without
// an ID; nobody if there is none. A sign-up with the address of an account
// waits as well, so that a log-in with its password does not tell whether there is an account.
func (l *LogIns) waitingSignUp(ctx context.Context, emailKey string) (user store.User, err error) {
	c, err := l.codes.find(ctx, purposeVerify, emailKey)
	if errors.Is(err, errWrongCode) || err == nil && c.UserID != "" {
		return user, nil
	}
	return store.User{Email: c.Email, EmailKey: c.EmailKey, PasswordHash: c.PasswordHash}, err
}

// askToVerify mails another code to a user who knows the password, and refuses the log-in.
func (l *LogIns) askToVerify(ctx context.Context, user store.User, asker Asker) error {
	c := mailedCode{
		Purpose: purposeVerify, Of: user.EmailKey, Email: user.Email, EmailKey: user.EmailKey, UserID: user.ID,
	}
	letter, speaker := letterVerify, user
	if user.ID == "" {
		waiting, err := l.codes.find(ctx, purposeVerify, user.EmailKey)
		if err != nil {
			return codeRefusal(err)
		}
		c.PasswordHash, c.Profile, c.Void = waiting.PasswordHash, waiting.Profile, waiting.Void
		if speaker, err = l.Users().UserByEmail(ctx, user.EmailKey); err != nil && !errors.Is(err, store.ErrNotFound) {
			return StoreRefusal(err)
		}
		if c.Void {
			letter = letterExists
		}
	}
	err := l.mailCode(ctx, letter, c, false, asker.speaks(speaker.Profile))
	if failure, ok := errors.AsType[*refusal.Error](err); ok && failure.Reason == refusal.Throttled {
		err = nil // the last mail may still be good
	}
	if err != nil {
		return err
	}
	return &refusal.Error{Reason: refusal.EmailNotVerified}
}
