package provider_test

import (
	"database/sql"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// conformance is a logged-in browser and the flow with which a module of the OpenID
// Foundation's conformance suite runs.
type conformance struct {
	*browser
	t            *testing.T
	responseType string
	mode         string // empty for the default of the response type
}

func (c *conformance) has(part string) bool {
	return slices.Contains(strings.Fields(c.responseType), part)
}

// url returns an authorization request of this flow.
func (c *conformance) url(more url.Values) string {
	values := url.Values{"response_type": {c.responseType}, "scope": {"openid"}}
	if c.mode != "" {
		values.Set("response_mode", c.mode)
	}
	maps.Copy(values, more)
	return c.authorizeURL("web", values)
}

// read returns the parameters for the client in a response of the authorization endpoint.
func (c *conformance) read(got sitetest.Reply) url.Values {
	c.t.Helper()
	if got.Status == http.StatusOK {
		if c.mode != "form_post" || !strings.Contains(got.Body, `<form method="post" action="`+appCallback+`">`) {
			c.t.Fatalf("a page instead of an answer: %s", got.Body)
		}
		return got.HiddenFields()
	}
	to := got.To(c.t)
	if c.responseType == "code" || to.Fragment == "" {
		return to.Query()
	}
	values, err := url.ParseQuery(to.Fragment)
	if err != nil {
		c.t.Fatal(err)
	}
	return values
}

func (c *conformance) ask(more url.Values) url.Values {
	c.t.Helper()
	return c.read(c.Get(c.url(more)))
}

// good checks, as a client does, that a response is a success.
func (c *conformance) good(values url.Values) url.Values {
	c.t.Helper()
	if values.Get("error") != "" || values.Get("state") != "a state" || values.Get("iss") != c.browser.URL {
		c.t.Fatalf("the answer has %v", values)
	}
	for part, name := range map[string]string{"code": "code", "token": "access_token", "id_token": "id_token"} {
		if c.has(part) != (values.Get(name) != "") {
			c.t.Fatalf("%s: %q", name, values.Get(name))
		}
	}
	if c.has("id_token") {
		c.checkIDToken(values.Get("id_token"), values.Get("access_token"), values.Get("code"))
	}
	return values
}

func (c *conformance) checkIDToken(token, accessToken, code string) map[string]any {
	c.t.Helper()
	claims := sitetest.ClaimsOf(c.t, token)
	now := float64(time.Now().Unix())
	exp, _ := claims["exp"].(float64)
	iat, _ := claims["iat"].(float64)
	if claims["iss"] != c.browser.URL || claims["aud"] != "web" || claims["sub"] == "" || exp <= now || iat > now+1 ||
		iat < now-60 {
		c.t.Fatalf("ID token %v", claims)
	}
	for name, of := range map[string]string{"at_hash": accessToken, "c_hash": code} {
		if of != "" && claims[name] != sitetest.HalfHash(of) {
			c.t.Fatalf("%s is %v", name, claims[name])
		}
	}
	return claims
}

// tokens ends the flow and returns the client's tokens.
func (c *conformance) tokens(values url.Values) map[string]any {
	c.t.Helper()
	c.good(values)
	if !c.has("code") {
		return map[string]any{"access_token": values.Get("access_token"), "id_token": values.Get("id_token")}
	}
	got := c.redeem("web", values.Get("code"))
	if got.Status != 200 {
		c.t.Fatalf("token endpoint: %d %s", got.Status, got.Body)
	}
	given := got.JSON(c.t)
	c.checkIDToken(given["id_token"].(string), given["access_token"].(string), "")
	return given
}

// user returns the claims of userinfo or, without an access token, of the ID token.
func (c *conformance) user(more url.Values) map[string]any {
	c.t.Helper()
	given := c.tokens(c.ask(more))
	access, _ := given["access_token"].(string)
	if access == "" {
		return sitetest.ClaimsOf(c.t, given["id_token"].(string))
	}
	got := c.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+access)
	if got.Status != 200 {
		c.t.Fatalf("userinfo: %d %s", got.Status, got.Body)
	}
	user := got.JSON(c.t)
	if id, _ := given["id_token"].(string); id != "" && sitetest.ClaimsOf(c.t, id)["sub"] != user["sub"] {
		c.t.Fatalf("userinfo is of another: %v", user)
	}
	return user
}

