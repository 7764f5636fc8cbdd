package caddyjwt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"golang.org/x/net/websocket"
)

// streams is an upstream whose responses do not end by themselves.
type streams struct {
	*httptest.Server
	running atomic.Int64
}

func newStreams(t *testing.T) *streams {
	s := new(streams)
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, "data: tick\n\n"); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	})
	mux.HandleFunc("/flood", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.Handle("/ws", websocket.Handler(func(conn *websocket.Conn) { _, _ = io.Copy(conn, conn) }))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.Add(1)
		defer s.running.Add(-1)
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.CloseClientConnections)
	return s
}

func streamSite(t *testing.T, options string) (*sitetest.Site, *streams) {
	t.Helper()
	s := newStreams(t)
	return sitetest.Serve(t, `servers {
			protocols h1 h2c
		}
----------
		log
		jwt {
			secret "`+sitetest.Secret+`"
			leeway 0s
			`+options+`
		}
		handle /files/* {
			root * `+bigFile(t)+`
			uri strip_prefix /files
			file_server
		}
		reverse_proxy `+s.URL), s
}

// bigFile returns a folder with a file that fits into no buffer.
func bigFile(t *testing.T) (folder string) {
	t.Helper()
	folder = sitetest.TempDir(t)
	path := filepath.Join(folder, "big")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	return folder
}

// soon returns a token that expires in a moment, and when.
func soon(t *testing.T) (token string, expiry time.Time) {
	expiry = time.Now().Add(1500 * time.Millisecond).Truncate(time.Millisecond)
	return sitetest.HS256(t, sitetest.JSON{"exp": float64(expiry.UnixMilli()) / 1000}), expiry
}

// open sends a request, and returns the response when its header has come.
func open(t *testing.T, s *sitetest.Site, path, token string) *http.Response {
	t.Helper()
	return openBy(t, &http.Transport{DisableKeepAlives: true}, s, path, token)
}

