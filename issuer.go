package caddyjwt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
)

// shortestPause is the least that refresh, max_stale, cooldown and timeout may be.
const shortestPause = 100 * time.Millisecond

// hmacAlgorithms, and the secret that each needs at least, in bytes.
var hmacAlgorithms = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// IssuerConfig is somebody whose tokens are accepted, and the keys that only
// it signs with.
type IssuerConfig struct {
	// Issuer is what the `iss` claim must equal, to the letter. Default: `iss`
	// is not checked; then a key must be given, and this be the only issuer.
	Issuer string `json:"issuer,omitempty"`

	// JWKS says where the issuer's key set is. Default: where the issuer has
	// no other key, it is found by OpenID discovery on Issuer.
	JWKS *JWKSConfig `json:"jwks,omitempty"`

	// PublicKeys are the issuer's public keys: PEM (SPKI, PKCS#1 or a
	// certificate, whose validity is not checked), a JWK, a JWK set, or the
	// path of a file with one of these. White space does not matter.
	PublicKeys []string `json:"public_keys,omitempty"`

	// Secrets are shared secrets for HMAC. Whoever verifies with one can also
	// sign with it, so prefer a public key where issuer and verifier are not
	// the same.
	Secrets []*config.Secret `json:"secrets,omitempty"`

	// Algorithms that are accepted, of HS256, HS384, HS512, RS256, RS384,
	// RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA (Ed25519);
	// built with the tag `jwx_es256k`, also ES256K. Default: those that the keys allow by type, curve, length and `alg`.
	Algorithms []string `json:"algorithms,omitempty"`

	// Audience: the `aud` claim must hold one of these. Default: `aud` is not
	// compared, so a token that the issuer made for another service is
	// accepted here too.
	Audience []string `json:"audience,omitempty"`

	// TokenType is the `typ` that the token's header must have, such as
	// `at+jwt` of RFC 9068. Default: absent, `JWT` or `at+jwt`.
	TokenType string `json:"token_type,omitempty"`
}

// JWKSConfig is a key set behind a URL (RFC 7517 §5). It is fetched in the
// background and kept in Caddy's storage. Handlers with the same settings
// share one set, over config reloads too.
type JWKSConfig struct {
	// URL of the key set: https, http to this machine, or http by
	// `allow_http`. Default: what OpenID discovery on the issuer says.
	URL string `json:"url,omitempty"`

	// Refresh is how old the set may get before it is fetched again, ahead of
	// need; at least 100ms, as the other times. A key that was withdrawn is
	// refused within this time, as long as the URL answers. Default: `10m`.
	Refresh caddy.Duration `json:"refresh,omitempty"`

	// MaxStale is how old the last good set may get while the URL is out of
	// reach; not less than `refresh`. After it, the issuer's tokens are
	// refused. Default: `24h`, or `refresh` where that is longer.
	MaxStale caddy.Duration `json:"max_stale,omitempty"`

	// Cooldown is the least time between two fetches that unknown key IDs
	// cause. Default: `30s`.
	Cooldown caddy.Duration `json:"cooldown,omitempty"`

	// Timeout of one fetch, discovery and redirects included. Default: `5s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// AllowHTTP accepts plain http to other machines. Whoever can change the
	// answer on its way can then sign tokens that are accepted here.
	AllowHTTP bool `json:"allow_http,omitempty"`

	// TrustedCACerts are PEM files with the certificates of the CAs that the
	// URL's server is trusted by. Default: the system's.
	TrustedCACerts []string `json:"trusted_ca_certs,omitempty"`
}

// provision resolves placeholders, loads keys, and says which algorithms they
// serve.
func (c *IssuerConfig) provision(ctx caddy.Context, h *Handler) (jwt.Issuer, error) {
	err := errors.Join(config.Resolve("issuer", &c.Issuer), config.Resolve("token_type", &c.TokenType), config.ResolveList("audience", c.Audience), config.ResolveList("algorithms", c.Algorithms))
	if err != nil {
		return jwt.Issuer{}, err
	}
	if slices.Contains(c.Audience, "") {
		return jwt.Issuer{}, errors.New("audience: an empty value matches no audience; remove it")
	}
	issuer := jwt.Issuer{Name: c.Issuer, Audience: c.Audience, TokenType: c.TokenType}
	local, err := c.localKeys()
	if err != nil {
		return issuer, err
	}
	allowed := local.Algorithms()
	if len(local.Keys) > 0 {
		issuer.Keys = append(issuer.Keys, local)
	}
	if c.JWKS != nil || len(local.Keys) == 0 {
		remote, err := c.remoteKeys(ctx, h)
		if err != nil {
			return issuer, err
		}
		issuer.Keys = append(issuer.Keys, remote)
		allowed = slices.Concat(allowed, jwks.Algorithms)
	}
	issuer.Algorithms, err = c.acceptedAlgorithms(allowed)
	return issuer, err
}

func (c *IssuerConfig) acceptedAlgorithms(allowed []string) ([]string, error) {
	if len(c.Algorithms) == 0 {
		return allowed, nil
	}
	for _, name := range c.Algorithms {
		if slices.Contains(allowed, name) {
			continue
		}
		least, isHMAC := hmacAlgorithms[name]
		switch {
		case isHMAC && len(c.Secrets) > 0:
			return nil, fmt.Errorf("algorithms: %s requires a secret of at least %d bytes; %s", name, least, jwt.SecretBytesHint)
		case isHMAC:
			return nil, fmt.Errorf("algorithms: %s requires a `secret`; with a public key, anybody could sign tokens", name)
		case slices.Contains(jwks.Algorithms, name):
			return nil, fmt.Errorf("algorithms: this issuer has no key for %s; its keys are for %s", name, strings.Join(allowed, ", "))
		}
		return nil, fmt.Errorf("algorithms: unknown algorithm %q; supported: %s", name, strings.Join(allowed, ", "))
	}
	return c.Algorithms, nil
}

func (c *IssuerConfig) localKeys() (*jwt.KeySet, error) {
	var keys []*jwt.Key
	for i, secret := range c.Secrets {
		if secret == nil {
			return nil, fmt.Errorf("secret %d is null", i)
		}
		key, err := secret.Key()
		if err != nil {
			return nil, fmt.Errorf("secret %d: %w", i, err)
		}
		keys = append(keys, key)
	}
	for i, text := range c.PublicKeys {
		parsed, err := config.LoadPublicKeys(text)
		if err != nil {
			return nil, fmt.Errorf("public_key %d: %w", i, err)
		}
		keys = append(keys, parsed...)
	}
	set, err := jwt.NewKeySet(keys...)
	if err != nil {
		return nil, fmt.Errorf("public_key: %w", err)
	}
	return set, nil
}
