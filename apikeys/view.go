package apikeys

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
)

// View is a key as commands and routes show it in JSON.
type View struct {
	// ID is the part of the key that is not secret. Key is the whole key, of a new one only.
	ID  string `json:"id"`
	Key string `json:"key,omitempty"`
	// Subject is the `sub`, and Name tells the keys of a subject apart.
	Subject string `json:"subject"`
	Name    string `json:"name,omitempty"`
	// Scope, Roles and Metadata are claims.
	Scope    []string          `json:"scope,omitempty"`
	Roles    []string          `json:"roles,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	// OwnRoles is as in [Key].
	OwnRoles bool `json:"ownRoles,omitempty"`
	// Networks and Rate limit where and how often the key may be used.
	Networks []netip.Prefix `json:"networks,omitempty"`
	Rate     Rate           `json:"rate,omitzero"`
	// CreatedAt, ExpiresAt, UsedAt and PreviousUntil are as in [Key].
	CreatedAt     time.Time `json:"createdAt"`
	ExpiresAt     time.Time `json:"expiresAt,omitzero"`
	UsedAt        time.Time `json:"usedAt,omitzero"`
	PreviousUntil time.Time `json:"previousUntil,omitzero"`
}

// View returns the key as it is shown, with its text if that is known.
func (k *Key) View(text string) View {
	return View{
		ID: k.ID, Key: text, Subject: k.Subject, Name: k.Name, Scope: k.Scope, Roles: k.Roles, Metadata: k.Metadata,
		Networks: k.Networks, CreatedAt: utc(k.CreatedAt), ExpiresAt: utc(k.ExpiresAt), UsedAt: utc(k.UsedAt),
		PreviousUntil: utc(k.PreviousUntil), Rate: k.Rate, OwnRoles: k.OwnRoles,
	}
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}

// IDIn returns the ID in a text, which is an ID or a whole key, of any prefix.
func IDIn(text string) string {
	const end = 1 + checksumLength // from here to the end of the text
	const secretAt = end + 1 + secretLength
	const idAt = secretAt + idLength
	n := len(text)
	if n <= idAt+1 || text[n-end] != '_' || text[n-secretAt] != '_' || text[n-idAt-1] != '_' {
		return text
	}
	return text[n-idAt : n-secretAt]
}

// SetSubject sets the subject of a new key: a user, by e-mail address or ID, or else the name
// of a service. It returns an error for a text that looks like a user who does not exist. It does not
// look for user names: whoever signs up could take the name of a service, and so get its keys.
func (k *Key) SetSubject(ctx context.Context, users store.UserStore, subject string) error {
	user, err := users.User(ctx, subject)
	if strings.Contains(subject, "@") {
		user, err = store.FindUser(ctx, users, subject)
	}
	switch {
	case err == nil && user.Disabled:
		return fmt.Errorf("the user %s is disabled", refusal.Quoted(subject))
	case err == nil:
		k.Owner, k.Subject = user.ID, user.ID
		return nil
	case !errors.Is(err, store.ErrNotFound):
		return err
	case strings.Contains(subject, "@") || uuid.Validate(subject) == nil:
		return fmt.Errorf("there is no user %s; the name of a service is neither an e-mail address nor a UUID",
			refusal.Quoted(subject))
	}
	k.Subject = subject
	return nil
}
