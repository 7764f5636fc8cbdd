package caddyjwt

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// shadowWarnings reports that requests are answered before `jwt`, as by `reverse_proxy` above it
// in a `route` block, where the order is as written: then no request needs a token.
func shadowWarnings(at place.Place) (warnings []warning) {
	var own caddyhttp.MatcherSets
	if i := slices.IndexFunc(at.Siblings, place.BeingProvisioned); i >= 0 {
		own = at.Siblings[i].MatcherSets
	}
	for _, route := range at.Earlier {
		if !covers(route, own) {
			continue // such as a public path
		}
		if name := answering(route); name != "" {
			return append(warnings, warningOf("answered-before-jwt",
				"%s answers before jwt, so no token is ever asked for; in a `route` block the order is as written: "+
					"put jwt above it", name))
		}
	}
	return nil
}

// covers reports whether a route gets each request that matchers match, as far as that can be told:
// all, those of the same matchers, or of paths below the same prefix.
func covers(route caddyhttp.Route, others caddyhttp.MatcherSets) bool {
	sets := route.MatcherSets
	switch {
	case len(sets) == 0:
		return len(route.MatcherSetsRaw) == 0 // else it is not provisioned yet
	case reflect.DeepEqual(sets, others):
		return true
	}
	return slices.ContainsFunc(sets, func(set caddyhttp.MatcherSet) bool {
		paths, ok := onlyPaths(set)
		if !ok {
			return false
		}
		return slices.ContainsFunc(paths, func(path string) bool {
			prefix, all := strings.CutSuffix(path, "*")
			return all && (strings.Trim(prefix, "/") == "" || len(others) > 0 && isBelow(prefix, others))
		})
	})
}

// isBelow reports whether matchers only match paths that begin with a prefix.
func isBelow(prefix string, sets caddyhttp.MatcherSets) bool {
	return !slices.ContainsFunc(sets, func(set caddyhttp.MatcherSet) bool {
		paths, ok := onlyPaths(set)
		return !ok || slices.ContainsFunc(paths, func(path string) bool { return !strings.HasPrefix(path, prefix) })
	})
}

// onlyPaths returns the paths of a matcher set that has no other matcher.
func onlyPaths(set caddyhttp.MatcherSet) (paths caddyhttp.MatchPath, ok bool) {
	if len(set) != 1 {
		return nil, false
	}
	switch matcher := set[0].(type) {
	case *caddyhttp.MatchPath:
		return *matcher, true
	case caddyhttp.MatchPath:
		return matcher, true
	}
	return nil, false
}

// answering returns the directive of a route that answers all requests; empty if there is none.
func answering(route caddyhttp.Route) string {
	for _, handler := range place.HandlersOf(route) {
		switch {
		case !answers(handler):
		case handler.Name == "static_response":
			return "respond"
		default:
			return handler.Name
		}
		for _, inner := range handler.Routes {
			if name := answering(inner); name != "" && covers(inner, nil) {
				return name
			}
		}
	}
	return ""
}

// answers reports whether a handler answers each request with content, and passes none on.
func answers(handler place.Handler) bool {
	switch handler.Name {
	case "static_response": // a redirect, an error, or the end of the connection gives nothing away
		var response caddyhttp.StaticResponse
		return json.Unmarshal(handler.Text, &response) == nil && !response.Abort &&
			slices.Contains([]string{"", "200"}, string(response.StatusCode))
	case "file_server":
		var files struct {
			PassThru bool `json:"pass_thru"`
		}
		return json.Unmarshal(handler.Text, &files) == nil && !files.PassThru
	case "reverse_proxy": // forward_auth is one too, and goes on
		var proxy struct {
			HandleResponse []json.RawMessage `json:"handle_response"`
		}
		return json.Unmarshal(handler.Text, &proxy) == nil && len(proxy.HandleResponse) == 0
	case "metrics":
		return true
	}
	return false
}
