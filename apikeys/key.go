package apikeys

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/go-json-experiment/json"
)

// Key is an API key, without its secret.
type Key struct {
	// ID is the part of the key that is not secret. It is the `client_id` of the key's claims.
	ID string `json:"-"`
	// Owner is the ID of the user that the key belongs to; empty for a service.
	Owner string `json:"-"`
	// Subject is the `sub`: the user's ID, or the name of the service.
	Subject string `json:"-"`
	// Prefix is the beginning of the key.
	Prefix string `json:"prefix"`
	// Name tells the keys of a subject apart. It is not a claim.
	Name string `json:"name,omitempty"`
	// Scope has the values of the claim `scope`, and Roles those of `roles`.
	Scope []string `json:"scope,omitempty"`
	Roles []string `json:"roles,omitempty"`
	// OwnRoles means that the key only has those of its Roles that its owner has at the time:
	// the owner made it.
	OwnRoles bool `json:"ownRoles,omitempty"`
	// Metadata are further claims, by name.
	Metadata map[string]string `json:"metadata,omitempty"`
	// Networks are those from which the key may be used; none for any.
	Networks []netip.Prefix `json:"networks,omitempty"`
	// Rate limits the requests with the key.
	Rate Rate `json:"rate,omitzero"`
	// CreatedAt is when the key was made, ExpiresAt when it expires; zero for never.
	CreatedAt time.Time `json:"createdAt,omitzero"`
	ExpiresAt time.Time `json:"-"`
	// UsedAt is when it was last used, to the minute; zero for never.
	UsedAt time.Time `json:"-"`
	// Hash is the SHA-256 of the secret. PreviousHash is that of the secret before the last
	// roll, which is accepted until PreviousUntil.
	Hash          []byte    `json:"hash"`
	PreviousHash  []byte    `json:"previousHash,omitempty"`
	PreviousUntil time.Time `json:"previousUntil,omitzero"`
	// RolledAt is when the key was last rolled; zero for never.
	RolledAt time.Time `json:"rolledAt,omitzero"`
}

// reservedClaims cannot be metadata: they have a meaning of their own, or are set otherwise.
var reservedClaims = []string{
	"sub", "scope", "scp", "roles", "iss", "aud", "exp", "nbf", "iat", "jti", "client_id", "azp", "act", "cnf", "sid",
	"idp",
}

const (
	longestText   = 256 // bytes of a name, a subject or a metadata value
	mostOfAKind   = 64  // scopes, roles, metadata or networks of a key
	longestExpiry = 100 * 365 * 24 * time.Hour
)

// Check returns an error if the key cannot be made.
func (k *Key) Check(now time.Time) error {
	switch {
	case k.Subject == "":
		return errors.New("a key needs a subject: a user, or the name of a service")
	case len(k.Subject) > longestText || len(k.Name) > longestText:
		return fmt.Errorf("a subject and a name have at most %d bytes", longestText)
	case strings.ContainsFunc(k.Subject+k.Name, IsHidden):
		return errors.New("a subject and a name must not contain invisible characters")
	case max(len(k.Scope), len(k.Roles), len(k.Metadata), len(k.Networks)) > mostOfAKind:
		return fmt.Errorf("a key has at most %d scopes, roles, metadata and networks each", mostOfAKind)
	case !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(now):
		return fmt.Errorf("the expiry %s is in the past", k.ExpiresAt.UTC().Format(time.RFC3339))
	case k.ExpiresAt.Sub(now) > longestExpiry:
		return errors.New("the expiry is more than 100 years away; omit it for a key that never expires")
	}
	for _, scope := range k.Scope {
		if !jwt.IsScope(scope) {
			return fmt.Errorf("scope %q: a scope is one word of visible ASCII without quotes (RFC 6749 §3.3)", scope)
		}
	}
	if err := store.CheckRoles(k.Roles); err != nil {
		return err
	}
	for name, value := range k.Metadata {
		if name == "" {
			return errors.New("metadata needs a name, as in team=web")
		}
		if slices.Contains(reservedClaims, name) {
			return fmt.Errorf("metadata %q: this claim has a meaning of its own; choose another name", name)
		}
		if len(name) > longestText || len(value) > longestText || strings.ContainsFunc(name+value, IsHidden) {
			return fmt.Errorf("metadata %.32q: a name and a value have at most %d bytes and no invisible characters",
				name, longestText)
		}
	}
	return k.Rate.check()
}

// IsHidden reports whether a character may not be in a name: it is a control character, or
// changes the direction of others, or separates lines.
func IsHidden(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }

