package introspection_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

const client = `client_id api
			client_secret "s e+cret:%"
`

// site is a site that accepts the opaque tokens of an issuer.
func site(t testing.TB, i *sitetest.IntrospectionServer, options, rules string) *sitetest.Site {
	t.Helper()
	return sitetest.Serve(t, siteBody(i, options, rules))
}

func siteBody(i *sitetest.IntrospectionServer, options, rules string) string {
	return `
	jwt /api/* {
		issuer ` + i.URL + ` {
			audience https://api.example
			introspection {
				` + client + options + `
			}
		}
		` + rules + `
	}
	metrics /metrics
	respond /api/* "{http.auth.user.id} {http.auth.user.scope} {http.auth.user.iss}"`
}

// An opaque token is as good as a JWT: its claims are those of the response.
func TestOpaqueToken(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("an-opaque_token.1~+/==", sitetest.JSON{"scope": "read write"})
	s := site(t, i, "", "require scope write")
	got := s.Bearer("/api/x", "an-opaque_token.1~+/==")
	s.MustAnswer(200, got, "active")
	if got.Body != "alice read write "+i.URL {
		t.Errorf("body %q", got.Body)
	}
	asked := i.Last()
	// RFC 6749 §2.3.1: both are form-encoded before base64
	if want := sitetest.Basic("api", "s e+cret:%"); "Authorization: "+asked.Header.Get("Authorization") != want {
		t.Errorf("%s, want %s", asked.Header.Get("Authorization"), want)
	}
	if asked.Method != "POST" || asked.URL.RawQuery != "" ||
		asked.PostFormValue("token") != "an-opaque_token.1~+/==" ||
		asked.PostFormValue("token_type_hint") != "access_token" {
		t.Errorf("%s %s %v", asked.Method, asked.URL, asked.PostForm)
	}
	got = s.Bearer("/api/x", "unknown")
	s.MustAnswer(401, got, "inactive")
	if challenge := got.Header.Get("WWW-Authenticate"); !strings.Contains(challenge, `error="invalid_token"`) ||
		!strings.Contains(challenge, "the token is not active") {
		t.Error(challenge)
	}
	asks := i.Asked.Load()
	s.MustAnswer(401, s.Bearer("/api/x", "with%20percent"), "no token syntax")
	s.MustAnswer(401, s.Bearer("/api/x", strings.Repeat("a", 17<<10)), "too long")
	if i.Asked.Load() != asks {
		t.Error("the endpoint was asked about what is no token")
	}
	if log := s.Log(); strings.Contains(log, "an-opaque_token") || strings.Contains(log, "e+cret") {
		t.Error("a token or a secret is in the log")
	}
}

// Answers as Ory Hydra, Keycloak and others send them.
func TestAnswers(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	s := site(t, i, "cache off", "")
	hour := time.Now().Add(time.Hour).Unix()
	for name, of := range map[string]struct {
		changes sitetest.JSON
		status  int
		code    string
	}{
		"control": {nil, 200, ""},
		"Ory Hydra": {sitetest.JSON{
			"iss": i.URL, "aud": []string{"https://api.example"}, "iat": hour - 4000, "nbf": hour - 4000,
			"ext": sitetest.JSON{"foo": "bar"}, "token_use": "access_token", "token_type": "Bearer",
		}, 200, ""},
		"Ory Hydra, refresh token": {sitetest.JSON{"token_use": "refresh_token"}, 401, "not an access token"},
		"Keycloak": {sitetest.JSON{
			"jti": "onrtac:1", "typ": "Bearer", "azp": "app", "acr": "1", "username": "alice",
			"aud":          []string{"https://api.example", "account"},
			"realm_access": sitetest.JSON{"roles": []string{"offline_access"}}, "token_type": "Bearer",
		}, 200, ""},
		"Keycloak, refresh token": {sitetest.JSON{"typ": "Refresh"}, 401, "not an access token"},
		"Keycloak, ID token":      {sitetest.JSON{"typ": "ID"}, 401, "not an access token"},
		"our provider, refresh token": {
			sitetest.JSON{"token_type": "refresh_token"}, 401, "not an access token",
		},
		"without iss and exp":         {sitetest.JSON{"iss": nil, "exp": nil}, 200, ""},
		"another issuer":              {sitetest.JSON{"iss": "https://other.example"}, 401, "issuer"},
		"iss is no string":            {sitetest.JSON{"iss": []string{i.URL}}, 401, "issuer"},
		"another audience":            {sitetest.JSON{"aud": "https://other.example"}, 401, "audience"},
		"no audience":                 {sitetest.JSON{"aud": nil}, 401, "audience"},
		"expired":                     {sitetest.JSON{"exp": hour - 4000}, 401, "expired"},
		"exp is text":                 {sitetest.JSON{"exp": "tomorrow"}, 401, "claims"},
		"not yet valid":               {sitetest.JSON{"nbf": hour}, 401, "not valid yet"},
		"no sub":                      {sitetest.JSON{"sub": nil, "username": "alice"}, 401, "names no user"},
		"sub is a number":             {sitetest.JSON{"sub": 1}, 401, "claims"},
		"bound by DPoP":               {sitetest.JSON{"cnf": sitetest.JSON{"jkt": "x"}}, 401, "bound to a key"},
		"token_type DPoP":             {sitetest.JSON{"token_type": "DPoP"}, 401, "bound to a key"},
		"a name that differs in case": {sitetest.JSON{"EXP": 1}, 401, "claims"},
		"logout token":                {sitetest.JSON{"events": sitetest.JSON{}}, 401, "not an access token"},
	} {
		i.Issue("opaque", of.changes)
		got := s.Bearer("/api/x", "opaque")
		s.MustAnswer(of.status, got, name)
		if !strings.Contains(got.Header.Get("WWW-Authenticate"), of.code) {
			t.Errorf("%s: %s", name, got.Header.Get("WWW-Authenticate"))
		}
	}
}

