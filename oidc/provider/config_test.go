package provider_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// The error about a wrong use of an option says what is wrong and what would be right.
func TestWrongConfigs(t *testing.T) {
	const issuer = "issuer http://localhost:1\n"
	public := func(more string) string {
		return issuer + "client app {\n public\n redirect_uri https://app.example/\n" + more + "\n}"
	}
	client := func(more string) string { return issuer + "client app {\n public\n " + more + "\n}" }
	api := func(url, more string) string { return issuer + "api " + url + " {\n" + more + "\n}" }
	for body, want := range map[string]string{
		"":                                   "oidc_provider requires `issuer`",
		"issuer":                             "issuer takes the URL of this site",
		"issuer localhost":                   "it must be the URL of this site without a slash at the end",
		"issuer http://id.example.com":       "https, or http on this machine",
		"issuer https://id.example.com/":     "without a slash at the end",
		"issuer https://a\nissuer https://a": "issuer is specified twice",
		issuer + "colour blue":               `oidc_provider has no option "colour"; it has issuer, accounts, client, api, client_documents, claims, user_editable, access_token_algorithm and templates`,
		issuer + "claims company":            "claims takes a scope and the claims that it grants",
		issuer + "templates /nowhere":        "templates: ",
		issuer + "accounts {\n issuer http://localhost:1\n}": "accounts: issuer is the same as the issuer of " +
			"the provider",
		issuer + "user_editable": "user_editable takes one or more profile properties",
		issuer + "user_editable team\naccounts {\n profile name\n}": "user_editable team: the accounts have no such " +
			"property, so users cannot set it",
		issuer + "claims team acr":             "claims team: acr describes the token",
		public("introspect"):                   "a public client cannot introspect",
		public("introspect yes"):               "introspect does not take a value",
		issuer + "accounts {\n colour blue\n}": `accounts has no option "colour"`,
		issuer + "client x {\n secret \"0123456789abcdef\n0123456789abcdef\"\n" +
			" redirect_uri https://a.example/\n}": "secret has several lines",
		issuer + "client x {\n secret 0123456789abcdef\nPwiUmmZCjssktECq3eZkKw==\n}": "client has no such option",
		issuer + "client":                 "client takes the client's ID and a block",
		issuer + "client app":             "client app: it must have `secret`, `public_key` or `public`",
		public("secret 0123456789012345"): "it is public but has a secret or key",
		public("") + "\nclient app {\n public\n redirect_uri https://b/\n}": "client app is specified twice",
		public("public"):            "public is specified twice in client app",
		public("colour blue"):       `client has no option "colour"`,
		public("consent sometimes"): `consent: unknown value "sometimes"; supported: always, once, never`,
		public(
			"consent allways",
		): `consent: unknown value "allways"; did you mean always? Supported: always, once, never`,
		public(
			"grant_types device_code",
		): `grant_types: unknown grant type "device_code"; did you mean urn:ietf:params:oauth:grant-type:device_code? Supported: `,
		public("response_types codd"):       `response_types: unknown response type "codd"; did you mean code? Supported: `,
		public("signup open"):               "client has no option \"signup\", which is an option of accounts, at",
		public("grants client_credentials"): "client has no option \"grants\"; did you mean grant_types?, at",
		issuer + "user_editable emploer\naccounts {\n profile employer\n}": "or remove it from " +
			"user_editable; did you mean employer?",
		public("grant_types password"):           `grant_types: unknown grant type "password"`,
		public("grant_types client_credentials"): "a public client cannot have client_credentials",
		public("response_types code+token"):      `response_types: unknown response type "code+token"`,
		public("scopes openid account"):          "account is reserved for the accounts' own tokens",
		public(`scopes "a\"b"`):                  "is not a valid scope",
		public("access_token_lifetime 25h"):      "must not be longer than 24h",
		issuer + "client a {\n public\n redirect_uri https://a/\n id_token_lifetime 900h\n}\n" +
			"client b {\n public\n redirect_uri https://b/\n id_token_lifetime 5m\n}": "client a: id_token_lifetime " +
			"is 900h0m0s; it must not be longer than 24h0m0s, because these tokens cannot be revoked, at Caddyfile:11",
		issuer + "client a {\n public\n id_token_lifetime 5m\n}\nclient b {\n public\n redirect_uri https://b/\n" +
			" id_token_lifetime 5m\n}": "without authorization_code, at Caddyfile:8",
		public("access_token_lifetime soon"):                 "access_token_lifetime takes a duration",
		public("backchannel_logout_uri http://app.example/"): "backchannel_logout_uri",
		public("redirect_uri http://app.example/"): "it must be https, http on this machine, or an app's " +
			"own scheme",
		public("redirect_uri https://app.example/#x"): "it has a fragment",
		public("redirect_uri javascript:alert(1)"):    "it must be https",
		public("redirect_uri https://*.example.com/"): "it must not contain *, a space or a backslash",
		public("post_logout_redirect_uri /"):          "it is not an absolute URL",
		issuer + "client app {\n secret short\n redirect_uri https://a/\n}": "secret has a length " +
			"of 5; it must have at least 16 bytes",
		issuer + "client app {\n secret {env.NOTHING}\n" +
			" redirect_uri https://a/\n}": "secret is empty; is the environment variable NOTHING set?",
		issuer + "client app {\n secret {evn.NOTHING}\n" +
			" redirect_uri https://a/\n}": "secret has a placeholder without a value",
		issuer + "client app {\n secret $2secret-of-the-operator\n" +
			" redirect_uri https://a/\n}": "secret starts like a hash, but the bcrypt hash is corrupt",
		issuer + "client app {\n secret $argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$short\n" +
			" redirect_uri https://a/\n}": "secret starts like a hash, but the argon2id hash is corrupt",
		issuer + "client app {\n secret 0123456789012345\n}":                    "it must have `redirect_uri`",
		issuer + "access_token_algorithm HS256":                                 `access_token_algorithm: unknown algorithm "HS256"`,
		client("undotted_scheme\n redirect_uri javascript:alert"):               "its scheme is one of browsers",
		client("redirect_uri oc://ios.owncloud.com"):                            "needs undotted_scheme",
		client("redirect_uri https://a/\n secret $SHOP_SECRET_OF_THE_PROVIDER"): "secret: it is written like a variable",
		client("redirect_uri https://a/\n rename_claim groups"):                 "rename_claim takes the name for the client",
		client("redirect_uri https://a/\n rename_claim sub email"):              "rename_claim sub email: a client would take the",
		client("redirect_uri https://a/\n rename_claim a b\n rename_claim a c"): "rename_claim a is specified twice",
		client(`redirect_uri https://a/
		 roles "two words"`): "roles: a role must be a single word",
		issuer + "api": "api takes the URL of the API and a block, as in: api https://api.example.com/orders {",
		api("orders", ""): "api orders: it must be an absolute URI without a fragment, as clients write it, " +
			"as in: api https://api.example.com/orders, at Caddyfile:8",
		api("https://a/#x", ""):                       "it must be an absolute URI without a fragment",
		api("http://localhost:1", ""):                 "it is the issuer",
		api("{env.NOTHING}", ""):                      "it has a placeholder without a value",
		api("https://a", "nmae x"):                    `api has no option "nmae"; did you mean name?`,
		api("https://a", "name x\nname y"):            "name is specified twice in api https://a, at Caddyfile:10",
		api("https://a", "") + "\napi https://a {\n}": "api https://a is specified twice, at Caddyfile:11",
		api("https://a", "scopes"):                    "scopes takes scopes, as in: scopes orders:read orders:write",
		api("https://a", "scopes x {\n y\n}"):         "or a block with a scope and its text on each line",
		api("https://a", "scopes {\n x See it\n}"):    `scopes: put the text of x in quotes, as in: x "See your orders"`,
		api("https://a", "scopes x\nscopes {\n x X\n}"): "scopes: x is specified twice in api https://a, " +
			"at Caddyfile:11",
		api("https://a", "name x\nscopes openid"): "api https://a: scopes: openid is a scope of the users' own data; " +
			"choose another name, at Caddyfile:10",
		api("https://a", `scopes "a\"b"`):         "is not a valid scope",
		issuer + "client_documents":               "client_documents takes one or more hosts",
		issuer + "client_documents https://x.org": "it must be a host in lower case, as in: client_documents claude.ai",
		issuer + "client_documents *.x.org":       "client_documents *.x.org: it must be a host in lower case",
		issuer + "client_documents X.org":         "it must be a host in lower case",
		issuer + "client_documents x.org/path":    "it must be a host in lower case",
		issuer + "client_documents localhost": "a host on this machine must have a port, as in: client_documents " +
			"localhost:8443, at Caddyfile:8",
		issuer + "client_document x.org":                                         `oidc_provider has no option "client_document"; did you mean client_documents?`,
		issuer + "client app {\n public_key no!key\n redirect_uri https://a/\n}": "public_key: neither PEM",
	} {
		text := "{\n admin off\n storage file_system " + t.TempDir() + "\n}\nhttp://localhost:1 {\n oidc_provider {\n" +
			body + "\n}\n}"
		config, _, err := caddyconfig.GetAdapter("caddyfile").
			Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
		if err == nil {
			var parsed caddy.Config
			if err := json.Unmarshal(config, &parsed); err != nil {
				t.Fatal(err)
			}
			err = caddy.Validate(&parsed)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nsays %v\nexpected %s", body, err, want)
		}
	}
}

