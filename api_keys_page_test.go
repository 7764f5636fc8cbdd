package caddyjwt_test

import (
	"html"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// servePages serves a site whose users make their own keys.
func servePages(t *testing.T) *apiKeySite {
	t.Helper()
	file := filepath.Join(sitetest.TempDir(t), "users.db")
	return &apiKeySite{sitetest.Serve(t, `
	jwt /api/* {
		api_keys
		accounts {
			store file `+file+`
			signup open
			default_roles author admin
		}
	}
	metrics /metrics
	respond /api/* "{http.auth.user.id} [{http.auth.user.roles}] [{http.auth.user.scope}]"`),
		accountstest.CommandLine{TB: t, Where: []string{"--store", file}}, file}
}

var shownKey = regexp.MustCompile(apikeys.Pattern("key"))

// The form is the same in each language: what is chosen is sent as in English.
func TestAPIKeyPageInLanguages(t *testing.T) {
	s := servePages(t)
	v := s.Visitor()
	v.SignUp("alice@example.com")
	option := regexp.MustCompile(`<option value="(.*?)"`)
	for _, language := range []string{"en", "de", "ja"} {
		accept := "Accept-Language: " + language
		options := option.FindAllStringSubmatch(v.Do("GET", "/auth/keys", nil, accept).Body, -1)
		if len(options) != 4 {
			t.Fatalf("%s: options %v", language, options)
		}
		for _, chosen := range options {
			s.MustAnswer(200, v.Do("POST", "/auth/keys", url.Values{"name": {"x"}, "expires": {chosen[1]}}, accept), language)
		}
	}
}

// A user makes a key on the page, uses it, rolls and revokes it, all without JavaScript.
func TestAPIKeyPage(t *testing.T) {
	s := servePages(t)
	v := s.Visitor()
	if to := v.Get("/auth/keys").To(t); to.Path != "/auth/login" || to.Query().Get("return_to") != "/auth/keys" {
		t.Errorf("without a session it leads to %s", to)
	}
	v.SignUp("alice@example.com")
	alice := accountstest.UserOf(t, "alice@example.com")
	if page := v.Get("/auth/account"); !strings.Contains(page.Body, `<a href="/auth/keys">Your API keys</a>`) {
		t.Error("the account page does not lead to the keys")
	}
	page := v.Post("/auth/keys", url.Values{
		"name": {"backup <b>"}, "roles.author": {"on"}, "roles.owner": {"on"}, "expires": {"90d"},
	})
	key := shownKey.FindString(page.Body)
	if page.Status != 200 || key == "" || !strings.Contains(page.Body, "backup &lt;b&gt;") ||
		page.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the key is not shown: %d %s", page.Status, page.Body)
	}
	got := s.Bearer("/api/", key)
	if s.MustAnswer(200, got, "the key, at once"); got.Body != alice.ID+" [author] []" {
		t.Errorf("got %q", got.Body)
	}
	if again := v.Get("/auth/keys"); strings.Contains(again.Body, key) || !strings.Contains(again.Body, apikeys.IDIn(key)) {
		t.Error("the key is shown again, or its ID is not")
	}
	s.MustAnswer(401, s.Bearer("/auth/whoami", key), "a key at the account routes")

	path := "/auth/keys/" + apikeys.IDIn(key)
	rolled := shownKey.FindString(v.Post(path, url.Values{"action": {"roll"}}).Body)
	if rolled == "" || rolled == key {
		t.Fatal("no new key is shown")
	}
	s.MustAnswer(200, s.Bearer("/api/", rolled), "the new key, at once")
	s.MustAnswer(200, s.Bearer("/api/", key), "the old key, for a day")
	if export := v.Get("/auth/export").Body; !strings.Contains(export, `"id":"`+apikeys.IDIn(key)+`"`) ||
		strings.Contains(export, key) || strings.Contains(export, rolled) {
		t.Errorf("the export of the account has not the key, or all of it: %s", export)
	}
	v.Post(path, url.Values{"action": {"revoke"}}).To(t)
	s.MustAnswer(401, s.Bearer("/api/", rolled), "a revoked key, at once")
	s.MustAnswer(401, s.Bearer("/api/", key), "the old secret of a revoked key")
	if page := v.Get("/auth/keys"); !strings.Contains(page.Body, "You have no API keys.") {
		t.Error("the key is still listed")
	}
	log := s.Log()
	accountstest.Has(t, log, `"msg":"API key made"`, `"msg":"API key rolled"`, `"msg":"API key revoked"`,
		`"key_id":"`+apikeys.IDIn(key)+`"`)
	if strings.Contains(log, key) || strings.Contains(log, rolled) {
		t.Error("a key is logged")
	}
	accountstest.Has(t, s.Get("/metrics").Body, `caddy_jwt_account_events_total{event="api_key",result="revoked",`,
		"caddy_jwt_api_keys 0")
}

