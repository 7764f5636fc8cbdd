package accounts

import (
	"context"
	"errors"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// ChangeProfile sets properties of a user's profile. A property whose value is nil is removed, and
// properties that are not given stay.
func (l *LogIns) ChangeProfile(
	ctx context.Context, userID, sessionID string, properties map[string]any, client Client,
) (store.User, error) {
	user, err := l.Users().UpdateUser(ctx, userID, l.Now(), func(u *store.User) error {
		if u.Disabled {
			return store.ErrNotFound
		}
		u.SetProperties(properties)
		return nil
	})
	if err != nil {
		return user, StoreRefusal(err)
	}
	l.Audit("profile changed", userID, sessionID, client)
	return user, nil
}

// Delete deletes the account of a user who enters its password or, without one, has just logged in.
// A stolen session alone cannot do that.
func (l *LogIns) Delete(ctx context.Context, user store.User, sessionID, password string, client Client) error {
	if err := l.confirmByPassword(ctx, user, sessionID, password, client); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // a part of the data must not stay
	sessions, err := l.Users().Sessions(ctx, user.ID, l.Now())
	if err == nil {
		err = l.Users().DeleteUser(ctx, user.ID, l.Now())
	}
	if err != nil {
		return StoreRefusal(err)
	}
	for _, session := range sessions { // at once; other nodes learn it from the store
		l.sessions.Revoked.Add(session.ID, l.sessions.lastTokenUntil(l.Now()))
	}
	l.CountEvent("delete", "ok")
	l.Audit("account deleted", user.ID, sessionID, client)
	return nil
}

// confirmByPassword is Confirm for what a recent log-in is not enough for.
func (l *LogIns) confirmByPassword(
	ctx context.Context, user store.User, sessionID, password string, client Client,
) error {
	if user.PasswordHash == "" {
		return l.Confirm(ctx, user, sessionID, "", client)
	}
	checked, err := l.CheckPassword(ctx, user, password, client)
	if err == nil && checked.ID != user.ID {
		err = &refusal.Error{Reason: refusal.WrongCredentials}
	}
	return err
}

// Exporter is what another module knows about a user, for the export of an account.
type Exporter struct {
	// Name is the name of the property.
	Name string
	// Of returns the value of the property for a user, to be encoded as JSON.
	Of func(ctx context.Context, userID string) (any, error)
}

// Exports returns what other modules know about a user, by the name of the property.
func (l *links) Exports(ctx context.Context, userID string) (map[string]any, error) {
	all := make(map[string]any)
	var failed error
	l.exports.Range(func(_, value any) bool {
		exporter := value.(Exporter)
		found, err := exporter.Of(ctx, userID)
		all[exporter.Name] = found
		failed = errors.Join(failed, err)
		return err == nil
	})
	return all, StoreRefusal(failed)
}

// AddExporter adds what another module knows to exports, until remove is called.
func (l *links) AddExporter(exporter Exporter) (remove func()) { return hold(&l.exports, exporter) }
