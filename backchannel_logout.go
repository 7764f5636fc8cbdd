package caddyjwt

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/backchannel"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(BackchannelLogout))
}

// Logout configures the log-outs that an issuer reports.
type Logout struct {
	// Path of this site to which the issuer sends logout tokens, such as
	// `/backchannel-logout`. Register its URL at the issuer as the `backchannel_logout_uri`.
	// Required.
	Path string `json:"path,omitempty"`

	// ClientIDs are the clients of the issuer whose logout tokens are accepted: the values
	// of their `aud`. Default: the audience of the issuer.
	ClientIDs []string `json:"client_ids,omitempty"`

	// Lifetime is how long the issuer's tokens can be valid, from 1m to 30 days. A log-out is
	// forgotten after this time, so it must not be shorter. Default: `24h`.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`
}

const (
	defaultLogoutLifetime = 24 * time.Hour
	maxLogoutLifetime     = 30 * 24 * time.Hour
	// maxLogoutAge is how old a logout token may be. The specification recommends that it
	// expires after 2 minutes (§4); issuers repeat what was not answered.
	maxLogoutAge = 10 * time.Minute
	// maxLogoutBytes is the maximum size of the form.
	maxLogoutBytes = 64 << 10
)

// BackchannelLogout receives the log-outs that an issuer reports (OpenID Connect Back-Channel
// Logout 1.0): the tokens of an ended session are refused at once, and within a second on all
// nodes that share Caddy's storage. The directive adds it automatically for
// `backchannel_logout`.
type BackchannelLogout struct {
	Logout

	// Issuer is the issuer, with the keys that sign its logout tokens.
	Issuer *IssuerConfig `json:"issuer,omitempty"`

	keys     Handler // of the issuer
	verifier *jwt.Verifier
	logouts  *backchannel.Logouts
	answers  answer.Responder
}

// CaddyModule returns the Caddy module information.
func (*BackchannelLogout) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt_backchannel_logout",
		New: func() caddy.Module { return new(BackchannelLogout) },
	}
}

// logoutsOf returns the handlers of the log-outs for a jwt handler.
func logoutsOf(h *Handler) (all []*BackchannelLogout) {
	for _, issuer := range h.Issuers {
		if issuer.BackchannelLogout == nil {
			continue
		}
		own := *issuer
		own.BackchannelLogout, own.Introspection, own.AudienceClaim = nil, nil, nil
		own.Audience = slices.Clone(own.Audience)
		if len(own.Audience) == 0 && h.Resource != "" {
			own.Audience = []string{h.Resource}
		}
		all = append(all, &BackchannelLogout{Logout: *issuer.BackchannelLogout, Issuer: &own})
	}
	return all
}

// matcher returns the matcher of the path, or nil if it has a placeholder.
func (l *BackchannelLogout) matcher() caddy.ModuleMap {
	if strings.ContainsAny(l.Path, "{}") {
		return nil
	}
	return caddy.ModuleMap{"path": caddyconfig.JSON(caddyhttp.MatchPath{l.Path}, nil)}
}

// resolve sets defaults and checks the values.
func (l *Logout) resolve(issuer *IssuerConfig) error {
	err := errors.Join(
		config.Resolve("backchannel_logout", &l.Path), config.ResolveList("backchannel_logout", l.ClientIDs),
	)
	if err != nil {
		return err
	}
	config.SetDefault(&l.Lifetime, caddy.Duration(defaultLogoutLifetime))
	lifetime := time.Duration(l.Lifetime)
	switch {
	case !strings.HasPrefix(l.Path, "/") || strings.ContainsAny(l.Path, "*?#"):
		return fmt.Errorf("backchannel_logout %q: it must be a path of this site, as in: "+
			"backchannel_logout /backchannel-logout", l.Path)
	case issuer.Issuer == "":
		return errors.New("backchannel_logout requires an issuer with a name, because log-outs are kept by it")
	case issuer.multiTenant():
		return fmt.Errorf("backchannel_logout requires a single issuer, because log-outs are kept by it, and %s is "+
			"many; write an issuer for each tenant", issuer.Issuer)
	case len(l.ClientIDs) == 0 && len(issuer.Audience) == 0:
		return fmt.Errorf("backchannel_logout: set whose logout tokens are accepted: the IDs of the clients at the "+
			"issuer, as in: backchannel_logout %s my-app, or an audience", l.Path)
	case slices.Contains(l.ClientIDs, ""):
		return errors.New("backchannel_logout: a client ID is empty; remove it")
	case lifetime < time.Minute || lifetime > maxLogoutLifetime:
		return fmt.Errorf("backchannel_logout: lifetime is %s; it must be from 1m to %s", lifetime, maxLogoutLifetime)
	}
	return nil
}