func (c *conformance) mustHave(object map[string]any, names ...string) {
	c.t.Helper()
	for _, name := range names {
		if object[name] == nil {
			c.t.Errorf("%s is missing in %v", name, object)
		}
	}
}

func (c *conformance) mustFail(values url.Values, code string) {
	c.t.Helper()
	if values.Get("error") != code || values.Get("state") != "a state" {
		c.t.Errorf("expected %s, the answer has %v", code, values)
	}
}

// age moves the log-in of the tokens a minute back.
func (c *conformance) age(given map[string]any) {
	c.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(c.at.dir, "users.db"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(
		`PRAGMA busy_timeout = 5000;
		UPDATE sessions SET created_at = created_at - 60000, authenticated_at = authenticated_at - 60000 WHERE id = $1`,
		sitetest.ClaimsOf(c.t, given["id_token"].(string))["sid"],
	); err != nil {
		c.t.Fatal(err)
	}
}

// fresh returns a browser in which nobody is logged in.
func (c *conformance) fresh() *conformance {
	other := *c
	other.browser = c.at.browser()
	return &other
}

// logIn completes the log-in page and returns the last response.
func (c *conformance) logIn(location string) sitetest.Reply {
	c.t.Helper()
	to := c.Get(location).To(c.t)
	if to.Path != "/auth/login" {
		c.t.Fatalf("no log-in page: %s", to)
	}
	back := c.Post("/auth/login", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "return_to": {to.Query().Get("return_to")},
	}).To(c.t)
	return c.Get(back.String())
}

func scopeModule(scope string, claims ...string) func(*conformance) {
	return func(c *conformance) { c.mustHave(c.user(url.Values{"scope": {scope}}), claims...) }
}

var (
	profileClaims = []string{"name", "given_name", "family_name", "birthdate", "zoneinfo", "updated_at"}
	addressClaims = []string{"address"}
	phoneClaims   = []string{"phone_number", "phone_number_verified"}
	emailClaims   = []string{"email", "email_verified"}
)

func accepted(name, value string) func(*conformance) {
	return func(c *conformance) { c.tokens(c.ask(url.Values{name: {value}})) }
}

type module struct {
	name, asserts string
	// needs are the parts of the response type that the module requires.
	needs string
	run   func(c *conformance)
}