// The Caddyfiles of the docs adapt.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/oidc.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```caddyfile\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
	for _, block := range blocks {
		if _, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(block[1]), nil); err != nil {
			t.Error(err)
		}
	}
	if len(blocks) == 0 {
		t.Error("the docs have none")
	}
}

// caddy jwt keys rotate also rotates the provider's keys: earlier tokens are still valid, and
// servers sign with the new keys.
func TestKeyRotation(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	before := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	binary := caddytest.Binary(t)
	output, err := exec.Command(binary, "jwt", "keys", "rotate", "--lead", "0", "--config", s.config).CombinedOutput()
	if err != nil || strings.Count(string(output), "signs within 15 seconds") != 3 {
		t.Fatalf("%v\n%s", err, output)
	}
	sitetest.Eventually(t, "the set has the new keys beside the old ones", func() bool {
		return strings.Count(chrome.Get("/oidc/jwks.json").Body, `"kid"`) == 4
	})
	after := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	for _, name := range []string{"access_token", "id_token"} {
		if kidOf(t, before[name].(string)) == kidOf(t, after[name].(string)) {
			t.Errorf("%s is signed with the old key", name)
		}
	}
	for name, given := range map[string]map[string]any{"before": before, "after": after} {
		if got := chrome.Do(
			http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+given["access_token"].(string),
		); got.Status != 200 {
			t.Errorf("an access token from %s: %d", name, got.Status)
		}
		if got := chrome.Get(s.authorizeURL("spa", url.Values{
			"prompt": {"none"}, "id_token_hint": {given["id_token"].(string)},
		})).To(t); got.Query().Get("code") == "" {
			t.Errorf("a hint from %s: %s", name, got)
		}
	}
}

