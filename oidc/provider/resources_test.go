package provider_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

const (
	ordersAPI = "https://api.example/orders"
	filmsAPI  = "https://api.example/films"
)

// clientsOfAPIs are two APIs, of which each has the scope "write", and clients of both.
const clientsOfAPIs = `
	api ` + ordersAPI + ` {
		name "The Orders"
		scopes {
			orders "See your orders"
			write "Change your orders"
		}
	}
	api ` + filmsAPI + ` {
		scopes films write
	}
	api urn:example:status {
		name "The Status"
	}
	client app {
		secret ` + appSecret + `
		redirect_uri ` + appCallback + `
		grant_types authorization_code refresh_token client_credentials
		scopes openid email offline_access orders films write other
	}
	client web {
		secret ` + appSecret + `
		redirect_uri ` + appCallback + `
		response_types code "code token"
		scopes openid email orders films write
		consent never
	}
	client tv {
		public
		grant_types urn:ietf:params:oauth:grant-type:device_code refresh_token
		scopes openid orders films write
	}
	client api {
		secret ` + appSecret + `
		grant_types client_credentials
		introspect
	}
`

// audienceOf returns the audience and the scopes of the access token in a response.
func audienceOf(t *testing.T, got sitetest.Reply) string {
	t.Helper()
	given := got.JSON(t)
	access, _ := given["access_token"].(string)
	if got.Status != http.StatusOK || access == "" {
		t.Fatalf("no token: %d %s", got.Status, got.Body)
	}
	claims := sitetest.ClaimsOf(t, access)
	if told, _ := given["scope"].(string); claims["scope"] != told {
		t.Errorf("the token has the scope %q, the response %q", claims["scope"], told)
	}
	return fmt.Sprint(claims["aud"], " ", claims["scope"])
}

// An access token has the requested APIs as audience, and only their scopes.
func TestResources(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	for _, test := range []struct {
		name                string
		authorize, exchange []string
		scope, want         string
	}{
		{"none", nil, nil, "openid orders other", s.URL + " openid orders other"},
		{"an API", []string{ordersAPI}, nil, "openid email orders films other", ordersAPI + " openid email orders"},
		{"an API, again at the token endpoint", []string{ordersAPI}, []string{ordersAPI}, "orders", ordersAPI + " orders"},
		{"twice the same", []string{ordersAPI, ordersAPI, ""}, nil, "orders", ordersAPI + " orders"},
		{
			"two APIs", []string{ordersAPI, filmsAPI}, nil, "orders films write other",
			"[" + ordersAPI + " " + filmsAPI + "] orders films write",
		},
		{"one of two APIs", []string{ordersAPI, filmsAPI}, []string{filmsAPI}, "orders films write", filmsAPI + " films write"},
		{"the issuer and an API", []string{s.URL, ordersAPI}, []string{s.URL}, "openid orders", s.URL + " openid orders"},
		{"no scope", []string{ordersAPI}, nil, "", ordersAPI + " orders write"},
		{"an API without scopes", []string{"urn:example:status"}, nil, "", "urn:example:status "},
	} {
		t.Run(test.name, func(t *testing.T) {
			more := url.Values{"scope": {test.scope}}
			if test.authorize != nil {
				more["resource"] = test.authorize
			}
			code := chrome.code("app", more)
			got := chrome.exchange("app", url.Values{
				"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {appCallback},
				"code_verifier": {verifier}, "resource": test.exchange,
			})
			if target := audienceOf(t, got); target != test.want {
				t.Errorf("got %s, expected %s", target, test.want)
			}
		})
	}
}

