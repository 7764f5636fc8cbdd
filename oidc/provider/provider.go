// Package provider lets the users of a site's accounts log in to other sites. The Caddy
// module http.handlers.oidc_provider, with the directive oidc_provider, is an OpenID
// Provider (OpenID Connect Core 1.0) and an OAuth 2.0 authorization server (RFC 6749, as
// recommended by RFC 9700).
package provider

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(Provider))
}

// Provider is an OpenID Provider for the users of the accounts.
//
// Its endpoints are below the path of the issuer: `/oidc/authorize`, `/oidc/token`,
// `/oidc/userinfo`, `/oidc/jwks.json`, `/oidc/introspect`, `/oidc/revoke`, `/oidc/par`,
// `/oidc/device_authorization`, `/oidc/device` and `/oidc/logout`. Clients find them
// through `/.well-known/openid-configuration`. At `/oidc/applications`, which the account
// page links to, users see the clients that have access to their account, and can revoke
// it.
type Provider struct {
	// Issuer is the URL of the provider, and the `iss` of its tokens: https, or http on
	// this machine. Required.
	Issuer string `json:"issuer,omitempty"`

	// Accounts configures the users. The `jwt_accounts` handler, with the same accounts,
	// serves their log-in page.
	Accounts *accounts.Config `json:"accounts,omitempty"`

	// Clients are the sites and programs that users can log in to. Clients that `caddy jwt
	// client add` stores are known too.
	Clients []*Client `json:"clients,omitempty"`

	// ClientDocuments lists hosts whose clients need not be registered: their `client_id` is the
	// https URL of a document about them (draft-ietf-oauth-client-id-metadata-document), as
	// clients of the Model Context Protocol have it. Such clients are public, are asked about
	// every time, and may request every scope of the provider and its APIs. `claude.ai` allows
	// documents of this host, from public addresses. `localhost:8443`, a host with a port,
	// allows the documents of exactly this server, even if it is on this machine (then also by
	// http and with any certificate) or in its private network. `*` allows every public host:
	// then anybody on the Internet can publish a client with any name, and make the provider
	// send requests to public servers. Default: none.
	ClientDocuments []string `json:"client_documents,omitempty"`

	// APIs are the services that accept access tokens of the provider. A client requests a
	// token for one of them with the parameter `resource` (RFC 8707); any other value is
	// refused with `invalid_target`. Default: none.
	APIs []*API `json:"apis,omitempty"`

	// Claims maps scopes to the claims of a user that they grant: `email`, `roles` and
	// profile properties; `sub` is always included. Default: `profile`, `email`, `phone`
	// and `address` as in OpenID Connect Core §5.4, and the scopes `roles` and
	// `permissions` with the claims of the same names.
	Claims map[string][]string `json:"claims,omitempty"`

	// UserEditable lists profile properties that users may set to any value at sign-up,
	// although clients may rely on them: claims of tokens (`groups`, `acr`,
	// `email_verified`, …), and properties that Claims grants in addition to the standard
	// scopes. Any other property of this kind is refused when the config is loaded, because
	// users who sign up could, for example, join the group `admins` at each client that
	// uses `groups`. Claims that describe the token itself (`iss`, `acr`, …) are never
	// taken from a property. Default: none.
	UserEditable []string `json:"user_editable,omitempty"`

	// AccessTokenAlgorithm signs the access tokens: `ES256`, or `RS256` for services that only
	// accept the algorithm of the ID tokens, as libraries do that take it from the metadata. After
	// a change, tokens of before are valid until they expire. Default: `ES256`, which is faster.
	AccessTokenAlgorithm string `json:"access_token_algorithm,omitempty"`

	// Templates is a folder of files that replace the pages with the same name:
	// `consent.html`, `device.html`, `logout.html`, `applications.html`, `error.html`, and
	// the accounts' `layout.html`. Default: none.
	Templates string `json:"templates,omitempty"`

	accounts *web.Shared
	basePath string // path of the issuer, without a slash at its end
	// idKeys sign with RS256, which every client supports (OpenID Connect Core §15.1);
	// fastKeys sign with ES256. One of them signs the access tokens. Neither signs the tokens of
	// the accounts.
	idKeys, fastKeys *signing.Keys
	redirectNotes    outage.Notes    // by client
	tokens           *jwt.Verifier   // of access tokens
	hints            *jwt.Verifier   // of ID tokens that clients send back, expired or not
	apis             map[string]*API // by URL
	state            state
	clients          *clients
	pages            *pages
	routes           map[string]route
	log              *zap.Logger

	deviceGuesses, secretGuesses *web.Throttle
	devices, pushes              strangers
	sealing                      atomic.Pointer[cipher.AEAD]

	logouts                                                 *logouts
	stopLeading, stopLinking, stopExporting, stopDescribing func()
}

