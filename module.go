// Package caddyjwt is a Caddy module that verifies JWTs in front of a site:
// the handler http.handlers.jwt, its directive jwt, and the provider
// http.authentication.providers.jwt_bearer. Package jwt has the verifier, which
// any Go program can use.
package caddyjwt

import (
	"encoding/json"
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
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
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

// Handler allows a request if it carries a valid JWT as a bearer token (RFC 6750), and
// passes the user to the next handlers.
//
// Placeholders for the next handlers; the placeholders of the user are empty for an
// anonymous user:
//
// Placeholder | Description
// ------------|------------
// `{http.auth.user.id}` | The claim that names the user; it is also the `user_id` of the access log
// `{http.auth.user.<claim>}` | Any claim: names and list indices joined by dots, lists joined by commas, objects as JSON
// `{http.jwt.error}` | In `handle_errors`: `credentials_required`, `invalid_request`, `invalid_token`, `insufficient_scope`, `forbidden`, `keys_unavailable` or `introspection_unavailable`
// `{http.jwt.error_description}` | In `handle_errors`: which check failed
//
// Caddy runs some directives before `jwt`, whatever their order in the Caddyfile: `root`, `vars`,
// `header`, `redir`, `rewrite`, `uri` and `try_files`. There the placeholders of the user have no
// value yet: `root * /srv/{http.auth.user.id}` would be one folder for all users. A warning says so
// when the config is loaded. Put both into a `route` block, in which the order is as written, or
// use what reads placeholders later: `file_server { root … }` or `header >X-User …`. A `map` only
// helps for what runs after `jwt`.
//
// All string values can contain placeholders such as `{env.NAME}` and `{file./path}`. They
// are resolved when the config is loaded; only `expression` evaluates placeholders at every
// request.
type Handler struct {
	// Issuers are the issuers whose tokens are accepted. At least one is required; if there
	// are several, each must have a name. Issuers do not share keys, but users are only
	// distinguished by `user_id`: each issuer can name a user of another issuer, and can
	// grant any role or scope. So bind rules to one issuer with `of <issuer>`, and pass
	// `iss` to the upstream if it distinguishes users.
	Issuers []*IssuerConfig `json:"issuers,omitempty"`

	// Leeway is the allowed clock difference for `exp`, `nbf` and `iat`, from 0 to 5m. An
	// expired token is accepted for this much longer. Default: `30s`.
	Leeway *caddy.Duration `json:"leeway,omitempty"`

	// AllowMissingExp accepts tokens without `exp`. Such a token cannot be revoked except
	// by replacing its key. Default: they are refused.
	AllowMissingExp bool `json:"allow_missing_exp,omitempty"`

	// CredentialsRaw are verifiers of other kinds of credentials, such as API keys: modules in
	// the namespace `jwt.credentials`, which are asked in this order before the issuers.
	// Default: none.
	CredentialsRaw []json.RawMessage `json:"credentials,omitempty" caddy:"namespace=jwt.credentials inline_key=module"`

	// From lists the places in a request that can contain a token; if it is set, it
	// replaces the default. A request with different tokens in two of these places is
	// refused with 400, unless `first_source` is set. If the tokens are equal, as those that
	// Cloudflare Access sends in a header and a cookie, they count as one, and not as sent by
	// cookie. Default: the header `Authorization` with the scheme `Bearer` and, with
	// `accounts`, the session cookie of browsers. If you list `from` yourself, include
	// `cookie session`; otherwise browsers are not redirected to the log-in page.
	From []*credentials.Source `json:"from,omitempty"`

	// FirstSource uses the token of the first place in `from` that has one, and ignores the
	// others, which may be expired, or be for the upstream. A malformed or expired token in
	// the first place is refused, even if there is a valid one in another place. The upstream
	// gets the ignored tokens, too, and may act for the user of one of them, for whom the
	// rules were not checked; `strip_token` removes all. List a query last: whoever writes a
	// link chooses its token. The header of `api_keys` comes after all in `from`. Default: a
	// request with different tokens is refused with 400 (RFC 6750 §2).
	FirstSource bool `json:"first_source,omitempty"`

	// UserID lists the paths of the claims that can name the user. The first one that is a
	// number or a non-empty string is used. A token without any of them is refused.
	// A `sub` that would name the user must be a string (RFC 7519 §4.1.2). Default: `sub`.
	UserID []string `json:"user_id,omitempty"`

	// ScopeClaim lists the paths of the claims that can have the scopes for `require scope`, in
	// tokens of issuers, such as `permissions` of Auth0. The first one that has any is used. A
	// string has scopes separated by spaces (RFC 6749 §3.3); a comma is part of a scope. Scopes
	// of API keys, accounts and other credentials are always in `scope`. Default: `scope scp`.
	ScopeClaim []string `json:"scope_claim,omitempty"`

	// RoleClaim lists the paths of the claims that can have the roles for `require role`, in
	// tokens of issuers, such as `realm_access.roles` of Keycloak. The first one that has any is
	// used; a string is one role. If users can change such a claim, they can give themselves
	// any role. Roles of API keys, accounts and other credentials are always in `roles`.
	// Default: `roles`.
	RoleClaim []string `json:"role_claim,omitempty"`

	// Public lists paths that do not require a token, in the syntax of Caddy's path
	// matcher. The token is not read there, and the user is anonymous. If the upstream may
	// interpret a path as a different one (dot segments, plain or encoded, encoded slashes,
	// backslashes, `;`), it is public only if every interpretation is public. Prefer
	// folders. A pattern with an open beginning, such as `*.css`, also matches routes of an
	// app that end like this (`/admin/x.css`), and a PHP front controller answers these if
	// there is no such file. It does not match `/admin.php/x.css`, for which a PHP or CGI
	// server would run `/admin.php`.
	Public caddyhttp.MatchPath `json:"public,omitempty"`

	// Optional allows requests without a token as anonymous and does not apply `require` to
	// them. Credentials with another scheme, such as Basic, do not count as a token. An
	// invalid token is still refused. Default: false.
	Optional bool `json:"optional,omitempty"`

	// AllowPreflight allows CORS preflight requests, which cannot carry a token: OPTIONS
	// requests with `Origin` and `Access-Control-Request-Method`. The upstream must not do
	// anything on OPTIONS except answer them. Default: false.
	AllowPreflight bool `json:"allow_preflight,omitempty"`

	// Require lists the rules for the claims. All of them must be satisfied.
	Require []*Requirement `json:"require,omitempty"`

	// ClaimHeaders are request headers that pass claims to the upstream. Clients cannot
	// send these headers themselves: they are removed where the handler runs and, with the
	// directive, also from requests that its matcher does not match. If several `jwt` handle
	// a request, each with its own token, the headers of all are set. But if a later one has a
	// header of an earlier one, and another user or none, it replaces that user, and all
	// headers of the earlier one are removed. A directive within a
	// `handle` or `route` block only covers that block. If another block leads to the same
	// upstream, add `request_header -<Header>` there, or put the directive with a matcher
	// at the top level of the site.
	ClaimHeaders []*ClaimHeader `json:"claim_headers,omitempty"`

	// TrustedOrigins lists the origins, as in `https://app.example.com`, whose pages can
	// send requests that change data with the user's cookie. `*` trusts all origins, even
	// an attacker's page that the user has open. Default: only the site itself (OWASP:
	// Cross-Site Request Forgery).
	TrustedOrigins []string `json:"trusted_origins,omitempty"`

	// StripToken removes the token from the request before the next handlers see it,
	// including another `jwt`, from all places in `from`. Default: the token is passed on.
	StripToken bool `json:"strip_token,omitempty"`

	// CloseAtExpiry ends responses that are still running when the credential expires, leeway
	// included: the connection of a WebSocket, an event stream, a long download. Clients must
	// then connect again, with a valid credential. If a request has no response yet at this
	// time, it is cancelled and refused with 401. For a session of the accounts, its access
	// token counts, which is renewed when the browser connects again. The end of a session, or
	// a token that is revoked, does not end a response. Default: a response that has begun may
	// go on.
	CloseAtExpiry bool `json:"close_at_expiry,omitempty"`

	// UpstreamToken passes a short-lived token of this site's own to the upstream instead of
	// the client's credential. Default: the credential is passed on.
	UpstreamToken *UpstreamToken `json:"upstream_token,omitempty"`

	// Resource is the URL of the API as an OAuth resource, exactly as clients write it, for
	// clients that find their authorization server by it, such as those of the Model Context
	// Protocol (RFC 9728). It becomes the audience of each issuer without one, the challenge
	// names its metadata document, and the directive serves that document. Default: none.
	Resource string `json:"resource,omitempty"`

	// Cache is the maximum number of verified tokens that are remembered. 0 disables the
	// cache, so that every request verifies its token. A remembered token is still refused
	// when it expires or when its key leaves the key set. Default: 10000.
	Cache *int `json:"cache,omitempty"`

	// Realm is the realm of the challenge in WWW-Authenticate (RFC 9110 §11.5). The account
	// routes always use `restricted`. Default: `restricted`.
	Realm string `json:"realm,omitempty"`

	// LogRefused logs refused requests at info level: the reason, the detail, the status, the
	// client's address and, if only one is accepted, the issuer; never the credential. The detail
	// can have values of claims, such as a user ID. At most 60 a minute are logged, and the next line
	// says how many were not. Default: refused requests are logged at debug level only.
	LogRefused bool `json:"log_refused,omitempty"`

	// Accounts configures the users of the site. Their tokens are accepted, also in the
	// session cookie of browsers, and a browser without a session is redirected to the
	// log-in page. The `jwt_accounts` handler, which must be placed before this one, serves
	// the account routes.
	Accounts *accounts.Config `json:"accounts,omitempty"`

	identifier identifier
	tokens     *tokenIdentifier // the part of identifier that verifies tokens
	others     []credentials.Verifier
	rooted     caddyhttp.MatchPath // the patterns of Public with a fixed beginning
	accounts   *web.Shared         // nil without accounts
	ownHeaders []*ClaimHeader      // headers that only this handler may set
	sources    credentials.Sources
	keySets    []jwks.Settings // in use, released in Cleanup

	crossOrigin *http.CrossOriginProtection // nil if all origins are trusted
	answers     answer.Responder
	allowed     allowedCounters
	where       config.Where
}

// allowedCounters count requests that are allowed, by reason.
type allowedCounters struct{ token, anonymous, public, preflight prometheus.Counter }

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt",
		New: func() caddy.Module { return new(Handler) },
	}
}

