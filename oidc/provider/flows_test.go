package provider

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/store"
	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// A client as people write it in Go: discovery, code flow with PKCE, ID token,
// userinfo, refresh; and a site elsewhere that verifies the access token.
func TestCodeFlowWithGoOIDC(t *testing.T) {
	api := sitetest.FreeLocalhost(t)
	s := serve(t, fmt.Sprintf(clientsOfTests, ""), "")
	s.load(fmt.Sprintf(clientsOfTests, ""), "}\nhttp://"+api+" {\n jwt {\n issuer "+s.url+" {\n audience "+s.url+"\n token_type at+jwt\n}\n require scope read:todos\n}\n respond \"user={http.auth.user.id} roles={http.auth.user.roles}\"", t.TempDir())
	ctx := context.Background()
	discovered, err := gooidc.NewProvider(ctx, s.url)
	if err != nil {
		t.Fatal(err)
	}
	config := oauth2.Config{ClientID: "app", ClientSecret: appSecret, Endpoint: discovered.Endpoint(), RedirectURL: appCallback, Scopes: []string{"openid", "email", "profile", "roles", "offline_access", "read:todos"}}
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	chrome = s.browser() // not logged in
	secret := oauth2.GenerateVerifier()
	back := chrome.goOn(config.AuthCodeURL("a state", gooidc.Nonce("a nonce"), oauth2.S256ChallengeOption(secret)))
	if back.Query().Get("state") != "a state" || back.Query().Get("iss") != s.url {
		t.Fatalf("back at %s", back)
	}
	tokens, err := config.Exchange(ctx, back.Query().Get("code"), oauth2.VerifierOption(secret))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	idToken, err := discovered.Verifier(&gooidc.Config{ClientID: "app"}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := idToken.VerifyAccessToken(tokens.AccessToken); err != nil || idToken.Nonce != "a nonce" {
		t.Errorf("at_hash %v, nonce %q", err, idToken.Nonce)
	}
	info, err := discovered.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := info.Claims(&claims); err != nil || info.Subject != idToken.Subject || info.Email != "alice@example.com" || claims["name"] != "Alice A." {
		t.Errorf("userinfo %+v %v %v", info, claims, err)
	}
	fresh, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: tokens.RefreshToken}).Token()
	if err != nil || fresh.RefreshToken == tokens.RefreshToken || fresh.AccessToken == tokens.AccessToken {
		t.Fatalf("refresh: %v", err)
	}
	var got answer
	sitetest.Eventually(t, "the site elsewhere has the keys", func() bool {
		got = chrome.do(http.MethodGet, "http://"+api+"/", nil, "Authorization: Bearer "+fresh.AccessToken)
		return got.status == 200
	})
	if got.body != "user="+info.Subject+" roles=" {
		t.Errorf("elsewhere: %s", got.body)
	}
	if got := chrome.do(http.MethodGet, "http://"+api+"/", nil, "Authorization: Bearer "+raw); got.status != 401 {
		t.Errorf("an ID token passes for an access token: %d", got.status)
	}
}

