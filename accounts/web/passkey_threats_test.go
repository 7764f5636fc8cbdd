package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

type changePasskey = func(*accountstest.PasskeyAnswer)

// Attacks on a log-in with a passkey, each beside one that differs in nothing else and gets in.
func TestThreatPasskeyLogIn(t *testing.T) {
	c := sitetest.SetClock(t)
	s := passkeySite(t, "passkeys\nthrottle off")
	bob, _ := accountstest.WithPasskey(s, s.SignedUp("bob@example.com").Token)
	type attack struct {
		change  changePasskey
		before  func(email, token, id string)
		options func(options map[string]any) // changes
		send    func(challenge string, credential sitetest.JSON) sitetest.Reply
		code    string // none: it gets in
	}
	for name, of := range map[string]attack{
		"control":           {},
		"the origin's port": {change: func(a *accountstest.PasskeyAnswer) { a.Origin = "http://localhost:1" }, code: "invalid_passkey"},
		"another origin":    {change: func(a *accountstest.PasskeyAnswer) { a.Origin = "https://evil.example" }, code: "invalid_passkey"},
		"an origin below": {
			change: func(a *accountstest.PasskeyAnswer) { a.Origin = strings.Replace(s.URL, "//", "//evil.", 1) },
			code:   "invalid_passkey",
		},
		"an origin with a user": {
			change: func(a *accountstest.PasskeyAnswer) { a.Origin = strings.Replace(s.URL, "//", "//x@", 1) },
			code:   "invalid_passkey",
		},
		"an app":                   {change: func(a *accountstest.PasskeyAnswer) { a.Origin = "android:apk-key-hash:abc" }, code: "invalid_passkey"},
		"in a frame":               {change: func(a *accountstest.PasskeyAnswer) { a.CrossOrigin = true }, code: "invalid_passkey"},
		"another domain":           {change: func(a *accountstest.PasskeyAnswer) { a.Party = "evil.example" }, code: "invalid_passkey"},
		"a changed signature":      {change: func(a *accountstest.PasskeyAnswer) { a.Tampered = true }, code: "invalid_passkey"},
		"another ceremony":         {change: func(a *accountstest.PasskeyAnswer) { a.Type = "webauthn.create" }, code: "invalid_passkey"},
		"nobody was there":         {change: func(a *accountstest.PasskeyAnswer) { a.Flags = accountstest.UserVerified }, code: "invalid_passkey"},
		"another user":             {change: func(a *accountstest.PasskeyAnswer) { a.Handle = bob.Handle }, code: "invalid_passkey"},
		"no user":                  {change: func(a *accountstest.PasskeyAnswer) { a.Handle = nil }, code: "invalid_passkey"},
		"a copy":                   {change: func(a *accountstest.PasskeyAnswer) { a.Count = 5 }, code: "passkey_cloned"},
		"a copy without a counter": {change: func(a *accountstest.PasskeyAnswer) { a.Count = 0 }, code: "passkey_cloned"},
		"a challenge of somebody else's": {
			change: func(a *accountstest.PasskeyAnswer) { a.Challenge = store.RandomToken(56) }, code: "passkey_expired",
		},
		"a changed challenge": {
			change: func(a *accountstest.PasskeyAnswer) { a.Challenge = "AAAA" + a.Challenge[4:] }, code: "passkey_expired",
		},
		"an old challenge": {
			options: func(map[string]any) { c.Ahead.Add(301) }, code: "passkey_expired",
		},
		"a challenge of almost 5 minutes": {options: func(map[string]any) { c.Ahead.Add(299) }},
		"the challenge of another program": {
			send: func(_ string, credential sitetest.JSON) sitetest.Reply {
				_, own := toLogIn(s)
				return s.Post("/auth/login/passkey", sitetest.JSON{"challenge": own, "credential": credential})
			},
			code: "passkey_expired",
		},
		"the challenge for another purpose": {
			options: func(options map[string]any) {
				token := s.SignedUp("mallory@example.com").Token
				own := s.Send(http.MethodPost, "/auth/passkeys/options", "", bearer(token))
				options["challenge"] = accountstest.Options(t, own)["challenge"]
			},
			code: "passkey_expired",
		},
		"from a page of another site": {
			send: func(challenge string, credential sitetest.JSON) sitetest.Reply {
				return s.Post("/auth/login/passkey", sitetest.JSON{"challenge": challenge, "credential": credential},
					"Sec-Fetch-Site: cross-site")
			},
			code: "cross_origin",
		},
		"a removed passkey": {
			before: func(_, token, id string) {
				s.MustAnswer(204, s.Send(http.MethodDelete, "/auth/passkeys/"+id, "", bearer(token)), "removing")
			},
			code: "invalid_passkey",
		},
		"a removed user": {
			before: func(_, token, _ string) {
				s.MustAnswer(204, s.Send(http.MethodDelete, "/auth/whoami", `{"password":"`+sitetest.GoodPassword+`"}`,
					bearer(token), "Content-Type: application/json"), "deleting")
			},
			code: "invalid_passkey",
		},
		"a disabled user": {
			before: func(email, _, _ string) {
				accountstest.ChangeUser(t, email, func(u *store.User) { u.Disabled = true })
			},
			code: "invalid_passkey",
		},
	} {
		t.Run(name, func(t *testing.T) {
			email := strings.ToLower(store.RandomToken(6)) + "@example.com"
			token := s.SignedUp(email).Token
			p, id := accountstest.WithPasskey(s, token, func(p *accountstest.Passkey) { p.Count = 5 })
			if of.before != nil {
				of.before(email, token, id)
			}
			options, challenge := toLogIn(s)
			if of.options != nil {
				of.options(options)
			}
			if of.send == nil {
				of.send = func(challenge string, credential sitetest.JSON) sitetest.Reply {
					return s.Post("/auth/login/passkey", sitetest.JSON{"challenge": challenge, "credential": credential})
				}
			}
			var change []changePasskey
			if of.change != nil {
				change = append(change, of.change)
			}
			got := of.send(challenge, p.Use(s.URL, options, change...))
			if of.code == "" {
				got.Tokens(t)
				return
			}
			if got.ErrorBody(t).Error.Code != of.code || got.Status == 200 {
				t.Errorf("%d %s, expected %s", got.Status, got.Body, of.code)
			}
			if of.before == nil {
				by(s, p).Tokens(t) // the passkey itself goes on working
			}
		})
	}
	log := s.Log()
	if strings.Count(log, `"passkey cloned"`) != 2 || strings.Count(log, "passkey-copied") != 2 {
		t.Error("the copies are not in the log")
	}
}