// ServeHTTP implements caddyhttp.MiddlewareHandler: the four steps of a request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	credential, open := h.read(r)
	who := h.identify(w, r, credential, open)
	verdict := h.decide(r, &who, open)
	h.trace(r, &who, &verdict)
	return h.forward(w, r, next, &who, &verdict)
}

// read removes everything that only this handler may set, and returns the credential of the
// request. If the request does not require a credential, read does not read one, and open
// is the counter of the reason.
func (h *Handler) read(r *http.Request) (credential credentials.Credential, open prometheus.Counter) {
	if open = h.open(r); open == nil {
		credential = h.replacedOr(r)
	}
	removeClaimHeaders(r, h.ownHeaders, nil)
	return credential, open
}

// credentialOf returns the credential in the request.
func (h *Handler) credentialOf(r *http.Request) credentials.Credential {
	if h.FirstSource {
		return h.sources.ReadFirst(r)
	}
	return h.sources.Read(r)
}

// identify finds the user of the credential, and sets the placeholders of the user: the
// rules may read them, and so may handle_errors.
func (h *Handler) identify(
	w http.ResponseWriter, r *http.Request, credential credentials.Credential, open prometheus.Counter,
) (who caller) {
	if open == nil {
		who = h.identifier.identify(w, r, credential)
	}
	attach(r, who.token, h.ownHeaders)
	return who
}

