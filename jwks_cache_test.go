package caddyjwt_test

import (
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2"
)

func TestDiscovery(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.Serve(t, "jwt {\n issuer "+p.URL+"\n}\n respond ok")
	s.MustAnswer(200, s.Bearer(
		"/",
		sitetest.Sign(t, "RS256", keys.RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{"iss": p.URL})),
	), "found by discovery")

	s = sitetest.Serve(t, "jwt {\n issuer "+p.URL+"/\n}\n respond ok")
	got := s.Bearer("/", sitetest.Sign(
		t, "RS256", keys.RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{"iss": p.URL + "/"}),
	))
	s.MustAnswer(503, got, "the document names another issuer")
	if !strings.Contains(s.Log(), "with or without the slash at the end") {
		t.Errorf("the log does not say what is wrong:\n%s", s.Log())
	}
}

// URLs from discovery are subject to the same rules as URLs in the config.
func TestDiscoveryOfPlainHTTP(t *testing.T) {
	p := sitetest.NewIdentityProvider(t)
	document := func(keys string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.URL, keys)
		}
	}
	handler := document("http://keys.example/jwks")
	p.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(w, r) })
	s := sitetest.Serve(t, "jwt {\n issuer "+p.URL+"\n}\n respond ok")
	s.MustAnswer(503, s.Bearer(
		"/", sitetest.Sign(t, "RS256", sitetest.Keys().RSA, nil, sitetest.Claims(sitetest.JSON{"iss": p.URL})),
	), "keys over plain http")
	if !strings.Contains(s.Log(), "keys over plain http are only accepted from this machine") {
		t.Errorf("the log does not say why:\n%s", s.Log())
	}
}

// A set with a key without an ID may get a key with an ID: a token with that ID must not be
// verified with the other key.
func TestNewKeyBesideOneWithoutID(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, nil))
	s := sitetest.JWKSSite(t, p, "")
	s.MustAnswer(200, s.Bearer("/api/", sitetest.Sign(t, "RS256", keys.RSA, nil, sitetest.Claims(nil))), "control")
	p.SetKeys(sitetest.JWK(t, keys.RSA, nil), sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"kid": "new"}))
	s.MustAnswer(200, s.Bearer("/api/", sitetest.SignRS(t, keys.StrangerRSA, "new")), "the new key")
}

func TestUnknownKeyIsFetchedAtOnce(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.JWKSSite(t, p, "")
	s.MustAnswer(200, s.Bearer("/api/", sitetest.SignRS(t, keys.RSA, "a")), "control")
	p.SetKeys(
		sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}),
		sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"kid": "b"}),
	)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			s.MustAnswer(
				200, s.Bearer("/api/", sitetest.SignRS(t, keys.StrangerRSA, "b")), "the request that met the new key",
			)
		})
	}
	all.Wait()
	if got := p.Fetches.Load(); got != 2 {
		t.Errorf("%d fetches, expected 2: the first, and one for the new key", got)
	}
}

func TestKeysWithoutID(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, nil), sitetest.JWK(t, keys.P256, nil))
	s := sitetest.JWKSSite(t, p, "")
	s.MustAnswer(
		200, s.Bearer("/api/", sitetest.Sign(t, "RS256", keys.RSA, nil, sitetest.Claims(nil))),
		"one RSA key, no kid on either side",
	)
	s.MustAnswer(
		200, s.Bearer("/api/", sitetest.Sign(t, "ES256", keys.P256, sitetest.JSON{"kid": "x"}, sitetest.Claims(nil))),
		"one EC key without kid",
	)
	p.SetKeys(sitetest.JWK(t, keys.RSA, nil), sitetest.JWK(t, keys.StrangerRSA, nil))
	s = sitetest.JWKSSite(t, p, "refresh 9m")
	for _, key := range []any{keys.RSA, keys.StrangerRSA} {
		s.MustAnswer(
			200, s.Bearer("/api/", sitetest.Sign(t, "RS256", key, nil, sitetest.Claims(nil))),
			"two keys, and nothing tells which",
		)
	}
}