func openBy(t *testing.T, transport *http.Transport, s *sitetest.Site, path, token string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

const closeOption = "close_at_expiry"

// An event stream ends when the token expires, and only then; the next request is refused.
func TestCloseEventStreamAtExpiry(t *testing.T) {
	s, upstream := streamSite(t, closeOption)
	token, expiry := soon(t)
	response := open(t, s, "/events", token)
	if response.StatusCode != 200 {
		t.Fatal(response.Status)
	}
	_, err := io.Copy(io.Discard, response.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || time.Now().Before(expiry) {
		t.Errorf("it ended with %v, %s after the expiry", err, time.Since(expiry))
	}
	sitetest.Eventually(t, "the upstream's request ends", func() bool { return upstream.running.Load() == 0 })
	s.MustAnswer(401, s.Bearer("/events", token), "again")
	s.MustAnswer(200, s.Bearer("/short", sitetest.HS256(t, nil)), "control: another token")
	if !strings.Contains(s.Log(), "response ended, because the credential has expired") {
		t.Error("the log does not say why it ended")
	}
}

// In HTTP/2 only the stream ends, not the connection.
func TestCloseEventStreamAtExpiryInHTTP2(t *testing.T) {
	s, upstream := streamSite(t, closeOption)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	token, expiry := soon(t)
	other := openBy(t, transport, s, "/events", sitetest.HS256(t, nil))
	response := openBy(t, transport, s, "/events", token)
	if response.ProtoMajor != 2 {
		t.Fatal(response.Proto)
	}
	if _, err := io.Copy(io.Discard, response.Body); err == nil || time.Now().Before(expiry) {
		t.Errorf("it ended with %v, %s after the expiry", err, time.Since(expiry))
	}
	sitetest.Eventually(t, "the upstream's request ends", func() bool { return upstream.running.Load() == 1 })
	if _, err := bufio.NewReader(other.Body).ReadString('\n'); err != nil {
		t.Errorf("control: the stream of another token: %v", err)
	}
}

// Without the option it goes on.
func TestStreamGoesOnWithoutOption(t *testing.T) {
	s, _ := streamSite(t, "")
	token, expiry := soon(t)
	events := bufio.NewReader(open(t, s, "/events", token).Body)
	for time.Now().Before(expiry.Add(200 * time.Millisecond)) {
		if _, err := events.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := events.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	s.MustAnswer(401, s.Bearer("/events", token), "a new request")
}

func dialWebSocket(t *testing.T, s *sitetest.Site, token string) *websocket.Conn {
	t.Helper()
	config, err := websocket.NewConfig(strings.Replace(s.URL, "http", "ws", 1)+"/ws", s.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.Protocol = []string{"bearer", token}
	conn, err := config.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func echo(conn *websocket.Conn) error {
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 5)
	_, err := io.ReadFull(conn, got)
	return err
}

// A WebSocket is closed when the token expires.
func TestCloseWebSocketAtExpiry(t *testing.T) {
	for _, options := range []string{closeOption, ""} {
		s, upstream := streamSite(t, "from websocket_protocol\nstrip_token\n"+options)
		token, expiry := soon(t)
		conn := dialWebSocket(t, s, token)
		if err := echo(conn); err != nil {
			t.Fatalf("%q: %v", options, err)
		}
		if options == "" { // control
			sitetest.Eventually(t, "the token expires", func() bool {
				return time.Now().After(expiry.Add(200 * time.Millisecond))
			})
			if err := echo(conn); err != nil {
				t.Errorf("without the option: %v", err)
			}
			_ = conn.Close()
		} else if _, err := conn.Read(make([]byte, 1)); err == nil || time.Now().Before(expiry) {
			t.Errorf("it ended with %v, %s after the expiry", err, time.Since(expiry))
		}
		sitetest.Eventually(t, "the connection ends", func() bool { // before Caddy's proxy is stopped beside it
			return upstream.running.Load() == 0 && accessed(s, "/ws")
		})
	}
}

// accessed reports whether a request for a path has ended, and is in the access log.
func accessed(s *sitetest.Site, path string) bool {
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, `"logger":"http.log.access`) && strings.Contains(line, `"uri":"`+path+`"`) {
			return true
		}
	}
	return false
}

// A client that does not read keeps no handler, whether it looks at the request's context or not.
func TestCloseAtExpiryOfSlowClient(t *testing.T) {
	s, upstream := streamSite(t, closeOption)
	for _, path := range []string{"/flood", "/files/big"} {
		token, _ := soon(t)
		response := open(t, s, path, token)
		if response.StatusCode != 200 {
			t.Fatalf("%s: %s", path, response.Status)
		}
		sitetest.Within(t, 20*time.Second, path+" ends", func() bool { // Caddy itself ends it after a minute
			return upstream.running.Load() == 0 && accessed(s, path)
		})
		if _, err := io.Copy(io.Discard, response.Body); err == nil {
			t.Errorf("%s: the response looks complete", path)
		}
	}
}

// A request without a response yet is refused.
func TestRequestEndsAtExpiry(t *testing.T) {
	s, upstream := streamSite(t, closeOption+"\nclaim_header X-User sub\nfrom header\nfrom query q")
	token, expiry := soon(t)
	got := s.Get("/slow", "Authorization: Bearer "+token)
	if got.Status != 401 || got.ErrorBody(t).Error.Code != "invalid_token" || time.Now().Before(expiry) ||
		!strings.Contains(got.Header.Get("WWW-Authenticate"), "expired") {
		t.Errorf("%d %v %s", got.Status, got.Header, got.Body)
	}
	sitetest.Eventually(t, "the upstream's request ends", func() bool { return upstream.running.Load() == 0 })
	s.MustAnswer(200, s.Bearer("/short", sitetest.HS256(t, nil)), "control")
}

// A token without an end, an anonymous request and one that ends in time are served as ever.
func TestCloseAtExpiryOfOthers(t *testing.T) {
	s, _ := streamSite(t, closeOption+"\nallow_missing_exp\noptional")
	for name, headers := range map[string][]string{
		"anonymous":     nil,
		"no expiry":     {"Authorization: Bearer " + sitetest.HS256(t, sitetest.JSON{"exp": nil})},
		"far away":      {"Authorization: Bearer " + sitetest.HS256(t, sitetest.JSON{"exp": 253402300799})},
		"a usual token": {"Authorization: Bearer " + sitetest.HS256(t, nil)},
	} {
		if got := s.Get("/short", headers...); got.Status != 200 || got.Body != "ok" {
			t.Errorf("%s: %d %q", name, got.Status, got.Body)
		}
	}
}

// The token of a browser's session is renewed in the response; the new one decides.
func TestCloseAtExpiryOfRenewedSession(t *testing.T) {
	upstream := newStreams(t)
	s := sitetest.Serve(t, `
		jwt /todos/* {
			leeway 0s
			close_at_expiry
			accounts {
				signup open
				token_lifetime 2s
				store file `+filepath.Join(sitetest.TempDir(t), "users.db")+`
			}
		}
		handle_path /todos/* {
			reverse_proxy `+upstream.URL+`
		}`)
	tokens := s.SignedUp("alice@example.com")
	expiry := time.Unix(int64(sitetest.ClaimsOf(t, tokens.Token)["exp"].(float64)), 0)
	sitetest.Eventually(t, "the access token expires", func() bool { return time.Now().After(expiry) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/todos/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Cookie", fmt.Sprintf("session=%s; refresh=%s", tokens.Token, tokens.RefreshToken))
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	renewed := ""
	for _, cookie := range response.Cookies() {
		if cookie.Name == "session" {
			renewed = cookie.Value
		}
	}
	if response.StatusCode != 200 || renewed == "" {
		t.Fatalf("%s %v", response.Status, response.Header)
	}
	expiry = time.Unix(int64(sitetest.ClaimsOf(t, renewed)["exp"].(float64)), 0)
	if _, err := io.Copy(io.Discard, response.Body); err == nil || time.Now().Before(expiry) {
		t.Errorf("it ended with %v, %s after the expiry", err, time.Since(expiry))
	}
}

// An API key can expire, too.
func TestCloseAtExpiryOfAPIKey(t *testing.T) {
	upstream := newStreams(t)
	s := serveKeys(t, `
		jwt {
			close_at_expiry
			api_keys {
				$keys
			}
		}
		reverse_proxy `+upstream.URL)
	key := s.made("--subject", "robot", "--expires", "3s")
	response := open(t, s.Site, "/events", key.Key)
	_, err := io.Copy(io.Discard, response.Body)
	if response.StatusCode != 200 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%s, it ended with %v", response.Status, err)
	}
	s.MustAnswer(401, s.Bearer("/short", key.Key), "afterwards")
}
