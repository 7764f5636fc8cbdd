package caddyjwt

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(AccountsHandler))
}

const (
	defaultAccountsPrefix  = "/auth"
	defaultAccountsIssuer  = "caddy-jwt-accounts"
	defaultTokenLifetime   = 15 * time.Minute
	defaultRefreshLifetime = 30 * 24 * time.Hour
	shortestTokenLifetime  = time.Second
	accountScope           = "account"
)

// Accounts are users that the site has itself: who they are, how they log in,
// and what their tokens look like. The `jwt` handler and the `jwt_accounts`
// handler of a site have the same Accounts.
type Accounts struct {
	// Prefix is the path that the routes are under. Default: `/auth`.
	Prefix string `json:"prefix,omitempty"`

	// StoreRaw is the [store.UserStore], a module in the namespace `jwt.stores`.
	// Default: `{"module": "file"}`, a file in Caddy's data directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=jwt.stores inline_key=module"`

	// Signup says whether people can make accounts themselves: `open` lets anybody
	// in who can reach the site, and new users of `login_with` too; `closed` leaves it to
	// `caddy jwt user add`. Default: `closed`.
	Signup string `json:"signup,omitempty"`

	// SignupLimit is how many sign-ups a client may attempt in an hour, by its IP
	// address, of IPv6 by its /64, and ten times as many by its /48. Default: no limit
	// for those that succeed; 30 in a minute may be refused, unless `throttle` is off.
	SignupLimit int `json:"signup_limit,omitempty"`

	// Routes moves routes to other paths, by their names: `login`, `signup`,
	// `refresh`, `logout`, `whoami`, `password`, `jwks`.
	Routes map[string]string `json:"routes,omitempty"`

	// Issuer is the `iss` of the tokens. Other services need it to verify
	// them. Default: `caddy-jwt-accounts`.
	Issuer string `json:"issuer,omitempty"`

	// Audience is the `aud` of the tokens. Default: the issuer.
	Audience []string `json:"audience,omitempty"`

	// TokenLifetime is how long an access token is good. Default: `15m`.
	TokenLifetime caddy.Duration `json:"token_lifetime,omitempty"`

	// RefreshLifetime is how long a session lasts after the log-in, however
	// much it is used. Default: `30d`.
	RefreshLifetime caddy.Duration `json:"refresh_lifetime,omitempty"`

	// Secret signs the tokens by HS256. Whoever has it can make tokens.
	// Default: an ES256 key that is made once and kept in Caddy's storage.
	Secret *config.Secret `json:"secret,omitempty"`

	// SigningKey signs the tokens instead: a private key as PEM (PKCS#8,
	// PKCS#1 or SEC 1) or JWK, or the path of a file with one.
	SigningKey string `json:"signing_key,omitempty"`

	// DefaultRoles are the roles of a user who signs up. Default: none.
	DefaultRoles []string `json:"default_roles,omitempty"`

	// PasswordMinLength is how many characters a password must have at least,
	// not less than 8. Default: `8`.
	PasswordMinLength int `json:"password_min_length,omitempty"`

	// Profile are the names of further properties that a user may give at
	// sign-up, such as `name`. A value has at most 4096 bytes. Default: none.
	Profile []string `json:"profile,omitempty"`

	// ThrottleFailures is how many log-ins of an account may fail within
	// ThrottleWindow. After them a try is let through now and then; and an
	// address from which somebody has logged in to the account has as many
	// tries more, any other 3, all of these 10 times the failures, that only
	// the right password passes. 30 failures a minute are allowed for a client. -1 switches both off: then passwords can be
	// guessed as fast as they are hashed. Default: `10`.
	ThrottleFailures int `json:"throttle_failures,omitempty"`

	// ThrottleWindow is the time for ThrottleFailures. Default: `15m`.
	ThrottleWindow caddy.Duration `json:"throttle_window,omitempty"`

	// HashQueue is how many passwords may wait to be hashed, of one client an
	// eighth; more are answered with 503. Whoever waits is taken in turns, by what
	// is hashed, network and client; a log-in goes first if somebody has logged in to
	// the account from its address. Default: `64`.
	HashQueue int `json:"hash_queue,omitempty"`

	// LoginWithRaw are the providers by which users may log in beside a
	// password, modules in the namespace `jwt.logins`, in the order of their
	// buttons. Whoever logs in there is the same user here each time, by the
	// provider's `iss` and `sub`. Default: none.
	LoginWithRaw []json.RawMessage `json:"login_with,omitempty" caddy:"namespace=jwt.logins inline_key=module"`

	// Templates is a folder whose files replace the pages of the same name:
	// `login.html`, `signup.html`, `account.html`, `confirm.html`, `reset.html`,
	// `message.html`, `layout.html` and `style.css`. Default: none.
	Templates string `json:"templates,omitempty"`
}