func TestThreatBadKeySets(t *testing.T) {
	keys := sitetest.Keys()
	elsewhere := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"kid": "a"}))
	p := sitetest.NewIdentityProvider(t)
	for name, bad := range sitetest.BadAnswers(t, p, elsewhere.URL) {
		t.Run(name, func(t *testing.T) {
			good := sitetest.SignRS(t, keys.RSA, "a")
			p.SetHandler(bad)
			s := sitetest.JWKSSite(t, p, "refresh 100ms\n cooldown 100ms\n timeout 200ms")
			got := s.Bearer("/api/", good)
			s.MustAnswer(503, got, "no key was ever had")
			if seconds, err := strconv.Atoi(got.Header.Get("Retry-After")); err != nil || seconds < 1 {
				t.Errorf("Retry-After %q", got.Header.Get("Retry-After"))
			}
			p.SetKeys(sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
			sitetest.Eventually(t, "control: it recovers by itself", func() bool {
				return s.Bearer("/api/", good).Status == 200
			})

			p.SetHandler(bad)
			before := p.Fetches.Load()
			sitetest.Eventually(t, "it is fetched twice more", func() bool { return p.Fetches.Load() >= before+3 })
			s.MustAnswer(200, s.Bearer("/api/", good), "the last good set is kept")
			s.MustAnswer(401, s.Bearer("/api/", sitetest.SignRS(t, keys.StrangerRSA, "a")), "a key of the bad answer")
		})
	}
	if got := elsewhere.Fetches.Load(); got != 0 {
		t.Errorf("%d fetches from the host that was redirected to", got)
	}
}

// Redirects are followed on the same host and scheme, at most three times.
func TestThreatRedirectedKeySet(t *testing.T) {
	set := sitetest.Marshal(t, sitetest.JSON{
		"keys": []any{sitetest.JWK(t, sitetest.Keys().RSA, sitetest.JSON{"kid": "a"})},
	})
	for _, c := range []struct {
		name   string
		times  int
		to     func(p *sitetest.IdentityProvider) string
		status int
		log    string
	}{
		{"control: three times", 3, func(*sitetest.IdentityProvider) string { return "/jwks" }, 200, ""},
		{
			"four times", 4, func(*sitetest.IdentityProvider) string { return "/jwks" },
			503, "redirected more than 3 times",
		},
		{
			"another scheme", 1,
			func(p *sitetest.IdentityProvider) string { return strings.Replace(p.URL, "http:", "https:", 1) },
			503, "redirected to another host, https://",
		},
		{"another host", 1, func(p *sitetest.IdentityProvider) string {
			return strings.Replace(p.URL, "127.0.0.1", "localhost", 1) + "/jwks"
		}, 503, "redirected to another host, http://localhost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sitetest.NewIdentityProvider(t)
			p.SetHandler(func(w http.ResponseWriter, r *http.Request) {
				if hops := len(r.URL.RawQuery); hops < c.times {
					http.Redirect(w, r, c.to(p)+"?"+strings.Repeat("h", hops+1), http.StatusFound)
					return
				}
				_, _ = io.WriteString(w, set)
			})
			s := sitetest.JWKSSite(t, p, "")
			s.MustAnswer(c.status, s.Bearer("/api/", sitetest.SignRS(t, sitetest.Keys().RSA, "a")), c.name)
			if !strings.Contains(s.Log(), c.log) {
				t.Errorf("the log does not say %q:\n%s", c.log, s.Log())
			}
		})
	}
}

// Key sets are fetched through the proxy in the environment. Go reads the environment once per
// process and uses no proxy for this machine, so the test needs a separate Caddy, and a host that
// only the proxy knows.
func TestKeySetThroughTheEnvironmentsProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "http://keys.example/jwks" {
			t.Errorf("the proxy is asked for %s", r.URL)
		}
		_, _ = io.WriteString(w, sitetest.Marshal(t, sitetest.JSON{
			"keys": []any{sitetest.JWK(t, sitetest.Keys().RSA, sitetest.JSON{"kid": "a"})},
		}))
	}))
	t.Cleanup(proxy.Close)
	body := "jwt {\n issuer https://issuer.example\n jwks http://keys.example/jwks {\n allow_http\n}\n}\n respond ok"
	for name, status := range map[string]int{proxy.URL: 200, "": 503} {
		t.Setenv("HTTP_PROXY", name)
		p := sitetest.StartProcess(t, sitetest.TempDir(t), sitetest.FreeAddress(t), body)
		p.MustAnswer(status, p.Bearer("/", sitetest.SignRS(t, sitetest.Keys().RSA, "a")), "proxy "+name)
	}
}

