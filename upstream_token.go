package caddyjwt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/metadata"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/upstream"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"
)

func init() {
	caddy.RegisterModule(new(IssuerDocuments))
}

// UpstreamToken passes a short-lived token of this site's own to the upstream, in the place
// of the credential that the client sent. The upstream verifies it with the key set at
// `<issuer>/.well-known/jwks.json`. The claims are `iss`, `sub` (the user), `aud`, `exp`,
// `iat` and `jti` (RFC 7519 §4.1), `client_id` if the credential names a client, `act` if it
// names an actor (RFC 8693 §4.1), and `idp`, the issuer of the credential, if several
// issuers are accepted.
//
// The credential and all values of the header that the client sent are removed. A request
// without a user gets no token. A token is valid until it expires, also if the session or
// the key of the user ends before.
type UpstreamToken struct {
	// Header is the request header for the token. `Authorization` gets `Bearer <token>`
	// (RFC 6750 §2.1), any other header only the token. Such a header is removed from
	// requests that the matcher does not match, too. Default: `Authorization`.
	Header string `json:"header,omitempty"`

	// Issuer is the `iss` of the tokens, a URL. The directive serves its key set and its
	// discovery document (OpenID Connect Discovery 1.0 §4) below the path of the URL.
	// Default: the first host of the site with the path `/jwt`, as in
	// `https://api.example.com/jwt`.
	Issuer string `json:"issuer,omitempty"`

	// Audience lists the values of `aud`: the services that may accept the tokens. Name each
	// service, and let it check the value; otherwise it accepts tokens for other services
	// of this issuer. Default: the issuer.
	Audience []string `json:"audience,omitempty"`

	// Lifetime is how long a token is valid, from 1s to 1h, but not longer than the
	// credential is accepted here. Default: `5m`.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// Algorithm signs the tokens: `RS256`, `ES256` or `EdDSA`, with a key that Caddy creates
	// once and keeps in its storage. Default: `RS256`, which every library knows.
	Algorithm string `json:"algorithm,omitempty"`

	// Claims lists the paths of further claims to copy from the credential. Default: none.
	Claims []string `json:"claims,omitempty"`

	// ClaimsFromRaw are modules in the namespace `jwt.claims` that add claims. They cannot
	// replace those that are always set, nor `act`, `client_id` and `cnf`. Default: none.
	ClaimsFromRaw []json.RawMessage `json:"claims_from,omitempty" caddy:"namespace=jwt.claims inline_key=module"`

	sources []upstream.ClaimSource
	minter  *upstream.Minter
	issuer  *upstream.Issuer
}

// reservedClaims are set by the minter.
var reservedClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "idp"}

func (u *UpstreamToken) resolve() error {
	err := errors.Join(
		config.Resolve("upstream_token", &u.Header, &u.Issuer, &u.Algorithm),
		config.ResolveList("upstream_token audience", u.Audience),
		config.ResolveList("upstream_token claims", u.Claims),
	)
	config.SetDefault(&u.Header, "Authorization")
	config.SetDefault(&u.Algorithm, upstream.DefaultAlgorithm)
	config.SetDefault(&u.Lifetime, caddy.Duration(upstream.DefaultLifetime))
	u.Header = http.CanonicalHeaderKey(u.Header)
	return err
}

// provision opens the keys. severalIssuers reports whether users come from more than one.
func (u *UpstreamToken) provision(ctx caddy.Context, severalIssuers bool) error {
	if err := u.validate(); err != nil {
		return err
	}
	var err error
	if u.Issuer, err = upstreamIssuer(ctx, u.Issuer); err != nil {
		return err
	}
	if err := u.loadSources(ctx); err != nil {
		return err
	}
	audience := u.Audience
	if len(audience) == 0 {
		audience = []string{u.Issuer}
	}
	issuer, keys, err := upstream.Open(ctx, u.Issuer, u.Algorithm)
	if err != nil {
		return err
	}
	u.issuer = issuer
	published := func(ctx context.Context) (string, error) { return checkPublished(ctx, u.Issuer) }
	config.OnCheck(ctx, config.Check{What: "upstream_token of " + u.Issuer, Run: published})
	anyUpstreamToken.Store(true)
	u.minter = upstream.NewMinter(upstream.Options{
		Issuer: u.Issuer, Audience: audience, Lifetime: time.Duration(u.Lifetime), Claims: u.Claims,
		Origin: severalIssuers, Sign: keys.Sign, Now: clock.Now, Scheme: u.scheme(),
		Signed: audit(ctx.Logger().Named("audit")),
	})
	return nil
}

