package caddyjwt

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// comes reports whether a request reaches the handler.
func comes(w place.Way, r *http.Request) (bool, error) {
	for _, sets := range w {
		if matches, err := sets.AnyMatchWithError(r); err != nil || !matches {
			return false, err
		}
	}
	return true, nil
}

// readAlike reports whether all interpretations of the path agree on whether the request
// reaches the handler. If the request does not reach it, no script in the path may reach it
// either, because a server would run that script. Values derived from the path, by
// variables or maps, are only known for one interpretation. A pattern with a % is compared
// with the path as sent (see Caddy's path matcher), so a path that it matches has no other
// interpretation here.
func readAlike(w place.Way, r *http.Request) bool {
	there, err := comes(w, r)
	if err != nil {
		return false
	}
	if there && w.Has(comparesEscaped) {
		return true
	}
	if paths, err := readings(r); err != nil || len(paths) > 1 && w.Has(derives) {
		return false
	}
	if _, alike := judgePath(r, func(r *http.Request) (bool, error) { return comes(w, r) }); !alike || there {
		return alike
	}
	scripts, err := scriptsOf(r, false)
	return err == nil && !slices.ContainsFunc(scripts, func(script string) bool {
		there, err := comes(w, reread(r, script))
		return there || err != nil
	})
}

func comparesEscaped(matcher any) bool {
	paths, ok := matcher.(*caddyhttp.MatchPath)
	return ok && slices.ContainsFunc(*paths, func(pattern string) bool { return strings.Contains(pattern, "%") })
}

// derives reports whether a matcher uses values that the config may derive from the path.
func derives(matcher any) bool {
	switch m := matcher.(type) {
	case *caddyhttp.VarsMatcher, *caddyhttp.MatchVarsRE:
		return true
	case *caddyhttp.MatchExpression:
		return strings.Contains(m.Expr, "vars") ||
			slices.ContainsFunc(config.Placeholder.FindAllStringSubmatch(m.Expr, -1), func(found []string) bool {
				return !pathless.MatchString(found[2]) && !currentPath.MatchString(found[2]) &&
					!originalPath.MatchString(found[2])
			})
	}
	return false
}

func isHost(matcher any) bool {
	_, ok := matcher.(*caddyhttp.MatchHost)
	return ok
}

// serverGuard runs before all routes of a server. It is for `jwt` handlers that only some
// requests reach, because of matchers around them, as in `handle` blocks. The requests that
// these matchers exclude go to other handlers and never reach the Guard of a directive.
type serverGuard struct {
	routes  caddyhttp.RouteList
	ways    []place.Way
	answers answer.Responder

	compile sync.Once
	chain   caddyhttp.Handler
}

// serverGuardOf returns the guard of the server, or nil.
func serverGuardOf(server *caddyhttp.Server) *serverGuard {
	if len(server.Routes) != 1 || len(server.Routes[0].Handlers) != 1 {
		return nil
	}
	guard, _ := server.Routes[0].Handlers[0].(*serverGuard)
	return guard
}

// Wrapped returns the original routes of the server, which the guard replaced.
func (g *serverGuard) Wrapped() caddyhttp.RouteList { return g.routes }

// guardPlace registers a `jwt` handler with the server guard: the way to the handler, and
// the headers that only it may set.
func guardPlace(ctx caddy.Context, headers []*ClaimHeader) error {
	if err := guardErrors(ctx, headers); err != nil {
		return err
	}
	at := place.Of(ctx)
	if at.Server == nil || at.Rewrites || !at.Way.Has(func(matcher any) bool { return !isHost(matcher) }) {
		return nil
	}
	guard := serverGuardOf(at.Server)
	if guard == nil {
		guard = &serverGuard{
			routes: at.Server.Routes,
			answers: answer.Responder{
				Realm: answer.DefaultRealm, Logger: ctx.Logger(),
				Decisions: answer.DecisionsOf(place.Place{Server: at.Server}.Site()), // of all its sites
			},
		}
		route := caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{guard}}
		if err := route.ProvisionHandlers(ctx, nil); err != nil {
			return err
		}
		at.Server.Routes = caddyhttp.RouteList{route} // Caddy continues to provision the others in their own list
	}
	guard.ways = append(guard.ways, at.Way)
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *serverGuard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !ordinary(r.URL) && slices.ContainsFunc(g.ways, func(w place.Way) bool { return !readAlike(w, r) }) {
		return refusePath(g.answers, w, r)
	}
	g.compile.Do(func() { g.chain = g.routes.Compile(next) })
	return g.chain.ServeHTTP(w, r)
}

// guardErrors also removes claim headers before the server's handle_errors, which an error
// of a directive before `jwt` leads to. Caddy provisions error routes after the ordinary
// routes, and named routes last.
func guardErrors(ctx caddy.Context, headers []*ClaimHeader) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Errors == nil || len(headers) == 0 {
		return nil
	}
	guard := caddyhttp.Route{HandlersRaw: []json.RawMessage{
		caddyconfig.JSONModuleObject(&Guard{Headers: headers}, "handler", "jwt_guard", nil),
	}}
	switch {
	case place.Of(ctx).Server != nil:
		server.Errors.Routes = append(caddyhttp.RouteList{guard}, server.Errors.Routes...)
	case !slices.ContainsFunc(server.Errors.Routes, place.BeingProvisioned): // this is a named route
		if err := guard.ProvisionHandlers(ctx, nil); err != nil {
			return err
		}
		for _, route := range server.Errors.Routes {
			for _, handler := range route.Handlers {
				if subroute, ok := handler.(*caddyhttp.Subroute); ok {
					subroute.Routes = append(caddyhttp.RouteList{guard}, subroute.Routes...)
				}
			}
		}
	}
	return nil
}