// accountRoutes are the routes by name, and their paths below the prefix.
var accountRoutes = map[string]string{
	"login": "/login", "signup": "/signup", "refresh": "/refresh", "logout": "/logout", "whoami": "/whoami", "password": "/password",
	"sessions": "/sessions", "jwks": "/jwks.json", "openapi": "/openapi.json", "account": "/account", "reset": "/reset", "style": "/style.css",
	"connect": "/connect", "identities": "/identities",
}

// movableRoutes are those that the config may move.
var movableRoutes = []string{"login", "signup", "refresh", "logout", "whoami", "password", "jwks"}

// path is where a route is.
func (a *Accounts) path(route string) string {
	if moved := a.Routes[route]; moved != "" {
		return moved
	}
	return a.Prefix + accountRoutes[route]
}

// resolve fills defaults in, replaces placeholders, and refuses what is out of
// range.
func (a *Accounts) resolve() error {
	err := errors.Join(config.Resolve("prefix", &a.Prefix), config.Resolve("issuer", &a.Issuer), config.Resolve("templates", &a.Templates),
		config.ResolveList("audience", a.Audience), config.ResolveList("default_roles", a.DefaultRoles), config.ResolveList("profile", a.Profile))
	for route, path := range a.Routes {
		err = errors.Join(err, config.Resolve(route, &path))
		a.Routes[route] = path
	}
	if value := a.Routes["signup"]; a.Signup == "" && (value == "open" || value == "closed") { // by a placeholder
		a.Signup = value
		delete(a.Routes, "signup")
	}
	if err != nil {
		return err
	}
	config.SetDefault(&a.Prefix, defaultAccountsPrefix)
	config.SetDefault(&a.Signup, "closed")
	config.SetDefault(&a.Issuer, defaultAccountsIssuer)
	config.SetDefault(&a.TokenLifetime, caddy.Duration(defaultTokenLifetime))
	config.SetDefault(&a.RefreshLifetime, caddy.Duration(defaultRefreshLifetime))
	config.SetDefault(&a.PasswordMinLength, password.DefaultMinLength)
	config.SetDefault(&a.ThrottleFailures, defaultThrottleFailures)
	config.SetDefault(&a.ThrottleWindow, caddy.Duration(defaultThrottleWindow))
	config.SetDefault(&a.HashQueue, password.DefaultQueue)
	if len(a.Audience) == 0 {
		a.Audience = []string{a.Issuer}
	}
	if len(a.StoreRaw) == 0 {
		a.StoreRaw = json.RawMessage(`{"module":"file"}`)
	}
	return a.check()
}

