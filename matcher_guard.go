package caddyjwt

import (
	"errors"
	"net/http"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Guard))
}

// Guard runs before the handlers of a site and sees the requests that the matcher of a
// `jwt` handler does not match. It removes claim headers that a client sent, because the
// upstream trusts these headers for every request. It also answers 400 to ambiguous paths:
// paths that the upstream may interpret differently (dot segments, plain or encoded,
// encoded slashes, backslashes, path parameters and similar), if the matcher does not treat
// all interpretations alike. The directive adds the guard automatically.
type Guard struct {
	// Headers are the claim headers of the `jwt` handler. Headers that a `jwt` handler has
	// set are kept.
	Headers []*ClaimHeader `json:"headers,omitempty"`

	// MatcherSetsRaw are the matchers of the `jwt` handler's route. Default: none, and then
	// no path is refused.
	MatcherSetsRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	matchers caddyhttp.MatcherSets
	answers  answer.Responder
}

// CaddyModule returns the Caddy module information.
func (*Guard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt_guard",
		New: func() caddy.Module { return new(Guard) },
	}
}

// Provision resolves placeholders and loads the matchers.
func (g *Guard) Provision(ctx caddy.Context) error {
	g.answers = answer.Responder{
		Realm: answer.DefaultRealm, Logger: ctx.Logger(), Decisions: answer.DecisionsOf(place.Of(ctx).Site()),
	}
	if slices.Contains(g.Headers, nil) {
		return errors.New("headers is a list of objects, but one entry is null")
	}
	for _, header := range g.Headers {
		if err := config.Resolve("claim_header", &header.Header, &header.Claim); err != nil {
			return err
		}
		header.Header = http.CanonicalHeaderKey(header.Header)
	}
	if len(g.MatcherSetsRaw) == 0 {
		return nil
	}
	matchers, err := ctx.LoadModule(g, "MatcherSetsRaw")
	if err != nil {
		return err
	}
	return g.matchers.FromInterface(matchers)
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if len(g.Headers) > 0 {
		var kept []string
		if who := userOf(r); who != nil {
			kept = who.headers
		}
		removeClaimHeaders(r, g.Headers, kept)
	}
	if len(g.matchers) > 0 && !ordinary(r.URL) && !readAlike(place.Way{g.matchers}, r) {
		return refusePath(g.answers, w, r)
	}
	return next.ServeHTTP(w, r)
}

// refusePath writes the response itself, because the site's handle_errors may lead to the
// server that must not get the path.
func refusePath(answers answer.Responder, w http.ResponseWriter, r *http.Request) error {
	refusal := refusal.New(
		refusal.Path, "interpretations of %s differ in whether they reach jwt", refusal.Quoted(r.URL.EscapedPath()),
	)
	answers.Announce(w, r, refusal)
	return answer.WriteRefusal(w, refusal)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Guard)(nil)
	_ caddyhttp.MiddlewareHandler = (*Guard)(nil)
)
