package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// RFC 6238, Appendix B: the vectors of SHA-1.
func TestCodesOfTheRFC(t *testing.T) {
	for at, want := range map[int64]string{
		59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924",
		2000000000: "69279037", 20000000000: "65353130",
	} {
		if got := accountstest.CodeAt([]byte("12345678901234567890"), time.Unix(at, 0), 8); got != want {
			t.Errorf("at %d: %s, expected %s", at, got, want)
		}
	}
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// challengeOf logs in with the password, and returns the challenge.
func challengeOf(s *sitetest.Site, email string) string {
	s.T.Helper()
	got := s.Post("/auth/login", sitetest.CredentialsOf(email))
	body := got.ErrorBody(s.T).Error
	if got.Status != 401 || body.Code != "second_factor_required" || body.Challenge == "" ||
		strings.Contains(got.Body, `"token"`) {
		s.T.Fatalf("the log-in: %d %s", got.Status, got.Body)
	}
	return body.Challenge
}

func answerTo(s *sitetest.Site, challenge, code string) sitetest.Reply {
	s.T.Helper()
	return s.Post("/auth/login/factor", sitetest.JSON{"challenge": challenge, "code": code})
}

func mustRefuse(t testing.TB, got sitetest.Reply, status int, code, why string) {
	t.Helper()
	if got.Status != status || got.ErrorBody(t).Error.Code != code {
		t.Errorf("%s: %d %s, expected %d %s", why, got.Status, got.Body, status, code)
	}
}

// Codes may be typed in groups, and with the digits of a Japanese keyboard.
func TestSecondFactorAsTyped(t *testing.T) {
	c := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "second_factor optional")
	app, codes := accountstest.WithApp(s, s.SignedUp("alice@example.com").Token)
	for _, as := range []func(code string) string{
		fullWidth,
		func(code string) string { return code[:3] + "\u3000" + code[3:] },
		func(code string) string { return code[:3] + " " + code[3:] },
	} {
		c.Ahead.Add(60)
		s.MustAnswer(200, answerTo(s, challengeOf(s, "alice@example.com"), as(app.Code(0))), as("123456"))
	}
	s.MustAnswer(200, answerTo(s, challengeOf(s, "alice@example.com"), strings.ToLower(codes[0])), "a recovery code")
}

