package store

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/google/uuid"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// MaxUsername is the maximum length of a user name, in characters.
const MaxUsername = 64

// usernameProperty is the property of the profile with the name of a user who also has an address. Its
// name has a space, so `profile` cannot list it and users cannot set it.
const usernameProperty = "login name"

// kindUsername is the kind of the records of user names: the ID is the key, and the owner the user. So
// a name is unique, whether or not its user has an address, and goes away with its user.
const kindUsername = "username"

// claimTime is how long a user can take to be added after its name was claimed. After that, a name
// without a user is free again: the process has crashed in between.
const claimTime = time.Minute

// ErrUsernameTaken means that another user has the user name.
var ErrUsernameTaken = errors.New("another user has this user name")

// UsernameKey returns the normalized form of a user name (RFC 8265 §3.3, UsernameCaseMapped, after
// NFKC): two names with the same key are that of the same user. The error describes the problem without
// the name. A name can be confused neither with an e-mail address nor with the ID of a user.
func UsernameKey(name string) (string, error) {
	key, err := precis.UsernameCaseMapped.String(norm.NFKC.String(name))
	if err != nil || key == "" || strings.Contains(key, "@") || strings.ContainsFunc(name, invisible) ||
		uuid.Validate(key) == nil || max(utf8.RuneCountInString(name), utf8.RuneCountInString(key)) > MaxUsername {
		return "", texts.Errorf(
			"must have 1 to 64 letters, digits and signs, without spaces and @, and not the form of a UUID",
		)
	}
	return key, nil
}

// Address returns the e-mail address of the user, or the empty string if the user only has a name.
func (u User) Address() string {
	if strings.Contains(u.EmailKey, "@") {
		return u.Email
	}
	return ""
}

// Username returns the user name as it was written, or the empty string if the user only has an
// address.
func (u User) Username() string {
	if u.Address() == "" {
		return u.Email
	}
	name, _ := u.Profile[usernameProperty].(string)
	return name
}

// SetEmail sets the e-mail address. A name stays.
func (u *User) SetEmail(email string) error {
	key, err := EmailKey(email)
	if err != nil {
		return err
	}
	name := u.Username()
	u.Email, u.EmailKey = email, key
	if name != "" {
		u.setUsernameProperty(name)
	}
	return nil
}

// SetUsername sets the user name. An address stays. The store does not know that the name is taken
// then: use [AddUser] or [Rename].
func (u *User) SetUsername(name string) error {
	key, err := UsernameKey(name)
	switch {
	case err != nil:
		return err
	case u.Address() == "":
		u.Email, u.EmailKey = name, key
	default:
		u.setUsernameProperty(name)
	}
	return nil
}

func (u *User) setUsernameProperty(name string) {
	profile := map[string]any{usernameProperty: name}
	for property, value := range u.Profile {
		if property != usernameProperty {
			profile[property] = value
		}
	}
	u.Profile = profile
}

// Properties returns the profile without the user name.
func (u User) Properties() map[string]any {
	profile := maps.Clone(u.Profile)
	delete(profile, usernameProperty)
	return profile
}

// UserByUsername returns the user with the name of this key, or [ErrNotFound]. It does the same work
// for both.
func UserByUsername(ctx context.Context, users UserStore, key string) (User, error) {
	record, err := users.Record(ctx, kindUsername, key, time.Time{}) // they do not expire
	if err != nil && !errors.Is(err, ErrNotFound) {
		return User{}, err
	}
	return users.User(ctx, record.Owner)
}

// UserByKey returns the user with the address or name of this key, or [ErrNotFound]. It always looks
// for both, so that the time does not tell which of them there is.
func UserByKey(ctx context.Context, users UserStore, key string) (User, error) {
	byEmail, err := users.UserByEmail(ctx, key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return User{}, err
	}
	byName, nameErr := UserByUsername(ctx, users, key)
	if err == nil {
		return byEmail, nil
	}
	return byName, nameErr
}

// AddUser adds a user whose name, if it has one, must be unique. Errors are those of CreateUser, and
// [ErrUsernameTaken].
func AddUser(ctx context.Context, users UserStore, user User, now time.Time) error {
	if user.Username() == "" {
		return users.CreateUser(ctx, user)
	}
	key, err := UsernameKey(user.Username())
	if err != nil {
		return err
	}
	if err := claimUsername(ctx, users, key, user.ID, now); err != nil {
		return err
	}
	err = users.CreateUser(ctx, user)
	if !errors.Is(err, ErrEmailTaken) {
		return err
	}
	if user.Address() == "" {
		err = ErrUsernameTaken
	}
	return errors.Join(err, freeUsernames(context.WithoutCancel(ctx), users, user.ID, ""))
}

// Rename gives a user another name, or the first one, and returns the changed user. Errors are those of
// UpdateUser, of [UsernameKey] and [ErrUsernameTaken].
func Rename(ctx context.Context, users UserStore, id, name string, now time.Time) (User, error) {
	key, err := UsernameKey(name)
	if err == nil {
		err = claimUsername(ctx, users, key, id, now)
	}
	if err != nil {
		return User{}, err
	}
	user, err := users.UpdateUser(ctx, id, now, func(u *User) error { return u.SetUsername(name) })
	if errors.Is(err, ErrEmailTaken) {
		err = ErrUsernameTaken
	}
	if err != nil {
		return user, err
	}
	return user, freeUsernames(context.WithoutCancel(ctx), users, id, key)
}

// claimUsername makes a name that of a user, who need not be there yet.
func claimUsername(ctx context.Context, users UserStore, key, userID string, now time.Time) error {
	value, err := json.Marshal(now)
	if err != nil {
		return err
	}
	claim := Record{Kind: kindUsername, ID: key, Owner: userID, Value: value}
	err = users.CreateRecord(ctx, claim)
	if !errors.Is(err, ErrRecordExists) {
		return err
	}
	there, err := users.Record(ctx, kindUsername, key, now)
	if err == nil && there.Owner == userID {
		return nil
	}
	if err == nil {
		_, err = users.User(ctx, there.Owner)
	}
	var claimed time.Time
	switch {
	case err == nil:
		return ErrUsernameTaken
	case !errors.Is(err, ErrNotFound):
		return err
	case json.Unmarshal(there.Value, &claimed) == nil && now.Sub(claimed) < claimTime:
		return ErrUsernameTaken // by a user who is being added
	}
	_, err = users.UpdateRecord(ctx, kindUsername, key, now, func(r *Record) error {
		if r.Owner != there.Owner {
			return ErrUsernameTaken // somebody else was first
		}
		r.Owner, r.Value = claim.Owner, claim.Value
		return nil
	})
	if errors.Is(err, ErrNotFound) { // its user was deleted at this moment
		err = users.CreateRecord(ctx, claim)
	}
	if errors.Is(err, ErrRecordExists) {
		err = ErrUsernameTaken
	}
	return err
}

// freeUsernames frees the names of a user but one.
func freeUsernames(ctx context.Context, users UserStore, userID, keep string) error {
	names, err := users.Records(ctx, kindUsername, userID, time.Time{})
	for _, name := range names {
		if name.ID == keep {
			continue
		}
		if _, takeErr := users.TakeRecord(ctx, kindUsername, name.ID, time.Time{}); !errors.Is(takeErr, ErrNotFound) {
			err = errors.Join(err, takeErr)
		}
	}
	return err
}
