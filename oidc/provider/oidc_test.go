package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

const (
	goodPassword = "correct horse battery"
	appSecret    = "a-secret-of-the-app-0123456789"
	appCallback  = "https://app.example/callback"
	spaCallback  = "https://spa.example:4711/callback"
)

// clientsOfTests are a confidential client and a public one, and some for
// special cases.
const clientsOfTests = `
	client app {
		name "The App"
		secret ` + appSecret + `
		redirect_uri ` + appCallback + ` https://app.example/other?x=1
		post_logout_redirect_uri https://app.example/
		grant_types authorization_code refresh_token client_credentials
		scopes openid profile email roles offline_access read:todos
		%s
	}
	client spa {
		public
		redirect_uri ` + spaCallback + ` http://127.0.0.1/callback com.example.app:/callback
		consent never
	}
	client web {
		secret ` + appSecret + `
		redirect_uri ` + appCallback + `
		response_types code id_token "id_token token" "code id_token" "code token" "code id_token token"
		consent never
	}
	client native {
		public
		redirect_uri http://127.0.0.1/callback http://[::1]/callback http://localhost:4712/callback com.example.app:/callback https://native.example/callback https://localhost:4713/callback
		scopes openid email offline_access
		consent never
	}
	client tv {
		public
		grant_types urn:ietf:params:oauth:grant-type:device_code refresh_token
		scopes openid email
	}
	client other {
		secret another-secret-0123456789
		redirect_uri https://other.example/callback
		consent never
	}
	client api {
		secret ` + appSecret + `
		grant_types client_credentials
		introspect
	}
`

// site is a Caddy with a provider.
type site struct {
	t       testing.TB
	url     string
	logFile string
	dir     string // of the store
	config  string // path of the Caddyfile
}

// store is that of the site.
func (s *site) store() store.UserStore {
	s.t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	s.t.Cleanup(cancel)
	file := &filestore.Store{Path: filepath.Join(s.dir, "users.db")}
	if err := file.Provision(ctx); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = file.Cleanup() })
	return file
}

// serve runs a provider with these clients, and what else is in its site.
func serve(t testing.TB, clients, more string) *site {
	t.Helper()
	s := &site{t: t, url: "http://" + sitetest.FreeLocalhost(t), logFile: filepath.Join(t.TempDir(), "log.json")}
	s.load(clients, more, t.TempDir())
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) load(clients, more, dir string) {
	s.t.Helper()
	s.dir = dir
	text := fmt.Sprintf(`{
	admin off
	auto_https off
	storage file_system %s
	servers {
		trusted_proxies static 127.0.0.1/8 ::1/128
	}
	log {
		output file %s
		level DEBUG
	}
}
%s {
	oidc_provider {
		issuer %s
		accounts {
			signup open
			store file %s
			throttle off
			profile name nickname employer
		}
		claims company employer
		user_editable employer
		%s
	}
	%s
}
`, filepath.Join(dir, "storage"), s.logFile, s.url, s.url, filepath.Join(dir, "users.db"), clients, more)
	s.config = filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err == nil {
		err = caddy.Load(config, true)
		http.DefaultClient.CloseIdleConnections() // the server before it may still answer on one
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) log() string {
	text, err := os.ReadFile(s.logFile)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// answer is that of an HTTP request.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) json(t testing.TB) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal([]byte(a.body), &object); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return object
}

func (a answer) mustFail(t testing.TB, status int, code string) {
	t.Helper()
	if a.status != status || a.json(t)["error"] != code {
		t.Errorf("got %d %s, expected %d %s", a.status, a.body, status, code)
	}
}

// browser keeps cookies and follows no redirect.
type browser struct {
	*site
	client *http.Client
	email  string // by which goOn logs in; alice@example.com if it is empty
}

func (s *site) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &browser{site: s, client: &http.Client{Transport: caddytest.Transport{}, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) do(method, location string, form url.Values, headers ...string) answer {
	b.t.Helper()
	if strings.HasPrefix(location, "/") {
		location = b.url + location
	}
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	request, err := http.NewRequest(method, location, body)
	if err != nil {
		b.t.Fatal(err)
	}
	request.Header.Set("Accept", "text/html,*/*;q=0.8")
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Set(name, value)
	}
	response, err := b.client.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		b.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, text.String()}
}

func (b *browser) get(location string) answer { return b.do(http.MethodGet, location, nil) }

func (b *browser) post(location string, form url.Values, headers ...string) answer {
	return b.do(http.MethodPost, location, form, headers...)
}

