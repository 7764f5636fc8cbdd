package postgres_test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// visitor is a browser. Because cookies do not depend on the port, it sees the nodes as one site
// behind a load balancer.
type visitor struct{ client *http.Client }

func newVisitor(t *testing.T) *visitor {
	t.Helper()
	return &visitor{sitetest.Browser(t)}
}

// ask sends a form, or a GET without one, and returns the redirect and the body of the response.
func (v *visitor) ask(n *node, path string, form url.Values) (status int, location *url.URL, body string) {
	n.T.Helper()
	got := n.Form(v.client, path, form)
	location, err := url.Parse(got.Header.Get("Location"))
	if err != nil {
		n.T.Error(err)
	}
	return got.Status, location, got.Body
}

// OpenID at two nodes on one database works as at one: what one node has issued, the other accepts,
// once.
func TestTwoNodesOpenID(t *testing.T) {
	const verifier = "a-code-verifier-that-is-long-enough-for-rfc-7636"
	var told atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told.Add(1) }))
	defer receiver.Close()
	s := start(t)
	nodes := startNodes(t, 2, fmt.Sprintf(`oidc_provider {
		issuer http://localhost:1
		accounts {
			signup open
			store postgres %q
			throttle off
		}
		client app {
			public
			redirect_uri https://app.example/callback
			backchannel_logout_uri %s
			consent never
		}
	}`, s.database("openid"), receiver.URL))
	a, b := nodes[0], nodes[1]
	v := newVisitor(t)
	if status, _, body := v.ask(a, "/auth/signup", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword},
	}); status != 303 {
		t.Fatalf("sign-up: %d %s", status, body)
	}
	request := func(client string) url.Values {
		return url.Values{
			"client_id": {client}, "redirect_uri": {"https://" + client + ".example/callback"},
			"response_type": {"code"}, "scope": {"openid"}, "state": {"x"},
			"code_challenge": {sitetest.Challenge(verifier)}, "code_challenge_method": {"S256"},
		}
	}
	codeAt := func(n *node, path, client string) string {
		t.Helper()
		_, location, body := v.ask(n, path, nil)
		if location.Query().Get("code") == "" {
			t.Fatalf("no code but %s %s", location, body)
		}
		return location.Query().Get("code")
	}
	tokenAt := func(n *node, form url.Values) (status int, tokens map[string]any) {
		status, _, body := v.ask(n, "/oidc/token", form)
		_ = json.Unmarshal([]byte(body), &tokens)
		return status, tokens
	}
	// once requests tokens with the same form a hundred times at both nodes.
	once := func(what string, form url.Values) (tokens map[string]any) {
		t.Helper()
		var all sync.WaitGroup
		var mu sync.Mutex
		given := 0
		for i := range 100 {
			all.Go(func() {
				status, got := tokenAt(nodes[i%2], form)
				mu.Lock()
				defer mu.Unlock()
				if status == 200 {
					given++
					tokens = got
				} else if status != 400 {
					t.Errorf("%s: %d %v", what, status, got)
				}
			})
		}
		all.Wait()
		if given != 1 {
			t.Errorf("of 100 uses of %s %d succeeded", what, given)
		}
		return tokens
	}
	userinfo := func(n *node, token any) int {
		status, _, _ := v.ask(n, "/oidc/userinfo", url.Values{"access_token": {token.(string)}})
		return status
	}
	exchange := func(code, client string) url.Values {
		return url.Values{
			"grant_type": {"authorization_code"}, "client_id": {client}, "code": {code},
			"redirect_uri": {"https://" + client + ".example/callback"}, "code_verifier": {verifier},
		}
	}

	tokens := once("a code", exchange(codeAt(a, "/oidc/authorize?"+request("app").Encode(), "app"), "app"))
	for _, n := range nodes { // the replays revoked its tokens
		if got := userinfo(n, tokens["access_token"]); got != 401 {
			t.Errorf("after a replay: %d", got)
		}
	}

	status, tokens := tokenAt(b, exchange(codeAt(a, "/oidc/authorize?"+request("app").Encode(), "app"), "app"))
	if status != 200 || userinfo(a, tokens["access_token"]) != 200 || userinfo(b, tokens["access_token"]) != 200 {
		t.Fatalf("control: a code of one node at the other: %d %v", status, tokens)
	}
	form := url.Values{
		"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {tokens["refresh_token"].(string)},
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	successors := make(map[any]int)
	for i := range 100 {
		all.Go(func() {
			status, got := tokenAt(nodes[i%2], form)
			mu.Lock()
			defer mu.Unlock()
			if tokens = got; status != 200 {
				t.Errorf("a refresh token: %d %v", status, got)
			}
			successors[got["refresh_token"]]++
		})
	}
	all.Wait()
	if len(successors) != 1 {
		t.Errorf("100 uses of a refresh token at two nodes gave %d successors", len(successors))
	}
	if status, got := tokenAt(b, url.Values{
		"grant_type": {"refresh_token"}, "client_id": {"app"}, "refresh_token": {tokens["refresh_token"].(string)},
	}); status != 200 {
		t.Errorf("the successor: %d %v", status, got)
	}
	if status, _ := tokenAt(a, form); status != 400 {
		t.Errorf("a refresh token whose successor was used: %d", status)
	}
	if got := userinfo(a, tokens["access_token"]); got != 401 {
		t.Errorf("after a refresh token was used again: %d", got)
	}

	_, _, body := v.ask(a, "/oidc/par", request("app"))
	var pushed map[string]any
	if err := json.Unmarshal([]byte(body), &pushed); err != nil {
		t.Fatal(body)
	}
	codeAt(b, "/oidc/authorize?"+url.Values{
		"client_id": {"app"}, "request_uri": {pushed["request_uri"].(string)},
	}.Encode(), "app")

	// A log-in that waits at one node continues at the other.
	w := newVisitor(t)
	_, login, _ := w.ask(a, "/oidc/authorize?"+request("app").Encode(), nil)
	_, back, body := w.ask(b, "/auth/login", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword},
		"return_to": {login.Query().Get("return_to")},
	})
	if _, to, _ := w.ask(a, back.String(), nil); to.Query().Get("code") == "" {
		t.Errorf("the log-in leads to %s, %s %s", to, back, body)
	}

	// All nodes know a client of the store at once, and forget a deleted one at once.
	a.Command(
		"client", "add", "--public", "--consent", "never", "--redirect-uri", "https://wiki.example/callback", "wiki",
	)
	code := codeAt(b, "/oidc/authorize?"+request("wiki").Encode(), "wiki")
	status, ofWiki := tokenAt(a, exchange(code, "wiki"))
	if status != 200 {
		t.Fatalf("a new client: %d %v", status, ofWiki)
	}
	a.Command("client", "delete", "--yes", "wiki")
	for _, n := range nodes {
		if got := userinfo(n, ofWiki["access_token"]); got != 401 {
			t.Errorf("a token of a client that is gone: %d", got)
		}
		if status, _, _ := v.ask(n, "/oidc/authorize?"+request("wiki").Encode(), nil); status != 400 {
			t.Errorf("a client that is gone: %d", status)
		}
		// Text that is not valid UTF-8 belongs to nobody, and is not a failure of the database.
		for _, path := range []string{"/oidc/authorize?client_id=%00", "/oidc/logout?client_id=%ff"} {
			if status, _, body := v.ask(n, path, nil); status >= 500 {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
		for path, form := range map[string]url.Values{
			"/oidc/token": {"client_id": {"\xff"}}, "/oidc/revoke": {"client_id": {"app"}, "token": {"\x00~a~b"}},
		} {
			if status, _, body := v.ask(n, path, form); status >= 500 {
				t.Errorf("%s %q: %d %s", path, form, status, body)
			}
		}
	}

	// A log-out at one node ends the other's tokens, and the client is notified once.
	_, tokens = tokenAt(b, exchange(codeAt(b, "/oidc/authorize?"+request("app").Encode(), "app"), "app"))
	if got := userinfo(a, tokens["access_token"]); got != 200 {
		t.Fatalf("control: %d", got)
	}
	v.ask(a, "/auth/logout", url.Values{})
	for _, n := range nodes {
		if got := userinfo(n, tokens["access_token"]); got != 401 {
			t.Errorf("after a log-out: %d", got)
		}
	}
	sitetest.Eventually(t, "the client is told", func() bool { return told.Load() > 0 })
	if told.Load() != 1 {
		t.Errorf("the client is told %d times", told.Load())
	}
}

// While the database is unavailable, users see a page, pages of clients in the config can read the
// response, and a client that waits in the background gets an error. An incomplete copy is never
// served, even if the database starts later than Caddy.
func TestOpenIDWithoutADatabase(t *testing.T) {
	s := start(t)
	dsn := s.database("openid away")
	site := fmt.Sprintf(`metrics /metrics
	oidc_provider {
		issuer http://localhost:1
		accounts {
			signup open
			store postgres %q
		}
		client app {
			public
			redirect_uri https://App.example/callback
			consent never
		}
	}`, dsn)
	n := startNodes(t, 1, site)[0]
	v := newVisitor(t)
	if status, _, body := v.ask(n, "/auth/signup", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword},
	}); status != 303 {
		t.Fatalf("sign-up: %d %s", status, body)
	}
	const request = "/oidc/authorize?client_id=app&redirect_uri=https%3A%2F%2FApp.example%2Fcallback&" +
		"response_type=code&scope=openid&state=x&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&" +
		"code_challenge_method=S256"
	if _, to, body := v.ask(n, request+"&prompt=none", nil); to.Query().Get("code") == "" {
		t.Fatalf("control: %s %s", to, body)
	}
	cors := func(method, path string) (status int, allowed, body string) {
		t.Helper()
		r, _ := http.NewRequest(
			method, n.URL+path, strings.NewReader("client_id=app&grant_type=refresh_token&refresh_token=a~b~c"),
		)
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if method == http.MethodOptions {
			r.Header.Set("Access-Control-Request-Method", "POST")
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, response.Header.Get("Access-Control-Allow-Origin"), string(text)
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(
		`INSERT INTO records (kind, id, owner, value, expires_at, version) SELECT 'store copy', 'progress', '', '{"table":0}', MAX(expires_at), 1 FROM records`,
	); err != nil {
		t.Fatal(err)
	}
	s.run("pg_ctl", "-D", s.dir+"/data", "-m", "immediate", "stop")
	for _, path := range []string{
		request, "/oidc/device?user_code=BBBB-BBBB", "/oidc/applications",
		"/oidc/logout", "/oidc/consent?interaction=x",
	} {
		if status, _, body := v.ask(n, path, nil); status != 503 || !strings.Contains(body, "<h1>") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if _, to, body := v.ask(n, request+"&prompt=none", nil); to.Query().Get("error") != "temporarily_unavailable" ||
		to.Query().Get("state") != "x" {
		t.Errorf("in the background: %s %s", to, body)
	}
	if status, allowed, body := cors(http.MethodPost, "/oidc/token"); status != 503 ||
		allowed != "https://app.example" || !strings.Contains(body, "temporarily_unavailable") {
		t.Errorf("a page of a client: %d %q %s", status, allowed, body)
	}
	if status, allowed, _ := cors(http.MethodOptions, "/oidc/token"); status != 204 ||
		allowed != "https://app.example" {
		t.Errorf("its preflight: %d %q", status, allowed)
	}
	counted := regexp.MustCompile(`reason="store_unavailable",result="refused",site="[^"]*"} [1-9]`)
	if _, _, body := v.ask(n, "/metrics", nil); !counted.MatchString(body) {
		t.Errorf("it is not counted: %s", body)
	}

	late := newNode(t, t.TempDir(), "late", site)
	late.Start()
	late.AwaitAnswer(func(int) bool { return true })
	s.begin()
	signUp := func() int {
		status, _, _ := v.ask(late, "/auth/signup", url.Values{
			"email": {"bob@example.com"}, "password": {sitetest.GoodPassword},
		})
		return status
	}
	for range 3 { // it retries each second
		if status := signUp(); status != 503 {
			t.Fatalf("sign-up in a half-made copy: %d", status)
		}
	}
	if _, err := db.Exec(`DELETE FROM records WHERE kind = 'store copy'`); err != nil {
		t.Fatal(err)
	}
	sitetest.Eventually(t, "the node goes on", func() bool { return signUp() == 303 })
}
