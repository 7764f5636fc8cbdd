package accounts

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// LogIns checks passwords, changes them, and creates accounts. It limits guessing.
type LogIns struct {
	*site
	sessions *Sessions
	factors  *Factors
	attempts *Attempts
	mails    *Mails // nil without `mail`
	codes    mailedCodes

	signingUp singleflight.Group // by EmailKey: of the address or, without one, of the name
}

// SignUp creates an account.
func (l *LogIns) SignUp(ctx context.Context, as NewUser, client Client) (store.User, error) {
	wanted, err := as.user()
	if err != nil {
		return store.User{}, err
	}
	if _, wait := l.attempts.signUps.Begin(ctx, network.Key(client.Address), l.Now()); wait > 0 {
		return store.User{}, Throttled("sign-ups of the client", wait)
	}
	// Concurrent sign-ups with one address or name create a single hash, or none if it is taken.
	var user store.User
	first := false
	_, err, _ = l.signingUp.Do(wanted.EmailKey, func() (any, error) {
		first = true
		refused, wait := l.attempts.RefusedSignUps.Begin(ctx, network.Key(client.Address), l.Now())
		if wait > 0 {
			return nil, Throttled("refused sign-ups of the client", wait)
		}
		defer func() {
			if !isTaken(err) { // also if it is not the client's fault
				refused.Forgive()
			}
		}()
		user, err = l.addUser(context.WithoutCancel(ctx), wanted, as.Password, client)
		return nil, err
	})
	if err == nil && !first {
		if err = store.ErrEmailTaken; wanted.Address() == "" {
			err = store.ErrUsernameTaken
		}
	}
	if isTaken(err) {
		l.CountEvent("signup", "refused")
		return store.User{}, takenRefusal(err)
	}
	if err != nil {
		return store.User{}, StoreRefusal(err)
	}
	l.Audit("signup", user.ID, "", client)
	return user, nil
}

func (l *LogIns) addUser(ctx context.Context, user store.User, pw string, client Client) (store.User, error) {
	if err := l.checkFree(ctx, user); err != nil { // before creating a hash for nothing
		return store.User{}, err
	}
	hash, err := password.Hash(ctx, l.HashTurn("sign-up", client), pw)
	if err != nil {
		return store.User{}, err
	}
	now := l.Now()
	user.ID, user.PasswordHash, user.Roles = uuid.NewString(), hash, l.Config.DefaultRoles
	user.CreatedAt, user.UpdatedAt = now, now
	return user, store.AddUser(ctx, l.Users(), user, now)
}

// LogIn starts a session, unless a second factor is needed; see [Factors.Enter]. The response and
// its timing are the same for an unknown user, a disabled user and a wrong password. With
// `verify_email`, a user whose address is not verified gets another mail if the password is right,
// and no session.
func (l *LogIns) LogIn(ctx context.Context, identifier, pw string, asker Asker) (*Grant, error) {
	instead := l.waitingSignUp
	if !l.Config.VerifyEmail {
		instead = nil
	}
	user, outdated, err := l.checkPassword(ctx, l.Config.keyOf(identifier), pw, asker.Client, instead)
	if err != nil {
		return nil, err
	}
	if l.Config.mustVerify(user) {
		return nil, l.askToVerify(ctx, user, asker)
	}
	if outdated {
		user = l.rehash(ctx, user, pw, asker.Client)
	}
	return l.factors.Enter(ctx, Entry{User: user, Methods: []string{MethodPassword}}, asker.Client)
}

// whyRefused returns why a log-in by a password was refused, for the audit log. The client is not
// told.
func whyRefused(user store.User) string {
	switch {
	case user.ID == "":
		return "unknown_user"
	case user.Disabled:
		return "disabled"
	case user.PasswordHash == "":
		return "no_password"
	}
	return "wrong_password"
}

// CheckPassword returns a user as it is now, if the password is correct.
func (l *LogIns) CheckPassword(ctx context.Context, user store.User, pw string, client Client) (store.User, error) {
	user, _, err := l.checkPassword(ctx, l.Config.logInKey(user), pw, client, nil)
	return user, err
}

