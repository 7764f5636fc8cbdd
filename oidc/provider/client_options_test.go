package provider_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// serveApp runs a provider with one client, app, which has these options more.
func serveApp(t testing.TB, options, more string) *site {
	t.Helper()
	return serve(t, fmt.Sprintf("client app {\n secret %s\n redirect_uri %s\n consent never\n %s\n}\n%s",
		appSecret, appCallback, options, more), "")
}

// The provider's operations are in the OpenAPI document of the accounts, for the explorer; each exists.
func TestOpenAPIOfProvider(t *testing.T) {
	s := serveApp(t, "", "")
	paths, _ := s.Get("/auth/openapi.json").JSON(t)["paths"].(map[string]any)
	found := 0
	for path, methods := range paths {
		if strings.HasPrefix(path, "/auth/") {
			continue
		}
		for method := range methods.(map[string]any) {
			found++
			if got := s.Do(strings.ToUpper(method), path); got.Status == 404 || got.Status == 405 || got.Body == "" {
				t.Errorf("%s %s: %s", method, path, got.Brief())
			}
		}
	}
	if found != 8 || paths["/auth/login"] == nil {
		t.Errorf("%d operations: %v", found, paths)
	}
}

// Only users with one of its roles get in to a client, and only as long as they have it.
func TestClientRoles(t *testing.T) {
	s := serveApp(t, "roles staff admin\ngrant_types authorization_code refresh_token "+grantDevice, "")
	b := s.browser()
	b.SignUp("alice@example.com")
	refused := func(b *browser, more url.Values) {
		t.Helper()
		if back := b.GoOn(b.authorizeURL("app", more)).Query(); back.Get("error") != "access_denied" ||
			back.Has("code") || back.Get("state") != "a state" {
			t.Errorf("the answer has %v", back)
		}
	}
	refused(b, nil)
	refused(b, url.Values{"prompt": {"none"}})
	users := s.store()
	give := func(roles ...string) {
		t.Helper()
		user, err := users.UserByEmail(t.Context(), "alice@example.com")
		if err == nil {
			_, err = users.UpdateUser(t.Context(), user.ID, user.UpdatedAt, func(u *store.User) error {
				u.Roles = roles
				return nil
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	give("staff-to-be", "Staff")
	refused(b, nil)
	device := s.browser().Post("/oidc/device_authorization", url.Values{"scope": {"openid"}}, sitetest.Basic("app", appSecret))
	code, _ := device.JSON(t)["user_code"].(string)
	page := b.Get("/oidc/device?user_code=" + code)
	form := page.HiddenFields()
	form.Set("decision", "allow")
	form.Set("user_code", code)
	if got := b.Post("/oidc/device", form); got.Status != 403 || !strings.Contains(got.Body, "none of the roles") {
		t.Errorf("a device: %s", got.Brief())
	}

	give("staff")
	tokens := b.redeem("app", b.code("app", url.Values{"scope": {"openid offline_access"}})).JSON(t)
	refresh, access := tokens["refresh_token"].(string), tokens["access_token"].(string)
	unused := b.code("app", nil)
	tokens = b.refresh("app", refresh).JSON(t)
	if refresh, _ = tokens["refresh_token"].(string); refresh == "" {
		t.Fatal(tokens)
	}
	give("former")
	if got := b.redeem("app", unused); got.Status != 400 || !strings.Contains(got.Body, "invalid_grant") {
		t.Errorf("a code: %s", got.Brief())
	}
	if got := b.refresh("app", refresh); got.Status != 400 || !strings.Contains(got.Body, "invalid_grant") {
		t.Errorf("a refresh token: %s", got.Brief())
	}
	if got := s.Get("/oidc/userinfo", "Authorization: Bearer "+access); got.Status != 401 {
		t.Errorf("userinfo: %s", got.Brief())
	}
	give("admin")
	if got := b.redeem("app", b.code("app", nil)); got.Status != 200 {
		t.Errorf("control: %s", got.Brief())
	}
}

// A client gets the claims of its scopes in the ID token, and under its own names, if it is configured so.
func TestClientClaims(t *testing.T) {
	const scopes = "scopes openid email profile groups roles\n"
	scope := url.Values{"scope": {"openid email profile groups"}}
	of := func(options string) (id, info sitetest.JSON) {
		t.Helper()
		s := serveApp(t, scopes+options, "claims groups roles")
		b := s.browser()
		b.SignUp("alice@example.com")
		accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) {
			u.Roles, u.Profile = []string{"staff"}, map[string]any{"name": "Alice"}
		})
		tokens := b.redeem("app", b.code("app", scope)).JSON(t)
		info = s.Get("/oidc/userinfo", "Authorization: Bearer "+tokens["access_token"].(string)).JSON(t)
		return sitetest.ClaimsOf(t, tokens["id_token"].(string)), info
	}
	id, info := of("")
	if id["email"] != nil || info["email"] != "alice@example.com" || info["roles"] == nil {
		t.Errorf("without options: %v, userinfo %v", id, info)
	}
	id, info = of("id_token_claims\nrename_claim groups roles\nrename_claim preferred_username email")
	for name, claims := range map[string]sitetest.JSON{"ID token": id, "userinfo": info} {
		groups, _ := claims["groups"].([]any)
		if len(groups) != 1 || groups[0] != "staff" || claims["roles"] != nil || claims["name"] != "Alice" ||
			claims["preferred_username"] != "alice@example.com" || claims["email"] != nil ||
			claims["email_verified"] != false {
			t.Errorf("%s: %v", name, claims)
		}
	}
	if id["aud"] != "app" || id["nonce"] != "a nonce" {
		t.Errorf("claims of the token: %v", id)
	}
}

// Properties that were set as text have the types of OpenID Connect Core §5.1.
func TestTypedClaims(t *testing.T) {
	s := serveApp(t, "scopes openid email phone address", "")
	b := s.browser()
	b.SignUp("alice@example.com")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) {
		u.Profile = map[string]any{
			"email_verified": "true", "phone_number": "+1 555 1234", "phone_number_verified": "false",
			"address": map[string]any{"country": "DE"},
		}
	})
	tokens := b.redeem("app", b.code("app", url.Values{"scope": {"openid email phone address"}})).JSON(t)
	info := s.Get("/oidc/userinfo", "Authorization: Bearer "+tokens["access_token"].(string)).JSON(t)
	if info["email_verified"] != true || info["phone_number_verified"] != false ||
		fmt.Sprint(info["address"]) != "map[country:DE]" {
		t.Errorf("%v", info)
	}
}

