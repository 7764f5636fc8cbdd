// Package caddyjwt is a Caddy module that verifies JWTs in front of a site:
// the handler http.handlers.jwt, its directive jwt, and the provider
// http.authentication.providers.jwt_bearer. Package jwt has the verifier, which
// any Go program can use.
package caddyjwt

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	_ "github.com/caddy-jwt/caddy-jwt/internal/cli" // caddy jwt …
	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Why requests are let through.
var (
	allowed    = answer.Allowed("valid_token")
	anonymous  = answer.Allowed("optional")
	publicPath = answer.Allowed("public")
	preflight  = answer.Allowed("preflight")
)

// Handler lets a request through if it carries a good JWT as a bearer token
// (RFC 6750), and tells the handlers behind it whose request it is.
//
// Placeholders for the handlers behind it; those of the user are empty for an
// anonymous one:
//
// Placeholder | Description
// ------------|------------
// `{http.auth.user.id}` | The claim that names the user; it is also the `user_id` of the access log
// `{http.auth.user.<claim>}` | Any claim: names and list indices joined by dots, lists joined by commas, objects as JSON
// `{http.jwt.error}` | In `handle_errors`: `credentials_required`, `invalid_request`, `invalid_token`, `insufficient_scope`, `forbidden` or `keys_unavailable`
// `{http.jwt.error_description}` | In `handle_errors`: which check failed
//
// Every text value may hold placeholders such as `{env.NAME}` and
// `{file./path}`, which are resolved when the config is loaded; only
// `expression` reads them with each request.
type Handler struct {
	// Issuers are whose tokens are accepted. One is required, and of several
	// each needs its name. Keys are never shared between them, but users are told
	// apart by `user_id` alone: each issuer can name a user of another one, and give any
	// role or scope. Bind rules to one by `of <issuer>`, and pass `iss` on
	// where the service behind tells users apart.
	Issuers []*IssuerConfig `json:"issuers,omitempty"`

	// Leeway is the clock difference allowed in `exp`, `nbf` and `iat`, from 0
	// to 5m: an expired token is accepted for so much longer. Default: `30s`.
	Leeway *caddy.Duration `json:"leeway,omitempty"`

	// AllowMissingExp accepts tokens without `exp`. Nobody can take such a
	// token back, short of a change of its key. Default: they are refused.
	AllowMissingExp bool `json:"allow_missing_exp,omitempty"`

	// From are the places where a token may stand; naming one replaces the
	// default. A request with tokens in two of them is refused with 400.
	// Default: header `Authorization`, scheme `Bearer`; with `accounts` the session
	// cookie of browsers too, which `from cookie session` names. Where that is not
	// named, no browser is sent to log in.
	From []*credentials.Source `json:"from,omitempty"`

	// UserID are the paths of the claims that may name the user: the first
	// that is a text or a number and not empty does. A token without one is
	// refused. Default: `sub`.
	UserID []string `json:"user_id,omitempty"`

	// Public are paths that need no token, as Caddy's own path matcher matches
	// them. The token is not read there, and the user is anonymous. A path that the
	// service behind may read as another one (dot segments, plain or encoded,
	// encoded slashes, backslashes, `;`) is public only if each reading is. Prefer
	// folders: a pattern with an open beginning, such as `*.css`, also matches the
	// routes of an app that end so (`/admin/x.css`), and a front controller of PHP answers
	// those that are no file. It does not match `/admin.php/x.css`, where a PHP or
	// CGI server would run `/admin.php`.
	Public caddyhttp.MatchPath `json:"public,omitempty"`

	// Optional lets requests without a token through as anonymous, without
	// asking `require` of them. Credentials of another scheme, such as Basic,
	// are no token. A bad token is still refused.
	Optional bool `json:"optional,omitempty"`

	// AllowPreflight lets CORS preflights through, which cannot carry a token:
	// OPTIONS requests with `Origin` and `Access-Control-Request-Method`. What
	// is behind must not do more on OPTIONS than answer them.
	AllowPreflight bool `json:"allow_preflight,omitempty"`

	// Require are the rules that the claims must meet, all of them.
	Require []*Requirement `json:"require,omitempty"`

	// ClaimHeaders are request headers that tell the upstream a claim, and
	// that a client cannot send itself: neither where the handler runs nor, of the
	// directive, where its matcher does not match. A directive within a `handle` or
	// `route` block knows only that block; what goes to the same upstream from
	// another one needs `request_header -<Header>` there, or the directive with a
	// matcher at the site's top level.
	ClaimHeaders []*ClaimHeader `json:"claim_headers,omitempty"`

	// TrustedOrigins are the origins, as in `https://app.example.com`, whose pages may
	// send requests that change something with the user's cookie; `*` trusts all, also
	// an attacker's page that the user has open. Default: the site itself alone
	// (OWASP: Cross-Site Request Forgery).
	TrustedOrigins []string `json:"trusted_origins,omitempty"`

	// StripToken takes the token out of the request before the handlers
	// behind see it, another `jwt` too. Default: it is passed on.
	StripToken bool `json:"strip_token,omitempty"`

	// Cache is how many verified tokens are remembered at most, in entries; 0
	// remembers none, and verifies each token with each request. A remembered
	// token is still refused once it expires or its key leaves the key set.
	// Default: 10000.
	Cache *int `json:"cache,omitempty"`

	// Realm of the challenge in WWW-Authenticate (RFC 9110 §11.5); that of the
	// account routes is `restricted`. Default: `restricted`.
	Realm string `json:"realm,omitempty"`

	// Accounts are the site's own users: their tokens are accepted, in the
	// session cookie of browsers too, and a browser without one is sent to the
	// log-in page. The `jwt_accounts` handler, which must stand in front of this one,
	// serves their routes.
	Accounts *accounts.Config `json:"accounts,omitempty"`

	tokens     *tokenIdentifier // by which identifier verifies tokens
	identifier identifier
	rooted     caddyhttp.MatchPath // the patterns of Public that have a fixed beginning
	accounts   *web.Shared         // nil without accounts
	sources    credentials.Sources
	keySets    []jwks.Settings // in use, to be given back in Cleanup

	crossOrigin *http.CrossOriginProtection // nil if all origins are trusted
	answers     answer.Responder
	where       config.Where
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt",
		New: func() caddy.Module { return new(Handler) },
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler: the whole way of a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	credential, open := h.read(r)
	who := h.identify(w, r, credential, open)
	verdict := h.decide(r, who, open)
	return h.forward(w, r, next, who, verdict)
}

