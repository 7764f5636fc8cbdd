package examples_test

import (
	"net"
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

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// runExample runs an example of one site, unchanged except for its ports and Caddy's storage
// folder.
func runExample(t *testing.T, name string, environment ...string) *sitetest.Site {
	t.Helper()
	s := &sitetest.Site{
		T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(sitetest.TempDir(t), "log.json"),
	}
	upstream := sitetest.FreeAddress(t)
	startExample(t, name, s.LogFile, func(text string) string {
		text = strings.ReplaceAll(text, "\n:8080 {", "\nhttp://:"+port(s.URL)+" {")
		return strings.NewReplacer(
			"localhost:8080", "localhost:"+port(s.URL), "127.0.0.1:8080", "127.0.0.1:"+port(s.URL),
			"localhost:8081", "localhost:"+port("http://"+upstream), "127.0.0.1:8081", upstream,
		).Replace(text)
	}, environment...)
	return s
}

// runExampleSites runs an example of several sites. It returns their ports by the ports in the
// file.
func runExampleSites(t *testing.T, name string, ports []string, environment ...string) map[string]string {
	t.Helper()
	instead := make(map[string]string)
	startExample(t, name, filepath.Join(sitetest.TempDir(t), "log.json"), func(text string) string {
		for _, port := range ports {
			instead[port] = sitetest.FreePort(t)
			text = strings.ReplaceAll(text, ":"+port, ":"+instead[port])
		}
		return text
	}, environment...)
	return instead
}

// startExample loads an example, changed by a function.
func startExample(t *testing.T, name, logFile string, change func(text string) string, environment ...string) {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", sitetest.TempDir(t)) // where accounts are by default
	t.Setenv("TMPDIR", sitetest.TempDir(t))
	for i := 0; i < len(environment); i += 2 {
		t.Setenv(environment[i], environment[i+1])
	}
	text, err := os.ReadFile(filepath.Join("examples", name, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	_, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	options := sitetest.GlobalOptions(sitetest.TempDir(t), logFile, "")
	if strings.Contains(string(text), "tls internal") { // which needs a certificate of Caddy's own authority
		options = strings.Replace(options, "auto_https off", "auto_https disable_redirects\nskip_install_trust", 1)
	}
	sitetest.LoadText(t, options+change(globalBlock.ReplaceAllString(string(text), "")))
}

// globalBlock matches the global options of an example.
var globalBlock = regexp.MustCompile(`(?ms)^\{\n.*?^\}\n`)

func port(of string) string {
	u, err := url.Parse(of)
	if err != nil {
		panic(err)
	}
	return u.Port()
}

// startNode runs a server until the test ends. It gets the port in the environment.
func startNode(t *testing.T, folder, script, port string, environment ...string) {
	t.Helper()
	server := exec.Command("node", script)
	server.Dir, server.Env, server.Stderr = folder, append(os.Environ(), append(environment, "PORT="+port)...), os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	sitetest.Within(t, time.Minute, "the server listens", func() bool {
		connection, err := net.Dial("tcp", "localhost:"+port)
		if err == nil {
			_ = connection.Close()
		}
		return err == nil
	})
}

// step is a request to an example, and the expected response.
type step struct {
	path    string
	headers []string
	status  int
	body    string // a part of it
}

func bearerOf(token string) []string { return []string{"Authorization: Bearer " + token} }

func runSteps(s *sitetest.Site, steps ...step) {
	s.T.Helper()
	for _, step := range steps {
		got := s.Get(step.path, step.headers...)
		s.MustAnswer(step.status, got, step.path)
		if !strings.Contains(got.Body, step.body) {
			s.T.Errorf("%s: body %q, expected in it %q", step.path, got.Body, step.body)
		}
	}
}

func TestExamplesAreAllTested(t *testing.T) {
	files, err := filepath.Glob("examples/*/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("examples/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests []byte
	for _, file := range sources {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, text...)
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		if !regexp.MustCompile(`runExample(Sites)?\(\s*t, "` + name + `"`).Match(tests) {
			t.Errorf("no test runs %s", file)
		}
	}
}

func TestExampleMain(t *testing.T) {
	s := runExample(t, "")
	key, err := os.ReadFile("examples/demo-key.pem")
	if err != nil {
		t.Fatal(err)
	}
	signer, _, err := signing.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	good := sitetest.JSON{
		"iss": "https://demo.example", "aud": "https://api.example",
		"roles": []string{"editor", "author"}, "email": "a<b>@example.com",
	}
	token := sitetest.Sign(t, "ES256", signer.Key, nil, sitetest.Claims(good))
	spoofed := append(bearerOf(token), "X-User-Id: admin", "X-User-Roles: admin")
	runSteps(s,
		step{"/", nil, 200, "Anybody"},
		step{"/private.html", nil, 401, `"code":"credentials_required"`},
		step{"/private.html", bearerOf(token), 200, "Hello, alice"},
		step{"/private.html", bearerOf(token), 200, "a&lt;b&gt;@example.com"},
		step{"/api/x", nil, 401, ""},
		step{"/api/x", spoofed, 200, "user=alice roles=editor,author\n"},
		step{
			"/api/x", bearerOf(sitetest.Sign(t, "ES256", sitetest.Keys().P256, nil, sitetest.Claims(good))),
			401, "signature",
		},
	)
}

func TestExampleIdentityProvider(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	s := runExample(t, "identity-provider", "ISSUER", p.URL, "AUDIENCE", "me")
	token := func(aud string) []string {
		return bearerOf(sitetest.Sign(
			t, "RS256", keys.RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{"iss": p.URL, "aud": aud}),
		))
	}
	runSteps(s,
		step{"/", nil, 200, "Anybody"},
		step{"/api/", nil, 401, ""},
		step{"/api/", token("me"), 200, "Hello, alice"},
		step{"/api/", token("you"), 401, "audience"},
	)
}

func TestExampleSharedSecret(t *testing.T) {
	s := runExample(t, "shared-secret", "JWT_SECRET", sitetest.Secret)
	runSteps(s,
		step{"/", nil, 200, "Anybody"},
		step{"/api/", nil, 401, ""},
		step{"/api/", bearerOf(sitetest.HS256(t, nil)), 200, "Hello, alice"},
		step{"/api/", bearerOf(sitetest.HS256(t, sitetest.JSON{"exp": 1})), 401, "expired"},
	)
}

func TestExampleCookie(t *testing.T) {
	s := runExample(t, "cookie", "JWT_SECRET", sitetest.Secret)
	runSteps(s,
		step{"/index.html", nil, 200, "Anybody"},
		step{"/private.html", []string{"Cookie: __Host-session=" + sitetest.HS256(t, nil)}, 200, "Private"},
		step{"/private.html", nil, 303, ""},
		step{"/private.html", []string{"Cookie: __Host-session=x"}, 303, ""},
		step{"/private.html", bearerOf(sitetest.HS256(t, nil)), 303, ""},
	)
	if got := s.Get("/private.html").Header.Get("Location"); got != "https://login.example.com/?return_to="+s.URL+
		"/private.html" {
		t.Errorf("Location %q", got)
	}
}

func TestExampleSeveralIssuers(t *testing.T) {
	keys := sitetest.Keys()
	staff := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a"}))
	partner := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.P256, sitetest.JSON{"kid": "a"}))
	s := runExample(t, "several-issuers", "STAFF_ISSUER", staff.URL, "PARTNER_JWKS", partner.URL+"/jwks")
	token := func(algorithm string, key any, iss string) []string {
		return bearerOf(sitetest.Sign(t, algorithm, key, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{
			"iss": iss, "aud": "https://api.example.com",
		})))
	}
	runSteps(s,
		step{"/api/", token("RS256", keys.RSA, staff.URL), 200, "alice of " + staff.URL},
		step{"/api/", token("ES256", keys.P256, "https://partner.example"), 200, "alice of https://partner.example"},
		step{"/api/", token("ES256", keys.P256, staff.URL), 401, ""},
		step{"/api/", token("RS256", keys.RSA, "https://partner.example"), 401, ""},
		step{"/api/", nil, 401, ""},
	)
}

