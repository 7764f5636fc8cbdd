package caddyjwt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/backchannel"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/introspection"
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
)

// shortestPause is the minimum of refresh, max_stale, cooldown and timeout.
const shortestPause = 100 * time.Millisecond

// hmacAlgorithms maps each HMAC algorithm to the minimum length of its secret, in bytes.
var hmacAlgorithms = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// IssuerConfig is an issuer whose tokens are accepted, with its own keys.
type IssuerConfig struct {
	// Issuer is the required value of the `iss` claim, compared exactly. Default: `iss` is
	// not checked; then a key must be set, and there can be no other issuer.
	//
	// One segment of its path may be `*`, as in `https://login.microsoftonline.com/*/v2.0`,
	// for the tenants of a provider that share their keys; then `jwks <url>`, `public_key` or
	// `secret` is required. `*` is one segment of letters, digits and `- . _ ~`. A `tid` in the
	// token must be equal to it. Another issuer with exactly the `iss` of a token has
	// precedence. Users of all tenants are accepted, and can have the same user ID, so set
	// `audience`, and `tenants` or a rule. If each tenant has keys of its own, as the realms of
	// Keycloak, write an issuer for each: the owner of shared keys can sign for every tenant.
	Issuer string `json:"issuer,omitempty"`

	// Tenants are what the `*` of `issuer` can be. Default: any tenant.
	Tenants []string `json:"tenants,omitempty"`

	// JWKS configures the issuer's key set. Default: if the issuer has no other key, the
	// key set is found by OpenID discovery on Issuer or, if it has no such document,
	// by the metadata of RFC 8414.
	JWKS *JWKSConfig `json:"jwks,omitempty"`

	// PublicKeys are the issuer's public keys: PEM (SPKI, PKCS#1 or a certificate, whose
	// validity is not checked), a JWK, a JWK set, or the path of a file with one of these. A
	// PEM can have several keys, but of a chain of certificates only the leaf. White space is
	// ignored. After a file has changed, run `caddy reload --force`.
	PublicKeys []string `json:"public_keys,omitempty"`

	// Secrets are shared secrets for HMAC. Anybody who can verify with a secret can also
	// sign with it, so prefer public keys unless issuer and verifier are the same.
	Secrets []*config.Secret `json:"secrets,omitempty"`

	// Algorithms are the accepted algorithms, out of HS256, HS384, HS512, RS256, RS384, RS512,
	// PS256, PS384, PS512, ES256, ES384, ES512, and EdDSA and Ed25519 (RFC 9864), which are two
	// names of one, and ES256K if built with the tag `jwx_es256k`. Default: the algorithms that
	// the keys allow by type, curve, length and `alg`.
	Algorithms []string `json:"algorithms,omitempty"`

	// Audience lists the accepted audiences: the `aud` claim must contain one of them.
	// Default: `aud` is not checked, so tokens that the issuer made for other services are
	// accepted too.
	Audience []string `json:"audience,omitempty"`

	// AudienceClaim lists the paths of the claims that can have the audience, for issuers that
	// set no `aud`, such as `client_id` in the access tokens of Amazon Cognito. The first one
	// that is present decides; it must be a string or a list of strings. `client_id` and `azp`
	// name the client that asked for the token, not the service that it is for: a token that
	// this client got for another service is accepted, too. Default: `aud`.
	AudienceClaim []string `json:"audience_claim,omitempty"`

	// TokenType lists the accepted values of `typ` in the token's header, such as `at+jwt` of
	// RFC 9068. If it is set, a token without `typ` is refused. Default: omitted, `JWT`,
	// `at+jwt` or `JOSE`.
	TokenType config.OneOrMore `json:"token_type,omitempty"`

	// Introspection asks the issuer about opaque tokens (RFC 7662), and with `always` about
	// its JWTs. If several issuers have it, they are asked in order until one says that a
	// token is active: so each of them sees the opaque tokens of the issuers after it.
	// Default: opaque tokens are refused.
	Introspection *introspection.Introspection `json:"introspection,omitempty"`

	// BackchannelLogout receives the log-outs that the issuer reports, so that tokens of ended
	// sessions are refused before they expire (OpenID Connect Back-Channel Logout 1.0).
	// Default: a token is accepted until it expires.
	BackchannelLogout *Logout `json:"backchannel_logout,omitempty"`

	logouts *backchannel.Logouts
}

