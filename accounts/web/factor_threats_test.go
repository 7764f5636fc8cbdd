package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sealing"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Of several uses of a code at once, on two nodes, one gets in.
func TestThreatCodeTwice(t *testing.T) {
	c := sitetest.SetClock(t)
	dir := sitetest.TempDir(t)
	nodes := make([]*sitetest.Site, 2)
	text := ""
	for i := range nodes { // each with its own service, keys and counts in memory, as in two processes
		nodes[i] = &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t)}
		text += nodes[i].URL + " {\n" + sitetest.AccountsBody(
			strings.Repeat("/.", i)+filepath.Join(dir, "users.db"), "second_factor optional\nthrottle off",
		) + "\n}\n"
	}
	sitetest.RunSites(t, filepath.Join(dir, "log.json"), text)
	if len(accounts.Running()) != 2 {
		t.Fatalf("%d services", len(accounts.Running()))
	}
	for what, use := range map[string]func(accountstest.App, []string) string{
		"of the app":   func(app accountstest.App, _ []string) string { return app.Code(0) },
		"for recovery": func(_ accountstest.App, codes []string) string { return codes[0] },
	} {
		const uses = 50
		email := strings.ReplaceAll(what, " ", "") + "@example.com"
		app, codes := accountstest.WithApp(nodes[0], nodes[0].SignedUp(email).Token)
		c.Ahead.Add(30)
		code, challenges := use(app, codes), make([]string, uses)
		for i := range challenges {
			challenges[i] = challengeOf(nodes[i%2], email)
		}
		answers := make([]sitetest.Reply, uses)
		var all sync.WaitGroup
		for i := range answers {
			all.Go(func() { answers[i] = answerTo(nodes[i%2], challenges[i], code) })
		}
		all.Wait()
		entered, used := 0, 0
		for _, got := range answers {
			switch {
			case got.Status == 200:
				entered++
			case got.Status == 401:
				used++
			case got.Status != 429:
				t.Errorf("%s: %d %s", what, got.Status, got.Body)
			}
		}
		if entered != 1 || used < 15 { // otherwise the limit alone refuses them
			t.Errorf("%s: %d got in, %d were refused as used", what, entered, used)
		}
	}
}