// A client that asks for its own token, and for no scope, gets those of the API that it may have.
func TestOwnScopes(t *testing.T) {
	s := serve(t, clientsOfAPIs+"client few {\n secret "+appSecret+"\n grant_types client_credentials\n scopes films\n}\n", "")
	chrome := s.browser()
	for _, c := range []struct {
		client, scope string
		resources     []string
		want          string
	}{
		{"app", "", []string{ordersAPI}, ordersAPI + " orders write"},
		{"app", " ", []string{ordersAPI}, ordersAPI + " orders write"},
		{"app", "orders", []string{ordersAPI}, ordersAPI + " orders"},
		{"app", "", []string{ordersAPI, filmsAPI}, fmt.Sprint([]string{ordersAPI, filmsAPI}, " films orders write")},
		{"app", "", []string{"urn:example:status"}, "urn:example:status "},
		{"few", "", []string{filmsAPI}, filmsAPI + " films"},
		{"few", "", []string{ordersAPI}, ordersAPI + " "},
		{"app", "", []string{s.URL, ordersAPI}, fmt.Sprint([]string{s.URL, ordersAPI}, " orders write")},
		{"app", "", nil, s.URL + " "},
		{"app", "", []string{s.URL}, s.URL + " "},
	} {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {c.scope}, "resource": c.resources}
		if c.client == "few" {
			form.Set("client_secret", appSecret)
		}
		got := audienceOf(t, chrome.exchange(c.client, form))
		if got != c.want {
			t.Errorf("%s asks for %q at %v: %q, expected %q", c.client, c.scope, c.resources, got, c.want)
		}
	}
}

// Every kind of request that leads to an access token takes a resource.
func TestResourcesOfEachGrant(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	both := url.Values{"resource": {ordersAPI, filmsAPI}, "scope": {"openid orders films"}}
	expect := func(name string, got sitetest.Reply, want string) {
		t.Helper()
		if target := audienceOf(t, got); target != want {
			t.Errorf("%s: got %s, expected %s", name, target, want)
		}
	}
	tokens := chrome.redeem("app", chrome.code("app", both))
	refresh, _ := tokens.JSON(t)["refresh_token"].(string)
	for _, test := range []struct {
		resource []string
		want     string
	}{
		{[]string{filmsAPI}, filmsAPI + " openid films"}, {[]string{ordersAPI}, ordersAPI + " openid orders"},
		{nil, "[" + ordersAPI + " " + filmsAPI + "] openid orders films"},
	} {
		got := chrome.exchange("app", url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "resource": test.resource,
		})
		expect("refresh", got, test.want)
		refresh, _ = got.JSON(t)["refresh_token"].(string)
	}
	expect("client credentials", chrome.exchange("app", url.Values{
		"grant_type": {"client_credentials"}, "scope": {"orders"}, "resource": {ordersAPI},
	}), ordersAPI+" orders")

	pushed := chrome.Post("/oidc/par", url.Values{
		"redirect_uri": {appCallback}, "response_type": {"code"}, "scope": {"orders films"}, "state": {"a state"},
		"code_challenge": {sitetest.Challenge(verifier)}, "code_challenge_method": {"S256"},
		"resource": {ordersAPI, filmsAPI},
	}, sitetest.Basic("app", appSecret)).JSON(t)
	uri, _ := pushed["request_uri"].(string)
	back := chrome.GoOn(s.URL + "/oidc/authorize?" + url.Values{"client_id": {"app"}, "request_uri": {uri}}.Encode())
	expect("pushed", chrome.redeem("app", back.Query().Get("code")), "["+ordersAPI+" "+filmsAPI+"] orders films")

	hybrid := chrome.Get(s.authorizeURL("web", url.Values{
		"response_type": {"code token"}, "resource": {ordersAPI}, "scope": {"openid orders films"},
	})).To(t)
	values, err := url.ParseQuery(hybrid.Fragment)
	if err != nil {
		t.Fatal(err)
	}
	if claims := sitetest.ClaimsOf(t, values.Get("access_token")); claims["aud"] != ordersAPI ||
		claims["scope"] != "openid orders" {
		t.Errorf("hybrid: %v", claims)
	}

	device := chrome.Post("/oidc/device_authorization", url.Values{
		"client_id": {"tv"}, "scope": {"orders films"}, "resource": {ordersAPI, filmsAPI},
	}).JSON(t)
	page := chrome.Get("/oidc/device?user_code=" + device["user_code"].(string))
	if !strings.Contains(page.Body, "<li>The Orders: See your orders</li>") {
		t.Errorf("the device page: %s", page.Body)
	}
	chrome.Decide("/oidc/device", page, "allow")
	expect("device", chrome.exchange("tv", url.Values{
		"grant_type": {grantDevice}, "device_code": {device["device_code"].(string)}, "resource": {filmsAPI},
	}), filmsAPI+" films")
}

