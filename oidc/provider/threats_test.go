package provider_test

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/provider"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"golang.org/x/crypto/bcrypt"
)

// live reports whether userinfo accepts an access token.
func (b *browser) live(token any) bool {
	b.T.Helper()
	got := b.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+token.(string))
	if got.Status != 200 && got.Status != 401 {
		b.T.Fatalf("userinfo: %d %s", got.Status, got.Body)
	}
	return got.Status == 200
}

// With an access token, an attacker cannot make it look as if a refresh token was used twice.
func TestThreatForgedRefreshToken(t *testing.T) {
	chrome := serveClients(t).browser()
	chrome.SignUp("alice@example.com")
	tokens := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	gid := sitetest.ClaimsOf(t, tokens["access_token"].(string))["gid"].(string)
	for _, forged := range []string{gid, gid + "~x", gid + "~x~y", gid + ".x", "~~"} {
		chrome.refresh("spa", forged).MustFail(t, 400, "invalid_grant")
	}
	if !chrome.live(tokens["access_token"]) {
		t.Error("the grant has ended")
	}
	if got := chrome.refresh("spa", tokens["refresh_token"].(string)); got.Status != 200 {
		t.Errorf("the real one: %d %s", got.Status, got.Body)
	}
}

// If a browser logs in again, as with prompt=login, and then logs out, earlier grants end too. If
// another user logs in there, they end at once.
func TestThreatReplacedSession(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	before := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	again := chrome.redeem("spa", chrome.code("spa", url.Values{"prompt": {"login"}})).JSON(t)
	if sitetest.ClaimsOf(t, before["id_token"].(string))["sid"] ==
		sitetest.ClaimsOf(t, again["id_token"].(string))["sid"] {
		t.Error("the session is the same after a log-in")
	}
	if !chrome.live(before["access_token"]) {
		t.Error("the first grant ends with the second log-in")
	}
	chrome.Get("/oidc/logout?" + url.Values{"id_token_hint": {again["id_token"].(string)}}.Encode())
	for name, tokens := range map[string]map[string]any{"before": before, "again": again} {
		if chrome.live(tokens["access_token"]) {
			t.Errorf("%s: good after the log-out", name)
		}
	}
	chrome.GoOn(s.authorizeURL("spa", nil))
	hers := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)
	chrome.SignUp("frank@example.com")
	if chrome.live(hers["access_token"]) {
		t.Error("somebody else has logged in there, and her session lives on")
	}
}

// If a browser sends a log-in form twice, both log-ins work, and one log-out ends both.
func TestLoginSentTwice(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	old := chrome.Client.Jar.Cookies(at)
	form := url.Values{"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}}
	var given []*browser
	for range 3 {
		again := s.browser()
		again.Client.Jar.SetCookies(at, old)
		if got := again.Post("/auth/login", form); got.Status != 303 {
			t.Fatalf("%d %s", got.Status, got.Body)
		}
		given = append(given, again)
	}
	if got := given[2].Post("/auth/logout", url.Values{}); got.Status != 303 {
		t.Fatal(got.Status)
	}
	for i, b := range given {
		if got := b.Get("/auth/whoami"); got.Status != 401 {
			t.Errorf("log-in %d is good after the log-out: %d", i, got.Status)
		}
	}
}

// If many sessions end at once, each client is notified.
func TestManyLogoutsAtOnce(t *testing.T) {
	var mu sync.Mutex
	told := make(map[any]int)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		told[sitetest.ClaimsOf(t, r.PostFormValue("logout_token"))["sid"]]++
	}))
	defer receiver.Close()
	s := serve(t, fmt.Sprintf(clientsOfTests, "backchannel_logout_uri "+receiver.URL), "")
	const logins = 20
	last := s.browser()
	last.SignUp("alice@example.com")
	for range logins {
		b := s.browser()
		b.redeem("app", b.code("app", nil))
	}
	// A new password ends all other sessions.
	if got := last.Post("/auth/password", url.Values{
		"currentPassword": {sitetest.GoodPassword}, "newPassword": {"another good password"},
	}); got.Status != 200 {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	sitetest.Eventually(t, "all are told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == logins
	})
	for sid, times := range told {
		if times != 1 {
			t.Errorf("%v told %d times", sid, times)
		}
	}
}