// JWKSConfig is a key set behind a URL (RFC 7517 §5), or Google's form of one, an object of
// certificates by key ID. It is fetched in the background and kept in Caddy's storage. Handlers
// with the same settings share one set, also across config reloads.
//
// A token is tried with the keys of its algorithm that have its key ID. Keys may share an ID. A
// token without one is tried with the keys whose certificate it names (`x5t#S256`, `x5t`), or
// with all keys of its algorithm. At most 64 keys are tried. Keys for encryption are ignored.
type JWKSConfig struct {
	// URL of the key set: https, http to this machine or, with `allow_http`, any http.
	// Default: the URL that OpenID discovery on the issuer returns.
	URL string `json:"url,omitempty"`

	// Refresh is how long the set is used before it is fetched again, ahead of need; at
	// least 100ms, like the other durations. A key that the issuer withdraws is refused
	// within this time, as long as the URL is available. Default: `10m`.
	Refresh caddy.Duration `json:"refresh,omitempty"`

	// MaxStale is how long the last valid set is used while the URL is unavailable; not
	// less than `refresh`. After that, the issuer's tokens are refused. Default: `24h`, or
	// `refresh` if that is longer.
	MaxStale caddy.Duration `json:"max_stale,omitempty"`

	// Cooldown is the minimum time between two fetches that tokens cause: by an unknown key ID,
	// or because no key with their ID verifies them. Default: `30s`.
	Cooldown caddy.Duration `json:"cooldown,omitempty"`

	// Timeout of a fetch, including discovery and redirects, and of the time that a request
	// waits for keys. Default: `5s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// AllowHTTP accepts plain http to other machines. Anybody who can change the response
	// in transit can then sign tokens that are accepted here, and anybody who can read the
	// request learns each `header`.
	AllowHTTP bool `json:"allow_http,omitempty"`

	// TrustedCACerts are PEM files with the certificates of the CAs that are trusted for
	// the URL's server. After a file has changed, run `caddy reload
	// --force`. Default: the CAs of the system.
	TrustedCACerts []string `json:"trusted_ca_certs,omitempty"`

	// Headers are sent with each fetch, for servers that require a token, such as
	// `header Authorization "Bearer {file./run/secrets/token}"`. Of the placeholders only
	// `{env.NAME}` and `{file./path}` are allowed. They are resolved before each fetch, so the
	// file can change. Only the scheme, host and port of the URL get the headers or, with
	// discovery, those of the issuer: if its key set is on another host, set the URL of the key
	// set. Default: none.
	Headers map[string]string `json:"headers,omitempty"`
}

// provision resolves placeholders, loads keys, and determines their algorithms.
func (c *IssuerConfig) provision(ctx caddy.Context, h *Handler) (jwt.Issuer, error) {
	err := errors.Join(
		config.Resolve("issuer", &c.Issuer), config.ResolveList("tenants", c.Tenants),
		config.ResolveList("audience", c.Audience), config.ResolveList("audience_claim", c.AudienceClaim),
		config.ResolveList("token_type", c.TokenType), config.ResolveList("algorithms", c.Algorithms),
	)
	if err != nil && strings.Contains(c.Issuer, "/{") {
		err = fmt.Errorf("%w; if the braces stand for any tenant, write `*` instead", err)
	}
	if err != nil {
		return jwt.Issuer{}, err
	}
	switch {
	case slices.Contains(c.Audience, ""):
		return jwt.Issuer{}, errors.New("audience: an empty value matches no audience; remove it")
	case slices.Contains(c.AudienceClaim, ""):
		return jwt.Issuer{}, errors.New("audience_claim: a claim name is empty; remove it")
	case len(c.AudienceClaim) > 0 && len(c.Audience) == 0:
		return jwt.Issuer{}, errors.New("audience_claim names where the audience is, but no audience is set; " +
			"add: audience <value>")
	case slices.Contains(c.TokenType, ""):
		return jwt.Issuer{}, errors.New("token_type: an empty value matches no token; remove it")
	}
	issuer := jwt.Issuer{
		Name: c.Issuer, MultiTenant: c.multiTenant(), Tenants: c.Tenants, Audience: c.Audience,
		AudienceClaims: c.AudienceClaim, TokenTypes: c.TokenType,
	}
	if err := issuer.CheckName(); err != nil {
		return issuer, err
	}
	if c.BackchannelLogout != nil {
		if err := c.BackchannelLogout.resolve(c); err != nil {
			return issuer, err
		}
		if c.logouts, err = backchannel.Open(ctx, c.Issuer); err != nil {
			return issuer, err
		}
		issuer.Revoked = c.logouts.Revoked
	}
	local, err := c.localKeys()
	if err != nil {
		return issuer, err
	}
	allowed := local.Algorithms()
	if len(local.Keys) > 0 {
		issuer.Keys = append(issuer.Keys, local)
	}
	onlyOpaque := c.Introspection != nil && c.Issuer == ""
	if c.JWKS != nil || len(local.Keys) == 0 && !onlyOpaque {
		remote, err := c.remoteKeys(ctx, h)
		if err != nil {
			return issuer, err
		}
		issuer.Keys = append(issuer.Keys, remote)
		allowed = slices.Concat(allowed, jwks.Algorithms)
	}
	if len(issuer.Keys) > 0 {
		issuer.Algorithms, err = c.acceptedAlgorithms(allowed)
	}
	return issuer, err
}

