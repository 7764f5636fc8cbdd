package web_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

func jsonOf(t *testing.T, reply sitetest.Reply) (object map[string]any) {
	t.Helper()
	if err := json.Unmarshal([]byte(reply.Body), &object); err != nil {
		t.Fatalf("%v in %q", err, reply.Body)
	}
	return object
}

func asJSON(token string) []string {
	return []string{"Authorization: Bearer " + token, "Content-Type: application/json"}
}

func TestProfileOfOnesOwn(t *testing.T) {
	s := sitetest.AccountsSite(t, "profile name nickname address")
	alice := s.SignedUp("alice@example.com")
	patch := func(body string) sitetest.Reply {
		return s.Send(http.MethodPatch, "/auth/whoami", body, asJSON(alice.Token)...)
	}
	s.MustAnswer(200, patch(`{"name":"Alice A.","nickname":"Al","address":{"city":"Paris"}}`), "set")
	got := patch(`{"name":"Alice B.","nickname":null}`)
	s.MustAnswer(200, got, "changed and removed")
	for _, reply := range []sitetest.Reply{got, s.Bearer("/auth/whoami", alice.Token)} {
		user := jsonOf(t, reply)
		address, _ := user["address"].(map[string]any)
		if _, there := user["nickname"]; there || user["name"] != "Alice B." || address["city"] != "Paris" {
			t.Errorf("the user is %v", user)
		}
	}
	for name, body := range map[string]string{
		"roles": `{"roles":["admin"]}`, "id": `{"id":"x"}`, "email": `{"email":"b@example.com"}`,
		"unknown property": `{"plan":"gold"}`, "password": `{"password":"another password"}`,
		"emailVerified": `{"emailVerified":true}`, "too long": `{"name":"` + strings.Repeat("x", 5000) + `"}`,
		"one of them is wrong": `{"name":"Mallory","roles":["admin"]}`,
	} {
		s.MustAnswer(422, patch(body), name)
	}
	s.MustAnswer(400, patch(`["name"]`), "a list")
	s.MustAnswer(415, s.Send(
		http.MethodPatch, "/auth/whoami", "name=x", "Authorization: Bearer "+alice.Token,
		"Content-Type: application/x-www-form-urlencoded",
	), "a form")
	s.MustAnswer(401, s.Send(http.MethodPatch, "/auth/whoami", `{"name":"x"}`, "Content-Type: application/json"), "nobody")
	if user := jsonOf(t, s.Bearer("/auth/whoami", alice.Token)); user["name"] != "Alice B." {
		t.Errorf("after refused changes the user is %v", user)
	}
}

// What the operator has verified is no longer so when its user changes it.
func TestThreatVerifiedPropertyChanged(t *testing.T) {
	s := sitetest.AccountsSite(t, "profile name phone_number")
	alice := s.SignedUp("alice@example.com")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) {
		u.Profile = map[string]any{"phone_number": "+31 20 123", "phone_number_verified": true}
	})
	for _, c := range []struct {
		body     string
		verified bool
	}{
		{`{"name":"Alice"}`, true}, {`{"phone_number":"+31 20 123"}`, true}, {`{"phone_number":"+1 900 555"}`, false},
		{`{"phone_number":"+31 20 123"}`, false},
	} {
		s.MustAnswer(200, s.Send(http.MethodPatch, "/auth/whoami", c.body, asJSON(alice.Token)...), c.body)
		if got := accountstest.UserOf(t, "alice@example.com").Profile["phone_number_verified"] == true; got != c.verified {
			t.Errorf("after %s the number is verified: %v", c.body, got)
		}
	}
}