func (a *Accounts) check() error {
	for route, path := range a.Routes {
		if !slices.Contains(movableRoutes, route) {
			return fmt.Errorf("there is no route %q to be moved; there are %s", route, strings.Join(movableRoutes, ", "))
		}
		if err := checkRoutePath(path); err != nil && route == "signup" {
			return fmt.Errorf("signup is open, closed or a path: %w", err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", route, err)
		}
	}
	paths := make(map[string]string)
	for route := range accountRoutes {
		if other, taken := paths[strings.ToLower(a.path(route))]; taken {
			return fmt.Errorf("%s and %s have the same path, %s", min(route, other), max(route, other), a.path(route))
		}
		paths[strings.ToLower(a.path(route))] = route
		for _, below := range a.externalPaths() {
			if strings.HasPrefix(strings.ToLower(a.path(route)), below) {
				return fmt.Errorf("%s: %s is below %s, where the paths of login_with are; give it another", route, a.path(route), below)
			}
		}
	}
	if err := checkRoutePath(a.Prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	switch {
	case a.Signup != "open" && a.Signup != "closed":
		return fmt.Errorf("signup is %q; it is open or closed", a.Signup)
	case time.Duration(a.TokenLifetime) < shortestTokenLifetime:
		return fmt.Errorf("token_lifetime is %s; it must be at least %s", time.Duration(a.TokenLifetime), shortestTokenLifetime)
	case a.RefreshLifetime < a.TokenLifetime:
		return fmt.Errorf("refresh_lifetime is %s, shorter than token_lifetime, %s", time.Duration(a.RefreshLifetime), time.Duration(a.TokenLifetime))
	case a.PasswordMinLength < password.DefaultMinLength || a.PasswordMinLength > 64:
		return fmt.Errorf("password_min_length is %d; it must be from %d to 64", a.PasswordMinLength, password.DefaultMinLength)
	case a.Secret != nil && a.SigningKey != "":
		return errors.New("secret and signing_key are both given; tokens are signed with one of them")
	case a.ThrottleWindow < 0 || a.ThrottleFailures < -1 || a.HashQueue < 0 || a.SignupLimit < 0:
		return errors.New("throttle, hash_queue and signup_limit must not be negative")
	case slices.ContainsFunc(a.Profile, func(name string) bool {
		return name == "" || slices.Contains([]string{"id", "email", "password", "roles"}, name)
	}):
		return errors.New("profile names further properties, which id, email, password and roles are not")
	case slices.Contains(a.Audience, ""):
		return errors.New("audience has an empty value; remove it")
	}
	return store.CheckRoles(a.DefaultRoles)
}

func checkRoutePath(path string) error {
	if !strings.HasPrefix(path, "/") || path == "/" || caddyhttp.CleanPath(path, true) != path || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "*?#%\\ ") {
		return fmt.Errorf("%q is no path for a route; one is as in /auth or /users/login", path)
	}
	return nil
}

// AccountsHandler serves the account routes: sign-up, log-in, refresh,
// log-out, who-am-I, password, sessions, the public keys, and the pages for
// browsers. Requests for other paths go to the next handler.
type AccountsHandler struct {
	Accounts

	answers answer.Responder
	shared  *SharedAccounts
	service *accountService // that of shared
	pages   *pages
	logins  []externalLogin
}

// CaddyModule returns the Caddy module information.
func (*AccountsHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt_accounts",
		New: func() caddy.Module { return new(AccountsHandler) },
	}
}

// Provision sets the handler up.
func (h *AccountsHandler) Provision(ctx caddy.Context) error {
	h.answers = answer.Responder{Realm: answer.DefaultRealm, Logger: ctx.Logger()}
	if err := answer.RegisterMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	var err error
	if h.shared, err = OpenAccounts(ctx, &h.Accounts); err != nil {
		return err
	}
	h.service = h.shared.service
	if h.logins, err = loadLogins(ctx, &h.Accounts); err != nil {
		return fmt.Errorf("accounts: login_with: %w", err)
	}
	if h.pages, err = newPages(h.service, &h.Accounts); err != nil {
		return err
	}
	for _, login := range h.logins {
		h.pages.standard.Providers = append(h.pages.standard.Providers, pageLink{login.Label, h.Prefix + externalRoutes["external"] + login.Name})
	}
	h.warn(place.Of(ctx))
	return nil
}

// Cleanup gives the shared service back.
func (h *AccountsHandler) Cleanup() error {
	if h.shared == nil {
		return nil
	}
	return h.shared.Close()
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *AccountsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	serve, methods := h.route(r)
	if serve == nil {
		return next.ServeHTTP(w, r)
	}
	w.Header().Set("Cache-Control", "no-store")
	if err := h.service.ready(r.Context()); err != nil {
		h.service.sayStoreFails(err)
		return h.refuse(w, r, err)
	}
	if h.secretQuery(r) {
		recorder := caddyhttp.NewResponseRecorder(w, nil, nil)
		w = recorder
		defer h.logWithoutQuery(r, recorder)
	}
	if !slices.Contains(methods, r.Method) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return h.refuse(w, r, &refusal.Error{Reason: refusal.Method})
	}
	if err := crossOrigin.Check(r); err != nil {
		return h.refuse(w, r, refusal.New(refusal.CrossOrigin, "%v", err))
	}
	err := serve(w, r)
	if refusal, ok := errors.AsType[*refusal.Error](err); ok {
		h.service.sayStoreFails(refusal)
		return h.refuse(w, r, refusal)
	}
	return err
}

// secretQuery tells whether the query has the token of a link or the code of a
// provider.
func (h *AccountsHandler) secretQuery(r *http.Request) bool {
	name, _ := h.service.route(r.URL.Path)
	return r.URL.RawQuery != "" && (name == "reset" || name == "callback")
}

// logWithoutQuery has a line in place of the one of the access log for a request
// whose query has the token of a link or the code of a provider.
func (h *AccountsHandler) logWithoutQuery(r *http.Request, answer caddyhttp.ResponseRecorder) {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	h.service.log.Info("handled request, whose query is secret", zap.String("method", r.Method), zap.String("host", r.Host), zap.String("path", r.URL.Path),
		zap.Int("status", answer.Status()), zap.String("client_ip", client(r).address))
}

