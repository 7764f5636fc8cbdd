package sitetest

import (
	stdjson "encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// Site is a real Caddy with a real Caddyfile, in this process.
type Site struct {
	T       testing.TB
	URL     string
	LogFile string

	Transport http.RoundTripper // for the requests; default: http.DefaultTransport
}

func (s *Site) roundTrip(request *http.Request) (*http.Response, error) {
	if s.Transport != nil {
		return s.Transport.RoundTrip(request)
	}
	return caddytest.RoundTrip(http.DefaultTransport, request)
}

// AdaptCaddyfile adapts the inside of a site block to JSON. Text before a line of ten dashes is
// placed before the site, for global options.
func AdaptCaddyfile(t testing.TB, body, address, storage, logFile string) ([]byte, error) {
	t.Helper()
	global, body, found := strings.Cut(body, "----------\n")
	if !found {
		global, body = "", global
	}
	text := GlobalOptions(storage, logFile, global) + "http://" + address + " {\n" + body + "\n}"
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// GlobalOptions returns the global options that isolate a Caddy of the tests. The storage is a
// folder, or a storage module and its options.
func GlobalOptions(storage, logFile, more string) string {
	if !strings.Contains(storage, " ") {
		storage = "file_system " + storage
	}
	return fmt.Sprintf(`{
		admin off
		auto_https off
		persist_config off
		storage %s
		log {
			output file %s
			format json
			level DEBUG
		}
		%s
	}
	`, storage, logFile, more)
}

// Serve runs a site with this body.
func Serve(t testing.TB, body string) *Site {
	t.Helper()
	s := &Site{T: t, URL: "http://" + FreeAddress(t), LogFile: filepath.Join(TempDir(t), "log.json")}
	s.Load(body, TempDir(t))
	StopAfter(t)
	return s
}

// ServeLocalhost is Serve of a site whose host is localhost, where browsers allow passkeys without TLS.
func ServeLocalhost(t testing.TB, body string) *Site {
	t.Helper()
	address := strings.Replace(FreeAddress(t), "127.0.0.1", "localhost", 1)
	s := &Site{T: t, URL: "http://" + address, LogFile: filepath.Join(TempDir(t), "log.json")}
	s.Load(body, TempDir(t))
	StopAfter(t)
	return s
}

// Load loads another config at the same address.
func (s *Site) Load(body, storage string) {
	s.T.Helper()
	config, err := AdaptCaddyfile(s.T, body, strings.TrimPrefix(s.URL, "http://"), storage, s.LogFile)
	load(s.T, config, err)
}

// LoadText loads a whole Caddyfile.
func (s *Site) LoadText(text string) {
	s.T.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	load(s.T, config, err)
}

// load loads a config; err is the error of its adaptation.
func load(t testing.TB, config []byte, err error) {
	t.Helper()
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err != nil {
		t.Fatalf("loading the config: %v", err)
	}
	waitForOldServers(t)
	http.DefaultClient.CloseIdleConnections() // the previous server may still serve an open one
}

// StopAfter stops Caddy when the test has ended.
func StopAfter(t testing.TB) {
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// ConfigError returns the error of a config that must not load.
func ConfigError(t testing.TB, body string) string {
	t.Helper()
	config, err := AdaptCaddyfile(t, body, "127.0.0.1:0", TempDir(t), filepath.Join(TempDir(t), "log.json"))
	if err == nil {
		var parsed *caddy.Config
		if err := stdjson.Unmarshal(config, &parsed); err != nil {
			t.Fatal(err)
		}
		err = caddy.Validate(parsed)
	}
	if err == nil {
		t.Fatalf("the config loads, and must not:\n%s", body)
	}
	return err.Error()
}

// StartError returns the error of a config that may be valid but must not start.
func StartError(t testing.TB, body string) string {
	t.Helper()
	config, err := AdaptCaddyfile(t, body, FreeAddress(t), TempDir(t), filepath.Join(TempDir(t), "log.json"))
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err == nil {
		_ = caddy.Stop()
		t.Fatalf("the config starts, and must not:\n%s", body)
	}
	return err.Error()
}

func (s *Site) Log() string {
	text, err := os.ReadFile(s.LogFile)
	if err != nil {
		s.T.Fatal(err)
	}
	return string(text)
}

// Get requests a path, with headers given as "Name: value".
func (s *Site) Get(path string, headers ...string) Reply {
	s.T.Helper()
	return s.Do(http.MethodGet, path, headers...)
}

func (s *Site) Do(method, path string, headers ...string) Reply {
	s.T.Helper()
	request, err := http.NewRequest(method, s.URL, nil)
	if err != nil {
		s.T.Fatal(err)
	}
	if path, request.URL.RawQuery, _ = strings.Cut(path, "?"); path != "" {
		request.URL.Opaque = "//" + request.URL.Host + path // unchanged, as an attacker would send it
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header[name] = append(request.Header[name], value)
	}
	response, err := s.roundTrip(request)
	for tries := 0; err != nil && tries < 10; tries++ { // Caddy closes connections at a config reload
		response, err = s.roundTrip(request)
	}
	if err != nil {
		s.T.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	return Reply{response.StatusCode, response.Header, string(body)}
}

// Bearer requests a path with a token.
func (s *Site) Bearer(path, token string) Reply {
	s.T.Helper()
	return s.Get(path, "Authorization: Bearer "+token)
}

func (s *Site) MustAnswer(status int, got Reply, why string) {
	s.T.Helper()
	if got.Status != status {
		s.T.Errorf(
			"%s: status %d, expected %d; challenge %q, body %q", why,
			got.Status, status, got.Header.Get("WWW-Authenticate"), got.Body,
		)
	}
}

type Reply struct {
	Status int
	Header http.Header
	Body   string
}

// JSON returns the object in the body.
func (a Reply) JSON(t testing.TB) JSON {
	t.Helper()
	var object JSON
	if err := stdjson.Unmarshal([]byte(a.Body), &object); err != nil {
		t.Fatalf("%d %s: %v", a.Status, a.Body, err)
	}
	return object
}

// MustFail checks an OAuth error response.
func (a Reply) MustFail(t testing.TB, status int, code string) {
	t.Helper()
	if a.Status != status || a.JSON(t)["error"] != code {
		t.Errorf("got %d %s, expected %d %s", a.Status, a.Body, status, code)
	}
}

// To returns the URL to which the browser is redirected.
func (a Reply) To(t testing.TB) *url.URL {
	t.Helper()
	location, err := url.Parse(a.Header.Get("Location"))
	if a.Status != http.StatusSeeOther || err != nil {
		t.Fatalf("no redirect: %d %v %s", a.Status, a.Header, a.Body)
	}
	return location
}

var alertText = regexp.MustCompile(`(?s)role="alert".*?</p>`)

// Brief returns a page shortened for the message of a failed test.
func (a Reply) Brief() string {
	text := alertText.FindString(a.Body)
	if text == "" {
		text = a.Body[:min(len(a.Body), 300)]
	}
	return fmt.Sprint(a.Status, " ", a.Header.Get("Location"), " ", text)
}