// Programs make, list, roll and revoke keys in JSON.
func TestAPIKeyRoutes(t *testing.T) {
	s := servePages(t)
	tokens := s.SignedUp("alice@example.com")
	bearer := "Authorization: Bearer " + tokens.Token
	made := s.Post("/auth/keys", sitetest.JSON{"name": "ci", "roles": []string{"author"}, "expires": "30d"}, bearer)
	s.MustAnswer(201, made, "a new key")
	key, id := made.JSON(t)["key"].(string), made.JSON(t)["id"].(string)
	s.MustAnswer(200, s.Bearer("/api/", key), "the key")
	list := s.Get("/auth/keys", bearer)
	if s.MustAnswer(200, list, "the list"); !strings.Contains(list.Body, `"name":"ci"`) || strings.Contains(list.Body, key) {
		t.Error(list.Body)
	}
	rolled := s.Post("/auth/keys/"+id, sitetest.JSON{}, bearer)
	s.MustAnswer(200, rolled, "a roll")
	s.MustAnswer(401, s.Bearer("/api/", key), "the old key without a grace period")
	s.MustAnswer(200, s.Bearer("/api/", rolled.JSON(t)["key"].(string)), "the new key")
	accountstest.Has(t, s.Get("/auth/openapi.json").Body, `"/auth/keys/{id}"`)

	for name, c := range map[string]struct {
		body   sitetest.JSON
		status int
		text   string
	}{
		"no name":                        {sitetest.JSON{}, 422, "is required"},
		"a role that the user lacks":     {sitetest.JSON{"name": "x", "roles": []string{"owner"}}, 422, "must be some of your own"},
		"a scope that the user lacks":    {sitetest.JSON{"name": "x", "scope": []string{"account"}}, 422, "must be some of your own"},
		"roles that are not a list":      {sitetest.JSON{"name": "x", "roles": "author"}, 422, "must be a list"},
		"an expiry that is none":         {sitetest.JSON{"name": "x", "expires": "soon"}, 422, "such as 90d"},
		"an expiry that is a number":     {sitetest.JSON{"name": "x", "expires": 5}, 422, "such as 90d"},
		"an empty expiry":                {sitetest.JSON{"name": "x", "expires": ""}, 422, "such as 90d"},
		"an expiry that is null":         {sitetest.JSON{"name": "x", "expires": nil}, 422, "such as 90d"},
		"letters of the other way":       {sitetest.JSON{"name": "a\u202eb"}, 422, "invisible characters"},
		"an expiry far away":             {sitetest.JSON{"name": "x", "expires": "9999d"}, 422, "at most 10 years"},
		"a subject":                      {sitetest.JSON{"name": "x", "subject": "bob"}, 422, "is not a known property"},
		"a name with 101 characters":     {sitetest.JSON{"name": strings.Repeat("ü", 101)}, 422, "more than 100 characters"},
		"control characters in its name": {sitetest.JSON{"name": "a\nb"}, 422, "invisible characters"},
	} {
		got := s.Post("/auth/keys", c.body, bearer)
		if got.Status != c.status || !strings.Contains(got.Body, c.text) {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	bob := "Authorization: Bearer " + s.SignedUp("bob@example.com").Token
	for _, method := range []string{http.MethodDelete, http.MethodPost} {
		if got := s.Send(method, "/auth/keys/"+id, "{}", bob, "Content-Type: application/json"); got.Status != 404 {
			t.Errorf("%s of somebody else's key: %d", method, got.Status)
		}
	}
	s.MustAnswer(204, s.Do(http.MethodDelete, "/auth/keys/"+id, bearer), "a revocation")
	s.MustAnswer(404, s.Do(http.MethodDelete, "/auth/keys/"+id, bearer), "a second one")
	for i := range 60 {
		if got := s.Post("/auth/keys", sitetest.JSON{"name": "many"}, bearer); got.Status != 201 {
			s.refused(got, 409, "too_many_keys")
			if i != 50 {
				t.Errorf("%d keys were made", i)
			}
			break
		}
	}
}

// Somebody who has taken over a session cannot make a key that outlives it, and a page of another
// site cannot make the browser do it.
func TestAPIKeyPageAttacks(t *testing.T) {
	clock := sitetest.SetClock(t)
	s := servePages(t)
	v := s.Visitor()
	v.SignUp("alice@example.com")
	fields := url.Values{"name": {"x"}, "expires": {"never"}}
	if got := v.Post("/auth/keys", fields, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"); got.Status != 403 {
		t.Errorf("from another site: %d", got.Status)
	}
	clock.Ahead.Store(600)
	page := v.Post("/auth/keys", fields)
	if page.Status != 403 || shownKey.MatchString(page.Body) || !strings.Contains(page.Body, `name="currentPassword"`) {
		t.Errorf("an old session without the password: %d %s", page.Status, page.Brief())
	}
	fields.Set("currentPassword", "wrong horse battery")
	if page := v.Post("/auth/keys", fields); page.Status != 401 ||
		!strings.Contains(html.UnescapeString(page.Body), "The current password is wrong.") {
		t.Errorf("a wrong password: %d %s", page.Status, page.Brief())
	}
	fields.Set("currentPassword", sitetest.GoodPassword)
	key := shownKey.FindString(v.Post("/auth/keys", fields).Body)
	if key == "" {
		t.Fatal("the right password makes no key")
	}
	s.MustAnswer(401, s.Get("/auth/keys", "Authorization: Bearer "+key), "a key at the page of keys")
}

// A key that a user made has a role only as long as its user has it.
func TestAPIKeyLosesRoles(t *testing.T) {
	s := servePages(t)
	tokens := s.SignedUp("alice@example.com")
	made := s.Post(
		"/auth/keys", sitetest.JSON{"name": "ci", "roles": []string{"author", "admin"}}, "Authorization: Bearer "+tokens.Token,
	)
	s.MustAnswer(201, made, "a new key")
	key := made.JSON(t)["key"].(string)
	if got := s.Bearer("/api/", key); !strings.Contains(got.Body, "[author,admin]") {
		t.Errorf("got %q", got.Body)
	}
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Roles = []string{"author"} })
	sitetest.Eventually(t, "the role is gone", func() bool {
		return strings.Contains(s.Bearer("/api/", key).Body, "[author]")
	})
}

