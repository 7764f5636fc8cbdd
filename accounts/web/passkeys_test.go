package web_test

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// passkeySite is a site on localhost, where browsers allow passkeys without TLS. /secure/ requires two
// factors.
func passkeySite(t testing.TB, options string) *sitetest.Site {
	t.Helper()
	return sitetest.ServeLocalhost(t, `
		jwt /secure/* {
			leeway 0s
			accounts {
				store file `+filepath.Join(sitetest.TempDir(t), "users.db")+`
				signup open
				`+options+`
			}
			require acr mfa within 5m
		}
		metrics /metrics
		respond /secure/* "user=[{http.auth.user.id}] amr=[{http.auth.user.amr}]"`)
}

// toLogIn returns the options of a log-in, and the challenge to send with the answer.
func toLogIn(s *sitetest.Site) (options map[string]any, challenge string) {
	s.T.Helper()
	got := s.Send(http.MethodPost, "/auth/login/passkey/options", "")
	return accountstest.Options(s.T, got), got.JSON(s.T)["challenge"].(string)
}

// by logs in with a passkey, as a program.
func by(s *sitetest.Site, p *accountstest.Passkey, change ...func(*accountstest.PasskeyAnswer)) sitetest.Reply {
	s.T.Helper()
	options, challenge := toLogIn(s)
	return s.Post("/auth/login/passkey", sitetest.JSON{
		"challenge": challenge, "credential": p.Use(s.URL, options, change...),
	})
}

// A program adds passkeys, logs in with them, renames and removes them.
func TestPasskeys(t *testing.T) {
	c := sitetest.SetClock(t)
	s := passkeySite(t, "passkeys")
	described := s.Get("/auth/openapi.json").JSON(t)["paths"].(map[string]any)
	for _, path := range []string{"/auth/passkeys", "/auth/passkeys/{id}", "/auth/passkeys/options", "/auth/login/passkey",
		"/auth/login/passkey/options", "/auth/factors/prove", "/auth/factors/prove/options"} {
		if described[path] == nil {
			t.Errorf("OpenAPI has no %s", path)
		}
	}
	token := s.SignedUp("alice@example.com").Token
	options := accountstest.Options(t, s.Send(http.MethodPost, "/auth/passkeys/options", "", bearer(token)))
	text := sitetest.Marshal(t, options)
	for _, part := range []string{
		`"rp":{"id":"localhost","name":"localhost"}`, `"residentKey":"required"`, `"userVerification":"preferred"`,
		`"name":"alice@example.com"`, `"timeout":300000`, `"attestation":"none"`,
	} {
		if !strings.Contains(text, part) {
			t.Errorf("the options lack %s: %s", part, text)
		}
	}
	phone, id := accountstest.WithPasskey(s, token)
	if len(phone.Handle) != 64 || strings.Contains(text, accountstest.UserOf(t, "alice@example.com").ID) {
		t.Errorf("the user handle is %q", phone.Handle)
	}
	key, _ := accountstest.WithPasskey(s, token, func(p *accountstest.Passkey) {
		p.Count, p.Flags = 7, accountstest.UserPresent|accountstest.UserVerified
	})
	if string(key.Handle) != string(phone.Handle) {
		t.Error("the second passkey has another user handle")
	}
	listed := s.Get("/auth/passkeys", bearer(token))
	if strings.Count(listed.Body, `"name":"Phone"`) != 2 || strings.Count(listed.Body, `"usedAt":null`) != 2 ||
		strings.Count(listed.Body, `"usable":true`) != 2 || strings.Contains(listed.Body, "public") {
		t.Errorf("the list: %s", listed.Body)
	}

	tokens := by(s, phone).Tokens(t)
	if got := s.Bearer("/secure/x", tokens.Token); got.Status != 200 || !strings.Contains(got.Body, "amr=[hwk,user,mfa]") {
		t.Errorf("after the log-in: %d %s", got.Status, got.Body)
	}
	by(s, key).Tokens(t)
	by(s, key).Tokens(t)
	phone.Flags |= accountstest.BackupEligible // it cannot become another kind
	mustRefuse(t, by(s, phone), 401, "invalid_passkey", "a passkey that was none of several devices")
	phone.Flags &^= accountstest.BackupEligible
	synced, _ := accountstest.WithPasskey(s, token, func(p *accountstest.Passkey) {
		p.Flags |= accountstest.BackupEligible | accountstest.BackupState
	})
	got := s.Bearer("/secure/x", by(s, synced).Tokens(t).Token)
	if !strings.Contains(got.Body, "amr=[swk,user,mfa]") {
		t.Errorf("a synced one: %s", got.Body)
	}

	own := "/auth/passkeys/" + id
	renamed := s.Send(http.MethodPatch, own, `{"name":" Alice's phone "}`, bearer(token), "Content-Type: application/json")
	if renamed.Status != 200 || renamed.JSON(t)["name"] != "Alice's phone" || renamed.JSON(t)["usedAt"] == nil {
		t.Errorf("the new name: %d %s", renamed.Status, renamed.Body)
	}
	for _, name := range []string{"", " ", strings.Repeat("x", 65), "a\u202eb", "a\nb"} {
		got := s.Send(http.MethodPatch, own, sitetest.Marshal(t, sitetest.JSON{"name": name}), bearer(token),
			"Content-Type: application/json")
		mustRefuse(t, got, 422, "VALIDATION_FAILED", "the name "+name)
	}
	export := s.Get("/auth/export", bearer(token))
	if !strings.Contains(export.Body, `"passkeys":[{`) || !strings.Contains(export.Body, "Alice's phone") {
		t.Errorf("the export: %s", export.Body)
	}

	c.Ahead.Add(301)
	mustRefuse(t, s.Send(http.MethodDelete, own, "", bearer(token)), 403, "confirmation_required", "removing, later")
	mustRefuse(t, s.Send(http.MethodPost, "/auth/passkeys/options", "", bearer(token)), 403, "confirmation_required",
		"adding, later")
	s.MustAnswer(200, s.Post("/auth/passkeys/options", sitetest.JSON{"password": sitetest.GoodPassword}, bearer(token)),
		"adding with the password")
	s.MustAnswer(204, s.Send(http.MethodDelete, own, sitetest.Marshal(t, sitetest.JSON{"password": sitetest.GoodPassword}),
		bearer(token), "Content-Type: application/json"), "removing with the password")
	mustRefuse(t, by(s, phone), 401, "invalid_passkey", "a removed passkey")
	by(s, synced).Tokens(t)
	mustRefuse(t, s.Send(http.MethodDelete, own, "", bearer(by(s, synced).Tokens(t).Token)), 404, "not_found", "it again")
	if log := s.Log(); strings.Count(log, `"passkey added"`) != 3 || strings.Count(log, `"passkey removed"`) != 1 ||
		strings.Count(log, `"passkey renamed"`) != 1 || !strings.Contains(log, `"passkey used"`) {
		t.Errorf("the log of account events: %s", log)
	}
}

