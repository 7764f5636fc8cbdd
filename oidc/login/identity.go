package login

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/store"
)

const (
	maxClaimsBytes     = 64 << 10
	groupsClaim        = "groups"
	organizationsClaim = "organizations"
)

// identity returns the user with these claims, who may log in.
func (l *Login) identity(claims jwt.Claims) (*accounts.ExternalIdentity, error) {
	text, err := jwt.MarshalClaims(claims)
	if err != nil {
		return nil, err
	}
	if len(text) > maxClaimsBytes {
		return nil, fmt.Errorf("the claims have more than %d bytes", maxClaimsBytes)
	}
	identity := &accounts.ExternalIdentity{Issuer: l.Issuer, Claims: text}
	if iss, ok := claims["iss"].(string); ok && !l.plain() { // of the tenant
		identity.Issuer = iss
	}
	if identity.Subject, err = l.subject(claims); err != nil {
		return nil, err
	}
	identity.SessionID, _ = claims["sid"].(string)
	identity.AuthTime = timeOf(claims["auth_time"])
	l.readEmail(claims, identity)
	l.noteEmail(identity)
	if err := l.mayLogIn(claims, identity); err != nil {
		return nil, err
	}
	identity.Roles = l.rolesOf(claims)
	return identity, nil
}

// subject returns the ID of the user: a text or, of a provider without OpenID Connect, a whole number.
func (l *Login) subject(claims jwt.Claims) (string, error) {
	if !l.plain() {
		sub, _ := claims["sub"].(string)
		return sub, nil
	}
	found, _ := claims.Lookup(l.IDClaim)
	switch id := found.(type) {
	case string:
		if id != "" {
			return id, nil
		}
	case int64:
		if id != 0 {
			return jwt.ClaimText(id), nil
		}
	}
	return "", misconfigured(faultID, "the claim %s is neither a text nor a whole number", l.IDClaim)
}

func timeOf(value any) time.Time {
	var seconds float64
	switch v := value.(type) {
	case int64:
		seconds = float64(v)
	case float64:
		seconds = v
	}
	if seconds > 0 && seconds < 1<<40 {
		return time.Unix(int64(seconds), 0)
	}
	return time.Time{}
}

// readEmail sets the address, and whether it is verified. Some providers send a text for that.
func (l *Login) readEmail(claims jwt.Claims, identity *accounts.ExternalIdentity) {
	found, _ := claims.Lookup(l.EmailClaim)
	var isText bool
	identity.Email, isText = found.(string)
	identity.EmailInvalid = found != nil && !isText
	name := either(l.preset.verified, "email_verified")
	switch verified := claims[name]; {
	case identity.Email == "":
	case l.preset.proven && l.EmailClaim == l.preset.emailClaim,
		(l.EmailClaim == "email" || l.EmailClaim == l.preset.emailClaim) && (verified == true || verified == "true"):
		identity.EmailVerified = true
	case l.TrustEmail:
		identity.EmailVerified, identity.EmailTrusted = true, true
	}
}

// mayLogIn checks `allow`.
func (l *Login) mayLogIn(claims jwt.Claims, identity *accounts.ExternalIdentity) error {
	for _, condition := range l.Allow {
		if !l.holds(condition, claims, identity) {
			return &notAllowed{"the user does not have " + condition.String()}
		}
	}
	return nil
}

// String returns the condition as it is written in a Caddyfile.
func (c Condition) String() string {
	kind := c.Kind
	if c.Kind == "claim" {
		kind += " " + c.Claim
	}
	return kind + " " + strings.Join(c.Values, " ")
}

func (l *Login) holds(condition Condition, claims jwt.Claims, identity *accounts.ExternalIdentity) bool {
	if condition.Kind == "domain" {
		_, domain, _ := strings.Cut(identity.Email, "@")
		domain = domainKey(domain)
		if l.Preset == "google" { // of an account that the domain's owner manages
			hosted, _ := claims["hd"].(string)
			domain = domainKey(hosted)
		} else if !identity.EmailVerified {
			return false
		}
		return domain != "" && slices.ContainsFunc(condition.Values, func(value string) bool {
			return domainKey(value) == domain
		})
	}
	for _, value := range valuesOf(claims, condition.claim()) {
		if slices.Contains(condition.Values, value) {
			return true
		}
	}
	return false
}

// domainKey returns a domain in the form in which domains are compared; empty if it is none.
func domainKey(domain string) string {
	key, err := store.EmailKey("x@" + domain)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(key, "x@")
}

// claim returns the name of the claim that decides.
func (c Condition) claim() string {
	switch c.Kind {
	case "group":
		return groupsClaim
	case "organization":
		return organizationsClaim
	}
	return c.Claim
}

// uses reports whether `roles_from` or `allow` needs a claim.
func (l *Login) uses(claim string) bool {
	return slices.ContainsFunc(l.Allow, func(c Condition) bool { return c.claim() == claim }) ||
		slices.ContainsFunc(l.RolesFrom, func(r RolesFrom) bool { return r.Claim == claim })
}

// valuesOf returns the texts of a claim: one, those of a list, or the names of an object, as Zitadel
// has roles, but for those that the object denies by false or null.
func valuesOf(claims jwt.Claims, path string) (values []string) {
	found, _ := claims.Lookup(path)
	switch v := found.(type) {
	case string:
		return []string{v}
	case bool, int64:
		return []string{jwt.ClaimText(v)}
	case jwt.List:
		for _, value := range v {
			if text, ok := value.(string); ok {
				values = append(values, text)
			}
		}
	case jwt.Claims:
		for name, value := range v {
			if value != nil && value != false {
				values = append(values, name)
			}
		}
	}
	return values
}

// rolesOf returns the roles that the claims give; nil if `roles_from` is not set. Values that cannot
// be roles, because they are several words, give none.
func (l *Login) rolesOf(claims jwt.Claims) []string {
	if len(l.RolesFrom) == 0 {
		return nil
	}
	roles := []string{}
	for _, from := range l.RolesFrom {
		for _, value := range valuesOf(claims, from.Claim) {
			given := from.Roles[value]
			if len(from.Roles) == 0 && store.CheckRoles([]string{value}) == nil {
				given = []string{value}
			}
			roles = append(roles, given...)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}