// A program sets up an app, logs in with it and with recovery codes, and removes it.
func TestSecondFactor(t *testing.T) {
	c := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "second_factor optional\nissuer https://films.example.com")
	token := s.SignedUp("alice@example.com").Token
	if got := s.Get("/auth/factors", bearer(token)).JSON(t); got["totp"] != nil || got["recoveryCodesLeft"] != 0.0 ||
		got["required"] != false {
		t.Errorf("before: %v", got)
	}
	mustRefuse(t, s.Send(http.MethodDelete, "/auth/factors/totp", `{"password":"`+sitetest.GoodPassword+`"}`,
		bearer(token), "Content-Type: application/json"), 409, "no_factor", "removing none")
	mustRefuse(t, s.Post("/auth/factors/recovery", sitetest.JSON{"password": sitetest.GoodPassword}, bearer(token)),
		409, "no_factor", "recovery codes for none")
	mustRefuse(t, s.Post("/auth/factors/totp/confirm", sitetest.JSON{"code": "123456"}, bearer(token)),
		409, "no_enrolment", "a confirmation without a secret")

	begun := s.Post("/auth/factors/totp", sitetest.JSON{"password": sitetest.GoodPassword}, bearer(token))
	s.MustAnswer(200, begun, "the secret")
	uri, err := url.Parse(begun.JSON(t)["uri"].(string))
	if err != nil || uri.Scheme != "otpauth" || uri.Host != "totp" ||
		uri.Path != "/films.example.com:alice@example.com" || uri.Query().Get("secret") != begun.JSON(t)["secret"] ||
		uri.Query().Get("issuer") != "films.example.com" {
		t.Errorf("the URI is %s, %v", uri, err)
	}
	first := accountstest.NewApp(t, begun.JSON(t)["secret"].(string))
	s.LoggedIn("alice@example.com") // not before it is confirmed
	mustRefuse(t, s.Post("/auth/factors/totp/confirm", sitetest.JSON{"code": first.Wrong()}, bearer(token)),
		401, "invalid_code", "a wrong code")
	phone, codes := accountstest.WithApp(s, token) // started again
	mustRefuse(t, s.Post("/auth/factors/totp", sitetest.JSON{"password": sitetest.GoodPassword}, bearer(token)),
		409, "factor_exists", "a second app")
	if got := s.Get("/auth/factors", bearer(token)).JSON(t); got["totp"] == nil || got["recoveryCodesLeft"] != 10.0 {
		t.Errorf("after: %v", got)
	}
	s.MustAnswer(200, s.Bearer("/todos/", token), "the session goes on")

	challenge := challengeOf(s, "alice@example.com")
	mustRefuse(t, answerTo(s, challenge, phone.Code(0)), 401, "code_used", "the code of the set-up")
	c.Ahead.Add(30)
	mustRefuse(t, answerTo(s, challenge, phone.Wrong()), 401, "invalid_code", "a wrong code")
	mustRefuse(t, answerTo(s, challenge, ""), 422, "VALIDATION_FAILED", "no code")
	tokens := answerTo(s, challenge, phone.Code(0)[:3]+" "+phone.Code(0)[3:]).Tokens(t)
	s.MustAnswer(200, s.Bearer("/auth/whoami", tokens.Token), "the token")
	mustRefuse(t, answerTo(s, challenge, phone.Code(1)), 401, "challenge_expired", "the challenge again")
	mustRefuse(t, answerTo(s, challengeOf(s, "alice@example.com"), phone.Code(0)), 401, "code_used", "the code again")
	c.Ahead.Add(60)
	for _, steps := range []int{-2, 2} {
		mustRefuse(t, answerTo(s, challengeOf(s, "alice@example.com"), phone.Code(steps)), 401, "invalid_code",
			fmt.Sprint("a code of ", steps))
	}
	answerTo(s, challengeOf(s, "alice@example.com"), phone.Code(-1)).Tokens(t) // a clock that is behind
	answerTo(s, challengeOf(s, "alice@example.com"), phone.Code(1)).Tokens(t)  // and ahead
	mustRefuse(t, answerTo(s, challengeOf(s, "alice@example.com"), phone.Code(0)), 401, "code_used", "an older code")

	for i, code := range []string{codes[0], strings.ToLower(strings.ReplaceAll(codes[1], "-", "")), " " + codes[2]} {
		got := answerTo(s, challengeOf(s, "alice@example.com"), code)
		if got.Tokens(t); got.JSON(t)["recoveryCodesLeft"] != float64(9-i) {
			t.Errorf("a recovery code: %s", got.Body)
		}
		mustRefuse(t, answerTo(s, challengeOf(s, "alice@example.com"), code), 401, "invalid_code", "it again")
	}
	mustRefuse(t, s.Post("/auth/factors/recovery", sitetest.JSON{}, bearer(token)), 403, "confirmation_required",
		"new codes without a proof")
	replaced := s.Post("/auth/factors/recovery", sitetest.JSON{"code": codes[3]}, bearer(token))
	s.MustAnswer(200, replaced, "new recovery codes")
	mustRefuse(t, answerTo(s, challengeOf(s, "alice@example.com"), codes[4]), 401, "invalid_code", "an old code")
	answerTo(s, challengeOf(s, "alice@example.com"), accountstest.RecoveryCodesOf(t, replaced)[0]).Tokens(t)

	remove := func(body sitetest.JSON) sitetest.Reply {
		return s.Send(http.MethodDelete, "/auth/factors/totp", sitetest.Marshal(t, body), bearer(token),
			"Content-Type: application/json")
	}
	mustRefuse(t, s.Send(http.MethodDelete, "/auth/factors/totp", "", bearer(token)), 403, "confirmation_required",
		"removing without a body")
	mustRefuse(t, remove(sitetest.JSON{}), 403, "confirmation_required", "removing without a proof")
	mustRefuse(t, remove(sitetest.JSON{"password": "wrong password"}), 401, "invalid_credentials", "a wrong password")
	c.Ahead.Add(60)
	s.MustAnswer(204, remove(sitetest.JSON{"code": phone.Code(0)}), "removing")
	s.LoggedIn("alice@example.com")
	second, _ := accountstest.WithApp(s, token)
	s.MustAnswer(204, remove(sitetest.JSON{"password": sitetest.GoodPassword}), "removing by the password")
	if string(second.Secret) == string(phone.Secret) {
		t.Error("the secret is the same again")
	}
	s.LoggedIn("alice@example.com")

	metrics := s.Get("/metrics").Body
	for _, want := range []string{
		`event="factor",result="added",`, `event="factor",result="removed",`, `event="factor",result="ok",`,
		`event="factor",result="asked",`, `event="factor",result="refused",`, `event="factor",result="throttled",`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	sitetest.Eventually(t, "the log has the events", func() bool {
		log := s.Log()
		for _, want := range []string{"factor added", "factor removed", "factor used", "recovery code used"} {
			if !strings.Contains(log, `"msg":"`+want+`"`) {
				return false
			}
		}
		return true
	})
}

