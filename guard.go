package caddyjwt

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Guard))
}

// Guard stands in front of a site's handlers and sees the requests that the matcher
// of a `jwt` handler leaves out. It removes claim headers that a client sent, since
// what is behind trusts these headers wherever they come from. And it answers 400 to a
// path that what is behind may read as another one, where the matcher judges the
// two differently: dot segments, plain or encoded, encoded slashes, backslashes,
// path parameters and the like. The directive puts it into the site by itself.
type Guard struct {
	// Headers are the claim headers of the `jwt` handler. Those that a `jwt` handler
	// has set stay.
	Headers []*ClaimHeader `json:"headers,omitempty"`

	// MatcherSetsRaw are the matchers of the `jwt` handler's route. Default: none, and
	// no path is refused.
	MatcherSetsRaw caddyhttp.RawMatcherSets `json:"match,omitempty" caddy:"namespace=http.matchers"`

	matchers caddyhttp.MatcherSets
	responder
}

// CaddyModule returns the Caddy module information.
func (*Guard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt_guard",
		New: func() caddy.Module { return new(Guard) },
	}
}

// Provision replaces placeholders and loads the matchers.
func (g *Guard) Provision(ctx caddy.Context) error {
	g.responder = responder{realm: defaultRealm, logger: ctx.Logger()}
	if slices.Contains(g.Headers, nil) {
		return errors.New("headers holds objects, and one is null")
	}
	for _, header := range g.Headers {
		if err := resolve("claim_header", &header.Header, &header.Claim); err != nil {
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
	if err := g.matchers.FromInterface(matchers); err != nil {
		return err
	}
	g.warn()
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	var kept []string
	if who, ok := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)[identityVar].(*identity); ok {
		kept = who.headers
	}
	removeClaimHeaders(r, g.Headers, kept)
	if len(g.matchers) > 0 && !ordinary(r.URL) && !g.judgesAlike(r) {
		return g.refuse(w, r, refuse(ReasonPath, "readings of %s differ in whether the matcher of jwt matches", quoted(r.URL.EscapedPath())))
	}
	return next.ServeHTTP(w, r)
}

// judgesAlike reports whether the matcher says the same of each reading of the path.
// Where it does not match, it must not match a script in the path either, since
// a server would run that.
func (g *Guard) judgesAlike(r *http.Request) bool {
	matches, alike := judgePath(r, g.matchers.AnyMatchWithError)
	if !alike || matches {
		return alike
	}
	return !anyScript(r, func(r *http.Request) bool {
		matches, err := g.matchers.AnyMatchWithError(r)
		return matches || err != nil
	})
}

// guardErrors has claim headers removed in front of the server's handle_errors too,
// which an error of a directive before `jwt` leads to. It must be called while
// the server's other routes are provisioned, which is before those of errors.
func guardErrors(ctx caddy.Context, headers []*ClaimHeader) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Errors == nil || len(headers) == 0 {
		return
	}
	beingProvisioned := func(route caddyhttp.Route) bool { return len(route.HandlersRaw) > 0 }
	if !slices.ContainsFunc(server.Routes, beingProvisioned) {
		return // this is a handler of handle_errors, or of a named route
	}
	guard := caddyconfig.JSONModuleObject(&Guard{Headers: headers}, "handler", "jwt_guard", nil)
	server.Errors.Routes = append(caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{guard}}}, server.Errors.Routes...)
}

// removeClaimHeaders removes what a client may have sent to pass for somebody.
// Those with the names of kept stay: a jwt handler has set them.
func removeClaimHeaders(r *http.Request, headers []*ClaimHeader, kept []string) {
	if len(headers) == 0 {
		return
	}
	isClaim := func(name string) bool {
		return slices.ContainsFunc(headers, func(header *ClaimHeader) bool { return sameHeader(name, header.Header) })
	}
	maps.DeleteFunc(r.Header, func(name string, _ []string) bool { return isClaim(name) && !slices.Contains(kept, name) })
	if r.Trailer != nil {
		removeTrailers(r, isClaim)
	}
	// A proxy takes the headers away that these name (RFC 9110 §7.6.1).
	for _, list := range []string{"Connection", "Trailer"} {
		for i, value := range r.Header[list] {
			names := strings.Split(value, ",")
			if slices.ContainsFunc(names, func(name string) bool { return isClaim(strings.TrimSpace(name)) }) {
				others := slices.DeleteFunc(names, func(name string) bool { return isClaim(strings.TrimSpace(name)) })
				r.Header[list][i] = strings.Join(others, ",")
			}
		}
	}
}

// removeTrailers removes claim headers that come after the body, declared or not:
// net/http adds them to the request's map once the body has ended.
func removeTrailers(r *http.Request, isClaim func(name string) bool) {
	trailers := r.Trailer
	remove := func() {
		maps.DeleteFunc(trailers, func(name string, _ []string) bool { return isClaim(name) })
	}
	remove()
	if r.Body != nil {
		r.Body = &trailerGuard{r.Body, remove}
	}
}

// trailerGuard calls ended when the body has ended, before its reader knows.
type trailerGuard struct {
	io.ReadCloser
	ended func()
}

// Read implements io.Reader.
func (g *trailerGuard) Read(into []byte) (int, error) {
	n, err := g.ReadCloser.Read(into)
	if err != nil {
		g.ended()
	}
	return n, err
}

// Close implements io.Closer. What is left of the body may be read in it.
func (g *trailerGuard) Close() error {
	defer g.ended()
	return g.ReadCloser.Close()
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Guard)(nil)
	_ caddyhttp.MiddlewareHandler = (*Guard)(nil)
)