// A log-out posted by the client's page does not have the cookie, and continues with a redirect,
// which has it.
func TestLogoutByPost(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	tokens := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	form := url.Values{
		"id_token_hint":            {tokens["id_token"].(string)},
		"post_logout_redirect_uri": {"https://app.example/"}, "state": {"bye"},
	}
	to := s.browser().Post("/oidc/logout", form, "Sec-Fetch-Site: cross-site", "Origin: https://app.example").To(t)
	if strings.Contains(to.String(), form.Get("id_token_hint")) || chrome.Get("/auth/whoami").Status != 200 {
		t.Errorf("the post leads to %s", to)
	}
	if to := chrome.Get(to.String()).To(t); to.String() != "https://app.example/?state=bye" {
		t.Errorf("the redirect leads to %s", to)
	}
	if chrome.live(tokens["access_token"]) || chrome.Get("/auth/whoami").Status != 401 {
		t.Error("the session lives on")
	}
	if to := chrome.Get(s.authorizeURL("spa", nil)).To(t); to.Path != "/auth/login" {
		t.Errorf("still logged in: %s", to)
	}
}

// An ID token alone, for example from a log, ends only the grants of its client.
func TestThreatLogoutByAnIDTokenAlone(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	other := chrome.redeem("web", chrome.code("web", nil)).JSON(t)
	offline := chrome.redeem("app", chrome.code("app", url.Values{"scope": {"openid offline_access"}})).JSON(t)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		tokens := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
		fetched := chrome.code("app", nil)
		hint := url.Values{
			"id_token_hint": {tokens["id_token"].(string)}, "post_logout_redirect_uri": {"https://app.example/"},
		}
		thief := s.browser()
		if method == http.MethodGet {
			if to := thief.Get("/oidc/logout?" + hint.Encode()).To(t); to.String() != "https://app.example/" {
				t.Errorf("%s leads to %s", method, to)
			}
		} else if to := thief.Get(
			thief.Post("/oidc/logout", hint).To(t).String(),
		).To(t); to.String() != "https://app.example/" {
			t.Errorf("%s leads to %s", method, to)
		}
		if chrome.live(tokens["access_token"]) {
			t.Errorf("%s: the client's own tokens go on", method)
		}
		chrome.redeem("app", fetched).MustFail(t, 400, "invalid_grant")
		if chrome.Get("/auth/whoami").Status != 200 || !chrome.live(other["access_token"]) ||
			!chrome.live(offline["access_token"]) {
			t.Errorf("%s: the user or another client is logged out", method)
		}
	}
	// Another user must confirm, and so must the same user if the ID token is old.
	tokens := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	bob := s.browser()
	bob.SignUp("bob@example.com")
	if page := bob.Get(
		"/oidc/logout?" + url.Values{"id_token_hint": {tokens["id_token"].(string)}}.Encode(),
	); !strings.Contains(page.Body, "Log out?") {
		t.Errorf("another user: %d %s", page.Status, page.Body)
	}
	if !chrome.live(tokens["access_token"]) {
		t.Error("another user's browser ends it")
	}
	old := s.idTokenOfPast(t, sitetest.ClaimsOf(t, tokens["id_token"].(string)), hintLifetime+time.Hour)
	if page := chrome.Get(
		"/oidc/logout?" + url.Values{"id_token_hint": {old}}.Encode(),
	); !strings.Contains(page.Body, "Log out?") {
		t.Errorf("an old one: %d %s", page.Status, page.Body)
	}
	s.browser().Get("/oidc/logout?" + url.Values{"id_token_hint": {old}}.Encode())
	if !chrome.live(tokens["access_token"]) {
		t.Error("an old one ends what the client has")
	}
	recent := s.idTokenOfPast(t, sitetest.ClaimsOf(t, tokens["id_token"].(string)), hintLifetime-time.Hour)
	if got := chrome.Get(
		"/oidc/logout?" + url.Values{"id_token_hint": {recent}}.Encode(),
	); !strings.Contains(got.Body, "You are logged out") || chrome.Get("/auth/whoami").Status != 401 {
		t.Errorf("control, by the browser: %d %s", got.Status, got.Body)
	}
}

