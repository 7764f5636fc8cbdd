// Package place finds the position of a handler in the routes of a server.
package place

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// Way has the matchers of the routes that lead to a handler, starting with the outermost.
type Way []caddyhttp.MatcherSets

// Has reports whether one of the matchers is of a kind.
func (w Way) Has(kind func(matcher any) bool) bool {
	return slices.ContainsFunc(w, func(sets caddyhttp.MatcherSets) bool {
		return slices.ContainsFunc(sets, func(set caddyhttp.MatcherSet) bool {
			return slices.ContainsFunc(set, func(matcher any) bool {
				if not, ok := matcher.(*caddyhttp.MatchNot); ok {
					return Way{not.MatcherSets}.Has(kind)
				}
				return kind(matcher)
			})
		})
	})
}

// Place is the position of a handler that is being provisioned.
type Place struct {
	Server   *caddyhttp.Server   // nil outside of the server's ordinary routes
	Hosts    []string            // of the site; none for all
	Way      Way                 // to the handler, from the last rewrite of the path on
	Rewrites bool                // whether the path is rewritten on the way
	Siblings caddyhttp.RouteList // the routes of the list that has the handler

	// Earlier are the routes that a request may pass before it reaches the handler, also in an
	// error route.
	Earlier caddyhttp.RouteList
	// Named are the named routes that lead to such handlers, if this is the first of them. Caddy
	// does not tell which named route it provisions.
	Named caddyhttp.RouteList
}

// Site returns the name of the site in metrics: its first host, or else the address on which the server
// listens.
func (p Place) Site() string {
	switch {
	case len(p.Hosts) > 0:
		return p.Hosts[0]
	case p.Server != nil && len(p.Server.Listen) > 0:
		return p.Server.Listen[0]
	}
	return ""
}

// Of finds the position from the routes that are being provisioned: Caddy loads their
// handlers in order, so the first handler that is not loaded leads to this one.
func Of(ctx caddy.Context) (at Place) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return at
	}
	ordinary := Routes(server)
	if !slices.ContainsFunc(ordinary, BeingProvisioned) { // Caddy provisions those first
		return elsewhere(ctx, server)
	}
	for _, routes := range listsTo(ctx, ordinary) {
		i := slices.IndexFunc(routes, BeingProvisioned)
		if i < 0 {
			return Place{}
		}
		at.Earlier = append(append(at.Earlier, passed(routes[:i], routes[i])...), before(routes[i], ctx))
		if slices.ContainsFunc(routes[:i], rewrites) { // as in handle_path
			at.Way, at.Rewrites = nil, true
		}
		if len(routes[i].MatcherSets) > 0 {
			at.Way = append(at.Way, routes[i].MatcherSets)
		}
		if hosts := HostsOf(routes[i].MatcherSets); len(hosts) > 0 {
			at.Hosts = hosts
		}
		at.Siblings = routes
	}
	at.Server = server
	return at
}

// listsTo returns the lists of routes that lead to the module which is being provisioned.
func listsTo(ctx caddy.Context, first caddyhttp.RouteList) []caddyhttp.RouteList {
	lists := []caddyhttp.RouteList{first}
	for _, module := range ctx.Modules() {
		if subroute, ok := module.(*caddyhttp.Subroute); ok {
			lists = append(lists, subroute.Routes)
		}
	}
	return lists
}

// elsewhere returns what is known of a handler in error routes or named routes.
func elsewhere(ctx caddy.Context, server *caddyhttp.Server) (at Place) {
	if server.Errors != nil && slices.ContainsFunc(server.Errors.Routes, BeingProvisioned) {
		for _, routes := range listsTo(ctx, server.Errors.Routes) {
			if i := slices.IndexFunc(routes, BeingProvisioned); i >= 0 {
				at.Earlier = append(append(at.Earlier, passed(routes[:i], routes[i])...), before(routes[i], ctx))
			}
		}
		return at
	}
	leads := func(handler Handler) bool { return handler.Leads(nameOf(ctx)) }
	for _, route := range server.NamedRoutes {
		if !slices.ContainsFunc(HandlersOf(*route), leads) {
			continue
		}
		if !BeingProvisioned(*route) { // so this is not the first one
			return Place{}
		}
		at.Named = append(at.Named, *route)
	}
	return at
}

// passed returns the routes that a request may pass on its way to a later one: not those that
// would have ended its way, such as other sites and other `handle` blocks.
func passed(routes caddyhttp.RouteList, later caddyhttp.Route) (passed caddyhttp.RouteList) {
	for _, route := range routes {
		hosts, own := HostsOf(route.MatcherSets), HostsOf(later.MatcherSets)
		otherSite := len(hosts) > 0 && len(own) > 0 &&
			!slices.ContainsFunc(hosts, func(host string) bool { return slices.Contains(own, host) })
		if !route.Terminal && !otherSite && (route.Group == "" || route.Group != later.Group) {
			passed = append(passed, route)
		}
	}
	return passed
}

// nameOf returns the name of the handler that is being provisioned, or whose part is.
func nameOf(ctx caddy.Context) (name string) {
	for _, module := range ctx.Modules() {
		id := module.CaddyModule().ID
		if id.Namespace() == "http.handlers" && id.Name() != "subroute" {
			name = id.Name()
		}
	}
	return name
}

// Routes returns the routes of a server, also if a handler has wrapped them.
func Routes(server *caddyhttp.Server) caddyhttp.RouteList {
	if len(server.Routes) == 1 && len(server.Routes[0].Handlers) == 1 {
		if handler, ok := server.Routes[0].Handlers[0].(interface{ Wrapped() caddyhttp.RouteList }); ok {
			return handler.Wrapped()
		}
	}
	return server.Routes
}