// audit returns a function that logs each token that is signed, without its other claims.
func audit(log *zap.Logger) func(claims map[string]any) {
	return func(claims map[string]any) {
		log.Info(
			"upstream token signed", zap.Any("user_id", claims["sub"]), zap.Any("client_id", claims["client_id"]),
			zap.Any("audience", claims["aud"]), zap.Any("jti", claims["jti"]),
		)
	}
}

// scheme returns what comes before the token in the header.
func (u *UpstreamToken) scheme() string {
	if u.Header == "Authorization" {
		return "Bearer "
	}
	return ""
}

func (u *UpstreamToken) validate() error {
	if !httpguts.ValidHeaderFieldName(u.Header) || u.Header == "Cookie" || credentials.IsReservedHeader(u.Header) {
		return fmt.Errorf("upstream_token %s: it must be the name of a header that HTTP and the proxy do not use, "+
			"as in: upstream_token X-Jwt-Assertion", u.Header)
	}
	if lifetime := time.Duration(u.Lifetime); lifetime < time.Second || lifetime > upstream.MaxLifetime {
		return fmt.Errorf("upstream_token: lifetime is %s; it must be from 1s to %s", lifetime, upstream.MaxLifetime)
	}
	if !slices.Contains(upstream.Algorithms, u.Algorithm) {
		return fmt.Errorf(
			"upstream_token: algorithm %s: it must be one of %s", u.Algorithm, config.List(upstream.Algorithms),
		)
	}
	for _, claim := range u.Claims {
		if claim == "" || slices.Contains(reservedClaims, claim) {
			return fmt.Errorf("upstream_token: claims %q: this claim is always set; remove it", claim)
		}
	}
	if slices.Contains(u.Audience, "") {
		return errors.New("upstream_token: audience has an empty value; remove it")
	}
	return nil
}

// upstreamIssuer returns the issuer of the config, or the default one of the site.
func upstreamIssuer(ctx caddy.Context, issuer string) (string, error) {
	if issuer != "" {
		parsed, err := url.Parse(issuer)
		if err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http" ||
			parsed.RawQuery != "" || parsed.Fragment != "" || parsed.User != nil {
			return "", fmt.Errorf("upstream_token: issuer %q: it must be a URL without a query, as in: "+
				"issuer https://api.example.com/jwt", issuer)
		}
		return issuer, nil
	}
	site := place.Of(ctx).URL()
	if site == "" {
		return "", errors.New("upstream_token: this site has no host of its own from which to name the issuer; " +
			"set it, as in: issuer https://api.example.com/jwt")
	}
	return site + upstream.DefaultPath, nil
}

// token returns the token for the upstream.
func (u *UpstreamToken) token(r *http.Request, user *jwt.Token) (string, *refusal.Error) {
	more, err := upstream.Collect(u.sources, r, user)
	var token string
	if err == nil {
		token, err = u.minter.Token(user, more)
	}
	if failure, ok := errors.AsType[*refusal.Error](err); ok {
		return "", failure
	}
	if err != nil {
		return "", &refusal.Error{
			Reason: refusal.KeysUnavailable,
			Detail: "no token for the upstream: " + err.Error(), RetryAfter: time.Second,
		}
	}
	return token, nil
}

// set puts the token into the request. Another jwt handler of the request reads the
// credential as the client sent it.
func (u *UpstreamToken) set(r *http.Request, token string, who *caller) {
	user := userOf(r)
	replaced := who.credential // a copy, so that who stays off the heap
	user.replaced = &replaced
	if who.renewed != nil {
		user.replaced = &credentials.Credential{Token: who.renewed.AccessToken, Source: credentials.AccountSources[1]}
	}
	user.headers = append(user.headers, u.Header)
	r.Header[u.Header] = []string{token}
}

// anyUpstreamToken reports whether a config of this process has had an upstream_token: the look
// at the request costs as much as a tenth of what the handler does.
var anyUpstreamToken atomic.Bool

