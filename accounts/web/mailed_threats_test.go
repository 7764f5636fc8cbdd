package web_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// same checks that two answers cannot be told apart.
func (p *postbox) same(what string, a, b sitetest.Reply) {
	p.T.Helper()
	for _, reply := range []*sitetest.Reply{&a, &b} {
		reply.Header.Del("Date")
		if cookie := reply.Header.Get("Set-Cookie"); cookie != "" {
			name, _, _ := strings.Cut(cookie, "=")
			reply.Header.Set("Set-Cookie", name)
		}
	}
	if a.Status != b.Status || a.Body != b.Body || fmt.Sprint(a.Header) != fmt.Sprint(b.Header) {
		p.T.Errorf("%s: they differ:\n%d %s %v\n%d %s %v", what, a.Status, a.Body, a.Header, b.Status, b.Body, b.Header)
	}
}

// from is the header of a client at an address, for sites that trust it.
func from(address string) string { return "X-Forwarded-For: " + address }

// trustedMailSite is mailSite with clients at other addresses.
func trustedMailSite(t *testing.T, options string) *postbox {
	t.Helper()
	server := sitetest.NewSMTPServer(t)
	server.Start()
	body := "servers {\n trusted_proxies static private_ranges\n}\n----------\n" + sitetest.AccountsBody(
		sitetest.TempDir(t)+"/users.db", mailOption(server, "per_address 1000\n per_client 1000")+options,
	)
	return &postbox{Site: sitetest.Serve(t, body), server: server}
}

