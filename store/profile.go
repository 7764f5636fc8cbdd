package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// PlainValue converts a claim's value to the types of encoding/json.
func PlainValue(value any) any {
	switch v := value.(type) {
	case jwt.Claims:
		object := make(map[string]any, len(v))
		for name, inner := range v {
			object[name] = PlainValue(inner)
		}
		return object
	case jwt.List:
		list := make([]any, len(v))
		for i, inner := range v {
			list[i] = PlainValue(inner)
		}
		return list
	}
	return value
}

// OutOfRange reports whether a value contains a number that fits neither an int64 nor a
// float64.
func OutOfRange(value any) bool {
	switch v := value.(type) {
	case json.Number:
		return true
	case map[string]any:
		for _, inner := range v {
			if OutOfRange(inner) {
				return true
			}
		}
	case jwt.Claims:
		return OutOfRange(map[string]any(v))
	case jwt.List:
		return slices.ContainsFunc(v, OutOfRange)
	case []any:
		return slices.ContainsFunc(v, OutOfRange)
	}
	return false
}

// MaxProfileDepth is the maximum nesting depth of a profile property.
const MaxProfileDepth = 16

// MaxProfileBytes is the maximum size of a property that users set themselves or that comes
// from another provider, in bytes.
const MaxProfileBytes = 4096

// ValueSize returns the size of a value in bytes: of a string itself, or of its JSON.
func ValueSize(value any) int {
	if text, ok := value.(string); ok {
		return len(text)
	}
	text, _ := json.Marshal(value)
	return len(text)
}

// DeeperThan reports whether a JSON value has more levels of lists and objects.
func DeeperThan(value any, levels int) bool {
	var inner []any
	switch v := value.(type) {
	case jwt.Claims:
		inner = slices.Collect(maps.Values(v))
	case map[string]any:
		inner = slices.Collect(maps.Values(v))
	case jwt.List:
		inner = v
	case []any:
		inner = v
	default:
		return false
	}
	return levels == 0 || slices.ContainsFunc(inner, func(value any) bool { return DeeperThan(value, levels-1) })
}

// SetProperties sets properties of the profile. One whose value is nil is removed, and those that
// are not given stay. A property that changes is no longer verified: `phone_number_verified` is
// removed if `phone_number` changes, unless it is given too.
func (u *User) SetProperties(properties map[string]any) {
	profile := maps.Clone(u.Profile)
	if profile == nil {
		profile = make(map[string]any)
	}
	for name, value := range properties {
		if !reflect.DeepEqual(profile[name], value) {
			delete(profile, name+"_verified")
		}
	}
	maps.Copy(profile, properties)
	maps.DeleteFunc(profile, func(_ string, value any) bool { return value == nil })
	u.Profile = profile
}

// CheckProfileName returns an error if a name cannot be the name of a profile property.
func CheckProfileName(name string) error {
	if name == "" || slices.Contains([]string{"id", "email", "password", "roles", usernameProperty}, name) {
		return fmt.Errorf(
			"%q cannot be the name of a profile property; id, email, password and roles are not part of the profile",
			name,
		)
	}
	return nil
}

// TypedProperty returns the value of a profile property that is written as text, by the types of
// OpenID Connect Core §5.1: a boolean for email_verified and phone_number_verified, an object for
// address (§5.1.1), and the text itself for any other.
func TypedProperty(name, text string) (any, error) {
	switch name {
	case "email_verified", "phone_number_verified":
		value, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("%s must be true or false", name)
		}
		return value, nil
	case "address":
		parts, err := jwt.ParseClaims([]byte(text))
		if err != nil {
			return nil, errors.New(`address must be a JSON object, as in {"locality":"Berlin","country":"DE"}`)
		}
		return PlainValue(parts), nil
	}
	return text, nil
}

// maxRolesBytes limits the total size of a user's roles, because they are in each of the
// user's tokens, and browsers do not store cookies of more than 4096 bytes.
const maxRolesBytes = 1024

// CheckRoles returns an error if a role is not a single word, or if the roles are too long
// in total.
func CheckRoles(roles []string) error {
	if bytes := len(strings.Join(roles, ",")); bytes > maxRolesBytes {
		return fmt.Errorf("the roles have %d bytes in total; a token can hold at most %d", bytes, maxRolesBytes)
	}
	for _, role := range roles {
		if role == "" || strings.ContainsFunc(role, func(r rune) bool {
			return unicode.IsSpace(r) || unicode.IsControl(r) || r == ','
		}) {
			return errors.New("a role must be a single word without spaces and commas")
		}
	}
	return nil
}
