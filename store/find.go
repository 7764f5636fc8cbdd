package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// ErrAmbiguous means that a text is the e-mail address or the name of one user and the ID of another.
var ErrAmbiguous = errors.New("one user has this e-mail address or user name, and another user has this ID; " +
	"name the one by the ID, or the other by the address or name")

// FindUser returns the user with an e-mail address, a user name or an ID, as an operator writes it. IDs
// of other systems may look like addresses or names, so it never chooses between two users. Besides
// errors of the store it returns [ErrNotFound], [ErrAmbiguous], or says that name can be none of them.
func FindUser(ctx context.Context, users UserStore, name string) (User, error) {
	byID, err := users.User(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return byID, err
	}
	isID, key := err == nil, ""
	if strings.Contains(name, "@") {
		if key, err = EmailKey(name); err != nil && !isID {
			return User{}, fmt.Errorf("the e-mail address %s %w", refusal.Quoted(name), err)
		}
	} else {
		key, err = UsernameKey(name)
	}
	if err != nil { // it can only be an ID
		if isID {
			return byID, nil
		}
		return User{}, ErrNotFound
	}
	byKey, err := UserByKey(ctx, users, key)
	switch {
	case errors.Is(err, ErrNotFound) && isID:
		return byID, nil
	case err == nil && isID && byKey.ID != byID.ID:
		return User{}, fmt.Errorf("%s: %w", refusal.Quoted(name), ErrAmbiguous)
	}
	return byKey, err
}