// read removes what only this handler may say of a user, and returns the credential that
// the request shows. Where none is needed, none is read, and open counts why.
func (h *Handler) read(r *http.Request) (credential credentials.Credential, open prometheus.Counter) {
	removeClaimHeaders(r, h.ClaimHeaders, nil)
	if open = h.open(r); open != nil {
		return credential, open
	}
	return h.sources.Read(r), nil
}

// identify finds out whose the credential is, and puts the user into the placeholders.
func (h *Handler) identify(w http.ResponseWriter, r *http.Request, credential credentials.Credential, open prometheus.Counter) (who caller) {
	if open == nil {
		who = h.identifier.identify(w, r, credential)
	}
	attach(r, who.token)
	return who
}

// verdict is what to do with a request.
type verdict struct {
	refusal *refusal.Error     // nil if the request is let through
	reason  prometheus.Counter // counts why it is
	marks   marks              // for the answer
}

// decide judges the request by paths and rules.
func (h *Handler) decide(r *http.Request, who caller, open prometheus.Counter) verdict {
	switch {
	case open != nil:
		return verdict{reason: open}
	case who.failure != nil:
		return verdict{refusal: who.failure}
	case who.token == nil:
		return verdict{reason: anonymous, marks: marks{vary: h.sources.HaveCookie()}}
	}
	if who.byCookie() {
		if failure := h.checkOrigin(r); failure != nil {
			return verdict{refusal: failure}
		}
	}
	if failure := h.checkRules(r, who.token.Claims); failure != nil {
		return verdict{refusal: failure}
	}
	return verdict{reason: allowed, marks: marksFor(who)}
}

// forward hands the request on with what the handlers behind are to know, or answers a
// refusal: a browser without a session by the log-in page.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, who caller, verdict verdict) error {
	if verdict.refusal != nil {
		if h.accounts != nil && h.sources.HaveSession() && h.accounts.SendToLogin(w, r, verdict.refusal) {
			return nil
		}
		return h.answers.Refuse(w, r, verdict.refusal)
	}
	verdict.reason.Inc()
	if who.token != nil {
		h.setClaimHeaders(r, who.token.Claims)
	}
	if h.StripToken {
		h.sources.Strip(r)
	}
	if h.accounts != nil {
		web.StripRefreshCookie(r)
	}
	return serveMarked(w, r, next, verdict.marks)
}

func (h *Handler) checkRules(r *http.Request, claims jwt.Claims) *refusal.Error {
	for _, requirement := range h.Require {
		if err := requirement.met(r, claims); err != nil {
			return refusal.Of(err)
		}
	}
	return nil
}

// Provision sets the handler up: defaults, placeholders, keys.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.where = config.WhereIs(h)
	return h.where.Locate(h.provision(ctx))
}

func (h *Handler) provision(ctx caddy.Context) error {
	h.answers.Logger = ctx.Logger()
	if err := answer.RegisterMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if slices.Contains(h.Issuers, nil) || slices.Contains(h.From, nil) || slices.Contains(h.Require, nil) || slices.Contains(h.ClaimHeaders, nil) {
		return errors.New("issuers, from, require and claim_headers are lists of objects, but one entry is null")
	}
	if err := h.resolve(); err != nil {
		return err
	}
	h.answers.Realm = h.Realm
	if err := h.Public.Provision(ctx); err != nil {
		return err
	}
	if err := h.trustOrigins(); err != nil {
		return err
	}
	h.rooted = slices.DeleteFunc(slices.Clone(h.Public), hasOpenBeginning)
	if err := guardPlace(ctx, h.ClaimHeaders); err != nil {
		return err
	}
	for i, requirement := range h.Require {
		if err := requirement.provision(); err != nil {
			return fmt.Errorf("require %d: %w", i, err)
		}
	}
	return h.provisionVerifier(ctx)
}

