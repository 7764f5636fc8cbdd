package web

import (
	"encoding/json"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Routes returns the routes of the accounts for a directive that contains them.
func Routes(h httpcaddyfile.Helper, users accounts.Config) []httpcaddyfile.ConfigValue {
	handler := &Handler{Config: users}
	config.Remember(h.Dispenser, handler)
	return append(h.NewRoute(users.Matcher(), handler), homeRoute(h, users)...)
}

// homeRoute returns the route from the prefix itself to the account page, for browsers. The location is relative,
// because the site may be below a path.
func homeRoute(h httpcaddyfile.Helper, users accounts.Config) []httpcaddyfile.ConfigValue {
	config.SetDefault(&users.Prefix, accounts.DefaultPrefix)
	if strings.Contains(users.Prefix, "{") || slices.Contains(slices.Collect(maps.Values(users.Routes)), users.Prefix) {
		return nil
	}
	matcher := make(caddy.ModuleMap)
	for name, value := range map[string]any{
		"path": []string{users.Prefix}, "method": []string{http.MethodGet, http.MethodHead},
		"header": http.Header{"Accept": {"*text/html*"}}, // an app may have an API there
	} {
		matcher[name], _ = json.Marshal(value) // marshaling strings cannot fail
	}
	return h.NewRoute(matcher, &caddyhttp.StaticResponse{
		StatusCode: caddyhttp.WeakString(strconv.Itoa(http.StatusSeeOther)),
		Headers: http.Header{
			"Location":      {path.Base(users.Prefix) + users.Path("account")[len(users.Prefix):]},
			"Cache-Control": {"no-store"},
		},
	})
}
