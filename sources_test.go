package caddyjwt_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// sourceSite shows what is left of a request for the next handler.
func sourceSite(t *testing.T, options string) *sitetest.Site {
	t.Helper()
	return sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			`+options+`
		}
		respond "{http.auth.user.id}|{http.request.header.Authorization}|{http.request.header.X-Token}|`+
		`{http.request.header.Cookie}|{query}|{http.request.header.Sec-WebSocket-Protocol}"`)
}

// sourceCase is a request and the response to it. In the headers and in what is expected, {a} is a
// token of alice and {b} one of bob, and {old} is an expired one.
type sourceCase struct {
	name    string
	path    string
	headers []string
	status  int
	body    string // if the status is 200; what is left for the next handler
}

// left is a request that is accepted, and what is left of it for the next handler.
func left(name, body string, headers ...string) sourceCase {
	return sourceCase{name: name, path: "/", headers: headers, status: 200, body: body}
}

func refused(name string, status int, headers ...string) sourceCase {
	return sourceCase{name: name, path: "/", headers: headers, status: status}
}

func (c sourceCase) at(path string) sourceCase {
	c.path = path
	return c
}

func (c sourceCase) run(t *testing.T, s *sitetest.Site) sitetest.Reply {
	t.Helper()
	a, old := sitetest.HS256(t, nil), sitetest.HS256(t, sitetest.JSON{"exp": 1})
	parts := func(n int) string { return a[len(a)*n/3 : len(a)*(n+1)/3] }
	tokens := strings.NewReplacer(
		"{a}", a, "{b}", sitetest.HS256(t, sitetest.JSON{"sub": "bob"}), "{old}", old,
		"{a0}", parts(0), "{a1}", parts(1), "{a2}", parts(2), "{a64}", sitetest.Encode(a),
	)
	headers := make([]string, len(c.headers))
	for i, header := range c.headers {
		headers[i] = tokens.Replace(header)
	}
	got := s.Get(tokens.Replace(c.path), headers...)
	if want := tokens.Replace(c.body); got.Status != c.status || c.status == 200 && got.Body != want {
		t.Errorf("%s: %d %.200q, expected %d %q", c.name, got.Status, got.Body, c.status, want)
	}
	challenge := got.Header.Get("WWW-Authenticate")
	if c.status == 400 && !strings.Contains(challenge, `error="invalid_request"`) {
		t.Errorf("%s: challenge %q", c.name, challenge)
	}
	return got
}

func runSources(t *testing.T, options string, cases []sourceCase) {
	t.Helper()
	s := sourceSite(t, options)
	for _, c := range cases {
		c.run(t, s)
	}
}

func headers(lines ...string) []string { return lines }

// Equal tokens in two places are one, and strip_token removes all copies.
func TestEqualTokens(t *testing.T) {
	const header, cookie = "X-Token: {a}", "Cookie: x=1; t={a}"
	const sources = "from header X-Token\nfrom cookie t\nfrom query q\n"
	runSources(t, sources, []sourceCase{
		left("header and cookie", "alice||{a}|x=1; t={a}||", header, cookie),
		left("header and query", "alice||{a}||q={a}|", header).at("/?q={a}"),
		left("all", "alice||{a}|x=1; t={a}|q={a}|", header, cookie).at("/?q={a}"),
		refused("expired", 401, "X-Token: {old}", "Cookie: t={old}"),
		refused("another cookie", 400, header, "Cookie: t={b}"),
		refused("expired cookie", 400, header, "Cookie: t={old}"),
		refused("another query", 400, header, cookie).at("/?q={b}"),
		refused("the same header twice", 400, header, header),
		refused("the same cookie twice", 400, cookie+"; t={a}"),
		left("emptied cookie", "alice||{a}|t=||", header, "Cookie: t="),
	})
	runSources(t, sources+"strip_token", []sourceCase{
		left("stripped", "alice|||x=1|x=1|", header, cookie).at("/?q={a}&x=1"),
	})
}