// Of several uses of one answer at once, on two nodes, one gets in.
func TestThreatPasskeyReplay(t *testing.T) {
	dir := sitetest.TempDir(t)
	nodes := make([]*sitetest.Site, 2)
	text := ""
	for i := range nodes { // each with its own service and memory, as in two processes
		address := strings.Replace(sitetest.FreeAddress(t), "127.0.0.1", "localhost", 1)
		nodes[i] = &sitetest.Site{T: t, URL: "http://" + address}
		text += nodes[i].URL + " {\n" + sitetest.AccountsBody(
			strings.Repeat("/.", i)+filepath.Join(dir, "users.db"),
			"passkeys\nthrottle off\nissuer "+nodes[0].URL, // whose pages these are
		) + "\n}\n"
	}
	sitetest.RunSites(t, filepath.Join(dir, "log.json"), text)
	if len(accounts.Running()) != 2 {
		t.Fatalf("%d services", len(accounts.Running()))
	}
	p, _ := accountstest.WithPasskey(nodes[0], nodes[0].SignedUp("alice@example.com").Token) // it has no counter
	options, challenge := toLogIn(nodes[0])
	body := sitetest.JSON{"challenge": challenge, "credential": p.Use(nodes[0].URL, options)}
	codes := make([]int, 30)
	var all sync.WaitGroup
	for i := range codes {
		all.Go(func() { codes[i] = nodes[i%2].Post("/auth/login/passkey", body).Status })
	}
	all.Wait()
	slices.Sort(codes)
	if codes[0] != 200 || codes[1] != 401 || codes[29] != 401 {
		t.Errorf("the answers: %v", codes)
	}
	options, challenge = toLogIn(nodes[0])
	nodes[1].Post("/auth/login/passkey", sitetest.JSON{
		"challenge": challenge, "credential": p.Use(nodes[0].URL, options),
	}).Tokens(t)
}