// modules are the modules of the OP plans basic, implicit, hybrid and form_post.
var modules = []module{
	{"oidcc-server", "A log-in returns what the response type requires; the ID token passes a client's checks; " +
		"userinfo has the same subject.", "", func(c *conformance) {
		c.user(nil)
	}},
	{
		"oidcc-response-type-missing",
		"Without response_type, the response is invalid_request.", "code", func(c *conformance) {
			c.mustFail(c.read(c.Get(c.url(url.Values{"response_type": {""}}))), "invalid_request")
		},
	},
	{
		"oidcc-idtoken-signature",
		"The ID token is signed with RS256 and has the kid of a key in the JWK set.", "", func(c *conformance) {
			token := c.tokens(c.ask(nil))["id_token"].(string)
			if token == "" {
				return
			}
			header := sitetest.ClaimsOf(c.t, "x."+strings.Split(token, ".")[0]+".x")
			if header["alg"] != "RS256" ||
				!strings.Contains(c.Get("/oidc/jwks.json").Body, fmt.Sprintf(`"kid":"%s"`, header["kid"])) {
				c.t.Errorf("header %v", header)
			}
		},
	},
	{"oidcc-idtoken-unsigned", "The metadata does not offer unsigned ID tokens. The suite then skips the module; " +
		"this test checks the metadata.", "", func(c *conformance) {
		if got := fmt.Sprint(
			c.Get("/.well-known/openid-configuration").JSON(c.t)["id_token_signing_alg_values_supported"],
		); got != "[RS256]" {
			c.t.Errorf("algorithms %s", got)
		}
	}},
	{"oidcc-userinfo-get", "userinfo accepts GET with the token in the header.", "", func(c *conformance) {
		c.mustHave(c.user(nil), "sub")
	}},
	{
		"oidcc-userinfo-post-header", "userinfo accepts POST with the token in the header.",
		"token|code", func(c *conformance) {
			access := c.tokens(c.ask(nil))["access_token"].(string)
			if got := c.Do(http.MethodPost, "/oidc/userinfo", nil, "Authorization: Bearer "+access); got.Status != 200 {
				c.t.Errorf("%d %s", got.Status, got.Body)
			}
		},
	},
	{"oidcc-userinfo-post-body", "userinfo accepts POST with the token in " +
		"the form.", "token|code", func(c *conformance) {
		access := c.tokens(c.ask(nil))["access_token"].(string)
		if got := c.Post("/oidc/userinfo", url.Values{"access_token": {access}}); got.Status != 200 {
			c.t.Errorf("%d %s", got.Status, got.Body)
		}
	}},
	{
		"oidcc-ensure-request-without-nonce-succeeds-for-code-flow",
		"The code flow does not require a nonce.", "only code", func(c *conformance) {
			given := c.tokens(c.ask(url.Values{"nonce": {""}}))
			if sitetest.ClaimsOf(c.t, given["id_token"].(string))["nonce"] != nil {
				c.t.Error("the ID token has a nonce")
			}
		},
	},
	{
		"oidcc-ensure-request-without-nonce-fails",
		"If the authorization endpoint returns an ID token, a nonce is required.", "id_token", func(c *conformance) {
			c.mustFail(c.ask(url.Values{"nonce": {""}}), "invalid_request")
		},
	},
	{
		"oidcc-scope-profile", "The scope profile returns the profile claims.",
		"", scopeModule("openid profile", profileClaims...),
	},
	{
		"oidcc-scope-email", "The scope email returns email and email_verified.",
		"", scopeModule("openid email", emailClaims...),
	},
	{"oidcc-scope-address", "The scope address returns address.", "", scopeModule("openid address", addressClaims...)},
	{
		"oidcc-scope-phone", "The scope phone returns phone_number and phone_number_verified.",
		"", scopeModule("openid phone", phoneClaims...),
	},
	{"oidcc-scope-all", "All scopes together return all these claims.", "", scopeModule(
		"openid profile email address phone", slices.Concat(profileClaims, emailClaims, addressClaims, phoneClaims)...,
	)},
	{
		"oidcc-alternate-happy-flow",
		"The scopes may be in any order.", "", func(c *conformance) {
			c.mustHave(c.user(url.Values{"scope": {"email openid"}}), "email")
		},
	},
	{"oidcc-display-page", "display=page is accepted.", "", accepted("display", "page")},
	{"oidcc-display-popup", "display=popup is accepted.", "", accepted("display", "popup")},
	{"oidcc-prompt-login", "With prompt=login, a logged-in user must enter the password again; " +
		"auth_time is then the time of the second log-in.", "", func(c *conformance) {
		before := c.tokens(c.ask(url.Values{"max_age": {"10000"}}))
		c.age(before)
		after := c.tokens(c.read(c.logIn(c.url(url.Values{"prompt": {"login"}}))))
		first, second := sitetest.ClaimsOf(c.t, before["id_token"].(string)),
			sitetest.ClaimsOf(c.t, after["id_token"].(string))
		if first["sub"] != second["sub"] || second["auth_time"].(float64) < first["auth_time"].(float64) ||
			after["id_token"] == before["id_token"] || first["sid"] == second["sid"] {
			c.t.Errorf("before %v, after %v", first, second)
		}
	}},
	{
		"oidcc-prompt-none-not-logged-in",
		"If nobody is logged in, the response to prompt=none is login_required.", "", func(c *conformance) {
			c.mustFail(c.fresh().ask(url.Values{"prompt": {"none"}}), "login_required")
		},
	},
	{"oidcc-prompt-none-logged-in", "prompt=none succeeds if a user is logged in, " +
		"with the same subject and auth_time.", "", func(c *conformance) {
		first := c.tokens(c.ask(nil))
		second := c.tokens(c.ask(url.Values{"prompt": {"none"}}))
		a, b := sitetest.ClaimsOf(c.t, first["id_token"].(string)), sitetest.ClaimsOf(c.t, second["id_token"].(string))
		if a["sub"] != b["sub"] || a["auth_time"] != b["auth_time"] {
			c.t.Errorf("%v, %v", a, b)
		}
	}},
	{
		"oidcc-max-age-1",
		"With max_age=1, a user whose log-in is older must log in again; the ID token has auth_time.", "",
		func(c *conformance) {
			c.age(c.tokens(c.ask(nil)))
			given := c.tokens(c.read(c.logIn(c.url(url.Values{"max_age": {"1"}}))))
			c.mustHave(sitetest.ClaimsOf(c.t, given["id_token"].(string)), "auth_time")
		},
	},
	{"oidcc-max-age-10000", "With max_age=10000, the user need not log in again; the ID token has " +
		"auth_time.", "", func(c *conformance) {
		c.mustHave(
			sitetest.ClaimsOf(c.t, c.tokens(c.ask(url.Values{"max_age": {"10000"}}))["id_token"].(string)), "auth_time",
		)
	}},
	{
		"oidcc-ensure-request-with-unknown-parameter-succeeds",
		"An unknown parameter is ignored.", "", accepted("extra", "foobar"),
	},
	{"oidcc-id-token-hint", "id_token_hint with prompt=none succeeds for that user.", "", func(c *conformance) {
		hint := c.tokens(c.ask(nil))["id_token"].(string)
		second := c.tokens(c.ask(url.Values{"prompt": {"none"}, "id_token_hint": {hint}}))
		if sitetest.ClaimsOf(c.t, hint)["sub"] != sitetest.ClaimsOf(c.t, second["id_token"].(string))["sub"] {
			c.t.Error("another subject")
		}
	}},
	{"oidcc-login-hint", "login_hint is accepted, and the log-in page shows it.", "", func(c *conformance) {
		other := c.fresh()
		to := other.Get(c.url(url.Values{"login_hint": {"alice@example.com"}})).To(c.t)
		if page := other.Get(to.String()); !strings.Contains(page.Body, `value="alice@example.com"`) {
			c.t.Errorf("log-in page: %s", page.Body)
		}
	}},
	{"oidcc-ui-locales", "ui_locales is accepted.", "", accepted("ui_locales", "se")},
	{"oidcc-claims-locales", "claims_locales is accepted.", "", accepted("claims_locales", "se")},
	{
		"oidcc-ensure-request-with-acr-values-succeeds",
		"acr_values is accepted; unknown values have no effect.", "", accepted("acr_values", "1 2"),
	},
	{"oidcc-codereuse", "A code is refused if it is used again.", "code", func(c *conformance) {
		values := c.ask(nil)
		c.tokens(values)
		c.redeem("web", values.Get("code")).MustFail(c.t, 400, "invalid_grant")
	}},
	{"oidcc-codereuse-30seconds", "If a code is used again, the access token issued for it is " +
		"revoked. (The suite waits 30 seconds; here the time makes no difference.)", "code", func(c *conformance) {
		values := c.ask(nil)
		access := c.tokens(values)["access_token"].(string)
		c.redeem("web", values.Get("code")).MustFail(c.t, 400, "invalid_grant")
		if got := c.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+access); got.Status != 401 {
			c.t.Errorf("the access token is still good: %d", got.Status)
		}
	}},
	{"oidcc-ensure-registered-redirect-uri", "If redirect_uri is not registered, the response is an error page, " +
		"not a redirect.", "", func(c *conformance) {
		if got := c.Get(c.url(url.Values{"redirect_uri": {appCallback + "/other"}})); got.Status != 400 ||
			got.Header.Get("Location") != "" {
			c.t.Errorf("%d %v", got.Status, got.Header)
		}
	}},
	{"oidcc-ensure-post-request-succeeds", "The request may be a POST.", "", func(c *conformance) {
		u, err := url.Parse(c.url(nil))
		if err != nil {
			c.t.Fatal(err)
		}
		c.tokens(c.read(c.Post("/oidc/authorize", u.Query())))
	}},
	{"oidcc-server-client-secret-post", "A client may authenticate with " +
		"client_secret_post.", "code", func(c *conformance) {
		values := c.good(c.ask(nil))
		got := c.Post("/oidc/token", url.Values{
			"grant_type": {"authorization_code"}, "code": {values.Get("code")}, "redirect_uri": {appCallback},
			"code_verifier": {verifier}, "client_id": {"web"}, "client_secret": {appSecret},
		})
		if got.Status != 200 {
			c.t.Errorf("%d %s", got.Status, got.Body)
		}
	}},
	{
		"oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported",
		"A request object is refused with request_not_supported.", "", func(c *conformance) {
			c.mustFail(c.ask(url.Values{"request": {"eyJhbGciOiJub25lIn0.e30."}}), "request_not_supported")
		},
	},
	{"oidcc-ensure-request-object-with-redirect-uri", "A request object that contains redirect_uri is refused " +
		"with request_not_supported.", "", func(c *conformance) {
		c.mustFail(c.ask(url.Values{
			"request": {"eyJhbGciOiJub25lIn0.eyJyZWRpcmVjdF91cmkiOiJodHRwczovL2V2aWwuZXhhbXBsZS8ifQ."},
		}), "request_not_supported")
	}},
	{
		"oidcc-claims-essential", "claims may request the name in userinfo or in the ID token.",
		"", func(c *conformance) {
			where := "userinfo"
			if c.responseType == "id_token" {
				where = "id_token"
			}
			c.mustHave(c.user(url.Values{"claims": {`{"` + where + `":{"name":{"essential":true}}}`}}), "name")
		},
	},
	{"oidcc-refresh-token", "A refresh token returns tokens of the same subject, " +
		"and is not valid for another client.", "code", func(c *conformance) {
		given := c.tokens(c.ask(url.Values{"scope": {"openid offline_access"}}))
		refresh := given["refresh_token"].(string)
		c.refresh("other", refresh).MustFail(c.t, 400, "invalid_grant")
		got := c.refresh("web", refresh)
		if got.Status != 200 ||
			sitetest.ClaimsOf(c.t, got.JSON(c.t)["id_token"].(string))["sub"] !=
				sitetest.ClaimsOf(c.t, given["id_token"].(string))["sub"] {
			c.t.Errorf("%d %s", got.Status, got.Body)
		}
	}},
	{"oidcc-ensure-request-with-valid-pkce-succeeds", "PKCE with S256 is accepted, " +
		"and checked.", "code", func(c *conformance) {
		values := c.good(c.ask(nil))
		c.exchange("web", url.Values{
			"grant_type": {"authorization_code"}, "code": {values.Get("code")},
			"redirect_uri": {appCallback}, "code_verifier": {verifier + "x"},
		}).MustFail(c.t, 400, "invalid_grant")
		c.tokens(c.ask(nil))
	}},
}

