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

// comes reports whether a request comes to the handler.
func comes(w place.Way, r *http.Request) (bool, error) {
	for _, sets := range w {
		if matches, err := sets.AnyMatchWithError(r); err != nil || !matches {
			return false, err
		}
	}
	return true, nil
}

// readAlike reports whether the same is so for each reading of the path. Where a
// request does not come to the handler, no script in its path may, since a server
// would run that. What is derived from the path, by variables or maps, is known of one
// reading only. A pattern with a % compares the path as it came (see Caddy's path matcher),
// so what it matches is not read in another way here.
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

// derives reports whether a matcher reads what the config may have made of the path.
func derives(matcher any) bool {
	switch m := matcher.(type) {
	case *caddyhttp.VarsMatcher, *caddyhttp.MatchVarsRE:
		return true
	case *caddyhttp.MatchExpression:
		return strings.Contains(m.Expr, "vars") || slices.ContainsFunc(config.Placeholder.FindAllStringSubmatch(m.Expr, -1), func(found []string) bool {
			return !pathless.MatchString(found[2]) && !currentPath.MatchString(found[2]) && !originalPath.MatchString(found[2])
		})
	}
	return false
}

func isHost(matcher any) bool {
	_, ok := matcher.(*caddyhttp.MatchHost)
	return ok
}

// serverGuard stands in front of all routes of a server, for the `jwt` handlers to which
// the matchers around them let some requests come, as those of `handle` blocks do.
// What these leave out is another handler's, which the Guard of a directive never sees.
type serverGuard struct {
	routes  caddyhttp.RouteList
	ways    []place.Way
	answers answer.Responder

	compile sync.Once
	chain   caddyhttp.Handler
}

// serverGuardOf is nil if the server has none yet.
func serverGuardOf(server *caddyhttp.Server) *serverGuard {
	if len(server.Routes) != 1 || len(server.Routes[0].Handlers) != 1 {
		return nil
	}
	guard, _ := server.Routes[0].Handlers[0].(*serverGuard)
	return guard
}

// Wrapped are the server's own routes, which the guard has taken the place of.
func (g *serverGuard) Wrapped() caddyhttp.RouteList { return g.routes }

// guardPlace has the server guard a `jwt` handler that is being provisioned: the way to
// it, and the headers that only it may set.
func guardPlace(ctx caddy.Context, headers []*ClaimHeader) error {
	if err := guardErrors(ctx, headers); err != nil {
		return err
	}
	at := place.Of(ctx)
	if at.Server == nil || !at.Way.Has(func(matcher any) bool { return !isHost(matcher) }) {
		return nil
	}
	guard := serverGuardOf(at.Server)
	if guard == nil {
		guard = &serverGuard{routes: at.Server.Routes, answers: answer.Responder{Realm: answer.DefaultRealm, Logger: ctx.Logger()}}
		route := caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{guard}}
		if err := route.ProvisionHandlers(ctx, nil); err != nil {
			return err
		}
		at.Server.Routes = caddyhttp.RouteList{route} // the others go on being provisioned in their own list
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

// guardErrors has claim headers removed in front of the server's handle_errors too,
// which an error of a directive before `jwt` leads to. The routes of errors are
// provisioned after the ordinary ones, and named routes after both.
func guardErrors(ctx caddy.Context, headers []*ClaimHeader) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Errors == nil || len(headers) == 0 {
		return nil
	}
	guard := caddyhttp.Route{HandlersRaw: []json.RawMessage{caddyconfig.JSONModuleObject(&Guard{Headers: headers}, "handler", "jwt_guard", nil)}}
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