func (h *Handler) trustOrigins() error {
	if slices.Contains(h.TrustedOrigins, "*") {
		return nil
	}
	h.crossOrigin = http.NewCrossOriginProtection()
	for _, origin := range h.TrustedOrigins {
		if err := h.crossOrigin.AddTrustedOrigin(origin); err != nil {
			return fmt.Errorf("trusted_origins %q: an origin is a scheme and a host, as in https://app.example.com, or * for all", origin)
		}
	}
	return nil
}

// resolve fills defaults in and replaces placeholders.
func (h *Handler) resolve() error {
	err := errors.Join(config.Resolve("realm", &h.Realm), config.ResolveList("user_id", h.UserID), config.ResolveList("public", h.Public), config.ResolveList("trusted_origins", h.TrustedOrigins))
	for _, source := range h.From {
		err = errors.Join(err, config.Resolve("from", &source.Header, &source.Scheme, &source.Cookie, &source.Query))
	}
	for _, header := range h.ClaimHeaders {
		err = errors.Join(err, config.Resolve("claim_header", &header.Header, &header.Claim))
	}
	for _, q := range h.Require {
		err = errors.Join(err, config.ResolveList("require scope", q.Scope), config.ResolveList("require any scope", q.AnyScope), config.ResolveList("require role", q.Role),
			config.Resolve("require", &q.Issuer), config.Resolve("require claim", &q.Claim), config.ResolveList("require claim", q.Values))
	}
	if err != nil {
		return err
	}
	if h.Realm == "" {
		h.Realm = answer.DefaultRealm
	}
	if h.Leeway == nil {
		leeway := caddy.Duration(jwt.DefaultLeeway)
		h.Leeway = &leeway
	}
	if h.Cache == nil {
		entries := jwt.DefaultCacheEntries
		h.Cache = &entries
	}
	h.sources = h.From
	if len(h.sources) == 0 && h.Accounts != nil {
		h.sources = credentials.AccountSources
	}
	for _, source := range h.From {
		if h.Accounts != nil && (source.Cookie == credentials.SessionCookie || source.Cookie == credentials.HostPrefix+credentials.SessionCookie) {
			source.Cookie, source.OfAccounts = credentials.SessionCookie, true
		}
	}
	if len(h.sources) == 0 {
		h.sources = credentials.Sources{{Header: "Authorization"}}
	}
	for _, source := range h.sources {
		source.Header = http.CanonicalHeaderKey(source.Header)
		if source.Header == "Authorization" && source.Scheme == "" {
			source.Scheme = "Bearer"
		}
	}
	for _, header := range h.ClaimHeaders {
		header.Header = http.CanonicalHeaderKey(header.Header)
	}
	return nil
}

// Validate refuses options that are out of range.
func (h *Handler) Validate() error { return h.where.Locate(h.validate()) }

func (h *Handler) validate() error {
	if leeway := time.Duration(*h.Leeway); leeway < 0 || leeway > jwt.MaxLeeway || leeway > 0 && leeway < time.Millisecond {
		return fmt.Errorf("leeway is %s; it must be from 0s to %s (in JSON, a plain number is nanoseconds)", leeway, jwt.MaxLeeway)
	}
	if *h.Cache < 0 || *h.Cache > jwt.MaxCacheEntries {
		return fmt.Errorf("cache is %d; it must be a number of entries up to %d, or 0 for no cache", *h.Cache, jwt.MaxCacheEntries)
	}
	if strings.ContainsFunc(h.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return fmt.Errorf("realm %q: it must be visible ASCII without quotes and backslashes", h.Realm)
	}
	if slices.Contains(h.UserID, "") {
		return errors.New("user_id: a claim name is empty; remove it")
	}
	for _, pattern := range h.Public {
		if !strings.HasPrefix(pattern, "/") && !strings.HasPrefix(pattern, "*") {
			return fmt.Errorf("public %q: a path begins with / or *", pattern)
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("public %q: this pattern matches no path; is a bracket not closed?", pattern)
		}
	}
	if err := h.sources.Validate(); err != nil {
		return err
	}
	return h.validateClaimHeaders()
}

// Cleanup gives back what is shared.
func (h *Handler) Cleanup() error {
	var errs []error
	if h.accounts != nil {
		errs = append(errs, h.accounts.Close())
	}
	for _, set := range h.keySets {
		_, err := keySets.Delete(set)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Interface guards
var (
	_ caddy.Module                = (*Handler)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