func TestExampleIntrospection(t *testing.T) {
	issuer := sitetest.NewIntrospectionServer(t)
	s := runExample(t, "introspection", "ISSUER", issuer.URL, "CLIENT_SECRET", "the-secret-of-the-api")
	issuer.Issue("opaque", sitetest.JSON{"aud": "https://api.example.com"})
	issuer.Issue("for-reports", sitetest.JSON{"aud": "https://api.example.com", "scope": "reports"})
	issuer.Issue("for-others", sitetest.JSON{"aud": "https://other.example.com"})
	runSteps(s,
		step{"/api/", bearerOf("opaque"), 200, "hello alice"},
		step{"/api/reports/1", bearerOf("opaque"), 403, "insufficient_scope"},
		step{"/api/reports/1", bearerOf("for-reports"), 200, "hello alice"},
		step{"/api/", bearerOf("for-others"), 401, "audience"},
		step{"/api/", bearerOf("unknown"), 401, "not active"},
		step{"/api/", nil, 401, ""},
	)
}

func TestExampleRules(t *testing.T) {
	s := runExample(t, "rules", "JWT_SECRET", sitetest.Secret)
	with := func(claims sitetest.JSON) []string { return bearerOf(sitetest.HS256(t, claims)) }
	reader := with(sitetest.JSON{"scope": "read:todos"})
	runSteps(s,
		step{"/reports/1", reader, 200, ""},
		step{"/reports/1", with(sitetest.JSON{"scope": "admin:all"}), 200, ""},
		step{"/reports/1", with(nil), 403, "insufficient_scope"},
		step{"/articles/1", with(sitetest.JSON{"roles": []string{"editor"}}), 200, ""},
		step{"/articles/1", reader, 403, "role"},
		step{"/premium/1", with(sitetest.JSON{"org": sitetest.JSON{"plan": "pro"}, "email_verified": true}), 200, ""},
		step{
			"/premium/1",
			with(sitetest.JSON{"org": sitetest.JSON{"plan": "pro"}, "email_verified": false}), 403, "claim",
		},
		step{
			"/premium/1",
			with(sitetest.JSON{"org": sitetest.JSON{"plan": "free"}, "email_verified": true}), 403, "claim",
		},
		step{"/todos/alice", reader, 200, "Hello, alice"},
		step{"/todos/alice/1", reader, 200, ""},
		step{"/todos/bob/1", reader, 403, "forbidden"},
		step{"/todos/alice/1", with(nil), 403, "insufficient_scope"},
		step{"/todos/alice/1", nil, 401, ""},
	)
	for _, path := range []string{
		"/todos/alice/../bob/1", "/todos/alice/%2e%2e/bob/1", "/todos/alice%2f..%2fbob/1",
		"/todos//alice/1", "/todos/alice/..;/bob/1", "/todos/./alice/1", `/todos/alice/..\bob`,
	} {
		s.MustAnswer(403, s.Get(path, reader...), path)
	}
}