// CaddyModule returns the Caddy module information.
func (*Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.oidc_provider",
		New: func() caddy.Module { return new(Provider) },
	}
}

// route is an endpoint with its methods.
type route struct {
	serve   func(p *Provider, w http.ResponseWriter, r *http.Request) error
	methods []string
	// cors selects the sites whose pages may send requests: all, those of clients, or none.
	cors corsRule
}

var (
	get  = []string{http.MethodGet, http.MethodHead}
	post = []string{http.MethodPost}
	both = []string{http.MethodGet, http.MethodPost} // for endpoints that must not act on a HEAD
)

// endpoints are the routes below the issuer's path.
var endpoints = map[string]route{
	"/.well-known/openid-configuration": {(*Provider).metadata, get, corsAll},
	"/oidc/jwks.json":                   {(*Provider).jwks, get, corsAll},
	"/oidc/authorize":                   {(*Provider).authorize, both, corsNone},
	"/oidc/consent":                     {(*Provider).consent, both, corsNone},
	"/oidc/token":                       {(*Provider).token, post, corsClients},
	"/oidc/userinfo":                    {(*Provider).userinfo, both, corsClients},
	"/oidc/introspect":                  {(*Provider).introspect, post, corsNone},
	"/oidc/revoke":                      {(*Provider).revoke, post, corsClients},
	"/oidc/par":                         {(*Provider).pushRequest, post, corsNone},
	"/oidc/device_authorization":        {(*Provider).deviceAuthorization, post, corsClients},
	"/oidc/device":                      {(*Provider).device, both, corsNone},
	"/oidc/logout":                      {(*Provider).endSession, both, corsNone},
	"/oidc/applications":                {(*Provider).applications, both, corsNone},
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	route, found := p.routes[r.URL.Path]
	if !found {
		return next.ServeHTTP(w, r)
	}
	if answered := p.allowOrigin(w, r, route); answered {
		return nil
	}
	if r.Method == http.MethodPost && p.refusesPage(r, route) {
		return p.fail(w, r, &oauthError{
			status: http.StatusForbidden, code: "access_denied",
			description: "a page of another site must not send this request",
		})
	}
	if !slices.Contains(route.methods, r.Method) {
		w.Header().Set("Allow", strings.Join(route.methods, ", "))
		return p.fail(w, r, &oauthError{
			status: http.StatusMethodNotAllowed, code: "invalid_request",
			description: "this endpoint accepts " + strings.Join(route.methods, ", "),
		})
	}
	if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
		err := error(refuse("invalid_request", "the query is malformed; a semicolon or a percent sign must be encoded"))
		if route.isPage() {
			err = shown(err)
		}
		return p.fail(w, r, err)
	}
	if p.clients.documents != nil {
		r = r.WithContext(withSender(r.Context(), web.ClientKey(r)))
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	w.Header().Set("Cache-Control", "no-store")
	err := route.serve(p, w, r)
	if err == nil {
		return nil
	}
	if _, refused := errors.AsType[*oauthError](err); !refused && route.isPage() {
		err = shown(p.notNow(err))
	}
	return p.fail(w, r, err)
}

// isPage reports whether the response is a page for the user.
func (r route) isPage() bool {
	return r.cors == corsNone && slices.Contains(r.methods, http.MethodGet)
}

// Provision sets defaults, loads keys and checks the config.
func (p *Provider) Provision(ctx caddy.Context) error {
	where := config.WhereIs(p)
	return where.Locate(p.provision(ctx))
}

func (p *Provider) provision(ctx caddy.Context) error {
	p.log = ctx.Logger()
	if err := p.resolve(); err != nil {
		return err
	}
	if p.Accounts == nil {
		p.Accounts = new(accounts.Config)
	}
	var err error
	if p.accounts, err = web.Open(ctx, p.Accounts); err != nil {
		return err
	}
	if err := p.checkProfile(); err != nil {
		return err
	}
	if p.Accounts.Issuer == p.Issuer {
		return fmt.Errorf("accounts: issuer is the same as the issuer of the provider, %s; choose another, because "+
			"the accounts' tokens are for this site and the provider's tokens are for its clients", p.Issuer)
	}
	p.state = state{p.accounts, p.Issuer}
	if p.clients, err = newClients(p); err != nil {
		return err
	}
	config.AtStart(ctx, func() error {
		p.clients.sayUnused(ctx)
		return nil
	})
	if p.pages, err = newPages(p.accounts, p.Templates); err != nil {
		return err
	}
	if p.idKeys, err = p.accounts.OpenKeys(ctx, "RS256", longestTokenLifetime); err != nil {
		return err
	}
	if p.fastKeys, err = p.accounts.OpenKeys(ctx, "ES256", longestTokenLifetime); err != nil {
		return err
	}
	if err := p.newVerifiers(); err != nil {
		return err
	}
	p.deviceGuesses = p.accounts.NewThrottle("user codes", deviceTries, deviceLifetime)
	p.secretGuesses = p.accounts.NewThrottle("client secrets", secretTries, time.Minute)
	p.devices = p.newStrangers("devices", deviceLifetime)
	p.pushes = p.newStrangers("pushed requests", pushedLifetime)
	p.stopLeading = p.accounts.LeadsTo(p.leadsTo)
	p.stopLinking = p.accounts.AddAccountLink(p.applicationsLink())
	p.stopDescribing = p.accounts.AddPaths(p.openAPIPaths)
	p.stopExporting = p.accounts.AddExporter(accounts.Exporter{Name: "applications", Of: p.exportApplications})
	p.newLogouts()
	config.AtStart(ctx, func() error {
		p.startLogouts()
		return nil
	})
	return nil
}