// checkPassword is CheckPassword. If the password is not that of a user, but that of whom instead
// returns, it returns that one; instead may be nil. It also reports whether the password should be
// hashed again.
func (l *LogIns) checkPassword(
	ctx context.Context, key, pw string, client Client,
	instead func(ctx context.Context, key string) (store.User, error),
) (user store.User, outdated bool, err error) {
	now := l.Now()
	byClient, wait := l.attempts.Clients.Begin(ctx, network.Key(client.Address), now)
	if wait > 0 {
		return store.User{}, false, l.refuseThrottled("client", wait, client)
	}
	user, err = l.userByKey(ctx, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		byClient.Forgive()
		return store.User{}, false, StoreRefusal(err)
	}
	familiar := sync.OnceValue(func() bool { return l.isFamiliar(ctx, user, key, client, now) })
	used, wait, err := l.admit(ctx, l.attempts.logIns, key, familiar, client, now)
	if err != nil {
		return store.User{}, false, err
	}
	forgive := func() {
		byClient.Forgive()
		used.forgive()
	}
	hash := user.PasswordHash
	if user.Disabled {
		hash = ""
	}
	turn := l.HashTurn("log-in", client)
	turn.Familiar = familiar
	right, outdated, err := password.Match(ctx, turn, hash, pw)
	if err == nil && !right && instead != nil { // also if there is nobody, so that it takes as long
		var other store.User
		if other, err = instead(ctx, key); err == nil {
			right, outdated, err = password.Match(ctx, turn, other.PasswordHash, pw)
		}
		if right {
			user = other
		}
	}
	if err != nil {
		forgive()
		return store.User{}, false, StoreRefusal(err)
	}
	switch {
	case !right && wait > 0:
		return store.User{}, false, l.refuseThrottled("account", wait, client)
	case !right:
		l.CountEvent("login", "refused")
		l.Audit("login refused", user.ID, "", client, zap.String("reason", whyRefused(user)))
		return store.User{}, false, &refusal.Error{Reason: refusal.WrongCredentials}
	}
	forgive()
	l.attempts.familiar.Set(familiarKey(key, client), struct{}{})
	return user, outdated, nil
}

// attemptList are attempts that are counted as failures until they are forgiven.
type attemptList []attempt

func (used attemptList) forgive() {
	for _, a := range used {
		a.Forgive()
	}
}

// admit counts an attempt to prove to be the user of an account, by a throttle and a key of the
// account. If the attempts are used up but the client may still make one, wait is not 0: then a
// failure must be answered as if there were none left.
func (l *LogIns) admit(
	ctx context.Context, by *Throttle, key string, familiar func() bool, client Client, now time.Time,
) (used attemptList, wait time.Duration, err error) {
	counted, wait := by.Begin(ctx, key, now)
	if wait == 0 {
		return attemptList{counted}, 0, nil
	}
	used, allowed := l.Spares(ctx, familiar(), key, client, now)
	if !allowed {
		return nil, wait, l.refuseThrottled("account", wait, client)
	}
	return used, wait, nil
}

// Confirm ensures that the user is present, and not somebody who has taken over a session:
// the log-in is recent, or the password is correct. A wrong password counts as a failed
// log-in.
func (l *LogIns) Confirm(ctx context.Context, user store.User, sessionID, password string, client Client) error {
	fresh, err := l.sessions.IsFresh(ctx, user.ID, sessionID)
	if err != nil || fresh {
		return err
	}
	if password == "" || user.PasswordHash == "" {
		return &refusal.Error{Reason: refusal.NotConfirmed}
	}
	_, err = l.CheckPassword(ctx, user, password, client)
	return err
}

const (
	StrangerAttempts = 3  // attempts of a client that has not logged in to the account before
	SparedFactor     = 10 // of all such clients together, times the failures of an account
)

// Spares reports whether a client may still attempt a log-in to an account whose attempts
// are used up. If the password is correct, the client is let in, so that guessing cannot
// lock the user out; otherwise the response is the same as without the attempt. A client
// that has logged in to the account before has as many attempts as the account; any other
// client has few, and using up the attempts of all of them takes many clients that keep
// guessing. A correct password gives the attempts back. None of this depends on whether the
// user exists.
func (l *LogIns) Spares(
	ctx context.Context, familiar bool, key string, client Client, now time.Time,
) (used []attempt, allowed bool) {
	if familiar {
		its, wait := l.attempts.familiars.Begin(ctx, familiarKey(key, client), now)
		return []attempt{its}, wait == 0
	}
	stranger, wait := l.attempts.strangers.Begin(ctx, key+"\n"+network.Prefix(client.Address, 48), now)
	if wait > 0 {
		return nil, false
	}
	spared, wait := l.attempts.allStrangers.Begin(ctx, key, now)
	return []attempt{stranger, spared}, wait == 0
}

// isFamiliar reports whether the client has logged in to the account before: on this node,
// or on another node in a session that is still active.
func (l *LogIns) isFamiliar(ctx context.Context, user store.User, key string, client Client, now time.Time) bool {
	_, here := l.attempts.familiar.GetIfPresent(familiarKey(key, client))
	sessions, err := l.Users().Sessions(ctx, user.ID, now) // also for an unknown user, so that it takes as long
	return here || err == nil && slices.ContainsFunc(sessions, func(x store.Session) bool {
		return network.Key(x.Address) == network.Key(client.Address)
	})
}

func familiarKey(key string, client Client) string {
	return key + "\n" + network.Key(client.Address)
}

func (l *LogIns) refuseThrottled(what string, wait time.Duration, client Client) *refusal.Error {
	l.CountEvent("login", "throttled")
	l.Log.Debug("log-in throttled", zap.String("by", what), zap.String("client_ip", client.Address))
	return Throttled("failed log-ins of the "+what, wait)
}