// verdict is the decision about a request.
type verdict struct {
	refusal *refusal.Error     // nil if the request is allowed
	login   string             // the log-in page that answers a refusal to a browser; empty for none
	reason  prometheus.Counter // counts why it is allowed
	token   string             // for the upstream; empty for none
	marks   marks              // for the response
}

// decide applies the paths and rules to the request.
func (h *Handler) decide(r *http.Request, who *caller, open prometheus.Counter) verdict {
	switch {
	case open != nil:
		return verdict{reason: open}
	case who.failure != nil:
		return h.refuse(r, who.failure)
	case who.token == nil:
		return verdict{reason: h.allowed.anonymous, marks: marks{vary: h.sources.HaveCookie()}}
	}
	if failure := h.judge(r, who); failure != nil {
		return h.refuse(r, failure)
	}
	allow := verdict{reason: h.allowed.token, marks: marksFor(who)}
	if h.UpstreamToken != nil {
		if allow.token, allow.refusal = h.UpstreamToken.token(r, who.token); allow.refusal != nil {
			return h.refuse(r, allow.refusal)
		}
	}
	return allow
}

// refuse is the verdict on a request that is not allowed: a browser without a session may
// log in.
func (h *Handler) refuse(r *http.Request, failure *refusal.Error) verdict {
	refused := verdict{refusal: failure}
	if h.sources.HaveSession() {
		refused.login = h.accounts.LoginFor(r, failure)
	}
	return refused
}

