// Package web serves the accounts of a site over HTTP: their routes, pages and cookies. It
// is the Caddy module http.handlers.jwt_accounts.
package web

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/passkey"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/metadata"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler serves the account routes: sign-up, log-in, second factors, passkeys, refresh, log-out, whoami,
// password, sessions, the public keys, and the pages for browsers. Requests for other paths go to the
// next handler.
type Handler struct {
	accounts.Config

	answers answer.Responder
	shared  *Shared
	service *accounts.Service // the service of shared
	pages   *pages
	logins  []accounts.LoginProvider
	where   config.Where
	base    string // URL of the site for links in mails
	party   *passkey.Party
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt_accounts",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets the handler up.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.where = config.WhereIs(h)
	return h.where.Locate(h.provision(ctx))
}

func (h *Handler) provision(ctx caddy.Context) error {
	h.answers = answer.Responder{
		Realm: answer.DefaultRealm, Logger: ctx.Logger(), Decisions: answer.DecisionsOf(place.Of(ctx).Site()),
	}
	if err := answer.RegisterMetrics(ctx.GetMetricsRegistry()); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	var err error
	if h.shared, err = Open(ctx, &h.Config); err != nil {
		return err
	}
	h.service = h.shared.service
	if h.logins, err = accounts.LoadLogins(ctx, &h.Config); err != nil {
		return fmt.Errorf("accounts: login_with: %w", err)
	}
	h.pages, h.answers.Page = h.shared.pages, h.shared.RefusedPage
	for _, login := range h.logins {
		h.pages.defaults.Providers = append(h.pages.defaults.Providers, pageLink{
			login.Label, h.Prefix + accounts.ExternalRoutes["external"] + login.Name,
		})
	}
	at := place.Of(ctx)
	h.base = h.baseURL(at)
	if len(h.Invitations) > 0 && h.base == "" {
		return errors.New("accounts: invitations: the links in mails need the URL of the site, which is not known; " +
			"write in accounts: issuer https://<host>")
	}
	h.pages.notePlain = h.notePlain
	if h.Passkeys != nil {
		if h.party, err = passkey.NewParty(h.Passkeys.Domain, h.Name, h.Issuer, at); err != nil {
			return fmt.Errorf("accounts: %w", err)
		}
		h.pages.offerPasskey = h.offerPasskey
	}
	h.warn(at)
	h.warnOfOtherRules(ctx, at)
	h.warnOfMailHost(ctx, at)
	return nil
}

// Cleanup releases the shared service.
func (h *Handler) Cleanup() error {
	if h.shared == nil {
		return nil
	}
	return h.shared.Close()
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	serve, methods := h.route(r)
	if serve == nil {
		return next.ServeHTTP(w, r)
	}
	w.Header().Set("Cache-Control", "no-store")
	if h.secretQuery(r) {
		recorder := caddyhttp.NewResponseRecorder(w, nil, nil)
		w = recorder
		defer h.logWithoutQuery(r, recorder)
	}
	if err := h.service.Ready(r.Context()); err != nil {
		h.service.LogStoreFailure(err)
		return h.refuse(w, r, err)
	}
	if !slices.Contains(methods, r.Method) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return h.refuse(w, r, &refusal.Error{Reason: refusal.Method})
	}
	if err := crossOrigin.Check(r); err != nil && !h.answeredByForm(r) {
		return h.refuse(w, r, refusal.New(refusal.CrossOrigin, "%v", err))
	}
	err := serve(w, r)
	if refusal, ok := errors.AsType[*refusal.Error](err); ok {
		h.service.LogStoreFailure(refusal)
		return h.refuse(w, r, refusal)
	}
	return err
}

// secretQuery reports whether the query contains the token of a link or the code of a
// provider.
func (h *Handler) secretQuery(r *http.Request) bool {
	name, _ := h.service.Route(r.URL.Path)
	hasSecret := name == "reset" || name == "verify" || name == "code" || name == "callback"
	return r.URL.RawQuery != "" && hasSecret || h.answeredByForm(r)
}

// answeredByForm reports whether a request is the response of a provider by form, which comes from the
// provider's page.
func (h *Handler) answeredByForm(r *http.Request) bool {
	name, _ := h.service.Route(r.URL.Path)
	return name == "callback" && r.Method == http.MethodPost
}

// logWithoutQuery replaces the access log line of a request whose query contains the token
// of a link or the code of a provider.
func (h *Handler) logWithoutQuery(r *http.Request, answer caddyhttp.ResponseRecorder) {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
	h.service.Log.Info(
		"handled request, whose query is secret", zap.String("method", r.Method),
		zap.String("host", r.Host), zap.String("path", r.URL.Path),
		zap.Int("status", answer.Status()), zap.String("client_ip", client(r).Address),
	)
}