func claimsOf(t testing.TB, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no token: %q", token)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims map[string]any
	if err == nil {
		err = json.Unmarshal(text, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// Each response type, in the mode that it has by default and by form_post.
func TestResponseTypes(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	for _, responseType := range responseTypes {
		t.Run(responseType, func(t *testing.T) {
			got := chrome.get(s.authorizeURL("web", url.Values{"response_type": {responseType}}))
			to := got.to(t)
			values := to.Query()
			if responseType != "code" {
				if to.RawQuery != "" {
					t.Errorf("tokens in the query: %s", to)
				}
				values, _ = url.ParseQuery(to.Fragment)
			}
			if values.Get("state") != "a state" || values.Get("iss") != s.url {
				t.Errorf("answer %v", values)
			}
			for part, name := range map[string]string{"code": "code", "token": "access_token", "id_token": "id_token"} {
				asked := strings.Contains(" "+responseType+" ", " "+part+" ")
				if asked != (values.Get(name) != "") {
					t.Errorf("%s: %q", name, values.Get(name))
				}
			}
			if id := values.Get("id_token"); id != "" {
				claims := claimsOf(t, id)
				_, hasEmail := claims["email"]
				if claims["nonce"] != "a nonce" || claims["aud"] != "web" || hasEmail != (responseType == "id_token") {
					t.Errorf("ID token %v", claims)
				}
				for hash, of := range map[string]string{"c_hash": "code", "at_hash": "access_token"} {
					if value := values.Get(of); (value == "") != (claims[hash] == nil) || value != "" && claims[hash] != halfHash(value) {
						t.Errorf("%s is %v", hash, claims[hash])
					}
				}
			}
			if code := values.Get("code"); code != "" {
				given := chrome.redeem("web", code)
				if given.status != 200 || given.json(t)["id_token"] == nil || given.header.Get("Cache-Control") != "no-store" {
					t.Errorf("exchange: %d %s", given.status, given.body)
				}
			}
			if access := values.Get("access_token"); access != "" {
				if got := chrome.do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+access); got.status != 200 || got.json(t)["email"] != "alice@example.com" {
					t.Errorf("userinfo: %d %s", got.status, got.body)
				}
			}
			page := chrome.get(s.authorizeURL("web", url.Values{"response_type": {responseType}, "response_mode": {"form_post"}}))
			if page.status != 200 || !strings.Contains(page.body, `action="`+appCallback+`"`) || !strings.Contains(page.body, `name="state" value="a state"`) ||
				!strings.HasSuffix(page.header.Get("Content-Security-Policy"), "frame-ancestors 'none'; base-uri 'none'") {
				t.Errorf("form_post: %d %v %s", page.status, page.header, page.body)
			}
		})
	}
}

// What is wrong with an authorization request, and where the user is told.
func TestThreatAuthorizationRequests(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	if got := chrome.get(s.authorizeURL("spa", nil)).to(t); got.Query().Get("code") == "" {
		t.Fatalf("control: %s", got)
	}
	// Nobody is sent anywhere.
	for name, more := range map[string]url.Values{
		"unknown client":           {"client_id": {"nobody"}},
		"no client":                {"client_id": {""}},
		"no redirect_uri":          {"redirect_uri": {""}},
		"another client's":         {"redirect_uri": {appCallback}},
		"longer":                   {"redirect_uri": {spaCallback + "/x"}},
		"another port":             {"redirect_uri": {"https://spa.example:4712/callback"}},
		"another scheme":           {"redirect_uri": {"http://spa.example:4711/callback"}},
		"redirect_uri twice":       {"redirect_uri": {spaCallback, spaCallback}},
		"client_id twice":          {"client_id": {"spa", "spa"}},
		"upper case":               {"redirect_uri": {"https://SPA.example:4711/callback"}},
		"a query":                  {"redirect_uri": {spaCallback + "?x=1"}},
		"a fragment":               {"redirect_uri": {spaCallback + "#x"}},
		"dots":                     {"redirect_uri": {"https://spa.example:4711/x/../callback"}},
		"user info":                {"redirect_uri": {"https://spa.example:4711@evil.example/callback"}},
		"encoded":                  {"redirect_uri": {"https://spa.example:4711/%63allback"}},
		"loopback with user info":  {"redirect_uri": {"http://x@127.0.0.1:1/callback"}},
		"loopback of another path": {"redirect_uri": {"http://127.0.0.1:1/other"}},
		"loopback by name":         {"redirect_uri": {"http://localhost:1/callback"}},
		"loopback in a name":       {"redirect_uri": {"http://127.0.0.1.evil.example:1/callback"}},
		"script":                   {"redirect_uri": {"javascript:alert(1)"}},
	} {
		if got := chrome.get(s.authorizeURL("spa", more)); got.status != 400 || got.header.Get("Location") != "" || !strings.Contains(got.body, "This does not work") {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
	}
	for name, redirect := range map[string]string{"any port of the loopback": "http://127.0.0.1:39999/callback", "an app's scheme": "com.example.app:/callback"} {
		if got := chrome.goOn(s.authorizeURL("spa", url.Values{"redirect_uri": {redirect}})); !strings.HasPrefix(got.String(), redirect+"?") {
			t.Errorf("%s: %s", name, got)
		}
	}
	// The client is told.
	for name, c := range map[string]struct {
		more url.Values
		code string
	}{
		"no response_type":                {url.Values{"response_type": {""}}, "invalid_request"},
		"unknown response_type":           {url.Values{"response_type": {"password"}}, "unsupported_response_type"},
		"response_type of others":         {url.Values{"response_type": {"id_token"}}, "unauthorized_client"},
		"no scope":                        {url.Values{"scope": {""}}, "invalid_scope"},
		"scope that it may not have":      {url.Values{"scope": {"admin"}}, "invalid_scope"},
		"no PKCE":                         {url.Values{"code_challenge": {""}, "code_challenge_method": {""}}, "invalid_request"},
		"PKCE plain":                      {url.Values{"code_challenge_method": {"plain"}}, "invalid_request"},
		"PKCE without a method":           {url.Values{"code_challenge_method": {""}}, "invalid_request"},
		"PKCE of another length":          {url.Values{"code_challenge": {"short"}}, "invalid_request"},
		"prompt none beside another":      {url.Values{"prompt": {"none login"}}, "invalid_request"},
		"unknown prompt":                  {url.Values{"prompt": {"create"}}, "invalid_request"},
		"max_age that is no number":       {url.Values{"max_age": {"soon"}}, "invalid_request"},
		"request object":                  {url.Values{"request": {"e30."}}, "request_not_supported"},
		"request_uri":                     {url.Values{"request_uri": {"https://evil.example/"}}, "request_uri_not_supported"},
		"registration":                    {url.Values{"registration": {"{}"}}, "registration_not_supported"},
		"id_token_hint of nobody":         {url.Values{"id_token_hint": {"x.y.z"}}, "invalid_request"},
		"claims that are no object":       {url.Values{"claims": {"[]"}}, "invalid_request"},
		"unknown response_mode":           {url.Values{"response_mode": {"web_message"}}, "invalid_request"},
		"scope twice":                     {url.Values{"scope": {"openid", "email"}}, "invalid_request"},
		"state twice":                     {url.Values{"state": {"a state", "another"}}, "invalid_request"},
		"prompt none for another subject": {url.Values{"prompt": {"none"}, "claims": {`{"id_token":{"sub":{"value":"somebody"}}}`}}, "login_required"},
	} {
		to := chrome.get(s.authorizeURL("spa", c.more)).to(t)
		values := to.Query()
		if to.Fragment != "" {
			values, _ = url.ParseQuery(to.Fragment)
		}
		if notInASCII := strings.ContainsFunc(values.Get("error_description"), func(r rune) bool { return r > '~' }); notInASCII || values.Get("error") != c.code || values.Get("state") != "a state" || values.Get("iss") != s.url || values.Get("error_description") == "" {
			t.Errorf("%s: %s", name, to)
		}
	}
	if got := chrome.get(s.authorizeURL("web", url.Values{"response_type": {"id_token"}, "nonce": {""}})).to(t); !strings.Contains(got.Fragment, "error=invalid_request") {
		t.Errorf("implicit without nonce: %s", got)
	}
	if got := chrome.get(s.authorizeURL("web", url.Values{"response_type": {"id_token token"}, "response_mode": {"query"}})).to(t); !strings.Contains(got.String(), "error=invalid_request") || strings.Contains(got.String(), "access_token") {
		t.Errorf("tokens in a query: %s", got)
	}
	// What is empty, or means nothing here, is as if it were left out (RFC 6749 §3.1).
	if got := chrome.get(s.authorizeURL("spa", nil) + "&request=&request_uri=&registration=&of=mine&of=mine").to(t); got.Query().Get("code") == "" {
		t.Errorf("parameters that say nothing: %s", got)
	}
}

// What is wrong with a token request.
func TestThreatTokenRequests(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	good := func() string { return chrome.code("app", nil) }
	form := func(more url.Values) url.Values {
		values := url.Values{"grant_type": {"authorization_code"}, "code": {good()}, "redirect_uri": {appCallback}, "code_verifier": {verifier}}
		for name, value := range more {
			values[name] = value
			if value[0] == "" {
				values.Del(name)
			}
		}
		return values
	}
	if got := chrome.exchange("app", form(nil)); got.status != 200 {
		t.Fatalf("control: %d %s", got.status, got.body)
	}
	for name, c := range map[string]struct {
		more   url.Values
		status int
		code   string
	}{
		"no grant_type":           {url.Values{"grant_type": {""}}, 400, "invalid_request"},
		"password":                {url.Values{"grant_type": {"password"}}, 400, "unsupported_grant_type"},
		"implicit":                {url.Values{"grant_type": {"implicit"}}, 400, "unsupported_grant_type"},
		"not registered":          {url.Values{"grant_type": {grantDevice}}, 400, "unauthorized_client"},
		"unknown code":            {url.Values{"code": {"x"}}, 400, "invalid_grant"},
		"no code":                 {url.Values{"code": {""}}, 400, "invalid_request"},
		"no refresh token":        {url.Values{"grant_type": {"refresh_token"}}, 400, "invalid_request"},
		"another redirect_uri":    {url.Values{"redirect_uri": {"https://app.example/other?x=1"}}, 400, "invalid_grant"},
		"no redirect_uri":         {url.Values{"redirect_uri": {""}}, 400, "invalid_grant"},
		"another verifier":        {url.Values{"code_verifier": {verifier + "x"}}, 400, "invalid_grant"},
		"no verifier":             {url.Values{"code_verifier": {""}}, 400, "invalid_grant"},
		"challenge as verifier":   {url.Values{"code_verifier": {challengeOf(verifier)}}, 400, "invalid_grant"},
		"secret in two places":    {url.Values{"client_secret": {appSecret}}, 400, "invalid_request"},
		"another client_id":       {url.Values{"client_id": {"other"}}, 400, "invalid_request"},
		"parameter twice":         {url.Values{"scope": {"openid", "email"}}, 400, "invalid_request"},
		"refresh token of nobody": {url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x~y~z"}}, 400, "invalid_grant"},
	} {
		got := chrome.exchange("app", form(c.more))
		if got.status != c.status || got.json(t)["error"] != c.code {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	chrome.exchange("other", form(nil)).mustFail(t, 400, "invalid_grant")
	for name, headers := range map[string][]string{
		"wrong secret":    {basic("app", "wrong")},
		"unknown client":  {basic("nobody", appSecret)},
		"no secret":       nil,
		"public's secret": {basic("spa", appSecret)},
	} {
		values := form(nil)
		if headers == nil {
			values.Set("client_id", "app")
		}
		got := chrome.post("/oidc/token", values, headers...)
		if got.status != 401 || got.json(t)["error"] != "invalid_client" || strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") != (headers != nil) {
			t.Errorf("%s: %d %v %s", name, got.status, got.header, got.body)
		}
	}
	if got := chrome.do(http.MethodGet, "/oidc/token", nil); got.status != 405 {
		t.Errorf("GET: %d", got.status)
	}
	if got := chrome.post("/oidc/token", form(nil), basic("app", appSecret), "Content-Type: application/json"); got.status != 400 {
		t.Errorf("JSON: %d", got.status)
	}
	if got := chrome.post("/oidc/token", form(url.Values{"client_assertion": {" "}, "client_secret": {" "}}), basic("app", appSecret)); got.status != 400 {
		t.Errorf("control: several ways: %d %s", got.status, got.body)
	}
	values := form(nil)
	values.Set("client_secret", "")
	if got := chrome.post("/oidc/token", values, basic("app", appSecret)); got.status != 200 {
		t.Errorf("Basic beside an empty secret: %d %s", got.status, got.body)
	}
	values = form(nil)
	values.Set("client_id", "app")
	values.Set("client_secret", appSecret)
	if got := chrome.post("/oidc/token", values); got.status != 200 {
		t.Errorf("client_secret_post: %d %s", got.status, got.body)
	}
	// A code of a request without PKCE takes no verifier: it would be one that
	// was injected (RFC 9700 §4.8).
	code := chrome.code("app", url.Values{"code_challenge": {""}, "code_challenge_method": {""}})
	chrome.redeem("app", code).mustFail(t, 400, "invalid_grant")
}

// 100 uses of one code at once: one gets tokens, and the replay takes them back.
func TestThreatCodeReplay(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	first := chrome.redeem("spa", chrome.code("spa", nil))
	if got := chrome.do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+first.json(t)["access_token"].(string)); got.status != 200 {
		t.Fatalf("control: %d %s", got.status, got.body)
	}
	code := chrome.code("spa", nil)
	var all sync.WaitGroup
	var successes atomic.Int64
	var given atomic.Value
	for range 100 {
		all.Go(func() {
			if got := s.browser().redeem("spa", code); got.status == 200 {
				successes.Add(1)
				given.Store(got)
			} else if got.status != 400 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	all.Wait()
	if successes.Load() != 1 {
		t.Fatalf("%d of 100 uses of a code succeeded", successes.Load())
	}
	tokens := given.Load().(answer).json(t)
	if got := chrome.do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+tokens["access_token"].(string)); got.status != 401 {
		t.Errorf("the access token outlives the replay of its code: %d", got.status)
	}
	chrome.refresh("spa", tokens["refresh_token"].(string)).mustFail(t, 400, "invalid_grant")
}

// 100 uses of one refresh token at once have one line of tokens. A client whose answer
// was lost goes on; a token whose successor was used ends the grant, and so does one
// that was replaced before anybody used it.
func TestThreatRefreshTokenReplay(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	tokens := chrome.redeem("spa", chrome.code("spa", nil)).json(t)
	refresh := tokens["refresh_token"].(string)
	chrome.refresh("tv", refresh).mustFail(t, 400, "invalid_grant")
	next := chrome.refresh("spa", refresh)
	if next.status != 200 {
		t.Fatalf("control: %d %s", next.status, next.body)
	}
	if claims := claimsOf(t, next.json(t)["id_token"].(string)); claims["nonce"] != nil || claims["auth_time"] != claimsOf(t, tokens["id_token"].(string))["auth_time"] {
		t.Errorf("ID token of a refresh: %v", claims)
	}
	refresh = next.json(t)["refresh_token"].(string)
	var all sync.WaitGroup
	var mu sync.Mutex
	successors := make(map[string]int)
	for range 100 {
		all.Go(func() {
			got := s.browser().refresh("spa", refresh)
			if got.status != 200 {
				t.Errorf("%d %s", got.status, got.body)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			successors[got.json(t)["refresh_token"].(string)]++
		})
	}
	all.Wait()
	if len(successors) != 1 {
		t.Fatalf("100 uses of a refresh token gave %d successors", len(successors))
	}
	lost := slices.Collect(maps.Keys(successors))[0]
	s.longAgo(refresh)
	again := chrome.refresh("spa", refresh).json(t)
	found := again["refresh_token"].(string)
	if found == lost || !chrome.live(again["access_token"]) {
		t.Error("a client that comes back later does not get another successor")
	}
	last := chrome.refresh("spa", found).json(t)
	if !chrome.live(last["access_token"]) {
		t.Fatal("control: the successor gives no tokens")
	}
	chrome.refresh("spa", lost).mustFail(t, 400, "invalid_grant")
	chrome.refresh("spa", last["refresh_token"].(string)).mustFail(t, 400, "invalid_grant")

	tokens = chrome.redeem("spa", chrome.code("spa", nil)).json(t)
	refresh = tokens["refresh_token"].(string)
	next = chrome.refresh("spa", chrome.refresh("spa", refresh).json(t)["refresh_token"].(string))
	chrome.refresh("spa", refresh).mustFail(t, 400, "invalid_grant")
	if chrome.live(next.json(t)["access_token"]) {
		t.Error("the grant outlives the reuse of a refresh token")
	}
}

// longAgo has the last use of a refresh token be an hour ago.
func (s *site) longAgo(refresh string) {
	s.t.Helper()
	id, _ := splitRefreshToken(refresh)
	_, err := s.store().UpdateRecord(s.t.Context(), state{issuer: s.url}.kind(kindGrant), id, time.Now(), func(r *store.Record) error {
		var g grant
		if err := json.Unmarshal(r.Value, &g); err != nil {
			return err
		}
		g.RotatedAt -= time.Hour.Milliseconds()
		var err error
		r.Value, err = json.Marshal(g)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// prompt, max_age and login_hint, as OpenID Connect Core §3.1.2.1 has them.
func TestPrompts(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	none := func() url.Values {
		return chrome.get(s.authorizeURL("spa", url.Values{"prompt": {"none"}})).to(t).Query()
	}
	if got := none().Get("error"); got != "login_required" {
		t.Errorf("prompt none without a session: %q", got)
	}
	chrome.signUp("alice@example.com")
	if got := none(); got.Get("code") == "" {
		t.Errorf("prompt none in a session: %v", got)
	}
	if got := chrome.get(s.authorizeURL("app", url.Values{"prompt": {"none"}})).to(t).Query().Get("error"); got != "consent_required" {
		t.Errorf("prompt none without consent: %q", got)
	}
	for name, more := range map[string]url.Values{"prompt login": {"prompt": {"login"}}, "prompt select_account": {"prompt": {"select_account"}}, "max_age 0": {"max_age": {"0"}}} {
		to := chrome.get(s.authorizeURL("spa", more)).to(t)
		if to.Path != "/auth/login" {
			t.Errorf("%s: %s", name, to)
			continue
		}
		if again := chrome.get(to.Query().Get("return_to")).to(t); again.Path != "/auth/login" {
			t.Errorf("%s goes on without a log-in: %s", name, again)
		}
		if back := chrome.goOn(to.String()); back.Query().Get("code") == "" {
			t.Errorf("%s: %s", name, back)
		}
	}
	to := s.browser().get(s.authorizeURL("spa", url.Values{"login_hint": {"alice@example.com"}})).to(t)
	page := chrome.get(to.String())
	if !strings.Contains(page.body, `value="alice@example.com"`) || strings.Contains(page.header.Get("Content-Security-Policy"), "form-action") {
		t.Errorf("log-in page: %v %s", page.header, page.body)
	}
	asked := chrome.get(s.authorizeURL("spa", url.Values{"prompt": {"consent"}})).to(t)
	if asked.Path != "/oidc/consent" {
		t.Errorf("prompt consent: %s", asked)
	}
	claims := chrome.redeem("spa", chrome.code("spa", url.Values{"acr_values": {acrPassword}, "claims": {`{"id_token":{"email":{"essential":true}},"userinfo":{"name":null}}`}})).json(t)
	if got := claimsOf(t, claims["id_token"].(string)); got["acr"] != acrPassword || got["email"] != "alice@example.com" || got["auth_time"] == nil {
		t.Errorf("ID token %v", got)
	}
	if got := chrome.do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+claims["access_token"].(string)).json(t); got["name"] != "Alice A." {
		t.Errorf("userinfo %v", got)
	}
}

// The page that asks: what it lists, yes, no, and a session that is another's.
func TestConsent(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	request := s.authorizeURL("app", url.Values{"scope": {"openid profile read:todos"}})
	ask := func() (string, answer) {
		to := chrome.get(request).to(t)
		page := chrome.get(to.String())
		return to.Query().Get("interaction"), page
	}
	id, page := ask()
	for _, text := range []string{"The App", "alice@example.com", "See your name and profile", "Use “read:todos” for you"} {
		if !strings.Contains(page.body, text) {
			t.Errorf("the page does not say %q:\n%s", text, page.body)
		}
	}
	if policy := page.header.Get("Content-Security-Policy"); strings.Contains(policy, "form-action") || !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("policy %s", policy)
	}
	if got := chrome.decide("/oidc/consent", page, "allow", "Origin: https://evil.example"); got.status != 403 {
		t.Errorf("from another site: %d", got.status)
	}
	if got := s.browser().decide("/oidc/consent", page, "allow").to(t); got.Path != "/auth/login" {
		t.Errorf("by another browser: %s", got)
	}
	back := chrome.decide("/oidc/consent", page, "deny").to(t)
	if back.Query().Get("error") != "access_denied" || back.Query().Get("state") != "a state" || back.Host != "app.example" {
		t.Errorf("cancelled: %s", back)
	}
	if got := chrome.get("/oidc/consent?interaction=" + id); got.status != 400 {
		t.Errorf("after it was cancelled: %d", got.status)
	}
	id, page = ask()
	// A page that was shown to somebody else is shown again.
	frank := s.browser()
	frank.signUp("frank@example.com")
	if got := frank.decide("/oidc/consent", page, "allow"); got.status != 200 || !strings.Contains(got.body, "frank@example.com") {
		t.Errorf("by another user: %d %s", got.status, got.body)
	}
	if to := chrome.decide("/oidc/consent", page, "allow").to(t); chrome.goOn(to.String()).Query().Get("code") == "" {
		t.Errorf("allowed: %s", to)
	}
	if got := frank.get("/oidc/authorize?interaction=" + id).to(t); got.Path != "/oidc/consent" {
		t.Errorf("by another user: %s", got)
	}
	if got := frank.decide("/oidc/consent", frank.get("/oidc/consent?interaction="+id), "allow").to(t); frank.get(got.String()).status != 400 {
		t.Errorf("finished by another user once more: %s", got)
	}
	if got := chrome.get(request).to(t); got.Query().Get("code") == "" {
		t.Errorf("asked again: %s", got)
	}
	request = s.authorizeURL("app", url.Values{"scope": {"openid profile"}, "claims": {`{"userinfo":{"email":null,"phone_number":null}}`}})
	if to := chrome.get(request).to(t); to.Path != "/oidc/consent" || !strings.Contains(chrome.get(to.String()).body, "See your e-mail address") {
		t.Errorf("not asked for a claim by its name: %s", to)
	}
	request = s.authorizeURL("app", url.Values{"scope": {"openid profile email read:todos"}})
	if got := chrome.get(request).to(t); got.Path != "/oidc/consent" {
		t.Errorf("not asked for more: %s", got)
	}
}

func TestClientCredentials(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	got := chrome.exchange("app", url.Values{"grant_type": {"client_credentials"}, "scope": {"read:todos"}}).json(t)
	claims := claimsOf(t, got["access_token"].(string))
	if claims["sub"] != "app@clients" || claims["client_id"] != "app" || claims["scope"] != "read:todos" || claims["aud"] != s.url || got["refresh_token"] != nil || got["id_token"] != nil {
		t.Errorf("%v %v", got, claims)
	}
	chrome.exchange("app", url.Values{"grant_type": {"client_credentials"}, "scope": {"openid"}}).mustFail(t, 400, "invalid_scope")
	chrome.exchange("web", url.Values{"grant_type": {"client_credentials"}}).mustFail(t, 400, "unauthorized_client")
	if got := chrome.do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+got["access_token"].(string)); got.status != 403 || !strings.Contains(got.header.Get("WWW-Authenticate"), "insufficient_scope") {
		t.Errorf("userinfo: %d %v", got.status, got.header)
	}
}

func TestPushedRequests(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	request, _ := url.Parse(s.authorizeURL("other", url.Values{"redirect_uri": {"https://other.example/callback"}}))
	push := func(values url.Values) answer {
		return chrome.post("/oidc/par", values, basic("other", "another-secret-0123456789"))
	}
	got := push(request.Query())
	if got.status != 201 || got.json(t)["expires_in"] != 60.0 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	uri := got.json(t)["request_uri"].(string)
	if got := chrome.get("/oidc/authorize?" + url.Values{"client_id": {"app"}, "request_uri": {uri}}.Encode()); got.status != 400 {
		t.Errorf("by another client: %d", got.status)
	}
	if to := chrome.get("/oidc/authorize?" + url.Values{"client_id": {"other"}, "request_uri": {uri}}.Encode()).to(t); to.Query().Get("code") == "" || to.Query().Get("state") != "a state" {
		t.Errorf("pushed: %s", to)
	}
	if got := chrome.get("/oidc/authorize?" + url.Values{"client_id": {"other"}, "request_uri": {uri}}.Encode()); got.status != 400 {
		t.Errorf("used twice: %d", got.status)
	}
	bad := request.Query()
	bad.Set("redirect_uri", "https://evil.example/")
	push(bad).mustFail(t, 400, "invalid_request")
	chrome.post("/oidc/par", request.Query(), basic("other", "wrong")).mustFail(t, 401, "invalid_client")
	// A server pushes for all its users; for a public client anybody can.
	for range strangersRequests + 1 {
		if got := push(request.Query()); got.status != 201 {
			t.Fatalf("many: %d %s", got.status, got.body)
		}
	}
	public, _ := url.Parse(s.authorizeURL("spa", nil))
	mustBeBounded(t, strangersRequests, 0, func() int { return chrome.post("/oidc/par", public.Query()).status })
}

// mustBeBounded asks until it is refused: not before as many as a client may ask in
// a minute, some of which it has asked before, and soon after, though time gives
// some back meanwhile.
func mustBeBounded(t *testing.T, inMinute, before int, ask func() (status int)) {
	t.Helper()
	for asked := before; asked < 3*inMinute; asked++ {
		if ask() != 429 {
			continue
		}
		if asked < inMinute {
			t.Errorf("refused after %d of %d", asked, inMinute)
		}
		return
	}
	t.Errorf("%d requests are not refused, %d may be made in a minute", 3*inMinute, inMinute)
}

// A request that a page of the client posts comes without the session's cookie.
func TestAuthorizeByPost(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	request, _ := url.Parse(s.authorizeURL("spa", url.Values{"prompt": {"none"}}))
	to := s.browser().post("/oidc/authorize", request.Query(), "Sec-Fetch-Site: cross-site", "Origin: https://app.example").to(t)
	if back := chrome.get(to.String()).to(t); back.Query().Get("code") == "" {
		t.Errorf("logged in: %s", back)
	}
	to = s.browser().post("/oidc/authorize", request.Query()).to(t)
	if back := s.browser().get(to.String()).to(t); back.Query().Get("error") != "login_required" {
		t.Errorf("not logged in: %s", back)
	}
}

// Without a code there is no refresh token, so offline_access is not granted
// (OpenID Connect Core §11).
func TestImplicitHasNoOfflineAccess(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	for responseType, wanted := range map[string]string{"id_token token": "openid", "code id_token token": "openid offline_access"} {
		to := chrome.goOn(s.authorizeURL("web", url.Values{"response_type": {responseType}, "scope": {"openid offline_access"}}))
		answer, err := url.ParseQuery(to.Fragment)
		if err != nil || answer.Get("scope") != wanted {
			t.Errorf("%s: scope %q, %v", responseType, answer.Get("scope"), err)
		}
	}
}

func TestDeviceFlow(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	begin := func() map[string]any {
		got := chrome.post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid email"}})
		if got.status != 200 {
			t.Fatalf("%d %s", got.status, got.body)
		}
		return got.json(t)
	}
	poll := func(codes map[string]any) answer {
		return chrome.exchange("tv", url.Values{"grant_type": {grantDevice}, "device_code": {codes["device_code"].(string)}})
	}
	codes := begin()
	poll(codes).mustFail(t, 400, "authorization_pending")
	poll(codes).mustFail(t, 400, "slow_down")
	page := chrome.get(codes["verification_uri_complete"].(string))
	if page.status != 200 || !strings.Contains(page.body, codes["user_code"].(string)) || !strings.Contains(page.body, "See your e-mail address") {
		t.Errorf("page: %d %s", page.status, page.body)
	}
	if got := chrome.get("/oidc/device?user_code=BBBB-BBBB"); got.status != 404 || !strings.Contains(got.body, "The code is wrong") {
		t.Errorf("wrong code: %d %s", got.status, got.body)
	}
	if to := s.browser().get(codes["verification_uri_complete"].(string)).to(t); to.Path != "/auth/login" {
		t.Errorf("without a session: %s", to)
	}
	typed := strings.ToLower(strings.ReplaceAll(codes["user_code"].(string), "-", " "))
	if got := chrome.decide("/oidc/device", page, "allow", "Sec-Fetch-Site: cross-site"); got.status != 403 {
		t.Errorf("from another site: %d", got.status)
	}
	page = chrome.get("/oidc/device?" + url.Values{"user_code": {typed}}.Encode())
	if got := chrome.decide("/oidc/device", page, "allow"); got.status != 200 || !strings.Contains(got.body, "is connected") {
		t.Errorf("allowed: %d %s", got.status, got.body)
	}
	given := poll(codes)
	if given.status != 200 || claimsOf(t, given.json(t)["id_token"].(string))["aud"] != "tv" {
		t.Errorf("tokens: %d %s", given.status, given.body)
	}
	poll(codes).mustFail(t, 400, "expired_token")
	chrome.exchange("tv", url.Values{"grant_type": {grantDevice}}).mustFail(t, 400, "invalid_request")
	codes = begin()
	if got := chrome.decide("/oidc/device", chrome.get(codes["verification_uri_complete"].(string)), "deny"); got.status != 200 {
		t.Errorf("denied: %d", got.status)
	}
	poll(codes).mustFail(t, 400, "access_denied")
	chrome.post("/oidc/device_authorization", url.Values{"client_id": {"spa"}, "scope": {"openid"}}).mustFail(t, 400, "unauthorized_client")
}

func TestIntrospectionAndRevocation(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	introspect := func(token string) map[string]any {
		got := chrome.post("/oidc/introspect", url.Values{"token": {token}}, basic("api", appSecret))
		if got.status != 200 {
			t.Fatalf("introspect: %d %s", got.status, got.body)
		}
		return got.json(t)
	}
	revoke := func(client, token string) {
		t.Helper()
		form := url.Values{"token": {token}}
		headers := []string{basic(client, appSecret)}
		if client == "spa" {
			headers = nil
			form.Set("client_id", "spa")
		}
		if got := chrome.post("/oidc/revoke", form, headers...); got.status != 200 {
			t.Fatalf("revoke: %d %s", got.status, got.body)
		}
	}
	tokens := chrome.redeem("spa", chrome.code("spa", nil)).json(t)
	access, refresh := tokens["access_token"].(string), tokens["refresh_token"].(string)
	if got := introspect(access); got["active"] != true || got["client_id"] != "spa" || got["username"] != "alice@example.com" || got["scope"] != "openid email" || got["iss"] != s.url {
		t.Errorf("access token: %v", got)
	}
	for name, token := range map[string]string{"another client's refresh token": refresh, "an ID token": tokens["id_token"].(string), "nothing": "x"} {
		if got := introspect(token); len(got) != 1 || got["active"] != false {
			t.Errorf("%s: %v", name, got)
		}
	}
	chrome.post("/oidc/introspect", url.Values{"token": {access}, "client_id": {"spa"}}).mustFail(t, 401, "invalid_client")

	for name, token := range map[string]string{"access token": access, "refresh token": refresh} {
		chrome.post("/oidc/revoke", url.Values{"token": {token}}, basic("app", appSecret)).mustFail(t, 400, "invalid_request")
		if introspect(access)["active"] != true {
			t.Errorf("a client took another's %s back", name)
		}
	}
	revoke("app", "x") // nobody's is no error (RFC 7009 §2.2)
	revoke("spa", access)
	if introspect(access)["active"] != false {
		t.Error("an access token is good after it was revoked")
	}
	again := chrome.refresh("spa", refresh).json(t)
	revoke("spa", again["refresh_token"].(string))
	if introspect(again["access_token"].(string))["active"] != false {
		t.Error("an access token is good after its refresh token was revoked")
	}
	chrome.refresh("spa", again["refresh_token"].(string)).mustFail(t, 400, "invalid_grant")
}

// Log-out by the client, at the accounts, and told to the clients.
func TestLogout(t *testing.T) {
	told := make(chan string, 10)
	var failures atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failures.Add(-1) >= 0 {
			w.WriteHeader(500)
			return
		}
		told <- r.PostFormValue("logout_token")
	}))
	defer receiver.Close()
	s := serve(t, fmt.Sprintf(clientsOfTests, "backchannel_logout_uri "+receiver.URL), "")
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	logIn := func() map[string]any {
		return chrome.redeem("app", chrome.code("app", url.Values{"scope": {"openid offline_access"}})).json(t)
	}
	checkTold := func(sid any) {
		t.Helper()
		select {
		case token := <-told:
			claims := claimsOf(t, token)
			events, _ := claims["events"].(map[string]any)
			if claims["iss"] != s.url || claims["aud"] != "app" || claims["sid"] != sid || events[protocol.LogoutEvent] == nil || claims["nonce"] != nil || claims["jti"] == nil {
				t.Errorf("log-out token %v", claims)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the client is not told")
		}
	}
	tokens := logIn()
	id := tokens["id_token"].(string)
	sid := claimsOf(t, id)["sid"]
	failures.Store(1) // it is tried again
	to := chrome.get("/oidc/logout?" + url.Values{"id_token_hint": {id}, "post_logout_redirect_uri": {"https://app.example/"}, "state": {"bye"}}.Encode()).to(t)
	if to.String() != "https://app.example/?state=bye" {
		t.Errorf("after the log-out: %s", to)
	}
	checkTold(sid)
	if to := chrome.get(s.authorizeURL("app", nil)).to(t); to.Path != "/auth/login" {
		t.Errorf("still logged in: %s", to)
	}
	if got := chrome.refresh("app", tokens["refresh_token"].(string)); got.status != 200 {
		t.Errorf("offline access ends with the session: %d %s", got.status, got.body)
	}

	chrome.goOn(s.authorizeURL("app", nil)) // log in again
	tokens = logIn()
	page := chrome.get("/oidc/logout?client_id=app&post_logout_redirect_uri=https%3A%2F%2Fapp.example%2F")
	if page.status != 200 || !strings.Contains(page.body, "Log out?") {
		t.Errorf("without a hint the user is not asked: %d %s", page.status, page.body)
	}
	if got := chrome.post("/oidc/logout", url.Values{"client_id": {"app"}, "decision": {"logout"}}, "Origin: https://evil.example"); !strings.Contains(got.body, "Log out?") {
		t.Errorf("another site logs the user out: %d %s", got.status, got.body)
	}
	if got := chrome.post("/auth/logout", url.Values{}); got.status != 303 {
		t.Errorf("log-out at the accounts: %d", got.status)
	}
	checkTold(claimsOf(t, tokens["id_token"].(string))["sid"])
	for name, query := range map[string]url.Values{
		"redirect of nobody":        {"post_logout_redirect_uri": {"https://app.example/"}},
		"another redirect":          {"client_id": {"app"}, "post_logout_redirect_uri": {"https://evil.example/"}},
		"hint of another client":    {"client_id": {"other"}, "id_token_hint": {id}},
		"hint that is no ID token":  {"id_token_hint": {tokens["access_token"].(string)}},
		"hint and another redirect": {"id_token_hint": {id}, "post_logout_redirect_uri": {"https://app.example/x"}},
	} {
		if got := chrome.get("/oidc/logout?" + query.Encode()); got.status != 400 || got.header.Get("Location") != "" {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
	}
}

// A session that ends takes what was granted in it, unless it is for offline
// use; a disabled user takes that too.
func TestGrantsEnd(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	online := chrome.redeem("spa", chrome.code("spa", nil)).json(t)
	offline := chrome.redeem("spa", chrome.code("spa", url.Values{"scope": {"openid offline_access"}})).json(t)
	chrome.post("/auth/logout", url.Values{})
	chrome.refresh("spa", online["refresh_token"].(string)).mustFail(t, 400, "invalid_grant")
	if got := chrome.do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+online["access_token"].(string)); got.status != 401 || !strings.Contains(got.header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("userinfo after the log-out: %d %v", got.status, got.header)
	}
	kept := chrome.refresh("spa", offline["refresh_token"].(string))
	if kept.status != 200 {
		t.Errorf("offline: %d %s", kept.status, kept.body)
	}
	users := s.store()
	user, err := users.UserByEmail(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := users.UpdateUser(t.Context(), user.ID, time.Now(), func(u *store.User) error { u.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	chrome.refresh("spa", kept.json(t)["refresh_token"].(string)).mustFail(t, 400, "invalid_grant")
}