// A withdrawn key is refused even if nobody requests the key set.
func TestWithdrawnKey(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	given := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	token, hint := given["access_token"].(string), given["id_token"].(string)
	userinfo := func() int {
		return chrome.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+token).Status
	}
	if status := userinfo(); status != 200 {
		t.Fatalf("control: %d", status)
	}
	if output, err := exec.Command(
		caddytest.Binary(t), "jwt", "keys", "rotate", "--withdraw", "--yes", "--config", s.config,
	).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	deadline := time.Now().Add(time.Minute)
	for userinfo() != 401 {
		if time.Now().After(deadline) {
			t.Fatal("a token of a withdrawn key is still good")
		}
		time.Sleep(100 * time.Millisecond)
	}

	// An ID token signed with such a key still identifies the user, but does not end a session by
	// itself.
	silent := url.Values{"prompt": {"none"}, "id_token_hint": {hint}}
	if to := chrome.Get(s.authorizeURL("app", silent)).To(t); to.Query().Get("code") == "" {
		t.Errorf("as a hint at log-in: %s", to)
	}
	bob := s.browser()
	bob.SignUp("bob@example.com")
	if to := bob.Get(s.authorizeURL("app", silent)).To(t); to.Query().Get("error") != "login_required" {
		t.Errorf("as a hint at the log-in of another: %s", to)
	}
	page := chrome.Get("/oidc/logout?" + url.Values{
		"id_token_hint": {hint}, "post_logout_redirect_uri": {"https://app.example/"}, "state": {"bye"},
	}.Encode())
	if !strings.Contains(page.Body, "Log out?") || chrome.Get("/auth/whoami").Status != 200 {
		t.Fatalf("as a hint at log-out: %d %s", page.Status, page.Body)
	}
	if to := chrome.Decide("/oidc/logout", page, "logout").To(t); to.String() != "https://app.example/?state=bye" ||
		chrome.Get("/auth/whoami").Status != 401 {
		t.Errorf("after the log-out: %s", to)
	}
}

