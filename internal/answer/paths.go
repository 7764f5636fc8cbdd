package answer

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// SeeOther redirects a browser to a path without changing it; http.Redirect would clean it.
func SeeOther(w http.ResponseWriter, location string) {
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// MountedAt returns the prefix that Caddy removed from the path before this site, as
// handle_path does. Links for browsers need it. It is usually empty.
func MountedAt(r *http.Request) string {
	original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	if !ok {
		return ""
	}
	prefix, found := strings.CutSuffix(original.URL.Path, r.URL.Path)
	if !found || SafeReturnPath(prefix, "") == "" {
		return ""
	}
	return (&url.URL{Path: prefix}).EscapedPath()
}

// SafeReturnPath returns where a browser goes after a log-in: path if it is a path of this
// site, otherwise fallback. It rejects anything that a browser could interpret as another
// site (CWE-601).
func SafeReturnPath(path, fallback string) string {
	if len(path) > 2048 || !strings.HasPrefix(path, "/") {
		return fallback
	}
	clean, _, _ := strings.Cut(path, "?")
	for text := path; ; {
		if strings.HasPrefix(text, "//") ||
			strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
			return fallback
		}
		decoded, err := url.PathUnescape(clean)
		if err != nil && text == path {
			return fallback
		}
		if err != nil || decoded == clean {
			break
		}
		text, clean = decoded, decoded
	}
	parsed, err := url.Parse(path)
	if err != nil || parsed.Scheme != "" || parsed.Host != "" || parsed.User != nil {
		return fallback
	}
	return path
}