// The user may be named by another claim, as for JWTs.
func TestUserID(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", sitetest.JSON{"sub": nil, "username": "bob"})
	s := site(t, i, "", "user_id sub username")
	if got := s.Bearer("/api/x", "opaque"); got.Status != 200 || !strings.HasPrefix(got.Body, "bob ") {
		t.Errorf("%d %q", got.Status, got.Body)
	}
}

// A response is used for a while, but not after the token has expired, and each request waits
// for the same one.
func TestCache(t *testing.T) {
	clock := sitetest.SetClock(t)
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("long", nil)
	i.Issue("short", sitetest.JSON{"exp": time.Now().Add(10 * time.Second).Unix()})
	s := site(t, i, "cache 30s", "leeway 0s")
	asks := func(token string, status int, want int64, why string) {
		t.Helper()
		before := i.Asked.Load()
		s.MustAnswer(status, s.Bearer("/api/x", token), why)
		if got := i.Asked.Load() - before; got != want {
			t.Errorf("%s: asked %d times, want %d", why, got, want)
		}
	}
	asks("long", 200, 1, "first")
	asks("long", 200, 0, "remembered")
	asks("unknown", 401, 1, "inactive")
	asks("unknown", 401, 0, "inactive, remembered")
	asks("short", 200, 1, "first")
	clock.Ahead.Store(6)
	i.Issue("unknown", nil)
	asks("unknown", 200, 1, "inactive tokens are remembered for 5s")
	i.Revoke("long")
	asks("long", 200, 0, "revoked, but remembered")
	clock.Ahead.Store(12)
	asks("short", 401, 1, "never after exp")
	clock.Ahead.Store(31)
	asks("long", 401, 1, "asked again")
	clock.Ahead.Store(-3600)
	asks("unknown", 200, 1, "a clock that was set back")
	if metrics := s.Get("/metrics").Body; !strings.Contains(metrics, `caddy_jwt_introspection_lookups_total{result="hit"}`) ||
		!strings.Contains(metrics, `caddy_jwt_introspection_requests_total{result="inactive"}`) {
		t.Errorf("no metrics in %s", metrics)
	}
}

func TestCacheOff(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", nil)
	s := site(t, i, "cache off", "")
	s.MustAnswer(200, s.Bearer("/api/x", "opaque"), "active")
	i.Revoke("opaque")
	s.MustAnswer(401, s.Bearer("/api/x", "opaque"), "revoked")
}

// Many requests with the same token wait for one response, and one that gives up does not end
// it for the others.
func TestSingleFlight(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", nil)
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	i.Respond(func(w http.ResponseWriter, r *http.Request) {
		<-hold
		sitetest.WriteJSON(t, w, 200, i.AnswerTo(r.PostFormValue("token")))
	})
	s := site(t, i, "", "")
	before := misses(s)
	request, err := http.NewRequest("GET", s.URL+"/api/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer opaque")
	impatient := &http.Client{Timeout: 200 * time.Millisecond}
	if _, err := impatient.Do(request); err == nil {
		t.Fatal("the response did not wait")
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { s.MustAnswer(200, s.Bearer("/api/x", "opaque"), "after the first gave up") })
	}
	sitetest.Eventually(t, "the requests wait", func() bool { return misses(s) == before+21 })
	release()
	all.Wait()
	if got := i.Asked.Load(); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

