package caddyjwt

import (
	stdjson "encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// site is a real Caddy with a real Caddyfile, in this process.
type site struct {
	t       testing.TB
	url     string
	logFile string

	transport http.RoundTripper // of the requests; default: http.DefaultTransport
}

func (s *site) roundTrip(request *http.Request) (*http.Response, error) {
	if s.transport != nil {
		return s.transport.RoundTrip(request)
	}
	return caddytest.RoundTrip(http.DefaultTransport, request)
}

// adapt makes JSON of the inside of a site block. Whatever is before a line of
// ten dashes goes before the site, as global options.
func adapt(t testing.TB, body, address, storage, logFile string) ([]byte, error) {
	t.Helper()
	global, body, found := strings.Cut(body, "----------\n")
	if !found {
		global, body = "", global
	}
	text := globalOptions(storage, logFile, global) + "http://" + address + " {\n" + body + "\n}"
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// globalOptions keep a Caddy of the tests to itself.
// The storage is a folder, or a kind of storage and its options.
func globalOptions(storage, logFile, more string) string {
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

// serve runs a site with this inside of its block.
func serve(t testing.TB, body string) *site {
	t.Helper()
	s := &site{t: t, url: "http://" + sitetest.FreeAddress(t), logFile: filepath.Join(sitetest.TempDir(t), "log.json")}
	s.load(body, sitetest.TempDir(t))
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// load loads another config at the same address.
func (s *site) load(body, storage string) {
	s.t.Helper()
	config, err := adapt(s.t, body, strings.TrimPrefix(s.url, "http://"), storage, s.logFile)
	if err == nil {
		err = caddy.Load(config, true)
		http.DefaultClient.CloseIdleConnections() // the server before it may still answer on one
	}
	if err != nil {
		s.t.Fatalf("loading the config: %v", err)
	}
}

// configError is the error of a config that must not load.
func configError(t testing.TB, body string) string {
	t.Helper()
	config, err := adapt(t, body, "127.0.0.1:0", sitetest.TempDir(t), filepath.Join(sitetest.TempDir(t), "log.json"))
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

// startError is the error of a config that may be valid and must not start.
func startError(t testing.TB, body string) string {
	t.Helper()
	config, err := adapt(t, body, sitetest.FreeAddress(t), sitetest.TempDir(t), filepath.Join(sitetest.TempDir(t), "log.json"))
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err == nil {
		_ = caddy.Stop()
		t.Fatalf("the config starts, and must not:\n%s", body)
	}
	return err.Error()
}

func (s *site) log() string {
	text, err := os.ReadFile(s.logFile)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// get asks for a path, with headers given as "Name: value".
func (s *site) get(path string, headers ...string) reply {
	s.t.Helper()
	return s.do(http.MethodGet, path, headers...)
}

func (s *site) do(method, path string, headers ...string) reply {
	s.t.Helper()
	request, err := http.NewRequest(method, s.url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if path, request.URL.RawQuery, _ = strings.Cut(path, "?"); path != "" {
		request.URL.Opaque = "//" + request.URL.Host + path // to the letter, as an attacker would send it
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
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(body)}
}

// bearer asks for a path with a token.
func (s *site) bearer(path, token string) reply {
	s.t.Helper()
	return s.get(path, "Authorization: Bearer "+token)
}

func (s *site) mustAnswer(status int, got reply, why string) {
	s.t.Helper()
	if got.status != status {
		s.t.Errorf("%s: status %d, expected %d; challenge %q, body %q", why, got.status, status, got.header.Get("WWW-Authenticate"), got.body)
	}
}

type reply struct {
	status int
	header http.Header
	body   string
}