// Attacks by mail and on mail, by class of threats.md.
func TestThreatMail(t *testing.T) {
	const all = "verify_email\n email_login"
	for name, attack := range map[string]func(t *testing.T){
		// mail: enumeration by status, body and headers
		"enumeration: sign-up": func(t *testing.T) {
			p := mailSite(t, all)
			p.verified("alice@example.com")
			for _, asPage := range []bool{false, true} {
				try := func(email string) sitetest.Reply {
					if asPage {
						got := p.Form(sitetest.Browser(t), "/auth/signup", sitetest.FormOf(email))
						got.Body = strings.ReplaceAll(got.Body, email, "…")
						return got
					}
					return p.Post("/auth/signup", sitetest.CredentialsOf(email))
				}
				taken, free := try("alice@example.com"), try("carol@example.com")
				p.same(fmt.Sprint("sign-up, page: ", asPage), taken, free)
				if mail := p.next(); mail.To != "<alice@example.com>" || mail.Code != "" ||
					!strings.Contains(mail.Subject, "already have an account") ||
					!strings.Contains(mail.Text, p.URL+"/auth/login") || !strings.Contains(mail.Text, p.URL+"/auth/forgot") {
					t.Errorf("the owner is told: %+v", mail)
				}
				if mail := p.next(); mail.Code == "" {
					t.Errorf("control: %+v", mail)
				}
			}
		},
		"enumeration: forgot and log-in code": func(t *testing.T) {
			p := mailSite(t, all)
			p.verified("alice@example.com")
			for path, use := range map[string]string{"/auth/forgot": "/auth/reset", "/auth/code": "/auth/login"} {
				known := p.Post(path, sitetest.JSON{"email": "alice@example.com"})
				unknown := p.Post(path, sitetest.JSON{"email": "nobody@example.com"})
				p.same(path, known, unknown)
				mail := p.next()
				for i := range 12 { // until it is throttled
					body := func(email string) sitetest.JSON {
						in := sitetest.JSON{"email": email, "code": wrong(mail.Code)}
						if use == "/auth/reset" {
							in["newPassword"] = otherPassword
						}
						return in
					}
					known, unknown := p.Post(use, body("alice@example.com")), p.Post(use, body("nobody@example.com"))
					known.Header.Del("Retry-After")
					unknown.Header.Del("Retry-After")
					p.same(fmt.Sprint(use, " with a wrong code, ", i), known, unknown)
				}
			}
		},
		"enumeration: nobody gets a mail for an address without an account": func(t *testing.T) {
			p := mailSite(t, all)
			p.verified("alice@example.com")
			for _, path := range []string{"/auth/forgot", "/auth/code"} {
				p.MustAnswer(202, p.Post(path, sitetest.JSON{"email": "nobody@example.com"}), path)
			}
			p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"})
			if got := p.next(); got.To != "<alice@example.com>" {
				t.Errorf("a mail to %s", got.To)
			}
		},
		"enumeration: who does not know the password does not learn that it is unverified": func(t *testing.T) {
			p := mailSite(t, all)
			p.signUp("alice@example.com", sitetest.GoodPassword)
			p.next()
			body := func(email, password string) sitetest.JSON { return sitetest.JSON{"email": email, "password": password} }
			p.same("log-in", p.Post("/auth/login", body("alice@example.com", otherPassword)),
				p.Post("/auth/login", body("nobody@example.com", otherPassword)))
			p.MustAnswer(403, p.Post("/auth/login", body("alice@example.com", sitetest.GoodPassword)), "control")
		},
		"enumeration: a log-in with the password of a sign-up": func(t *testing.T) {
			p := mailSite(t, all)
			p.verified("alice@example.com")
			body := func(email string) sitetest.JSON { return sitetest.JSON{"email": email, "password": otherPassword} }
			for _, email := range []string{"alice@example.com", "carol@example.com"} {
				p.signUp(email, otherPassword)
				p.next()
			}
			for range 2 {
				p.same("log-in", p.Post("/auth/login", body("alice@example.com")), p.Post("/auth/login", body("carol@example.com")))
				if mail := p.next(); mail.To != "<alice@example.com>" || mail.Code != "" || mail.Link != nil {
					t.Errorf("the owner gets %+v", mail)
				}
				if mail := p.next(); mail.Code == "" {
					t.Errorf("control: %+v", mail)
				}
			}
			taken, free := p.Post("/auth/login", body("alice@example.com")), p.Post("/auth/login", body("carol@example.com"))
			p.MustAnswer(403, taken, "it is not verified")
			p.same("log-in", taken, free)
			p.LoggedIn("alice@example.com") // with the password of the account
		},
		"guessing the password of a sign-up by its link": func(t *testing.T) {
			at := time.Now()
			t.Cleanup(func() { clock.Now = time.Now }) // after Caddy has stopped
			clock.Now = func() time.Time { return at } // attempts come back with time
			p := mailSite(t, all)
			p.signUp("alice@example.com", sitetest.GoodPassword)
			token, client := p.next().Link.Query().Get("token"), sitetest.Browser(t)
			use := func(password string) sitetest.Reply {
				return p.Form(client, "/auth/verify", url.Values{"token": {token}, "password": {password}})
			}
			for range accounts.ClientFailuresPerMinute {
				p.MustAnswer(401, use(otherPassword), "a guess")
			}
			p.MustAnswer(429, use(otherPassword), "one too many")
		},
		"enumeration: change of address": func(t *testing.T) {
			p := mailSite(t, all)
			p.verified("alice@example.com")
			bearer := "Authorization: Bearer " + p.verified("bob@example.com").Token
			p.same("change", p.Post("/auth/email", sitetest.JSON{"email": "alice@example.com"}, bearer),
				p.Post("/auth/email", sitetest.JSON{"email": "free@example.com"}, bearer))
		},
		// mail: scanners that follow links
		"links never act": func(t *testing.T) {
			p := mailSite(t, all)
			p.signUp("alice@example.com", sitetest.GoodPassword)
			verify := p.next().Link
			bob := p.verified("bob@example.com")
			p.Post("/auth/forgot", sitetest.JSON{"email": "bob@example.com"})
			reset := p.next().Link
			scanner := sitetest.Browser(t)
			for range 2 {
				for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
					for _, link := range []*url.URL{verify, reset} {
						_ = p.Send(method, link.RequestURI(), "", "Accept: text/html")
						request, _ := http.NewRequest(method, p.URL+link.RequestURI(), nil)
						if response, err := scanner.Do(request); err == nil {
							_ = response.Body.Close()
						}
					}
				}
			}
			// One that presses the button, without the password.
			token := verify.Query().Get("token")
			p.MustAnswer(403, p.Form(scanner, "/auth/verify", url.Values{"token": {token}}), "the button")
			p.MustAnswer(403, p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "alice is unverified")
			verify = p.next().Link
			p.MustAnswer(200, p.Bearer("/todos/", bob.Token), "nothing was reset")
			p.MustAnswer(303, p.Form(sitetest.Browser(t), "/auth/verify", url.Values{
				"token": {verify.Query().Get("token")}, "password": {sitetest.GoodPassword},
			}), "control: her own button")
			p.MustAnswer(204, p.Post("/auth/reset", sitetest.JSON{
				"token": reset.Query().Get("token"), "newPassword": otherPassword,
			}), "control: the other link")
		},
		// mail: host header in links
		"host header in links": func(t *testing.T) {
			for issuer, want := range map[string]string{
				"":                                    "", // the site's own
				"issuer https://id.example.com/path":  "https://id.example.com/auth/",
				"issuer http://id.example.com:8080/p": "http://id.example.com:8080/auth/",
			} {
				p := mailSite(t, all+"\n"+issuer)
				if want == "" {
					want = p.URL + "/auth/"
				}
				for _, header := range []string{
					"X-Forwarded-Host: evil.example", "Forwarded: host=evil.example", "X-Original-Host: evil.example",
					"Host: " + strings.TrimPrefix(p.URL, "http://"),
				} {
					p.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), header)
					if mail := p.next(); !strings.HasPrefix(mail.Link.String(), want) || strings.Contains(mail.Text, "evil") {
						t.Errorf("%s, %s: %s", issuer, header, mail.Link)
					}
				}
			}
		},
		"host header in links: a site for any host": func(t *testing.T) {
			server := sitetest.NewSMTPServer(t)
			server.Start()
			body := sitetest.AccountsBody(sitetest.TempDir(t)+"/users.db", mailOption(server, "")+all)
			address := sitetest.FreeAddress(t)
			_, port, _ := strings.Cut(address, ":")
			s := &sitetest.Site{T: t, URL: "http://" + address, LogFile: sitetest.TempDir(t) + "/log.json"}
			s.LoadText(sitetest.GlobalOptions(sitetest.TempDir(t), s.LogFile, "") + "http://:" + port + " {\n" + body + "\n}")
			sitetest.StopAfter(t)
			p := &postbox{Site: s, server: server}
			p.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), "Host: evil.example")
			mail := p.next()
			if mail.Link != nil || strings.Contains(mail.Text, "evil") || strings.Contains(mail.Text, "http") {
				t.Errorf("it has a link: %s", mail.Text)
			}
			p.Post("/auth/verify", sitetest.JSON{"email": "alice@example.com", "code": mail.Code}).Tokens(t) // control
		},
		// mail: header injection
		"header injection": func(t *testing.T) {
			p := mailSite(t, all)
			for _, email := range []string{
				"alice@example.com\r\nBcc: eve@example.com", "alice@example.com\nBcc: eve@example.com",
				"alice@example.com, eve@example.com", "Eve <eve@example.com>", "alice@example.com\x00",
			} {
				for _, path := range []string{"/auth/forgot", "/auth/code"} {
					p.MustAnswer(422, p.Post(path, sitetest.JSON{"email": email}), path+" "+email)
				}
				p.MustAnswer(422, p.Post("/auth/signup", sitetest.CredentialsOf(email)), "sign-up "+email)
			}
			p.signUp("alice@example.com", sitetest.GoodPassword)
			if mail := p.next(); mail.To != "<alice@example.com>" {
				t.Errorf("control: %+v", mail)
			}
		},
		"secrets in the log": func(t *testing.T) {
			server := sitetest.NewSMTPServer(t)
			server.Start()
			p := &postbox{Site: sitetest.Serve(t, "log\n"+sitetest.AccountsBody(
				sitetest.TempDir(t)+"/users.db", mailOption(server, "")+all)), server: server}
			p.signUp("alice@example.com", sitetest.GoodPassword)
			mail := p.next()
			p.Form(sitetest.Browser(t), mail.Link.RequestURI(), nil)
			p.Form(sitetest.Browser(t), "/auth/verify?token=wrong", nil)
			p.Post("/auth/verify", sitetest.JSON{"email": "alice@example.com", "code": wrong(mail.Code)})
			p.Post("/auth/verify", sitetest.JSON{"email": "alice@example.com", "code": mail.Code}).Tokens(t)
			for _, secret := range []string{mail.Link.Query().Get("token"), mail.Code, "alice@example.com", sitetest.GoodPassword} {
				if strings.Contains(p.Log(), secret) {
					t.Errorf("the log has %q", secret)
				}
			}
			if !strings.Contains(p.Log(), "whose query is secret") {
				t.Error("control: nothing is logged")
			}
		},
		// account pre-hijacking
		"pre-hijacking: sign-up before the owner": func(t *testing.T) {
			p := mailSite(t, all+"\n profile name")
			p.Post("/auth/signup", sitetest.JSON{ // by the attacker
				"email": "victim@example.com", "password": otherPassword, "name": "Mallory",
			})
			first := p.next()
			p.signUp("victim@example.com", sitetest.GoodPassword)
			second := p.next()
			if first.Code != second.Code {
				p.MustAnswer(401, p.Post("/auth/verify", sitetest.JSON{
					"email": "victim@example.com", "code": first.Code,
				}), "the attacker's code")
			}
			tokens := p.Post("/auth/verify", sitetest.JSON{"email": "victim@example.com", "code": second.Code}).Tokens(t)
			if who := p.Bearer("/auth/whoami", tokens.Token); strings.Contains(who.Body, "Mallory") {
				t.Errorf("something of the first remains: %s", who.Body)
			}
			p.MustAnswer(401, p.Post("/auth/login", sitetest.JSON{
				"email": "victim@example.com", "password": otherPassword,
			}), "the attacker's password")
			p.LoggedIn("victim@example.com") // control
		},
		"pre-hijacking: sign-up after the owner, whose page confirms the newest mail": func(t *testing.T) {
			p := mailSite(t, all)
			victim := sitetest.Browser(t)
			p.Form(victim, "/auth/signup", sitetest.FormOf("victim@example.com"))
			p.next()
			p.signUp("victim@example.com", otherPassword) // by the attacker
			mail := p.next()
			form := url.Values{"email": {"victim@example.com"}, "code": {mail.Code}}
			p.MustAnswer(403, p.Form(victim, "/auth/verify", form), "the code of the attacker's mail")
			p.MustAnswer(403, p.Form(victim, "/auth/verify", url.Values{
				"token": {mail.Link.Query().Get("token")},
			}), "the link of the attacker's mail")
			form.Set("password", sitetest.GoodPassword)
			p.MustAnswer(401, p.Form(victim, "/auth/verify", form), "with the victim's own password")
			program := sitetest.JSON{"email": "victim@example.com", "code": mail.Code}
			p.MustAnswer(403, p.Post("/auth/verify", program, "Cookie: mailed=of-another-sign-up"),
				"a program with the cookie of the victim's sign-up")
			program["password"] = sitetest.GoodPassword
			p.MustAnswer(401, p.Post("/auth/verify", program), "a program with the victim's password")
			p.MustAnswer(401, p.Post("/auth/login", sitetest.CredentialsOf("victim@example.com")), "no account")
			p.Form(victim, "/auth/signup", sitetest.FormOf("victim@example.com")) // control: once more
			p.MustAnswer(303, p.Form(victim, "/auth/verify", url.Values{
				"email": {"victim@example.com"}, "code": {p.next().Code},
			}), "control")
		},
		"pre-hijacking: an account from before verify_email": func(t *testing.T) {
			p := mailSite(t, "email_login")
			p.MustAnswer(201, p.Post("/auth/signup", sitetest.CredentialsOf("victim@example.com")), "by the attacker")
			attacker := p.LoggedIn("victim@example.com")
			p.Post("/auth/forgot", sitetest.JSON{"email": "victim@example.com"})
			p.MustAnswer(204, p.Post("/auth/reset", sitetest.JSON{
				"email": "victim@example.com", "code": p.next().Code, "newPassword": otherPassword,
			}), "the owner's recovery")
			p.MustAnswer(401, p.Bearer("/todos/", attacker.Token), "the attacker's session")
			p.MustAnswer(401, p.Post("/auth/login", sitetest.CredentialsOf("victim@example.com")), "and password")
			p.Post("/auth/login", sitetest.JSON{"email": "victim@example.com", "password": otherPassword}).Tokens(t)
		},
		"pre-hijacking: a change of address that waits": func(t *testing.T) {
			p := mailSite(t, all)
			bearer := "Authorization: Bearer " + p.verified("victim@example.com").Token // taken over
			p.Post("/auth/email", sitetest.JSON{"email": "mallory@example.com"}, bearer)
			mail := p.next()
			p.Post("/auth/forgot", sitetest.JSON{"email": "victim@example.com"})
			p.MustAnswer(204, p.Post("/auth/reset", sitetest.JSON{
				"email": "victim@example.com", "code": p.next().Code, "newPassword": otherPassword,
			}), "the owner's recovery")
			tokens := p.Post("/auth/login", sitetest.JSON{"email": "victim@example.com", "password": otherPassword}).Tokens(t)
			for _, token := range []string{bearer, "Authorization: Bearer " + tokens.Token} {
				p.MustAnswer(401, p.Post("/auth/email/confirm", sitetest.JSON{"code": mail.Code}, token), "the change")
			}
		},
		// brute force
		"guessing: five wrong codes end a code": func(t *testing.T) {
			p := mailSite(t, all)
			p.verified("alice@example.com")
			for _, last := range []int{4, 5} {
				p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"})
				code := p.next().Code
				in := sitetest.JSON{"email": "alice@example.com", "code": wrong(code), "newPassword": otherPassword}
				for range last {
					p.MustAnswer(401, p.Post("/auth/reset", in), "wrong")
				}
				in["code"] = code
				if want := map[int]int{4: 204, 5: 401}[last]; p.Post("/auth/reset", in).Status != want {
					t.Errorf("after %d wrong codes, expected %d", last, want)
				}
			}
		},
		"guessing: over several codes and clients": func(t *testing.T) {
			p := trustedMailSite(t, all+"\nthrottle 1000 15m") // so that only the limit for a day is met
			p.verified("alice@example.com")
			forgot := sitetest.JSON{"email": "alice@example.com"}
			allowed, code := 0, ""
			for i := range 70 { // another code for each 5 guesses, from a new network each time
				if i%5 == 0 {
					p.MustAnswer(202, p.Post("/auth/forgot", forgot, from("192.0.2.1")), "another code")
					code = p.next().Code
				}
				got := p.Post("/auth/reset", sitetest.JSON{
					"email": "alice@example.com", "code": wrong(code), "newPassword": otherPassword,
				}, from(fmt.Sprintf("10.%d.0.1", i)))
				if got.Status == 401 {
					allowed++
				}
			}
			if allowed != 50 {
				t.Errorf("%d guesses were allowed in a day, expected 50", allowed)
			}
			p.verified("bob@example.com") // control: of another address
		},
		// unfair queues: a stranger locks nobody out
		"lock-out by a stranger": func(t *testing.T) {
			p := trustedMailSite(t, all)
			p.verified("alice@example.com")
			p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}, from("192.0.2.1"))
			mail := p.next()
			in := sitetest.JSON{"email": "alice@example.com", "code": wrong(mail.Code), "newPassword": otherPassword}
			throttled := false
			for i := range 30 {
				throttled = p.Post("/auth/reset", in, from(fmt.Sprintf("10.0.%d.1", i/10))).Status == 429 || throttled
			}
			if !throttled {
				t.Error("control: strangers are not throttled")
			}
			in["code"] = mail.Code
			p.MustAnswer(429, p.Post("/auth/reset", in, from("10.0.0.1")), "a stranger who has guessed, by chance")
			p.MustAnswer(204, p.Post("/auth/reset", in, from("192.0.2.1")), "the owner")
		},
		// amplification
		"amplification: mails to an address and of a client": func(t *testing.T) {
			server := sitetest.NewSMTPServer(t)
			server.Start()
			p := &postbox{Site: sitetest.AccountsSite(t, mailOption(server, "per_address 2\n per_client 6")+all), server: server}
			for i, want := range []int{202, 202, 429, 429} {
				got := p.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"))
				p.MustAnswer(want, got, fmt.Sprint("sign-up ", i))
				if (got.Header.Get("Retry-After") != "") != (want == 429) {
					t.Errorf("sign-up %d: Retry-After %q", i, got.Header.Get("Retry-After"))
				}
			}
			p.MustAnswer(429, p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}), "by another way")
			p.next()
			p.next()
			p.signUp("bob@example.com", sitetest.GoodPassword) // control
			p.next()
			if got := len(server.Received()); got != 3 {
				t.Errorf("%d mails", got)
			}
		},
		"amplification: at an unknown address the limits are the same": func(t *testing.T) {
			server := sitetest.NewSMTPServer(t)
			server.Start()
			p := &postbox{Site: sitetest.AccountsSite(t, mailOption(server, "per_address 2\n per_client 100")+all), server: server}
			p.verified("alice@example.com") // one mail
			p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "nobody@example.com"}), "first")
			for i := range 3 {
				known := p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"})
				unknown := p.Post("/auth/forgot", sitetest.JSON{"email": "nobody@example.com"})
				known.Header.Del("Retry-After")
				unknown.Header.Del("Retry-After")
				p.same(fmt.Sprint(i), known, unknown)
			}
		},
		// a thief with the session cannot keep the owner from learning of the change
		"the notice of a change is not held up by limits": func(t *testing.T) {
			server := sitetest.NewSMTPServer(t)
			server.Start()
			p := &postbox{
				Site: sitetest.AccountsSite(t, mailOption(server, "per_address 2\n per_client 5")+all), server: server,
			}
			bearer := "Authorization: Bearer " + p.verified("alice@example.com").Token
			p.Post("/auth/email", sitetest.JSON{"email": "mallory@example.com"}, bearer)
			code := p.next().Code
			p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}), "the last mail")
			p.next()
			p.MustAnswer(429, p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}), "control: no more")
			p.MustAnswer(204, p.Post("/auth/email/confirm", sitetest.JSON{"code": code}, bearer), "the change")
			if mail := p.next(); mail.To != "<alice@example.com>" {
				t.Errorf("the next mail is to %s", mail.To)
			}
		},
		"another user's code": func(t *testing.T) {
			p := mailSite(t, all)
			p.verified("alice@example.com")
			p.verified("bob@example.com")
			p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"})
			alice := p.next().Code
			p.Post("/auth/forgot", sitetest.JSON{"email": "bob@example.com"})
			bob := p.next().Code
			in := sitetest.JSON{"email": "bob@example.com", "code": alice, "newPassword": otherPassword}
			if alice != bob {
				p.MustAnswer(401, p.Post("/auth/reset", in), "alice's code for bob")
			}
			p.MustAnswer(401, p.Post("/auth/login", sitetest.JSON{"email": "bob@example.com", "code": bob}), "another purpose")
			p.MustAnswer(401, p.Post("/auth/verify", sitetest.JSON{"email": "bob@example.com", "code": bob}), "another purpose")
			in["code"] = bob
			p.MustAnswer(204, p.Post("/auth/reset", in), "control")
		},
		"expiry": func(t *testing.T) {
			clock := sitetest.SetClock(t)
			p := mailSite(t, all)
			p.signUp("alice@example.com", sitetest.GoodPassword)
			mail := p.next()
			clock.Ahead.Store(901)
			p.MustAnswer(401, p.Post("/auth/verify", sitetest.JSON{"email": "alice@example.com", "code": mail.Code}), "the code")
			p.MustAnswer(401, p.Form(sitetest.Browser(t), mail.Link.RequestURI(), nil), "the link")
			p.MustAnswer(401, p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "the sign-up is over")
			p.verified("alice@example.com") // control
		},
		"a disabled user": func(t *testing.T) {
			p := mailSite(t, all)
			p.verified("alice@example.com")
			p.Post("/auth/code", sitetest.JSON{"email": "alice@example.com"})
			code := p.next().Code
			accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Disabled = true })
			p.MustAnswer(401, p.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "code": code}), "disabled")
			accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Disabled = false })
			p.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "code": code}).Tokens(t) // control
		},
	} {
		t.Run(name, attack)
	}
}