// misses returns the look-ups that had to ask, or to wait for a request that asks.
func misses(s *sitetest.Site) (number int) {
	const series = `caddy_jwt_introspection_lookups_total{result="miss"} `
	_, text, _ := strings.Cut(s.Get("/metrics").Body, series)
	_, _ = fmt.Sscan(text, &number)
	return number
}

// While the endpoint is unavailable, nobody is told that the token is bad.
func TestOutage(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", nil)
	s := site(t, i, "timeout 300ms\ncache off", "")
	html := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in</html>")) }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			sitetest.WriteJSON(t, w, code, sitetest.JSON{"active": true, "sub": "alice", "aud": "https://api.example"})
		}
	}
	for name, respond := range map[string]http.HandlerFunc{
		"500": status(500), "HTML": html, "401": status(401), "403": status(403), "404": status(404),
		"201": status(201), "closed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		s.MustAnswer(200, s.Bearer("/api/x", "opaque"), "control")
		i.Respond(respond)
		got := s.Bearer("/api/x", "opaque")
		s.MustAnswer(503, got, name)
		if got.Header.Get("Retry-After") == "" || got.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %v", name, got.Header)
		}
		i.Respond(nil)
	}
	s.MustAnswer(200, s.Bearer("/api/x", "opaque"), "recovery")
	log := s.Log()
	if fails, works := strings.Count(log, `"introspection fails;`), strings.Count(log, `"introspection works again`); fails+
		strings.Count(log, "rejects this site's credentials") != 8 || works != 8 {
		t.Errorf("%d lines for failures, %d for recoveries", fails, works)
	}
	i.Respond(status(500))
	for range 5 {
		s.MustAnswer(503, s.Bearer("/api/x", "opaque"), "still down")
	}
	if again := strings.Count(s.Log(), `"introspection fails;`) - fails(log); again != 1 {
		t.Errorf("a lasting outage has %d lines", again)
	}
}

func fails(log string) int { return strings.Count(log, `"introspection fails;`) }