// Attacks on adding a passkey.
func TestThreatPasskeyAdded(t *testing.T) {
	c := sitetest.SetClock(t)
	s := passkeySite(t, "passkeys\nthrottle off")
	bob := s.SignedUp("bob@example.com").Token
	for name, of := range map[string]struct {
		change  changePasskey
		options func(options map[string]any, token string) string // returns the token to send
		twice   bool
		code    string
	}{
		"control":             {},
		"another origin":      {change: func(a *accountstest.PasskeyAnswer) { a.Origin = "https://evil.example" }, code: "invalid_passkey"},
		"another domain":      {change: func(a *accountstest.PasskeyAnswer) { a.Party = "evil.example" }, code: "invalid_passkey"},
		"in a frame":          {change: func(a *accountstest.PasskeyAnswer) { a.CrossOrigin = true }, code: "invalid_passkey"},
		"the algorithm none":  {change: func(a *accountstest.PasskeyAnswer) { a.Algorithm = 0 }, code: "invalid_passkey"},
		"another algorithm":   {change: func(a *accountstest.PasskeyAnswer) { a.Algorithm = -9 }, code: "invalid_passkey"},
		"another ceremony":    {change: func(a *accountstest.PasskeyAnswer) { a.Type = "webauthn.get" }, code: "invalid_passkey"},
		"nobody was there":    {change: func(a *accountstest.PasskeyAnswer) { a.Flags = 0 }, code: "invalid_passkey"},
		"the challenge twice": {twice: true, code: "passkey_expired"},
		"an old challenge": {
			options: func(_ map[string]any, token string) string { c.Ahead.Add(301); return token },
			code:    "passkey_expired",
		},
		"a challenge to log in": {
			options: func(options map[string]any, token string) string {
				other, _ := toLogIn(s)
				options["challenge"] = other["challenge"]
				return token
			},
			code: "passkey_expired",
		},
		"the challenge of another user": {
			options: func(map[string]any, string) string { return bob }, code: "passkey_expired",
		},
	} {
		t.Run(name, func(t *testing.T) {
			email := strings.ToLower(store.RandomToken(6)) + "@example.com"
			token := s.SignedUp(email).Token
			options := accountstest.Options(t, s.Send(http.MethodPost, "/auth/passkeys/options", "", bearer(token)))
			sender := token
			if of.options != nil {
				sender = of.options(options, token)
			}
			var change []changePasskey
			if of.change != nil {
				change = append(change, of.change)
			}
			add := func() sitetest.Reply {
				credential := accountstest.NewPasskey(t).Make(s.URL, options, change...)
				return s.Post("/auth/passkeys", sitetest.JSON{"name": "x", "credential": credential}, bearer(sender))
			}
			got := add()
			if of.twice {
				got = add()
			}
			if of.code == "" {
				s.MustAnswer(201, got, "it is added")
			} else if got.Status == 201 || got.ErrorBody(t).Error.Code != of.code {
				t.Errorf("%d %s, expected %s", got.Status, got.Body, of.code)
			}
		})
	}
	t.Run("a passkey of another user", func(t *testing.T) {
		p, _ := accountstest.WithPasskey(s, s.SignedUp("carol@example.com").Token)
		own := bearer(s.SignedUp("mallory@example.com").Token)
		options := accountstest.Options(t, s.Send(http.MethodPost, "/auth/passkeys/options", "", own))
		handle := p.Handle
		got := s.Post("/auth/passkeys", sitetest.JSON{"name": "x", "credential": p.Make(s.URL, options)}, own)
		mustRefuse(t, got, 409, "passkey_exists", "carol's passkey in another account")
		p.Handle = handle
		by(s, p).Tokens(t)
	})
	t.Run("too many", func(t *testing.T) {
		token := s.SignedUp("many@example.com").Token
		for range 20 {
			accountstest.WithPasskey(s, token)
		}
		mustRefuse(t, s.Send(http.MethodPost, "/auth/passkeys/options", "", bearer(token)), 409, "too_many_passkeys",
			"one more")
	})
	t.Run("of somebody else's", func(t *testing.T) {
		dave, id := accountstest.WithPasskey(s, s.SignedUp("dave@example.com").Token)
		mustRefuse(t, s.Send(http.MethodDelete, "/auth/passkeys/"+id, "", bearer(s.LoggedIn("bob@example.com").Token)),
			404, "not_found", "removing")
		mustRefuse(t, s.Send(http.MethodPatch, "/auth/passkeys/"+id, `{"name":"x"}`, bearer(bob),
			"Content-Type: application/json"), 404, "not_found", "renaming")
		by(s, dave).Tokens(t)
	})
}

