package web

import (
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// identifierFields returns the properties that say who somebody is.
func (h *Handler) identifierFields() []string {
	switch h.Identifier {
	case accounts.IdentifierUsername:
		return []string{"username"}
	case accounts.IdentifierAny:
		return []string{"email", "username"}
	}
	return []string{"email"}
}

// sortIdentifier moves an address from username to email, and a name from email to username, where
// users log in by either: people type both into one field.
func (h *Handler) sortIdentifier(in *input) {
	email, name := in.text("email"), in.text("username")
	switch {
	case h.Identifier != accounts.IdentifierAny || email != "" && name != "":
	case strings.Contains(name, "@"):
		delete(in.values, "username")
		in.values["email"] = name
	case email != "" && !strings.Contains(email, "@"):
		delete(in.values, "email")
		in.values["username"] = email
	}
}

// wantIdentifier returns the required address or name of somebody who logs in.
func (h *Handler) wantIdentifier(in *input) string {
	fields := h.identifierFields()
	field := fields[len(fields)-1]
	if _, given := in.values["email"]; given && h.Identifier == accounts.IdentifierAny {
		if _, both := in.values["username"]; both {
			in.wrong("email", "not", texts.Errorf("cannot be sent together with a user name"), map[string]any{})
		}
		field = "email"
	}
	return in.want(field)
}

// wantNewUser returns who signs up.
func (h *Handler) wantNewUser(in *input) accounts.NewUser {
	as := accounts.NewUser{Password: h.wantPassword(in, "password"), Profile: h.profile(in)}
	_, hasEmail := in.values["email"]
	_, hasName := in.values["username"]
	switch {
	case h.Identifier == accounts.IdentifierEmail:
		as.Email = h.wantEmail(in)
	case h.Identifier == accounts.IdentifierUsername || !hasEmail:
		as.Username = wantUsername(in)
	default:
		as.Email = h.wantEmail(in)
		if hasName {
			as.Username = wantUsername(in)
		}
	}
	return as
}

// wantUsername returns the required user name of a new account.
func wantUsername(in *input) string {
	name := in.want("username")
	if _, err := store.UsernameKey(name); name != "" && err != nil {
		in.wrong("username", "format", err, map[string]any{"limit": store.MaxUsername})
	}
	return name
}
