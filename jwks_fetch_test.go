package caddyjwt_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// metadataServer has an issuer's documents by path, and records what it was asked for.
type metadataServer struct {
	*httptest.Server
	mu    sync.Mutex
	docs  map[string]any // a JSON object, or a status
	asked []*http.Request
}

func newMetadataServer(t testing.TB) *metadataServer {
	m := new(metadataServer)
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asked = append(m.asked, r.Clone(r.Context()))
		switch doc := m.docs[r.URL.Path].(type) {
		case nil:
			w.WriteHeader(404)
		case int:
			w.WriteHeader(doc)
		case func(http.ResponseWriter, *http.Request):
			doc(w, r)
		default:
			sitetest.WriteJSON(t, w, 200, doc)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *metadataServer) set(docs map[string]any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.docs, m.asked = docs, nil
}

// seen returns the values of a header in the requests for a path.
func (m *metadataServer) seen(path, header string) (values []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.asked {
		if r.URL.Path == path {
			values = append(values, r.Header.Get(header))
		}
	}
	return values
}

func (m *metadataServer) paths() (paths []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.asked {
		paths = append(paths, r.URL.Path)
	}
	return paths
}

func rsaSet(t testing.TB) sitetest.JSON {
	return sitetest.JSON{"keys": []any{sitetest.JWK(t, sitetest.Keys().RSA, sitetest.JSON{"kid": "a"})}}
}

// If there is no OpenID document, and only then, the metadata of RFC 8414 has the key set.
func TestDiscoveryByOAuthMetadata(t *testing.T) {
	const openID, oauth = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
	m := newMetadataServer(t)
	for name, c := range map[string]struct {
		path   string // of the issuer
		docs   func(doc sitetest.JSON) map[string]any
		asked  []string
		status int
		log    string
	}{
		"OpenID": {
			"", func(doc sitetest.JSON) map[string]any { return map[string]any{openID: doc} },
			[]string{openID, "/keys"}, 200, "",
		},
		"OAuth": {
			"", func(doc sitetest.JSON) map[string]any { return map[string]any{oauth: doc} },
			[]string{openID, oauth, "/keys"}, 200, "",
		},
		"gone": {
			"", func(doc sitetest.JSON) map[string]any { return map[string]any{openID: 410, oauth: doc} },
			[]string{openID, oauth, "/keys"}, 200, "",
		},
		"not allowed": {
			"", func(doc sitetest.JSON) map[string]any { return map[string]any{openID: 405, oauth: doc} },
			[]string{openID, oauth, "/keys"}, 200, "",
		},
		"forbidden": {
			"", func(doc sitetest.JSON) map[string]any { return map[string]any{openID: 403, oauth: doc} },
			[]string{openID, oauth, "/keys"}, 200, "",
		},
		"a page of an app": {
			"", func(doc sitetest.JSON) map[string]any {
				return map[string]any{oauth: doc, openID: func(w http.ResponseWriter, _ *http.Request) {
					_, _ = io.WriteString(w, "<html>app</html>")
				}}
			},
			[]string{openID, oauth, "/keys"}, 200, "",
		},
		"without keys": {
			"", func(doc sitetest.JSON) map[string]any {
				return map[string]any{oauth: doc, openID: sitetest.JSON{"issuer": doc["issuer"]}}
			},
			[]string{openID, oauth, "/keys"}, 200, "",
		},
		"before the path": {
			"/a/b", func(doc sitetest.JSON) map[string]any { return map[string]any{oauth + "/a/b": doc} },
			[]string{"/a/b" + openID, oauth + "/a/b", "/keys"}, 200, "",
		},
		"before the path, with a slash": {
			"/a/", func(doc sitetest.JSON) map[string]any { return map[string]any{oauth + "/a": doc} },
			[]string{"/a" + openID, oauth + "/a", "/keys"}, 200, "",
		},
		"after the path": {
			"/a", func(doc sitetest.JSON) map[string]any { return map[string]any{"/a" + oauth: doc} },
			[]string{"/a" + openID, oauth + "/a", "/a" + oauth, "/keys"}, 200, "",
		},
		"none": {
			"/a", func(sitetest.JSON) map[string]any { return nil },
			[]string{"/a" + openID, oauth + "/a", "/a" + oauth}, 503, "/a" + openID + " answered 404 Not Found, expected 200; " +
				m.URL + oauth + "/a answered 404 Not Found, expected 200",
		},
		"an outage of the first": {
			"", func(doc sitetest.JSON) map[string]any { return map[string]any{openID: 500, oauth: doc} },
			[]string{openID}, 503, openID + " answered 500",
		},
		"a refusal of the first": {
			"", func(doc sitetest.JSON) map[string]any { return map[string]any{openID: 401, oauth: doc} },
			[]string{openID}, 503, `if it requires a token, set it in jwks: header Authorization`,
		},
		"another issuer in the first": {
			"", func(doc sitetest.JSON) map[string]any {
				return map[string]any{openID: sitetest.JSON{"issuer": "https://x.example", "jwks_uri": m.URL + "/keys"}, oauth: doc}
			}, []string{openID}, 503, `its issuer is \"https://x.example\", not `,
		},
		"another issuer in the second": {
			"", func(doc sitetest.JSON) map[string]any {
				return map[string]any{oauth: sitetest.JSON{"issuer": m.URL + "/x", "jwks_uri": m.URL + "/keys"}}
			}, []string{openID, oauth}, 503, "answered 404 Not Found, expected 200; discovery document: its issuer is ",
		},
		"a template": {
			"/common/v2.0", func(sitetest.JSON) map[string]any {
				return map[string]any{"/common/v2.0" + openID: sitetest.JSON{
					"issuer": m.URL + "/{tenantid}/v2.0", "jwks_uri": m.URL + "/common/keys?x=secret",
				}}
			}, []string{"/common/v2.0" + openID}, 503,
			"or for all tenants: issuer " + m.URL + "/*/v2.0 { jwks " + m.URL + "/common/keys }",
		},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := m.URL + c.path
			docs := c.docs(sitetest.JSON{"issuer": issuer, "jwks_uri": m.URL + "/keys"})
			if docs == nil {
				docs = make(map[string]any)
			}
			docs["/keys"] = rsaSet(t)
			m.set(docs)
			s := sitetest.Serve(t, "jwt {\n issuer "+issuer+"\n}\n respond ok")
			s.MustAnswer(c.status, s.Bearer("/", sitetest.Sign(
				t, "RS256", sitetest.Keys().RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{"iss": issuer}),
			)), name)
			if asked := m.paths(); !slices.Equal(asked[:min(len(asked), len(c.asked))], c.asked) ||
				c.status == 200 && len(asked) != len(c.asked) {
				t.Errorf("asked for %q, expected %q", asked, c.asked)
			}
			if !strings.Contains(s.Log(), c.log) {
				t.Errorf("the log does not say %s:\n%s", c.log, s.Log())
			}
		})
	}
}

