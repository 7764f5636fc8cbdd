// Package upstream signs short-lived tokens for the service behind a site, in the place of
// the credentials that clients sent: so no long-lived credential reaches that service, and
// it only needs to trust one issuer.
package upstream

import (
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
)

// Limits and defaults of a token.
const (
	DefaultLifetime  = 5 * time.Minute
	MaxLifetime      = time.Hour
	DefaultAlgorithm = "RS256" // what services pin most often
	DefaultPath      = "/jwt"  // of the issuer at a site
)

// maxRemembered is how many signed tokens are remembered.
const maxRemembered = 10_000

// Options configure [NewMinter].
type Options struct {
	// Issuer is the `iss` of the tokens, Audience their `aud`.
	Issuer   string
	Audience []string
	// Lifetime is how long a token is valid, up to [MaxLifetime].
	Lifetime time.Duration
	// Claims are the paths of further claims that the tokens contain, if the credential has
	// them.
	Claims []string
	// Origin adds the issuer of the credential as `idp`, for sites with several issuers:
	// `sub` is only unique within an issuer.
	Origin bool
	// Sign signs claims as a JWT.
	Sign func(typ string, claims map[string]any) (string, error)
	// Now is the clock.
	Now func() time.Time
	// Signed is called with the claims of each token that was signed; nil for nothing.
	Signed func(claims map[string]any)
	// Scheme is what comes before each token, such as "Bearer ".
	Scheme string
}

// Minter signs tokens. It signs one per user and claims, and returns it again until half of
// its lifetime has passed. It is safe for concurrent use.
type Minter struct {
	o       Options
	signed  *otter.Cache[string, signed]
	signing singleflight.Group
}

// signed is a token that was signed before.
type signed struct {
	token           string
	renewAt, expiry int64 // in seconds since 1970
}

// NewMinter returns a minter.
func NewMinter(o Options) *Minter {
	return &Minter{o: o, signed: otter.Must(&otter.Options[string, signed]{
		MaximumSize: maxRemembered, ExpiryCalculator: otter.ExpiryWriting[string, signed](o.Lifetime),
	})}
}

// remembered is beside a verified credential, so that a request with one that was seen needs not
// even its claims.
type remembered struct {
	by *Minter
	signed
}

// Token returns a token for the user of a verified credential, with more claims than those of the
// options; see [Collect]. It does not outlive the credential.
func (m *Minter) Token(user *jwt.Token, more map[string]any) (string, error) {
	now := m.o.Now()
	if memo, ok := user.Memo().(*remembered); ok && memo.by == m && more == nil && now.Unix() < memo.renewAt {
		return memo.token, nil
	}
	expiry, capped := now.Add(m.o.Lifetime), false
	if end := endOf(user, now); !end.IsZero() && end.Before(expiry) {
		expiry, capped = end, true
	}
	key := m.key(user, expiry, capped)
	if more != nil {
		text, err := jwt.MarshalClaims(more)
		if err != nil {
			return "", err
		}
		key += string(text) // an object, so it cannot be confused with what is before it
	}
	known, ok := m.signed.GetIfPresent(key)
	if !ok || now.Unix() >= known.renewAt {
		var err error
		if known, err = m.mint(key, user, more, now, expiry, capped); err != nil {
			return "", err
		}
	}
	if more == nil {
		user.SetMemo(&remembered{m, known})
	}
	return known.token, nil
}

// mint signs a token, once for all who wait for it.
func (m *Minter) mint(
	key string, user *jwt.Token, more map[string]any, now, expiry time.Time, capped bool,
) (signed, error) {
	made, err, _ := m.signing.Do(key, func() (any, error) {
		claims := m.claims(user, more, now, expiry)
		token, err := m.o.Sign("JWT", claims)
		if err != nil {
			tokensFailed.Inc()
			return signed{}, err
		}
		tokensSigned.Inc()
		if m.o.Signed != nil {
			m.o.Signed(claims)
		}
		renewAt := now.Add(m.o.Lifetime / 2)
		if capped {
			renewAt = expiry
		}
		made := signed{m.o.Scheme + token, renewAt.Unix(), expiry.Unix()}
		m.signed.Set(key, made)
		return made, nil
	})
	return made.(signed), err
}

// claims returns the claims of a new token (RFC 7519 §4.1).
func (m *Minter) claims(user *jwt.Token, more map[string]any, now, expiry time.Time) map[string]any {
	claims := make(map[string]any)
	for _, path := range m.o.Claims {
		if value := user.Claims[path]; value != nil { // also a name with dots
			claims[path] = value
		} else if value, _ := user.Claims.Lookup(path); value != nil {
			set(claims, path, value)
		}
	}
	for name, value := range more {
		if claims[name] == nil {
			claims[name] = value
		}
	}
	if act, ok := user.Claims["act"].(jwt.Claims); ok { // RFC 8693 §4.1
		claims["act"] = act
	}
	if client := clientOf(user.Claims); client != "" {
		claims["client_id"] = client
	}
	if origin, ok := user.Claims["iss"].(string); ok && m.o.Origin {
		claims["idp"] = origin
	}
	claims["iss"], claims["sub"], claims["jti"] = m.o.Issuer, user.UserID, uuid.NewString()
	claims["iat"], claims["exp"] = now.Unix(), expiry.Unix()
	claims["aud"] = m.o.Audience
	if len(m.o.Audience) == 1 {
		claims["aud"] = m.o.Audience[0]
	}
	return claims
}

// endOf returns the `exp` of the credential or, within the leeway after it, when it is no longer
// accepted here; zero if it never expires.
func endOf(user *jwt.Token, now time.Time) time.Time {
	if at, ok := jwt.Time(user.Claims["exp"]); ok && at.After(now) {
		return at
	}
	return user.Expiry()
}

// key identifies the claims of a token, so that a change of a claim yields another token.
func (m *Minter) key(user *jwt.Token, expiry time.Time, capped bool) string {
	var key strings.Builder
	part := func(text string) { // with its length, so that parts cannot be confused
		key.WriteString(strconv.Itoa(len(text)))
		key.WriteByte(':')
		key.WriteString(text)
	}
	part(user.UserID)
	part(clientOf(user.Claims))
	if m.o.Origin {
		part(jwt.ClaimText(user.Claims["iss"]))
	}
	for _, path := range m.o.Claims {
		if value, _ := user.Claims.Lookup(path); value != nil {
			text, _ := jwt.MarshalClaims(map[string]any{"": value}) // a value of a token that was parsed
			part(string(text))
		} else {
			part("")
		}
	}
	if act, ok := user.Claims["act"].(jwt.Claims); ok {
		part(act.String())
	}
	if capped {
		part(strconv.FormatInt(expiry.Unix(), 10))
	}
	return key.String()
}

// clientOf returns the client that acts for the user, or the empty string (RFC 9068 §2.2,
// OpenID Connect Core §2).
func clientOf(claims jwt.Claims) string {
	if id, _ := claims["client_id"].(string); id != "" {
		return id
	}
	id, _ := claims["azp"].(string)
	return id
}

// set sets the claim at a path, inside of objects as in the credential. If one of these is
// already there as a whole, nothing is left to do.
func set(claims map[string]any, path string, value any) {
	outer, inner, nested := strings.Cut(path, ".")
	if !nested {
		claims[path] = value
		return
	}
	if claims[outer] == nil {
		claims[outer] = make(map[string]any)
	}
	if object, ok := claims[outer].(map[string]any); ok {
		set(object, inner, value)
	}
}
