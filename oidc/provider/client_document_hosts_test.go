package provider_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/provider"
)

// Only URLs of a listed host are loaded. What is refused is refused before a request is sent.
func TestThreatClientDocumentURLs(t *testing.T) {
	p := publish(t)
	s, chrome := serveDocuments(t, p.host)
	p.put("/client.json", p.document("/client.json", nil))
	for name, id := range map[string]string{
		"another host": "https://evil.example/client.json", "a longer host": "https://" + p.host + ".evil.example/client.json",
		"a user": "https://" + p.host + "@evil.example/client.json", "a user at the host": "https://x@" + p.host + "/client.json",
		"another port": "https://127.0.0.1:1/client.json", "no port": "https://127.0.0.1/client.json",
		"another name of the host": "https://localhost:" + p.host[len("127.0.0.1:"):] + "/client.json",
		"no path":                  p.URL, "the root": p.URL + "/", "a fragment": p.URL + "/client.json#x",
		"an empty fragment": p.URL + "/client.json#", "dots": p.URL + "/x/../client.json", "a dot": p.URL + "/./client.json",
		"encoded dots": p.URL + "/x/%2e%2e/client.json", "a backslash": p.URL + `\client.json`,
		"plain http elsewhere": "http://evil.example/client.json", "a file": "file:///etc/passwd",
		"no host": "https:///client.json", "another script": "https://сlaude.ai/client.json", "a blank": p.URL + "/ client.json", "too long": p.URL + "/" + strings.Repeat("x", 1024),
	} {
		got := chrome.Get(p.request(s, id, nil))
		if got.Status != 400 || got.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v", name, got.Status, got.Header)
		}
	}
	if n := p.requests(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if got := chrome.Get(p.request(s, p.URL+"/client.json", nil)); got.Status != 303 {
		t.Errorf("the listed one: %d %s", got.Status, got.Body)
	}
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(p.document("/", sitetest.JSON{
			"client_id": "http://" + r.Host + "/c", "redirect_uris": []string{"http://127.0.0.1/callback"},
		})))
	}))
	t.Cleanup(plain.Close)
	s.load("client_documents "+strings.TrimPrefix(plain.URL, "http://"), "", s.dir)
	got := chrome.Get(p.request(s, plain.URL+"/c", url.Values{"redirect_uri": {"http://127.0.0.1:99/callback"}}))
	if got.Status != 303 {
		t.Errorf("http on this machine: %d %s", got.Status, got.Body)
	}
	s.load("client_documents intranet.example:8443", "", s.dir)
	got = chrome.Get(p.request(s, "http://intranet.example:8443/client.json", nil))
	if got.Status != 400 || !strings.Contains(got.Body, "it must be https") {
		t.Errorf("http elsewhere: %d %s", got.Status, got.Body)
	}
}

// Users are asked every time, also if the redirect URI is of a site; the servers of the other tests
// are on this machine, for which they would be asked anyway.
func TestThreatClientDocumentAsksAlways(t *testing.T) {
	at, err := url.Parse("https://claude.example/client.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := provider.ConsentOfDocument(
		`{"client_id":"https://claude.example/client.json","redirect_uris":["https://claude.example/callback"]}`, at,
	)
	if err != nil || got != "always" {
		t.Errorf("%q %v", got, err)
	}
}

// Without the option, a URL is as unknown as any other client.
func TestClientDocumentsAreOff(t *testing.T) {
	p := publish(t)
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	got := chrome.Get(p.request(s, p.put("/client.json", p.document("/client.json", nil)), nil))
	if got.Status != 400 || p.loads("/client.json") != 0 {
		t.Errorf("%d, loaded %d times", got.Status, p.loads("/client.json"))
	}
	if _, found := s.Get("/.well-known/openid-configuration").JSON(t)["client_id_metadata_document_supported"]; found {
		t.Error("the metadata has it")
	}
}

// With `client_documents *`, documents at addresses that are not public are not loaded, and a
// stranger does not learn why.
func TestThreatClientDocumentOfPrivateAddress(t *testing.T) {
	s, chrome := serveDocuments(t, "*")
	p := publish(t)
	for _, host := range []string{
		"127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
		"255.255.255.255", "[::ffff:10.0.0.1]", "[::ffff:127.0.0.1]", "localhost",
	} {
		got := chrome.Get(p.request(s, "https://"+host+"/client.json", nil))
		if got.Status != 503 || !strings.Contains(got.Body, " cannot be loaded") || strings.Contains(got.Body, "not an allowed") {
			t.Errorf("%s: %d %s", host, got.Status, got.Body)
		}
		if log := s.Log(); !strings.Contains(log, `"client_id":"https://`+host+`/client.json"`) ||
			!strings.Contains(log[strings.LastIndex(log, "client document was refused"):], "is not an allowed address") {
			t.Errorf("%s: the log does not say that it was not connected to", host)
		}
	}
	// with a port only if the config names it
	if got := chrome.Get(p.request(s, p.put("/client.json", p.document("/client.json", nil)), nil)); got.Status != 400 {
		t.Errorf("%d", got.Status)
	}
	if n := p.loads("/client.json"); n != 0 {
		t.Error("it was loaded")
	}
}

