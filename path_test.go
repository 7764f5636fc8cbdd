package caddyjwt_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/quic-go/quic-go/http3"
)

// If a path decides, all its readings must lead to the same decision.
func TestThreatPathsReadInTwoWays(t *testing.T) {
	upstream := sitetest.NewUpstream(t)
	reverse, secret := "\nreverse_proxy "+upstream, "secret \""+sitetest.Secret+"\"\n"
	sites := sitetest.ServeSeveral(t,
		"jwt {\n"+secret+"public /static/* /health *.css /*/free\n}"+reverse,
		"jwt /secret/* {\n"+secret+"}\n @named {\n path_regexp ^/named/\n method GET\n}\n jwt @named {\n"+
			secret+"}"+reverse,
		"jwt {\n"+secret+"}\n jwt /secret/* {\n"+secret+"require role admin\n}"+reverse,
		"jwt {\n"+secret+"require expression claims.sub == {http.request.uri.path.1}\n}"+reverse)
	public, matcher, role, owner := sites[0], sites[1], sites[2], sites[3]
	token := "Authorization: Bearer " + sitetest.HS256(t, nil)
	never := func(got sitetest.Reply, why string) {
		t.Helper()
		if got.Status == 200 {
			t.Errorf("%s reached the upstream: %q", why, got.Body)
		}
	}
	for _, pattern := range sitetest.AmbiguousPaths {
		there := fmt.Sprintf(
			strings.Replace(strings.Replace(pattern, "%s", "%[1]s", 1), "%s", "%[2]s", 1), "/static", "secret/x",
		)
		never(public.Get(there), "public: "+there)
		out := fmt.Sprintf(
			strings.Replace(strings.Replace(pattern, "%s", "%[1]s", 1), "%s", "%[2]s", 1), "/secret", "x",
		)
		never(matcher.Get(out), "matcher: "+out)
		matcher.MustAnswer(400, matcher.Get(out, token), "matcher, with a token: "+out)
		never(matcher.Get(strings.Replace(out, "/secret", "/named", 1)), "named matcher: "+out)
		in := fmt.Sprintf(
			strings.Replace(strings.Replace(pattern, "%s", "%[1]s", 1), "%s", "%[2]s", 1), "/x", "secret/x",
		)
		never(matcher.Get(in), "matcher, from outside: "+in)
		never(role.Get(out, token), "rule by matcher: "+out)
		never(role.Get(in, token), "rule by matcher, from outside: "+in)
		own := fmt.Sprintf(
			strings.Replace(strings.Replace(pattern, "%s", "%[1]s", 1), "%s", "%[2]s", 1), "/todos/alice", "bob",
		)
		owner.MustAnswer(403, owner.Get(own, token), "owner: "+own)
	}
	for path, why := range map[string]string{
		"/secret;a=b/x": "path parameter", "/secret%3ba=b/x": "encoded parameter",
		"/secret%253bx/x": "parameter encoded twice", "/secret%2fx": "encoded slash",
		"/secret%5cx": "encoded backslash", `/secret\x`: "backslash",
		"/secret%20/x": "blank at the end of a name", "/secret./x": "dot at the end of a name",
		"//host/secret/x": "authority", `/\host/secret/x`: "authority by backslash",
		"//secret/x": "two slashes", "///host/secret/x": "three slashes", "/////host/secret/x": "five slashes",
		"/x%2fy/%2e%2e/secret/x": "encoded slash that joins", "/./secret/x": "dot segment",
		"/secret%252fx": "slash encoded twice", "/%2573ecret/x": "letter encoded twice",
		"/s%c1%a5cret/x": "overlong letter", "/\uff53ecret/x": "full-width letter",
		"/secret%00/x": "NUL", "/secre%09t/x": "tab in a name",
	} {
		never(matcher.Get(path), why+", matcher: "+path)
		never(role.Get(path, token), why+", rule by matcher: "+path)
	}
	for _, path := range []string{
		"/admin%00.css", "/admin%0a.css", "/admin;x.css", "/admin%3bx.css", "/admin%3f.css", "/admin%253fx.css",
		"/admin%23.css", "/admin%2523.css", "/admin;/free", "//static/admin/x", `/\static/admin`,
		"/admin.php/x.css", "/admin.php/.css", "/admin.PHP/x.css", "/admin.php%2fx.css", "/admin.php%252fx.css",
		"/admin.php;/x.css", "/a/admin.php/b/x.css", "/admin.cgi/x.css", "/admin.php5/x.css",
		"/admin.phtml/free", "/admin.php.css", "/.php/x.css", "/admin.php./x.css", "/admin.php/free",
	} {
		public.MustAnswer(401, public.Get(path), "public: "+path)
	}
	for path, status := range map[string]int{
		"/api/v4/projects/group%2Fname": 200, "/@scope%2fpackage": 200, "/a.b/c.tar.gz": 200, "/.well-known/x": 200,
		"/v1.2/x": 200, "/x%20y/z": 200, "/caf%C3%A9/x": 200, "/\u4e00\u4e2f/x": 200, "/cars;color=red/x": 200,
		"/a..b/c": 200, "/...x/y": 200, "/x/": 200, "/a:b@c/!$&'()*+,=": 200,
		"/jquery-3.7.1.min.js": 200, "/~user/x": 200, "/100%25": 200, "/x%2By": 200,
		"//": 200, "/x//y": 200, "/index.php/x": 200, "/?x=/secret/..": 200,
		"/secret/v4/projects/group%2Fname": 401, "/secret/@scope%2fpackage": 401, "/secret/a.b/c.tar.gz": 401,
		"/secret/x;color=red/y": 401, "/secret/%41": 401, "/%73ecret/x": 401, "/SECRET/x": 401, "/secret//x": 401,
	} {
		matcher.MustAnswer(status, matcher.Get(path), "control, matcher: "+path)
		got := matcher.Get(path, token)
		matcher.MustAnswer(200, got, "control, matcher, with a token: "+path)
		asSent, _, _ := strings.Cut(path, "?")
		if u, err := url.Parse(asSent); !strings.HasPrefix(got.Body, "GET "+asSent) &&
			(err != nil || !strings.HasPrefix(got.Body, "GET "+u.EscapedPath())) {
			t.Errorf("%s went on as %q", path, got.Body)
		}
	}
	for _, path := range []string{
		"/static/x", "/STATIC/x", "/health", "/static//x", "/static/group%2Fname",
		"/static/a.b/c.tar.gz", "/static/x.php/y", "/static/.well-known/x", "/static/v1.2/x",
		"/static/x%20y", "/static/caf%C3%A9", "/static/a;b=1/x", "/%73tatic/x",
		"/a/b.css", "/b.min.css", "/v1.2/b.css", "/jquery-3.7.1/b.css", "/.hidden/b.css", "/caf%C3%A9.css", "/x/free",
	} {
		public.MustAnswer(200, public.Get(path), "control, public: "+path)
	}
	for _, path := range []string{
		"/todos/alice", "/todos/alice/x%2Fy", "/todos/alice/a.b/c", "/todos/alice/x;y=1",
		"/todos/alice/caf%C3%A9", "/todos/%61lice/x", "/todos/alice/", "/todos/alice/\U0001F468\u200d\U0001F469",
	} {
		owner.MustAnswer(200, owner.Get(path, token), "control, owner: "+path)
	}
}