// Without the option there are no routes of second factors, and nobody is asked.
func TestSecondFactorOff(t *testing.T) {
	dir := sitetest.TempDir(t)
	s := sitetest.Serve(t, sitetest.AccountsBody(filepath.Join(dir, "users.db"), "second_factor optional"))
	token := s.SignedUp("alice@example.com").Token
	accountstest.WithApp(s, token)
	s.Load(sitetest.AccountsBody(filepath.Join(dir, "users.db"), ""), sitetest.TempDir(t))
	s.LoggedIn("alice@example.com")
	for _, path := range []string{"/auth/factors", "/auth/login/factor", "/auth/factors/totp"} {
		if got := s.Get(path, "Accept: application/json"); strings.Contains(got.Body, `"error"`) {
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
	}
}

var (
	shownSecret = regexp.MustCompile(`<code class="key">([A-Z2-7 ]+)</code>`)
	shownCode   = regexp.MustCompile(`<li>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){3})</li>`)
)

// enrolByPage sets up an app with the form of a page, and returns it and the recovery codes.
func enrolByPage(v *sitetest.Visitor, fields url.Values) (phone accountstest.App, codes []string, last sitetest.Reply) {
	v.T.Helper()
	page := v.Post("/auth/factors/totp", fields)
	found := shownSecret.FindStringSubmatch(page.Body)
	if page.Status != 200 || found == nil || !strings.Contains(page.Body, "<svg") ||
		!strings.Contains(page.Body, `href="otpauth://totp/`) {
		v.T.Fatalf("the page of the secret: %d %s", page.Status, page.Body)
	}
	phone = accountstest.NewApp(v.T, found[1])
	form := page.HiddenFields()
	form.Set("code", phone.Wrong())
	if got := v.Post("/auth/factors/totp/confirm", form); got.Status != 401 ||
		!strings.Contains(got.Body, "This code is wrong") || !strings.Contains(got.Body, `name="code"`) ||
		got.HiddenFields().Encode() != page.HiddenFields().Encode() {
		v.T.Errorf("a wrong code: %d %s", got.Status, got.Body)
	}
	form.Set("code", phone.Code(0))
	last = v.Post("/auth/factors/totp/confirm", form)
	for _, code := range shownCode.FindAllStringSubmatch(last.Body, -1) {
		codes = append(codes, code[1])
	}
	if last.Status != 200 || len(codes) != 10 {
		v.T.Fatalf("the page of the recovery codes: %d %s", last.Status, last.Body)
	}
	return phone, codes, last
}

// logIn logs in with the password, and returns the page of the second factor that it leads to.
func logIn(v *sitetest.Visitor, email, returnTo string) string {
	v.T.Helper()
	form := sitetest.FormOf(email)
	if returnTo != "" {
		form.Set("return_to", returnTo)
	}
	return v.Post("/auth/login", form).To(v.T).String()
}

// A browser does the same by pages, without JavaScript.
func TestSecondFactorPages(t *testing.T) {
	c := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "second_factor optional")
	v := s.Visitor()
	if got := v.Get("/auth/factors").To(t).String(); got != "/auth/login?return_to=%2Fauth%2Ffactors" {
		t.Errorf("without a session: %s", got)
	}
	v.SignUp("alice@example.com")
	if page := v.Get("/auth/account"); !strings.Contains(page.Body, `href="/auth/factors"`) {
		t.Error("the account page has no link")
	}
	if page := v.Get("/auth/factors"); page.Status != 200 || strings.Contains(page.Body, `type="password"`) {
		t.Errorf("the page: %d %s", page.Status, page.Body)
	}
	phone, codes, last := enrolByPage(v, url.Values{})
	if !strings.Contains(last.Body, `href="/auth/factors"`) {
		t.Errorf("the recovery codes lead nowhere: %s", last.Body)
	}
	v.Post("/auth/logout", url.Values{})

	c.Ahead.Add(30)
	at := logIn(v, "alice@example.com", "/todos/list?page=2")
	if at != "/auth/login/factor?return_to=%2Ftodos%2Flist%3Fpage%3D2" {
		t.Fatalf("the log-in leads to %s", at)
	}
	if got := v.Get("/todos/"); got.Status != 303 {
		t.Errorf("the password is enough: %d", got.Status)
	}
	page := v.Get(at)
	if page.Status != 200 || !strings.Contains(page.Body, `name="code"`) || !strings.Contains(page.Body, "30 days") {
		t.Errorf("the page: %d %s", page.Status, page.Body)
	}
	form := page.HiddenFields()
	form.Set("code", phone.Wrong())
	if got := v.Post("/auth/login/factor", form); got.Status != 401 ||
		!strings.Contains(got.Body, "This code is wrong") ||
		got.HiddenFields().Get("return_to") != "/todos/list?page=2" {
		t.Errorf("a wrong code: %d %s", got.Status, got.Body)
	}
	form.Set("code", phone.Code(0))
	form.Set("trust", "yes")
	entered := v.Post("/auth/login/factor", form)
	if entered.To(t).String() != "/todos/list?page=2" {
		t.Errorf("it leads to %s", entered.To(t))
	}
	for _, cookie := range entered.Header["Set-Cookie"] {
		if strings.Contains(cookie, "trusted_browser=") &&
			(!strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax")) {
			t.Errorf("the cookie: %s", cookie)
		}
	}
	if got := v.Get("/todos/").Body; !strings.Contains(got, "user=[") || strings.Contains(got, "trusted_browser") {
		t.Errorf("behind: %s", got)
	}

	// The browser is not asked again; others are.
	v.Post("/auth/logout", url.Values{})
	if to := logIn(v, "alice@example.com", ""); to != "/auth/account" {
		t.Errorf("a trusted browser is led to %s", to)
	}
	other := s.Visitor()
	if to := logIn(other, "alice@example.com", ""); to != "/auth/login/factor" {
		t.Errorf("another browser is led to %s", to)
	}
	challengeOf(s, "alice@example.com")
	factors := v.Get("/auth/factors").Body
	id := regexp.MustCompile(`action="/auth/factors/browsers/([0-9a-f]+)"`).FindStringSubmatch(factors)
	if id == nil || !strings.Contains(factors, "This browser") {
		t.Fatalf("the trusted browser is not listed: %s", factors)
	}
	bob := s.Visitor()
	bob.SignUp("bob@example.com")
	s.MustAnswer(404, bob.Post("/auth/factors/browsers/"+id[1], url.Values{}), "somebody else's browser")
	if got := v.Post("/auth/factors/browsers/"+id[1], url.Values{}).To(t).String(); got != "/auth/factors" {
		t.Errorf("removing leads to %s", got)
	}
	if to := logIn(v, "alice@example.com", ""); to != "/auth/login/factor" {
		t.Errorf("a browser that is no longer trusted is led to %s", to)
	}

	// The last recovery codes.
	for i, code := range codes[:8] {
		logIn(other, "alice@example.com", "/todos/")
		got := other.Post("/auth/login/factor", url.Values{"code": {code}, "return_to": {"/todos/"}})
		few := strings.Contains(got.Body, fmt.Sprintf("Recovery codes left: %d", 9-i)) &&
			strings.Contains(got.Body, `href="/todos/"`)
		if warned := 9-i <= 3; warned != few || !warned && got.To(t).Path != "/todos/" {
			t.Errorf("recovery code %d: %d %s", i, got.Status, got.Body)
		}
		s.MustAnswer(200, other.Get("/todos/"), "logged in")
	}
	if page := other.Get("/auth/factors").Body; !strings.Contains(page, "Recovery codes left: 2. Make new ones now") {
		t.Errorf("the page does not warn: %s", page)
	}
	if got := other.Post("/auth/factors/recovery", url.Values{"password": {"wrong password"}}); got.Status != 401 ||
		!strings.Contains(got.Body, "The current password is wrong") {
		t.Errorf("a wrong password: %d %s", got.Status, got.Body)
	}
	made := other.Post("/auth/factors/recovery", url.Values{"password": {sitetest.GoodPassword}})
	if len(shownCode.FindAllString(made.Body, -1)) != 10 {
		t.Errorf("new codes: %d %s", made.Status, made.Body)
	}
	removed := other.Post("/auth/factors/totp", url.Values{
		"action": {"remove"}, "password": {sitetest.GoodPassword},
	})
	if removed.Status != 200 || !strings.Contains(removed.Body, "were removed") {
		t.Errorf("removing: %d %s", removed.Status, removed.Body)
	}
	if to := logIn(v, "alice@example.com", ""); to != "/auth/account" {
		t.Errorf("without a factor: %s", to)
	}

	// A page that is left open for too long leads to the log-in.
	enrolByPage(other, url.Values{})
	at = logIn(v, "alice@example.com", "/todos/")
	c.Ahead.Add(301)
	if got := v.Get(at); got.Status != 401 || !strings.Contains(got.Body, "This log-in has expired") ||
		!strings.Contains(got.Body, `name="password"`) || got.HiddenFields().Get("return_to") != "/todos/" {
		t.Errorf("after 5 minutes: %d %s", got.Status, got.Body)
	}
	if got := v.Post("/auth/login/factor", url.Values{"code": {"123456"}, "return_to": {"/todos/"}}); got.Status != 401 ||
		!strings.Contains(got.Body, `name="password"`) || got.HiddenFields().Get("return_to") != "/todos/" {
		t.Errorf("a late code: %d %s", got.Status, got.Body)
	}
}