// A thief of a session cannot add a passkey, and the user is told by mail of each.
func TestThreatPasskeyOfThief(t *testing.T) {
	c := sitetest.SetClock(t)
	server := sitetest.NewSMTPServer(t).Start()
	s := passkeySite(t, "passkeys\n"+mailOption(server, ""))
	token := s.SignedUp("alice@example.com").Token
	c.Ahead.Add(301)
	mustRefuse(t, s.Send(http.MethodPost, "/auth/passkeys/options", "", bearer(token)), 403, "confirmation_required",
		"the options")
	v := s.Visitor()
	v.SignUp("bob@example.com")
	p := accountstest.NewPasskey(t)
	form := inForm(t, p.Make(s.URL, optionsOn(t, v.Get("/auth/passkeys"))), "name", "x")
	s.MustAnswer(403, v.Post("/auth/passkeys", form, "Sec-Fetch-Site: cross-site"), "a page of another site")
	s.MustAnswer(200, v.Post("/auth/passkeys", form), "the user's own page")
	sitetest.Eventually(t, "the mail is there", func() bool {
		return slices.ContainsFunc(server.Received(), func(mail sitetest.ReceivedMail) bool {
			return strings.Contains(fmt.Sprint(mail), "A passkey was added")
		})
	})
}

// A passkey that was made before an account is recovered does not log in after it, until the user has
// used it together with the new password; and none can be the last way in that is removed.
func TestThreatPasskeyBeforeRecovery(t *testing.T) {
	s := passkeySite(t, "passkeys\nsecond_factor optional")
	token := s.SignedUp("alice@example.com").Token
	p, _ := accountstest.WithPasskey(s, token)
	by(s, p).Tokens(t)
	accountstest.WithApp(s, token)
	resetByOperator(s, "alice@example.com")
	mustRefuse(t, by(s, p), 401, "invalid_passkey", "after the recovery")
	challenge := s.Post("/auth/login", sitetest.JSON{
		"email": "alice@example.com", "password": "another good password",
	}).ErrorBody(t).Error.Challenge
	options := s.Post("/auth/login/passkey/options", sitetest.JSON{"challenge": challenge})
	s.Post("/auth/login/factor", sitetest.JSON{
		"challenge": challenge, "credential": p.Use(s.URL, accountstest.Options(t, options)),
	}).Tokens(t)
	by(s, p).Tokens(t)
}

// resetByOperator sets another password by a link of an operator.
func resetByOperator(s *sitetest.Site, email string) {
	s.T.Helper()
	user, token := accountstest.UserOf(s.T, email), store.RandomToken(32)
	now := accountstest.ServiceOf(s.T).Now()
	err := accountstest.StoreOf(s.T).CreateOneTimeToken(s.T.Context(), store.OneTimeToken{
		Hash: store.HashToken(token), UserID: user.ID, Purpose: "reset", ExpiresAt: now.Add(1e12),
	})
	if err != nil {
		s.T.Fatal(err)
	}
	s.MustAnswer(204, s.Post("/auth/reset", sitetest.JSON{"token": token, "newPassword": "another good password"}),
		"a new password")
}

// The last way in stays.
func TestThreatLastPasskey(t *testing.T) {
	s := passkeySite(t, "passkeys")
	token := s.SignedUp("alice@example.com").Token
	p, first := accountstest.WithPasskey(s, token)
	_, second := accountstest.WithPasskey(s, token)
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.PasswordHash = "" })
	own := bearer(by(s, p).Tokens(t).Token)
	s.MustAnswer(204, s.Send(http.MethodDelete, "/auth/passkeys/"+second, "", own), "one of two")
	mustRefuse(t, s.Send(http.MethodDelete, "/auth/passkeys/"+first, "", own), 409, "last_login", "the last one")
	by(s, p).Tokens(t)
}