// answer answers a refusal, for which handle_errors gets no headers of users. A browser without
// a session gets the log-in page.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, verdict *verdict) error {
	userOf(r).removeHeaders(r)
	if verdict.login != "" {
		h.answers.Decisions.Refused(verdict.refusal.Reason)
		web.SendToLogin(w, verdict.login)
		return nil
	}
	return h.answers.Refuse(w, r, verdict.refusal)
}

// forward passes an allowed request on with the user's data, or answers a refusal.
func (h *Handler) forward(
	w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, who *caller, verdict *verdict,
) error {
	if verdict.refusal != nil {
		return h.answer(w, r, verdict)
	}
	verdict.reason.Inc()
	if who.token != nil {
		h.setClaimHeaders(r, who.token.Claims)
	}
	if h.StripToken || h.UpstreamToken != nil && !isReplaced(r) {
		h.sources.Strip(r)
	}
	if verdict.token != "" {
		h.UpstreamToken.set(r, verdict.token, who)
	}
	if h.accounts != nil {
		credentials.StripRefreshCookie(r)
	}
	if h.CloseAtExpiry && who.token != nil {
		return h.serveUntil(who.token.Expiry(), w, r, func(w http.ResponseWriter, r *http.Request) error {
			return serveMarked(w, r, next, verdict.marks)
		})
	}
	return serveMarked(w, r, next, verdict.marks)
}

// Provision sets defaults, resolves placeholders and loads keys.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.where = config.WhereIs(h)
	return h.where.Locate(h.provision(ctx))
}

func (h *Handler) provision(ctx caddy.Context) error {
	h.answers.Logger = ctx.Logger()
	d := answer.DecisionsOf(place.Of(ctx).Site())
	h.answers.Decisions = d
	h.allowed = allowedCounters{
		d.Allowed("valid_token"), d.Allowed("optional"), d.Allowed("public"), d.Allowed("preflight"),
	}
	if h.LogRefused {
		h.answers.Log = &answer.RefusalLog{Now: clock.Now}
	}
	if err := answer.RegisterMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	if h.UpstreamToken != nil {
		if err := h.UpstreamToken.resolve(); err != nil {
			return err
		}
	}
	if slices.Contains(h.Issuers, nil) || slices.Contains(h.From, nil) || slices.Contains(h.Require, nil) ||
		slices.Contains(h.ClaimHeaders, nil) {
		return errors.New("issuers, from, require and claim_headers are lists of objects, but one entry is null")
	}
	if err := h.resolve(); err != nil {
		return err
	}
	if err := h.loadCredentials(ctx); err != nil {
		return err
	}
	h.answers.Realm = h.Realm
	if err := h.provisionResource(); err != nil {
		return err
	}
	if err := h.Public.Provision(ctx); err != nil {
		return err
	}
	if err := h.trustOrigins(); err != nil {
		return err
	}
	h.rooted = slices.DeleteFunc(slices.Clone(h.Public), hasOpenBeginning)
	h.ownHeaders = h.headersOf()
	if err := guardPlace(ctx, guardedHeaders(h.ClaimHeaders, h.UpstreamToken)); err != nil {
		return err
	}
	for i, requirement := range h.Require {
		err := requirement.loadAuthorizer(ctx)
		if err == nil {
			err = requirement.provision()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", config.Nth("require", i, len(h.Require)), err)
		}
	}
	if err := h.provisionVerifier(ctx); err != nil {
		return err
	}
	if h.LogRefused && len(h.Issuers) == 1 {
		h.answers.Log.Issuer = h.Issuers[0].Issuer
	}
	return nil
}