// replacedOr returns the credential that an earlier handler has replaced by a token for the
// upstream, if it was in one of the sources; otherwise that of the request.
func (h *Handler) replacedOr(r *http.Request) credentials.Credential {
	if anyUpstreamToken.Load() && isReplaced(r) {
		user := userOf(r)
		same := func(source *credentials.Source) bool { return *source == *user.replaced.Source }
		if i := slices.IndexFunc(h.sources, same); i >= 0 {
			return credentials.Credential{Token: user.replaced.Token, Source: h.sources[i]}
		}
	}
	return h.credentialOf(r)
}

// isReplaced reports whether an earlier handler has replaced the credential.
func isReplaced(r *http.Request) bool {
	user := userOf(r)
	return user != nil && user.replaced != nil
}

// headersOf returns the headers that only the handler may set.
func (h *Handler) headersOf() []*ClaimHeader {
	if h.UpstreamToken == nil {
		return h.ClaimHeaders
	}
	return append(slices.Clone(h.ClaimHeaders), &ClaimHeader{Header: h.UpstreamToken.Header})
}

// guardedHeaders returns the headers that are also removed where the handler does not run:
// not `Authorization`, which other handlers and upstreams use there.
func guardedHeaders(headers []*ClaimHeader, token *UpstreamToken) []*ClaimHeader {
	if token == nil || token.Header == "" || http.CanonicalHeaderKey(token.Header) == "Authorization" {
		return headers
	}
	return append(slices.Clone(headers), &ClaimHeader{Header: token.Header})
}

// IssuerDocuments serves the key set and the discovery document of the issuer of
// `upstream_token` to everybody. The directive adds it automatically, for all paths of the
// site.
type IssuerDocuments struct {
	// Issuer is the `iss` of the tokens. Default: as in `upstream_token`.
	Issuer string `json:"issuer,omitempty"`

	// Algorithm is the algorithm of the keys. Default: `RS256`.
	Algorithm string `json:"algorithm,omitempty"`

	issuer *upstream.Issuer
	path   string
}

// matcher returns the matcher of the documents' paths, or nil if the issuer has a placeholder.
// Caddy sorts the route before other jwt routes by it.
func (d *IssuerDocuments) matcher() caddy.ModuleMap {
	path := upstream.DefaultPath
	if d.Issuer != "" {
		parsed, err := url.Parse(d.Issuer)
		if err != nil || strings.ContainsAny(d.Issuer, "{}*") {
			return nil
		}
		path = strings.TrimSuffix(parsed.Path, "/")
	}
	return caddy.ModuleMap{"path": caddyconfig.JSON(caddyhttp.MatchPath{path + "/.well-known/*"}, nil)}
}

// CaddyModule returns the Caddy module information.
func (*IssuerDocuments) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt_issuer",
		New: func() caddy.Module { return new(IssuerDocuments) },
	}
}

// Provision opens the keys.
func (d *IssuerDocuments) Provision(ctx caddy.Context) error {
	where := config.WhereIs(d)
	return where.Locate(d.provision(ctx))
}

func (d *IssuerDocuments) provision(ctx caddy.Context) error {
	if err := config.Resolve("upstream_token", &d.Issuer, &d.Algorithm); err != nil {
		return err
	}
	config.SetDefault(&d.Algorithm, upstream.DefaultAlgorithm)
	name, err := upstreamIssuer(ctx, d.Issuer)
	if err != nil {
		return err
	}
	parsed, err := url.Parse(name)
	if err != nil {
		return err
	}
	d.path = strings.TrimSuffix(parsed.Path, "/")
	d.issuer, _, err = upstream.Open(ctx, name, d.Algorithm)
	return err
}

// Cleanup releases the keys.
func (d *IssuerDocuments) Cleanup() error {
	if d.issuer == nil {
		return nil
	}
	return d.issuer.Close()
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (d *IssuerDocuments) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if path, below := strings.CutPrefix(r.URL.Path, d.path); below &&
		(path == metadata.JWKSPath || path == metadata.DiscoveryPath) {
		return metadata.Serve(w, r, d.issuer)
	}
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*IssuerDocuments)(nil)
	_ caddy.CleanerUpper          = (*IssuerDocuments)(nil)
	_ caddyhttp.MiddlewareHandler = (*IssuerDocuments)(nil)
)