func TestExampleCORS(t *testing.T) {
	s := runExample(t, "cors", "JWT_SECRET", sitetest.Secret, "ORIGIN", "https://app.example")
	origin := "Origin: https://app.example"
	got := s.Do(
		"OPTIONS", "/api/", origin, "Access-Control-Request-Method: PUT",
		"Access-Control-Request-Headers: authorization",
	)
	s.MustAnswer(204, got, "preflight")
	if got.Header.Get("Access-Control-Allow-Origin") != "https://app.example" ||
		got.Header.Get("Access-Control-Allow-Headers") != "Authorization" {
		t.Errorf("preflight: %v", got.Header)
	}
	refused := s.Get("/api/", origin)
	s.MustAnswer(401, refused, "no token")
	if refused.Header.Get("Access-Control-Allow-Origin") != "https://app.example" {
		t.Errorf("the script cannot read the refusal: %v", refused.Header)
	}
	if got := s.Do(
		"OPTIONS", "/api/", "Origin: https://evil.example", "Access-Control-Request-Method: PUT",
	); got.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("another origin: %v", got.Header)
	}
	if vary := s.Get(
		"/api/", append(bearerOf(sitetest.HS256(t, nil)), origin)...,
	).Header.Values("Vary"); !slices.Contains(vary, "Origin") {
		t.Errorf("Vary %q", vary)
	}
	runSteps(s, step{"/api/", append(bearerOf(sitetest.HS256(t, nil)), origin), 200, "Hello, alice"})
}