// Access tokens by RS256, for services that take the algorithm from the metadata.
func TestAccessTokenAlgorithm(t *testing.T) {
	for option, algorithm := range map[string]string{"": "ES256", "access_token_algorithm RS256": "RS256"} {
		s := serveApp(t, "grant_types authorization_code client_credentials", option)
		document := s.Get("/.well-known/openid-configuration").JSON(t)
		if fmt.Sprint(document["access_token_signing_alg_values_supported"]) != "["+algorithm+"]" {
			t.Errorf("metadata: %v", document["access_token_signing_alg_values_supported"])
		}
		b := s.browser()
		b.SignUp("alice@example.com")
		tokens := b.redeem("app", b.code("app", nil)).JSON(t)
		own := s.browser().Post("/oidc/token", url.Values{"grant_type": {"client_credentials"}}, sitetest.Basic("app", appSecret)).
			JSON(t)
		if tokens["access_token"] == nil || own["access_token"] == nil {
			t.Fatal(tokens, own)
		}
		for _, token := range []string{tokens["access_token"].(string), own["access_token"].(string)} {
			if header := headerOf(t, token); header["alg"] != algorithm || header["typ"] != "at+jwt" {
				t.Errorf("%v", header)
			}
		}
		if got := s.Get("/oidc/userinfo", "Authorization: Bearer "+tokens["access_token"].(string)); got.Status != 200 {
			t.Errorf("userinfo: %s", got.Brief())
		}
		if got := s.Get("/oidc/userinfo", "Authorization: Bearer "+tokens["id_token"].(string)); got.Status != 401 {
			t.Errorf("an ID token as access token: %s", got.Brief())
		}
	}
}

// A redirect URI that is refused is logged beside those that are registered; but not each of many.
func TestRefusedRedirectIsLogged(t *testing.T) {
	s := serveApp(t, "post_logout_redirect_uri https://app.example/out", "")
	for range 5 {
		s.Visitor().Get(strings.TrimPrefix(s.authorizeURL("app", url.Values{
			"redirect_uri": {"http://localhost:58892/callback"},
		}), s.URL))
	}
	log := s.Log()
	if strings.Count(log, "redirect_uri is not one that is registered") != 1 ||
		!strings.Contains(log, `"presented":"http://localhost:58892/callback"`) ||
		!strings.Contains(log, `"registered":["`+appCallback+`"]`) || !strings.Contains(log, `"client_id":"app"`) {
		t.Errorf("the log does not say which URI: %s", log)
	}
}

// Pages of a client may send the headers of tracing libraries; a loopback client's pages any port.
func TestCORSHeadersOfClients(t *testing.T) {
	s := serve(t, "client spa {\n public\n redirect_uri "+spaCallback+" http://127.0.0.1/callback\n}", "")
	spa, _ := url.Parse(spaCallback)
	for origin, allowed := range map[string]bool{
		spa.Scheme + "://" + spa.Host: true, "http://127.0.0.1:5173": true, "http://127.0.0.1": true,
		"http://127.0.0.2:5173": false, "https://127.0.0.1:5173": false, "https://evil.example": false,
	} {
		got := s.Do(http.MethodOptions, "/oidc/token", "Origin: "+origin, "Access-Control-Request-Method: POST",
			"Access-Control-Request-Headers: authorization,content-type,dpop,sentry-trace,traceparent")
		header := got.Header.Get("Access-Control-Allow-Headers")
		if (got.Header.Get("Access-Control-Allow-Origin") == origin) != allowed ||
			strings.Contains(header, "traceparent") != allowed || strings.Contains(header, "Authorization") != allowed {
			t.Errorf("%s: %d %v", origin, got.Status, got.Header)
		}
	}
	got := s.Do(http.MethodOptions, "/oidc/token", "Origin: "+spa.Scheme+"://"+spa.Host,
		"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x, <b>")
	if header := got.Header.Get("Access-Control-Allow-Headers"); header != "Authorization, Content-Type" {
		t.Errorf("headers %q", header)
	}
}