// clientsByVersion are of HTTP/1.1, 2 and 3.
func clientsByVersion(t *testing.T) map[string]http.RoundTripper {
	t.Helper()
	trusting := func(protocols ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: protocols}
	}
	second := new(http.Protocols)
	second.SetHTTP2(true)
	third := &http3.Transport{TLSClientConfig: trusting("h3")}
	t.Cleanup(func() { _ = third.Close() })
	return map[string]http.RoundTripper{
		"HTTP/1.1": &http.Transport{TLSClientConfig: trusting("http/1.1"), DisableKeepAlives: true},
		"HTTP/2":   &http.Transport{TLSClientConfig: trusting("h2"), Protocols: second},
		"HTTP/3":   third,
	}
}

// If a handle block or a variable decides which requests reach jwt, all readings are checked too.
func TestThreatPathsAroundJWT(t *testing.T) {
	reverse, secret := "\nreverse_proxy "+sitetest.NewUpstream(t)+"\n", "secret \""+sitetest.Secret+"\"\n"
	sites := map[string]*sitetest.Site{}
	var bodies []string
	names := []string{"blocks", "route", "map", "vars", "nested", "json"}
	for _, name := range names {
		bodies = append(bodies, map[string]string{
			"blocks": "handle /secret/* {\n jwt {\n" +
				secret + "require role admin\n}" + reverse + "}\n handle {\n jwt {\n" + secret + "}" + reverse + "}",
			"route": "route /secret/* {\n jwt {\n" + secret + "}" + reverse + "}" + reverse,
			"map": "map {path} {need} {\n ~^/secret/ 1\n default 0\n}\n @need expression {need}==\"1\"\n" +
				" jwt @need {\n" + secret + "}" + reverse,
			"vars": "vars area {path.0}\n @area vars area secret\n jwt @area {\n" + secret + "}" + reverse,
			"nested": "handle {\n handle /secret/* {\n jwt {\n" +
				secret + "}" + reverse + "}\n handle {" + reverse + "}\n}",
			"json": "@secret path /secret/*\n route @secret {\n jwt {\n" + secret + "}\n}" + reverse,
		}[name])
	}
	for i, s := range sitetest.ServeSeveral(t, bodies...) {
		sites[names[i]] = s
	}
	token := "Authorization: Bearer " + sitetest.HS256(t, nil)
	for name, s := range sites {
		for _, pattern := range sitetest.AmbiguousPaths {
			for _, way := range [][2]string{{"/secret", "x"}, {"/x", "secret/x"}} {
				path := fmt.Sprintf(
					strings.Replace(strings.Replace(pattern, "%s", "%[1]s", 1), "%s", "%[2]s", 1), way[0], way[1],
				)
				if got := s.Get(path, token); got.Status == 200 &&
					(name == "blocks" || !strings.HasPrefix(path, "/secret")) || s.Get(path).Status == 200 {
					t.Errorf("%s: %s reached the upstream", name, path)
				}
			}
		}
		want := map[bool]int{true: 401, false: 200}[name == "blocks"]
		if name != "map" && name != "vars" { // only one reading of them is known
			s.MustAnswer(want, s.Get("/x/group%2Fname"), name+": control: open")
		}
		s.MustAnswer(401, s.Get("/secret/x"), name+": control: no token")
		s.MustAnswer(200, s.Get("/x/caf%C3%A9/a.b/c", token), name+": control: other paths")
		s.MustAnswer(
			map[bool]int{true: 403, false: 200}[name == "blocks"],
			s.Get("/secret/x", token), name+": control: with a token",
		)
	}
}