func kidOf(t *testing.T, token string) any {
	t.Helper()
	return sitetest.ClaimsOf(t, "x."+strings.Split(token, ".")[0]+".x")["kid"]
}

// Codes, grants and consents outlive a restart; so do the keys.
func TestStateOutlivesARestart(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	tokens := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	code := chrome.code("app", nil)
	keys := chrome.Get("/oidc/jwks.json").Body
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	s.load(fmt.Sprintf(clientsOfTests, ""), "", s.dir)
	if after := chrome.Get("/oidc/jwks.json").Body; after != keys {
		t.Errorf("the keys were %s and are %s", keys, after)
	}
	if got := chrome.redeem("app", code); got.Status != 200 {
		t.Errorf("a code: %d %s", got.Status, got.Body)
	}
	if got := chrome.refresh("app", tokens["refresh_token"].(string)); got.Status != 200 {
		t.Errorf("a refresh token: %d %s", got.Status, got.Body)
	}
	if to := chrome.Get(s.authorizeURL("app", nil)).To(t); to.Query().Get("code") == "" {
		t.Errorf("asked again: %s", to)
	}
	chrome.redeem("app", code).MustFail(t, 400, "invalid_grant")
}

// Servers know clients of the command at once.
func TestClientCommands(t *testing.T) {
	s := serveClients(t)
	binary := caddytest.Binary(t)
	where := []string{"--store", filepath.Join(s.dir, "users.db")}
	run := func(arguments ...string) (string, error) {
		command := exec.Command(binary, slices.Concat([]string{"jwt", "client"}, where, arguments)...)
		var stdout, stderr bytes.Buffer
		command.Stdout, command.Stderr = &stdout, &stderr
		err := command.Run()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, strings.ReplaceAll(stderr.String(), `\"`, `"`))
		}
		return stdout.String(), err
	}
	for _, command := range []string{"add", "show", "delete"} {
		if _, err := run(command); err == nil || !strings.Contains(err.Error(), "the ID of a client, but no argument") {
			t.Errorf("%s without an ID: %v", command, err)
		}
	}
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	request := s.authorizeURL("wiki", url.Values{"redirect_uri": {"https://wiki.example/callback"}})
	if got := chrome.Get(request); got.Status != 400 {
		t.Errorf("before it is added: %d", got.Status)
	}
	secret, err := run(
		"add", "--name", "The Wiki", "--redirect-uri", "https://wiki.example/callback", "--consent", "never", "wiki",
	)
	if err != nil {
		t.Fatal(err)
	}
	secret = strings.TrimSpace(secret)
	code := chrome.Get(request).To(t).Query().Get("code")
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri": {"https://wiki.example/callback"}, "code_verifier": {verifier},
	}
	chrome.Post("/oidc/token", form, sitetest.Basic("wiki", secret+"x")).MustFail(t, 401, "invalid_client")
	if got := chrome.Post("/oidc/token", form, sitetest.Basic("wiki", secret)); got.Status != 200 {
		t.Errorf("with the secret: %d %s", got.Status, got.Body)
	}
	if list, err := run("list"); err != nil || !strings.Contains(list, "wiki  secret  https://wiki.example/callback") {
		t.Errorf("list: %s %v", list, err)
	}
	if list, err := run("list", "--json"); err != nil || !strings.Contains(list, `"name":"The Wiki"`) ||
		!json.Valid([]byte(list)) || strings.Contains(list, "secret") {
		t.Errorf("list --json: %s %v", list, err)
	}
	if shown, err := run("show", "wiki"); err != nil || !strings.Contains(shown, `"name": "The Wiki"`) ||
		strings.Contains(shown, "secret") {
		t.Errorf("show: %s %v", shown, err)
	}
	for want, arguments := range map[string][]string{
		"the client wiki already exists":          {"add", "--redirect-uri", "https://wiki.example/callback", "wiki"},
		"it must be https":                        {"add", "--redirect-uri", "http://wiki.example/", "other"},
		"it must have `redirect_uri`":             {"add", "--public", "other"},
		`there is no client "nobody"`:             {"delete", "nobody"},
		"caddy jwt client has no command \"lst\"": {"lst"},
	} {
		if _, err := run(arguments...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, expected %s", arguments, err, want)
		}
	}
	if _, err := run("delete", "--yes", "wiki"); err != nil {
		t.Error(err)
	}
	if got := chrome.Get(request); got.Status != 400 {
		t.Errorf("after it is deleted: %d", got.Status)
	}

	// The config has a client with the same ID, and servers use that one.
	add := []string{"add", "--redirect-uri", "https://wiki.example/callback", "spa"}
	if _, err := run(add...); err != nil {
		t.Error(err)
	}
	s.load(fmt.Sprintf(clientsOfTests, ""), "", s.dir)
	if log := s.Log(); !strings.Contains(
		log, "client in the user store is not used, because the config has a client with the same ID",
	) ||
		!strings.Contains(log, `"client_id":"spa"`) {
		t.Errorf("the log does not say that it is not used: %s", log)
	}
	if _, err := run("delete", "--yes", "spa"); err != nil {
		t.Error(err)
	}
	where = []string{"--config", s.config}
	if _, err := run(add...); err == nil ||
		!strings.Contains(err.Error(), "the config already has a client spa, of issuer "+s.URL) {
		t.Errorf("by --config: %v", err)
	}
	add[len(add)-1] = "wiki"
	if _, err := run(add...); err != nil {
		t.Errorf("control: %v", err)
	}
}

// CORS allows only the pages of clients, at the endpoints that they use.
func TestThreatCORS(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	const client = "Origin: https://spa.example:4711"
	for path, want := range map[string]string{
		"/oidc/token": "https://spa.example:4711", "/oidc/userinfo": "https://spa.example:4711",
		"/oidc/revoke":    "https://spa.example:4711",
		"/oidc/jwks.json": "*", "/.well-known/openid-configuration": "*",
		"/oidc/authorize": "", "/oidc/introspect": "", "/oidc/consent": "", "/oidc/device": "",
	} {
		got := chrome.Do("OPTIONS", path, nil, client, "Access-Control-Request-Method: POST")
		if allowed := got.Header.Get("Access-Control-Allow-Origin"); allowed != want ||
			got.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %d %v", path, got.Status, got.Header)
		}
		got = chrome.Do("OPTIONS", path, nil, "Origin: https://evil.example", "Access-Control-Request-Method: POST")
		if allowed := got.Header.Get("Access-Control-Allow-Origin"); allowed != "" && allowed != "*" {
			t.Errorf("%s from elsewhere: %v", path, got.Header)
		}
	}
}