func TestAccountPageOfOnesOwn(t *testing.T) {
	s := sitetest.AccountsSite(t, "profile name employer")
	v := s.Visitor()
	v.SignUp("alice@example.com")
	page := v.Get("/auth/account")
	for _, want := range []string{
		`name="name" value="Alice A."`, `name="employer" value="Example Ltd"`, "Last used", "just now",
		`href="/auth/export"`, `href="/auth/delete"`,
	} {
		if !strings.Contains(page.Body, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	s.MustAnswer(200, v.Post("/auth/account", url.Values{"name": {`"><b>Bob`}, "employer": {""}}), "saved")
	page = v.Get("/auth/account")
	if !strings.Contains(page.Body, `value="&#34;&gt;&lt;b&gt;Bob"`) || strings.Contains(page.Body, "Example Ltd") {
		t.Errorf("saved: %s", page.Body)
	}
	s.MustAnswer(200, v.Post("/auth/account", url.Values{"employer": {"Elsewhere"}}), "a form with fewer fields")
	refused := v.Post("/auth/account", url.Values{"name": {strings.Repeat("x", 5000)}})
	s.MustAnswer(422, refused, "too long")
	if !strings.Contains(refused.Body, `href="#profile-name"`) || !strings.Contains(refused.Body, `id="profile-name-error"`) {
		t.Errorf("the error is not beside its field: %s", refused.Body)
	}
	user := accountstest.UserOf(t, "alice@example.com")
	if user.Profile["name"] != `"><b>Bob` || user.Profile["employer"] != "Elsewhere" {
		t.Errorf("profile %v", user.Profile)
	}
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Profile["name"] = 7.0 })
	s.MustAnswer(200, v.Post("/auth/account", url.Values{"employer": {"E"}}), "beside a value that is no text")
	if user := accountstest.UserOf(t, "alice@example.com"); user.Profile["name"] != int64(7) {
		t.Errorf("the number became %#v", user.Profile["name"])
	}
}

func TestExportOfOnesOwn(t *testing.T) {
	s := sitetest.AccountsSite(t, "profile name")
	body := sitetest.CredentialsOf("alice@example.com")
	body["name"] = "Alice"
	s.MustAnswer(201, s.Post("/auth/signup", body), "sign-up")
	alice := s.LoggedIn("alice@example.com")
	s.SignedUp("bob@example.com")
	got := s.Bearer("/auth/export", alice.Token)
	s.MustAnswer(200, got, "export")
	if got.Header.Get("Content-Disposition") != `attachment; filename="account.json"` {
		t.Errorf("headers %v", got.Header)
	}
	all := jsonOf(t, got)
	user, _ := all["user"].(map[string]any)
	sessions, _ := all["sessions"].([]any)
	identities, isList := all["identities"].([]any)
	if user["email"] != "alice@example.com" || user["name"] != "Alice" || user["createdAt"] == nil ||
		len(sessions) != 1 || len(identities) != 0 || !isList || all["exportedAt"] == nil {
		t.Errorf("exported %s", got.Body)
	}
	hash := accountstest.UserOf(t, "alice@example.com").PasswordHash
	for _, secret := range []string{hash, "argon2id", "hash", alice.RefreshToken, alice.Token, "bob@example.com"} {
		if strings.Contains(strings.ToLower(got.Body), strings.ToLower(secret)) {
			t.Errorf("the export has %q: %s", secret, got.Body)
		}
	}
	s.MustAnswer(401, s.Get("/auth/export"), "nobody")
	s.MustAnswer(405, s.Post("/auth/export", "{}", "Authorization: Bearer "+alice.Token), "POST")
}