// The work for a hostile path is bounded, and a body is read once.
func TestThreatPathsThatCost(t *testing.T) {
	secret := "secret \"" + sitetest.Secret + "\"\n"
	sites := sitetest.ServeSeveral(t,
		"jwt /secret/* {\n"+secret+"}\n respond ok",
		"jwt {\n"+secret+"require expression claims.sub == {http.request.uri.path.1}\n}\n respond ok",
		"@b expression {http.request.body}.contains('zz')\n jwt @b {\n"+
			secret+"}\n reverse_proxy "+sitetest.NewUpstream(t))
	token := "Authorization: Bearer " + sitetest.HS256(t, nil)
	for _, tail := range []string{
		strings.Repeat("//a", 3000) + strings.Repeat("/a1.b", 200), strings.Repeat("/./a", 3000),
		strings.Repeat("/a;b%5c%2520.", 100) + "//x%2f" + strings.Repeat("/c.d", 60),
		strings.Repeat("/a.php", 2000) + "/x",
	} {
		sites[0].MustAnswer(400, sites[0].Get("/y"+tail), "matcher: "+tail[:12])
		sites[1].MustAnswer(403, sites[1].Get("/todos/alice"+tail, token), "owner: "+tail[:12])
	}
	for path, body := range map[string]string{"/x": "hello", "/caf%C3%A9": "hello"} {
		if got := sites[2].Send(http.MethodPost, path, body); got.Status != 200 {
			t.Errorf("control: a body that is read: %s: %d %s", path, got.Status, got.Body)
		}
	}
}

// CONNECT has no path for a matcher.
func TestThreatConnect(t *testing.T) {
	seen := make(chan string, 8)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen <- r.Method }))
	t.Cleanup(upstream.Close)
	port := sitetest.ServeTLS(t, map[string]string{"localhost": "jwt /api/* {\n secret \"" + sitetest.Secret +
		"\"\n}\n reverse_proxy " + strings.TrimPrefix(upstream.URL, "http://")})
	for version, client := range clientsByVersion(t) {
		for _, method := range []string{http.MethodGet, http.MethodConnect} {
			request, err := http.NewRequest(method, "https://localhost:"+port, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.RoundTrip(request)
			if err != nil {
				t.Fatalf("%s %s: %v", version, method, err)
			}
			_ = response.Body.Close()
			if !strings.HasPrefix(response.Proto, version) {
				t.Errorf("%s answers by %s", version, response.Proto)
			}
			if method == http.MethodConnect && response.StatusCode != 400 ||
				method == http.MethodGet && response.StatusCode != 200 {
				t.Errorf("%s: %s: %s", version, method, response.Status)
			}
		}
	}
	for range len(seen) {
		if method := <-seen; method != http.MethodGet {
			t.Errorf("the upstream saw %s", method)
		}
	}
}