// appliesTo reports whether a module belongs to the plan of a flow.
func (m module) appliesTo(responseType string) bool {
	if m.needs == "only code" {
		return responseType == "code"
	}
	if m.needs == "" {
		return true
	}
	return slices.ContainsFunc(strings.Split(m.needs, "|"), func(part string) bool {
		return slices.Contains(strings.Fields(responseType), part)
	})
}

var conformanceClients = `
	client web {
		secret ` + appSecret + `
		redirect_uri ` + appCallback + `
		post_logout_redirect_uri https://app.example/bye
		response_types code id_token "id_token token" "code id_token" "code token" "code id_token token"
		scopes openid profile email address phone offline_access
		consent never
		%s
	}
	client other {
		secret another-secret-0123456789
		redirect_uri https://other.example/callback
		scopes openid profile email address phone offline_access
	}
`

func newConformance(t *testing.T, backchannel string) *conformance {
	t.Helper()
	more := ""
	if backchannel != "" {
		more = "backchannel_logout_uri " + backchannel
	}
	s := serve(t, fmt.Sprintf(conformanceClients, more), "")
	c := &conformance{browser: s.browser(), t: t, responseType: "code"}
	c.SignUp("alice@example.com")
	users := s.store()
	user, err := users.UserByEmail(t.Context(), "alice@example.com")
	if err == nil {
		_, err = users.UpdateUser(t.Context(), user.ID, time.Now(), func(u *store.User) error {
			u.Profile = map[string]any{
				"name": "Alice A.", "given_name": "Alice", "family_name": "A.",
				"birthdate": "1990-01-01", "zoneinfo": "Europe/Berlin",
				"address": map[string]any{"country": "DE"}, "phone_number": "+49 30 1",
				"phone_number_verified": true, "email_verified": true,
			}
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The modules of the OP plans, for every response type in its default mode and with form_post.
func TestConformanceOfTheProvider(t *testing.T) {
	c := newConformance(t, "")
	for _, mode := range []string{"", "form_post"} {
		for _, responseType := range responseTypes {
			for _, m := range modules {
				if !m.appliesTo(responseType) || mode == "form_post" && m.name == "oidcc-response-type-missing" {
					continue
				}
				t.Run(responseType+" "+mode+"/"+m.name, func(t *testing.T) {
					run := *c
					run.t, run.responseType, run.mode = t, responseType, mode
					m.run(&run)
				})
			}
		}
	}
}

func TestConformanceOfTheConfiguration(t *testing.T) {
	c := newConformance(t, "")
	document := c.Get("/.well-known/openid-configuration").JSON(t)
	c.mustHave(
		document, "issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint",
		"jwks_uri", "scopes_supported", "response_types_supported", "subject_types_supported",
		"id_token_signing_alg_values_supported", "claims_supported", "grant_types_supported",
	)
	if document["issuer"] != c.browser.URL {
		t.Errorf("issuer %v", document["issuer"])
	}
	if other := c.Get("/.well-known/oauth-authorization-server").JSON(t); other["issuer"] != document["issuer"] {
		t.Errorf("RFC 8414: %v", other)
	}
	if set := c.Get("/oidc/jwks.json"); strings.Contains(set.Body, `"d":`) || strings.Count(set.Body, `"kid"`) != 2 {
		t.Errorf("JWK set %s", set.Body)
	}
}

// logoutModules are the modules of the OP plan for RP-initiated log-out.
var logoutModules = []module{
	{
		"oidcc-rp-initiated-logout-discovery-endpoint-verification",
		"The metadata has end_session_endpoint.", "", func(c *conformance) {
			c.mustHave(c.Get("/.well-known/openid-configuration").JSON(c.t), "end_session_endpoint")
		},
	},
	{"oidcc-rp-initiated-logout", "With hint, redirect and state, the user is logged out and redirected " +
		"with the state.", "", func(c *conformance) {
		c.logsOut(url.Values{
			"id_token_hint": {c.hint()}, "post_logout_redirect_uri": {"https://app.example/bye"}, "state": {"s"},
		}, "https://app.example/bye?state=s")
	}},
	{"oidcc-rp-initiated-logout-bad-post-logout-redirect-uri", "If the redirect is not registered, the response " +
		"is an error page.", "", func(c *conformance) {
		c.logoutFails(url.Values{"id_token_hint": {c.hint()}, "post_logout_redirect_uri": {"https://app.example/foo"}})
	}},
	{"oidcc-rp-initiated-logout-modified-id-token-hint", "If the hint was modified, the response " +
		"is an error page.", "", func(c *conformance) {
		hint := c.hint()
		c.logoutFails(url.Values{
			"id_token_hint": {hint[:len(hint)-8] + "AAAAAAAA"}, "post_logout_redirect_uri": {"https://app.example/bye"},
		})
	}},
	{
		"oidcc-rp-initiated-logout-no-id-token-hint",
		"Without a hint or a client_id, the redirect is not trusted.", "", func(c *conformance) {
			c.logoutFails(url.Values{"post_logout_redirect_uri": {"https://app.example/bye"}, "state": {"s"}})
		},
	},
	{
		"oidcc-rp-initiated-logout-no-params", "Without parameters, the user must confirm and is then logged out.",
		"", func(c *conformance) { c.asks(nil) },
	},
	{
		"oidcc-rp-initiated-logout-no-post-logout-redirect-uri",
		"With only a hint, the user is logged out and sees a page that confirms it.", "", func(c *conformance) {
			if page := c.Get("/oidc/logout?" + url.Values{"id_token_hint": {c.hint()}}.Encode()); page.Status != 200 ||
				!strings.Contains(page.Body, "You are logged out") {
				c.t.Errorf("%d %s", page.Status, page.Body)
			}
			c.mustFail(c.ask(url.Values{"prompt": {"none"}}), "login_required")
		},
	},
	{"oidcc-rp-initiated-logout-no-state", "Without state, the response has none.", "", func(c *conformance) {
		c.logsOut(
			url.Values{"id_token_hint": {c.hint()}, "post_logout_redirect_uri": {"https://app.example/bye"}},
			"https://app.example/bye",
		)
	}},
	{
		"oidcc-rp-initiated-logout-only-state", "With only a state, the user must confirm and is then logged out.",
		"", func(c *conformance) { c.asks(url.Values{"state": {"s"}}) },
	},
	{"oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri", "If the redirect has a query that is not " +
		"registered, the response is an error page.", "", func(c *conformance) {
		c.logoutFails(url.Values{
			"id_token_hint": {c.hint()}, "post_logout_redirect_uri": {"https://app.example/bye?foo=bar"},
		})
	}},
	{
		"oidcc-rp-initiated-logout-bad-id-token-hint",
		"If the hint is not an ID token, the response is an error page.", "", func(c *conformance) {
			c.logoutFails(url.Values{"id_token_hint": {"bad"}, "post_logout_redirect_uri": {"https://app.example/bye"}})
		},
	},
}

func (c *conformance) hint() string { return c.tokens(c.ask(nil))["id_token"].(string) }

func (c *conformance) logsOut(request url.Values, to string) {
	c.t.Helper()
	if got := c.Get("/oidc/logout?" + request.Encode()).To(c.t); got.String() != to {
		c.t.Errorf("sent to %s", got)
	}
	c.mustFail(c.ask(url.Values{"prompt": {"none"}}), "login_required")
}

func (c *conformance) logoutFails(request url.Values) {
	c.t.Helper()
	if got := c.Get("/oidc/logout?" + request.Encode()); got.Status != 400 || got.Header.Get("Location") != "" {
		c.t.Errorf("%d %v", got.Status, got.Header)
	}
	c.good(c.ask(url.Values{"prompt": {"none"}}))
}

func (c *conformance) asks(request url.Values) {
	c.t.Helper()
	if page := c.Get("/oidc/logout?" + request.Encode()); page.Status != 200 ||
		!strings.Contains(page.Body, "Log out?") {
		c.t.Errorf("%d %s", page.Status, page.Body)
	}
	c.good(c.ask(url.Values{"prompt": {"none"}}))
	if page := c.Post(
		"/oidc/logout", url.Values{"decision": {"logout"}},
	); !strings.Contains(page.Body, "You are logged out") {
		c.t.Errorf("%d %s", page.Status, page.Body)
	}
	c.mustFail(c.ask(url.Values{"prompt": {"none"}}), "login_required")
}

func TestConformanceOfLogout(t *testing.T) {
	c := newConformance(t, "")
	for _, m := range logoutModules {
		t.Run(m.name, func(t *testing.T) {
			run := *c
			run.t, run.browser = t, c.at.browser()
			run.read(run.logIn(run.url(nil)))
			m.run(&run)
		})
	}
}

var backchannelModules = []module{
	{
		"oidcc-backchannel-logout-discovery-endpoint-verification",
		"The metadata says that back-channel log-out with session IDs is supported.", "", nil,
	},
	{"oidcc-backchannel-rp-initiated-logout", "After a log-out, the client receives a log-out token with iss, aud, " +
		"iat, jti, sid and the event, without nonce, and with typ logout+jwt. The response to prompt=none is then " +
		"login_required.", "", nil},
}

func TestConformanceOfBackchannelLogout(t *testing.T) {
	told := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		told <- r.PostFormValue("logout_token")
	}))
	defer receiver.Close()
	c := newConformance(t, receiver.URL)
	document := c.Get("/.well-known/openid-configuration").JSON(t)
	if document["backchannel_logout_supported"] != true || document["backchannel_logout_session_supported"] != true {
		t.Errorf("metadata %v", document)
	}
	hint := c.hint()
	c.logsOut(
		url.Values{"id_token_hint": {hint}, "post_logout_redirect_uri": {"https://app.example/bye"}},
		"https://app.example/bye",
	)
	select {
	case token := <-told:
		claims, header := sitetest.ClaimsOf(t, token), sitetest.ClaimsOf(t, "x."+strings.Split(token, ".")[0]+".x")
		events, _ := claims["events"].(map[string]any)
		c.mustHave(claims, "iat", "jti", "exp")
		if claims["iss"] != c.browser.URL || claims["aud"] != "web" ||
			claims["sid"] != sitetest.ClaimsOf(t, hint)["sid"] || events[protocol.LogoutEvent] == nil ||
			claims["nonce"] != nil || header["typ"] != "logout+jwt" {
			t.Errorf("log-out token %v %v", header, claims)
		}
	case <-time.After(20 * time.Second):
		t.Error("the client is not told")
	}
}

// TestConformancePage compares docs/conformance.md with the tables of the tests; -update
// rewrites it. The last part belongs to oidc/login.
func TestConformancePage(t *testing.T) {
	var page strings.Builder
	page.WriteString(`# Coverage of the OpenID conformance suite

This page lists modules of the OpenID Foundation's conformance suite. ` +
		"For each, this project has a test of the same name; the page says what it asserts. " +
		"Run them with `go test ./oidc/... -run Conformance`" +
		`. These are the project's own tests. They are not a certification, and the suite itself was not run.

`)
	table := func(title, about string, modules []module) {
		var rows [][2]string
		for _, m := range modules {
			rows = append(rows, [2]string{m.name, m.asserts})
		}
		page.WriteString(sitetest.ConformanceTable(title, about, rows))
	}
	table("OP: basic, implicit, hybrid and form_post", "Each module runs with all response types that it applies "+
		"to (`code`; `id_token`, `id_token token`; `code id_token`, `code token`, `code id_token token`), "+
		"in their default response mode and with `form_post`.", modules)
	table("OP: configuration", "", []module{{"oidcc-discovery-endpoint-verification", "The discovery document has " +
		"what a client needs, and its issuer is the requested one; the JWK set has only public keys.", "", nil}})
	table("OP: RP-initiated log-out", "", logoutModules)
	table("OP: back-channel log-out", "", backchannelModules)
	_, login := sitetest.ConformancePage(t)
	sitetest.UpToDate(t, sitetest.ConformanceFile, page.String()+login)
}