// A page for the log-in stores nothing, however often it is opened.
func TestThreatPasskeyPageOpenedOften(t *testing.T) {
	s := passkeySite(t, "passkeys")
	count := func() int {
		records, err := accountstest.StoreOf(t).Records(t.Context(), "passkey challenge", "", accountstest.ServiceOf(t).Now())
		if err != nil {
			t.Fatal(err)
		}
		return len(records)
	}
	v := s.Visitor()
	for range 20 {
		v.Get("/auth/login")
		toLogIn(s)
	}
	if n := count(); n != 0 {
		t.Errorf("%d records", n)
	}
	p, _ := accountstest.WithPasskey(s, s.SignedUp("alice@example.com").Token)
	by(s, p).Tokens(t)
	if n := count(); n != 2 {
		t.Errorf("control: %d records", n)
	}
}

// Somebody signs up with an address that is not theirs, and adds a passkey. Its owner gets in, and the
// other does not any more.
func TestThreatPasskeyBeforeTheOwner(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	p := &postbox{Site: passkeySite(t, "passkeys\n"+mailOption(server, "")), server: server}
	thief := p.SignedUp("alice@example.com").Token
	passkey, _ := accountstest.WithPasskey(p.Site, thief)
	by(p.Site, passkey).Tokens(t)
	p.next() // the notice
	p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}), "forgot")
	p.MustAnswer(204, p.Post("/auth/reset", sitetest.JSON{
		"email": "alice@example.com", "code": p.next().Code, "newPassword": otherPassword,
	}), "reset")
	mustRefuse(t, by(p.Site, passkey), 401, "invalid_passkey", "the passkey of before")
	owner := p.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": otherPassword}).Tokens(t)
	if got := p.Get("/auth/passkeys", bearer(owner.Token)); got.Body != "[]" {
		t.Errorf("the passkeys: %s", got.Body)
	}
	accountstest.WithPasskey(p.Site, owner.Token)
}

// A challenge of a session is for one purpose.
func TestThreatPasskeyOtherPurpose(t *testing.T) {
	s := passkeySite(t, "passkeys")
	token := s.SignedUp("alice@example.com").Token
	p, _ := accountstest.WithPasskey(s, token)
	prove := func(path string) sitetest.Reply {
		options := accountstest.Options(t, s.Send(http.MethodPost, path, "", bearer(token)))
		return s.Post("/auth/factors/prove", sitetest.JSON{"credential": p.Use(s.URL, options)}, bearer(token))
	}
	mustRefuse(t, prove("/auth/passkeys/options"), 401, "passkey_expired", "a challenge to add a passkey")
	s.MustAnswer(204, prove("/auth/factors/prove/options"), "the right one")
}