// A resource that is not one of the config's APIs, or that was not granted, is refused with
// invalid_target (RFC 8707 §2) wherever it arrives. Beside each, the right one is accepted.
func TestThreatResourceOfNobody(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	wrong := []string{
		"not-a-uri", "/orders", "//api.example/orders", ordersAPI + "/", ordersAPI + "#x", ordersAPI + "#",
		ordersAPI + "?x", "HTTPS://api.example/orders", "https://api.example/Orders", "https://api.example:443/orders",
		"https://api.example/%6frders", "https://api.example", "https://evil.example/", "javascript:alert(1)", "https:", " ",
	}
	device := func(resource string) sitetest.Reply {
		return chrome.Post("/oidc/device_authorization", url.Values{
			"client_id": {"tv"}, "scope": {"orders"}, "resource": {resource},
		})
	}
	push := func(resource string) sitetest.Reply {
		return chrome.Post("/oidc/par", url.Values{
			"redirect_uri": {appCallback}, "response_type": {"code"}, "scope": {"orders"}, "resource": {resource},
		}, sitetest.Basic("app", appSecret))
	}
	credentials := func(resource string) sitetest.Reply {
		return chrome.exchange("app", url.Values{
			"grant_type": {"client_credentials"}, "scope": {"orders"}, "resource": {resource},
		})
	}
	authorize := func(resource string) url.Values {
		return chrome.GoOn(s.authorizeURL("app", url.Values{"resource": {resource}, "scope": {"orders"}})).Query()
	}
	code := chrome.code("app", url.Values{"resource": {ordersAPI}, "scope": {"openid orders"}})
	exchange := func(resource string) sitetest.Reply {
		return chrome.exchange("app", url.Values{
			"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {appCallback},
			"code_verifier": {verifier}, "resource": {resource},
		})
	}
	for _, resource := range wrong {
		device(resource).MustFail(t, 400, "invalid_target")
		push(resource).MustFail(t, 400, "invalid_target")
		credentials(resource).MustFail(t, 400, "invalid_target")
		exchange(resource).MustFail(t, 400, "invalid_target")
		if got := authorize(resource); got.Get("error") != "invalid_target" || got.Get("state") != "a state" {
			t.Errorf("%s: %v", resource, got)
		}
	}
	if got := push("not-a-uri"); !strings.Contains(got.Body, "must be an absolute URI") {
		t.Error(got.Body)
	}
	for name, got := range map[string]sitetest.Reply{
		"device": device(ordersAPI), "push": push(ordersAPI), "credentials": credentials(ordersAPI), "code": exchange(ordersAPI),
	} {
		if got.Status >= 300 {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if got := authorize(ordersAPI); got.Get("code") == "" {
		t.Errorf("the right one: %v", got)
	}
}

// A code or refresh token for one API never gives a token for another, for the issuer or for more
// APIs, and no scopes of another.
func TestThreatResourceIsWidened(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	more := url.Values{"resource": {ordersAPI}, "scope": {"openid orders write"}}
	code := chrome.code("app", more)
	exchange := func(resources ...string) sitetest.Reply {
		return chrome.exchange("app", url.Values{
			"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {appCallback},
			"code_verifier": {verifier}, "resource": resources,
		})
	}
	widened := [][]string{{filmsAPI}, {ordersAPI, filmsAPI}, {s.URL}, {ordersAPI, s.URL}}
	for _, resources := range widened {
		exchange(resources...).MustFail(t, 400, "invalid_target")
	}
	tokens := exchange(ordersAPI)
	if got := audienceOf(t, tokens); got != ordersAPI+" openid orders write" {
		t.Fatal(got)
	}
	token, _ := tokens.JSON(t)["refresh_token"].(string)
	refresh := func(resources ...string) sitetest.Reply {
		return chrome.exchange("app", url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {token}, "resource": resources,
		})
	}
	for _, resources := range widened {
		refresh(resources...).MustFail(t, 400, "invalid_target")
	}
	got := refresh(ordersAPI)
	if target := audienceOf(t, got); target != ordersAPI+" openid orders write" {
		t.Error(target)
	}
	// A grant without a resource is for the issuer, also one that an older version stored.
	code = chrome.code("app", url.Values{"scope": {"openid orders"}})
	exchange(ordersAPI).MustFail(t, 400, "invalid_target")
	if target := audienceOf(t, exchange()); target != s.URL+" openid orders" {
		t.Error(target)
	}
	// scopes of the other API
	chrome.exchange("app", url.Values{
		"grant_type": {"client_credentials"}, "scope": {"orders films"}, "resource": {ordersAPI},
	}).MustFail(t, 400, "invalid_scope")
}

// A token for an API is not accepted at userinfo, where the API could use it; introspection and
// revocation know it.
func TestThreatTokenOfAnAPIAtUserinfo(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	token := func(resources ...string) string {
		given := chrome.redeem("app", chrome.code("app", url.Values{
			"resource": resources, "scope": {"openid email orders"},
		})).JSON(t)
		return given["access_token"].(string)
	}
	userinfo := func(token string) sitetest.Reply {
		return chrome.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+token)
	}
	ofAPI := token(ordersAPI)
	if got := userinfo(ofAPI); got.Status != 401 || !strings.Contains(got.Header.Get("WWW-Authenticate"), "is for an API") {
		t.Errorf("%d %s %s", got.Status, got.Header.Get("WWW-Authenticate"), got.Body)
	}
	for _, resources := range [][]string{{""}, {s.URL}, {s.URL, ordersAPI}} {
		if got := userinfo(token(resources...)); got.Status != 200 {
			t.Errorf("%q: %d %s", resources, got.Status, got.Body)
		}
	}
	introspect := func() map[string]any {
		return chrome.Post("/oidc/introspect", url.Values{"token": {ofAPI}}, sitetest.Basic("api", appSecret)).JSON(t)
	}
	if got := introspect(); got["active"] != true || got["aud"] != ordersAPI {
		t.Errorf("introspection: %v", got)
	}
	chrome.Post("/oidc/revoke", url.Values{"token": {ofAPI}}, sitetest.Basic("app", appSecret))
	if got := introspect(); got["active"] != false {
		t.Errorf("after revocation: %v", got)
	}
}

