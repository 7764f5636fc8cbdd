package caddyjwt

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// open returns a counter if the request does not require a token, because it is a preflight
// or its path is public; otherwise nil.
func (h *Handler) open(r *http.Request) prometheus.Counter {
	switch {
	case h.AllowPreflight && isPreflight(r):
		return h.allowed.preflight
	case len(h.Public) > 0 && h.isPublic(r):
		return h.allowed.public
	}
	return nil
}

// isPreflight implements the Fetch standard §3.3.2.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
}

// isPublic applies Caddy's path matcher to every interpretation of the path. If the path
// may name a script (`/admin.php/x.css`), it is public only by a pattern with a fixed
// beginning.
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

// hasOpenBeginning reports whether a pattern of Public can match by the end of the path.
func hasOpenBeginning(pattern string) bool {
	return strings.Contains(strings.TrimSuffix(pattern, "*"), "*")
}