// What somebody can do who knows the password of a user with a second factor.
func TestThreatSecondFactorGuessed(t *testing.T) {
	c := sitetest.SetClock(t)
	s := sitetest.Serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "second_factor optional\nthrottle off"))
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	challenge := func(email, ip string) string {
		return s.Post("/auth/login", sitetest.CredentialsOf(email), from(ip)).ErrorBody(t).Error.Challenge
	}
	guess := func(challenge, code, ip string) sitetest.Reply {
		return s.Post("/auth/login/factor", sitetest.JSON{"challenge": challenge, "code": code}, from(ip))
	}
	const home = "2001:db8::1"
	user := func(t *testing.T, email string) (accountstest.App, []string) {
		t.Helper()
		app, recovery := accountstest.WithApp(s, s.SignedUp(email).Token)
		c.Ahead.Add(30)
		s.MustAnswer(200, guess(challenge(email, home), app.Code(0), home), email+" is at home")
		c.Ahead.Add(30)
		return app, recovery
	}

	t.Run("one challenge", func(t *testing.T) {
		for guesses, status := range map[int]int{4: 200, 5: 401} {
			email := fmt.Sprintf("one%d@example.com", guesses)
			app, _ := user(t, email)
			one := challenge(email, "192.0.2.1")
			for range guesses {
				mustRefuse(t, guess(one, app.Wrong(), "192.0.2.1"), 401, "invalid_code", "a guess")
			}
			s.MustAnswer(status, guess(one, app.Code(0), "192.0.2.1"), fmt.Sprintf("the right code after %d guesses", guesses))
		}
	})
	t.Run("many challenges and addresses", func(t *testing.T) {
		const email = "many@example.com"
		s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf(email)), "sign-up")
		s.MustAnswer(200, s.Post("/auth/login", sitetest.CredentialsOf(email), from("203.0.113.8")),
			"a thief with the password, before there is a factor")
		app, recovery := accountstest.WithApp(s, s.LoggedIn(email).Token)
		c.Ahead.Add(30)
		s.MustAnswer(200, guess(challenge(email, home), app.Code(0), home), email+" is at home")
		c.Ahead.Add(30)
		counted := 0
		for i := range 40 {
			ip := fmt.Sprintf("203.0.113.%d", i)
			if got := guess(challenge(email, ip), app.Wrong(), ip); got.Status == 401 {
				counted++
			} else if got.Status != 429 || got.Header.Get("Retry-After") == "" {
				t.Errorf("a guess: %d %s", got.Status, got.Body)
			}
		}
		if counted != accounts.CodeFailures {
			t.Errorf("%d guesses", counted)
		}
		// The user is not locked out.
		s.MustAnswer(429, guess(challenge(email, "198.51.100.1"), app.Code(0), "198.51.100.1"),
			"the right code at a new address")
		s.MustAnswer(200, guess(challenge(email, home), app.Code(0), home), "at home")
		s.MustAnswer(200, guess(challenge(email, "198.51.100.1"), recovery[0], "198.51.100.1"),
			"a recovery code at a new address")
		// The password alone makes no address familiar.
		s.MustAnswer(429, guess(challenge(email, "203.0.113.7"), app.Code(1), "203.0.113.7"),
			"an address that knows the password")
		s.MustAnswer(429, guess(challenge(email, "203.0.113.8"), app.Code(1), "203.0.113.8"),
			"an address with a session from before the factor")
		// Nor has a familiar address unlimited guesses.
		counted = 0
		for range 4 {
			at := challenge(email, "2001:db8::2")
			for range 5 {
				if guess(at, app.Wrong(), "2001:db8::2").Status == 401 {
					counted++
				}
			}
		}
		if counted != accounts.CodeFailures {
			t.Errorf("%d guesses at a familiar address", counted)
		}
	})
	t.Run("many log-ins that wait", func(t *testing.T) {
		const email = "waits@example.com"
		user(t, email)
		waiting, refused := 0, 0
		for refused < 3 && waiting < 200 { // on a slow machine, some more are allowed in the meantime
			got := s.Post("/auth/login", sitetest.CredentialsOf(email), from("192.0.2.77"))
			if got.Status == 401 {
				waiting++
				continue
			}
			refused++
			if got.Status != 429 {
				t.Errorf("a log-in: %d %s", got.Status, got.Body)
			}
		}
		if waiting < 30 || refused == 0 {
			t.Errorf("%d log-ins wait", waiting)
		}
		if challenge(email, "192.0.2.78") == "" {
			t.Error("another address gets no challenge")
		}
	})
	t.Run("without the password", func(t *testing.T) {
		const email = "calm@example.com"
		app, _ := user(t, email)
		for i := range 200 {
			got := guess(store.RandomToken(32), app.Wrong(), fmt.Sprintf("203.0.113.%d", i))
			mustRefuse(t, got, 401, "challenge_expired", "a made-up challenge")
		}
		at := challenge(email, "192.0.2.99")
		for range 4 {
			mustRefuse(t, guess(at, app.Wrong(), "192.0.2.99"), 401, "invalid_code", "the user's own attempts are there")
		}
		s.MustAnswer(200, guess(at, app.Code(0), "192.0.2.99"), "the user gets in")
	})
}