// Where a second factor is optional and a user has only a passkey, who knows the password can log in,
// but gets past the passkey by nothing else: neither by an app, nor by another passkey, nor without
// this one, nor by another address, to which a mail would recover the account.
func TestThreatPasswordBesidePasskey(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	s := passkeySite(t, "passkeys\nsecond_factor optional\n"+mailOption(server, ""))
	own := s.SignedUp("alice@example.com").Token
	thief := s.LoggedIn("alice@example.com").Token
	password := sitetest.JSON{"password": sitetest.GoodPassword}
	prepared := s.Post("/auth/passkeys/options", password, bearer(thief))
	s.MustAnswer(200, prepared, "control: before there is a passkey")
	begun := s.Post("/auth/factors/totp", password, bearer(thief))
	s.MustAnswer(200, begun, "control: an app, before there is a passkey")
	v := s.Visitor()
	s.MustAnswer(303, v.Post("/auth/login", sitetest.FormOf("alice@example.com")), "the thief's browser")
	phone, id := accountstest.WithPasskey(s, own)

	remove := func(token, id string) sitetest.Reply {
		return s.Send(http.MethodDelete, "/auth/passkeys/"+id, sitetest.Marshal(t, password), bearer(token),
			"Content-Type: application/json")
	}
	code := accountstest.NewApp(t, begun.JSON(t)["secret"].(string)).Code(0)
	address := sitetest.JSON{"email": "thief@example.com", "password": sitetest.GoodPassword}
	for what, got := range map[string]sitetest.Reply{
		"another passkey": s.Post("/auth/passkeys/options", password, bearer(thief)),
		"a passkey that was prepared": s.Post("/auth/passkeys", sitetest.JSON{
			"name": "x", "credential": accountstest.NewPasskey(t).Make(s.URL, accountstest.Options(t, prepared)),
		}, bearer(thief)),
		"without the passkey":          remove(thief, id),
		"an app":                       s.Post("/auth/factors/totp", password, bearer(thief)),
		"an app that was prepared":     s.Post("/auth/factors/totp/confirm", sitetest.JSON{"code": code}, bearer(thief)),
		"another address":              s.Post("/auth/email", address, bearer(thief)),
		"confirming another address":   s.Post("/auth/email/confirm", sitetest.JSON{"code": "123456"}, bearer(thief)),
		"an app, in a browser":         v.Post("/auth/factors/totp", url.Values{"password": {sitetest.GoodPassword}}),
		"without it, in a browser":     v.Post("/auth/passkeys/"+id, url.Values{"action": {"remove"}}),
		"another passkey in a browser": v.Post("/auth/passkeys", inForm(t, phone.Copy().Make(s.URL, accountstest.Options(t, prepared)), "name", "x")),
	} {
		if got.Status != 403 || !strings.Contains(got.Body, "Use one of your passkeys first") {
			t.Errorf("%s: %d %s", what, got.Status, got.Body)
		}
	}
	refreshed := s.LoggedIn("alice@example.com").Token
	s.MustAnswer(401, s.Bearer("/secure/x", refreshed), "what requires two factors")
	s.MustAnswer(200, s.Bearer("/auth/whoami", refreshed), "control: what does not")

	const confirm = `href="/auth/factors/prove?return_to=`
	mustHave(t, v.Get("/auth/passkeys"), "the page of passkeys", confirm+`%2Fauth%2Fpasskeys"`)
	mustHave(t, v.Get("/auth/factors"), "the page of factors", confirm+`%2Fauth%2Ffactors"`)
	if to := v.Get("/auth/email").To(t); to.String() != "/auth/factors/prove?return_to=%2Fauth%2Femail" {
		t.Errorf("the page to change the address leads to %s", to)
	}

	// controls: in the session that has added it, and in one that has used it
	second, _ := accountstest.WithPasskey(s, own)
	by(s, second).Tokens(t)
	form := inForm(t, phone.Use(s.URL, optionsOn(t, v.Get("/auth/factors/prove"))))
	s.MustAnswer(303, v.Post("/auth/factors/prove", form), "the passkey, in the browser")
	mustHave(t, v.Get("/auth/passkeys"), "the page then", "data-options")
	used := by(s, phone).Tokens(t).Token
	s.MustAnswer(202, s.Post("/auth/email", sitetest.JSON{"email": "alice@example.net"}, bearer(used)), "another address")
	s.MustAnswer(204, remove(used, id), "without the passkey")
	accountstest.WithApp(s, used)
}

// A passkey that does not count does not stand in its user's way: one that was suspended when the account
// was recovered, or any where a passkey is only another way to log in.
func TestPasskeyThatDoesNotGuard(t *testing.T) {
	t.Run("suspended", func(t *testing.T) {
		s := passkeySite(t, "passkeys\nsecond_factor optional")
		_, id := accountstest.WithPasskey(s, s.SignedUp("alice@example.com").Token)
		resetByOperator(s, "alice@example.com")
		own := s.Post("/auth/login", sitetest.JSON{
			"email": "alice@example.com", "password": "another good password",
		}).Tokens(t).Token
		s.MustAnswer(204, s.Send(http.MethodDelete, "/auth/passkeys/"+id, "", bearer(own)), "removing it")
		accountstest.WithApp(s, own)
	})
	t.Run("no second factor", func(t *testing.T) {
		s := passkeySite(t, "passkeys")
		_, id := accountstest.WithPasskey(s, s.SignedUp("alice@example.com").Token)
		other := s.LoggedIn("alice@example.com").Token
		accountstest.WithPasskey(s, other)
		s.MustAnswer(204, s.Send(http.MethodDelete, "/auth/passkeys/"+id, "", bearer(other)), "removing it")
	})
}

