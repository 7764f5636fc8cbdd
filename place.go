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
	server *caddyhttp.Server // nil outside of a server
	hosts  string            // of the site, separated by blanks; empty for all
	paths  []caddyhttp.MatchPath
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
	for _, module := range ctx.Modules() {
		if subroute, ok := module.(*caddyhttp.Subroute); ok {
			lists = append(lists, subroute.Routes)
		}
	}
	for depth, routes := range lists {
		i := slices.IndexFunc(routes, func(route caddyhttp.Route) bool { return len(route.HandlersRaw) > 0 })
		if i < 0 {
			return place{} // a named route, or one of errors
		}
		for _, set := range routes[i].MatcherSets {
			for _, matcher := range set {
				switch m := matcher.(type) {
				case *caddyhttp.MatchHost:
					if depth == 0 {
						at.hosts = strings.Join(slices.Sorted(slices.Values(*m)), " ")
					}
				case *caddyhttp.MatchPath:
					at.paths = append(at.paths, *m)
				}
			}
		}
		if slices.ContainsFunc(routes[:i], rewrites) { // as in handle_path: what is matched is not what was asked for
			at.paths = nil
		}
	}
	at.server = server
	return at
}

func rewrites(route caddyhttp.Route) bool {
	return slices.ContainsFunc(route.Handlers, func(handler caddyhttp.MiddlewareHandler) bool {
		_, ok := handler.(*rewrite.Rewrite)
		return ok
	})
}

// reaches reports whether a request for the path comes to the handler.
func (s place) reaches(path string) bool { return len(s.outside(path)) == 0 }

// outside returns the path matchers around the handler that do not match.
func (s place) outside(path string) (patterns []string) {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Header: http.Header{}}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, nil)
	for _, matcher := range s.paths {
		if matches, err := matcher.MatchWithError(r); err == nil && !matches {
			patterns = append(patterns, matcher...)
		}
	}
	return patterns
}

// accountsOfSites are the accounts of each site of the configs that are loaded.
var accountsOfSites = struct {
	sync.Mutex
	known map[string]Accounts // by server and hosts
}{known: make(map[string]Accounts)}

// claimAccounts refuses accounts where the site has others: both have the same
// cookies and, unless moved, the same routes, so one of them would be ignored.
func claimAccounts(ctx caddy.Context, config *Accounts) error {
	at := placeOf(ctx)
	if at.server == nil {
		return nil
	}
	accountsOfSites.Lock()
	defer accountsOfSites.Unlock()
	key := fmt.Sprintf("%p %s", at.server, at.hosts)
	other, claimed := accountsOfSites.known[key]
	if !claimed {
		accountsOfSites.known[key] = *config
		context.AfterFunc(ctx, func() {
			accountsOfSites.Lock()
			defer accountsOfSites.Unlock()
			delete(accountsOfSites.known, key)
		})
		return nil
	}
	differ, err := differingOptions(other, *config)
	if err != nil || len(differ) == 0 {
		return err
	}
	return fmt.Errorf("this site has accounts twice, with different %s; a site has one: write the block once, as a snippet, and import it where it is needed", strings.Join(differ, ", "))
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