// Provision loads the issuer's keys.
func (l *BackchannelLogout) Provision(ctx caddy.Context) error {
	where := config.WhereIs(l)
	return where.Locate(l.provision(ctx))
}

func (l *BackchannelLogout) provision(ctx caddy.Context) error {
	l.answers.Logger, l.answers.Decisions = ctx.Logger(), answer.DecisionsOf(place.Of(ctx).Site())
	if l.Issuer == nil {
		return errors.New("the issuer is missing")
	}
	issuer, err := l.Issuer.provision(ctx, &l.keys)
	if err != nil {
		return fmt.Errorf("issuer %s: %w", l.Issuer.Issuer, err)
	}
	if err := l.Logout.resolve(l.Issuer); err != nil {
		return err
	}
	if len(l.ClientIDs) > 0 {
		issuer.Audience = l.ClientIDs
	}
	l.verifier, err = jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{issuer}, Leeway: jwt.DefaultLeeway})
	if err != nil {
		return err
	}
	l.logouts, err = backchannel.Open(ctx, l.Issuer.Issuer)
	return err
}

// Cleanup releases the keys and the log-outs.
func (l *BackchannelLogout) Cleanup() error {
	err := l.keys.Cleanup()
	if l.logouts != nil {
		err = errors.Join(err, l.logouts.Close())
	}
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (l *BackchannelLogout) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Path != l.Path {
		return next.ServeHTTP(w, r)
	}
	w.Header().Set("Cache-Control", "no-store") // §2.8
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return nil
	}
	if err := l.logOut(w, r); err != nil {
		failure := logoutFailure(err)
		l.answers.Announce(w, r, failure)
		public := failure.Reason.Answer()
		return answer.WriteJSON(w, public.Status, map[string]string{ // §2.8
			"error": public.Code, "error_description": public.Description,
		})
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// logoutFailure returns what the issuer is told: that its token is not valid, or to try again.
func logoutFailure(err error) *refusal.Error {
	failure, ok := errors.AsType[*refusal.Error](err)
	switch {
	case !ok:
		return &refusal.Error{Reason: refusal.StorageDown, Detail: err.Error(), RetryAfter: time.Second}
	case failure.Reason.Answer().Status == http.StatusServiceUnavailable:
		return failure
	}
	return refusal.New(refusal.LogoutToken, "%v", failure)
}

func (l *BackchannelLogout) logOut(w http.ResponseWriter, r *http.Request) error {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	r.Body = http.MaxBytesReader(w, r.Body, maxLogoutBytes)
	if err := r.ParseForm(); err != nil || kind != "application/x-www-form-urlencoded" ||
		len(r.PostForm["logout_token"]) != 1 {
		return refusal.New(refusal.LogoutToken, "it is not a form with exactly one logout_token")
	}
	now := clock.Now()
	claims, err := l.verifier.VerifyLogout(r.Context(), r.PostForm.Get("logout_token"), now)
	if err != nil {
		return err
	}
	id, logout, err := backchannel.ParseLogout(claims, now, maxLogoutAge+jwt.DefaultLeeway)
	if err != nil {
		return refusal.New(refusal.LogoutToken, "%v", err)
	}
	logout.Until = logout.Issued.Add(time.Duration(l.Lifetime) + jwt.MaxLeeway)
	err = l.logouts.Add(r.Context(), id, logout)
	if errors.Is(err, backchannel.ErrRepeated) {
		return refusal.New(refusal.LogoutToken, "%v", err)
	}
	if err == nil {
		logoutsReceived.Inc()
		l.answers.Logger.Named("audit").Info(
			"log-out of the issuer", zap.String("issuer", l.Issuer.Issuer), zap.String("user_id", logout.Subject),
			zap.String("session_id", logout.SessionID),
		)
	}
	return err
}

var logoutsReceived = prometheus.NewCounter(prometheus.CounterOpts{
	Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "backchannel_logouts_total",
	Help: "Log-outs that issuers have reported. Those that were refused are in decisions_total.",
})

func init() { answer.AddMetrics(logoutsReceived) }

// Interface guards
var (
	_ caddy.Provisioner           = (*BackchannelLogout)(nil)
	_ caddy.CleanerUpper          = (*BackchannelLogout)(nil)
	_ caddyhttp.MiddlewareHandler = (*BackchannelLogout)(nil)
)