// to is where an answer redirects.
func (a answer) to(t testing.TB) *url.URL {
	t.Helper()
	location, err := url.Parse(a.header.Get("Location"))
	if a.status != http.StatusSeeOther || err != nil {
		t.Fatalf("no redirect: %d %v %s", a.status, a.header, a.body)
	}
	return location
}

// signUp makes an account and logs in.
func (b *browser) signUp(email string) {
	b.t.Helper()
	got := b.do(http.MethodPost, "/auth/signup", url.Values{"email": {email}, "password": {goodPassword}, "name": {"Alice A."}, "employer": {"Example Ltd"}})
	if got.status != http.StatusSeeOther {
		b.t.Fatalf("sign-up: %d %s", got.status, got.body)
	}
}

var interactionField = regexp.MustCompile(`name="interaction" value="([^"]+)"`)

// decide posts the form of a page that asks, with its hidden fields.
func (b *browser) decide(path string, page answer, decision string, headers ...string) answer {
	b.t.Helper()
	form := url.Values{"decision": {decision}}
	for _, field := range hiddenField.FindAllStringSubmatch(page.body, -1) {
		form.Set(field[1], html.UnescapeString(field[2]))
	}
	return b.post(path, form, headers...)
}

// goOn follows a log-in until it leads back to the client: through the log-in
// page and the page that asks.
func (b *browser) goOn(location string) *url.URL {
	b.t.Helper()
	for range 8 {
		to, err := url.Parse(location)
		if err != nil {
			b.t.Fatal(err)
		}
		if to.Scheme != "" && b.url != to.Scheme+"://"+to.Host {
			return to
		}
		switch to.Path {
		case "/auth/login":
			page := b.get(location)
			if page.status != http.StatusOK {
				b.t.Fatalf("log-in page: %d %s", page.status, page.body)
			}
			email := b.email
			if email == "" {
				email = "alice@example.com"
			}
			location = b.post("/auth/login", url.Values{"email": {email}, "password": {goodPassword}, "return_to": {to.Query().Get("return_to")}}).to(b.t).String()
		case "/oidc/consent":
			page := b.get(location)
			found := interactionField.FindStringSubmatch(page.body)
			if found == nil {
				b.t.Fatalf("consent page: %d %s", page.status, page.body)
			}
			location = b.decide("/oidc/consent", page, "allow").to(b.t).String()
		default:
			location = b.get(location).to(b.t).String()
		}
	}
	b.t.Fatalf("it does not end: %s", location)
	return nil
}

const (
	verifier = "a-code-verifier-that-is-long-enough-for-rfc-7636"
)

// authorizeURL is a request of a client, with parameters that replace those of
// a good one; empty ones are left out.
func (s *site) authorizeURL(client string, more url.Values) string {
	values := url.Values{"client_id": {client}, "redirect_uri": {appCallback}, "response_type": {"code"}, "scope": {"openid email"}, "state": {"a state"}, "nonce": {"a nonce"},
		"code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}}
	if client == "spa" {
		values.Set("redirect_uri", spaCallback)
	}
	for name, value := range more {
		values[name] = value
		if value[0] == "" {
			values.Del(name)
		}
	}
	return s.url + "/oidc/authorize?" + values.Encode()
}

// code logs in and returns the code.
func (b *browser) code(client string, more url.Values) string {
	b.t.Helper()
	back := b.goOn(b.authorizeURL(client, more)).Query()
	if back.Get("code") == "" || back.Get("state") != "a state" || back.Get("iss") != b.url {
		b.t.Fatalf("the answer has %v", back)
	}
	return back.Get("code")
}

// exchange asks the token endpoint as a client.
func (b *browser) exchange(client string, form url.Values) answer {
	b.t.Helper()
	headers := []string{}
	switch client {
	case "app", "web":
		headers = append(headers, basic(client, appSecret))
	case "other":
		headers = append(headers, basic("other", "another-secret-0123456789"))
	default:
		form.Set("client_id", client)
	}
	return b.post("/oidc/token", form, headers...)
}

func basic(id, secret string) string {
	request := http.Request{Header: make(http.Header)}
	request.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	return "Authorization: " + request.Header.Get("Authorization")
}

func (b *browser) redeem(client, code string) answer {
	b.t.Helper()
	redirect := appCallback
	if client == "spa" {
		redirect = spaCallback
	}
	return b.exchange(client, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}})
}

func (b *browser) refresh(client, token string) answer {
	return b.exchange(client, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

func challengeOf(verifier string) string { return hashed(verifier) }

// provider serves the clients of the tests.
func provider(t testing.TB) *site {
	t.Helper()
	return serve(t, fmt.Sprintf(clientsOfTests, ""), "")
}