// refuse answers a refusal: a browser as the site has it, a program always by JSON,
// which says what is wrong with each property.
func (h *AccountsHandler) refuse(w http.ResponseWriter, r *http.Request, refusal *refusal.Error) error {
	page := answer.Prefers(r, "text/html", "application/json")
	if page && h.secretQuery(r) { // what is passed on is logged with its URL
		h.answers.Announce(w, r, refusal)
		told := refusal.Reason.Answer()
		return h.pages.render(w, r, "message", pageData{Title: http.StatusText(told.Status), Text: told.Description}, told.Status)
	}
	if page {
		return h.answers.Refuse(w, r, refusal)
	}
	h.answers.Announce(w, r, refusal)
	return answer.WriteRefusal(w, refusal)
}

// crossOrigin refuses what a page of another site sends with a user's cookies,
// log-ins included (OWASP: CSRF, log-in CSRF).
var crossOrigin = http.NewCrossOriginProtection()

type accountRoute func(w http.ResponseWriter, r *http.Request) error

// route says what serves the request, and by which methods.
func (h *AccountsHandler) route(r *http.Request) (serve accountRoute, methods []string) {
	get, post := []string{http.MethodGet, http.MethodHead}, []string{http.MethodPost}
	both := slices.Concat(get, post)
	name, id := h.service.route(r.URL.Path)
	switch name {
	case "login":
		return h.byMethod(h.loginPage, h.login), both
	case "signup":
		if h.Signup == "closed" {
			return func(http.ResponseWriter, *http.Request) error { return &refusal.Error{Reason: refusal.NoSignup} }, both
		}
		return h.byMethod(h.signupPage, h.signup), both
	case "refresh":
		return h.refresh, post
	case "logout":
		return h.logout, post
	case "whoami":
		return h.whoami, get
	case "password":
		return h.password, post
	case "sessions":
		return h.sessions, get
	case "session":
		return func(w http.ResponseWriter, r *http.Request) error { return h.endSession(w, r, id) }, []string{http.MethodDelete, http.MethodPost}
	case "jwks":
		return h.jwks, get
	case "openapi":
		return h.openAPI, get
	case "account":
		return h.accountPage, get
	case "connect":
		return h.byMethod(h.connectPage, h.connect), both
	case "identities":
		return h.identities, get
	case "identity":
		return func(w http.ResponseWriter, r *http.Request) error { return h.identity(w, r, id) }, append(both, http.MethodDelete)
	case "reset":
		return h.byMethod(h.resetPage, h.reset), both
	case "style":
		return h.style, get
	case "external", "callback", "backchannel":
		return h.externalRoute(name, strings.ToLower(id))
	}
	return nil, nil
}

func (h *AccountsHandler) byMethod(page, action accountRoute) accountRoute {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodPost {
			return action(w, r)
		}
		return page(w, r)
	}
}

// externalPaths are the paths, in small letters, that have the names of
// login_with below them.
func (a *Accounts) externalPaths() map[string]string {
	paths := make(map[string]string)
	if len(a.LoginWithRaw) > 0 {
		for route, path := range externalRoutes {
			paths[route] = strings.ToLower(a.Prefix + path)
		}
	}
	return paths
}

// routeID is what an ID in a path may be.
var routeID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// routeNames tells which route a path is of, and the session ID or the name of
// a log-in in it. Paths are compared without case, as Caddy's own path matcher
// does.
func (a *Accounts) routeNames() func(path string) (name, id string) {
	names, below := make(map[string]string), a.externalPaths()
	below["session"] = strings.ToLower(a.path("sessions")) + "/"
	below["identity"] = strings.ToLower(a.path("identities")) + "/"
	for route := range accountRoutes {
		names[strings.ToLower(a.path(route))] = route
	}
	return func(path string) (string, string) {
		lower := strings.ToLower(path)
		if name := names[lower]; name != "" {
			return name, ""
		}
		if names[strings.TrimSuffix(lower, "/")] == "reset" { // a link that somebody has changed still has its token
			return "reset", ""
		}
		for route, prefix := range below {
			if strings.HasPrefix(lower, prefix) && routeID.MatchString(path[len(prefix):]) {
				return route, path[len(prefix):]
			}
		}
		return "", ""
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*AccountsHandler)(nil)
	_ caddy.CleanerUpper          = (*AccountsHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*AccountsHandler)(nil)
)
