// Package introspection asks the issuer of an opaque token whether the token is valid (RFC
// 7662): the option `introspection` of an issuer, and the Caddy module
// jwt.credentials.introspection.
package introspection

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Introspection))
}

// Introspection asks the issuer of a token whether the token is valid (RFC 7662). It is for
// opaque tokens, which only the issuer understands. The claims in the issuer's response are
// those of the user, as if they were in a JWT: `iss`, `aud`, `exp` and `nbf` are checked if
// present, and `audience`, `user_id` and the rules apply to them. A token that is bound to a
// key of the client is refused.
//
// While the endpoint is unavailable, requests with tokens that are not remembered get 503.
type Introspection struct {
	// URL of the introspection endpoint: https, http to this machine or, with `allow_http`,
	// any http. Required if the issuer has a `*`; then a response must have the `iss` of a
	// tenant. Default: the `introspection_endpoint` of the issuer's metadata (OpenID Connect
	// Discovery 1.0 §4, RFC 8414 §3).
	URL string `json:"url,omitempty"`

	// ClientID is the ID of this site at the issuer. Default: none, for an endpoint that
	// does not authenticate its clients, because only this site can reach it.
	ClientID string `json:"client_id,omitempty"`

	// ClientSecret authenticates this site by `client_secret_basic` (RFC 6749 §2.3.1). Keep
	// it out of the config: use `{env.CLIENT_SECRET}` or `{file./run/secrets/client}`.
	ClientSecret string `json:"client_secret,omitempty"`

	// PrivateKey authenticates this site by `private_key_jwt` (RFC 7523 §2.2) instead: PEM,
	// JWK, or the path of a file with one of these. The `kid` and the `alg` of a JWK are
	// used; otherwise there is no `kid`, and the algorithm is the first one that the key
	// allows, such as RS256 or ES256.
	PrivateKey string `json:"private_key,omitempty"`

	// Cache is how long a response is remembered, up to 1h; never after `exp` of the token.
	// A token that the issuer revokes is accepted for this much longer. An inactive token is
	// remembered for 5s, or this time if it is shorter. 0 asks at every request. Default:
	// `30s`.
	Cache *caddy.Duration `json:"cache,omitempty"`

	// Timeout is how long a request waits for the response, discovery included, from 100ms
	// to 1m. Default: `5s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Always asks for the issuer's JWTs as well, after they are verified by its keys: so a
	// token that the issuer revokes is refused before it expires. Its claims remain those of
	// the JWT. Default: JWTs are only verified by the keys.
	Always bool `json:"always,omitempty"`

	// AllowHTTP accepts plain http to other machines. Anybody who can read the traffic then
	// learns the tokens, and anybody who can change it decides which tokens are accepted.
	AllowHTTP bool `json:"allow_http,omitempty"`

	// TrustedCACerts are PEM files with the certificates of the CAs that are trusted for the
	// endpoint. Default: the CAs of the system.
	TrustedCACerts []string `json:"trusted_ca_certs,omitempty"`

	// Issuer is the issuer of the tokens, for discovery and for `iss`. Only for
	// `credentials introspection`; in the block of an issuer it is that one.
	Issuer string `json:"issuer,omitempty"`

	// Audience lists the accepted audiences: `aud` must contain one of them. Only for
	// `credentials introspection`; in the block of an issuer it is that of the issuer.
	// Default: `aud` is not checked.
	Audience []string `json:"audience,omitempty"`

	// UserID lists the paths of the claims that can name the user. Only for `credentials
	// introspection`; in the block of an issuer it is that of `jwt`. Default: `sub`.
	UserID []string `json:"user_id,omitempty"`

	issuer   jwt.Issuer
	rules    jwt.VerifierConfig
	shared   shareKey
	endpoint *endpoint
}

// Defaults and limits of an [Introspection].
const (
	DefaultCache   = 30 * time.Second
	MaxCache       = time.Hour
	DefaultTimeout = 5 * time.Second
)

// CaddyModule returns the Caddy module information.
func (*Introspection) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "jwt.credentials.introspection",
		New: func() caddy.Module { return new(Introspection) },
	}
}

// Provision sets up a module of `credentials`, which has no issuer around it.
func (i *Introspection) Provision(ctx caddy.Context) error {
	err := errors.Join(
		config.Resolve("issuer", &i.Issuer), config.ResolveList("audience", i.Audience),
		config.ResolveList("user_id", i.UserID),
	)
	if err == nil && strings.Contains(i.Issuer, "*") {
		err = errors.New("tenants of an issuer need its keys; write introspection in the block of the issuer")
	}
	if err == nil && i.Always {
		err = errors.New("always requires the keys of an issuer; write introspection in the block of the issuer")
	}
	if err == nil {
		err = i.open(ctx, jwt.Issuer{Name: i.Issuer, Audience: i.Audience}, jwt.VerifierConfig{
			UserID: i.UserID, Leeway: jwt.DefaultLeeway,
		})
	}
	if err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	return nil
}

// Open sets up the introspection of an issuer. The keys of the issuer verify responses that
// are JWTs (RFC 9701), and its name, audience and revocations apply to the claims, like
// leeway and user ID of the config.
func (i *Introspection) Open(ctx caddy.Context, issuer jwt.Issuer, rules jwt.VerifierConfig) error {
	if i.Issuer != "" || i.Audience != nil || i.UserID != nil {
		return errors.New(
			"introspection: within an issuer it takes issuer, audience and user_id from there; remove them",
		)
	}
	if err := i.open(ctx, issuer, rules); err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	return nil
}