func TestThreatAccountDeletedByAnother(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	alice := s.SignedUp("alice@example.com")
	v := s.Visitor()
	v.SignUp("bob@example.com")
	right := sitetest.Marshal(t, sitetest.JSON{"password": sitetest.GoodPassword})
	for _, c := range []struct {
		name    string
		status  int
		headers []string
		body    string
	}{
		{"without a token", 401, asJSON("x"), right},
		{"a stolen token, no password", 422, asJSON(alice.Token), `{}`},
		{"a stolen token, an empty password", 422, asJSON(alice.Token), `{"password":""}`},
		{"a stolen token, a wrong password", 401, asJSON(alice.Token), `{"password":"not the password"}`},
		{"no body", 415, asJSON(alice.Token)[:1], ""},
		{
			"from a page of another site", 403,
			append(asJSON(alice.Token), "Sec-Fetch-Site: cross-site", "Origin: https://evil.example"), right,
		},
	} {
		s.MustAnswer(c.status, s.Send(http.MethodDelete, "/auth/whoami", c.body, c.headers...), c.name)
	}
	// A link or an image does nothing, and a form needs the password however recent the log-in is.
	page := v.Get("/auth/delete")
	s.MustAnswer(200, page, "the question")
	if !strings.Contains(page.Body, `name="currentPassword"`) {
		t.Errorf("the page does not ask for the password: %s", page.Body)
	}
	s.MustAnswer(401, v.Decide("/auth/delete", page, "yes"), "without a password")
	wrong := url.Values{"decision": {"yes"}, "currentPassword": {"not the password"}}
	s.MustAnswer(401, v.Post("/auth/delete", wrong), "a wrong password")
	s.MustAnswer(303, v.Decide("/auth/delete", page, "no"), "cancelled")
	accountstest.UserOf(t, "alice@example.com")
	accountstest.UserOf(t, "bob@example.com")

	// Controls: the owner can.
	s.MustAnswer(204, s.Send(http.MethodDelete, "/auth/whoami", right, asJSON(alice.Token)...), "the owner")
	s.MustAnswer(200, v.Post("/auth/delete", url.Values{
		"decision": {"yes"}, "currentPassword": {sitetest.GoodPassword},
	}), "the owner, by the page")
	for _, email := range []string{"alice@example.com", "bob@example.com"} {
		if _, err := accountstest.StoreOf(t).UserByEmail(t.Context(), email); err != store.ErrNotFound {
			t.Errorf("%s is still there: %v", email, err)
		}
		s.MustAnswer(401, s.Post("/auth/login", sitetest.CredentialsOf(email)), "log-in afterwards")
	}
	s.MustAnswer(401, s.Bearer("/auth/whoami", alice.Token), "the token afterwards")
	s.MustAnswer(401, s.Bearer("/todos/1", alice.Token), "the token afterwards, at the site")
	s.MustAnswer(401, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": alice.RefreshToken}), "refresh afterwards")
	s.MustAnswer(303, v.Get("/auth/account"), "the browser is logged out")
	s.SignedUp("alice@example.com") // the address is free again
}

func TestThreatPasswordGuessedByDeleting(t *testing.T) {
	s := sitetest.AccountsSite(t, "throttle 3 15m")
	alice := s.SignedUp("alice@example.com")
	statuses := make(map[int]int)
	for range 40 {
		got := s.Send(http.MethodDelete, "/auth/whoami", `{"password":"not the password"}`, asJSON(alice.Token)...)
		statuses[got.Status]++
	}
	if statuses[401] > 10 || statuses[429] == 0 {
		t.Errorf("40 guesses: %v", statuses)
	}
}

func TestSessionsInWords(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.SignedUp("alice@example.com")
	for agent, device := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36": "Chrome " +
			"on Linux",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 " +
			"Mobile/15E148 Safari/604.1": "Safari on iOS",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0": "Firefox on Windows",
		"curl/8.9.1": "curl", "my-app/1.0": "my-app", "": "", "<script>alert(1)</script>": "",
	} {
		alice := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), "User-Agent: "+agent).Tokens(t)
		var sessions []struct {
			Device  string `json:"device"`
			Current bool   `json:"current"`
		}
		if err := json.Unmarshal([]byte(s.Bearer("/auth/sessions", alice.Token).Body), &sessions); err != nil {
			t.Fatal(err)
		}
		own := slices.IndexFunc(sessions, func(x struct {
			Device  string `json:"device"`
			Current bool   `json:"current"`
		}) bool {
			return x.Current
		})
		if got := sessions[own].Device; got != device {
			t.Errorf("%q is %q, expected %q", agent, got, device)
		}
	}
}

// A page that needs a log-in comes back after it.
func TestOwnPagesLeadBack(t *testing.T) {
	p := mailSite(t, "second_factor optional")
	p.SignedUp("alice@example.com")
	for _, path := range []string{"/auth/email", "/auth/delete", "/auth/factors"} {
		v := p.Visitor()
		to := v.Get(path).To(t)
		if to.Path != "/auth/login" || to.Query().Get("return_to") != path {
			t.Errorf("%s leads to %s", path, to)
		}
		form := sitetest.FormOf("alice@example.com")
		form.Set("return_to", to.Query().Get("return_to"))
		if to := v.Post("/auth/login", form).To(t); to.Path != path {
			t.Errorf("after the log-in: %s, not %s", to, path)
		}
	}
}
