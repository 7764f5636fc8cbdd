package provider_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/provider"
	"github.com/caddy-jwt/caddy-jwt/store"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

const (
	appSecret   = "a-secret-of-the-app-0123456789"
	appCallback = "https://app.example/callback"
	spaCallback = "https://spa.example:4711/callback"
)

// clientsOfTests are a confidential client, a public one, and some for special cases.
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

// Names from the standards and from docs/oidc.md.
const (
	grantDevice   = "urn:ietf:params:oauth:grant-type:device_code"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	acrPassword   = "urn:caddy-jwt:acr:password"
)

var responseTypes = []string{"code", "id_token", "id_token token", "code id_token", "code token", "code id_token token"}

// Limits of the provider.
const (
	strangersRequests = 120 // per client IP address and minute
	deviceTries       = 20  // wrong user codes
	secretTries       = 30  // wrong secrets per minute
	logoutsAtOnce     = 4   // to one client
	maxEchoedBytes    = 1024
	hintLifetime      = 30 * 24 * time.Hour // for an expired ID token
)

// Kinds of records in the store. Except for the clients, each issuer has its own.
const (
	kindClient      = "oidc client"
	kindGrant       = "oidc grant"
	kindCode        = "oidc code"
	kindInteraction = "oidc interaction"
	kindPushed      = "oidc pushed request"
	kindDevice      = "oidc device"
	kindUserCode    = "oidc user code"
	kindLogout      = "oidc log-out"
)

// site is a Caddy with a provider.
type site struct {
	*sitetest.Site
	dir    string // of the store
	config string // path of the Caddyfile
}

// store opens the site's store.
func (s *site) store() store.UserStore {
	s.T.Helper()
	return accountstest.OpenUsers(s.T, filepath.Join(s.dir, "users.db"))
}

// kind returns an issuer's own kind of records.
func (s *site) kind(kind string) string { return kind + " of " + s.URL }

// addClient adds a client to the store, as the commands do. It is public and redirects to
// https://wiki.example/; more changes that.
func (s *site) addClient(id, since string, more func(*provider.Client)) {
	s.T.Helper()
	client := provider.Client{ID: id, Public: true, RedirectURIs: []string{"https://wiki.example/"}, Since: since}
	more(&client)
	text, err := json.Marshal(client)
	if err == nil {
		err = s.store().CreateRecord(s.T.Context(), store.Record{Kind: kindClient, ID: id, Value: text})
	}
	if err != nil {
		s.T.Fatal(err)
	}
}

// serve runs a provider with these clients, and other directives of its site.
func serve(t testing.TB, clients, more string) *site {
	t.Helper()
	s := &site{Site: &sitetest.Site{
		T: t, URL: "http://" + sitetest.FreeLocalhost(t), LogFile: filepath.Join(t.TempDir(), "log.json"),
	}}
	s.load(clients, more, t.TempDir())
	sitetest.StopAfter(t)
	return s
}

func (s *site) load(clients, more, dir string) {
	s.T.Helper()
	s.dir = dir
	text := fmt.Sprintf(`%s
%s {
	oidc_provider {
		issuer %[2]s
		accounts {
			signup open
			store file %[3]s
			throttle off
			profile name nickname employer
		}
		claims company employer
		user_editable employer
		%[4]s
	}
	%[5]s
}
`,
		sitetest.GlobalOptions(
			filepath.Join(dir, "storage"), s.LogFile, "servers {\n trusted_proxies static 127.0.0.1/8 ::1/128\n}",
		),
		s.URL, filepath.Join(dir, "users.db"), clients, more)
	s.config = filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.T.Fatal(err)
	}
	s.LoadText(text)
}

// browser is the browser of a visitor who uses clients of the provider.
type browser struct {
	*sitetest.Visitor
	at *site
}

func (s *site) browser() *browser { return &browser{s.Visitor(), s} }

// goTo returns the same browser at another site.
func (b *browser) goTo(s *site) *browser { return &browser{b.At(s.Site), s} }

const verifier = "a-code-verifier-that-is-long-enough-for-rfc-7636"

// authorizeURL returns a valid authorization request of a client, with some parameters replaced; an
// empty value removes the parameter.
func (s *site) authorizeURL(client string, more url.Values) string {
	values := url.Values{
		"client_id": {client}, "redirect_uri": {appCallback}, "response_type": {"code"},
		"scope": {"openid email"}, "state": {"a state"}, "nonce": {"a nonce"},
		"code_challenge": {sitetest.Challenge(verifier)}, "code_challenge_method": {"S256"},
	}
	if client == "spa" {
		values.Set("redirect_uri", spaCallback)
	}
	for name, value := range more {
		values[name] = value
		if value[0] == "" {
			values.Del(name)
		}
	}
	return s.URL + "/oidc/authorize?" + values.Encode()
}

func (b *browser) authorizeURL(client string, more url.Values) string {
	return b.at.authorizeURL(client, more)
}

// code logs in and returns the code.
func (b *browser) code(client string, more url.Values) string {
	b.T.Helper()
	back := b.GoOn(b.authorizeURL(client, more)).Query()
	if back.Get("code") == "" || back.Get("state") != "a state" || back.Get("iss") != b.URL {
		b.T.Fatalf("the answer has %v", back)
	}
	return back.Get("code")
}

// exchange sends a client's request to the token endpoint.
func (b *browser) exchange(client string, form url.Values) sitetest.Reply {
	b.T.Helper()
	headers := []string{}
	switch client {
	case "app", "web":
		headers = append(headers, sitetest.Basic(client, appSecret))
	case "other":
		headers = append(headers, sitetest.Basic("other", "another-secret-0123456789"))
	default:
		form.Set("client_id", client)
	}
	return b.Post("/oidc/token", form, headers...)
}

func (b *browser) redeem(client, code string) sitetest.Reply {
	b.T.Helper()
	redirect := appCallback
	if client == "spa" {
		redirect = spaCallback
	}
	return b.exchange(client, url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier},
	})
}

func (b *browser) refresh(client, token string) sitetest.Reply {
	return b.exchange(client, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

// serveClients runs a provider with the clients of the tests.
func serveClients(t testing.TB) *site {
	t.Helper()
	return serve(t, fmt.Sprintf(clientsOfTests, ""), "")
}

// text returns the Caddyfile of the site.
func (s *site) text() string {
	s.T.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.T.Fatal(err)
	}
	return string(text)
}