func (i *Introspection) open(ctx caddy.Context, issuer jwt.Issuer, rules jwt.VerifierConfig) error {
	i.issuer, i.rules = issuer, rules
	i.rules.AllowMissingExpiry = true // the issuer says at any time whether it is valid
	settings, err := i.settings()
	if err != nil {
		return err
	}
	i.shared, i.endpoint, err = share(settings, issuer)
	return err
}

// Cleanup releases the endpoint.
func (i *Introspection) Cleanup() error {
	if i.endpoint == nil {
		return nil
	}
	_, err := endpoints.Delete(i.shared)
	return err
}

// Verify implements credentials.Verifier.
func (i *Introspection) Verify(
	w http.ResponseWriter, r *http.Request, credential credentials.Credential,
) (*jwt.Token, error) {
	return Issuers{i}.Verify(w, r, credential)
}

// Issuers are the issuers of opaque tokens, which are asked in order until one of them says
// that a token is active.
type Issuers []*Introspection

// Verify implements credentials.Verifier.
func (all Issuers) Verify(
	_ http.ResponseWriter, r *http.Request, credential credentials.Credential,
) (*jwt.Token, error) {
	if isJWT(credential.Token) {
		return nil, credentials.ErrOtherKind
	}
	if err := checkSyntax(credential.Token); err != nil {
		return nil, err
	}
	var failure error = &refusal.Error{Reason: refusal.Inactive}
	for _, i := range all {
		claims, err := i.ask(r, credential.Token)
		switch {
		case err != nil:
			failure = err // another one may know the token
		case claims != nil:
			return i.accept(claims)
		}
	}
	return nil, failure
}

// ask returns the claims of an active token, and nil for an inactive one.
func (i *Introspection) ask(r *http.Request, token string) (jwt.Claims, error) {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return i.endpoint.ask(r.Context(), token, client)
}

// accept checks the claims of an active token. It is called for each request, because a
// response is shared with other handlers, which have other rules.
func (i *Introspection) accept(claims jwt.Claims) (*jwt.Token, error) {
	if err := checkKind(claims); err != nil {
		return nil, err
	}
	return jwt.CheckClaims(i.rules, &i.issuer, claims, clock.Now())
}

// Confirm asks whether a JWT that was verified by the keys is still active, for `always`.
func (i *Introspection) Confirm(r *http.Request, raw string, token *jwt.Token) *refusal.Error {
	claims, err := i.ask(r, raw)
	if err != nil {
		return refusal.Of(err)
	}
	if claims == nil {
		return &refusal.Error{Reason: refusal.Inactive}
	}
	for _, name := range []string{"iss", "sub", "jti"} {
		if said, own := claims[name], token.Claims[name]; said != nil && own != nil && !reflect.DeepEqual(said, own) {
			return refusal.New(refusal.Inactive, "the response is about another token: its %s is %s, not %s",
				name, refusal.Quoted(jwt.ClaimText(said)), refusal.Quoted(jwt.ClaimText(own)))
		}
	}
	if _, err := i.accept(claims); err != nil && !errors.Is(err, refusal.UserID) && !errors.Is(err, refusal.Audience) {
		return refusal.Of(err) // the JWT has named the user, and its audience is good
	}
	return nil
}

// isJWT reports whether a token is a JWT in compact form (RFC 7515 §7.1): three parts, the
// first of which is an object. An encrypted JWT is opaque.
func isJWT(token string) bool {
	const braceInBase64 = 'e' // of its first six bits
	return strings.Count(token, ".") == 2 && token[0] == braceInBase64 &&
		strings.IndexByte("wxyz0123", token[1]) >= 0 // the next two bits, and a character of ASCII
}

// maxTokenBytes is that of a JWT.
const maxTokenBytes = 16 << 10

// checkSyntax refuses what is no token (RFC 6750 §2.1), so that the endpoint does not get it.
func checkSyntax(token string) error {
	if len(token) > maxTokenBytes {
		return refusal.New(refusal.TokenTooLarge, "%d bytes; at most %d", len(token), maxTokenBytes)
	}
	name := strings.TrimRight(token, "=")
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') &&
			!strings.ContainsRune("-._~+/", r)
	}) {
		return refusal.New(refusal.MalformedToken, "it has characters that no bearer token has (RFC 6750 §2.1)")
	}
	return nil
}

// checkKind refuses what is not an access token that its bearer may use: a token bound to a
// key, a refresh token, an ID token.
func checkKind(claims jwt.Claims) error {
	of := func(name string) string {
		value, _ := claims[name].(string)
		return strings.ToLower(value)
	}
	switch kind := of("token_type"); kind { // RFC 7662 §2.2, RFC 6749 §7.1
	case "dpop", "pop", "mac":
		return refusal.New(refusal.Bound, "token_type is %s", kind)
	case "bearer", "access_token":
	default:
		if claims["token_type"] != nil {
			return refusal.New(refusal.TokenType, "token_type is %s, not Bearer",
				refusal.Quoted(jwt.ClaimText(claims["token_type"])))
		}
	}
	if use := claims["token_use"]; use != nil && use != "access_token" { // Ory Hydra
		return refusal.New(refusal.TokenType, "token_use is %s, not access_token", refusal.Quoted(jwt.ClaimText(use)))
	}
	switch kind := of("typ"); kind { // Keycloak
	case "refresh", "offline", "id", "logout":
		return refusal.New(refusal.TokenType, "typ is %s", kind)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner    = (*Introspection)(nil)
	_ caddy.CleanerUpper   = (*Introspection)(nil)
	_ credentials.Verifier = (*Introspection)(nil)
	_ credentials.Verifier = Issuers(nil)
)