func TestExampleCustomErrors(t *testing.T) {
	s := runExample(t, "custom-errors", "JWT_SECRET", sitetest.Secret)
	runSteps(s,
		step{
			"/account/", bearerOf(sitetest.HS256(t, sitetest.JSON{"roles": []string{"customer"}})), 200, "Hello, alice",
		},
		step{"/account/", nil, 401, "Sorry: no bearer token was sent (credentials_required)"},
		step{
			"/account/", bearerOf(sitetest.HS256(t, sitetest.JSON{"exp": 1})),
			401, "Sorry: the token has expired (invalid_token)",
		},
		step{
			"/account/", bearerOf(sitetest.HS256(t, nil)), 403,
			"Sorry: You do not have a role that is required here. (forbidden)",
		},
	)
	if got := s.Get("/account/").Header.Get("WWW-Authenticate"); got != `Bearer realm="restricted"` {
		t.Errorf("challenge %q", got)
	}
}

// LoopBack's tutorial, step by step.
func TestExampleLoopbackTodo(t *testing.T) {
	s := runExample(t, "loopback-todo", "JWT_SECRET", sitetest.Secret)
	s.MustAnswer(401, s.Get("/todos"), "without a token")
	s.MustAnswer(401, s.Get("/todos/1"), "without a token")
	user := s.Post("/signup", sitetest.JSON{
		"email": "alice@example.com", "password": sitetest.GoodPassword, "username": "alice", "realm": "earth",
	})
	s.MustAnswer(201, user, "sign-up")
	s.MustAnswer(409, s.Post("/signup", sitetest.CredentialsOf("Alice@example.com")), "again")
	got := s.Post("/users/login", sitetest.CredentialsOf("alice@example.com")).Tokens(t)
	if got.ExpiresIn != 6*60*60 {
		t.Errorf("expires in %d s", got.ExpiresIn)
	}
	s.MustAnswer(200, s.Bearer("/whoami", got.Token), "as the tutorial writes it")
	who := s.Get("/whoAmI", "Authorization: Bearer "+got.Token, "Accept: text/plain")
	if !strings.Contains(user.Body, `"id":"`+who.Body+`"`) {
		t.Errorf("whoAmI %q, user %s", who.Body, user.Body)
	}
	if todos := s.Bearer("/todos", got.Token); todos.Body != "todos of "+who.Body {
		t.Errorf("todos: %d %s", todos.Status, todos.Body)
	}
	s.MustAnswer(200, s.Post("/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}), "refresh")
	api := s.Get("/auth/openapi.json")
	for _, part := range []string{`"/users/login"`, `"/whoAmI"`, `"scheme":"bearer"`, `"openapi":"3.1.0"`} {
		if !strings.Contains(api.Body, part) {
			t.Errorf("openapi.json lacks %s: %s", part, api.Body)
		}
	}
}

func TestExampleStaticSite(t *testing.T) {
	s := runExample(t, "static-site")
	hash, err := password.Hash(t.Context(), password.Turn{Queue: 1}, sitetest.GoodPassword)
	if err != nil {
		t.Fatal(err)
	}
	if err := accountstest.StoreOf(t).CreateUser(t.Context(), store.User{
		ID: "1", Email: "alice@example.com", EmailKey: "alice@example.com", PasswordHash: hash,
	}); err != nil {
		t.Fatal(err)
	}
	chrome := sitetest.Browser(t)
	s.MustAnswer(200, s.Form(chrome, "/index.html", nil), "public")
	refused := s.Form(chrome, "/private.html", nil)
	if refused.Status != 303 || refused.Header.Get("Location") != "/auth/login?return_to=%2Fprivate.html" {
		t.Fatalf("without a session: %d %v", refused.Status, refused.Header)
	}
	s.MustAnswer(404, s.Form(chrome, "/auth/signup", nil), "sign-up is closed")
	in := s.Form(chrome, "/auth/login", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "return_to": {"/private.html"},
	})
	if in.Status != 303 || in.Header.Get("Location") != "/private.html" {
		t.Fatalf("log-in: %d %v %s", in.Status, in.Header, in.Body)
	}
	if page := s.Form(chrome, "/private.html", nil); page.Status != 200 || !strings.Contains(page.Body, "Hello, 1") ||
		!strings.Contains(page.Body, "alice@example.com") {
		t.Errorf("with a session: %d %s", page.Status, page.Body)
	}
	s.MustAnswer(401, s.Get("/private.html"), "what is no browser gets a 401")
}

func TestExampleOIDCProvider(t *testing.T) {
	const secret = "a-secret-of-the-shop-0123456789"
	ports := runExampleSites(t, "oidc-provider", []string{"8080", "8081", "8082", "8083"}, "SHOP_SECRET", secret)
	s := &sitetest.Site{T: t, URL: "http://localhost:" + ports["8080"]}
	chrome := s.Visitor()
	if got := chrome.Get("/"); got.Body != "An OpenID Provider." {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if got := chrome.Get("/.well-known/openid-configuration").JSON(t); got["issuer"] != s.URL {
		t.Errorf("discovery %v", got)
	}
	chrome.Do(http.MethodPost, "/auth/signup", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "name": {"Alice"},
	}).To(t)
	callback := "http://localhost:" + ports["8081"] + "/callback"
	back := chrome.GoOn(s.URL + "/oidc/authorize?" + url.Values{
		"client_id": {"shop"}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid orders"},
	}.Encode())
	tokens := chrome.Post("/oidc/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {callback},
	}, sitetest.Basic("shop", secret)).JSON(t)
	access, _ := tokens["access_token"].(string)
	api := "http://localhost:" + ports["8083"] + "/"
	sitetest.Eventually(t, "the API has the keys", func() bool {
		return chrome.Do(http.MethodGet, api, nil, "Authorization: Bearer "+access).Status == 200
	})
	if got := chrome.Get(api); got.Status != 401 {
		t.Errorf("without a token: %d", got.Status)
	}
}