// Of two APIs behind one provider, each accepts the tokens for itself only, also if a token has a
// scope of the same name.
func TestThreatTokenOfAnotherResource(t *testing.T) {
	apis := "http://" + sitetest.FreeLocalhost(t)
	orders, films := apis+"/orders", apis+"/films"
	at := strings.NewReplacer(ordersAPI, orders, filmsAPI, films)
	gate := func(s *site, path string) string {
		return "jwt /" + path + " {\n issuer " + s.URL + "\n resource " + apis + "/" + path + "\n require scope write\n}\n"
	}
	s := serve(t, at.Replace(clientsOfAPIs), "")
	s.load(at.Replace(clientsOfAPIs), "}\n"+apis+" {\n"+gate(s, "orders")+gate(s, "films")+"respond ok", s.dir)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	token := func(resources ...string) string {
		given := chrome.redeem("app", chrome.code("app", url.Values{"resource": resources, "scope": {"write"}})).JSON(t)
		return given["access_token"].(string)
	}
	status := func(url, token string) int {
		return chrome.Do(http.MethodGet, url, nil, "Authorization: Bearer "+token).Status
	}
	ofOrders, ofFilms, ofBoth, ofIssuer := token(orders), token(films), token(orders, films), token("")
	sitetest.Eventually(t, "the APIs have the keys", func() bool {
		return status(orders, ofOrders) == 200 && status(films, ofFilms) == 200
	})
	for name, test := range map[string]struct {
		url, token string
		status     int
	}{
		"orders at films": {films, ofOrders, 401}, "films at orders": {orders, ofFilms, 401},
		"both at orders": {orders, ofBoth, 200}, "both at films": {films, ofBoth, 200},
		"the issuer's at orders": {orders, ofIssuer, 401}, "orders at orders": {orders, ofOrders, 200},
	} {
		if got := status(test.url, test.token); got != test.status {
			t.Errorf("%s: %d, expected %d", name, got, test.status)
		}
	}
}