// resolve sets defaults and resolves placeholders.
func (h *Handler) resolve() error {
	err := errors.Join(
		config.Resolve("realm", &h.Realm), config.Resolve("resource", &h.Resource),
		config.ResolveList("user_id", h.UserID), config.ResolveList("public", h.Public), config.ResolveList(
			"trusted_origins", h.TrustedOrigins,
		),
		config.ResolveList("scope_claim", h.ScopeClaim), config.ResolveList("role_claim", h.RoleClaim),
	)
	for _, source := range h.From {
		err = errors.Join(err, config.Resolve(
			"from", &source.Header, &source.Scheme, &source.Cookie, &source.Query, &source.WebSocketProtocol,
		))
	}
	for _, header := range h.ClaimHeaders {
		if strings.HasPrefix(header.Claim, "{http.") {
			return fmt.Errorf("claim_header %s takes the name of a claim, not a placeholder of the request, as in: "+
				"claim_header %[1]s sub", header.Header)
		}
		err = errors.Join(
			err, config.Resolve("claim_header", &header.Header, &header.Claim),
			config.ResolveList("claim_header", header.Form),
		)
	}
	for _, q := range h.Require {
		err = errors.Join(
			err, config.ResolveList("require scope", q.Scope),
			config.ResolveList("require any scope", q.AnyScope), config.ResolveList("require role", q.Role),
			config.Resolve("require", &q.Issuer), config.Resolve("require claim", &q.Claim),
			config.ResolveList("require claim", q.Values), config.ResolveList("require acr", q.ACR),
		)
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
		if h.Accounts != nil &&
			(source.Cookie == credentials.SessionCookie ||
				source.Cookie == credentials.HostPrefix+credentials.SessionCookie) {
			source.Cookie, source.OfAccounts = credentials.SessionCookie, true
		}
	}
	if len(h.sources) == 0 {
		h.sources = credentials.Sources{{Header: "Authorization"}}
	}
	for _, source := range h.sources {
		source.Header = http.CanonicalHeaderKey(source.Header)
		source.WebSocketProtocol = strings.TrimSuffix(source.WebSocketProtocol, ".")
		if source.Header == "Authorization" && source.Scheme == "" && !source.NoScheme {
			source.Scheme = "Bearer"
		}
	}
	for _, header := range h.ClaimHeaders {
		header.Header = http.CanonicalHeaderKey(header.Header)
	}
	return nil
}

// Validate returns an error if an option is out of range.
func (h *Handler) Validate() error { return h.where.Locate(h.validate()) }

func (h *Handler) validate() error {
	if leeway := time.Duration(*h.Leeway); leeway < 0 || leeway > jwt.MaxLeeway ||
		leeway > 0 && leeway < time.Millisecond {
		return fmt.Errorf(
			"leeway is %s; it must be from 0s to %s (in JSON, a plain number is nanoseconds)", leeway, jwt.MaxLeeway,
		)
	}
	if *h.Cache < 0 || *h.Cache > jwt.MaxCacheEntries {
		return fmt.Errorf(
			"cache is %d; it must be a number of entries up to %d, or 0 for no cache", *h.Cache, jwt.MaxCacheEntries,
		)
	}
	if strings.ContainsFunc(h.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		return fmt.Errorf("realm %q: it must be visible ASCII without quotes and backslashes", h.Realm)
	}
	for option, claims := range map[string][]string{
		"user_id": h.UserID, "scope_claim": h.ScopeClaim, "role_claim": h.RoleClaim,
	} {
		if slices.Contains(claims, "") {
			return fmt.Errorf("%s: a claim name is empty; remove it", option)
		}
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

// Cleanup releases shared resources.
func (h *Handler) Cleanup() error {
	var errs []error
	if h.accounts != nil {
		errs = append(errs, h.accounts.Close())
	}
	if h.UpstreamToken != nil && h.UpstreamToken.issuer != nil {
		errs = append(errs, h.UpstreamToken.issuer.Close())
	}
	for _, issuer := range h.Issuers {
		if issuer != nil {
			errs = append(errs, issuer.close())
		}
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
