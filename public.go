package caddyjwt

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// open returns the counter of requests that need no token, of preflights or for public
// paths; nil for any other.
func (h *Handler) open(r *http.Request) prometheus.Counter {
	switch {
	case h.AllowPreflight && isPreflight(r):
		return preflight
	case len(h.Public) > 0 && h.isPublic(r):
		return publicPath
	}
	return nil
}

// isPreflight follows the Fetch standard §3.3.2.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// isPublic asks Caddy's own path matcher, of each reading of the path. What a script
// in the path may be taken for (`/admin.php/x.css`) is public only by a
// pattern with a fixed beginning.
func (h *Handler) isPublic(r *http.Request) bool {
	public, alike := judgePath(r, h.Public.MatchWithError)
	if !public || !alike || ordinary(r.URL) {
		return public && alike
	}
	if scripts, err := scriptsOf(r, true); err == nil && len(scripts) == 0 {
		return true
	}
	public, alike = judgePath(r, h.rooted.MatchWithError)
	return public && alike
}

// hasOpenBeginning reports whether a pattern of Public matches by the path's end.
func hasOpenBeginning(pattern string) bool {
	return strings.Contains(strings.TrimSuffix(pattern, "*"), "*")
}