// URL returns the URL of the site by its first host, without a slash at the end; empty if the config
// does not name a host.
func (at Place) URL() string {
	if len(at.Hosts) == 0 || strings.ContainsAny(at.Hosts[0], "*{") {
		return ""
	}
	return at.URLOf(at.Hosts[0])
}

// URLOf returns the URL of a host at the server, without a slash at the end; empty if the server is
// not known.
func (at Place) URLOf(host string) string {
	if at.Server == nil {
		return ""
	}
	scheme, standard := "http", "80"
	if len(at.Server.TLSConnPolicies) > 0 {
		scheme, standard = "https", "443"
	}
	if len(at.Server.Listen) > 0 {
		address, err := caddy.ParseNetworkAddress(at.Server.Listen[0])
		if port := fmt.Sprint(address.StartPort); err == nil && port != standard && address.StartPort != 0 {
			host = net.JoinHostPort(host, port)
		}
	}
	return scheme + "://" + host
}

// BeingProvisioned reports whether not all handlers of a route are loaded yet.
func BeingProvisioned(route caddyhttp.Route) bool { return len(route.HandlersRaw) > 0 }

func rewrites(route caddyhttp.Route) bool {
	return slices.ContainsFunc(route.Handlers, func(handler caddyhttp.MiddlewareHandler) bool {
		_, ok := handler.(*rewrite.Rewrite)
		return ok
	})
}

// HostsOf returns the hosts that matchers match; none for all.
func HostsOf(sets caddyhttp.MatcherSets) (hosts []string) {
	for _, set := range sets {
		for _, matcher := range set {
			if host, ok := matcher.(*caddyhttp.MatchHost); ok {
				hosts = append(hosts, *host...)
			}
		}
	}
	return hosts
}

// PathsAround returns the path matchers on the way. After a rewrite, they are for the
// rewritten path.
func (at Place) PathsAround() (paths []caddyhttp.MatchPath) {
	for _, sets := range at.Way {
		for _, set := range sets {
			for _, matcher := range set {
				if path, ok := matcher.(*caddyhttp.MatchPath); ok {
					paths = append(paths, *path)
				}
			}
		}
	}
	return paths
}

// Rewritten reports whether a request for the path may get another path before it reaches the
// handler, as by try_files.
func (at Place) Rewritten(path string) bool {
	return slices.ContainsFunc(at.Earlier, func(route caddyhttp.Route) bool {
		replaces := slices.ContainsFunc(HandlersOf(route), func(handler Handler) bool {
			var r rewrite.Rewrite
			return handler.Name == "rewrite" && json.Unmarshal(handler.Text, &r) == nil &&
				r.URI != "" && !strings.HasPrefix(r.URI, "?")
		})
		return replaces && len(Place{Way: Way{route.MatcherSets}}.Outside(path)) == 0
	})
}

// Handler is a handler of a route as JSON, whether it is provisioned or not.
type Handler struct {
	Name   string // of its module, without the namespace
	Text   []byte // the JSON, without the modules in it if they are provisioned
	Routes caddyhttp.RouteList
}

// HandlersOf returns the handlers of a route.
func HandlersOf(route caddyhttp.Route) (handlers []Handler) {
	for _, module := range route.Handlers {
		if module, ok := module.(caddy.Module); ok {
			text, _ := json.Marshal(module) // none if it cannot be marshaled
			h := Handler{Name: caddy.GetModuleName(module), Text: text}
			if subroute, ok := module.(*caddyhttp.Subroute); ok {
				h.Routes = subroute.Routes
			}
			handlers = append(handlers, h)
		}
	}
	for _, raw := range route.HandlersRaw {
		var h struct {
			Handler string              `json:"handler"`
			Routes  caddyhttp.RouteList `json:"routes"`
		}
		_ = json.Unmarshal(raw, &h) // other modules may have other `routes`
		handlers = append(handlers, Handler{h.Handler, raw, h.Routes})
	}
	return handlers
}

// before returns the part of a route before the handler that is being provisioned.
func before(route caddyhttp.Route, ctx caddy.Context) caddyhttp.Route {
	own := slices.IndexFunc(HandlersOf(route), func(handler Handler) bool { return handler.Leads(nameOf(ctx)) })
	route.HandlersRaw = route.HandlersRaw[:max(own, 0)]
	return route
}

// Leads reports whether the handler is one with the name, or leads to one.
func (h Handler) Leads(name string) bool {
	return h.Name == name || slices.ContainsFunc(h.Routes, func(route caddyhttp.Route) bool {
		return slices.ContainsFunc(HandlersOf(route), func(inner Handler) bool { return inner.Leads(name) })
	})
}

// Outside returns the matchers around the handler that prevent requests for the path from
// reaching it, or none if the path is rewritten on the way.
func (at Place) Outside(path string) (matchers []string) {
	if at.Rewrites {
		return nil
	}
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Header: http.Header{}}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, nil)
	for _, sets := range at.Way {
		for _, set := range sets {
			for _, matcher := range set {
				judge, ok := matcher.(caddyhttp.RequestMatcherWithError)
				if !ok || !judgesByPath(matcher) {
					continue
				}
				if matches, err := judge.MatchWithError(r); err == nil && !matches {
					matchers = append(matchers, fmt.Sprintf("%s %v", caddy.GetModuleName(matcher), matcher))
				}
			}
		}
	}
	return matchers
}

// judgesByPath reports whether a matcher only uses the path.
func judgesByPath(matcher any) bool {
	switch m := matcher.(type) {
	case *caddyhttp.MatchPath, *caddyhttp.MatchPathRE:
		return true
	case *caddyhttp.MatchNot:
		return !(Way{m.MatcherSets}).Has(func(matcher any) bool { return !judgesByPath(matcher) })
	}
	return false
}