// A challenge is for one user, password and kind of client, for a short time.
func TestThreatChallenge(t *testing.T) {
	c := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "second_factor optional")
	bobs, bobsCodes := accountstest.WithApp(s, s.SignedUp("bob@example.com").Token)
	for what, of := range map[string]struct {
		before  func(email, token string)
		answer  func(challenge string) sitetest.Reply
		entered bool
		code    string // of the error
	}{
		"control": {entered: true},
		"another user's code": {
			answer: func(challenge string) sitetest.Reply { return answerTo(s, challenge, bobs.Code(0)) },
			code:   "invalid_code",
		},
		"another user's recovery code": {
			answer: func(challenge string) sitetest.Reply { return answerTo(s, challenge, bobsCodes[0]) },
			code:   "invalid_code",
		},
		"after 5 minutes": {before: func(string, string) { c.Ahead.Add(301) }, code: "challenge_expired"},
		"just before":     {before: func(string, string) { c.Ahead.Add(299) }, entered: true},
		"after a new password": {before: func(_, token string) {
			s.MustAnswer(204, s.Post("/auth/password", sitetest.JSON{
				"currentPassword": sitetest.GoodPassword, "newPassword": "another good password",
			}, bearer(token)), "a new password")
		}, code: "challenge_expired"},
		"of a disabled user": {before: func(email, _ string) {
			accountstest.ChangeUser(t, email, func(u *store.User) { u.Disabled = true })
		}, code: "challenge_expired"},
		"as a token": {
			answer: func(challenge string) sitetest.Reply { return s.Bearer("/auth/whoami", challenge) },
			code:   "invalid_token",
		},
		"as a refresh token": {
			answer: func(challenge string) sitetest.Reply {
				return s.Post("/auth/refresh", sitetest.JSON{"refreshToken": challenge})
			}, code: "invalid_refresh_token",
		},
		"for setting up another app": {
			answer: func(challenge string) sitetest.Reply {
				return s.Post("/auth/factors/totp", sitetest.JSON{"challenge": challenge})
			}, code: "challenge_expired",
		},
	} {
		email := strings.NewReplacer(" ", "", "'", "").Replace(what) + "@example.com"
		token := s.SignedUp(email).Token
		app, _ := accountstest.WithApp(s, token)
		c.Ahead.Add(30)
		challenge := challengeOf(s, email)
		if of.before != nil {
			of.before(email, token)
		}
		if of.answer == nil {
			of.answer = func(challenge string) sitetest.Reply { return answerTo(s, challenge, app.Code(0)) }
		}
		if got := of.answer(challenge); of.entered {
			got.Tokens(t)
		} else {
			mustRefuse(t, got, 401, of.code, what)
		}
	}

	// A challenge of a program is none for a browser, and the other way round.
	app, _ := accountstest.WithApp(s, s.SignedUp("alice@example.com").Token)
	c.Ahead.Add(30)
	got := s.Form(sitetest.Browser(t), "/auth/login/factor", url.Values{"code": {app.Code(0)}},
		"Cookie: challenge="+challengeOf(s, "alice@example.com"))
	if got.Status != 401 || !strings.Contains(got.Body, "This log-in has expired") {
		t.Errorf("in a browser: %d %s", got.Status, got.Body)
	}
	v := s.Visitor()
	logIn(v, "alice@example.com", "")
	for _, cookie := range v.Client.Jar.Cookies(must(url.Parse(s.URL))) {
		if cookie.Name == "challenge" {
			mustRefuse(t, answerTo(s, cookie.Value, app.Code(0)), 401, "challenge_expired", "of a browser")
		}
	}
	s.MustAnswer(303, v.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}}), "control")
}