// Express routes by prefix and resolves nothing.
func TestThreatPathsBehindExpress(t *testing.T) {
	folder := caddytest.NPM(t, "testdata/upstreams")
	command := exec.CommandContext(t.Context(), "node", "express.mjs")
	command.Dir = folder
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	scenario.Start(t, command)
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		t.Fatal("Express does not start")
	}
	upstream := "127.0.0.1:" + lines.Text()
	public := sitetest.Serve(
		t, "jwt {\n secret \""+sitetest.Secret+"\"\n public /static/*\n}\n reverse_proxy "+upstream,
	)
	for _, path := range []string{
		"/graphql", "/graphql/../static/x", "/graphql/%2e%2e/static/x",
		"/admin/delete-all/../../static/x", "//static/graphql",
	} {
		public.MustAnswer(401, public.Get(path), "public: "+path)
	}
	if got := public.Get("/static/x"); got.Status != 200 || got.Body != "other /static/x" {
		t.Errorf("control: %d %s", got.Status, got.Body)
	}
	matcher := sitetest.Serve(t, "jwt /graphql* {\n secret \""+sitetest.Secret+"\"\n}\n reverse_proxy "+upstream)
	for _, path := range []string{"/graphql/../x", "/graphql/%2e%2e/x", "/graphql/./../x"} {
		matcher.MustAnswer(400, matcher.Get(path), "matcher: "+path)
	}
	matcher.MustAnswer(401, matcher.Get("/graphql/x"), "control: no token")
	if got := matcher.Bearer("/graphql/x", sitetest.HS256(t, nil)); got.Body != "ran graphql" {
		t.Errorf("control: %d %s", got.Status, got.Body)
	}
}

// PHP splits a path at the name of a script.
func TestThreatPathsBehindPHP(t *testing.T) {
	found, _ := filepath.Glob("/usr/sbin/php-fpm*")
	if len(found) == 0 {
		caddytest.Missing(t, "php-fpm")
	}
	folder := sitetest.TempDir(t)
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("index.php", "<?php echo 'ran index ', $_SERVER['PATH_INFO'] ?? '';")
	write("admin.php", "<?php echo 'ran admin ', $_SERVER['HTTP_X_USER'] ?? 'nobody';")
	write("s.css", "a {}")
	if err := os.Mkdir(filepath.Join(folder, "assets"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("assets/a.css", "b {}")
	fpm := sitetest.FreeAddress(t)
	write("fpm.conf", "[global]\nerror_log = "+folder+"/fpm.log\ndaemonize = no\n[www]\nlisten = "+fpm+
		"\npm = static\npm.max_children = 1\nuser = nobody\ngroup = nogroup\nsecurity.limit_extensions = .php\n")
	command := exec.Command(found[0], "--nodaemonize", "--fpm-config", folder+"/fpm.conf", "-n")
	scenario.Start(t, command)
	t.Cleanup(func() { // by a signal that it passes on to its workers
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
	})
	sitetest.Eventually(t, "php-fpm listens", func() bool {
		connection, err := net.Dial("tcp", fpm)
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	})
	s := sitetest.Serve(t, `
		root * `+folder+`
		jwt {
			secret "`+sitetest.Secret+`"
			public *.css /assets/*
			claim_header X-User sub
		}
		php_fastcgi `+fpm+`
		file_server`)
	for _, path := range []string{
		"/admin.php", "/admin.php/x.css", "/admin.php/.css", "/admin.php%2fx.css",
		"/index.php/any/route.css", "/ADMIN.php/x.css", "/admin.php/a/b.css",
		"/assets/../admin.php/x.css", "/admin.php/../assets/x", "/assets/..%2fadmin.php",
	} {
		s.MustAnswer(401, s.Get(path, "X-User: root"), path)
	}
	s.MustAnswer(200, s.Get("/s.css"), "control: a file")
	s.MustAnswer(200, s.Get("/assets/a.css"), "control: a file in a public folder")
	if got := s.Bearer("/admin.php/x.css", sitetest.HS256(t, nil)); got.Body != "ran admin alice" {
		t.Errorf("control: with a token: %d %q", got.Status, got.Body)
	}
	scripts := sitetest.Serve(
		t, "root * "+folder+"\n @php path *.php\n jwt @php {\n secret \""+sitetest.Secret+"\"\n}\n php_fastcgi "+fpm,
	)
	for _, path := range []string{"/admin.php/x", "/admin.php/x.css", "/admin.php%2fx"} {
		if got := scripts.Get(path); got.Status == 200 {
			t.Errorf("matcher *.php: %s: %s", path, got.Body)
		}
	}
	scripts.MustAnswer(401, scripts.Get("/admin.php"), "control: matcher *.php")
}

// Trailers come after the body, and some upstreams treat them as headers.
func TestThreatClaimHeadersAsTrailers(t *testing.T) {
	seen := make(chan http.Header, 8)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer.Clone()
	}))
	t.Cleanup(upstream.Close)
	site := `
		jwt /api/* {
			secret "` + sitetest.Secret + `"
			claim_header X-User-Id sub
		}
		reverse_proxy ` + strings.TrimPrefix(upstream.URL, "http://")
	port := sitetest.ServeTLS(t, map[string]string{"localhost": site})
	for version, client := range clientsByVersion(t) {
		for _, path := range []string{"/open", "/api/x"} {
			for _, declared := range []string{"X-Ok", "X-Ok X-User-Id", "X_User_Id X-Ok"} {
				body, ended := io.Pipe()
				request, err := http.NewRequest(http.MethodPost, "https://localhost:"+port+path, body)
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Authorization", "Bearer "+sitetest.HS256(t, nil))
				request.Trailer = http.Header{}
				for name := range strings.FieldsSeq(declared) {
					request.Trailer[name] = nil
				}
				go func() {
					_, _ = ended.Write([]byte("a"))
					for name := range request.Trailer {
						request.Trailer[name] = []string{map[bool]string{true: "1", false: "evil"}[name == "X-Ok"]}
					}
					_ = ended.Close()
				}()
				response, err := client.RoundTrip(request)
				if err != nil || response.StatusCode != 200 {
					t.Fatalf("%s: %v %v", version, response, err)
				}
				_ = response.Body.Close()
				checkTrailers(t, version+", "+path+", "+declared, <-seen, version != "HTTP/3")
			}
		}
	}
	s := sitetest.Serve(t, site)
	for _, path := range []string{"/open", "/api/x"} {
		// what comes is not what was declared
		for _, declared := range []string{"X-Ok", "X-Ok, X-User-Id", "X_User_Id, X-Ok"} {
			connection, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(
				connection,
				"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer %s\r\n"+
					"Transfer-Encoding: chunked\r\nTrailer: %s\r\n\r\n1\r\na\r\n0\r\nX-User-Id: evil\r\n"+
					"X_User_Id: evil\r\nX-Ok: 1\r\n\r\n",
				path, sitetest.HS256(t, nil), declared,
			)
			response, err := http.ReadResponse(bufio.NewReader(connection), nil)
			if err != nil || response.StatusCode != 200 {
				t.Fatalf("%v %v", response, err)
			}
			_ = connection.Close()
			checkTrailers(t, path+", "+declared, <-seen, true)
		}
	}
}

