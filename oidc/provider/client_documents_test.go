package provider_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/provider"
)

// publisher is a web server on this machine with documents of clients, by path.
type publisher struct {
	*httptest.Server
	host string

	mu     sync.Mutex
	serve  map[string]http.HandlerFunc
	loaded map[string]int
}

// publish runs a publisher by https, with a certificate that nobody else trusts.
func publish(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{serve: make(map[string]http.HandlerFunc), loaded: make(map[string]int)}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.loaded[r.URL.Path]++
		serve := p.serve[r.URL.Path]
		p.mu.Unlock()
		if serve == nil {
			http.NotFound(w, r)
			return
		}
		serve(w, r)
	}))
	t.Cleanup(p.Close)
	p.host = strings.TrimPrefix(p.URL, "https://")
	return p
}

// document returns a good document of a path, with some members replaced; nil removes one.
func (p *publisher) document(path string, more sitetest.JSON) string {
	document := sitetest.JSON{
		"client_id": p.URL + path, "client_name": "The Assistant",
		"redirect_uris":              []string{p.URL + "/callback", "http://localhost:1234/callback"},
		"grant_types":                []string{"authorization_code", "refresh_token"},
		"token_endpoint_auth_method": "none",
	}
	maps.Copy(document, more)
	maps.DeleteFunc(document, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(document)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// put publishes a text, and returns its URL.
func (p *publisher) put(path, text string, headers ...string) string {
	return p.handle(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for _, header := range headers {
			name, value, _ := strings.Cut(header, ": ")
			w.Header().Set(name, value)
		}
		_, _ = w.Write([]byte(text))
	})
}

func (p *publisher) handle(path string, serve http.HandlerFunc) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serve[path] = serve
	return p.URL + path
}

func (p *publisher) loads(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loaded[path]
}

// requests returns how many requests there were.
func (p *publisher) requests() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, loads := range p.loaded {
		n += loads
	}
	return n
}

// request returns an authorization request of a client that has a document.
func (p *publisher) request(s *site, id string, more url.Values) string {
	values := url.Values{"redirect_uri": {p.URL + "/callback"}}
	maps.Copy(values, more)
	return s.authorizeURL(id, values)
}