// What ends the trust in a browser.
func TestTrustEnds(t *testing.T) {
	c := sitetest.SetClock(t)
	dir := sitetest.TempDir(t)
	s := sitetest.Serve(t, sitetest.AccountsBody(filepath.Join(dir, "users.db"), `second_factor optional
		trust_browsers 7d
		refresh_lifetime 90d
		throttle 100 1s`))
	var phone accountstest.App
	for what, end := range map[string]func(*sitetest.Visitor, string){
		"nothing": func(*sitetest.Visitor, string) {},
		"a new password": func(v *sitetest.Visitor, _ string) {
			s.MustAnswer(200, v.Post("/auth/password", url.Values{
				"currentPassword": {sitetest.GoodPassword}, "newPassword": {"another good password"},
			}), "a new password")
			s.MustAnswer(200, v.Post("/auth/password", url.Values{
				"currentPassword": {"another good password"}, "newPassword": {sitetest.GoodPassword},
			}), "the old one again")
		},
		"a new app": func(v *sitetest.Visitor, _ string) {
			c.Ahead.Add(30)
			v.Post("/auth/factors/totp", url.Values{"action": {"remove"}, "code": {phone.Code(0)}})
			enrolByPage(v, url.Values{})
		},
		"log-out everywhere": func(_ *sitetest.Visitor, email string) {
			err := accountstest.ServiceOf(t).Sessions.End(t.Context(), accountstest.UserOf(t, email).ID, "", "")
			if err != nil {
				t.Error(err)
			}
		},
		"a new password, set elsewhere": func(_ *sitetest.Visitor, email string) {
			accountstest.ChangeUser(t, email, func(u *store.User) {
				u.PasswordHash = sitetest.WeakArgon2id(sitetest.GoodPassword)
			})
		},
		"its time": func(*sitetest.Visitor, string) { c.Ahead.Add(7*24*3600 + 1) },
	} {
		email := strings.NewReplacer(" ", "", ",", "").Replace(what) + "@example.com"
		v := s.Visitor()
		v.SignUp(email)
		phone, _, _ = enrolByPage(v, url.Values{})
		c.Ahead.Add(30)
		v.Post("/auth/logout", url.Values{})
		logIn(v, email, "")
		s.MustAnswer(303, v.Post("/auth/login/factor", url.Values{"code": {phone.Code(0)}, "trust": {"yes"}}), what)
		if to := logIn(v, email, ""); to != "/auth/account" {
			t.Errorf("%s, control: %s", what, to)
		}
		c.Ahead.Add(30) // a log-in by trust has not proved the factor, which a new app requires
		s.MustAnswer(303, v.Post("/auth/factors/prove", url.Values{"code": {phone.Code(0)}}), what)
		end(v, email)
		if to := logIn(v, email, ""); (to == "/auth/account") != (what == "nothing") {
			t.Errorf("%s: the log-in leads to %s", what, to)
		}
	}
	s.Load(sitetest.AccountsBody(filepath.Join(dir, "users.db"), "second_factor optional\ntrust_browsers off"),
		sitetest.TempDir(t))
	v := s.Visitor()
	at := logIn(v, "nothing@example.com", "")
	if page := v.Get(at).Body; strings.Contains(page, `name="trust"`) {
		t.Errorf("trust_browsers off: %s", page)
	}
}

