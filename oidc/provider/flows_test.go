package provider_test

import (
	"context"
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

// A typical client in Go: discovery, code flow with PKCE, ID token, userinfo, refresh; and another
// site that verifies the access token.
func TestCodeFlowWithGoOIDC(t *testing.T) {
	api := sitetest.FreeLocalhost(t)
	s := serve(t, fmt.Sprintf(clientsOfTests, ""), "")
	s.load(fmt.Sprintf(clientsOfTests, ""), "}\nhttp://"+api+" {\n jwt {\n issuer "+s.URL+" {\n audience "+s.URL+
		"\n token_type at+jwt\n}\n require scope read:todos\n}\n"+
		" respond \"user={http.auth.user.id} roles={http.auth.user.roles}\"", t.TempDir())
	ctx := context.Background()
	var discovered *gooidc.Provider
	var err error
	sitetest.Eventually(t, "discovery", func() bool { // a connection may still be that of the config before
		discovered, err = gooidc.NewProvider(ctx, s.URL)
		return err == nil
	})
	config := oauth2.Config{
		ClientID: "app", ClientSecret: appSecret, Endpoint: discovered.Endpoint(), RedirectURL: appCallback,
		Scopes: []string{"openid", "email", "profile", "roles", "offline_access", "read:todos"},
	}
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	chrome = s.browser() // not logged in
	secret := oauth2.GenerateVerifier()
	back := chrome.GoOn(config.AuthCodeURL("a state", gooidc.Nonce("a nonce"), oauth2.S256ChallengeOption(secret)))
	if back.Query().Get("state") != "a state" || back.Query().Get("iss") != s.URL {
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
	if err := info.Claims(&claims); err != nil || info.Subject != idToken.Subject ||
		info.Email != "alice@example.com" || claims["name"] != "Alice A." {
		t.Errorf("userinfo %+v %v %v", info, claims, err)
	}
	fresh, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: tokens.RefreshToken}).Token()
	if err != nil || fresh.RefreshToken == tokens.RefreshToken || fresh.AccessToken == tokens.AccessToken {
		t.Fatalf("refresh: %v", err)
	}
	var got sitetest.Reply
	sitetest.Eventually(t, "the site elsewhere has the keys", func() bool {
		got = chrome.Do(http.MethodGet, "http://"+api+"/", nil, "Authorization: Bearer "+fresh.AccessToken)
		return got.Status == 200
	})
	if got.Body != "user="+info.Subject+" roles=" {
		t.Errorf("elsewhere: %s", got.Body)
	}
	if got := chrome.Do(http.MethodGet, "http://"+api+"/", nil, "Authorization: Bearer "+raw); got.Status != 401 {
		t.Errorf("an ID token passes for an access token: %d", got.Status)
	}
}

// Each response type, in its default mode and with form_post.
func TestResponseTypes(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	for _, responseType := range responseTypes {
		t.Run(responseType, func(t *testing.T) {
			got := chrome.Get(s.authorizeURL("web", url.Values{"response_type": {responseType}}))
			to := got.To(t)
			values := to.Query()
			if responseType != "code" {
				if to.RawQuery != "" {
					t.Errorf("tokens in the query: %s", to)
				}
				values, _ = url.ParseQuery(to.Fragment)
			}
			if values.Get("state") != "a state" || values.Get("iss") != s.URL {
				t.Errorf("answer %v", values)
			}
			for part, name := range map[string]string{"code": "code", "token": "access_token", "id_token": "id_token"} {
				asked := strings.Contains(" "+responseType+" ", " "+part+" ")
				if asked != (values.Get(name) != "") {
					t.Errorf("%s: %q", name, values.Get(name))
				}
			}
			if id := values.Get("id_token"); id != "" {
				claims := sitetest.ClaimsOf(t, id)
				_, hasEmail := claims["email"]
				if claims["nonce"] != "a nonce" || claims["aud"] != "web" || hasEmail != (responseType == "id_token") {
					t.Errorf("ID token %v", claims)
				}
				for hash, of := range map[string]string{"c_hash": "code", "at_hash": "access_token"} {
					if value := values.Get(of); (value == "") != (claims[hash] == nil) ||
						value != "" && claims[hash] != sitetest.HalfHash(value) {
						t.Errorf("%s is %v", hash, claims[hash])
					}
				}
			}
			if code := values.Get("code"); code != "" {
				given := chrome.redeem("web", code)
				if given.Status != 200 || given.JSON(t)["id_token"] == nil ||
					given.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("exchange: %d %s", given.Status, given.Body)
				}
			}
			if access := values.Get("access_token"); access != "" {
				if got := chrome.Do(
					http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+access,
				); got.Status != 200 ||
					got.JSON(t)["email"] != "alice@example.com" {
					t.Errorf("userinfo: %d %s", got.Status, got.Body)
				}
			}
			page := chrome.Get(s.authorizeURL("web", url.Values{
				"response_type": {responseType}, "response_mode": {"form_post"},
			}))
			if page.Status != 200 || !strings.Contains(page.Body, `action="`+appCallback+`"`) ||
				!strings.Contains(page.Body, `name="state" value="a state"`) ||
				!strings.HasSuffix(
					page.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'; base-uri 'none'",
				) {
				t.Errorf("form_post: %d %v %s", page.Status, page.Header, page.Body)
			}
		})
	}
}