// idTokenOfPast returns an ID token of the provider with these claims, expired for this long.
func (s *site) idTokenOfPast(t *testing.T, claims map[string]any, ago time.Duration) string {
	t.Helper()
	claims["iat"], claims["exp"] = time.Now().Add(-ago-time.Hour).Unix(), time.Now().Add(-ago).Unix()
	files, err := filepath.Glob(filepath.Join(s.dir, "storage/jwt/signing_keys/*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var stored struct {
			Keys []struct{ JWK json.RawMessage }
		}
		if err := json.Unmarshal(text, &stored); err != nil {
			t.Fatal(err)
		}
		key, err := jwk.ParseKey(stored.Keys[0].JWK)
		if err != nil {
			t.Fatal(err)
		}
		var private rsa.PrivateKey
		if key.Raw(&private) == nil {
			return sitetest.SignExactly(
				t, "RS256", &private, map[string]any{"alg": "RS256", "typ": "JWT", "kid": key.KeyID()}, claims,
			)
		}
	}
	t.Fatal("there is no RSA key")
	return ""
}

// If a program on the user's machine cannot authenticate, the consent page is always shown,
// whatever `consent` says, because any program there can send the request.
func TestThreatNativeClientsWithoutAPage(t *testing.T) {
	s := serveClients(t)
	if log := s.Log(); !strings.Contains(log, "client has `consent never`, but users are still asked for consent") ||
		!strings.Contains(log, `"client_id":"native"`) {
		t.Error("the log does not say that the page is shown")
	}
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	redeem := func(back *url.URL, redirect string) sitetest.Reply {
		return chrome.exchange("native", url.Values{
			"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")},
			"redirect_uri": {redirect}, "code_verifier": {verifier},
		})
	}
	for _, redirect := range []string{
		"http://127.0.0.1:4444/callback", "http://127.0.0.1/callback", "http://[::1]:4444/callback",
		"http://localhost:4712/callback", "https://localhost:4713/callback", "com.example.app:/callback",
	} {
		for _, scope := range []string{"openid", "openid offline_access"} {
			more := url.Values{"redirect_uri": {redirect}, "scope": {scope}, "prompt": {"none"}}
			if got := chrome.Get(s.authorizeURL("native", more)).To(
				t,
			); got.Query().Get("error") != "consent_required" || got.Query().Get("code") != "" {
				t.Errorf("%s, %s, nobody asks: %s", redirect, scope, got)
			}
			more.Del("prompt")
			for range 2 { // not only the first time
				to := chrome.Get(s.authorizeURL("native", more)).To(t)
				if to.Path != "/oidc/consent" {
					t.Errorf("%s, %s: %s", redirect, scope, to)
					continue
				}
				if page := chrome.Get(to.String()); !strings.Contains(page.Body, "native") ||
					!strings.Contains(page.Body, "on this device") {
					t.Errorf("%s: %s", redirect, page.Body)
				}
				back := chrome.GoOn(to.String())
				if got := redeem(back, redirect); got.Status != 200 { // the control
					t.Errorf("%s: %d %s", redirect, got.Status, got.Body)
				}
			}
			// The page of an earlier log-in is not valid for this one.
			if got := chrome.Get(s.authorizeURL("native", more)).To(t); got.Path != "/oidc/consent" {
				t.Errorf("%s, after a log-in: %s", redirect, got)
			}
		}
	}
	if got := chrome.Get(s.authorizeURL("native", url.Values{
		"redirect_uri": {"https://native.example/callback"}, "prompt": {"none"},
	})).To(t); got.Query().Get("code") == "" {
		t.Errorf("control, an https redirect: %s", got)
	}
	// Tokens in the address line need no secret.
	s.load("client hybrid {\n secret "+appSecret+"\n redirect_uri http://localhost:4712/callback\n"+
		" response_types code id_token \"id_token token\"\n consent never\n}\n", "", s.dir)
	for responseType, want := range map[string]string{
		"id_token": "consent_required", "id_token token": "consent_required", "code": "",
	} {
		to := chrome.Get(s.authorizeURL("hybrid", url.Values{
			"redirect_uri": {"http://localhost:4712/callback"}, "response_type": {responseType}, "prompt": {"none"},
		})).To(t)
		values, err := url.ParseQuery(to.RawQuery + to.Fragment)
		if err != nil || values.Get("error") != want || values.Get("iss") != s.URL {
			t.Errorf("%s of a client with a secret: %s", responseType, to)
		}
	}
}