// refuse answers a refusal: for a browser as the site is configured, for a program always
// as JSON with the invalid properties. Only servers send logout tokens.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, refusal *refusal.Error) error {
	route, _ := h.service.Route(r.URL.Path)
	page := route != "backchannel" && answer.Prefers(r, "text/html", "application/json")
	if page && h.secretQuery(r) { // an error that is passed on is logged with its URL
		w.Header().Set("Referrer-Policy", "no-referrer")
		h.answers.Announce(w, r, refusal)
		public := refusal.Reason.Answer()
		return h.pages.render(
			w, r, "message", pageData{Title: refusedTitle(public.Status), Text: refusedText(public)}, public.Status,
		)
	}
	if page {
		return h.answers.Refuse(w, r, refusal)
	}
	h.answers.Announce(w, r, refusal)
	return h.pages.writeRefusal(w, r, refusal)
}

// crossOrigin refuses requests from pages of other sites that carry a user's cookies,
// including log-ins (OWASP: CSRF, log-in CSRF).
var crossOrigin = http.NewCrossOriginProtection()

type accountRoute func(w http.ResponseWriter, r *http.Request) error

// route returns the handler and the methods of a request's route.
func (h *Handler) route(r *http.Request) (serve accountRoute, methods []string) {
	get, post := []string{http.MethodGet, http.MethodHead}, []string{http.MethodPost}
	both := slices.Concat(get, post)
	name, id := h.service.Route(r.URL.Path)
	switch name {
	case "login":
		return h.byMethod(h.loginPage, h.login), both
	case "signup":
		if h.Signup != "open" {
			return func(http.ResponseWriter, *http.Request) error { return &refusal.Error{Reason: refusal.NoSignup} },
				both
		}
		return h.byMethod(h.signupPage, h.signup), both
	case "refresh":
		return h.refresh, post
	case "logout":
		return h.byMethod(h.logoutPage, h.logout), both
	case "whoami":
		return h.whoamiRoute, append(get, http.MethodPatch, http.MethodDelete)
	case "export":
		return h.export, get
	case "delete":
		return h.byMethod(h.deletePage, h.deleteForm), both
	case "password":
		return h.password, post
	case "sessions":
		return h.sessionsRoute, append(both, http.MethodDelete)
	case "session":
		return func(w http.ResponseWriter, r *http.Request) error { return h.endSession(w, r, id) }, []string{
			http.MethodDelete, http.MethodPost,
		}
	case "jwks":
		return h.jwks, get
	case "documents":
		_, ours := metadata.PathOf(h.Issuer, r.Host)
		if !ours && !strings.HasPrefix(r.URL.Path, h.Prefix+"/") {
			return nil, nil // of another host
		}
		return h.documents, append(get, http.MethodOptions)
	case "openapi":
		return h.openAPI, get
	case "explorer":
		return h.explorer, get
	case "home":
		return h.home, get
	case "account":
		return h.byMethod(h.accountPage, h.profileForm), both
	case "connect":
		return h.byMethod(h.connectPage, h.connect), both
	case "identities":
		return h.identities, get
	case "identity":
		return func(w http.ResponseWriter, r *http.Request) error { return h.identity(w, r, id) },
			append(both, http.MethodDelete)
	case "keys", "key":
		return h.keyRoute(name, id)
	case "factor", "factors", "totp", "totp confirm", "recovery", "browser", "step up":
		return h.factorRoute(name, id)
	case "passkeys", "passkey", "passkey options", "passkey login", "passkey login options", "step up options":
		return h.passkeyRoute(name, id)
	case "reset":
		return h.byMethod(h.resetPage, h.reset), both
	case "verify":
		return h.byMethod(h.verifyPage, h.verify), both
	case "forgot":
		return h.byMethod(h.asksFor(askForgot), h.forgot), both
	case "code":
		return h.byMethod(h.logInCodePage, h.logInCode), both
	case "email":
		return h.byMethod(h.emailPage, h.email), both
	case "invite":
		return h.byMethod(h.invitePage, h.invite), both
	case "email_confirm":
		return h.confirmEmail, post
	case "style", "script", "explorer script":
		return func(w http.ResponseWriter, r *http.Request) error { return h.pages.files[name].serve(w, r) }, get
	case "external", "callback", "backchannel":
		return h.externalRoute(name, strings.ToLower(id))
	}
	return nil, nil
}

func (h *Handler) byMethod(page, action accountRoute) accountRoute {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodPost {
			return action(w, r)
		}
		return page(w, r)
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