// Without the option there are no routes and no button.
func TestNoPasskeys(t *testing.T) {
	s := passkeySite(t, "")
	token := s.SignedUp("alice@example.com").Token
	for _, path := range []string{"/auth/passkeys", "/auth/passkeys/options", "/auth/login/passkey",
		"/auth/login/passkey/options", "/auth/factors/prove/options"} {
		if got := s.Post(path, sitetest.JSON{}, bearer(token)); got.Body != "" { // what is behind answers nothing
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
	}
	if page := s.Get("/auth/login", "Accept: text/html"); strings.Contains(page.Body, "passkey") ||
		strings.Contains(page.Body, "webauthn") {
		t.Errorf("the log-in page: %s", page.Body)
	}
}

// optionsOn returns the options on a page.
func optionsOn(t testing.TB, page sitetest.Reply) (options map[string]any) {
	t.Helper()
	found := regexp.MustCompile(`data-options="([^"]*)"`).FindStringSubmatch(page.Body)
	if found == nil {
		t.Fatalf("the page has no options: %d %s", page.Status, page.Body)
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(found[1])), &options); err != nil {
		t.Fatal(err)
	}
	return options
}

func inForm(t testing.TB, credential sitetest.JSON, more ...string) url.Values {
	form := url.Values{"credential": {sitetest.Marshal(t, credential)}}
	for i := 0; i < len(more); i += 2 {
		form.Set(more[i], more[i+1])
	}
	return form
}