// Who finds a security key without a PIN gets no passkey by it, and removes none, where the user has a
// password or a better passkey. With the password it is a second factor.
func TestThreatFoundSecurityKey(t *testing.T) {
	s := passkeySite(t, "passkeys\nsecond_factor optional")
	own := s.SignedUp("alice@example.com").Token
	weak, _ := accountstest.WithPasskey(s, own, func(p *accountstest.Passkey) { p.Flags = accountstest.UserPresent })
	found := bearer(by(s, weak).Tokens(t).Token)
	mustRefuse(t, s.Send(http.MethodPost, "/auth/passkeys/options", "", found), 403, "confirmation_required",
		"another one, where there is a password")
	_, strong := accountstest.WithPasskey(s, own)
	mustRefuse(t, s.Send(http.MethodPost, "/auth/passkeys/options", "", found), 403, "confirmation_required", "another one")
	mustRefuse(t, s.Send(http.MethodDelete, "/auth/passkeys/"+strong, "", found), 403, "confirmation_required",
		"without the better one")
	options := accountstest.Options(t, s.Send(http.MethodPost, "/auth/factors/prove/options", "", found))
	mustRefuse(t, s.Post("/auth/factors/prove", sitetest.JSON{"credential": weak.Use(s.URL, options)}, found), 401,
		"passkey_unverified", "proving two factors by the key alone")

	v := s.Visitor() // control: the owner, who knows the password
	v.Post("/auth/login", sitetest.FormOf("alice@example.com"))
	form := inForm(t, weak.Use(s.URL, optionsOn(t, v.Get("/auth/factors/prove"))))
	s.MustAnswer(303, v.Post("/auth/factors/prove", form), "the key after the password")
	mustHave(t, v.Get("/auth/passkeys"), "the page then", "data-options")
}

// A log-in that waits for setting up a factor does not set one up any more when its user has got a passkey.
func TestThreatEnrolmentFromBeforePasskey(t *testing.T) {
	s := passkeySite(t, "passkeys\nsecond_factor optional")
	own := s.SignedUp("alice@example.com").Token
	accountstest.ServiceOf(t).Config.SecondFactor = "required" // as when alice gets a role that requires it
	accountstest.ServiceOf(t).Factors.Config.SecondFactor = "required"
	enrol := func() (challenge string) {
		waiting := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"))
		mustRefuse(t, waiting, 401, "second_factor_enrolment_required", "the password alone")
		return waiting.ErrorBody(t).Error.Challenge
	}
	begun, waiting := enrol(), enrol()
	secret := s.Post("/auth/factors/totp", sitetest.JSON{"challenge": begun})
	s.MustAnswer(200, secret, "control: before there is a passkey")
	accountstest.WithPasskey(s, own)
	mustRefuse(t, s.Post("/auth/factors/totp", sitetest.JSON{"challenge": waiting}), 401, "challenge_expired", "beginning")
	code := accountstest.NewApp(t, secret.JSON(t)["secret"].(string)).Code(0)
	mustRefuse(t, s.Post("/auth/factors/totp/confirm", sitetest.JSON{"challenge": begun, "code": code}), 401,
		"challenge_expired", "completing")
}

// A user whose only passkeys are for another domain is not asked for the code of an app that was never set up.
func TestRequiredFactorOfAnotherDomain(t *testing.T) {
	s := passkeySite(t, "passkeys\nsecond_factor optional")
	_, id := accountstest.WithPasskey(s, s.SignedUp("alice@example.com").Token)
	_, err := accountstest.StoreOf(t).UpdateRecord(t.Context(), "passkey", id, time.Time{}, func(r *store.Record) error {
		r.Value = []byte(strings.ReplaceAll(string(r.Value), `"localhost"`, `"old.example"`))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	accountstest.ServiceOf(t).Config.SecondFactor = "required"
	accountstest.ServiceOf(t).Factors.Config.SecondFactor = "required"
	v := s.Visitor()
	page := v.Get(v.Post("/auth/login", sitetest.FormOf("alice@example.com")).To(t).String())
	if strings.Contains(page.Body, `name="code"`) || !strings.Contains(page.Body, "reset your second step") {
		t.Errorf("the page: %s", page.Body)
	}
}