// With `always`, a JWT is verified by its keys and then asked about.
func TestAlways(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	good := i.Sign("JWT", sitetest.Claims(sitetest.JSON{
		"iss": i.URL, "aud": "https://api.example", "scope": "of the JWT", "jti": "1",
	}))
	forged := sitetest.Sign(t, "RS256", sitetest.Keys().StrangerRSA, sitetest.JSON{"kid": "1"}, sitetest.Claims(
		sitetest.JSON{"iss": i.URL, "aud": "https://api.example"},
	))
	s := site(t, i, "cache off", "")
	s.MustAnswer(200, s.Bearer("/api/x", good), "without always")
	if i.Asked.Load() != 0 {
		t.Error("asked about a JWT without always")
	}
	s = site(t, i, "cache off\nalways", "")
	s.MustAnswer(401, s.Bearer("/api/x", good), "inactive")
	i.Issue(good, sitetest.JSON{"scope": "of the response", "jti": "1"})
	got := s.Bearer("/api/x", good)
	if s.MustAnswer(200, got, "active"); !strings.Contains(got.Body, "alice of the JWT") {
		t.Error(got.Body)
	}
	asked := i.Asked.Load()
	i.Issue(forged, nil)
	s.MustAnswer(401, s.Bearer("/api/x", forged), "the endpoint accepts it, the keys do not")
	if i.Asked.Load() != asked {
		t.Error("asked about a JWT that the keys refuse")
	}
	for name, changes := range map[string]sitetest.JSON{
		"another jti": {"jti": "2"}, "another sub": {"sub": "bob"}, "another iss": {"iss": "https://other.example"},
	} {
		i.Issue(good, changes)
		s.MustAnswer(401, s.Bearer("/api/x", good), "the response is about another token: "+name)
	}
	i.Respond(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	s.MustAnswer(503, s.Bearer("/api/x", good), "down")
}

// Two issuers with introspection are asked in order.
func TestSeveralIssuers(t *testing.T) {
	first, second := sitetest.NewIntrospectionServer(t), sitetest.NewIntrospectionServer(t)
	second.Issue("of the second", nil)
	second.Issue("second", nil)
	block := func(i *sitetest.IntrospectionServer) string {
		return "issuer " + i.URL + " {\naudience https://api.example\nintrospection {\n" + client + "cache off\n}\n}\n"
	}
	s := sitetest.Serve(t, "jwt {\n"+block(first)+block(second)+"}\nrespond {http.auth.user.iss}")
	got := s.Bearer("/", "second")
	if s.MustAnswer(200, got, "of the second"); got.Body != second.URL || first.Asked.Load() != 1 {
		t.Errorf("%q, the first was asked %d times", got.Body, first.Asked.Load())
	}
	s.MustAnswer(401, s.Bearer("/", "neither"), "of neither")
	first.Respond(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	s.MustAnswer(200, s.Bearer("/", "second"), "the first is down")
	s.MustAnswer(503, s.Bearer("/", "neither"), "the first may know it")
}

// Options outside of the block, a URL without discovery, no client, and a module of its own.
func TestForms(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", nil)
	for name, body := range map[string]string{
		"outside": "jwt {\nissuer " + i.URL + "\nintrospection {\n" + client + "}\n}",
		"URL":     "jwt {\nissuer " + i.URL + "\nintrospection " + i.URL + "/introspect {\n" + client + "}\n}",
		"no issuer, no client": "jwt {\nintrospection " + i.URL + "/introspect\n" +
			"audience https://api.example\n}",
		"credentials": "jwt {\ncredentials introspection {\nissuer " + i.URL + "\naudience https://api.example\n" +
			client + "}\n}",
	} {
		s := sitetest.Serve(t, body+"\nrespond ok")
		s.MustAnswer(200, s.Bearer("/", "opaque"), name)
		s.MustAnswer(401, s.Bearer("/", "unknown"), name)
		s.MustAnswer(401, s.Get("/"), name)
	}
}

// The endpoint may be in the metadata of RFC 8414 only, below the path of the issuer, also if there
// is an OpenID document. If that is down, the other document is not asked.
func TestOAuthDiscovery(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("opaque", sitetest.JSON{"iss": nil})
	var here *httptest.Server
	var openID atomic.Int64 // the status of the OpenID document
	openID.Store(404)
	here = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tenant/.well-known/openid-configuration" && openID.Load() == 200 {
			sitetest.WriteJSON(t, w, 200, sitetest.JSON{"issuer": here.URL + "/tenant"})
			return
		}
		if r.URL.Path != "/.well-known/oauth-authorization-server/tenant" {
			w.WriteHeader(int(openID.Load()))
			return
		}
		sitetest.WriteJSON(t, w, 200, sitetest.JSON{
			"issuer": here.URL + "/tenant", "introspection_endpoint": i.URL + "/introspect",
		})
	}))
	t.Cleanup(here.Close)
	for status, answer := range map[int64]int{404: 200, 410: 200, 200: 200, 500: 503} {
		openID.Store(status)
		timeout := fmt.Sprintf("timeout %dms", 2000+status) // of its own, so that nothing is remembered
		s := sitetest.Serve(t, "jwt {\nissuer "+here.URL+"/tenant\nintrospection {\n"+client+timeout+"\n}\n}\n"+
			"respond {http.auth.user.iss}")
		got := s.Bearer("/", "opaque")
		s.MustAnswer(answer, got, fmt.Sprint("the OpenID document answers ", status))
		if answer == 200 && got.Body != here.URL+"/tenant" {
			t.Error(got.Body)
		}
	}
}

// A site authenticates by a private key, with a JWT that is used once.
func TestPrivateKey(t *testing.T) {
	i := sitetest.NewIntrospectionServer(t)
	i.Issue("one", nil)
	i.Issue("two", nil)
	s := sitetest.Serve(t, "jwt {\nissuer "+i.URL+"\nintrospection {\nclient_id api\n"+
		"private_key ../testdata/keys/p256.pem\n}\n}\nrespond ok")
	seen := make(map[any]bool)
	for _, token := range []string{"one", "two"} {
		s.MustAnswer(200, s.Bearer("/", token), token)
		form := i.Last().PostForm
		claims := sitetest.ClaimsOf(t, form.Get("client_assertion"))
		if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" ||
			claims["iss"] != "api" || claims["sub"] != "api" || claims["aud"] != i.URL || seen[claims["jti"]] ||
			i.Last().Header.Get("Authorization") != "" {
			text, _ := json.Marshal(claims)
			t.Errorf("%v %s", form, text)
		}
		seen[claims["jti"]] = true
	}
}
