package answer

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// SeeOther sends a browser to a path as it is written, which http.Redirect
// would clean.
func SeeOther(w http.ResponseWriter, location string) {
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// MountedAt is what Caddy took off the path before this site saw it, as
// handle_path does: browsers need it in links. It is mostly empty.
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

// SafeReturnPath is where a browser goes after a log-in: a path of this site,
// or the standard one. Whatever a browser could take for another site is none
// (CWE-601).
func SafeReturnPath(path, standard string) string {
	if len(path) > 2048 || !strings.HasPrefix(path, "/") {
		return standard
	}
	clean, _, _ := strings.Cut(path, "?")
	for text := path; ; {
		if strings.HasPrefix(text, "//") || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
			return standard
		}
		decoded, err := url.PathUnescape(clean)
		if err != nil && text == path {
			return standard
		}
		if err != nil || decoded == clean {
			break
		}
		text, clean = decoded, decoded
	}
	parsed, err := url.Parse(path)
	if err != nil || parsed.Scheme != "" || parsed.Host != "" || parsed.User != nil {
		return standard
	}
	return path
}
