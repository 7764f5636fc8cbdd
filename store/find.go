package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// ErrAmbiguous means that a name is the e-mail address of one user and the ID of another.
var ErrAmbiguous = errors.New("one user has this e-mail address, and another user has this ID; " +
	"name the one by the ID, or the other by the e-mail address")

// FindUser returns the user with an e-mail address or ID, as an operator writes it. IDs of other
// systems may look like addresses, so it never chooses between two users. Besides errors of the store
// it returns [ErrNotFound], [ErrAmbiguous], or says that name can be neither.
func FindUser(ctx context.Context, users UserStore, name string) (User, error) {
	byID, err := users.User(ctx, name)
	if !strings.Contains(name, "@") || err != nil && !errors.Is(err, ErrNotFound) {
		return byID, err
	}
	isID := err == nil
	key, err := EmailKey(name)
	if err != nil {
		if isID {
			return byID, nil
		}
		return User{}, fmt.Errorf("the e-mail address %s %w", refusal.Quoted(name), err)
	}
	byAddress, err := users.UserByEmail(ctx, key)
	switch {
	case errors.Is(err, ErrNotFound) && isID:
		return byID, nil
	case err == nil && isID && byAddress.ID != byID.ID:
		return User{}, fmt.Errorf("%s: %w", refusal.Quoted(name), ErrAmbiguous)
	}
	return byAddress, err
}