func TestExampleLoginWith(t *testing.T) {
	ports := runExampleSites(
		t, "login-with", []string{"8080", "8081"}, "USERS",
		sitetest.TempDir(t), "CLIENT_SECRET", "a-secret-of-the-site-0123456789",
	)
	there := (&sitetest.Site{T: t, URL: "http://localhost:" + ports["8080"]}).Visitor()
	chrome := there.At(&sitetest.Site{T: t, URL: "http://127.0.0.1:" + ports["8081"]})
	there.Do(http.MethodPost, "/auth/signup", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "name": {"Alice"},
	}).To(t)
	if got := chrome.Get("/"); got.Status != 200 {
		t.Errorf("public: %d", got.Status)
	}
	login := chrome.Get("/private").To(t).String()
	if page := chrome.Get(login); !strings.Contains(
		page.Body, `href="/auth/login/company?return_to=%2fprivate">My Company</a>`,
	) {
		t.Fatalf("log-in page: %s", page.Body)
	}
	back := chrome.Get(there.GoOn(chrome.Get("/auth/login/company?return_to=/private").To(t).String()).String())
	if to := back.To(t).String(); to != "/private" {
		t.Errorf("it returns to %s", to)
	}
	if got := chrome.Get("/private"); got.Body != "Hello, alice@example.com" {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	there.Post("/auth/logout", url.Values{})
	sitetest.Eventually(t, "the log-out at the provider ends the session", func() bool {
		return chrome.Get("/private").Status == 303
	})
}