// expiredKept is how long an expired key is still listed.
const expiredKept = 30 * 24 * time.Hour

// stored returns the key as it is stored.
func (k *Key) stored(now time.Time) (store.APIKey, error) {
	value, err := json.Marshal(k, json.Deterministic(true))
	row := store.APIKey{
		ID: k.ID, Owner: k.Owner, Subject: k.Subject, Value: value, ExpiresAt: k.ExpiresAt, ChangedAt: now,
	}
	if !k.ExpiresAt.IsZero() {
		row.KeptUntil = k.ExpiresAt.Add(expiredKept)
	}
	return row, err
}

// fromStored returns a stored key. If that is corrupt, it returns [ErrCorrupt] and what is
// known of the key.
func fromStored(row store.APIKey) (Key, error) {
	k := Key{
		ID: row.ID, Owner: row.Owner, Subject: row.Subject, ExpiresAt: row.ExpiresAt, UsedAt: row.UsedAt,
	}
	if err := json.Unmarshal(row.Value, &k); err != nil {
		return Key{ID: row.ID, Owner: row.Owner, Subject: row.Subject}, fmt.Errorf(
			"API key %s: %w; revoke it", row.ID, ErrCorrupt,
		)
	}
	return k, nil
}

// claims returns the claims of the key, whose owner has the roles.
func (k *Key) claims(ownerRoles []string) jwt.Claims {
	claims := jwt.Claims{"sub": k.Subject, "client_id": k.ID}
	if len(k.Scope) > 0 {
		claims["scope"] = strings.Join(k.Scope, " ")
	}
	var roles jwt.List
	for _, role := range k.Roles {
		if !k.OwnRoles || slices.Contains(ownerRoles, role) {
			roles = append(roles, role)
		}
	}
	if len(roles) > 0 {
		claims["roles"] = roles
	}
	for name, value := range k.Metadata {
		claims[name] = value
	}
	if !k.ExpiresAt.IsZero() {
		claims["exp"] = k.ExpiresAt.Unix()
	}
	return claims
}

// Rate is the number of requests with a key within a time.
type Rate struct {
	// Requests are allowed within Window; 0 for any number.
	Requests int
	// Window is the time within which they are allowed, from 1s to 24h.
	Window time.Duration
}

// MarshalText returns the rate as ParseRate reads it.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a rate as ParseRate does.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRate(string(text))
	return err
}

const (
	shortestWindow = time.Second
	longestWindow  = 24 * time.Hour
	mostRequests   = 1_000_000
)

// ParseRate parses a rate such as 100/1m.
func ParseRate(text string) (Rate, error) {
	number, window, ok := strings.Cut(text, "/")
	requests, err := strconv.Atoi(number)
	if !ok || err != nil || requests < 1 {
		return Rate{}, fmt.Errorf("rate %q: it must be a number of requests and a time, as in 100/1m", text)
	}
	if window != "" && strings.Trim(window, "smh") == "" { // 100/m
		window = "1" + window
	}
	rate := Rate{Requests: requests}
	if rate.Window, err = time.ParseDuration(window); err != nil {
		return Rate{}, fmt.Errorf("rate %q: the time must be like 1s, 1m or 1h, as in 100/1m", text)
	}
	return rate, rate.check()
}

func (r Rate) check() error {
	if r == (Rate{}) {
		return nil
	}
	if r.Requests < 1 || r.Requests > mostRequests || r.Window < shortestWindow || r.Window > longestWindow {
		return fmt.Errorf("rate %s: it must be from 1 to %d requests within %s to %s", r, mostRequests, shortestWindow,
			longestWindow)
	}
	return nil
}

// String returns the rate as ParseRate reads it.
func (r Rate) String() string {
	text := r.Window.String()
	for _, zero := range []string{"m0s", "h0m"} { // 1m0s is 1m
		if strings.HasSuffix(text, zero) {
			text = strings.TrimSuffix(text, zero[1:])
		}
	}
	return strconv.Itoa(r.Requests) + "/" + text
}

// ParseNetwork parses a network or an address, such as 192.0.2.0/24.
func ParseNetwork(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		address = address.Unmap().WithZone("")
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return network, fmt.Errorf("network %q: it must be an address or a network, as in 192.0.2.0/24", text)
	}
	if network.Addr().Is4In6() {
		return network, fmt.Errorf("network %q: write it in the form of IPv4, as in 192.0.2.0/24", text)
	}
	if network != network.Masked() {
		return network, fmt.Errorf("network %q has bits outside of its mask; write %s, or the address alone",
			text, network.Masked())
	}
	return network, nil
}