// serveDocuments runs a provider that accepts the publisher's documents, and a logged-in browser.
func serveDocuments(t *testing.T, hosts string) (*site, *browser) {
	t.Helper()
	s := serve(t, strings.ReplaceAll(clientsOfAPIs, "openid email offline_access orders", "openid orders")+
		"\nclient_documents "+hosts, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	return s, chrome
}

// A client that is known only by its document logs a user in, who is asked each time, and gets
// tokens for an API.
func TestClientDocument(t *testing.T) {
	p := publish(t)
	s, chrome := serveDocuments(t, p.host)
	if s.Get("/.well-known/openid-configuration").JSON(t)["client_id_metadata_document_supported"] != true {
		t.Error("the metadata does not say it")
	}
	id := p.put("/client.json", p.document("/client.json", nil))
	for _, redirect := range []string{
		p.URL + "/callback", "http://localhost:1234/callback", "http://localhost:4321/callback", "http://localhost/callback",
	} {
		more := url.Values{"redirect_uri": {redirect}, "scope": {"openid orders"}, "resource": {ordersAPI}}
		page := chrome.Get(chrome.Get(p.request(s, id, more)).To(t).String())
		for _, text := range []string{
			"<h1>Log in to The Assistant (" + p.host + ")</h1>", "published by <strong>" + p.host + "</strong>",
			"<li>The Orders: See your orders</li>",
		} {
			if !strings.Contains(page.Body, text) {
				t.Fatalf("%s is missing on the page: %s", text, page.Body)
			}
		}
		back := chrome.GoOn(chrome.Decide("/oidc/consent", page, "allow").To(t).String())
		if !strings.HasPrefix(back.String(), redirect+"?") {
			t.Fatalf("back at %s", back)
		}
		tokens := chrome.exchange(id, url.Values{
			"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {redirect},
			"code_verifier": {verifier},
		})
		if got := audienceOf(t, tokens); got != ordersAPI+" openid orders" {
			t.Error(got)
		}
		refresh, _ := tokens.JSON(t)["refresh_token"].(string)
		if got := audienceOf(t, chrome.refresh(id, refresh)); got != ordersAPI+" openid orders" {
			t.Error(got)
		}
		more.Set("prompt", "none") // the same as the user has just allowed
		if got := chrome.Get(p.request(s, id, more)).To(t).Query().Get("error"); got != "consent_required" {
			t.Errorf("nobody asks: %q", got)
		}
	}
	if got := chrome.Get("/oidc/applications"); !strings.Contains(got.Body, "The Assistant ("+p.host+")") {
		t.Errorf("the applications: %s", got.Body)
	}
	if n := p.loads("/client.json"); n != 1 {
		t.Errorf("loaded %d times", n)
	}
	for name, test := range map[string]struct {
		more url.Values
		code string
	}{
		"without PKCE":     {url.Values{"code_challenge": {""}, "code_challenge_method": {""}}, "invalid_request"},
		"a foreign scope":  {url.Values{"scope": {"other"}}, "invalid_scope"}, // of a client in the config
		"a token in a URL": {url.Values{"response_type": {"id_token"}}, "unauthorized_client"},
	} {
		back := chrome.Get(p.request(s, id, test.more)).To(t)
		values := back.Query()
		if back.Fragment != "" {
			values, _ = url.ParseQuery(back.Fragment)
		}
		if values.Get("error") != test.code {
			t.Errorf("%s: %s", name, back)
		}
	}
	chrome.exchange(id, url.Values{"grant_type": {"client_credentials"}}).MustFail(t, 400, "unauthorized_client")
	chrome.Post("/oidc/introspect", url.Values{"client_id": {id}, "token": {"x"}}).MustFail(t, 401, "invalid_client")
	chrome.Post("/oidc/token", url.Values{"grant_type": {"refresh_token"}}, sitetest.Basic(url.QueryEscape(id), "x")).
		MustFail(t, 401, "invalid_client")
}

// A document that lies, or names what is not its own, makes no client. Beside each, the same
// document without the lie is good.
func TestThreatClientDocumentLies(t *testing.T) {
	p := publish(t)
	s, chrome := serveDocuments(t, p.host)
	n := 0
	check := func(name, want string, more sitetest.JSON, headers ...string) {
		t.Helper()
		n++
		path := fmt.Sprintf("/%d.json", n)
		got := chrome.Get(p.request(s, p.put(path, p.document(path, more), headers...), nil))
		if want == "" && got.Status != 303 || want != "" && (got.Status != 400 || !strings.Contains(got.Body, want)) {
			t.Errorf("%s: %d %s %s", name, got.Status, got.Header.Get("Location"), got.Body)
		}
	}
	check("good", "", nil)
	check("good, by a type of one's own", "", nil, "Content-Type: application/cimd+json; charset=utf-8")
	check("good, with what is unknown", "", sitetest.JSON{"logo_uri": "https://evil.example/logo", "contacts": []int{1}})
	check("good, also an app's scheme", "", sitetest.JSON{"redirect_uris": []string{p.URL + "/callback", "a.b:/callback"}})
	check("client_id of another", "is not its URL", sitetest.JSON{"client_id": "https://victim.example/client.json"})
	check("client_id of another path", "is not its URL", sitetest.JSON{"client_id": p.URL + "/other.json"})
	check("client_id in upper case", "is not its URL", sitetest.JSON{"client_id": strings.ToUpper(p.URL) + "/x.json"})
	check("no client_id", "is not its URL", sitetest.JSON{"client_id": nil})
	for name, uri := range map[string]string{
		"redirect URI of another site": "https://victim.example/callback", "of another port": "https://127.0.0.1:1/callback",
		"of a script": "javascript:alert(1)", "of an app": "com.example.app:/callback", "plain": "http://" + p.host + ".nip.io/",
		"with a user": "https://" + p.host + "@victim.example/",
	} {
		check(name, "no redirect_uris of its own origin", sitetest.JSON{"redirect_uris": []string{uri}})
	}
	check("redirect URI with a user", "it must be https", sitetest.JSON{"redirect_uris": []string{"https://x@" + p.host + "/callback"}})
	check("redirect URI with a star", "must not contain", sitetest.JSON{"redirect_uris": []string{p.URL + "/*"}})
	check("no redirect URI", "no redirect_uris", sitetest.JSON{"redirect_uris": nil})
	check("a secret", "must be none", sitetest.JSON{"client_secret": "x"})
	check("a secret's method", "must be none", sitetest.JSON{"token_endpoint_auth_method": "client_secret_basic"})
	check("no code", "lack authorization_code", sitetest.JSON{"grant_types": []string{"client_credentials", "implicit"}})
	check("no known scope", "scope has none", sitetest.JSON{"scope": "other"})
	check("a page", "Content-Type", nil, "Content-Type: text/html")
	check("no JSON", "not a JSON object", sitetest.JSON{"redirect_uris": "https://victim.example"})

	// a redirect URI that is listed, but of another site
	path := "/two.json"
	id := p.put(path, p.document(path, sitetest.JSON{"redirect_uris": []string{
		p.URL + "/callback", "https://victim.example/callback",
	}}))
	if got := chrome.Get(p.request(s, id, url.Values{"redirect_uri": {"https://victim.example/callback"}})); got.Status != 400 ||
		!strings.Contains(got.Body, "redirect_uri does not exactly match") {
		t.Errorf("victim.example: %d %v", got.Status, got.Header)
	}
	if got := chrome.Get(p.request(s, id, nil)); got.Status != 303 {
		t.Errorf("its own: %d %s", got.Status, got.Body)
	}
}

// The name of a client is text, without placeholders and nothing that hides its host.
func TestThreatClientDocumentName(t *testing.T) {
	t.Setenv("TOP_SECRET", "xyzzy")
	p := publish(t)
	s, chrome := serveDocuments(t, p.host)
	for name, want := range map[string]string{
		"{env.TOP_SECRET}{file./etc/passwd}": "{env.TOP_SECRET}{file./etc/passwd} (" + p.host + ")",
		"Google (google.com)":                "Google google.com (" + p.host + ")",
		"a\u202eb\u200b\nc\x00":              "ab c (" + p.host + ")",
		"<b>":                                "&lt;b&gt; (" + p.host + ")",
		"":                                   p.host,
		strings.Repeat("x", 100):             strings.Repeat("x", 60) + "… (" + p.host + ")",
	} {
		path := "/" + url.PathEscape(want)
		at := "/" + fmt.Sprintf("%x", path)
		id := p.put(at, p.document(at, sitetest.JSON{"client_name": name}))
		page := chrome.Get(chrome.Get(p.request(s, id, nil)).To(t).String())
		if !strings.Contains(page.Body, "<h1>Log in to "+want+"</h1>") {
			t.Errorf("%q: %s", name, page.Body)
		}
	}
}

// The provider follows no redirect, reads no more than 64 KiB, and does not wait for long.
func TestThreatClientDocumentServer(t *testing.T) {
	t.Cleanup(provider.SetDocumentTimeout(300 * time.Millisecond))
	p := publish(t)
	s, chrome := serveDocuments(t, p.host)
	good := func(path string) []byte { return []byte(p.document(path, nil)) }
	padded := func(path string, size int) []byte { return fmt.Appendf(nil, "%*s", -size, good(path)) }
	asJSON := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json") }
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	for _, test := range []struct {
		path, want string
		serve      http.HandlerFunc
	}{
		{"/good", "", func(w http.ResponseWriter, _ *http.Request) { asJSON(w); _, _ = w.Write(good("/good")) }},
		{"/large", "", func(w http.ResponseWriter, _ *http.Request) { asJSON(w); _, _ = w.Write(padded("/large", 64<<10)) }},
		{"/huge", "it has more than 65536 bytes", func(w http.ResponseWriter, _ *http.Request) {
			asJSON(w)
			_, _ = w.Write(padded("/huge", 64<<10+1))
		}},
		{"/endless", "it has more than 65536 bytes", func(w http.ResponseWriter, r *http.Request) {
			asJSON(w)
			for r.Context().Err() == nil {
				if _, err := w.Write(padded("/endless", 64<<10)); err != nil {
					return
				}
			}
		}},
		{"/redirects", "it redirects", func(w http.ResponseWriter, r *http.Request) {
			asJSON(w)
			w.Header().Set("Location", "/target")
			w.WriteHeader(302)
			_, _ = w.Write(good("/redirects"))
		}},
		{"/absent", "status 404", http.NotFound},
		{"/created", "status 201", func(w http.ResponseWriter, _ *http.Request) {
			asJSON(w)
			w.WriteHeader(201)
			_, _ = w.Write(good("/created"))
		}},
		{"/hangs", "cannot be loaded", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-over:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler) // so that there is no answer at all
		}},
		{"/drips", "cannot be loaded", func(w http.ResponseWriter, r *http.Request) {
			asJSON(w)
			_, _ = w.Write([]byte("{"))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-over:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler) // so that there is no answer at all
		}},
		{"/fails", "cannot be loaded", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"/headers", "cannot be loaded", func(w http.ResponseWriter, _ *http.Request) {
			asJSON(w)
			w.Header().Set("X-Padding", strings.Repeat("x", 32<<10))
			_, _ = w.Write(good("/headers"))
		}},
	} {
		began := time.Now()
		got := chrome.Get(p.request(s, p.handle(test.path, test.serve), nil))
		status := 303
		switch {
		case test.want == "cannot be loaded":
			status = 503
		case test.want != "":
			status = 400
		}
		if got.Status != status || !strings.Contains(got.Body, test.want) {
			t.Errorf("%s: %d %s", test.path, got.Status, got.Body)
		}
		if took := time.Since(began); took > 4*time.Second { // less than without the limit
			t.Errorf("%s took %s", test.path, took)
		}
	}
	if n := p.loads("/target"); n != 0 {
		t.Errorf("the target of the redirect was loaded")
	}
	p.Close()
	if got := chrome.Get(p.request(s, p.URL+"/gone", nil)); got.Status != 503 || strings.Contains(got.Body, "refused") {
		t.Errorf("a server that is gone: %d %s", got.Status, got.Body)
	}
}