// The forms of the pages, as the script posts them.
func TestPasskeyPages(t *testing.T) {
	c := sitetest.SetClock(t)
	s := passkeySite(t, "passkeys")
	v := s.Visitor()
	v.SignUp("alice@example.com")
	if page := v.Get("/auth/account"); !strings.Contains(page.Body, `href="/auth/passkeys"`) {
		t.Errorf("the account page: %s", page.Body)
	}
	p := accountstest.NewPasskey(t)
	added := v.Post("/auth/passkeys", inForm(t, p.Make(s.URL, optionsOn(t, v.Get("/auth/passkeys"))), "name", "Phone"))
	if added.Status != 200 || !strings.Contains(added.Body, "Your passkey was added") ||
		!strings.Contains(added.Body, "<strong>Phone</strong>") {
		t.Fatalf("adding: %d %s", added.Status, added.Body)
	}
	id := regexp.MustCompile(`/auth/passkeys/([0-9a-f]{64})`).FindStringSubmatch(added.Body)[1]
	v.Post("/auth/logout", url.Values{})
	page := v.Get("/auth/login?return_to=%2Fsecure%2Fx")
	if !strings.Contains(page.Body, `autocomplete="username webauthn"`) {
		t.Errorf("the log-in page: %s", page.Body)
	}
	form := inForm(t, p.Use(s.URL, optionsOn(t, page)), "return_to", "/secure/x")
	if to := v.Post("/auth/login/passkey", form).To(t).String(); to != "/secure/x" {
		t.Errorf("the log-in leads to %s", to)
	}
	s.MustAnswer(200, v.Get("/secure/x"), "the page")
	again := s.Visitor()
	again.Get("/auth/login")
	got := again.Post("/auth/login/passkey", form)
	if got.Status != 401 || !strings.Contains(got.Body, "This took longer than 5 minutes") {
		t.Errorf("another browser: %d %s", got.Status, got.Body)
	}
	optionsOn(t, got) // which the user can use at once
	if to := v.Get("/auth/login/passkey").To(t).Path; to != "/auth/login" {
		t.Errorf("the page again leads to %s", to)
	}

	// Later, the password is needed; without JavaScript nothing breaks.
	c.Ahead.Add(301)
	asks := v.Get("/auth/passkeys")
	if strings.Contains(asks.Body, "data-options") || !strings.Contains(asks.Body, `action="/auth/passkeys/options"`) {
		t.Errorf("later: %s", asks.Body)
	}
	wrong := v.Post("/auth/passkeys/options", url.Values{"password": {"wrong password"}})
	if wrong.Status != 401 || !strings.Contains(wrong.Body, "The current password is wrong") {
		t.Errorf("a wrong password: %d %s", wrong.Status, wrong.Body)
	}
	confirmed := v.Post("/auth/passkeys/options", url.Values{"password": {sitetest.GoodPassword}})
	second := accountstest.NewPasskey(t)
	s.MustAnswer(200, v.Post("/auth/passkeys", inForm(t, second.Make(s.URL, optionsOn(t, confirmed)), "name", "Key")),
		"the second")
	if got := v.Post("/auth/passkeys/"+id, url.Values{"name": {"My phone"}}); !strings.Contains(got.Body, "My phone") {
		t.Errorf("the name: %s", got.Body)
	}
	remove := url.Values{"action": {"remove"}}
	if got := v.Post("/auth/passkeys/"+id, remove); got.Status != 403 {
		t.Errorf("removing without the password: %d %s", got.Status, got.Body)
	}
	remove.Set("password", sitetest.GoodPassword)
	if got := v.Post("/auth/passkeys/"+id, remove); got.Status != 200 || strings.Contains(got.Body, "My phone") {
		t.Errorf("removing: %d %s", got.Status, got.Body)
	}

	// Where two factors are required, a passkey is enough, and is asked for again.
	to := v.Get("/secure/x").To(t).String()
	if to != "/auth/factors/prove?return_to=%2Fsecure%2Fx" {
		t.Fatalf("5 minutes later: %s", to)
	}
	page = v.Get(to)
	if strings.Contains(page.Body, `name="code"`) || !strings.Contains(page.Body, "requires your passkey") {
		t.Errorf("the page that asks: %s", page.Body)
	}
	form = inForm(t, second.Use(s.URL, optionsOn(t, page)), "return_to", "/secure/x")
	if to := v.Post("/auth/factors/prove", form).To(t).String(); to != "/secure/x" {
		t.Errorf("it leads to %s", to)
	}
	s.MustAnswer(200, v.Get("/secure/x"), "the page again")
	other := s.Visitor()
	other.SignUp("bob@example.com")
	if page := other.Get(other.Get("/secure/x").To(t).String()); !strings.Contains(page.Body, "requires a passkey. Add one first") {
		t.Errorf("a user without one: %s", page.Body)
	}
}