// secretTries is how many wrong secrets a client IP address may send per minute, if the
// secret has a slow hash.
const secretTries = 30

// currentKeys checks at each use whether a command or another node has withdrawn keys.
// While the storage fails, it uses the keys that were loaded last.
type currentKeys struct{ *signing.Keys }

func (k currentKeys) Find(ctx context.Context, hint jwt.KeyHint) ([]*jwt.Key, error) {
	_ = k.Reload(ctx, signing.ReloadInterval)
	return k.Keys.Find(ctx, hint)
}

// accessAlgorithms are the algorithms of access tokens.
var accessAlgorithms = []string{"ES256", "RS256"}

// accessKeys returns the keys that sign access tokens.
func (p *Provider) accessKeys() *signing.Keys {
	if p.AccessTokenAlgorithm == "RS256" {
		return p.idKeys
	}
	return p.fastKeys
}

func (p *Provider) newVerifiers() (err error) {
	p.tokens, err = jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{{
		Name: p.Issuer, Keys: []jwt.KeySource{currentKeys{p.fastKeys}, currentKeys{p.idKeys}},
		Algorithms: accessAlgorithms, TokenTypes: []string{"at+jwt"}, // of any audience
	}}})
	if err != nil {
		return err
	}
	p.hints, err = jwt.NewVerifier(jwt.VerifierConfig{Leeway: hintLeeway, Issuers: []jwt.Issuer{{
		Name: p.Issuer, Keys: []jwt.KeySource{currentKeys{p.idKeys}}, Algorithms: []string{"RS256"},
		TokenTypes: []string{"JWT"},
	}}})
	return err
}

// resolve resolves placeholders and checks the config.
func (p *Provider) resolve() error {
	var err error
	if p.Issuer, err = caddy.NewReplacer().ReplaceOrErr(p.Issuer, true, true); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	issuer, err := url.Parse(p.Issuer)
	if p.Issuer == "" || err != nil || issuer.Host == "" || issuer.RawQuery != "" || issuer.Fragment != "" ||
		strings.HasSuffix(p.Issuer, "/") || !protocol.SecureURL(issuer) {
		return fmt.Errorf("issuer %q: it must be the URL of this site without a slash at the end: https, "+
			"or http on this machine, as in https://id.example.com", p.Issuer)
	}
	p.basePath = issuer.Path
	p.routes = make(map[string]route)
	for path, endpoint := range endpoints {
		p.routes[p.basePath+path] = endpoint
	}
	// RFC 8414 §3.1
	p.routes["/.well-known/oauth-authorization-server"+p.basePath] = endpoints["/.well-known/openid-configuration"]
	if p.Claims == nil {
		p.Claims = make(map[string][]string)
	}
	for scope, claims := range standardClaims {
		if _, given := p.Claims[scope]; !given {
			p.Claims[scope] = claims
		}
	}
	setDefault(&p.AccessTokenAlgorithm, accessAlgorithms[0])
	if !slices.Contains(accessAlgorithms, p.AccessTokenAlgorithm) {
		return fmt.Errorf(
			"access_token_algorithm: %w", config.Unknown("algorithm", p.AccessTokenAlgorithm, accessAlgorithms),
		)
	}
	if err := config.ResolveList("client_documents", p.ClientDocuments); err != nil {
		return err
	}
	return p.resolveAPIs()
}

// Cleanup releases the accounts. Pending log-out notifications are stored, for the next
// config, another node or after a restart.
func (p *Provider) Cleanup() error {
	if p.stopLeading != nil {
		p.stopLeading()
		p.stopLinking()
		p.stopExporting()
		p.stopDescribing()
	}
	if p.logouts != nil {
		p.logouts.end()
	}
	if p.accounts == nil {
		return nil
	}
	return p.accounts.Close()
}

// at returns the URL of an endpoint.
func (p *Provider) at(path string) string { return p.Issuer + path }

// Interface guards
var (
	_ caddy.Provisioner           = (*Provider)(nil)
	_ caddy.CleanerUpper          = (*Provider)(nil)
	_ caddyhttp.MiddlewareHandler = (*Provider)(nil)
)