// A thief with a session cannot set up, remove or replace a factor, nor get in by a reset link alone.
func TestThreatStolenSession(t *testing.T) {
	c := sitetest.SetClock(t)
	store := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(store, "second_factor optional\ntoken_lifetime 1h"))
	stolen := s.SignedUp("alice@example.com").Token
	c.Ahead.Add(301)
	begin := func(token string, body sitetest.JSON) sitetest.Reply {
		return s.Post("/auth/factors/totp", body, bearer(token))
	}
	mustRefuse(t, begin(stolen, sitetest.JSON{}), 403, "confirmation_required", "setting up an app")
	mustRefuse(t, begin(stolen, sitetest.JSON{"password": "wrong password"}), 401, "invalid_credentials", "a guess")
	own := s.LoggedIn("alice@example.com").Token
	begun := begin(own, sitetest.JSON{})
	s.MustAnswer(200, begun, "control: a recent log-in")
	app := accountstest.NewApp(t, begun.JSON(t)["secret"].(string))
	mustRefuse(t, s.Post("/auth/factors/totp/confirm", sitetest.JSON{"code": app.Code(0)}, bearer(stolen)),
		409, "no_enrolment", "completing it in another session")
	confirmed := s.Post("/auth/factors/totp/confirm", sitetest.JSON{"code": app.Code(0)}, bearer(own))
	codes := accountstest.RecoveryCodesOf(t, confirmed)

	c.Ahead.Add(60)
	fresh := answerTo(s, challengeOf(s, "alice@example.com"), app.Code(0)).Tokens(t).Token // stolen at once
	for path, method := range map[string]string{
		"/auth/factors/totp": http.MethodDelete, "/auth/factors/recovery": http.MethodPost,
	} {
		for what, body := range map[string]string{
			"": `{}`, "a used code": `{"code":"` + app.Code(0) + `"}`, "a wrong code": `{"code":"` + app.Wrong() + `"}`,
			"a wrong password": `{"password":"wrong password"}`, "no password": `{"password":""}`,
		} {
			got := s.Send(method, path, body, bearer(fresh), "Content-Type: application/json")
			if got.Status != 401 && got.Status != 403 && got.Status != 422 {
				t.Errorf("%s %s with %s: %d %s", method, path, what, got.Status, got.Body)
			}
		}
	}
	mustRefuse(t, begin(fresh, sitetest.JSON{}), 409, "factor_exists", "another app")

	// A reset by a link keeps the factor.
	c.Ahead.Add(3600)
	other := sitetest.Browser(t)
	link := resetLink(t, s, store, "alice@example.com")
	s.MustAnswer(303, s.Form(other, link, nil), "the link")
	s.MustAnswer(200, s.Form(other, "/auth/reset", url.Values{"newPassword": {"a password by link"}}), "a new password")
	got := s.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": "a password by link"})
	mustRefuse(t, got, 401, "second_factor_required", "the new password")
	s.MustAnswer(200, answerTo(s, got.ErrorBody(t).Error.Challenge, codes[0]), "control: with a code")
}

// Who knows the password, and has logged in before the user has set up an app, gets past it in that
// session by no other factor: neither new recovery codes, nor a passkey, nor without the app.
func TestThreatSessionFromBeforeFactor(t *testing.T) {
	c := sitetest.SetClock(t)
	s := passkeySite(t, "second_factor optional\npasskeys")
	password := sitetest.JSON{"password": sitetest.GoodPassword}
	own := s.SignedUp("alice@example.com").Token
	thief := s.LoggedIn("alice@example.com").Token
	prepared := s.Post("/auth/passkeys/options", password, bearer(thief))
	s.MustAnswer(200, prepared, "control: before there is an app")
	v := s.Visitor()
	s.MustAnswer(303, v.Post("/auth/login", sitetest.FormOf("alice@example.com")), "the thief's browser")
	app, codes := accountstest.WithApp(s, own)

	remove := func(token string) sitetest.Reply {
		return s.Send("DELETE", "/auth/factors/totp", sitetest.Marshal(t, password), bearer(token), "Content-Type: application/json")
	}
	mustRefuse(t, s.Post("/auth/factors/recovery", password, bearer(thief)), 403, "confirmation_required", "recovery codes")
	mustRefuse(t, remove(thief), 403, "confirmation_required", "without the app")
	mustRefuse(t, s.Post("/auth/passkeys/options", password, bearer(thief)), 403, "confirmation_required", "a passkey")
	mustRefuse(t, s.Post("/auth/passkeys", sitetest.JSON{
		"name": "x", "credential": accountstest.NewPasskey(t).Make(s.URL, accountstest.Options(t, prepared)),
	}, bearer(thief)), 403, "confirmation_required", "a passkey that was prepared")
	got := v.Post("/auth/factors/recovery", url.Values{"password": {sitetest.GoodPassword}})
	mustHave(t, got, "the page", "Enter the code of your authenticator app as well")
	page := v.Get("/auth/passkeys")
	mustHave(t, page, "the page", `href="/auth/factors/prove?return_to=%2Fauth%2Fpasskeys"`)
	if strings.Contains(page.Body, "data-options") {
		t.Error("the page offers to make a passkey")
	}

	// control: with a code it is possible, and then with the password
	s.MustAnswer(303, v.Post("/auth/factors/prove", url.Values{"code": {codes[0]}}), "a code")
	mustHave(t, v.Get("/auth/passkeys"), "the page then", "data-options")
	s.MustAnswer(200, s.Post("/auth/factors/recovery", password, bearer(own)), "control: recovery codes")
	c.Ahead.Add(60)
	s.MustAnswer(204, s.Send("DELETE", "/auth/factors/totp", `{"code":"`+app.Code(0)+`"}`, bearer(thief),
		"Content-Type: application/json"), "control: the code, in any session")
}

