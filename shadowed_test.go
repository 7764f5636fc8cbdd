package caddyjwt_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// What answers before `jwt` in a `route` block needs no token, and a warning says so; where a token
// is needed there is none.
func TestThreatAnsweredBeforeJWT(t *testing.T) {
	root := sitetest.TempDir(t)
	if err := os.WriteFile(filepath.Join(root, "x"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	jwt := "jwt {\n secret `" + sitetest.Secret + "`\n}\n"
	forPrivate := strings.Replace(jwt, "jwt", "jwt /private/*", 1)
	files := "file_server {\n root " + root + "\n}\n"
	for _, c := range []struct {
		name, body, path string
		open             bool   // without a token
		warning          string // the directive that it names; empty for none
	}{
		{"respond", "route {\n respond content\n " + jwt + "}", "/x", true, "respond"},
		{"file_server", "route {\n " + files + jwt + "}", "/x", true, "file_server"},
		{"reverse_proxy", "route /api/* {\n reverse_proxy 127.0.0.1:1\n " + jwt + "}", "/api/x", true, "reverse_proxy"},
		{"the same matcher", "route {\n respond /private/* content\n " + forPrivate + "}", "/private/x", true, "respond"},
		{"before a matcher", "route {\n respond content\n " + forPrivate + "}", "/private/x", true, "respond"},
		{"in a block", "route {\n handle {\n respond content\n}\n " + jwt + "}", "/x", true, "respond"},
		{"in a block of its own", "route {\n route {\n respond content\n}\n " + jwt + "}", "/x", true, "respond"},
		{"for all paths", "route {\n respond /* content\n " + jwt + "}", "/x", true, "respond"},
		{
			"for all, by name", "@all path *\n route {\n respond @all content\n " + jwt + "}", "/x", true, "respond",
		},
		{"in handle_path", "route {\n handle_path /* {\n respond content\n}\n " + jwt + "}", "/x", true, "respond"},
		{"for more paths", "route {\n respond /pri* content\n " + forPrivate + "}", "/private/x", true, "respond"},
		{"control: other paths", "route {\n respond /public/* ok\n " + jwt + "}", "/x", false, ""},
		{"control: a part of them", "route {\n respond /private/a* ok\n " + forPrivate + "}", "/private/x", false, ""},
		{"control: an error", "route {\n respond /x 401\n " + jwt + "}", "/x", false, ""},
		{"control: an error for all", "route {\n respond no 401\n " + jwt + "}", "/x", false, ""},
		{
			"control: a public path in a block", "route {\n route {\n respond /health ok\n}\n " + jwt +
				" respond content\n}", "/x", false, "",
		},
		{"control: after it", "route {\n " + jwt + " respond content\n}", "/x", false, ""},
		{"control: Caddy's order", "respond content\n " + jwt, "/x", false, ""},
		{"control: a public path", "route {\n respond /health ok\n " + jwt + " respond content\n}", "/x", false, ""},
		{"control: a redirect", "route {\n redir /old /new\n " + jwt + " respond content\n}", "/x", false, ""},
		{
			"control: in handle", "handle /public/* {\n respond ok\n}\n handle {\n " + jwt + " respond content\n}", "/x",
			false, "",
		},
		{
			"control: files that it may not have", "route {\n file_server {\n root " + root + "/none\n pass_thru\n}\n " +
				jwt + " respond content\n}", "/x", false, "",
		},
	} {
		s := sitetest.Serve(t, c.body)
		if got := s.Get(c.path); (got.Status == http.StatusUnauthorized) == c.open {
			t.Errorf("%s: %d %s", c.name, got.Status, got.Body)
		}
		log := s.Log()
		if warned := strings.Contains(log, "#answered-before-jwt"); warned != (c.warning != "") ||
			!strings.Contains(log, c.warning+" answers before jwt") && warned {
			t.Errorf("%s: %v\n%s", c.name, warned, log)
		}
	}
}
