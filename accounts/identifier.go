package accounts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Values of [Config].Identifier: by what users sign up and log in.
const (
	IdentifierEmail    = "email"
	IdentifierUsername = "username"
	IdentifierAny      = "any"
)

func (a *Config) checkIdentifier() error {
	option, verb := "", "needs"
	switch {
	case a.VerifyEmail:
		option = "verify_email"
	case a.EmailLogin:
		option = "email_login"
	case len(a.Invitations) > 0:
		option, verb = "invitations", "need"
	}
	switch {
	case !slices.Contains(identifiers, a.Identifier):
		return fmt.Errorf("identifier: %w", config.Unknown("value", a.Identifier, identifiers))
	case a.Identifier == IdentifierUsername && option != "":
		return fmt.Errorf("%s %s e-mail addresses, but with identifier username users have names; write "+
			"identifier any, or remove %[1]s", option, verb)
	}
	return nil
}

// keyOf returns the key of an address or a name that somebody has typed to log in; empty if it can be
// nobody's.
func (a *Config) keyOf(typed string) (key string) {
	switch isAddress := strings.Contains(typed, "@"); {
	case isAddress && a.Identifier != IdentifierUsername:
		key, _ = store.EmailKey(typed)
	case !isAddress && a.Identifier != IdentifierEmail:
		key, _ = store.UsernameKey(typed)
	}
	return key
}

// logInKey returns the key by which a user logs in, under which attempts to do so are counted.
func (a *Config) logInKey(user store.User) string {
	if a.Identifier == IdentifierUsername {
		if key, err := store.UsernameKey(user.Username()); err == nil {
			return key
		}
	}
	return user.EmailKey
}

// mustVerify reports whether a user has to confirm the address before a log-in.
func (a *Config) mustVerify(user store.User) bool {
	return a.VerifyEmail && user.Address() != "" && !user.EmailVerified
}

// userByKey returns the user with the address or name of a key.
func (l *LogIns) userByKey(ctx context.Context, key string) (store.User, error) {
	if l.Config.Identifier == IdentifierEmail {
		return l.Users().UserByEmail(ctx, key)
	}
	return store.UserByKey(ctx, l.Users(), key)
}

// NewUser is somebody who signs up.
type NewUser struct {
	// Email is the address, and Username the name. With `identifier any`, there may be both.
	Email, Username string
	// Password and Profile are what they chose.
	Password string
	Profile  map[string]any
}

// user returns the user, without what the accounts add.
func (n NewUser) user() (user store.User, err error) {
	user.Profile = n.Profile
	if n.Email != "" || n.Username == "" {
		if err := user.SetEmail(n.Email); err != nil {
			return user, refusal.Property("email", "format", err)
		}
	}
	if n.Username != "" {
		if err := user.SetUsername(n.Username); err != nil {
			return user, refusal.Property("username", "format", err)
		}
	}
	return user, nil
}

// checkFree returns an error if another user has the address or the name of a new one.
func (l *LogIns) checkFree(ctx context.Context, user store.User) error {
	if err := l.checkNameFree(ctx, user); err != nil || user.Address() == "" {
		return err
	}
	_, err := l.Users().UserByEmail(ctx, user.EmailKey)
	return takenUnlessNotFound(err, store.ErrEmailTaken)
}

// checkNameFree returns an error if another user has the name of a new one.
func (l *LogIns) checkNameFree(ctx context.Context, user store.User) error {
	if user.Username() == "" {
		return nil
	}
	key, err := store.UsernameKey(user.Username())
	if err != nil {
		return err
	}
	_, err = store.UserByKey(ctx, l.Users(), key)
	return takenUnlessNotFound(err, store.ErrUsernameTaken)
}

func takenUnlessNotFound(err, taken error) error {
	switch {
	case err == nil:
		return taken
	case errors.Is(err, store.ErrNotFound):
		return nil
	}
	return err
}

// refuseTakenName counts a sign-up whose name is taken.
func (l *LogIns) refuseTakenName(ctx context.Context, err error, client Client) error {
	if !isTaken(err) {
		return StoreRefusal(err)
	}
	if _, wait := l.attempts.RefusedSignUps.Begin(ctx, network.Key(client.Address), l.Now()); wait > 0 {
		return Throttled("refused sign-ups of the client", wait)
	}
	l.CountEvent("signup", "refused")
	return takenRefusal(err)
}

// isTaken reports whether another user has the address or the name.
func isTaken(err error) bool {
	return errors.Is(err, store.ErrEmailTaken) || errors.Is(err, store.ErrUsernameTaken)
}

func takenRefusal(err error) error {
	if errors.Is(err, store.ErrUsernameTaken) {
		return &refusal.Error{Reason: refusal.UsernameTaken}
	}
	return &refusal.Error{Reason: refusal.EmailTaken}
}