// The address of a connection is checked, not the name, so that a name that resolves to another
// address later leads nowhere. The same server is reached where the config allows it.
func TestThreatClientDocumentConnects(t *testing.T) {
	p := publish(t)
	at, err := url.Parse(p.put("/client.json", p.document("/client.json", nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"public", "private"} {
		if err := provider.FetchDocument(t.Context(), at, from); err == nil || p.loads("/client.json") != 0 {
			t.Errorf("as of a %s server: %v", from, err)
		}
	}
	if err := provider.FetchDocument(t.Context(), at, "this machine"); err != nil || p.loads("/client.json") != 1 {
		t.Errorf("as of this machine: %v", err)
	}
}

func TestPublicAddresses(t *testing.T) {
	for address, public := range map[string]bool{
		"1.1.1.1": true, "93.184.216.34": true, "172.32.0.1": true, "100.128.0.1": true, "::ffff:1.1.1.1": true,
		"2606:4700::1": true, "2a00:1450::1": true, "2003::1": true,
		"0.0.0.0": false, "10.0.0.1": false, "100.64.0.1": false, "100.127.255.255": false, "127.0.0.1": false,
		"127.255.255.255": false, "169.254.169.254": false, "172.16.0.1": false, "172.31.255.255": false,
		"192.0.0.1": false, "192.0.2.1": false, "192.88.99.1": false, "192.168.0.1": false, "198.18.0.1": false,
		"198.19.255.255": false, "198.51.100.1": false, "203.0.113.1": false, "224.0.0.1": false, "240.0.0.1": false,
		"255.255.255.255": false, "::": false, "::1": false, "::127.0.0.1": false, "::ffff:127.0.0.1": false,
		"::ffff:169.254.169.254": false, "64:ff9b::a00:1": false, "64:ff9b:1::1": false, "100::1": false,
		"2001::1": false, "2001:db8::1": false, "2002:a00:1::": false, "2002:7f00:1::1": false, "3fff::1": false,
		"fc00::1": false, "fd00:ec2::254": false, "fe80::1": false, "fe80::1%eth0": false, "fec0::1": false, "ff02::1": false,
	} {
		if got := provider.IsPublic(netip.MustParseAddr(address)); got != public {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// A document is loaded once, then again when its age is over; a change counts from then on. An
// outage of its server does not log users out; an error is remembered for seconds.
func TestClientDocumentIsRemembered(t *testing.T) {
	clock := sitetest.SetClock(t)
	p := publish(t)
	s, chrome := serveDocuments(t, p.host)
	status := func(path string) int { return chrome.Get(p.request(s, p.URL+path, nil)).Status }
	expect := func(why, path string, wantStatus, wantLoads int) {
		t.Helper()
		if got := status(path); got != wantStatus || p.loads(path) != wantLoads {
			t.Errorf("%s: %s: status %d, loaded %d times; expected %d and %d", why, path, got, p.loads(path), wantStatus, wantLoads)
		}
	}
	for path, header := range map[string]string{
		"/usual": "X: x", "/short": "Cache-Control: max-age=1", "/none": "Cache-Control: no-store", "/wrong": "Cache-Control: max-age=x",
		"/long": "Cache-Control: public, max-age=864000",
	} {
		p.put(path, p.document(path, nil), header)
		expect("first", path, 303, 1)
		expect("again", path, 303, 1)
	}
	clock.Ahead.Add(90)
	expect("after 90 s", "/short", 303, 2)
	expect("after 90 s", "/none", 303, 2)
	expect("after 90 s", "/usual", 303, 1)
	clock.Ahead.Add(9 * 60)
	expect("after 10 min", "/usual", 303, 2)
	expect("after 10 min", "/wrong", 303, 2)
	expect("after 10 min", "/long", 303, 1)

	p.put("/long", p.document("/long", sitetest.JSON{"redirect_uris": []string{"http://localhost/elsewhere"}}))
	expect("changed, but remembered", "/long", 303, 1)
	clock.Ahead.Add(3600)
	expect("changed", "/long", 400, 2)
	p.handle("/usual", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	expect("its server fails", "/usual", 303, 3)
	expect("its server fails, again", "/usual", 303, 3)
	p.put("/short", p.document("/short", sitetest.JSON{"client_id": "https://victim.example/"}))
	expect("a lie is no outage", "/short", 400, 3)
	expect("the error is remembered", "/short", 400, 3)
	p.put("/short", p.document("/short", nil))
	clock.Ahead.Add(16)
	expect("good again", "/short", 303, 4)
	clock.Ahead.Add(25 * 3600)
	chrome = s.browser()
	expect("its server has failed for a day", "/usual", 503, 4)
}

// Many requests at once load a document once, and one address cannot make the provider load many.
func TestThreatClientDocumentFlood(t *testing.T) {
	p := publish(t)
	s, chrome := serveDocuments(t, p.host)
	arrived, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	id := p.handle("/client.json", func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { close(arrived) })
		<-release
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(p.document("/client.json", nil)))
	})
	var all sync.WaitGroup
	var good atomic.Int32
	for range 8 {
		all.Go(func() {
			if got := chrome.Get(p.request(s, id, nil)); got.Status == 303 {
				good.Add(1)
			}
		})
	}
	<-arrived
	close(release)
	all.Wait()
	if n := p.loads("/client.json"); n != 1 || good.Load() != 8 {
		t.Errorf("loaded %d times, for %d good requests", n, good.Load())
	}
	refused := 0
	for i := range 40 {
		if got := chrome.Get(p.request(s, p.URL+"/"+strings.Repeat("x", i+1), nil)); got.Status == 503 {
			refused++
		}
	}
	if refused < 10 {
		t.Errorf("%d of 40 are refused", refused)
	}
	if got := chrome.Get(p.request(s, id, nil)); got.Status != 303 {
		t.Errorf("the one that is known: %d %s", got.Status, got.Body)
	}
	got := s.Visitor().Do(http.MethodGet, p.request(s, p.URL+"/other", nil), nil, "X-Forwarded-For: 192.0.2.7")
	if got.Status != 400 { // not found, but looked for
		t.Errorf("another address: %d %s", got.Status, got.Body)
	}
}

// Pages at the origin of a document, and on the user's machine, may use the token endpoint.
func TestClientDocumentOrigins(t *testing.T) {
	p := publish(t)
	s, _ := serveDocuments(t, p.host+" claude.example")
	for origin, allowed := range map[string]bool{
		p.URL: true, "https://claude.example": true, "http://localhost:6274": true, "http://127.0.0.1:1": true,
		"https://evil.example": false, "http://claude.example": false, "https://claude.example:8443": false,
		"https://x.claude.example": false, "null": false, "http://evil.localhost.example": false,
	} {
		got := s.Do("OPTIONS", "/oidc/token", "Origin: "+origin, "Access-Control-Request-Method: POST")
		if (got.Header.Get("Access-Control-Allow-Origin") == origin) != allowed {
			t.Errorf("%s: %d %v", origin, got.Status, got.Header)
		}
	}
}

// Once a host is no longer listed, the tokens of its clients end.
func TestThreatClientDocumentHostIsRemoved(t *testing.T) {
	p := publish(t)
	s, chrome := serveDocuments(t, p.host)
	id := p.put("/client.json", p.document("/client.json", nil))
	back := chrome.GoOn(p.request(s, id, nil))
	tokens := chrome.exchange(id, url.Values{
		"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {p.URL + "/callback"},
		"code_verifier": {verifier},
	}).JSON(t)
	access, _ := tokens["access_token"].(string)
	refresh, _ := tokens["refresh_token"].(string)
	userinfo := func() int {
		return chrome.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+access).Status
	}
	active := func() any {
		return chrome.Post("/oidc/introspect", url.Values{"token": {access}}, sitetest.Basic("api", appSecret)).JSON(t)["active"]
	}
	if userinfo() != 200 || active() != true {
		t.Fatalf("before: userinfo %d, active %v", userinfo(), active())
	}
	s.load(clientsOfAPIs+"\nclient_documents other.example", "", s.dir)
	if userinfo() != 401 || active() != false {
		t.Errorf("after: userinfo %d, active %v", userinfo(), active())
	}
	chrome.refresh(id, refresh).MustFail(t, 400, "invalid_client")
	if got := chrome.Get("/oidc/applications"); !strings.Contains(got.Body, id) {
		t.Errorf("the user does not see it: %s", got.Body)
	}
	s.load(clientsOfAPIs+"\nclient_documents "+p.host, "", s.dir)
	if userinfo() != 200 || chrome.refresh(id, refresh).Status != 200 {
		t.Errorf("listed again: userinfo %d", userinfo())
	}
}