// checkTrailers requires X-Ok in the trailers, if the protocol's server passes trailers on, and no
// claim header.
func checkTrailers(t *testing.T, what string, trailers http.Header, handedOn bool) {
	t.Helper()
	if handedOn && trailers.Get("X-Ok") != "1" {
		t.Errorf("control: %s: %v", what, trailers)
	}
	for name := range trailers {
		if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), "X-User-Id") && trailers.Get(name) != "" {
			t.Errorf("%s: the upstream saw %v", what, trailers)
		}
	}
}

// An error of a directive before jwt leads into handle_errors.
func TestThreatClaimHeadersInHandleErrors(t *testing.T) {
	upstream := sitetest.NewUpstream(t)
	for name, around := range map[string]string{
		"at the top": "%s", "in a block": "handle /api/* {\n%s\n}",
		"in a named route": "}\n&(app) {\n%s\n----------\ninvoke app",
	} {
		s := sitetest.Serve(t, fmt.Sprintf(around, `jwt {
				secret "`+sitetest.Secret+`"
				claim_header X-User-Id sub
				public /public
			}`)+`
			root * `+sitetest.TempDir(t)+`
			try_files {path} =404
			respond ok
			handle_errors 404 {
				reverse_proxy `+upstream+`
			}`)
		for _, path := range []string{"/nothere", "/api/nothere"} {
			got := s.Get(
				path, "X-User-Id: evil", "X_User_Id: evil", "X-Other: fine",
				"Authorization: Bearer "+sitetest.HS256(t, nil),
			)
			if strings.Contains(got.Body, "evil") {
				t.Errorf("%s: %s: the upstream saw %s", name, path, got.Body)
			}
			if !strings.Contains(got.Body, "X-Other: fine") {
				t.Errorf("%s: control: %s: %d %s", name, path, got.Status, got.Body)
			}
		}
	}
}