// The site requires a second factor of some users.
func TestSecondFactorRequired(t *testing.T) {
	c := sitetest.SetClock(t)
	dir := sitetest.TempDir(t)
	body := func(more string) string { return sitetest.AccountsBody(filepath.Join(dir, "users.db"), more) }
	storage := sitetest.TempDir(t)
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(dir, "log.json")}
	accountstest.RunSite(t, s, body(""), storage)
	s.SignedUp("bob@example.com")
	s.SignedUp("alice@example.com")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Roles = []string{"admin"} })
	before, ofBob := s.LoggedIn("alice@example.com"), s.LoggedIn("bob@example.com")
	browser := s.Visitor()
	logIn(browser, "alice@example.com", "")

	s.Load(body("second_factor required auditor admin"), storage)
	mustRefuse(t, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": before.RefreshToken}), 401,
		"invalid_refresh_token", "a session of before")
	s.MustAnswer(401, s.Bearer("/todos/", before.Token), "it has ended")
	s.MustAnswer(200, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": ofBob.RefreshToken}), "another role")
	s.LoggedIn("bob@example.com")
	c.Ahead.Add(16 * 60)
	if got := browser.Get("/todos/").To(t).Path; got != "/auth/login" {
		t.Errorf("a browser of before is led to %s", got)
	}

	// A program sets it up in the log-in.
	got := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"))
	mustRefuse(t, got, 401, "second_factor_enrolment_required", "the log-in")
	challenge := got.ErrorBody(t).Error.Challenge
	mustRefuse(t, answerTo(s, challenge, "123456"), 401, "second_factor_enrolment_required", "a code before")
	begun := s.Post("/auth/factors/totp", sitetest.JSON{"challenge": challenge})
	s.MustAnswer(200, begun, "the secret")
	phone := accountstest.NewApp(t, begun.JSON(t)["secret"].(string))
	confirm := func(challenge, code string) sitetest.Reply {
		return s.Post("/auth/factors/totp/confirm", sitetest.JSON{"challenge": challenge, "code": code})
	}
	mustRefuse(t, confirm(challenge, phone.Wrong()), 401, "invalid_code", "a wrong code")
	// Somebody else who knows the password has also begun.
	rival := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")).ErrorBody(t).Error.Challenge
	rivalApp := accountstest.NewApp(t, s.Post("/auth/factors/totp", sitetest.JSON{"challenge": rival}).JSON(t)["secret"].(string))
	done := confirm(challenge, phone.Code(0))
	tokens := done.Tokens(t)
	accountstest.RecoveryCodesOf(t, done)
	mustRefuse(t, confirm(rival, rivalApp.Code(0)), 409, "factor_exists", "the other one")
	mustRefuse(t, confirm(challenge, phone.Code(0)), 401, "challenge_expired", "the challenge again")
	s.MustAnswer(200, s.Bearer("/todos/", tokens.Token), "the token")
	s.MustAnswer(200, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": tokens.RefreshToken}), "a refresh")
	if got := s.Get("/auth/factors", bearer(tokens.Token)).JSON(t); got["required"] != true {
		t.Errorf("the list: %v", got)
	}

	// A browser does so by pages, and is trusted later; the session of a trusted browser goes on.
	accountstest.ChangeUser(t, "bob@example.com", func(u *store.User) { u.Roles = []string{"auditor"} })
	v := s.Visitor()
	at := logIn(v, "bob@example.com", "/todos/list")
	page := v.Get(at)
	if page.Status != 200 || !strings.Contains(page.Body, "requires a second step") {
		t.Fatalf("the page at %s: %d %s", at, page.Status, page.Body)
	}
	s.MustAnswer(303, v.Get("/todos/"), "not yet")
	early := page.HiddenFields()
	early.Set("code", "123456")
	if got := v.Post("/auth/factors/totp/confirm", early); got.Status != 409 ||
		!strings.Contains(got.Body, "Set up an authenticator app") || got.HiddenFields().Get("return_to") != "/todos/list" {
		t.Errorf("a code too early: %d %s", got.Status, got.Body)
	}
	twice := s.Visitor() // the user begins in another browser, too
	logIn(twice, "bob@example.com", "")
	second := accountstest.NewApp(t, shownSecret.FindStringSubmatch(
		twice.Post("/auth/factors/totp", url.Values{"login": {"yes"}}).Body)[1])
	bobs, _, last := enrolByPage(v, page.HiddenFields())
	if !strings.Contains(last.Body, `href="/todos/list"`) {
		t.Errorf("it leads elsewhere: %s", last.Body)
	}
	s.MustAnswer(200, v.Get("/todos/list"), "the page that was asked for")
	if got := twice.Post("/auth/factors/totp/confirm", url.Values{
		"login": {"yes"}, "code": {second.Code(0)},
	}); got.Status != 409 || !strings.Contains(got.Body, `name="password"`) {
		t.Errorf("the other browser: %d %s", got.Status, got.Body)
	}
	v.Post("/auth/logout", url.Values{})
	c.Ahead.Add(60)
	logIn(v, "bob@example.com", "")
	v.Post("/auth/login/factor", url.Values{"code": {bobs.Code(0)}, "trust": {"yes"}}).To(t)
	if to := logIn(v, "bob@example.com", ""); to != "/auth/account" {
		t.Errorf("the trusted browser is led to %s", to)
	}
	c.Ahead.Add(16 * 60)
	s.MustAnswer(200, v.Get("/todos/"), "its session goes on")

	// Who signs up must set it up, too.
	s.Load(body("second_factor required"), storage)
	carol := s.Visitor()
	if got := carol.Post("/auth/signup", sitetest.FormOf("carol@example.com")).To(t).Path; got != "/auth/login/factor" {
		t.Errorf("a sign-up leads to %s", got)
	}
	s.MustAnswer(303, carol.Get("/todos/"), "not yet")
}
