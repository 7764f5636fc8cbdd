package provider_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/oidc/provider"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// Clients do not get properties that users choose at sign-up, unless the config says so.
func TestThreatProfileNames(t *testing.T) {
	check := func(profile, more string) error {
		text := "{\n admin off\n storage file_system " + t.TempDir() +
			"\n}\nhttp://localhost:1 {\n oidc_provider {\n issuer http://localhost:1\n accounts {\n store file " +
			t.TempDir() + "/users.db\n profile " + profile + "\n}\n" + more + "\n}\n}"
		config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
		if err != nil {
			return err
		}
		var parsed caddy.Config
		if err := json.Unmarshal(config, &parsed); err != nil {
			t.Fatal(err)
		}
		return caddy.Validate(&parsed)
	}
	for _, name := range append(append([]string{"Groups", "ACR", "email_Verified"}, protocol.TokenClaims...), []string{
		"email_verified", "phone_number_verified", "updated_at", "preferred_username", "groups",
		"roles", "role", "permissions", "entitlements", "verified_claims",
	}...) {
		if name == "roles" { // the accounts refuse it
			continue
		}
		if err := check("name "+name, ""); err == nil ||
			!strings.Contains(err.Error(), "profile "+name+": at sign-up, users could give themselves") ||
			!strings.Contains(err.Error(), "user_editable "+name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := check("name "+name, "user_editable "+name); err != nil {
			t.Errorf("%s, which users may set: %v", name, err)
		}
	}
	for _, claims := range []string{"claims company employer", "claims profile employer", "claims email Employer"} {
		if err := check("employer", claims); err == nil || !strings.Contains(err.Error(), "passes it to clients") ||
			!strings.Contains(err.Error(), "user_editable employer") {
			t.Errorf("%s: %v", claims, err)
		}
		if err := check("employer", claims+"\nuser_editable employer"); err != nil {
			t.Errorf("%s, which users may set: %v", claims, err)
		}
		if err := check("name", claims); err != nil {
			t.Errorf("%s, which the operator sets: %v", claims, err)
		}
	}
	for _, c := range []struct{ renamed, chosen string }{
		{"groups name", "name"}, {"email nickname", "nickname"}, {"upn name", "name"}, {"preferred_username name", "name"},
		{"phone_number nickname", "nickname"}, {"is_admin name", "name"}, {"email_Verified name", "name"},
	} {
		client := "client app {\n public\n redirect_uri https://app.example/\n rename_claim " + c.renamed + "\n}\n"
		if err := check("name nickname", client); err == nil ||
			!strings.Contains(err.Error(), "rename_claim "+c.renamed+": users set "+c.chosen+" themselves") {
			t.Errorf("rename_claim %s: %v", c.renamed, err)
		}
		if err := check("name nickname", client+"user_editable "+c.chosen); err != nil {
			t.Errorf("rename_claim %s, which users may set: %v", c.renamed, err)
		}
		if err := check("birthdate", client); err != nil {
			t.Errorf("rename_claim %s, which the operator sets: %v", c.renamed, err)
		}
	}
	for _, renamed := range []string{
		"groups username", "roles preferred_username", "email username", "groups email", "Email username",
	} {
		client := "client app {\n public\n redirect_uri https://app.example/\n rename_claim " + renamed + "\n}\n"
		if err := check("name", client); err == nil || !strings.Contains(err.Error(), "rename_claim "+renamed+": users") {
			t.Errorf("rename_claim %s: %v", renamed, err)
		}
	}
	for _, renamed := range []string{"preferred_username email", "upn username", "login preferred_username"} {
		client := "client app {\n public\n redirect_uri https://app.example/\n rename_claim " + renamed + "\n}\n"
		if err := check("name", client); err != nil {
			t.Errorf("control: rename_claim %s: %v", renamed, err)
		}
	}
	if err := check(
		"name nickname", "client app {\n public\n redirect_uri https://app.example/\n rename_claim nickname name\n"+
			" rename_claim groups roles\n}",
	); err != nil {
		t.Errorf("control: %v", err)
	}
	if err := check(
		"name given_name family_name nickname picture phone_number address locale zoneinfo birthdate gender "+
			"website employer", "claims team groups",
	); err != nil {
		t.Errorf("control: %v", err)
	}
}

// Standard claims have the type that clients expect, whatever a user typed, and the claims about
// the token itself never come from a property.
func TestThreatProfileValues(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	signUp := func(email string, more map[string]any) sitetest.Reply {
		in := map[string]any{"email": email, "password": sitetest.GoodPassword}
		for name, value := range more {
			in[name] = value
		}
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequest(http.MethodPost, s.URL+"/auth/signup", strings.NewReader(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return sitetest.Reply{Status: response.StatusCode}
	}
	if got := signUp("alice@example.com", map[string]any{
		"name": map[string]any{"a": 1}, "nickname": []string{"x"}, "employer": map[string]any{"a": 1},
	}); got.Status != 201 {
		t.Fatalf("%d", got.Status)
	}
	users := s.store()
	user, err := users.UserByEmail(t.Context(), "alice@example.com")
	if err == nil {
		_, err = users.UpdateUser(t.Context(), user.ID, time.Now(), func(u *store.User) error {
			for _, name := range protocol.TokenClaims {
				u.Profile[name] = "as the user typed it"
			}
			u.Profile["locale"] = "de"
			return nil
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	asked := make(map[string]any)
	for _, name := range protocol.TokenClaims {
		asked[name] = nil
	}
	delete(asked, "sub")
	claims, err := json.Marshal(map[string]any{"id_token": asked, "userinfo": asked})
	if err != nil {
		t.Fatal(err)
	}
	tokens := chrome.redeem("spa", chrome.code("spa", url.Values{
		"scope": {"openid profile"}, "claims": {string(claims)},
	})).JSON(t)
	info := chrome.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+tokens["access_token"].(string))
	for where, text := range map[string]string{
		"userinfo": info.Body, "the ID token": string(mustJSON(t, sitetest.ClaimsOf(t, tokens["id_token"].(string)))),
	} {
		if strings.Contains(text, "as the user typed it") {
			t.Errorf("%s has a claim of the user's own: %s", where, text)
		}
	}
	got := info.JSON(t)
	if got["name"] != nil || got["nickname"] != nil || got["locale"] != "de" {
		t.Errorf("userinfo %v", got)
	}
	// Their size is limited.
	for size, status := range map[int]int{4096: 201, 4097: 422, 60_000: 422} {
		if got := signUp(
			strings.Repeat("x", size/1000+1)+"@example.com", map[string]any{"name": strings.Repeat("n", size)},
		); got.Status != status {
			t.Errorf("a name of %d bytes: %d", size, got.Status)
		}
	}
	if got := signUp("list@example.com", map[string]any{
		"employer": strings.Split(strings.Repeat("x", 3000), ""),
	}); got.Status != 422 {
		t.Errorf("a long list: %d", got.Status)
	}
}

func mustJSON(t *testing.T, value any) []byte {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// An ambiguous request is refused.
func TestThreatRequestsThatDoNotParse(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	request := s.authorizeURL("spa", nil)
	for _, bad := range []string{"&state=s;redirect_uri=http://evil", "&x=%zz", "&x=%", ";"} {
		if got := chrome.Get(request + bad); got.Status != 400 || got.Header.Get("Location") != "" {
			t.Errorf("authorize?%s: %d %v", bad, got.Status, got.Header)
		}
		for _, path := range provider.Endpoints() {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				var body url.Values
				if method == http.MethodPost {
					body = url.Values{"client_id": {"spa"}}
				}
				if got := chrome.Do(method, path+"?a=b"+bad, body); got.Status != 400 && got.Status != 405 {
					t.Errorf("%s %s?a=b%s: %d", method, path, bad, got.Status)
				}
			}
		}
	}
	for _, path := range []string{
		"/oidc/authorize", "/oidc/token", "/oidc/par", "/oidc/device_authorization",
		"/oidc/device", "/oidc/consent", "/oidc/introspect", "/oidc/revoke", "/oidc/logout",
	} {
		for _, body := range []string{"client_id=spa&x=%zz", "client_id=spa;scope=openid"} {
			request, err := http.NewRequest(http.MethodPost, s.URL+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			response, err := chrome.Client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != 400 {
				t.Errorf("%s, %s: %d", path, body, response.StatusCode)
			}
		}
	}
	if got := chrome.Get(request + "&x=%3b%25").To(t); got.Query().Get("code") == "" {
		t.Errorf("control: %s", got)
	}

	// Together with a request_uri.
	pushed := func() string {
		values, err := url.Parse(request)
		if err != nil {
			t.Fatal(err)
		}
		return "/oidc/authorize?client_id=spa&request_uri=" +
			url.QueryEscape(chrome.Post("/oidc/par", values.Query()).JSON(t)["request_uri"].(string))
	}
	for _, twice := range []string{
		"&client_id=other", "&client_id=spa", "&state=a&state=b", "&request_uri=x", "&redirect_uri=a&redirect_uri=b",
	} {
		if got := chrome.Get(pushed() + twice); got.Status != 400 || got.Header.Get("Location") != "" {
			t.Errorf("pushed, %s: %d %v", twice, got.Status, got.Header)
		}
	}
	if got := chrome.Get(pushed() + "&state=a").To(t); got.Query().Get("code") == "" {
		t.Errorf("control, pushed: %s", got)
	}
}
