package sitetest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// IdentityProvider serves a key set and a discovery document, and counts the requests.
type IdentityProvider struct {
	*httptest.Server
	t testing.TB
	// ID is different for each provider, also for those that have the same port after each other.
	ID          string
	Fetches     atomic.Int64
	Connections atomic.Int64
	respond     atomic.Pointer[http.HandlerFunc] // of /jwks
}

var providers atomic.Int64

// NewIdentityProvider serves a key set and its discovery document.
func NewIdentityProvider(t testing.TB, keys ...JSON) *IdentityProvider {
	t.Helper()
	p := &IdentityProvider{t: t, ID: fmt.Sprintf("provider=%d", providers.Add(1))}
	p.SetKeys(keys...)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		mustNameItself(t, r)
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.URL, p.URL+"/jwks")
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		p.Fetches.Add(1)
		mustNameItself(t, r)
		(*p.respond.Load())(w, r)
	})
	p.Server = httptest.NewUnstartedServer(mux)
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			p.Connections.Add(1)
		}
	}
	p.Start()
	t.Cleanup(p.Close)
	return p
}

// mustNameItself checks that a request of this module says so.
func mustNameItself(t testing.TB, r *http.Request) {
	if agent := r.UserAgent(); !strings.HasPrefix(agent, "caddy-jwt/") ||
		!strings.HasSuffix(agent, " (+https://github.com/caddy-jwt/caddy-jwt)") {
		t.Errorf("%s %s: User-Agent %q", r.Method, r.URL.Path, agent)
	}
}

// SetKeys replaces the key set.
func (p *IdentityProvider) SetKeys(keys ...JSON) {
	p.SetAnswer(http.StatusOK, Marshal(p.t, JSON{"keys": keys}))
}

// SetAnswer sets the response to all requests.
func (p *IdentityProvider) SetAnswer(status int, body string) {
	p.SetHandler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		_, _ = io.Copy(w, bytes.NewReader([]byte(body)))
	})
}

// SetHandler sets the handler for all requests.
func (p *IdentityProvider) SetHandler(handler http.HandlerFunc) { p.respond.Store(&handler) }