// Who gets an account back by a new password ends the keys that somebody else may have made.
func TestAPIKeysEndWithRecovery(t *testing.T) {
	s := servePages(t)
	s.SignedUp("alice@example.com")
	for name, recover := range map[string]func(){
		"a reset link": func() {
			link := s.Must("", "user", "reset-link", "--base", s.URL, "alice@example.com")
			token := link[strings.Index(link, "token=")+len("token="):]
			got := s.Post("/auth/reset", sitetest.JSON{
				"token": strings.Fields(token)[0], "newPassword": sitetest.GoodPassword + " 2",
			})
			s.MustAnswer(204, got, "the reset")
		},
		"passwd": func() { s.Must(sitetest.GoodPassword+" 3\n", "user", "passwd", "alice@example.com") },
	} {
		id := accountstest.UserOf(t, "alice@example.com").ID
		key := s.Must("", "key", "add", "--subject", id)
		key = strings.TrimSpace(key)
		sitetest.Eventually(t, "the site knows the key", func() bool { return s.Bearer("/api/", key).Status == 200 })
		recover()
		sitetest.Eventually(t, "the key is refused after "+name, func() bool { return s.Bearer("/api/", key).Status == 401 })
	}
}

// A user can only revoke a key that an administrator made: its roles may be more than the user's.
func TestAPIKeyOfAnAdministrator(t *testing.T) {
	s := servePages(t)
	tokens := s.SignedUp("alice@example.com")
	bearer := "Authorization: Bearer " + tokens.Token
	key := strings.TrimSpace(s.Must("", "key", "add", "--subject", "alice@example.com", "--role", "owner"))
	sitetest.Eventually(t, "the site knows the key", func() bool { return s.Bearer("/api/", key).Status == 200 })
	path := "/auth/keys/" + apikeys.IDIn(key)
	s.refused(s.Post(path, sitetest.JSON{}, bearer), 403, "key_not_own")
	s.MustAnswer(401, s.Get("/api/", "Cookie: session="+key), "the key in the session cookie")
	s.MustAnswer(204, s.Do(http.MethodDelete, path, bearer), "a revocation")
}

// Without API keys in the accounts' store, there is no page.
func TestNoAPIKeyPage(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	tokens := s.SignedUp("alice@example.com")
	if got := s.Get("/auth/keys", "Authorization: Bearer "+tokens.Token); got.Body != "" || got.Status != 200 {
		t.Errorf("not the next handler: %d %s", got.Status, got.Body)
	}
}

func TestAPIKeyOfADeletedAccount(t *testing.T) {
	s := servePages(t)
	v := s.Visitor()
	v.SignUp("alice@example.com")
	key := shownKey.FindString(v.Post("/auth/keys", url.Values{"name": {"backup"}}).Body)
	s.MustAnswer(200, s.Bearer("/api/", key), "control")
	s.MustAnswer(200, v.Post("/auth/delete", url.Values{
		"decision": {"yes"}, "currentPassword": {sitetest.GoodPassword},
	}), "deleted")
	s.MustAnswer(401, s.Bearer("/api/", key), "at once")
}