// resetLink returns the path of a new reset link.
func resetLink(t *testing.T, s *sitetest.Site, path, email string) string {
	t.Helper()
	token := store.RandomToken(accounts.RefreshBytes)
	err := accountstest.StoreOf(t).CreateOneTimeToken(t.Context(), store.OneTimeToken{
		Hash: store.HashToken(token), Purpose: accounts.PurposeReset, UserID: accountstest.UserOf(t, email).ID,
		ExpiresAt: accountstest.ServiceOf(t).Now().Add(3600e9),
	})
	if err != nil {
		t.Fatal(err)
	}
	return "/auth/reset?token=" + token
}

// A trusted browser is trusted by one user.
func TestThreatTrustedBrowserOfAnotherUser(t *testing.T) {
	c := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "second_factor optional")
	v := s.Visitor()
	v.SignUp("bob@example.com")
	enrolByPage(v, url.Values{})
	v.Post("/auth/logout", url.Values{})
	v.SignUp("alice@example.com")
	app, _, _ := enrolByPage(v, url.Values{})
	c.Ahead.Add(60)
	logIn(v, "alice@example.com", "")
	v.Post("/auth/login/factor", url.Values{"code": {app.Code(0)}, "trust": {"yes"}}).To(t)
	accountstest.ChangeUser(t, "bob@example.com", func(u *store.User) { // as users of login_with have equal ones
		u.PasswordHash = accountstest.UserOf(t, "alice@example.com").PasswordHash
	})
	for email, want := range map[string]string{
		"alice@example.com": "/auth/account", "bob@example.com": "/auth/login/factor",
	} {
		if to := logIn(v, email, ""); to != want {
			t.Errorf("%s is led to %s", email, to)
		}
	}
	var cookie string
	for _, kept := range v.Client.Jar.Cookies(must(url.Parse(s.URL))) {
		if kept.Name == "trusted_browser" {
			cookie = kept.String()
		}
	}
	got := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), "Cookie: "+cookie)
	mustRefuse(t, got, 401, "second_factor_required", "a program with the cookie")
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// Pages of other sites cannot send the forms.
func TestThreatCrossSiteSecondFactor(t *testing.T) {
	s := sitetest.AccountsSite(t, "second_factor optional")
	v := s.Visitor()
	v.SignUp("alice@example.com")
	for _, path := range []string{
		"/auth/factors/totp", "/auth/factors/totp/confirm", "/auth/factors/recovery", "/auth/login/factor",
		"/auth/factors/browsers/x",
	} {
		s.MustAnswer(403, v.Post(path, url.Values{"code": {"1"}}, "Sec-Fetch-Site: cross-site"), path)
		if got := v.Get(path); got.Status != 405 && path != "/auth/login/factor" {
			t.Errorf("GET %s: %d", path, got.Status)
		}
	}
	enrolByPage(v, url.Values{}) // control
}