// The headers go to the server that they are for, with the text that the file has at the time.
func TestKeySetHeaders(t *testing.T) {
	m := newMetadataServer(t)
	file := filepath.Join(sitetest.TempDir(t), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\ufeff first-token \r\n")
	m.set(map[string]any{"/keys": func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			w.WriteHeader(401)
			return
		}
		sitetest.WriteJSON(t, w, 200, rsaSet(t))
	}})
	t.Setenv("WHO", "site")
	s := sitetest.Serve(t, `
		jwt {
			jwks `+m.URL+`/keys {
				header Authorization "Bearer {file.`+file+`}"
				header User-Agent "{env.WHO}/1"
				refresh 100ms
			}
		}
		jwt /other {
			jwks `+m.URL+`/keys {
				refresh 100ms
			}
		}
		respond ok`)
	token := sitetest.SignRS(t, sitetest.Keys().RSA, "a")
	s.MustAnswer(200, s.Bearer("/", token), "with the header")
	seen := func(value string) func() bool {
		return func() bool { return slices.Contains(m.seen("/keys", "Authorization"), value) }
	}
	sitetest.Eventually(t, "the token of the file is sent", seen("Bearer first-token"))
	write("second-token")
	sitetest.Eventually(t, "the new token of the file is sent", seen("Bearer second-token"))
	if agents := m.seen("/keys", "User-Agent"); !slices.Contains(agents, "site/1") {
		t.Errorf("User-Agent %q", agents)
	}
	s.MustAnswer(503, s.Bearer("/other", token), "another handler, without the header, has no part of the set")

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	sitetest.Eventually(t, "the log names the file", func() bool {
		return strings.Contains(s.Log(), "header Authorization: evaluated placeholder {file."+file+"} is empty")
	})
	write("third\ntoken")
	sitetest.Eventually(t, "the log says what is wrong with the value", func() bool {
		return strings.Contains(s.Log(), "header Authorization: its value is empty, or has characters that no header has")
	})
	s.MustAnswer(200, s.Bearer("/", token), "the last good set is used")
	for _, secret := range []string{"first-token", "second-token", "third"} {
		if strings.Contains(s.Log(), secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}

// Handlers with other headers share neither the set nor what is stored, and nothing stored has a
// header.
func TestThreatKeySetHeadersAreNotShared(t *testing.T) {
	m := newMetadataServer(t)
	m.set(map[string]any{"/keys": func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Tenant") == "other-tenant" {
			sitetest.WriteJSON(t, w, 200, sitetest.JSON{
				"keys": []any{sitetest.JWK(t, sitetest.Keys().StrangerRSA, sitetest.JSON{"kid": "a"})},
			})
			return
		}
		sitetest.WriteJSON(t, w, 200, rsaSet(t))
	}})
	body := func(tenant string) string {
		return "jwt /" + tenant + " {\n jwks " + m.URL + "/keys {\n header X-Tenant " + tenant + "\n}\n}\n"
	}
	storage := sitetest.TempDir(t)
	s := &sitetest.Site{
		T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(sitetest.TempDir(t), "log.json"),
	}
	sitetest.StopAfter(t)
	s.Load(body("one-tenant")+body("other-tenant")+" respond ok", storage)
	one, other := sitetest.SignRS(t, sitetest.Keys().RSA, "a"), sitetest.SignRS(t, sitetest.Keys().StrangerRSA, "a")
	check := func(when string) {
		s.MustAnswer(200, s.Bearer("/one-tenant", one), when)
		s.MustAnswer(200, s.Bearer("/other-tenant", other), when)
		s.MustAnswer(401, s.Bearer("/one-tenant", other), when+": the key of the other header")
		s.MustAnswer(401, s.Bearer("/other-tenant", one), when+": the key of the other header")
	}
	check("fetched")
	sitetest.Eventually(t, "both are stored", func() bool { return len(sitetest.StoredKeySets(t, storage)) == 2 })
	for _, file := range sitetest.StoredKeySets(t, storage) {
		text, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(text), "tenant") {
			t.Errorf("%v: %s", err, text)
		}
	}
	m.set(map[string]any{"/keys": 500})
	s.Load("respond ok", storage) // forgets the sets
	s.Load(body("one-tenant")+body("other-tenant")+" respond ok", storage)
	check("stored")
}

