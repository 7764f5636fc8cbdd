package caddyjwt

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// The readings of a path include those of other programs, unless there are too many. A path that
// counts as ordinary has only one reading.
func FuzzPath(f *testing.F) {
	for _, pattern := range sitetest.AmbiguousPaths {
		f.Add(fmt.Sprintf(
			strings.Replace(strings.Replace(pattern, "%s", "%[1]s", 1), "%s", "%[2]s", 1), "/static", "secret",
		))
	}
	for _, seed := range []string{
		"/", "/a.b/c.tar.gz", "/@scope%2fpackage", "/admin.php/x.css",
		"//host/x", "/x;y=1/z", "*", "", "/%", "/..", "/a/..", "/.../x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Path == "" {
			return
		}
		r := &http.Request{Method: http.MethodGet, URL: u}
		found, err := readings(r)
		if ordinary(u) {
			if err != nil || len(found) != 1 || found[0] != u.Path || len(scripts(u.Path, true)) > 0 {
				t.Fatalf("%q is called ordinary and is read as %q, %v", target, found, err)
			}
		}
		if err != nil {
			return
		}
		others := map[string]string{
			"Caddy, decoded":         u.Path,
			"Caddy's matchers":       caddyhttp.CleanPath(u.Path, true),
			"Go's ServeMux":          cleanAsServeMux(u.Path),
			"path.Clean, of the raw": decodeOrdinary(path.Clean(u.EscapedPath())),
			"no decoding":            decodeOrdinary(u.EscapedPath()),
			"no dot segments":        u.JoinPath().Path,
		}
		if twice, err := url.PathUnescape(u.Path); err == nil {
			others["decoded twice"] = twice
			others["decoded twice, cleaned"] = caddyhttp.CleanPath(twice, true)
		}
		if resolved, err := url.Parse("http://host"); err == nil && !strings.HasPrefix(target, "//") {
			if reference, err := url.Parse(strings.ReplaceAll(u.EscapedPath(), "%5C", "/")); err == nil {
				others["WHATWG, RFC 3986"] = resolved.ResolveReference(reference).Path
			}
		}
		if script, pathInfo, found := strings.Cut(u.Path, ".php/"); found { // as php_fastcgi and PHP-FPM split
			if ran := scripts(u.Path, false); !slices.Contains(ran, script+".php") {
				t.Fatalf(
					"PHP runs %q of %q with PATH_INFO /%s, which is none of %q", script+".php", target, pathInfo, ran,
				)
			}
		}
		for reader, reading := range others {
			if reading == "" ||
				slices.ContainsFunc(found, func(known string) bool { return sameReading(known, reading) }) {
				continue
			}
			t.Fatalf("%s reads %q as %q, which is none of %q", reader, target, reading, found)
		}
	})
}

// sameReading ignores a slash at the end, which does not leave a folder, and equivalent encodings.
func sameReading(a, b string) bool {
	return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/")
}

func cleanAsServeMux(p string) string {
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		return clean + "/"
	}
	return clean
}