// A scheme without a dot is accepted by option, but none that a browser handles itself.
func TestUndottedScheme(t *testing.T) {
	s := serve(t, "client files {\n public\n undotted_scheme\n redirect_uri oc://ios.owncloud.com\n}", "")
	b := s.browser()
	b.SignUp("alice@example.com")
	answer := b.Get(strings.TrimPrefix(s.authorizeURL("files", url.Values{
		"redirect_uri": {"oc://ios.owncloud.com"},
	}), s.URL))
	if answer.Status != 303 || !strings.Contains(answer.To(t).String(), "/oidc/consent") { // despite consent
		t.Errorf("%s", answer.Brief())
	}
	if scopes, _ := s.Get("/.well-known/openid-configuration").JSON(t)["scopes_supported"].([]any); !slices.Contains(
		scopes, any("openid")) {
		t.Error(scopes)
	}
}

// `client update` changes what its flags say, and `rotate-secret` only the secret.
func TestClientUpdate(t *testing.T) {
	s := serve(t, "", "")
	cmd := &accountstest.CommandLine{TB: t, Where: []string{"--store", filepath.Join(s.dir, "users.db")}}
	run := func(args ...string) string {
		t.Helper()
		return cmd.Must("", append([]string{"client"}, args...)...)
	}
	before := strings.TrimSpace(run("add", "--redirect-uri", "https://wiki.example/a", "--roles", "staff", "wiki"))
	run("update", "--redirect-uri", "https://wiki.example/b", "--name", "The Wiki", "--rename-claim", "groups=roles", "wiki")
	accountstest.Has(t, run("show", "wiki"), `"https://wiki.example/b"`, `"The Wiki"`, `"staff"`, `"groups": "roles"`)
	if shown := run("show", "wiki"); strings.Contains(shown, "wiki.example/a") {
		t.Error(shown)
	}
	may := func(secret string) int {
		return s.browser().Post("/oidc/introspect", url.Values{"token": {"x"}}, sitetest.Basic("wiki", secret)).Status
	}
	if may(before) != 200 {
		t.Error("the secret has changed")
	}
	after := strings.TrimSpace(run("rotate-secret", "wiki"))
	if may(before) != 401 || may(after) != 200 {
		t.Errorf("the old secret %d, the new one %d", may(before), may(after))
	}
	cmd.Refuses("", "it must not contain *", "client", "update", "--redirect-uri", "https://*.example/", "wiki")
	cmd.Refuses("", "there is nothing to change", "client", "update", "wiki")
	cmd.Refuses("", `there is no client "wikki"`, "client", "update", "--name", "x", "wikki")
	cmd.Refuses("", `there is no client "wikki"`, "client", "rotate-secret", "wikki")
	for _, verb := range []string{"show", "delete", "rotate-secret"} {
		cmd.Refuses("", "did you mean wiki?", "client", verb, "wikki")
	}
	run("add", "--public", "--redirect-uri", "https://app.example/", "app")
	cmd.Refuses("", "has no secret", "client", "rotate-secret", "app")
	cmd.Refuses("", "has no secret", "client", "update", "--public=false", "app")
}

func headerOf(t *testing.T, token string) (header sitetest.JSON) {
	t.Helper()
	first, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	if err == nil {
		err = json.Unmarshal(text, &header)
	}
	if err != nil {
		t.Fatal(err)
	}
	return header
}

// A client in the store that the config would refuse is refused as unknown, and the log says why; the
// store works.
func TestClientOfStoreNotValid(t *testing.T) {
	s := serve(t, "", "")
	withStore := &accountstest.CommandLine{TB: t, Where: []string{"--store", filepath.Join(s.dir, "users.db")}}
	withConfig := &accountstest.CommandLine{TB: t, Where: []string{"--config", s.config}}
	add := []string{"client", "add", "--public", "--redirect-uri", appCallback, "--rename-claim", "groups=name", "wiki"}
	withConfig.Refuses("", "rename_claim groups name: users set name themselves", add...)
	withStore.Must("", add...)
	b := s.browser()
	b.SignUp("alice@example.com")
	path := strings.TrimPrefix(s.authorizeURL("wiki", nil), s.URL)
	if got := b.Get(path); got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "no client") {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	log := s.Log()
	if strings.Count(log, "#client-not-valid") != 1 || strings.Contains(log, "store is not working") {
		t.Errorf("the log is %s", log)
	}
	withConfig.Refuses("", "rename_claim groups name", "client", "update", "--rename-claim", "groups=name", "wiki")
	withConfig.Must("", "client", "update", "--rename-claim", "groups=roles", "wiki")
	if got := b.Get(path); got.Status != http.StatusSeeOther {
		t.Errorf("control: %d %s", got.Status, got.Body)
	}
}