// Consent to a scope at one API is not consent to the scope of the same name at another.
func TestThreatConsentOfAnotherAPI(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	silent := func(resources ...string) string {
		got := chrome.Get(s.authorizeURL("app", url.Values{
			"resource": resources, "scope": {"openid write"}, "prompt": {"none"},
		})).To(t).Query()
		return got.Get("error")
	}
	page := chrome.Get(chrome.Get(s.authorizeURL("app", url.Values{
		"resource": {ordersAPI}, "scope": {"openid write"},
	})).To(t).String())
	for _, text := range []string{"<li>Know who you are</li>", "<li>The Orders: Change your orders</li>"} {
		if !strings.Contains(page.Body, text) {
			t.Errorf("%s is missing on the page: %s", text, page.Body)
		}
	}
	chrome.Decide("/oidc/consent", page, "allow").To(t)
	for _, other := range [][]string{{filmsAPI}, {ordersAPI, filmsAPI}, {ordersAPI, "urn:example:status"}} {
		if got := silent(other...); got != "consent_required" {
			t.Errorf("%q: %q", other, got)
		}
	}
	if got := silent(ordersAPI); got != "" {
		t.Errorf("the same again: %q", got)
	}
	if got := chrome.Get("/oidc/applications"); !strings.Contains(got.Body, "The Orders: Change your orders") {
		t.Errorf("the applications: %s", got.Body)
	}
	page = chrome.Get(chrome.Get(s.authorizeURL("app", url.Values{
		"resource": {filmsAPI, "urn:example:status"}, "scope": {"films"},
	})).To(t).String())
	for _, text := range []string{"<li>" + filmsAPI + ": Use “films” for you</li>", "<li>Use The Status for you</li>"} {
		if !strings.Contains(page.Body, text) {
			t.Errorf("%s is missing on the page: %s", text, page.Body)
		}
	}
}

// Grants, codes and devices that an older version stored have no resources and no such consent.
func TestResourcesOfAnOlderVersion(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	tokens := chrome.redeem("app", chrome.code("app", url.Values{"scope": {"openid orders offline_access"}})).JSON(t)
	grants, err := s.store().Records(t.Context(), s.kind(kindGrant), "", time.Now())
	if err != nil || len(grants) != 1 || strings.Contains(string(grants[0].Value), "resources") {
		t.Fatalf("%v %s", err, grants)
	}
	if got := audienceOf(t, chrome.refresh("app", tokens["refresh_token"].(string))); got !=
		s.URL+" openid orders offline_access" {
		t.Error(got)
	}
}

// If an API is removed from the config, nothing gives tokens for it any longer, and none for the
// issuer instead.
func TestThreatResourceIsRemoved(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	more := url.Values{"resource": {ordersAPI}, "scope": {"openid orders"}}
	token, _ := chrome.redeem("app", chrome.code("app", more)).JSON(t)["refresh_token"].(string)
	s.load(strings.ReplaceAll(clientsOfAPIs, ordersAPI, "https://api.example/other"), "", s.dir)
	chrome.refresh("app", token).MustFail(t, 400, "invalid_target")
	s.load(clientsOfAPIs, "", s.dir)
	if got := audienceOf(t, chrome.refresh("app", token)); got != ordersAPI+" openid orders" {
		t.Error(got)
	}
}

// The metadata has the APIs and their scopes, and any header may be sent for it.
func TestResourcesInMetadata(t *testing.T) {
	s := serve(t, clientsOfAPIs, "")
	document := s.Get("/.well-known/oauth-authorization-server").JSON(t)
	scopes, _ := document["scopes_supported"].([]any)
	for _, scope := range []string{"openid", "orders", "films", "write"} {
		if !slices.Contains(scopes, any(scope)) {
			t.Errorf("%s is missing in %v", scope, scopes)
		}
	}
	if apis, _ := document["protected_resources"].([]any); len(apis) != 3 {
		t.Errorf("APIs: %v", document)
	}
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		preflight := s.Do(
			"OPTIONS", path, "Origin: https://inspector.example", "Access-Control-Request-Method: GET",
			"Access-Control-Request-Headers: mcp-protocol-version",
		)
		if preflight.Status != 204 || preflight.Header.Get("Access-Control-Allow-Headers") != "Authorization, *" ||
			preflight.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %v", path, preflight.Status, preflight.Header)
		}
	}
}