// An invalid key in a set does not affect the other keys.
func TestBadKeyBesideAGoodOne(t *testing.T) {
	keys := sitetest.Keys()
	good := sitetest.Marshal(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	for name, bad := range map[string]string{
		"a name twice":  `{"kty":"EC","foo":1,"foo":2}`,
		"invalid UTF-8": "{\"kty\":\"EC\",\"kid\":\"\xff\"}", "null": "null",
	} {
		p := sitetest.NewIdentityProvider(t)
		p.SetAnswer(200, `{"keys":[`+bad+`,`+good+`]}`)
		s := sitetest.JWKSSite(t, p, "")
		s.MustAnswer(200, s.Bearer("/api/", sitetest.SignRS(t, keys.RSA, "a")), name)
	}
}

// What is no key set is named by what it is.
func TestNotAKeySet(t *testing.T) {
	for answer, want := range map[string]string{
		"<html>log in</html>": "/jwks returned text/html, 19 bytes, not JSON; check the URL",
		"none":                "/jwks returned text/plain, 4 bytes, not JSON; check the URL",
		`{"issuer":"https://a.example","jwks_uri":"https://a.example/keys"}`: "is a discovery document, " +
			"not a key set; write the URL of the key set: jwks https://a.example/keys",
	} {
		p := sitetest.NewIdentityProvider(t)
		p.SetHandler(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
		s := sitetest.JWKSSite(t, p, "cooldown 100ms")
		sitetest.Eventually(t, answer, func() bool {
			return strings.Contains(s.Log(), "key set not usable and none is stored") && strings.Contains(s.Log(), want)
		})
	}
}

// An error is logged once, not at each attempt, although each attempt has another port.
func TestOutageIsLoggedOnce(t *testing.T) {
	p := sitetest.NewIdentityProvider(t)
	p.SetHandler(func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_ = connection.(*net.TCPConn).SetLinger(0)
		_ = connection.Close()
	})
	s := sitetest.JWKSSite(t, p, "cooldown 100ms")
	sitetest.Eventually(t, "it is tried ten times", func() bool { return p.Fetches.Load() >= 10 })
	if told := regexp.MustCompile(`"level":"warn".*key set not reachable`).FindAllString(s.Log(), -1); len(told) != 1 {
		t.Errorf("told %d times: %s", len(told), told)
	}
}

// A token has a key ID, and the key in the set has none: while the identity provider hangs, the
// known key is used.
func TestKeyWithoutIDWhileProviderHangs(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, nil))
	s := sitetest.JWKSSite(t, p, "refresh 100ms\n cooldown 1h\n timeout 30s")
	token := sitetest.SignRS(t, keys.RSA, "a")
	s.MustAnswer(200, s.Bearer("/api/", token), "control, which uses the cooldown up")
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	p.SetHandler(func(http.ResponseWriter, *http.Request) { <-hang })
	before := p.Fetches.Load()
	sitetest.Eventually(t, "a fetch hangs", func() bool { return p.Fetches.Load() > before })
	answered := make(chan sitetest.Reply, 1)
	other := sitetest.SignRS(t, keys.RSA, "b")
	go func() { answered <- s.Bearer("/api/", other) }()
	select {
	case got := <-answered:
		s.MustAnswer(200, got, "while it hangs")
	case <-time.After(10 * time.Second):
		t.Error("the request waits for the fetch")
	}
}

func TestThreatWithdrawnKey(t *testing.T) {
	keys := sitetest.Keys()
	a, b := sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}), sitetest.JWK(t, keys.P256, sitetest.JSON{"kid": "b"})
	p := sitetest.NewIdentityProvider(t, a, b)
	s := sitetest.JWKSSite(t, p, "refresh 200ms")
	withdrawn := sitetest.SignRS(t, keys.RSA, "a")
	kept := sitetest.Sign(t, "ES256", keys.P256, sitetest.JSON{"kid": "b"}, sitetest.Claims(nil))
	for range 3 { // remembered
		s.MustAnswer(200, s.Bearer("/api/", withdrawn), "control")
		s.MustAnswer(200, s.Bearer("/api/", kept), "control")
	}
	p.SetKeys(b)
	before := p.Fetches.Load()
	sitetest.Eventually(t, "the withdrawn key is refused", func() bool {
		return s.Bearer("/api/", withdrawn).Status == 401
	})
	if after := p.Fetches.Load(); after > before+2 {
		t.Errorf("refused after %d refreshes, expected one", after-before)
	}
	s.MustAnswer(200, s.Bearer("/api/", kept), "control: the other key is not")
}