// A passkey is a second factor after a password, and two factors alone; one that does not verify its
// user is one.
func TestPasskeyAsSecondFactor(t *testing.T) {
	c := sitetest.SetClock(t)
	s := passkeySite(t, "passkeys\nsecond_factor optional")
	token := s.SignedUp("alice@example.com").Token
	weak := func(p *accountstest.Passkey) { p.Flags = accountstest.UserPresent }
	key, _ := accountstest.WithPasskey(s, token, weak)
	plain := by(s, key).Tokens(t)
	if claims := sitetest.ClaimsOf(t, plain.Token); claims["acr"] != nil || sitetest.Marshal(t, claims["amr"]) != `["hwk","user"]` {
		t.Errorf("one factor: %v", claims)
	}
	s.LoggedIn("alice@example.com") // a passkey alone is no second factor that is asked for
	app, _ := accountstest.WithApp(s, token)
	c.Ahead.Add(30)
	got := by(s, key)
	mustRefuse(t, got, 401, "second_factor_required", "a passkey that has not verified its user")
	challenge := got.ErrorBody(t).Error.Challenge
	complete := func(challenge string, p *accountstest.Passkey) sitetest.Reply {
		options := s.Post("/auth/login/passkey/options", sitetest.JSON{"challenge": challenge})
		return s.Post("/auth/login/factor", sitetest.JSON{
			"challenge": challenge, "credential": p.Use(s.URL, accountstest.Options(t, options)),
		})
	}
	mustRefuse(t, complete(challenge, key), 401, "passkey_unverified", "the same passkey again")
	entered := answerTo(s, challenge, app.Code(0)).Tokens(t)
	if claims := sitetest.ClaimsOf(t, entered.Token); sitetest.Marshal(t, claims["amr"]) != `["hwk","user","otp","mfa"]` {
		t.Errorf("with a code: %v", claims)
	}
	challenge = challengeOf(s, "alice@example.com")
	entered = complete(challenge, key).Tokens(t)
	if claims := sitetest.ClaimsOf(t, entered.Token); sitetest.Marshal(t, claims["amr"]) != `["pwd","hwk","user","mfa"]` {
		t.Errorf("after the password: %v", claims)
	}
	mustRefuse(t, s.Post("/auth/login/passkey/options", sitetest.JSON{"challenge": challenge}), 401, "challenge_expired",
		"the challenge again")

	// The page offers it.
	v := s.Visitor()
	logIn(v, "alice@example.com", "/secure/x")
	page := v.Get("/auth/login/factor?return_to=%2Fsecure%2Fx")
	if !strings.Contains(page.Body, "Use a passkey") || !strings.Contains(page.Body, `name="code"`) {
		t.Errorf("the page: %s", page.Body)
	}
	form := inForm(t, key.Use(s.URL, optionsOn(t, page)), "return_to", "/secure/x")
	if to := v.Post("/auth/login/factor", form).To(t).String(); to != "/secure/x" {
		t.Errorf("it leads to %s", to)
	}

	// A program steps up.
	c.Ahead.Add(301)
	own := bearer(entered.Token)
	strong := another(s, entered.Token)
	prove := func(p *accountstest.Passkey) sitetest.Reply {
		options := accountstest.Options(t, s.Send(http.MethodPost, "/auth/factors/prove/options", "", own))
		return s.Post("/auth/factors/prove", sitetest.JSON{"credential": p.Use(s.URL, options)}, own)
	}
	s.MustAnswer(204, prove(key), "a passkey that does not verify its user, after the password")
	s.MustAnswer(204, prove(strong), "one that does")
	renewed := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": entered.RefreshToken}).Tokens(t)
	s.MustAnswer(200, s.Bearer("/secure/x", renewed.Token), "and now")
}

// another adds a passkey with the password.
func another(s *sitetest.Site, token string) *accountstest.Passkey {
	s.T.Helper()
	p, own := accountstest.NewPasskey(s.T), bearer(token)
	options := s.Post("/auth/passkeys/options", sitetest.JSON{"password": sitetest.GoodPassword}, own)
	s.MustAnswer(201, s.Post("/auth/passkeys", sitetest.JSON{
		"name": "Another", "credential": p.Make(s.URL, accountstest.Options(s.T, options)),
	}, own), "another passkey")
	return p
}

// Where a second factor is required, a passkey is one, and nobody can set up another with the password.
func TestPasskeyWhereFactorIsRequired(t *testing.T) {
	s := passkeySite(t, "passkeys\nsecond_factor optional")
	key, _ := accountstest.WithPasskey(s, s.SignedUp("alice@example.com").Token)
	accountstest.ServiceOf(t).Config.SecondFactor = "required"
	accountstest.ServiceOf(t).Factors.Config.SecondFactor = "required"
	mustRefuse(t, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), 401, "second_factor_required",
		"the password")
	by(s, key).Tokens(t)
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "sign-up")
	mustRefuse(t, s.Post("/auth/login", sitetest.CredentialsOf("bob@example.com")), 401, "second_factor_enrolment_required",
		"a user without one")
}
