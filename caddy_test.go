package caddyjwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	stdjson "encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const testSecret = "a secret of more than sixty-four bytes, for tests and for nothing else"

// testKeys are made once a run: one of each kind, and a second RSA key that is
// a stranger's.
var testKeys = sync.OnceValue(func() (keys struct {
	rsa, strangerRSA   *rsa.PrivateKey
	p256, p384, p521   *ecdsa.PrivateKey
	ed25519, strangeEd ed25519.PrivateKey
}) {
	var errs [7]error
	keys.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	keys.strangerRSA, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	keys.p256, errs[2] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	keys.p384, errs[3] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	keys.p521, errs[4] = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, keys.ed25519, errs[5] = ed25519.GenerateKey(rand.Reader)
	_, keys.strangeEd, errs[6] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return keys
})

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
func globalOptions(storage, logFile, more string) string {
	return fmt.Sprintf(`{
		admin off
		auto_https off
		persist_config off
		storage file_system %s
		log {
			output file %s
			format json
			level DEBUG
		}
		%s
	}
	`, storage, logFile, more)
}

// tempDir is a folder whose name, unlike that of t.TempDir, holds nothing of
// the test's name, which Caddy may take for a placeholder.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caddy-jwt-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// serve runs a site with this inside of its block.
func serve(t testing.TB, body string) *site {
	t.Helper()
	s := &site{t: t, url: "http://" + freeAddress(t), logFile: filepath.Join(tempDir(t), "log.json")}
	s.load(body, tempDir(t))
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
	config, err := adapt(t, body, "127.0.0.1:0", tempDir(t), filepath.Join(tempDir(t), "log.json"))
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
	config, err := adapt(t, body, freeAddress(t), tempDir(t), filepath.Join(tempDir(t), "log.json"))
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

type answer struct {
	status int
	header http.Header
	body   string
}

// get asks for a path, with headers given as "Name: value".
func (s *site) get(path string, headers ...string) answer {
	s.t.Helper()
	return s.do(http.MethodGet, path, headers...)
}

func (s *site) do(method, path string, headers ...string) answer {
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
	return answer{response.StatusCode, response.Header, string(body)}
}

// bearer asks for a path with a token.
func (s *site) bearer(path, token string) answer {
	s.t.Helper()
	return s.get(path, "Authorization: Bearer "+token)
}

func (s *site) mustAnswer(status int, got answer, why string) {
	s.t.Helper()
	if got.status != status {
		s.t.Errorf("%s: status %d, expected %d; challenge %q, body %q", why, got.status, status, got.header.Get("WWW-Authenticate"), got.body)
	}
}

// eventually polls, for what a background task brings about.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	within(t, time.Minute, what, met)
}

func within(t testing.TB, limit time.Duration, what string, met func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !met() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

type claimsMap = map[string]any

// goodClaims are accepted everywhere, with changes: nil takes a claim out.
func goodClaims(changes claimsMap) claimsMap {
	claims := claimsMap{"iss": "https://issuer.example", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range changes {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

// sign makes a token of claims.
func sign(t testing.TB, algorithm string, key any, header, claims claimsMap) string {
	t.Helper()
	full := claimsMap{"alg": algorithm, "typ": "JWT"}
	for name, value := range header {
		full[name] = value
	}
	return signRaw(t, algorithm, key, mustJSON(t, full), mustJSON(t, claims))
}

// hs is a token signed with the test secret.
func hs(t testing.TB, changes claimsMap) string {
	t.Helper()
	return sign(t, "HS256", []byte(testSecret), nil, goodClaims(changes))
}

// signRaw signs any header and payload, also such as no library would write.
func signRaw(t testing.TB, algorithm string, key any, header, payload string) string {
	t.Helper()
	input := encode(header) + "." + encode(payload)
	return input + "." + encode(string(signature(t, algorithm, key, input)))
}

func signature(t testing.TB, algorithm string, key any, input string) []byte {
	t.Helper()
	signer, err := jws.NewSigner(jwa.SignatureAlgorithm(algorithm))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign([]byte(input), key)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

func encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func mustJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := stdjson.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func publicPEM(t testing.TB, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// publicJWK is the JWK of a key, with members added or changed.
func publicJWK(t testing.TB, key crypto.Signer, members claimsMap) claimsMap {
	t.Helper()
	parsed, err := jwk.FromRaw(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var object claimsMap
	if err := stdjson.Unmarshal([]byte(mustJSON(t, parsed)), &object); err != nil {
		t.Fatal(err)
	}
	for name, value := range members {
		object[name] = value
	}
	return object
}

// identityProvider serves a key set and a discovery document, and counts.
type identityProvider struct {
	*httptest.Server
	t           testing.TB
	fetches     atomic.Int64
	connections atomic.Int64
	respond     atomic.Pointer[http.HandlerFunc] // of /jwks
}

func newIdentityProvider(t testing.TB, keys ...claimsMap) *identityProvider {
	t.Helper()
	p := &identityProvider{t: t}
	p.setKeys(keys...)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, p.URL, p.URL+"/jwks")
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		(*p.respond.Load())(w, r)
	})
	p.Server = httptest.NewUnstartedServer(mux)
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			p.connections.Add(1)
		}
	}
	p.Start()
	t.Cleanup(p.Close)
	return p
}

func (p *identityProvider) setKeys(keys ...claimsMap) {
	p.setAnswer(http.StatusOK, mustJSON(p.t, claimsMap{"keys": keys}))
}

func (p *identityProvider) setAnswer(status int, body string) {
	p.setHandler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		_, _ = io.Copy(w, bytes.NewReader([]byte(body)))
	})
}

func (p *identityProvider) setHandler(handler http.HandlerFunc) { p.respond.Store(&handler) }