// multiTenant reports whether the issuer stands for the tenants of a provider.
func (c *IssuerConfig) multiTenant() bool { return strings.Contains(c.Issuer, "*") }

// names returns the issuer, or those of its tenants that are known.
func (c *IssuerConfig) names() (names []string) {
	if !c.multiTenant() {
		return []string{c.Issuer}
	}
	for _, tenant := range c.Tenants {
		names = append(names, strings.Replace(c.Issuer, "*", tenant, 1))
	}
	return names
}

func (c *IssuerConfig) acceptedAlgorithms(allowed []string) ([]string, error) {
	if len(c.Algorithms) == 0 {
		return allowed, nil
	}
	for _, name := range c.Algorithms {
		if words := strings.FieldsFunc(name, isSeparator); len(words) > 1 {
			return nil, fmt.Errorf(
				"algorithms %q: separate values by spaces: algorithms %s", name, strings.Join(words, " "),
			)
		}
		if slices.Contains(allowed, name) {
			continue
		}
		least, isHMAC := hmacAlgorithms[strings.ToUpper(name)]
		switch {
		case slices.ContainsFunc(allowed, func(other string) bool { return strings.EqualFold(other, name) }):
		case isHMAC && len(c.Secrets) > 0:
			return nil, fmt.Errorf(
				"algorithms: %s requires a secret of at least %d bytes; %s", name, least, jwt.SecretBytesHint,
			)
		case isHMAC:
			return nil, fmt.Errorf(
				"algorithms: %s requires a `secret`; with a public key, anybody could sign tokens", name,
			)
		case slices.Contains(jwks.Algorithms, name):
			return nil, fmt.Errorf(
				"algorithms: this issuer has no key for %s; its keys are for %s", name, strings.Join(allowed, ", "),
			)
		}
		return nil, fmt.Errorf("algorithms: %w", config.Unknown("algorithm", name, allowed))
	}
	return c.Algorithms, nil
}

func (c *IssuerConfig) localKeys() (*jwt.KeySet, error) {
	var keys []*jwt.Key
	for i, secret := range c.Secrets {
		if secret == nil {
			return nil, fmt.Errorf("%s is null", config.Nth("secret", i, len(c.Secrets)))
		}
		key, err := secret.Key()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", config.Nth("secret", i, len(c.Secrets)), err)
		}
		keys = append(keys, key)
	}
	for i, text := range c.PublicKeys {
		parsed, err := config.LoadPublicKeys(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", config.Nth("public_key", i, len(c.PublicKeys)), err)
		}
		keys = append(keys, parsed...)
	}
	return jwt.NewKeySet(keys...), nil
}

// close releases what the issuer shares with other handlers.
func (c *IssuerConfig) close() error {
	var errs []error
	if c.Introspection != nil {
		errs = append(errs, c.Introspection.Cleanup())
	}
	if c.logouts != nil {
		errs = append(errs, c.logouts.Close())
	}
	return errors.Join(errs...)
}