// Errors of an authorization request, and where they are shown.
func TestThreatAuthorizationRequests(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	if got := chrome.Get(s.authorizeURL("spa", nil)).To(t); got.Query().Get("code") == "" {
		t.Fatalf("control: %s", got)
	}
	// A page without a redirect.
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
		if got := chrome.Get(s.authorizeURL("spa", more)); got.Status != 400 || got.Header.Get("Location") != "" ||
			!strings.Contains(got.Body, "This does not work") {
			t.Errorf("%s: %d %v", name, got.Status, got.Header)
		}
	}
	for name, redirect := range map[string]string{
		"any port of the loopback": "http://127.0.0.1:39999/callback", "an app's scheme": "com.example.app:/callback",
	} {
		if got := chrome.GoOn(s.authorizeURL(
			"spa", url.Values{"redirect_uri": {redirect}},
		)); !strings.HasPrefix(got.String(), redirect+"?") {
			t.Errorf("%s: %s", name, got)
		}
	}
	// An error response to the client.
	for name, c := range map[string]struct {
		more url.Values
		code string
	}{
		"no response_type":           {url.Values{"response_type": {""}}, "invalid_request"},
		"unknown response_type":      {url.Values{"response_type": {"password"}}, "unsupported_response_type"},
		"response_type of others":    {url.Values{"response_type": {"id_token"}}, "unauthorized_client"},
		"no scope":                   {url.Values{"scope": {""}}, "invalid_scope"},
		"scope that it may not have": {url.Values{"scope": {"admin"}}, "invalid_scope"},
		"no PKCE": {
			url.Values{"code_challenge": {""}, "code_challenge_method": {""}}, "invalid_request",
		},
		"PKCE plain":                 {url.Values{"code_challenge_method": {"plain"}}, "invalid_request"},
		"PKCE without a method":      {url.Values{"code_challenge_method": {""}}, "invalid_request"},
		"PKCE of another length":     {url.Values{"code_challenge": {"short"}}, "invalid_request"},
		"prompt none beside another": {url.Values{"prompt": {"none login"}}, "invalid_request"},
		"unknown prompt":             {url.Values{"prompt": {"create"}}, "invalid_request"},
		"max_age that is no number":  {url.Values{"max_age": {"soon"}}, "invalid_request"},
		"request object":             {url.Values{"request": {"e30."}}, "request_not_supported"},
		"request_uri": {
			url.Values{"request_uri": {"https://evil.example/"}}, "request_uri_not_supported",
		},
		"registration":              {url.Values{"registration": {"{}"}}, "registration_not_supported"},
		"id_token_hint of nobody":   {url.Values{"id_token_hint": {"x.y.z"}}, "invalid_request"},
		"claims that are no object": {url.Values{"claims": {"[]"}}, "invalid_request"},
		"unknown response_mode":     {url.Values{"response_mode": {"web_message"}}, "invalid_request"},
		"scope twice":               {url.Values{"scope": {"openid", "email"}}, "invalid_request"},
		"state twice":               {url.Values{"state": {"a state", "another"}}, "invalid_request"},
		"prompt none for another subject": {
			url.Values{"prompt": {"none"}, "claims": {`{"id_token":{"sub":{"value":"somebody"}}}`}}, "login_required",
		},
	} {
		to := chrome.Get(s.authorizeURL("spa", c.more)).To(t)
		values := to.Query()
		if to.Fragment != "" {
			values, _ = url.ParseQuery(to.Fragment)
		}
		if notInASCII := strings.ContainsFunc(values.Get("error_description"), func(r rune) bool {
			return r > '~'
		}); notInASCII ||
			values.Get("error") != c.code || values.Get("state") != "a state" || values.Get("iss") != s.URL ||
			values.Get("error_description") == "" {
			t.Errorf("%s: %s", name, to)
		}
	}
	if got := chrome.Get(s.authorizeURL("web", url.Values{
		"response_type": {"id_token"}, "nonce": {""},
	})).To(t); !strings.Contains(got.Fragment, "error=invalid_request") {
		t.Errorf("implicit without nonce: %s", got)
	}
	if got := chrome.Get(s.authorizeURL("web", url.Values{
		"response_type": {"id_token token"}, "response_mode": {"query"},
	})).To(t); !strings.Contains(got.String(), "error=invalid_request") ||
		strings.Contains(got.String(), "access_token") {
		t.Errorf("tokens in a query: %s", got)
	}
	// Empty and unknown parameters are treated as omitted (RFC 6749 §3.1).
	if got := chrome.Get(
		s.authorizeURL("spa", nil) + "&request=&request_uri=&registration=&of=mine&of=mine",
	).To(t); got.Query().Get("code") == "" {
		t.Errorf("parameters that say nothing: %s", got)
	}
}

