package caddyjwt

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Handlers that Caddy does not have, but a module may.
func TestCloseAtExpiryOfAnyHandler(t *testing.T) {
	h := provisioned(t, "secret \""+sitetest.Secret+"\"\n leeway 0s\n close_at_expiry\n claim_header X-User sub")
	var user atomic.Value
	ended := func(r *http.Request, err error) error {
		<-r.Context().Done()
		return err
	}
	for _, c := range []struct {
		name   string
		next   caddyhttp.HandlerFunc
		status int // 0 if the response is broken off
	}{
		{"ends well", func(w http.ResponseWriter, r *http.Request) error {
			_, _ = io.WriteString(w, "part")
			_ = http.NewResponseController(w).Flush()
			return ended(r, nil)
		}, 0},
		{"ends well, and no deadline can be set", func(w http.ResponseWriter, r *http.Request) error {
			_, _ = io.WriteString(w, "part")
			return ended(r, nil)
		}, 0},
		{"flushes first", func(w http.ResponseWriter, r *http.Request) error {
			_ = http.NewResponseController(w).Flush()
			return ended(r, nil)
		}, 0},
		{"goes on", func(w http.ResponseWriter, r *http.Request) (err error) {
			for err == nil {
				_, err = io.Copy(w, strings.NewReader("part"))
			}
			return ended(r, err)
		}, 0},
		{"takes the connection over", func(w http.ResponseWriter, _ *http.Request) error {
			conn, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return err
			}
			_, _ = buffered.ReadByte() // the client sends nothing
			return conn.Close()
		}, 0},
		{"begins late", func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Length", "4")
			w.Header().Set("X-Late", "1")
			_ = ended(r, nil)
			w.WriteHeader(200)
			_, err := io.WriteString(w, "late")
			return err
		}, 401},
		{"never begins", func(w http.ResponseWriter, r *http.Request) error {
			w.Header().Set("Content-Length", "4")
			return ended(r, r.Context().Err())
		}, 401},
		{"hints first", func(w http.ResponseWriter, r *http.Request) error {
			w.WriteHeader(http.StatusEarlyHints)
			return ended(r, nil)
		}, 401},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
			w.Header().Set("X-Before", "1")
			if strings.Contains(c.name, "no deadline") {
				w = struct{ http.ResponseWriter }{w}
			}
			_ = h.ServeHTTP(w, r, c.next)
			user.Store(r.Header.Get("X-User"))
		}))
		request, err := http.NewRequest(http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		expiry := float64(time.Now().Add(500*time.Millisecond).UnixMilli()) / 1000
		request.Header.Set("Authorization", "Bearer "+sitetest.HS256(t, sitetest.JSON{"exp": expiry}))
		response, err := server.Client().Do(request)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
		}
		switch {
		case c.status == 0 && err == nil:
			t.Errorf("%s: the response looks complete: %d %q", c.name, response.StatusCode, body)
		case c.status != 0 && (err != nil || response.StatusCode != c.status ||
			!strings.Contains(string(body), "expired") || response.Header.Get("X-Late") != "" || response.Header.Get("X-Before") != "1" || user.Load() != ""):
			t.Errorf("%s: %v, %v %q, claim header %q", c.name, err, response, body, user.Load())
		}
		server.Close()
	}
}
