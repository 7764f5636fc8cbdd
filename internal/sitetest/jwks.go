package sitetest

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// JWKSSite is protected by the provider's key set.
func JWKSSite(t testing.TB, p *IdentityProvider, options string) *Site {
	t.Helper()
	return Serve(t, JWKSBody(p, options))
}

func JWKSBody(p *IdentityProvider, options string) string {
	return "jwt /api/* {\n issuer https://issuer.example\n jwks " + p.URL + "/jwks {\n" +
		options + "\n}\n}\n metrics /metrics\n respond /api/* ok"
}

// SignRS returns a token signed with one of the RSA test keys.
func SignRS(t testing.TB, key any, id string) string {
	t.Helper()
	return Sign(t, "RS256", key, JSON{"kid": id}, Claims(nil))
}

// BadAnswers are wrong responses of a key set URL. None may replace a valid set or cause a
// crash.
func BadAnswers(t testing.TB, p *IdentityProvider, elsewhere string) map[string]http.HandlerFunc {
	text := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	stranger := Marshal(t, JSON{"keys": []any{JWK(t, Keys().StrangerRSA, JSON{"kid": "a"})}})
	return map[string]http.HandlerFunc{
		"500":                      text(500, stranger),
		"404":                      text(404, stranger),
		"204":                      text(204, ""),
		"HTML":                     text(200, "<html>log in, please</html>"),
		"empty":                    text(200, ""),
		"null":                     text(200, "null"),
		"a list":                   text(200, "[]"),
		"no keys":                  text(200, `{"keys":[]}`),
		"keys is no list":          text(200, `{"keys":{}}`),
		"only bad keys":            text(200, `{"keys":[{"kty":"RSA","kid":"a","n":"AQ","e":"AQAB"}]}`),
		"truncated":                text(200, stranger[:len(stranger)/2]),
		"a name twice":             text(200, `{"keys":[],`+stranger[1:]),
		"2 MiB":                    text(200, `{"pad":"`+strings.Repeat("p", 2<<20)+`",`+stranger[1:]),
		"redirect to another host": http.RedirectHandler(elsewhere+"/jwks", http.StatusFound).ServeHTTP,
		"redirect for ever": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, p.URL+"/jwks?again", http.StatusFound)
		},
		"slow": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(30 * time.Second):
			}
		},
		"drip": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		},
		"closed": func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
	}
}

func StoredKeySets(t *testing.T, storage string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(storage, "jwt", "key_sets", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}
