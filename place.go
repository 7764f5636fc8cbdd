package caddyjwt

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// place is where in the server's routes a handler is being provisioned.
type place struct {
	server   *caddyhttp.Server // nil outside of the server's ordinary routes
	hosts    []string          // of the site; none for all
	way      way               // to the handler, as far as the path is that of the request
	siblings caddyhttp.RouteList
}

// placeOf finds the place by the routes that are being provisioned: their handlers
// are loaded one after the other, and the first that is not is on the way to
// this one.
func placeOf(ctx caddy.Context) (at place) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return at
	}
	lists := []caddyhttp.RouteList{server.Routes}
	if guard := serverGuardOf(server); guard != nil {
		lists[0] = guard.routes
	}
	for _, module := range ctx.Modules() {
		if subroute, ok := module.(*caddyhttp.Subroute); ok {
			lists = append(lists, subroute.Routes)
		}
	}
	rewritten := false
	for _, routes := range lists {
		i := slices.IndexFunc(routes, beingProvisioned)
		if i < 0 {
			return place{} // a named route, or one of errors
		}
		if rewritten = rewritten || slices.ContainsFunc(routes[:i], rewrites); rewritten { // as in handle_path
			at.way = nil
		} else if len(routes[i].MatcherSets) > 0 {
			at.way = append(at.way, routes[i].MatcherSets)
		}
		if hosts := hostsOf(routes[i].MatcherSets); len(hosts) > 0 {
			at.hosts = hosts
		}
		at.siblings = routes
	}
	at.server = server
	return at
}

func beingProvisioned(route caddyhttp.Route) bool { return len(route.HandlersRaw) > 0 }

func rewrites(route caddyhttp.Route) bool {
	return slices.ContainsFunc(route.Handlers, func(handler caddyhttp.MiddlewareHandler) bool {
		_, ok := handler.(*rewrite.Rewrite)
		return ok
	})
}

func hostsOf(sets caddyhttp.MatcherSets) (hosts []string) {
	for _, set := range sets {
		for _, matcher := range set {
			if host, ok := matcher.(*caddyhttp.MatchHost); ok {
				hosts = append(hosts, *host...)
			}
		}
	}
	return hosts
}

// pathsAround are the path matchers on the way.
func (at place) pathsAround() (paths []caddyhttp.MatchPath) {
	for _, sets := range at.way {
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

// outside returns the matchers around the handler by which no request for the path
// comes to it.
func (at place) outside(path string) (matchers []string) {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Header: http.Header{}}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, nil)
	for _, sets := range at.way {
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

// judgesByPath reports whether a matcher looks at nothing but the path.
func judgesByPath(matcher any) bool {
	switch m := matcher.(type) {
	case *caddyhttp.MatchPath, *caddyhttp.MatchPathRE:
		return true
	case *caddyhttp.MatchNot:
		return !(way{m.MatcherSets}).has(func(matcher any) bool { return !judgesByPath(matcher) })
	}
	return false
}

// accountsOfSites are the accounts of each site of the configs that are loaded.
var accountsOfSites = struct {
	sync.Mutex
	known map[*caddyhttp.Server][]claimedAccounts
}{known: make(map[*caddyhttp.Server][]claimedAccounts)}

type claimedAccounts struct {
	hosts  []string
	config Accounts
}

// claimAccounts refuses accounts where the site has others: both have the same
// cookies and, unless moved, the same routes, so one of them would be ignored.
func claimAccounts(ctx caddy.Context, config *Accounts) error {
	at := placeOf(ctx)
	if at.server == nil {
		return nil
	}
	accountsOfSites.Lock()
	defer accountsOfSites.Unlock()
	known := accountsOfSites.known[at.server]
	for _, other := range known {
		if len(at.hosts) > 0 && len(other.hosts) > 0 && !intersect(at.hosts, other.hosts) {
			continue
		}
		differ, err := differingOptions(other.config, *config)
		if err != nil {
			return err
		}
		if len(differ) > 0 {
			return fmt.Errorf("this site has accounts twice, with different %s; a site has one: write the block once, as a snippet, and import it where it is needed", strings.Join(differ, ", "))
		}
	}
	if len(known) == 0 {
		context.AfterFunc(ctx, func() {
			accountsOfSites.Lock()
			defer accountsOfSites.Unlock()
			delete(accountsOfSites.known, at.server)
		})
	}
	accountsOfSites.known[at.server] = append(known, claimedAccounts{at.hosts, *config})
	return nil
}

// differingOptions are the names, in JSON, of what two accounts do not share.
func differingOptions(a, b Accounts) ([]string, error) {
	var options [2]map[string]json.RawMessage
	for i, accounts := range []Accounts{a, b} {
		text, err := json.Marshal(accounts)
		if err == nil {
			err = json.Unmarshal(text, &options[i])
		}
		if err != nil {
			return nil, err
		}
	}
	names := maps.Clone(options[0])
	maps.Copy(names, options[1])
	return slices.DeleteFunc(slices.Sorted(maps.Keys(names)), func(name string) bool {
		return string(options[0][name]) == string(options[1][name])
	}), nil
}