// No secret, code or challenge is in a log, and no secret or code is in the store as it is.
func TestThreatSecondFactorInLogsAndStore(t *testing.T) {
	c := sitetest.SetClock(t)
	dir := sitetest.TempDir(t)
	s := sitetest.Serve(t, "log\n"+sitetest.AccountsBody(filepath.Join(dir, "users.db"), "second_factor optional"))
	token := s.SignedUp("alice@example.com").Token
	begun := s.Post("/auth/factors/totp", sitetest.JSON{"password": sitetest.GoodPassword}, bearer(token)).JSON(t)
	secret := begun["secret"].(string)
	app := accountstest.NewApp(t, secret)
	first := app.Code(0)
	codes := accountstest.RecoveryCodesOf(t, s.Post("/auth/factors/totp/confirm", sitetest.JSON{"code": first}, bearer(token)))
	c.Ahead.Add(60)
	v := s.Visitor()
	logIn(v, "alice@example.com", "")
	wrong, second := app.Wrong(), app.Code(0)
	v.Post("/auth/login/factor", url.Values{"code": {wrong}})
	v.Post("/auth/login/factor", url.Values{"code": {second}, "trust": {"yes"}}).To(t)
	challenge := challengeOf(s, "alice@example.com")
	answerTo(s, challenge, wrong)
	answerTo(s, challenge, codes[0]).Tokens(t)
	answerTo(s, challengeOf(s, "alice@example.com"), codes[0])
	secrets := map[string]string{"secret": secret, "challenge": challenge, "first code": first, "second code": second}
	for i, code := range codes {
		secrets[fmt.Sprint("recovery code ", i)] = code
		secrets[fmt.Sprint("recovery code without dashes ", i)] = strings.ReplaceAll(code, "-", "")
	}
	for _, cookie := range v.Client.Jar.Cookies(must(url.Parse(s.URL))) {
		secrets["cookie "+cookie.Name] = cookie.Value
	}
	s.MustAnswer(200, s.Get("/auth/login?control=CONTROL"), "control")
	sitetest.Eventually(t, "the log has the control", func() bool { return strings.Contains(s.Log(), "CONTROL") })
	texts := map[string]string{"the log": s.Log()}
	for _, name := range []string{"users.db", "users.db-wal"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			texts[name] = string(text)
		}
	}
	if !strings.Contains(texts["users.db"]+texts["users.db-wal"], "totp") {
		t.Error("control: the store has no app")
	}
	for where, text := range texts {
		for what, secret := range secrets {
			if strings.Contains(what, " code") && len(secret) == 6 {
				secret = `"` + secret + `"` // digits may be part of another number
			}
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
}

// A lost or different key does not let anybody past the factor.
func TestThreatLostEncryptionKey(t *testing.T) {
	c := sitetest.SetClock(t)
	dir := sitetest.TempDir(t)
	body := sitetest.AccountsBody(filepath.Join(dir, "users.db"), "second_factor optional")
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(dir, "log.json")}
	storage := sitetest.TempDir(t)
	accountstest.RunSite(t, s, body, storage)
	token := s.SignedUp("alice@example.com").Token
	app, codes := accountstest.WithApp(s, token)
	if err := os.Remove(filepath.Join(storage, sealing.Path)); err != nil {
		t.Fatal(err)
	}
	c.Ahead.Add(60)
	answerTo(s, challengeOf(s, "alice@example.com"), app.Code(0)).Tokens(t) // it is still in memory

	s.Load("respond /x x", storage)
	s.Load(body, storage)
	c.Ahead.Add(60)
	mustRefuse(t, answerTo(s, challengeOf(s, "alice@example.com"), app.Code(0)), 503, "second_factor_unavailable",
		"a code without the key")
	// Another user makes another key.
	accountstest.WithApp(s, s.SignedUp("bob@example.com").Token)
	mustRefuse(t, answerTo(s, challengeOf(s, "alice@example.com"), app.Code(0)), 503, "second_factor_unavailable",
		"a code with another key")
	sitetest.Eventually(t, "the log says so", func() bool {
		return strings.Contains(s.Log(), "troubleshooting.md#factor-not-readable")
	})
	if strings.Count(s.Log(), "cannot be decrypted; the user needs") != 1 {
		t.Error("it is said more than once")
	}
	got := answerTo(s, challengeOf(s, "alice@example.com"), codes[0])
	s.MustAnswer(200, got, "a recovery code")
	s.MustAnswer(204, s.Send(http.MethodDelete, "/auth/factors/totp", `{"password":"`+sitetest.GoodPassword+`"}`,
		bearer(got.Tokens(t).Token), "Content-Type: application/json"), "removing it")
	again, _ := accountstest.WithApp(s, s.LoggedIn("alice@example.com").Token)
	c.Ahead.Add(60)
	answerTo(s, challengeOf(s, "alice@example.com"), again.Code(0)).Tokens(t)

	// A storage that cannot be read.
	if err := os.WriteFile(filepath.Join(storage, sealing.Path), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Load("respond /x x", storage)
	s.Load(body, storage)
	c.Ahead.Add(60)
	mustRefuse(t, answerTo(s, challengeOf(s, "alice@example.com"), again.Code(0)), 503, "storage_unavailable",
		"a code with a corrupt key")
}