// Two providers with the same store share only the users.
func TestThreatStateOfAnotherIssuer(t *testing.T) {
	other := sitetest.FreeLocalhost(t)
	s := serveClients(t)
	s.load(fmt.Sprintf(clientsOfTests, ""), fmt.Sprintf(
		"}\nhttp://%s {\n oidc_provider {\n issuer http://%s\n accounts {\n signup open\n issuer other\n"+
			" store file %s/users.db\n throttle off\n}\n%s\n}\n",
		other, other, s.dir, fmt.Sprintf(clientsOfTests, ""),
	), s.dir)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	elsewhere := chrome.goTo(&site{Site: &sitetest.Site{T: t, URL: "http://" + other}})
	tokens := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	elsewhere.redeem("app", chrome.code("app", nil)).MustFail(t, 400, "invalid_grant")
	elsewhere.refresh("app", tokens["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")
	if got := elsewhere.Do(
		http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+tokens["access_token"].(string),
	); got.Status != 401 {
		t.Errorf("an access token there: %d", got.Status)
	}
	waiting := s.browser().Get(s.authorizeURL("app", nil)).To(t).Query().Get("return_to")
	if got := elsewhere.Get(waiting); got.Status != 400 {
		t.Errorf("a log-in that waits, there: %d", got.Status)
	}
	if got := chrome.refresh("app", tokens["refresh_token"].(string)); got.Status != 200 {
		t.Errorf("control: %d %s", got.Status, got.Body)
	}
}

// Wrong secrets with a slow hash are throttled, because the users' passwords wait in the same
// queue.
func TestThreatClientSecretGuesses(t *testing.T) {
	// of "right", and quick
	hash := "$argon2id$v=19$m=8,t=1,p=1$c29tZSBzYWx0IG9mIG91cnM$QOTxbXWr1TtSzaBdErLIhI4s5NdNGqs8gfJ+M9Rrh2A"
	s := serve(t, "client app {\n secret "+hash+"\n redirect_uri "+appCallback+"\n}\n", "")
	with := func(secret string) sitetest.Reply {
		return s.browser().Post(
			"/oidc/token",
			url.Values{"grant_type": {"authorization_code"}, "code": {"none"}, "redirect_uri": {appCallback}},
			sitetest.Basic("app", secret),
		)
	}
	with("right").MustFail(t, 400, "invalid_grant")
	mustBeBounded(t, secretTries, 0, func() int { return with("wrong").Status })
	with("right").MustFail(t, 400, "invalid_grant") // the client is authenticated
}

// A deleted client has no access any more, and neither has a new one with the same name.
func TestThreatClientMadeAnew(t *testing.T) {
	s := serveClients(t)
	users := s.store()
	add := func(since string) {
		t.Helper()
		s.addClient("wiki", since, func(*provider.Client) {})
	}
	add("1")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	more := url.Values{"redirect_uri": {"https://wiki.example/"}}
	tokens := chrome.exchange("wiki", url.Values{
		"grant_type": {"authorization_code"}, "code": {chrome.code("wiki", more)},
		"redirect_uri": {"https://wiki.example/"}, "code_verifier": {verifier},
	}).JSON(t)
	if !chrome.live(tokens["access_token"]) {
		t.Fatal("control")
	}
	if _, err := users.TakeRecord(t.Context(), kindClient, "wiki", time.Now()); err != nil {
		t.Fatal(err)
	}
	if chrome.live(tokens["access_token"]) {
		t.Error("good after the client was deleted")
	}
	add("2")
	if chrome.live(tokens["access_token"]) {
		t.Error("good for another client of that name")
	}
	chrome.refresh("wiki", tokens["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")
	if to := chrome.Get(s.authorizeURL("wiki", more)).To(t); to.Path != "/oidc/consent" {
		t.Errorf("not asked again: %s", to)
	}
}

// A new password ends the grants for offline use.
func TestThreatOfflineAccessAfterPasswordChange(t *testing.T) {
	chrome := serveClients(t).browser()
	chrome.SignUp("alice@example.com")
	tokens := chrome.redeem("spa", chrome.code("spa", url.Values{"scope": {"openid offline_access"}})).JSON(t)
	tokens = chrome.refresh("spa", tokens["refresh_token"].(string)).JSON(t)
	if got := chrome.Post("/auth/password", url.Values{
		"currentPassword": {sitetest.GoodPassword}, "newPassword": {"another good password"},
	}); got.Status != 200 {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	chrome.refresh("spa", tokens["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")
}

// If a log-in upgrades the hash of the password, the grants for offline use stay valid. They still
// end with the password.
func TestOfflineAccessAfterRehash(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	users := s.store()
	user, err := users.UserByEmail(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	weak, err := bcrypt.GenerateFromPassword([]byte(sitetest.GoodPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := users.UpdateUser(
		t.Context(), user.ID, time.Now(), func(u *store.User) error { u.PasswordHash = string(weak); return nil },
	); err != nil {
		t.Fatal(err)
	}
	tokens := chrome.redeem("spa", chrome.code("spa", url.Values{"scope": {"openid offline_access"}})).JSON(t)
	s.browser().GoOn(s.authorizeURL("spa", nil)) // logs in
	if user, err = users.UserByEmail(t.Context(), "alice@example.com"); err != nil ||
		user.PasswordHash == string(weak) {
		t.Fatalf("the hash is the same: %v", err)
	}
	got := chrome.refresh("spa", tokens["refresh_token"].(string))
	if got.Status != 200 {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	if got := chrome.Post("/auth/password", url.Values{
		"currentPassword": {sitetest.GoodPassword}, "newPassword": {"another good password"},
	}); got.Status != 200 {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	chrome.refresh("spa", got.JSON(t)["refresh_token"].(string)).MustFail(t, 400, "invalid_grant")
}

func TestThreatIntrospectionTellsNoMoreThanScopes(t *testing.T) {
	chrome := serveClients(t).browser()
	chrome.SignUp("alice@example.com")
	for scope, told := range map[string]bool{"openid": false, "openid email": true} {
		tokens := chrome.redeem("spa", chrome.code("spa", url.Values{"scope": {scope}})).JSON(t)
		got := chrome.Post(
			"/oidc/introspect", url.Values{"token": {tokens["access_token"].(string)}},
			sitetest.Basic("api", appSecret),
		).JSON(t)
		if got["active"] != true || (got["username"] != nil) != told {
			t.Errorf("%s: %v", scope, got)
		}
	}
}

// A client can introspect its own tokens, and an API those of all clients.
func TestThreatIntrospectionOfOthersTokens(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	of := map[string]string{"spa": chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)["access_token"].(string)}
	of["app"] = chrome.redeem(
		"app", chrome.code("app", url.Values{"scope": {"openid roles"}}),
	).JSON(t)["access_token"].(string)
	of["a machine"] = chrome.exchange("app", url.Values{
		"grant_type": {"client_credentials"},
	}).JSON(t)["access_token"].(string)
	for token, c := range map[string]struct{ own, other []string }{
		"spa":       {[]string{"api"}, []string{"app", "web", "other"}},
		"app":       {[]string{"api", "app"}, []string{"web", "other"}},
		"a machine": {[]string{"api", "app"}, []string{"web", "other"}},
	} {
		ask := func(client string) sitetest.Reply {
			secret := map[string]string{"other": "another-secret-0123456789"}[client]
			if secret == "" {
				secret = appSecret
			}
			return chrome.Post("/oidc/introspect", url.Values{"token": {of[token]}}, sitetest.Basic(client, secret))
		}
		for _, client := range c.own { // the controls
			got := ask(client).JSON(t)
			if got["active"] != true || got["sub"] != sitetest.ClaimsOf(t, of[token])["sub"] || got["iss"] != s.URL {
				t.Errorf("%s of %s: %v", client, token, got)
			}
			if roles, given := sitetest.ClaimsOf(t, of[token])["roles"]; given &&
				fmt.Sprint(roles) != fmt.Sprint(got["roles"]) {
				t.Errorf("%s of %s: roles are %v, in the token %v", client, token, got["roles"], roles)
			}
		}
		for _, client := range c.other {
			if got := ask(client); got.Status != 200 || got.Body != `{"active":false}` {
				t.Errorf("%s of %s: %d %s", client, token, got.Status, got.Body)
			}
		}
	}
}

// The API of docs/oidc.md accepts neither a client without the scope, nor a machine that pretends
// to be a user.
func TestThreatTokensAtAnAPI(t *testing.T) {
	api, users := sitetest.FreeLocalhost(t), sitetest.FreeLocalhost(t)
	s := serveClients(t)
	site := "}\nhttp://%s {\n jwt {\n issuer " + s.URL + "\n audience " + s.URL + "\n token_type at+jwt\n" +
		" require scope read:todos\n %s\n}\n respond \"{http.auth.user.id} {http.auth.user.client_id}\"\n"
	s.load(fmt.Sprintf(clientsOfTests, ""), fmt.Sprintf(site, api, "")+fmt.Sprintf(
		site, users, "require expression `!claims.sub.endsWith('@clients')`",
	), s.dir)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	at := func(host, token string) sitetest.Reply {
		return chrome.Do(http.MethodGet, "http://"+host+"/", nil, "Authorization: Bearer "+token)
	}
	user := chrome.redeem(
		"app", chrome.code("app", url.Values{"scope": {"openid read:todos"}}),
	).JSON(t)["access_token"].(string)
	machine := chrome.exchange("app", url.Values{
		"grant_type": {"client_credentials"}, "scope": {"read:todos"},
	}).JSON(t)["access_token"].(string)
	evil := chrome.redeem("other", chrome.code("other", url.Values{"redirect_uri": {"https://other.example/callback"}}))
	if evil.Status != 200 { // it has another redirect URI
		evil = chrome.exchange("other", url.Values{
			"grant_type":   {"authorization_code"},
			"code":         {chrome.code("other", url.Values{"redirect_uri": {"https://other.example/callback"}})},
			"redirect_uri": {"https://other.example/callback"}, "code_verifier": {verifier},
		})
	}
	for _, host := range []string{api, users} {
		sitetest.Eventually(t, "the API has the keys", func() bool { return at(host, user).Status == 200 })
	}
	id := sitetest.ClaimsOf(t, user)["sub"].(string)
	if got := at(api, user); got.Body != id+" app" {
		t.Errorf("control: %s", got.Body)
	}
	if got := at(api, machine); got.Body != "app@clients app" {
		t.Errorf("control, a machine: %s", got.Body)
	}
	if got := at(users, machine); got.Status != 403 {
		t.Errorf("a machine passes for a user: %d %s", got.Status, got.Body)
	}
	if got := at(api, evil.JSON(t)["access_token"].(string)); got.Status != 403 {
		t.Errorf("a client without the scope: %d %s", got.Status, got.Body)
	}
	if got := chrome.Do(http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+machine); got.Status != 403 ||
		strings.Contains(got.Body, "@clients") {
		t.Errorf("userinfo of a machine: %d %s", got.Status, got.Body)
	}
	users2 := filepath.Join(t.TempDir(), "users.jsonl")
	if err := os.WriteFile(
		users2, []byte(`{"id":"app@clients","email":"m@example.com","password_hash":""}`+"\n"), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command(
		caddytest.Binary(t), "jwt", "user", "import", "--create", "--store",
		filepath.Join(t.TempDir(), "users.db"), users2,
	).CombinedOutput(); err == nil ||
		!strings.Contains(string(output), "id must be a UUID, or") {
		t.Errorf("a user with the ID of a machine: %v %s", err, output)
	}
}

// If a request requires something impossible, the response is an error, not an endless redirect.
func TestRequestsThatCannotBeMet(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	for claims, code := range map[string]string{
		`{"id_token":{"acr":{"essential":true,"values":["urn:gold"]}}}`:         "unmet_authentication_requirements",
		`{"id_token":{"sub":{"value":12345}}}`:                                  "invalid_request",
		`{"id_token":{"sub":{"values":["other"]}}}`:                             "invalid_request",
		`{"userinfo":{"sub":{"value":"other"}}}`:                                "login_required",
		`{"id_token":{"acr":{"essential":true,"value":"` + acrPassword + `"}}}`: "",
	} {
		got := chrome.Get(s.authorizeURL("spa", url.Values{"prompt": {"none"}, "claims": {claims}})).To(t).Query()
		if got.Get("error") != code || (code == "") != (got.Get("code") != "") {
			t.Errorf("%s: %v", claims, got)
		}
	}
	hint := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)["id_token"].(string)
	frank := s.browser()
	frank.SignUp("frank@example.com")
	to := frank.Get(s.authorizeURL("spa", url.Values{"id_token_hint": {hint}})).To(t)
	back := frank.Post("/auth/login", url.Values{
		"email": {"frank@example.com"}, "password": {sitetest.GoodPassword}, "return_to": {to.Query().Get("return_to")},
	}).To(t)
	if got := frank.Get(back.String()).To(t).Query().Get("error"); got != "login_required" {
		t.Errorf("frank, for a hint of alice: %q", got)
	}
}

// The log-in page has a link back to the client.
func TestCancelledLogin(t *testing.T) {
	s := serveClients(t)
	nobody := s.browser()
	page := nobody.Get(nobody.Get(s.authorizeURL("spa", nil)).To(t).String())
	_, link, found := strings.Cut(page.Body, `<a href="/oidc/authorize?`)
	if !found || !strings.Contains(link, ">Cancel and go back<") {
		t.Fatalf("no way back: %s", page.Body)
	}
	to := nobody.Get(s.authorizeURL("app", nil)).To(t)
	for _, path := range []string{"/auth/login", "/auth/signup"} {
		if page := nobody.Get(path + "?" + to.RawQuery).Body; !strings.Contains(page, "continue to <strong>The App</strong>") {
			t.Errorf("%s does not name the client: %s", path, page)
		}
	}
	link, _, _ = strings.Cut(link, `"`)
	got := nobody.Get("/oidc/authorize?" + strings.ReplaceAll(link, "&amp;", "&")).To(t)
	if !strings.HasPrefix(got.String(), spaCallback) || got.Query().Get("error") != "access_denied" ||
		got.Query().Get("state") != "a state" {
		t.Errorf("back at %s", got)
	}
}

// Clients that could not be notified of a log-out are notified after a restart, even if their
// grants have ended.
func TestLogoutIsToldAfterARestart(t *testing.T) {
	var up atomic.Bool
	told := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			w.WriteHeader(503)
			return
		}
		told <- r.PostFormValue("logout_token")
	}))
	defer receiver.Close()
	clients := fmt.Sprintf(clientsOfTests, "backchannel_logout_uri "+receiver.URL)
	s := serve(t, clients, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	tokens := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	if got := chrome.Post(
		"/oidc/revoke", url.Values{"token": {tokens["refresh_token"].(string)}}, sitetest.Basic("app", appSecret),
	); got.Status != 200 {
		t.Fatalf("%d", got.Status)
	}
	chrome.Post("/auth/logout", url.Values{})
	sitetest.Eventually(t, "it is tried", func() bool {
		all, err := s.store().Records(context.Background(), s.kind(kindLogout), "", time.Now())
		return err == nil && len(all) == 1 && strings.Contains(string(all[0].Value), `"tries"`)
	})
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	up.Store(true)
	s.load(clients, "", s.dir)
	select {
	case token := <-told:
		if sitetest.ClaimsOf(t, token)["sid"] != sitetest.ClaimsOf(t, tokens["id_token"].(string))["sid"] {
			t.Errorf("told of %v", sitetest.ClaimsOf(t, token))
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the client is not told")
	}
}

// private_key_jwt (RFC 7523 §3): each assertion must come from the client, be issued for this
// provider and a short time, and is valid once.
func TestThreatClientAssertions(t *testing.T) {
	keys := sitetest.Keys()
	public := sitetest.PEM(t, keys.RSA)
	s := serve(t, "client robot {\n public_key \""+public+"\"\n grant_types client_credentials\n scopes read:todos\n"+
		"}\nclient other {\n secret another-secret-0123456789\n grant_types client_credentials\n}\n", "")
	header := map[string]any{"alg": "RS256", "typ": "JWT"}
	ask := func(path string, header map[string]any, change func(
		claims map[string]any,
	), sign func(header, claims map[string]any) string) sitetest.Reply {
		now := time.Now().Unix()
		claims := map[string]any{
			"iss": "robot", "sub": "robot", "aud": s.URL + "/oidc/token",
			"iat": now, "exp": now + 60, "jti": store.RandomToken(32),
		}
		if change != nil {
			change(claims)
		}
		return s.browser().Post(path, url.Values{
			"grant_type": {"client_credentials"}, "client_assertion_type": {assertionType},
			"client_assertion": {sign(header, claims)},
		})
	}
	right := func(header, claims map[string]any) string {
		return sitetest.SignExactly(t, "RS256", keys.RSA, header, claims)
	}
	for _, aud := range []any{s.URL, s.URL + "/oidc/token", s.URL + "/oidc/par", []string{s.URL}} {
		if got := ask(
			"/oidc/token", header, func(claims map[string]any) { claims["aud"] = aud }, right,
		); got.Status != 200 {
			t.Errorf("control, aud %v: %d %s", aud, got.Status, got.Body)
		}
	}
	for _, aud := range [][]string{
		{s.URL, "https://other.example"}, {"https://other.example", s.URL + "/oidc/token"},
		{s.URL, s.URL + "/oidc/token"}, {},
	} {
		if got := ask(
			"/oidc/token", header, func(claims map[string]any) { claims["aud"] = aud }, right,
		); got.Status != 401 {
			t.Errorf("for others too, aud %v: %d %s", aud, got.Status, got.Body)
		}
	}
	jti := store.RandomToken(32)
	for i, status := range []int{200, 401} {
		if got := ask(
			"/oidc/token", header, func(claims map[string]any) { claims["jti"] = jti }, right,
		); got.Status != status {
			t.Errorf("use %d of an assertion: %d %s", i+1, got.Status, got.Body)
		}
	}
	set := func(name string, value any) func(map[string]any) {
		return func(claims map[string]any) { claims[name] = value }
	}
	without := func(name string) func(map[string]any) {
		return func(claims map[string]any) { delete(claims, name) }
	}
	hmacWithPublicKey := func(header, claims map[string]any) string {
		return sitetest.SignExactly(t, "HS256", []byte(public), header, claims)
	}
	for name, attack := range map[string]struct {
		header map[string]any
		change func(map[string]any)
		sign   func(header, claims map[string]any) string
	}{
		"a stranger's key": {header, nil, func(header, claims map[string]any) string {
			return sitetest.SignExactly(t, "RS256", keys.StrangerRSA, header, claims)
		}},
		"no signature": {map[string]any{"alg": "none"}, nil, func(header, claims map[string]any) string {
			return sitetest.Unsigned(t, header, claims) + "."
		}},
		"HMAC by the key":       {map[string]any{"alg": "HS256"}, nil, hmacWithPublicKey},
		"for somebody else":     {header, set("aud", "https://other.example/token"), right},
		"for no one":            {header, without("aud"), right},
		"expired":               {header, set("exp", time.Now().Add(-time.Minute).Unix()), right},
		"without expiry":        {header, without("exp"), right},
		"good for a day":        {header, set("exp", time.Now().Add(24*time.Hour).Unix()), right},
		"without an ID":         {header, without("jti"), right},
		"issued by another":     {header, set("iss", "other"), right},
		"about another":         {header, set("sub", "other"), right},
		"an ID token's type":    {map[string]any{"alg": "RS256", "typ": "logout+jwt"}, nil, right},
		"a critical extension":  {map[string]any{"alg": "RS256", "crit": []string{"x"}, "x": 1}, nil, right},
		"not good before later": {header, set("nbf", time.Now().Add(time.Hour).Unix()), right},
	} {
		if got := ask("/oidc/token", attack.header, attack.change, attack.sign); got.Status != 401 ||
			got.JSON(t)["error"] != "invalid_client" {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
}