func TestKeysStaleAfterMaxStale(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.JWKSSite(t, p, "refresh 100ms\n max_stale 1s\n cooldown 100ms")
	token := sitetest.SignRS(t, keys.RSA, "a")
	s.MustAnswer(200, s.Bearer("/api/", token), "control")
	p.SetAnswer(500, "")
	sitetest.Eventually(t, "tokens, remembered ones too, are refused after max_stale", func() bool {
		return s.Bearer("/api/", token).Status == 401
	})
	if challenge := s.Bearer("/api/", token).Header.Get("WWW-Authenticate"); !strings.Contains(
		challenge, "out of date",
	) {
		t.Errorf("challenge %q", challenge)
	}
	p.SetKeys(sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	sitetest.Eventually(t, "it recovers by itself", func() bool { return s.Bearer("/api/", token).Status == 200 })
}

func TestKeySetOutlivesReloads(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.JWKSSite(t, p, "")
	token := sitetest.SignRS(t, keys.RSA, "a")
	for range 5 {
		s.MustAnswer(200, s.Bearer("/api/", token), "over reloads")
		s.Load(sitetest.JWKSBody(p, ""), sitetest.TempDir(t))
	}
	if got := p.Fetches.Load(); got != 1 {
		t.Errorf("%d fetches over 5 reloads, expected 1", got)
	}
	s.Load(sitetest.JWKSBody(p, "refresh 9m"), sitetest.TempDir(t))
	s.MustAnswer(200, s.Bearer("/api/", token), "with other settings")
	if got := p.Fetches.Load(); got != 2 {
		t.Errorf("%d fetches, expected one more for other settings", got)
	}
	s.Load("respond ok", sitetest.TempDir(t))
	s.Load(sitetest.JWKSBody(p, "refresh 9m"), sitetest.TempDir(t))
	s.MustAnswer(200, s.Bearer("/api/", token), "used again")
	if got := p.Fetches.Load(); got != 3 {
		t.Errorf("%d fetches, expected one more: a key set that nothing uses is not kept", got)
	}
}

func TestKeySetIsStored(t *testing.T) {
	keys := sitetest.Keys()
	storage := sitetest.TempDir(t)
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.Serve(t, "respond ok")
	token := sitetest.SignRS(t, keys.RSA, "a")
	s.Load(sitetest.JWKSBody(p, "max_stale 1h"), storage)
	s.MustAnswer(200, s.Bearer("/api/", token), "control")
	sitetest.Eventually(t, "it is stored", func() bool { return len(sitetest.StoredKeySets(t, storage)) == 1 })
	p.SetAnswer(500, "down")

	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s.Load(sitetest.JWKSBody(p, "max_stale 1h"), storage)
	s.MustAnswer(200, s.Bearer("/api/", token), "after a restart, with the provider down")

	file := sitetest.StoredKeySets(t, storage)[0]
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ahead := regexp.MustCompile(`"fetched_at":"[^"]*"`).
		ReplaceAllString(string(text), `"fetched_at":"`+time.Now().Add(time.Minute).UTC().Format(time.RFC3339Nano)+`"`)
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"beyond max_stale":          {strings.Replace(string(text), `"fetched_at":"20`, `"fetched_at":"19`, 1), 401},
		"of a clock a minute ahead": {ahead, 200},
		"from the future":           {strings.Replace(string(text), `"fetched_at":"20`, `"fetched_at":"29`, 1), 503},
		"damaged":                   {string(text[:len(text)/2]), 503},
		"another URL's":             {strings.Replace(string(text), p.URL, "https://other.example", 1), 503},
	} {
		damaged := c.text
		if damaged == string(text) {
			t.Fatalf("%s: nothing was changed in %s", name, text)
		}
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Load("respond ok", storage)
		s.Load(sitetest.JWKSBody(p, "max_stale 1h"), storage)
		s.MustAnswer(c.status, s.Bearer("/api/", token), "a stored set "+name)
	}
}