// A document cannot send the headers to another server: neither by its jwks_uri nor by a redirect.
func TestThreatKeySetHeadersElsewhere(t *testing.T) {
	const openID = "/.well-known/openid-configuration"
	m, thief := newMetadataServer(t), newMetadataServer(t)
	thief.set(map[string]any{"/keys": rsaSet(t), "/closed": 401})
	localhost := strings.Replace(m.URL, "127.0.0.1", "localhost", 1)
	for name, c := range map[string]struct {
		keys   string // the jwks_uri
		at     func() []string
		sent   bool
		status int
		log    string
	}{
		"control: the same server": {m.URL + "/keys", func() []string { return m.seen("/keys", "X-Key") }, true, 200, ""},
		"another port":             {thief.URL + "/keys", func() []string { return thief.seen("/keys", "X-Key") }, false, 200, ""},
		"another name":             {localhost + "/keys", func() []string { return m.seen("/keys", "X-Key") }, false, 200, ""},
		"another port, which wants it": {
			thief.URL + "/closed", func() []string { return thief.seen("/closed", "X-Key") }, false, 503,
			"a header is only sent to the host of the issuer, and this one is another: if it may have the header, " +
				"write jwks " + thief.URL + "/closed { header … }",
		},
		"a redirect": {
			m.URL + "/moved", func() []string { return thief.seen("/keys", "X-Key") }, false, 503,
			"redirected to another host",
		},
	} {
		t.Run(name, func(t *testing.T) {
			thief.set(map[string]any{"/keys": rsaSet(t), "/closed": 401})
			m.set(map[string]any{
				openID: sitetest.JSON{"issuer": m.URL, "jwks_uri": c.keys}, "/keys": rsaSet(t),
				"/moved": func(w http.ResponseWriter, r *http.Request) {
					http.Redirect(w, r, thief.URL+"/keys", http.StatusTemporaryRedirect)
				},
			})
			s := sitetest.Serve(t, "jwt {\n issuer "+m.URL+" {\n jwks {\n header X-Key sesame\n}\n}\n}\n respond ok")
			s.MustAnswer(c.status, s.Bearer("/", sitetest.Sign(
				t, "RS256", sitetest.Keys().RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{"iss": m.URL}),
			)), name)
			if first := m.seen(openID, "X-Key"); len(first) == 0 || first[0] != "sesame" {
				t.Errorf("control: the document is fetched with %q", first)
			}
			if got := fmt.Sprint(c.at()); strings.Contains(got, "sesame") != c.sent {
				t.Errorf("sent %s", got)
			}
			if !strings.Contains(s.Log(), c.log) || strings.Contains(s.Log(), "sesame") {
				t.Errorf("the log:\n%s", s.Log())
			}
		})
	}
}