// A page of another site cannot send a header, so equal tokens in a header and a cookie are not
// only sent by the browser. A different one in a cookie is, even if it is ignored.
func TestThreatCrossOriginWithSeveralSources(t *testing.T) {
	a, b := sitetest.HS256(t, nil), sitetest.HS256(t, sitetest.JSON{"sub": "bob"})
	const equal = "from header X-Token\nfrom cookie t\nfrom query q"
	const first = "from query q\nfrom header X-Token\nfrom cookie t\nfirst_source"
	for _, c := range []struct {
		name, options, path string
		headers             []string
		status              int
	}{
		{"attack: cookie", equal, "/", headers("Cookie: t=" + a), 403},
		{"header and cookie", equal, "/", headers("X-Token: "+a, "Cookie: t="+a), 200},
		{"header and cookie, which is first in the list", "from cookie t\nfrom header X-Token", "/",
			headers("X-Token: "+a, "Cookie: t="+a), 200},
		{"attack: cookie first", first, "/", headers("Cookie: t=" + a), 403},
		{"header first, another cookie", first, "/", headers("X-Token: "+a, "Cookie: t="+b), 200},
		{"query alone", first, "/?q=" + a, nil, 200},
		{"attack: query of the attacker, cookie of the user", first, "/?q=" + a, headers("Cookie: t=" + b), 403},
		{"the same with a malformed cookie", first, "/?q=" + a, headers("Cookie: t=" + b + "; t=" + b), 403},
		{"query and cookie equal", first, "/?q=" + a, headers("Cookie: t=" + a), 200},
	} {
		s := sourceSite(t, c.options)
		got := s.Do("POST", c.path, append(c.headers, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")...)
		s.MustAnswer(c.status, got, c.name)
		if got := s.Do("POST", c.path, c.headers...); got.Status != 200 {
			t.Errorf("control: %s: not from another site: %d", c.name, got.Status)
		}
	}
}

// Whoever puts a token into a cookie or the query gets a response that no shared cache stores.
func TestEqualTokensArePrivate(t *testing.T) {
	a := sitetest.HS256(t, nil)
	s := sourceSite(t, "from header X-Token\nfrom cookie t\nfrom query q")
	for _, c := range []struct {
		path          string
		headers       []string
		control, vary string
	}{
		{"/", headers("X-Token: " + a), "", ""},
		{"/", headers("X-Token: "+a, "Cookie: t="+a), "private", "Cookie"},
		{"/?q=" + a, headers("X-Token: " + a), "private", ""},
	} {
		got := s.Get(c.path, c.headers...)
		if got.Header.Get("Cache-Control") != c.control || got.Header.Get("Vary") != c.vary {
			t.Errorf("%s %d headers: Cache-Control %q, Vary %q", c.path[:2], len(c.headers),
				got.Header.Get("Cache-Control"), got.Header.Get("Vary"))
		}
	}
}

// With first_source, the first place that has a token decides, for better or worse.
func TestFirstSource(t *testing.T) {
	runSources(t, "from header\nfrom cookie t\nfirst_source", []sourceCase{
		left("expired cookie", "alice|Bearer {a}||t={old}||", "Authorization: Bearer {a}", "Cookie: t={old}"),
		left("deleted cookie", "alice|Bearer {a}||t=deleted||", "Authorization: Bearer {a}", "Cookie: t=deleted"),
		left("two cookies", "alice|Bearer {a}||t={b}; t={a}||", "Authorization: Bearer {a}", "Cookie: t={b}; t={a}"),
		refused("expired header", 401, "Authorization: Bearer {old}", "Cookie: t={a}"),
		refused("malformed header", 400, "Authorization: Bearer {a} {a}", "Cookie: t={a}"),
		refused("no token", 400, "Authorization: Bearer", "Cookie: t={a}"),
		refused("two headers", 400, "Authorization: Bearer {a}", "Authorization: Bearer {a}"),
		left("another scheme", "alice|Basic YTpi||t={a}||", "Authorization: Basic YTpi", "Cookie: t={a}"),
		refused("none", 401),
	})
	runSources(t, "from cookie t\nfrom header\nfirst_source", []sourceCase{
		left("another token for the upstream", "alice|Bearer opaque||t={a}||",
			"Authorization: Bearer opaque", "Cookie: t={a}"),
		refused("expired cookie first", 401, "Authorization: Bearer {a}", "Cookie: t={old}"),
		left("no cookie", "alice|Bearer {a}||||", "Authorization: Bearer {a}"),
	})
	runSources(t, "from cookie t\nfrom header\nfirst_source\nstrip_token", []sourceCase{
		left("all are removed", "alice|||x=1||", "Authorization: Bearer opaque", "Cookie: x=1; t={a}"),
	})
	runSources(t, "from cookie t\nfrom header", []sourceCase{
		refused("default", 400, "Authorization: Bearer opaque", "Cookie: t={a}"),
	})
}

// A token without a scheme is the whole value of the header. Credentials of a scheme are not.
func TestThreatTokenWithoutScheme(t *testing.T) {
	malformed := []sourceCase{
		refused("two tokens", 400, "Authorization: {a}, {a}"),
		refused("two tokens without a space", 400, "Authorization: {a},{a}"),
		refused("two tokens, a space", 400, "Authorization: {a} {a}"),
		refused("two short tokens", 400, "Authorization: opaque_1 opaque_2"),
		refused("a token and a scheme", 400, "Authorization: {a}, Bearer {a}"),
		refused("Bearer alone", 400, "Authorization: Bearer"),
		refused("bearer alone, space", 400, "Authorization: bearer "),
		refused("two headers", 400, "Authorization: {a}", "Authorization: {a}"),
		refused("a word", 401, "Authorization: token"),
		refused("empty", 401, "Authorization: "),
		refused("Basic", 401, "Authorization: Basic YTpi"),
		refused("Digest", 401, `Authorization: Digest username="a", realm="b"`),
	}
	runSources(t, `from header Authorization ""`, append([]sourceCase{
		left("control", "alice|{a}||||", "Authorization: {a}"),
		left("spaces around", "alice|{a}||||", "Authorization:  {a} "),
		refused("Bearer", 401, "Authorization: Bearer {a}"),
		refused("Bearer, two parts", 401, "Authorization: Bearer {a} {a}"),
		refused("Negotiate alone", 400, "Authorization: Negotiate"),
	}, malformed...))
	runSources(t, "from header\nfrom header Authorization \"\"", append([]sourceCase{
		left("control", "alice|{a}||||", "Authorization: {a}"),
		left("control, Bearer", "alice|bEARER {a}||||", "Authorization: bEARER {a}"),
		refused("Bearer, two parts", 400, "Authorization: Bearer {a} {a}"),
		refused("Basic and Bearer", 400, "Authorization: Basic YTpi, Bearer {a}"),
	}, malformed...))
	runSources(t, "from header X-Token Bearer\nfrom header X-Token\nstrip_token", []sourceCase{
		left("control", "alice|||||", "X-Token: {a}"),
		left("control, Bearer", "alice|||||", "X-Token: Bearer {a}"),
		refused("another scheme", 400, "X-Token: Token {a}"),
		refused("Bearer alone", 400, "X-Token: Bearer"),
		refused("two parts", 400, "X-Token: Bearer {a} {a}"),
		refused("both", 400, "X-Token: {a}, Bearer {a}"),
		refused("twice", 400, "X-Token: Bearer {a}", "X-Token: {a}"),
	})
	runSources(t, "from header Authorization \"\"\noptional\nstrip_token", []sourceCase{
		left("Basic is for the upstream", "|Basic YTpi||||", "Authorization: Basic YTpi"),
		left("stripped", "alice|||||", "Authorization: {a}"),
		refused("a malformed one is not none", 400, "Authorization: {a} {a}"),
	})
	runSources(t, "from header", []sourceCase{
		refused("default", 401, "Authorization: {a}"),
	})
}

// A cookie that is too large for a browser is sent in parts.
func TestThreatCookieInParts(t *testing.T) {
	many := func(n int) string {
		text := "t.0={a}"
		for i := 1; i < n; i++ {
			text += fmt.Sprintf("; t.%d=", i)
		}
		return text
	}
	runSources(t, "from cookie t", []sourceCase{
		left("control", "alice|||t={a}||", "Cookie: t={a}"),
		left("three", "alice|||t.0={a0}; t.1={a1}; t.2={a2}||", "Cookie: t.0={a0}; t.1={a1}; t.2={a2}"),
		left("in any order", "alice|||t.2={a2}; x=1; t.0={a0}; t.1={a1}||",
			"Cookie: t.2={a2}; x=1; t.0={a0}; t.1={a1}"),
		left("one", "alice|||t.0={a}||", "Cookie: t.0={a}"),
		left("in quotes", `alice|||t.0="{a0}"; t.1="{a1}{a2}"||`, `Cookie: t.0="{a0}"; t.1="{a1}{a2}"`),
		left("32", "alice|||"+many(32)+"||", "Cookie: "+many(32)),
		refused("33", 400, "Cookie: "+many(33)),
		refused("1000", 400, "Cookie: "+many(1000)),
		refused("a large number", 400, "Cookie: t.0={a}; t.99999999999999999999=x"),
		refused("ten parts", 401, "Cookie: "+many(10)+"; t.10=x"),
		refused("without the first", 400, "Cookie: t.1={a0}; t.2={a1}{a2}"),
		refused("a gap", 400, "Cookie: t.0={a0}; t.2={a1}{a2}"),
		refused("one twice", 400, "Cookie: t.0={a0}; t.1={a1}; t.1={a1}; t.2={a2}"),
		refused("whole and in parts", 400, "Cookie: t={a}; t.0={a}"),
		refused("whole and a part that is left over", 400, "Cookie: t={a}; t.1={a}"),
		left("whole and cleared parts", "alice|||t={a}; t.0=; t.1=||", "Cookie: t={a}; t.0=; t.1="),
		left("parts and a cleared whole", "alice|||t=; t.0={a}||", "Cookie: t=; t.0={a}"),
		left("other names", "alice|||t={a}; t.00=x; t.x=y; t.=z; tt.0=a; t.0x=b; t.-1=c||",
			"Cookie: t={a}; t.00=x; t.x=y; t.=z; tt.0=a; t.0x=b; t.-1=c"),
		refused("a part with a leading zero", 401, "Cookie: t.00={a}"),
		refused("emptied", 401, "Cookie: t.0=; t.1="),
		refused("a blank that only Unicode knows", 401, "Cookie: \u00a0t.0={a}"),
		refused("two of three", 401, "Cookie: t.0={a0}; t.1={a1}"),
	})
	runSources(t, "from cookie t\nstrip_token", []sourceCase{
		left("stripped", "alice|||x.0=1; t.x=2; tC1=3||", "Cookie: x.0=1; t.0={a0}; t.1={a1}{a2}; t.x=2; tC1=3"),
		left("stripped, listed", "alice|||x=1||", "Cookie: x=1; t=chunks-2; tC1={a0}; tC2={a1}{a2}; tC3=left"),
	})
	// ASP.NET says how many there are.
	runSources(t, "from cookie t", []sourceCase{
		left("control", "alice|||tC2={a2}; t=chunks-2; tC1={a0}{a1}||", "Cookie: tC2={a2}; t=chunks-2; tC1={a0}{a1}"),
		left("older", "alice|||t=chunks:1; tC1={a}||", "Cookie: t=chunks:1; tC1={a}"),
		refused("one is missing", 400, "Cookie: t=chunks-3; tC1={a}; tC2="),
		refused("one twice", 400, "Cookie: t=chunks-1; tC1={a}; tC1={a}"),
		refused("too many", 400, "Cookie: t=chunks-33; tC1={a}"),
		refused("an endless number", 400, "Cookie: t=chunks-99999999999999999999; tC1={a}"),
		refused("no number", 401, "Cookie: t=chunks-; tC1={a}"),
		refused("negative", 401, "Cookie: t=chunks--1; tC1={a}"),
		refused("not said", 401, "Cookie: tC1={a}"),
		left("beside a whole one", "alice|||t={a}; tC1=x||", "Cookie: t={a}; tC1=x"),
		refused("both kinds", 400, "Cookie: t=chunks-1; tC1={a}; t.0={a}"),
	})
}

// A cookie with a scheme, as frameworks set it.
func TestCookieWithScheme(t *testing.T) {
	runSources(t, "from cookie t\nstrip_token", []sourceCase{
		left("in quotes", "alice|||||", `Cookie: t="{a}"`),
		left("scheme in quotes", "alice|||x=1||", `Cookie: x=1; t="Bearer {a}"`),
		left("scheme", "alice|||||", "Cookie: t=bearer {a}"),
		left("encoded space", "alice|||||", "Cookie: t=Bearer%20{a}"),
		left("plus", "alice|||||", "Cookie: t=Bearer+{a}"),
		left("in parts", "alice|||||", `Cookie: t.0="Bearer {a0}"; t.1={a1}{a2}`),
		refused("scheme alone", 400, "Cookie: t=Bearer"),
		refused("scheme and a space", 400, `Cookie: t="Bearer "`),
		refused("two tokens", 400, `Cookie: t="Bearer {a} {a}"`),
		refused("scheme twice", 400, `Cookie: t="Bearer Bearer {a}"`),
		refused("another scheme", 401, `Cookie: t="Basic {a}"`),
		refused("no space", 401, "Cookie: t=Bearer{a}"),
	})
}

// The session cookie of the accounts is one cookie.
func TestSessionCookieHasNoParts(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	token := s.SignedUp("alice@example.com").Token
	s.MustAnswer(200, s.Get("/todos/", "Cookie: session="+token), "control")
	s.MustAnswer(200, s.Get("/todos/", "Cookie: session="+token+"; session.0=x"), "a cookie with another name")
	for _, cookie := range []string{
		"session.0=" + token, "session=Bearer%20" + token, "session=chunks-1; sessionC1=" + token,
	} {
		s.MustAnswer(401, s.Get("/todos/", "Cookie: "+cookie), cookie[:12])
	}
}

// openWebSocket sends the request that opens a WebSocket, and returns the response.
func openWebSocket(t *testing.T, s *sitetest.Site, protocols ...string) *http.Response {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	request := "GET / HTTP/1.1\r\nHost: " + strings.TrimPrefix(s.URL, "http://") + "\r\n" +
		"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, protocol := range protocols {
		request += "Sec-WebSocket-Protocol: " + protocol + "\r\n"
	}
	if _, err := conn.Write([]byte(request + "\r\n")); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// readSome returns the beginning of a body.
func readSome(response *http.Response) string {
	var body [4096]byte
	n, _ := response.Body.Read(body[:])
	return string(body[:n])
}

// A script in a browser sends the token of a WebSocket as a subprotocol.
func TestThreatWebSocketProtocol(t *testing.T) {
	a, b := sitetest.HS256(t, nil), sitetest.HS256(t, sitetest.JSON{"sub": "bob"})
	a64 := sitetest.Encode(a)
	const k8s = "base64url.bearer.authorization.k8s.io"
	for _, c := range []struct {
		name, option string
		protocols    []string
		status       int
		left         string // with strip_token
	}{
		{"control", "", headers("bearer, " + a), 200, "bearer"},
		{"other case", "", headers("Bearer," + a), 200, "Bearer"},
		{"beside others", "", headers("graphql-ws, bearer, " + a + ", v2"), 200, "graphql-ws, bearer, v2"},
		{"several fields", "", headers("graphql-ws", "bearer, "+a), 200, "graphql-ws, bearer"},
		{"divided by fields", "", headers("bearer", a), 200, "bearer"},
		{"a name of one's own", "access_token", headers("access_token, " + a), 200, "access_token"},
		{"Kubernetes", k8s, headers(k8s + "." + a64 + ", base64.binary.k8s.io"), 200, "base64.binary.k8s.io"},
		{"Kubernetes, with a dot in the config", k8s + ".", headers("v4.channel.k8s.io, " + k8s + "." + a64), 200,
			"v4.channel.k8s.io"},
		{"Kubernetes, alone", k8s, headers(k8s + "." + a64), 200, ""},
		{"no token", "", headers("bearer"), 400, ""},
		{"nothing", "", nil, 401, ""},
		{"others only", "", headers("graphql-ws"), 401, ""},
		{"token only", "", headers(a), 401, ""},
		{"token first", "", headers(a + ", bearer"), 400, ""},
		{"two tokens", "", headers("bearer, " + a + ", bearer, " + b), 400, ""},
		{"the same twice", "", headers("bearer, "+a, "bearer, "+a), 400, ""},
		{"not a token", "", headers("bearer, graphql-ws"), 401, ""},
		{"Kubernetes, not encoded", k8s, headers(k8s + "." + a), 400, ""},
		{"Kubernetes, padded", k8s, headers(k8s + "." + sitetest.Encode(a+"x") + "="), 400, ""},
		{"Kubernetes, a line break", k8s, headers(k8s + "." + sitetest.Encode(a+"\n")), 400, ""},
		{"Kubernetes, two", k8s, headers(k8s + "." + a64 + ", " + k8s + "." + a64), 400, ""},
		{"Kubernetes, no token", k8s, headers(k8s + "."), 400, ""},
	} {
		s := sourceSite(t, "from websocket_protocol "+c.option+"\nstrip_token")
		response := openWebSocket(t, s, c.protocols...)
		body, want := readSome(response), "alice|||||"+c.left
		if response.StatusCode != c.status || c.status == 200 && body != want {
			t.Errorf("%s: %d %.200q, expected %d %q", c.name, response.StatusCode, body, c.status, want)
		}
	}
	s := sourceSite(t, "from websocket_protocol")
	s.MustAnswer(401, s.Get("/", "Sec-WebSocket-Protocol: bearer, "+a), "not a WebSocket")
	s.MustAnswer(
		401, s.Do("GET", "/", "Sec-WebSocket-Protocol: bearer, "+a, "Upgrade: h2c", "Connection: Upgrade"), "h2c",
	)
	if body := readSome(openWebSocket(t, s, "bearer, "+a)); body != "alice|||||bearer, "+a {
		t.Errorf("without strip_token: %q", body)
	}
	s = sourceSite(t, "from header")
	if response := openWebSocket(t, s, "bearer, "+a); response.StatusCode != 401 {
		t.Errorf("not configured: %d", response.StatusCode)
	}
}