// The identity provider is a site of the Caddy that verifies its tokens.
func TestProviderBehindTheSameCaddy(t *testing.T) {
	keys := sitetest.Keys()
	address := sitetest.FreeAddress(t)
	s := sitetest.Serve(t, "respond ok")
	root := sitetest.TempDir(t)
	for name, text := range map[string]string{
		".well-known/openid-configuration": `{"issuer":"http://` + address + `","jwks_uri":"http://` + address +
			`/jwks.json"}`,
		"jwks.json": sitetest.Marshal(t, sitetest.JSON{
			"keys": []any{sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"})},
		}),
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.Load(`
		jwt {
			issuer http://`+address+`
		}
		respond ok
	}
	http://`+address+` {
		root `+root+`
		file_server`, sitetest.TempDir(t))
	token := sitetest.Sign(
		t, "RS256", keys.RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{"iss": "http://" + address}),
	)
	sitetest.Eventually(t, "the site behind the same Caddy is asked", func() bool {
		return s.Bearer("/", token).Status == 200
	})
}

func TestPrivateCA(t *testing.T) {
	keys := sitetest.Keys()
	set := sitetest.Marshal(t, sitetest.JSON{"keys": []any{sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"})}})
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, set)
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(sitetest.TempDir(t), "ca.pem")
	if err := os.WriteFile(
		file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	body := "jwt {\n issuer https://issuer.example\n jwks " + server.URL + " {\n %s\n}\n}\n respond ok"
	s := sitetest.Serve(t, fmt.Sprintf(body, "trusted_ca_certs "+file))
	s.MustAnswer(200, s.Bearer("/", sitetest.SignRS(t, keys.RSA, "a")), "trusted by file")
	s = sitetest.Serve(t, fmt.Sprintf(body, ""))
	s.MustAnswer(503, s.Bearer("/", sitetest.SignRS(t, keys.RSA, "a")), "not trusted by the system")
}

func TestMetrics(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.JWKSSite(t, p, "")
	token := sitetest.SignRS(t, keys.RSA, "a")
	for range 3 {
		s.MustAnswer(200, s.Bearer("/api/", token), "control")
	}
	s.MustAnswer(401, s.Bearer("/api/", token+"x"), "refused")
	text := s.Get("/metrics").Body
	for _, series := range []string{
		`caddy_jwt_decisions_total{reason="valid_token",result="allowed",site="127.0.0.1"}`,
		`caddy_jwt_decisions_total{reason="signature",result="refused",site="127.0.0.1"}`,
		`caddy_jwt_decisions_total{reason="expired",result="refused",site="127.0.0.1"}`,
		`caddy_jwt_cache_lookups_total{result="hit"}`,
		`caddy_jwt_cache_lookups_total{result="miss"}`,
		`caddy_jwt_key_set_fetches_total{key_set="` + p.URL + `/jwks",result="ok"} 1`,
		`caddy_jwt_key_set_fetches_total{key_set="` + p.URL + `/jwks",result="error"} 0`,
		`caddy_jwt_key_set_age_seconds{key_set="` + p.URL + `/jwks"}`,
		`caddy_jwt_key_set_keys{key_set="` + p.URL + `/jwks"} 1`,
	} {
		if !strings.Contains(text, series) {
			t.Errorf("no series %s", series)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestWrongAlgorithmCausesNoFetch(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := sitetest.JWKSSite(t, p, "")
	s.MustAnswer(200, s.Bearer("/api/", sitetest.SignRS(t, keys.RSA, "a")), "control")
	s.MustAnswer(401, s.Bearer(
		"/api/", sitetest.Sign(t, "HS256", []byte(sitetest.Secret), sitetest.JSON{"kid": "new"}, sitetest.Claims(nil)),
	), "HS256")
	s.MustAnswer(401, s.Bearer("/api/", sitetest.Sign(
		t, "RS256", keys.RSA, sitetest.JSON{"kid": "new"},
		sitetest.Claims(sitetest.JSON{"iss": "https://other.example"}),
	)), "another issuer")
	if got := p.Fetches.Load(); got != 1 {
		t.Errorf("%d fetches, expected none but the first", got)
	}
}
