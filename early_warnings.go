package caddyjwt

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/upstream"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
)

// Caddy runs directives in a fixed order, and some of them before `jwt`. It cannot run `jwt`
// before these: `redir`, `header` and `rewrite` are between them, so what is redirected today
// would need a token, refusals would lack the site's headers, and matchers would judge the path
// before it is rewritten.

// earlyWarnings reports placeholders of the user in handlers that run before `jwt`. There they
// are empty or unknown, so that a folder for each user would be one for all of them.
func earlyWarnings(at place.Place) (warnings []warning) {
	for _, name := range slices.Concat(usesBefore(at.Earlier), usesIn(at.Named)) {
		warnings = append(warnings, warningOf(
			"placeholder-before-jwt",
			"%s uses {%s…}, but Caddy runs it before jwt, so the placeholder has no value there, for any user; "+
				"put both into a `route` block, in which the order is as written: first jwt, then the other",
			name, userPlaceholders,
		))
	}
	return warnings
}

// usesBefore returns what uses placeholders of the user in routes before `jwt`.
func usesBefore(routes caddyhttp.RouteList) []string {
	early := newEarlyUses()
	for _, route := range routes {
		if early.look(route) && isForAll(route) { // that one has warned, and what is after it is right
			return nil
		}
	}
	return early.names
}

// usesIn returns what does so before the `jwt` in each of the routes.
func usesIn(routes caddyhttp.RouteList) (names []string) {
	for _, route := range routes {
		early := newEarlyUses()
		early.look(route)
		names = append(names, early.names...)
	}
	return names
}

func isForAll(route caddyhttp.Route) bool {
	return len(route.MatcherSets)+len(route.MatcherSetsRaw) == 0
}

// earlyUses finds what uses placeholders of the user at once.
type earlyUses struct {
	ofUser []string // how the placeholders begin
	names  []string // of directives and matchers
}

// look looks at a route, up to the handler that sets the placeholders, and reports whether it has
// one.
func (e *earlyUses) look(route caddyhttp.Route) (sets bool) {
	for _, set := range route.MatcherSets {
		for _, matcher := range set {
			e.lookAt(matcher)
		}
	}
	for _, set := range route.MatcherSetsRaw {
		for name, text := range set {
			if e.uses(text) {
				e.names = append(e.names, "the matcher "+name)
			}
		}
	}
	for _, handler := range place.HandlersOf(route) {
		for _, inner := range handler.Routes {
			if e.look(inner) && isForAll(inner) {
				return true
			}
		}
		switch {
		case handler.Name == "jwt" || handler.Name == "authentication":
			return true
		case handler.Routes != nil || !e.uses(handler.Text):
		case handler.Name == "map": // it is lazy, and so are its outputs
			var mapping struct {
				Destinations []string `json:"destinations"`
			}
			if json.Unmarshal(handler.Text, &mapping) == nil {
				e.ofUser = append(e.ofUser, mapping.Destinations...)
			}
		case !usesLater(handler):
			e.names = append(e.names, directiveOf(handler))
		}
	}
	return false
}

func newEarlyUses() *earlyUses { return &earlyUses{ofUser: []string{"{" + userPlaceholders}} }

func (e *earlyUses) lookAt(matcher any) {
	if not, ok := matcher.(*caddyhttp.MatchNot); ok { // whose JSON is gone
		for _, set := range not.MatcherSets {
			for _, inner := range set {
				e.lookAt(inner)
			}
		}
		return
	}
	if text, err := json.Marshal(matcher); err == nil && e.uses(text) {
		e.names = append(e.names, "the matcher "+caddy.GetModuleName(matcher))
	}
}

func (e *earlyUses) uses(text []byte) bool {
	return slices.ContainsFunc(e.ofUser, func(begin string) bool { return strings.Contains(string(text), begin) })
}

// usesLater reports whether a handler reads placeholders only after `jwt` has run.
func usesLater(handler place.Handler) bool {
	switch handler.Name {
	case "log_append", "tracing":
		return true
	case "headers":
		var h headers.Handler
		return json.Unmarshal(handler.Text, &h) == nil && h.Request == nil && h.Response != nil &&
			(h.Response.Deferred || h.Response.Require != nil)
	}
	return false
}

// directiveOf returns the name of the directive that makes a handler.
func directiveOf(handler place.Handler) string {
	switch handler.Name {
	case "vars":
		if strings.Contains(string(handler.Text), `"root":`) {
			return "root"
		}
	case "static_response":
		return "redir or respond"
	case "headers":
		return "header (unless it is deferred, as in: header >X-User …)"
	}
	return handler.Name
}

// documents are the paths of what the directive serves, by their options.
func (h *Handler) documents() map[string]string {
	paths := make(map[string]string)
	if h.Resource != "" {
		paths["resource"] = resourceMetadataPath
	}
	if h.UpstreamToken != nil {
		issuer, err := url.Parse(h.UpstreamToken.Issuer)
		path := upstream.DefaultPath
		if err == nil && h.UpstreamToken.Issuer != "" {
			path = strings.TrimSuffix(issuer.Path, "/")
		}
		paths["upstream_token"] = path + "/.well-known/jwks.json"
	}
	for _, issuer := range h.Issuers {
		if issuer.BackchannelLogout != nil {
			paths["backchannel_logout"] = issuer.BackchannelLogout.Path
		}
	}
	return paths
}

// rewriteWarnings reports documents that a request cannot reach, because try_files or rewrite
// replaces their path.
func rewriteWarnings(documents map[string]string, at place.Place) (warnings []warning) {
	for _, option := range []string{"resource", "upstream_token", "backchannel_logout"} {
		if path := documents[option]; path != "" && at.Rewritten(path) {
			warnings = append(warnings, warningOf("rewrite-before-jwt",
				"%s: try_files or rewrite changes the path of requests for %s before they reach jwt; "+
					"put both into a `route` block, in which the order is as written: first jwt, then try_files",
				option, path,
			))
		}
	}
	return warnings
}