// Errors of a token request.
func TestThreatTokenRequests(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	good := func() string { return chrome.code("app", nil) }
	form := func(more url.Values) url.Values {
		values := url.Values{
			"grant_type": {"authorization_code"}, "code": {good()},
			"redirect_uri": {appCallback}, "code_verifier": {verifier},
		}
		for name, value := range more {
			values[name] = value
			if value[0] == "" {
				values.Del(name)
			}
		}
		return values
	}
	if got := chrome.exchange("app", form(nil)); got.Status != 200 {
		t.Fatalf("control: %d %s", got.Status, got.Body)
	}
	for name, c := range map[string]struct {
		more   url.Values
		status int
		code   string
	}{
		"no grant_type":         {url.Values{"grant_type": {""}}, 400, "invalid_request"},
		"password":              {url.Values{"grant_type": {"password"}}, 400, "unsupported_grant_type"},
		"implicit":              {url.Values{"grant_type": {"implicit"}}, 400, "unsupported_grant_type"},
		"not registered":        {url.Values{"grant_type": {grantDevice}}, 400, "unauthorized_client"},
		"unknown code":          {url.Values{"code": {"x"}}, 400, "invalid_grant"},
		"no code":               {url.Values{"code": {""}}, 400, "invalid_request"},
		"no refresh token":      {url.Values{"grant_type": {"refresh_token"}}, 400, "invalid_request"},
		"another redirect_uri":  {url.Values{"redirect_uri": {"https://app.example/other?x=1"}}, 400, "invalid_grant"},
		"no redirect_uri":       {url.Values{"redirect_uri": {""}}, 400, "invalid_grant"},
		"another verifier":      {url.Values{"code_verifier": {verifier + "x"}}, 400, "invalid_grant"},
		"no verifier":           {url.Values{"code_verifier": {""}}, 400, "invalid_grant"},
		"challenge as verifier": {url.Values{"code_verifier": {sitetest.Challenge(verifier)}}, 400, "invalid_grant"},
		"secret in two places":  {url.Values{"client_secret": {appSecret}}, 400, "invalid_request"},
		"another client_id":     {url.Values{"client_id": {"other"}}, 400, "invalid_request"},
		"parameter twice":       {url.Values{"scope": {"openid", "email"}}, 400, "invalid_request"},
		"refresh token of nobody": {
			url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x~y~z"}}, 400, "invalid_grant",
		},
	} {
		got := chrome.exchange("app", form(c.more))
		if got.Status != c.status || got.JSON(t)["error"] != c.code {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	chrome.exchange("other", form(nil)).MustFail(t, 400, "invalid_grant")
	for name, headers := range map[string][]string{
		"wrong secret":    {sitetest.Basic("app", "wrong")},
		"unknown client":  {sitetest.Basic("nobody", appSecret)},
		"no secret":       nil,
		"public's secret": {sitetest.Basic("spa", appSecret)},
	} {
		values := form(nil)
		if headers == nil {
			values.Set("client_id", "app")
		}
		got := chrome.Post("/oidc/token", values, headers...)
		if got.Status != 401 || got.JSON(t)["error"] != "invalid_client" ||
			strings.HasPrefix(got.Header.Get("WWW-Authenticate"), "Basic ") != (headers != nil) {
			t.Errorf("%s: %d %v %s", name, got.Status, got.Header, got.Body)
		}
	}
	if got := chrome.Do(http.MethodGet, "/oidc/token", nil); got.Status != 405 {
		t.Errorf("GET: %d", got.Status)
	}
	if got := chrome.Post(
		"/oidc/token", form(nil), sitetest.Basic("app", appSecret), "Content-Type: application/json",
	); got.Status != 400 {
		t.Errorf("JSON: %d", got.Status)
	}
	if got := chrome.Post(
		"/oidc/token", form(url.Values{"client_assertion": {" "}, "client_secret": {" "}}),
		sitetest.Basic("app", appSecret),
	); got.Status != 400 {
		t.Errorf("control: several ways: %d %s", got.Status, got.Body)
	}
	values := form(nil)
	values.Set("client_secret", "")
	if got := chrome.Post("/oidc/token", values, sitetest.Basic("app", appSecret)); got.Status != 200 {
		t.Errorf("Basic beside an empty secret: %d %s", got.Status, got.Body)
	}
	values = form(nil)
	values.Set("client_id", "app")
	values.Set("client_secret", appSecret)
	if got := chrome.Post("/oidc/token", values); got.Status != 200 {
		t.Errorf("client_secret_post: %d %s", got.Status, got.Body)
	}
	// A verifier is refused if the code's request had no PKCE, because the code may have been
	// injected (RFC 9700 §4.8).
	code := chrome.code("app", url.Values{"code_challenge": {""}, "code_challenge_method": {""}})
	chrome.redeem("app", code).MustFail(t, 400, "invalid_grant")
}

// 100 concurrent uses of one code: one gets tokens, and the replays revoke them.
func TestThreatCodeReplay(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	first := chrome.redeem("spa", chrome.code("spa", nil))
	if got := chrome.Do(
		http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+first.JSON(t)["access_token"].(string),
	); got.Status != 200 {
		t.Fatalf("control: %d %s", got.Status, got.Body)
	}
	code := chrome.code("spa", nil)
	var all sync.WaitGroup
	var successes atomic.Int64
	var given atomic.Value
	for range 100 {
		all.Go(func() {
			if got := s.browser().redeem("spa", code); got.Status == 200 {
				successes.Add(1)
				given.Store(got)
			} else if got.Status != 400 {
				t.Errorf("%d %s", got.Status, got.Body)
			}
		})
	}
	all.Wait()
	if successes.Load() != 1 {
		t.Fatalf("%d of 100 uses of a code succeeded", successes.Load())
	}
	tokens := given.Load().(sitetest.Reply).JSON(t)
	if got := chrome.Do(
		http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+tokens["access_token"].(string),
	); got.Status != 401 {
		t.Errorf("the access token outlives the replay of its code: %d", got.Status)
	}
	chrome.refresh("spa", tokens["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")
}

// 100 concurrent uses of one refresh token share one line of tokens. A client whose response was
// lost can continue. The grant ends if a token is used whose successor was used, or one that was
// replaced before it was used.
func TestThreatRefreshTokenReplay(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	tokens := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	refresh := tokens["refresh_token"].(string)
	chrome.refresh("tv", refresh).MustFail(t, 400, "invalid_grant")
	next := chrome.refresh("spa", refresh)
	if next.Status != 200 {
		t.Fatalf("control: %d %s", next.Status, next.Body)
	}
	if claims := sitetest.ClaimsOf(t, next.JSON(t)["id_token"].(string)); claims["nonce"] != nil ||
		claims["auth_time"] != sitetest.ClaimsOf(t, tokens["id_token"].(string))["auth_time"] {
		t.Errorf("ID token of a refresh: %v", claims)
	}
	refresh = next.JSON(t)["refresh_token"].(string)
	var all sync.WaitGroup
	var mu sync.Mutex
	successors := make(map[string]int)
	for range 100 {
		all.Go(func() {
			got := s.browser().refresh("spa", refresh)
			if got.Status != 200 {
				t.Errorf("%d %s", got.Status, got.Body)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			successors[got.JSON(t)["refresh_token"].(string)]++
		})
	}
	all.Wait()
	if len(successors) != 1 {
		t.Fatalf("100 uses of a refresh token gave %d successors", len(successors))
	}
	lost := slices.Collect(maps.Keys(successors))[0]
	s.longAgo(refresh)
	again := chrome.refresh("spa", refresh).JSON(t)
	found := again["refresh_token"].(string)
	if found == lost || !chrome.live(again["access_token"]) {
		t.Error("a client that comes back later does not get another successor")
	}
	last := chrome.refresh("spa", found).JSON(t)
	if !chrome.live(last["access_token"]) {
		t.Fatal("control: the successor gives no tokens")
	}
	chrome.refresh("spa", lost).MustFail(t, 400, "invalid_grant")
	chrome.refresh("spa", last["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")

	tokens = chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	refresh = tokens["refresh_token"].(string)
	next = chrome.refresh("spa", chrome.refresh("spa", refresh).JSON(t)["refresh_token"].(string))
	chrome.refresh("spa", refresh).MustFail(t, 400, "invalid_grant")
	if chrome.live(next.JSON(t)["access_token"]) {
		t.Error("the grant outlives the reuse of a refresh token")
	}
}

// longAgo moves the last use of a refresh token an hour into the past.
func (s *site) longAgo(refresh string) {
	s.T.Helper()
	id, _, _ := strings.Cut(refresh, "~")
	_, err := s.store().UpdateRecord(s.T.Context(), s.kind(kindGrant), id, time.Now(), func(r *store.Record) error {
		var g map[string]any
		if err := json.Unmarshal(r.Value, &g); err != nil {
			return err
		}
		g["rotated_at"] = g["rotated_at"].(float64) - float64(time.Hour.Milliseconds())
		var err error
		r.Value, err = json.Marshal(g)
		return err
	})
	if err != nil {
		s.T.Fatal(err)
	}
}

// prompt, max_age and login_hint of OpenID Connect Core §3.1.2.1.
func TestPrompts(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	none := func() url.Values {
		return chrome.Get(s.authorizeURL("spa", url.Values{"prompt": {"none"}})).To(t).Query()
	}
	if got := none().Get("error"); got != "login_required" {
		t.Errorf("prompt none without a session: %q", got)
	}
	chrome.SignUp("alice@example.com")
	if got := none(); got.Get("code") == "" {
		t.Errorf("prompt none in a session: %v", got)
	}
	if got := chrome.Get(s.authorizeURL("app", url.Values{"prompt": {"none"}})).To(t).Query().Get("error"); got !=
		"consent_required" {
		t.Errorf("prompt none without consent: %q", got)
	}
	for name, more := range map[string]url.Values{
		"prompt login":          {"prompt": {"login"}},
		"prompt select_account": {"prompt": {"select_account"}}, "max_age 0": {"max_age": {"0"}},
	} {
		to := chrome.Get(s.authorizeURL("spa", more)).To(t)
		if to.Path != "/auth/login" {
			t.Errorf("%s: %s", name, to)
			continue
		}
		if again := chrome.Get(to.Query().Get("return_to")).To(t); again.Path != "/auth/login" {
			t.Errorf("%s goes on without a log-in: %s", name, again)
		}
		if back := chrome.GoOn(to.String()); back.Query().Get("code") == "" {
			t.Errorf("%s: %s", name, back)
		}
	}
	to := s.browser().Get(s.authorizeURL("spa", url.Values{"login_hint": {"alice@example.com"}})).To(t)
	page := chrome.Get(to.String())
	if !strings.Contains(page.Body, `value="alice@example.com"`) ||
		strings.Contains(page.Header.Get("Content-Security-Policy"), "form-action") {
		t.Errorf("log-in page: %v %s", page.Header, page.Body)
	}
	asked := chrome.Get(s.authorizeURL("spa", url.Values{"prompt": {"consent"}})).To(t)
	if asked.Path != "/oidc/consent" {
		t.Errorf("prompt consent: %s", asked)
	}
	claims := chrome.redeem("spa", chrome.code("spa", url.Values{
		"acr_values": {acrPassword}, "claims": {`{"id_token":{"email":{"essential":true}},"userinfo":{"name":null}}`},
	})).JSON(t)
	if got := sitetest.ClaimsOf(t, claims["id_token"].(string)); got["acr"] != acrPassword ||
		got["email"] != "alice@example.com" || got["auth_time"] == nil {
		t.Errorf("ID token %v", got)
	}
	if got := chrome.Do(
		http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+claims["access_token"].(string),
	).JSON(t); got["name"] != "Alice A." {
		t.Errorf("userinfo %v", got)
	}
}

// The consent page: its content, yes, no, and the session of another user.
func TestConsent(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	request := s.authorizeURL("app", url.Values{"scope": {"openid profile read:todos"}})
	ask := func() (string, sitetest.Reply) {
		to := chrome.Get(request).To(t)
		page := chrome.Get(to.String())
		return to.Query().Get("interaction"), page
	}
	id, page := ask()
	for _, text := range []string{
		"The App", "alice@example.com", "See your name and profile", "Use “read:todos” for you",
	} {
		if !strings.Contains(page.Body, text) {
			t.Errorf("the page does not say %q:\n%s", text, page.Body)
		}
	}
	if policy := page.Header.Get("Content-Security-Policy"); strings.Contains(policy, "form-action") ||
		!strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("policy %s", policy)
	}
	if got := chrome.Decide("/oidc/consent", page, "allow", "Origin: https://evil.example"); got.Status != 403 {
		t.Errorf("from another site: %d", got.Status)
	}
	if got := s.browser().Decide("/oidc/consent", page, "allow").To(t); got.Path != "/auth/login" {
		t.Errorf("by another browser: %s", got)
	}
	back := chrome.Decide("/oidc/consent", page, "deny").To(t)
	if back.Query().Get("error") != "access_denied" || back.Query().Get("state") != "a state" ||
		back.Host != "app.example" {
		t.Errorf("cancelled: %s", back)
	}
	if got := chrome.Get("/oidc/consent?interaction=" + id); got.Status != 400 {
		t.Errorf("after it was cancelled: %d", got.Status)
	}
	id, page = ask()
	// A page that was shown to another user is shown again.
	frank := s.browser()
	frank.SignUp("frank@example.com")
	if got := frank.Decide("/oidc/consent", page, "allow"); got.Status != 200 ||
		!strings.Contains(got.Body, "frank@example.com") {
		t.Errorf("by another user: %d %s", got.Status, got.Body)
	}
	if to := chrome.Decide("/oidc/consent", page, "allow").To(t); chrome.GoOn(to.String()).Query().Get("code") == "" {
		t.Errorf("allowed: %s", to)
	}
	if got := frank.Get("/oidc/authorize?interaction=" + id).To(t); got.Path != "/oidc/consent" {
		t.Errorf("by another user: %s", got)
	}
	if got := frank.Decide(
		"/oidc/consent", frank.Get("/oidc/consent?interaction="+id), "allow",
	).To(t); frank.Get(got.String()).Status != 400 {
		t.Errorf("finished by another user once more: %s", got)
	}
	if got := chrome.Get(request).To(t); got.Query().Get("code") == "" {
		t.Errorf("asked again: %s", got)
	}
	request = s.authorizeURL("app", url.Values{
		"scope": {"openid profile"}, "claims": {`{"userinfo":{"email":null,"phone_number":null}}`},
	})
	if to := chrome.Get(request).To(t); to.Path != "/oidc/consent" ||
		!strings.Contains(chrome.Get(to.String()).Body, "See your e-mail address") {
		t.Errorf("not asked for a claim by its name: %s", to)
	}
	request = s.authorizeURL("app", url.Values{"scope": {"openid profile email read:todos"}})
	if got := chrome.Get(request).To(t); got.Path != "/oidc/consent" {
		t.Errorf("not asked for more: %s", got)
	}
}

func TestClientCredentials(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	got := chrome.exchange("app", url.Values{"grant_type": {"client_credentials"}, "scope": {"read:todos"}}).JSON(t)
	claims := sitetest.ClaimsOf(t, got["access_token"].(string))
	if claims["sub"] != "app@clients" || claims["client_id"] != "app" || claims["scope"] != "read:todos" ||
		claims["aud"] != s.URL || got["refresh_token"] != nil || got["id_token"] != nil {
		t.Errorf("%v %v", got, claims)
	}
	chrome.exchange("app", url.Values{"grant_type": {"client_credentials"}, "scope": {"openid"}}).
		MustFail(t, 400, "invalid_scope")
	chrome.exchange("web", url.Values{"grant_type": {"client_credentials"}}).MustFail(t, 400, "unauthorized_client")
	if got := chrome.Do(
		http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+got["access_token"].(string),
	); got.Status != 403 ||
		!strings.Contains(got.Header.Get("WWW-Authenticate"), "insufficient_scope") {
		t.Errorf("userinfo: %d %v", got.Status, got.Header)
	}
}

func TestPushedRequests(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	request, _ := url.Parse(s.authorizeURL("other", url.Values{"redirect_uri": {"https://other.example/callback"}}))
	push := func(values url.Values) sitetest.Reply {
		return chrome.Post("/oidc/par", values, sitetest.Basic("other", "another-secret-0123456789"))
	}
	got := push(request.Query())
	if got.Status != 201 || got.JSON(t)["expires_in"] != 60.0 {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	uri := got.JSON(t)["request_uri"].(string)
	if got := chrome.Get(
		"/oidc/authorize?" + url.Values{"client_id": {"app"}, "request_uri": {uri}}.Encode(),
	); got.Status != 400 {
		t.Errorf("by another client: %d", got.Status)
	}
	if to := chrome.Get(
		"/oidc/authorize?" + url.Values{"client_id": {"other"}, "request_uri": {uri}}.Encode(),
	).To(t); to.Query().Get("code") == "" || to.Query().Get("state") != "a state" {
		t.Errorf("pushed: %s", to)
	}
	if got := chrome.Get(
		"/oidc/authorize?" + url.Values{"client_id": {"other"}, "request_uri": {uri}}.Encode(),
	); got.Status != 400 {
		t.Errorf("used twice: %d", got.Status)
	}
	bad := request.Query()
	bad.Set("redirect_uri", "https://evil.example/")
	push(bad).MustFail(t, 400, "invalid_request")
	chrome.Post("/oidc/par", request.Query(), sitetest.Basic("other", "wrong")).MustFail(t, 401, "invalid_client")
	// A server pushes requests for all its users; anybody can push requests of a public client.
	for range strangersRequests + 1 {
		if got := push(request.Query()); got.Status != 201 {
			t.Fatalf("many: %d %s", got.Status, got.Body)
		}
	}
	public, _ := url.Parse(s.authorizeURL("spa", nil))
	mustBeBounded(t, strangersRequests, 0, func() int { return chrome.Post("/oidc/par", public.Query()).Status })
}

// mustBeBounded sends requests until one is refused. This must not happen before the client's limit
// per minute, which includes earlier requests, but soon after it: some requests are allowed again
// over time.
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

// A request posted by a page of the client does not have the session's cookie.
func TestAuthorizeByPost(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	request, _ := url.Parse(s.authorizeURL("spa", url.Values{"prompt": {"none"}}))
	to := s.browser().Post(
		"/oidc/authorize", request.Query(), "Sec-Fetch-Site: cross-site", "Origin: https://app.example",
	).To(t)
	if back := chrome.Get(to.String()).To(t); back.Query().Get("code") == "" {
		t.Errorf("logged in: %s", back)
	}
	to = s.browser().Post("/oidc/authorize", request.Query()).To(t)
	if back := s.browser().Get(to.String()).To(t); back.Query().Get("error") != "login_required" {
		t.Errorf("not logged in: %s", back)
	}
}

// Without a code there is no refresh token, so offline_access is not granted (OpenID Connect Core
// §11).
func TestImplicitHasNoOfflineAccess(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	for responseType, wanted := range map[string]string{
		"id_token token": "openid", "code id_token token": "openid offline_access",
	} {
		to := chrome.GoOn(s.authorizeURL("web", url.Values{
			"response_type": {responseType}, "scope": {"openid offline_access"},
		}))
		answer, err := url.ParseQuery(to.Fragment)
		if err != nil || answer.Get("scope") != wanted {
			t.Errorf("%s: scope %q, %v", responseType, answer.Get("scope"), err)
		}
	}
}

func TestDeviceFlow(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	begin := func() map[string]any {
		got := chrome.Post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid email"}})
		if got.Status != 200 {
			t.Fatalf("%d %s", got.Status, got.Body)
		}
		return got.JSON(t)
	}
	poll := func(codes map[string]any) sitetest.Reply {
		return chrome.exchange("tv", url.Values{
			"grant_type": {grantDevice}, "device_code": {codes["device_code"].(string)},
		})
	}
	codes := begin()
	poll(codes).MustFail(t, 400, "authorization_pending")
	poll(codes).MustFail(t, 400, "slow_down")
	page := chrome.Get(codes["verification_uri_complete"].(string))
	if page.Status != 200 || !strings.Contains(page.Body, codes["user_code"].(string)) ||
		!strings.Contains(page.Body, "See your e-mail address") {
		t.Errorf("page: %d %s", page.Status, page.Body)
	}
	if got := chrome.Get("/oidc/device?user_code=BBBB-BBBB"); got.Status != 404 ||
		!strings.Contains(got.Body, "The code is wrong") {
		t.Errorf("wrong code: %d %s", got.Status, got.Body)
	}
	if to := s.browser().Get(codes["verification_uri_complete"].(string)).To(t); to.Path != "/auth/login" {
		t.Errorf("without a session: %s", to)
	}
	typed := strings.ToLower(strings.ReplaceAll(codes["user_code"].(string), "-", " "))
	if got := chrome.Decide("/oidc/device", page, "allow", "Sec-Fetch-Site: cross-site"); got.Status != 403 {
		t.Errorf("from another site: %d", got.Status)
	}
	page = chrome.Get("/oidc/device?" + url.Values{"user_code": {typed}}.Encode())
	if got := chrome.Decide("/oidc/device", page, "allow"); got.Status != 200 ||
		!strings.Contains(got.Body, "is connected") {
		t.Errorf("allowed: %d %s", got.Status, got.Body)
	}
	given := poll(codes)
	if given.Status != 200 || sitetest.ClaimsOf(t, given.JSON(t)["id_token"].(string))["aud"] != "tv" {
		t.Errorf("tokens: %d %s", given.Status, given.Body)
	}
	poll(codes).MustFail(t, 400, "expired_token")
	chrome.exchange("tv", url.Values{"grant_type": {grantDevice}}).MustFail(t, 400, "invalid_request")
	codes = begin()
	if got := chrome.Decide(
		"/oidc/device", chrome.Get(codes["verification_uri_complete"].(string)), "deny",
	); got.Status != 200 {
		t.Errorf("denied: %d", got.Status)
	}
	poll(codes).MustFail(t, 400, "access_denied")
	chrome.Post("/oidc/device_authorization", url.Values{"client_id": {"spa"}, "scope": {"openid"}}).
		MustFail(t, 400, "unauthorized_client")
}

func TestIntrospectionAndRevocation(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	introspect := func(token string) map[string]any {
		got := chrome.Post("/oidc/introspect", url.Values{"token": {token}}, sitetest.Basic("api", appSecret))
		if got.Status != 200 {
			t.Fatalf("introspect: %d %s", got.Status, got.Body)
		}
		return got.JSON(t)
	}
	revoke := func(client, token string) {
		t.Helper()
		form := url.Values{"token": {token}}
		headers := []string{sitetest.Basic(client, appSecret)}
		if client == "spa" {
			headers = nil
			form.Set("client_id", "spa")
		}
		if got := chrome.Post("/oidc/revoke", form, headers...); got.Status != 200 {
			t.Fatalf("revoke: %d %s", got.Status, got.Body)
		}
	}
	tokens := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	access, refresh := tokens["access_token"].(string), tokens["refresh_token"].(string)
	if got := introspect(access); got["active"] != true || got["client_id"] != "spa" ||
		got["username"] != "alice@example.com" || got["scope"] != "openid email" || got["iss"] != s.URL {
		t.Errorf("access token: %v", got)
	}
	for name, token := range map[string]string{
		"another client's refresh token": refresh, "an ID token": tokens["id_token"].(string), "nothing": "x",
	} {
		if got := introspect(token); len(got) != 1 || got["active"] != false {
			t.Errorf("%s: %v", name, got)
		}
	}
	chrome.Post("/oidc/introspect", url.Values{"token": {access}, "client_id": {"spa"}}).
		MustFail(t, 401, "invalid_client")

	for name, token := range map[string]string{"access token": access, "refresh token": refresh} {
		chrome.Post("/oidc/revoke", url.Values{"token": {token}}, sitetest.Basic("app", appSecret)).
			MustFail(t, 400, "invalid_request")
		if introspect(access)["active"] != true {
			t.Errorf("a client took another's %s back", name)
		}
	}
	revoke("app", "x") // an unknown token is not an error (RFC 7009 §2.2)
	revoke("spa", access)
	if introspect(access)["active"] != false {
		t.Error("an access token is good after it was revoked")
	}
	again := chrome.refresh("spa", refresh).JSON(t)
	revoke("spa", again["refresh_token"].(string))
	if introspect(again["access_token"].(string))["active"] != false {
		t.Error("an access token is good after its refresh token was revoked")
	}
	chrome.refresh("spa", again["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")
}

// Log-out by the client and at the accounts, and its notification of the clients.
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
	chrome.SignUp("alice@example.com")
	logIn := func() map[string]any {
		return chrome.redeem("app", chrome.code("app", url.Values{"scope": {"openid offline_access"}})).JSON(t)
	}
	checkTold := func(sid any) {
		t.Helper()
		select {
		case token := <-told:
			claims := sitetest.ClaimsOf(t, token)
			events, _ := claims["events"].(map[string]any)
			if claims["iss"] != s.URL || claims["aud"] != "app" || claims["sid"] != sid ||
				events[protocol.LogoutEvent] == nil || claims["nonce"] != nil || claims["jti"] == nil {
				t.Errorf("log-out token %v", claims)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the client is not told")
		}
	}
	tokens := logIn()
	id := tokens["id_token"].(string)
	sid := sitetest.ClaimsOf(t, id)["sid"]
	failures.Store(1) // the notification is repeated
	to := chrome.Get("/oidc/logout?" + url.Values{
		"id_token_hint": {id}, "post_logout_redirect_uri": {"https://app.example/"}, "state": {"bye"},
	}.Encode()).To(t)
	if to.String() != "https://app.example/?state=bye" {
		t.Errorf("after the log-out: %s", to)
	}
	checkTold(sid)
	if to := chrome.Get(s.authorizeURL("app", nil)).To(t); to.Path != "/auth/login" {
		t.Errorf("still logged in: %s", to)
	}
	if got := chrome.refresh("app", tokens["refresh_token"].(string)); got.Status != 200 {
		t.Errorf("offline access ends with the session: %d %s", got.Status, got.Body)
	}

	chrome.GoOn(s.authorizeURL("app", nil)) // log in again
	tokens = logIn()
	page := chrome.Get("/oidc/logout?client_id=app&post_logout_redirect_uri=https%3A%2F%2Fapp.example%2F")
	if page.Status != 200 || !strings.Contains(page.Body, "Log out?") {
		t.Errorf("without a hint the user is not asked: %d %s", page.Status, page.Body)
	}
	if got := chrome.Post(
		"/oidc/logout", url.Values{"client_id": {"app"}, "decision": {"logout"}}, "Origin: https://evil.example",
	); !strings.Contains(got.Body, "Log out?") {
		t.Errorf("another site logs the user out: %d %s", got.Status, got.Body)
	}
	if got := chrome.Post("/auth/logout", url.Values{}); got.Status != 303 {
		t.Errorf("log-out at the accounts: %d", got.Status)
	}
	checkTold(sitetest.ClaimsOf(t, tokens["id_token"].(string))["sid"])
	for name, query := range map[string]url.Values{
		"redirect of nobody":        {"post_logout_redirect_uri": {"https://app.example/"}},
		"another redirect":          {"client_id": {"app"}, "post_logout_redirect_uri": {"https://evil.example/"}},
		"hint of another client":    {"client_id": {"other"}, "id_token_hint": {id}},
		"hint that is no ID token":  {"id_token_hint": {tokens["access_token"].(string)}},
		"hint and another redirect": {"id_token_hint": {id}, "post_logout_redirect_uri": {"https://app.example/x"}},
	} {
		if got := chrome.Get("/oidc/logout?" + query.Encode()); got.Status != 400 || got.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v", name, got.Status, got.Header)
		}
	}
}

// When a session ends, its grants end, except those for offline use. If a user is disabled, these
// end too.
func TestGrantsEnd(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	online := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	offline := chrome.redeem("spa", chrome.code("spa", url.Values{"scope": {"openid offline_access"}})).JSON(t)
	chrome.Post("/auth/logout", url.Values{})
	chrome.refresh("spa", online["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")
	if got := chrome.Do(
		http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+online["access_token"].(string),
	); got.Status != 401 ||
		!strings.Contains(got.Header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("userinfo after the log-out: %d %v", got.Status, got.Header)
	}
	kept := chrome.refresh("spa", offline["refresh_token"].(string))
	if kept.Status != 200 {
		t.Errorf("offline: %d %s", kept.Status, kept.Body)
	}
	users := s.store()
	user, err := users.UserByEmail(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := users.UpdateUser(
		t.Context(), user.ID, time.Now(), func(u *store.User) error { u.Disabled = true; return nil },
	); err != nil {
		t.Fatal(err)
	}
	chrome.refresh("spa", kept.JSON(t)["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")
}
