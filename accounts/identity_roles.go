package accounts

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
)

// giveRoles gives a user the roles that the provider gives, and takes away those that it gave before.
// Roles that the user has for another reason are kept.
func (i *Identities) giveRoles(
	ctx context.Context, user store.User, identity *ExternalIdentity, client Client,
) (store.User, error) {
	if identity.Roles == nil {
		return user, nil
	}
	before, byOthers, err := rolesByIdentity(ctx, i.Users(), user.ID, identity.Issuer, identity.Subject, i.Now())
	if err != nil {
		return user, StoreRefusal(err)
	}
	now := identity.Roles
	roles, given := mergeRoles(user.Roles, before, byOthers, now)
	if err := store.CheckRoles(roles); err != nil {
		i.Log.Warn("the roles of a provider are not given: "+err.Error()+"; give roles by value with roles_from",
			help.See("provider-roles"), zap.String("user_id", user.ID))
		now = nil
		roles, given = mergeRoles(user.Roles, before, byOthers, now)
	}
	if slices.Equal(roles, user.Roles) && slices.Equal(given, before) {
		return user, nil
	}
	// The record always has at least what the user has because of it, so that nothing is kept after
	// an interruption.
	if err := i.recordRoles(ctx, identity, append(slices.Clone(before), now...)); err != nil {
		return user, err
	}
	user, err = i.Users().UpdateUser(ctx, user.ID, i.Now(), func(u *store.User) error {
		u.Roles, given = mergeRoles(u.Roles, before, byOthers, now)
		return nil
	})
	if err != nil {
		return user, StoreRefusal(err)
	}
	i.Audit("roles changed by the provider", user.ID, "", client, zap.Strings("roles", user.Roles))
	return user, i.recordRoles(ctx, identity, given)
}

// mergeRoles returns the roles of a user to whom a provider gives some now and gave others before, and
// which of them are the provider's.
func mergeRoles(own, before, byOthers, now []string) (roles, given []string) {
	for _, role := range own {
		if !slices.Contains(before, role) || slices.Contains(byOthers, role) {
			roles = append(roles, role)
		}
	}
	for _, role := range now {
		isOwn := slices.Contains(roles, role)
		if !isOwn || slices.Contains(byOthers, role) {
			given = append(given, role)
		}
		if !isOwn {
			roles = append(roles, role)
		}
	}
	return roles, given
}

// rolesByIdentity returns the roles that a user has because of an identity, and because of others.
func rolesByIdentity(
	ctx context.Context, users store.UserStore, userID, issuer, subject string, now time.Time,
) (by, byOthers []string, err error) {
	links, err := IdentitiesOf(ctx, users, userID, now)
	for _, link := range links {
		if link.Issuer == issuer && link.Subject == subject {
			by = link.Roles
		} else {
			byOthers = append(byOthers, link.Roles...)
		}
	}
	return by, byOthers, err
}

// takeRoles takes away from a user the roles of an identity that is about to be disconnected.
func takeRoles(ctx context.Context, users store.UserStore, record store.Record, now time.Time) error {
	var link LinkedIdentity
	if err := json.Unmarshal(record.Value, &link); err != nil || len(link.Roles) == 0 {
		return err
	}
	_, byOthers, err := rolesByIdentity(ctx, users, record.Owner, link.Issuer, link.Subject, now)
	if err != nil {
		return err
	}
	_, err = users.UpdateUser(ctx, record.Owner, now, func(u *store.User) error {
		u.Roles, _ = mergeRoles(u.Roles, link.Roles, byOthers, nil)
		return nil
	})
	return err
}

// recordRoles records the roles that a user has because of an identity.
func (i *Identities) recordRoles(ctx context.Context, identity *ExternalIdentity, roles []string) error {
	id := identityKey(identity.Issuer, identity.Subject)
	_, err := i.Users().UpdateRecord(ctx, kindIdentity, id, i.Now(), func(record *store.Record) error {
		var link LinkedIdentity
		if err := json.Unmarshal(record.Value, &link); err != nil {
			return err
		}
		link.Roles = roles
		text, err := json.Marshal(link)
		record.Value = text
		return err
	})
	return StoreRefusal(err)
}

// connectInvited connects an identity to an account that has its address, and that nobody can log in
// to otherwise, such as one that an administrator has made: the provider says that the address is the
// user's, as the mail of an invitation would. An account that somebody can log in to is never
// connected by an address.
func (i *Identities) connectInvited(
	ctx context.Context, user store.User, login *LoginProvider, identity *ExternalIdentity, client Client,
) (store.User, error) {
	exists := &AccountExists{UserID: user.ID}
	if identity.EmailTrusted || user.Disabled {
		return store.User{}, exists
	}
	unusable, err := i.factors.nobodyLogsIn(ctx, user)
	if err != nil {
		return store.User{}, err
	}
	if !unusable {
		return store.User{}, exists
	}
	_, err = i.Users().Record(
		ctx, kindDisconnected, disconnectedID(identityKey(identity.Issuer, identity.Subject), user.ID), i.Now(),
	)
	if !errors.Is(err, store.ErrNotFound) {
		return store.User{}, errors.Join(exists, StoreRefusal(err))
	}
	return user, i.Connect(ctx, user.ID, "", Linked(login, identity), client)
}
