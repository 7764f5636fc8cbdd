package web_test

import (
	"fmt"
	"io"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// postbox is a site with mail, and what it has sent.
type postbox struct {
	*sitetest.Site
	server *sitetest.SMTPServer
	seen   int
}

// mailSite runs a site with these options of the accounts, whose mails arrive in a postbox.
func mailSite(t *testing.T, options string) *postbox {
	t.Helper()
	server := sitetest.NewSMTPServer(t)
	server.Start()
	return &postbox{Site: sitetest.AccountsSite(t, mailOption(server, "per_address 1000\n per_client 1000")+options), server: server}
}

func mailOption(server *sitetest.SMTPServer, more string) string {
	return fmt.Sprintf("mail smtp://%s {\nfrom no-reply@example.com\n%s\n}\n", server.Address, more)
}

// letter is a mail as its recipient reads it.
type letter struct {
	To, Subject, Text, Code string
	Link                    *url.URL // of the plain text; nil for none
}

var (
	codeInMail = regexp.MustCompile(`(?m)^The code is: (\d{6})\r?$`)
	linkInMail = regexp.MustCompile(`(?m)^(http\S+token=\S+)\r?$`)
)

// next waits for the next mail that is not only a notice of a new password.
func (p *postbox) next() letter {
	p.T.Helper()
	for {
		if l := p.any(); !strings.HasPrefix(l.Subject, "Your password at ") {
			return l
		}
	}
}

// any waits for the next mail.
func (p *postbox) any() (l letter) {
	p.T.Helper()
	p.seen++
	received := p.server.MustGet(p.seen)[p.seen-1]
	message := received.Message(p.T)
	l.To, l.Subject = message.Header.Get("To"), message.Header.Get("Subject")
	_, boundary, _ := strings.Cut(message.Header.Get("Content-Type"), "boundary=")
	parts := multipart.NewReader(message.Body, strings.Trim(boundary, `"`))
	part, err := parts.NextRawPart()
	if err != nil {
		p.T.Fatal(err)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(part))
	if err != nil {
		p.T.Fatal(err)
	}
	l.Text = string(text)
	if found := codeInMail.FindStringSubmatch(l.Text); found != nil {
		l.Code = found[1]
	}
	if found := linkInMail.FindStringSubmatch(l.Text); found != nil {
		if l.Link, err = url.Parse(found[1]); err != nil {
			p.T.Fatal(err)
		}
	}
	return l
}

// signUp sends a sign-up as JSON, which must be accepted.
func (p *postbox) signUp(email, password string) {
	p.T.Helper()
	p.MustAnswer(202, p.Post("/auth/signup", sitetest.JSON{"email": email, "password": password}), "sign-up")
}

// verified has an account with a verified address.
func (p *postbox) verified(email string) sitetest.Tokens {
	p.T.Helper()
	p.signUp(email, sitetest.GoodPassword)
	return p.Post("/auth/verify", sitetest.JSON{"email": email, "code": p.next().Code}).Tokens(p.T)
}

// wrong returns a code that is not this one.
func wrong(code string) string {
	if code == "123456" {
		return "654321"
	}
	return "123456"
}

// fullWidth returns digits as a Japanese or Chinese keyboard may type them.
func fullWidth(code string) string {
	return strings.Map(func(digit rune) rune { return digit - '0' + '０' }, code)
}

const otherPassword = "another horse battery"

// Sign-up, verification by code, log-in: as a program.
func TestVerifyEmail(t *testing.T) {
	p := mailSite(t, "verify_email\n profile name\n default_roles author")
	got := p.Post("/auth/signup", sitetest.JSON{
		"email": "Alice@example.com", "password": sitetest.GoodPassword, "name": "Alice A.",
	})
	p.MustAnswer(202, got, "sign-up")
	if got.Body != `{"status":"check_mail"}`+"\n" && got.Body != `{"status":"check_mail"}` {
		t.Errorf("sign-up answers %q", got.Body)
	}
	mail := p.next()
	if mail.To != "<Alice@example.com>" || mail.Code == "" || mail.Link == nil ||
		!strings.HasPrefix(mail.Link.String(), p.URL+"/auth/verify?token=") {
		t.Fatalf("mail %+v", mail)
	}
	p.MustAnswer(401, p.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": otherPassword}),
		"a wrong password before")
	login := p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"))
	p.MustAnswer(403, login, "log-in before")
	if code := login.ErrorBody(t).Error.Code; code != "email_not_verified" {
		t.Errorf("log-in before: %s", code)
	}
	again := p.next()
	if again.Code == "" {
		t.Fatal("no other code at the log-in")
	}
	if mail.Code != again.Code {
		p.MustAnswer(401, p.Post("/auth/verify", sitetest.JSON{"email": "alice@example.com", "code": mail.Code}),
			"a code that was replaced")
	}
	tokens := p.Post("/auth/verify", sitetest.JSON{
		"email": "alice@EXAMPLE.com", "code": fullWidth(again.Code[:3]) + " " + again.Code[3:],
	}).Tokens(t)
	p.MustAnswer(401, p.Post("/auth/verify", sitetest.JSON{"email": "alice@example.com", "code": again.Code}), "twice")
	who := p.Bearer("/auth/whoami", tokens.Token)
	for _, want := range []string{`"emailVerified":true`, `"name":"Alice A."`, `"roles":["author"]`, `"Alice@example.com"`} {
		if !strings.Contains(who.Body, want) {
			t.Errorf("whoami has no %s: %s", want, who.Body)
		}
	}
	p.LoggedIn("alice@example.com")
}

// A browser signs up and opens the link: one button. In another browser, the password is needed too.
func TestVerifyLinkInBrowser(t *testing.T) {
	p := mailSite(t, "verify_email")
	for name, same := range map[string]bool{"the same browser": true, "another browser": false} {
		t.Run(name, func(t *testing.T) {
			email := map[bool]string{true: "alice@example.com", false: "bob@example.com"}[same]
			chrome := sitetest.Browser(t)
			form := sitetest.FormOf(email)
			form.Set("return_to", "/todos/1")
			page := p.Form(chrome, "/auth/signup", form)
			if page.Status != 200 || !strings.Contains(page.Body, `name="code"`) ||
				!strings.Contains(page.Body, `value="`+email+`"`) || page.HiddenFields().Get("return_to") != "/todos/1" {
				t.Fatalf("sign-up: %d %s", page.Status, page.Body)
			}
			link := p.next().Link
			opener := chrome
			if !same {
				opener = sitetest.Browser(t)
			}
			page = p.Form(opener, link.RequestURI(), nil)
			token := page.HiddenFields().Get("token")
			if page.Status != 200 || token == "" || page.Header.Get("Referrer-Policy") != "no-referrer" ||
				strings.Contains(page.Body, `name="password"`) == same {
				t.Fatalf("link: %d %s", page.Status, page.Body)
			}
			if !same {
				refused := p.Form(opener, "/auth/verify", url.Values{"token": {token}})
				p.MustAnswer(403, refused, "without the password")
				refused = p.Form(opener, "/auth/verify", url.Values{"token": {token}, "password": {otherPassword}})
				p.MustAnswer(401, refused, "a wrong password")
			}
			send := url.Values{"token": {token}}
			if !same {
				send.Set("password", sitetest.GoodPassword)
			}
			done := p.Form(opener, "/auth/verify", send)
			if done.Status != 303 || done.Header.Get("Location") != "/auth/account" {
				t.Fatalf("button: %d %s %s", done.Status, done.Header.Get("Location"), done.Body)
			}
			p.MustAnswer(200, p.Form(opener, "/auth/account", nil), "the account page")
			p.MustAnswer(401, p.Form(opener, link.RequestURI(), nil), "the link again")
		})
	}
}

// A forgotten password: as a program by code, and in a browser by code and by link.
func TestForgot(t *testing.T) {
	p := mailSite(t, "issuer https://id.example.com/x")
	p.MustAnswer(201, p.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	old := p.LoggedIn("alice@example.com")
	if page := p.Form(sitetest.Browser(t), "/auth/login", nil); !strings.Contains(page.Body, `href="/auth/forgot"`) {
		t.Error("the log-in page has no way")
	}
	p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "ALICE@example.com"}), "forgot")
	mail := p.next()
	if mail.Link == nil || !strings.HasPrefix(mail.Link.String(), "https://id.example.com/auth/reset?token=") {
		t.Errorf("the link is not of the issuer: %v", mail.Link)
	}
	body := sitetest.JSON{"email": "alice@example.com", "code": wrong(mail.Code), "newPassword": otherPassword}
	p.MustAnswer(401, p.Post("/auth/reset", body), "a wrong code")
	body["code"] = mail.Code
	p.MustAnswer(204, p.Post("/auth/reset", body), "the code")
	p.MustAnswer(401, p.Post("/auth/reset", body), "the code again")
	p.MustAnswer(401, p.Form(sitetest.Browser(t), mail.Link.RequestURI(), nil), "the link after the code")
	p.MustAnswer(401, p.Bearer("/todos/", old.Token), "a session from before")
	p.MustAnswer(401, p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "the old password")
	tokens := p.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": otherPassword}).Tokens(t)
	if who := p.Bearer("/auth/whoami", tokens.Token); !strings.Contains(who.Body, `"emailVerified":true`) {
		t.Errorf("the code proves the address: %s", who.Body)
	}

	chrome := sitetest.Browser(t)
	page := p.Form(chrome, "/auth/forgot", url.Values{"email": {"alice@example.com"}})
	if page.Status != 200 || !strings.Contains(page.Body, `name="newPassword"`) {
		t.Fatalf("forgot: %d %s", page.Status, page.Body)
	}
	mail = p.next()
	page = p.Form(chrome, "/auth/reset", url.Values{
		"email": {"alice@example.com"}, "code": {mail.Code}, "newPassword": {"short"},
	})
	if page.Status != 422 || !strings.Contains(page.Body, mail.Code) {
		t.Errorf("a short password: %d %s", page.Status, page.Body)
	}
	p.MustAnswer(200, p.Form(chrome, "/auth/reset", url.Values{
		"email": {"alice@example.com"}, "code": {mail.Code}, "newPassword": {sitetest.GoodPassword},
	}), "by code")
	p.LoggedIn("alice@example.com")

	p.Form(chrome, "/auth/forgot", url.Values{"email": {"alice@example.com"}})
	mail = p.next()
	token := mail.Link.Query().Get("token")
	again := p.Form(sitetest.Browser(t), "/auth/reset", url.Values{"token": {token}, "newPassword": {"short"}})
	if got := again.HiddenFields().Get("token"); again.Status != 422 || got != token {
		t.Errorf("after an error the form has the token %q, expected %q", got, token)
	}
	p.MustAnswer(303, p.Form(chrome, mail.Link.RequestURI(), nil), "the link")
	p.MustAnswer(200, p.Form(chrome, "/auth/reset", nil), "its page")
	p.MustAnswer(200, p.Form(chrome, "/auth/reset", url.Values{"newPassword": {otherPassword}}), "by link")
	p.MustAnswer(401, p.Post("/auth/reset", sitetest.JSON{
		"email": "alice@example.com", "code": mail.Code, "newPassword": sitetest.GoodPassword,
	}), "the code after the link")
}

// A code instead of a password. Of an account whose address nobody had proved, nothing else remains.
func TestEmailLogin(t *testing.T) {
	p := mailSite(t, "email_login")
	p.MustAnswer(201, p.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	prepared := p.LoggedIn("alice@example.com")
	p.MustAnswer(202, p.Post("/auth/code", sitetest.JSON{"email": "alice@example.com"}), "asking for a code")
	code := p.next().Code
	in := sitetest.JSON{"email": "alice@example.com", "code": wrong(code)}
	p.MustAnswer(401, p.Post("/auth/login", in), "a wrong code")
	in["code"] = code
	p.Post("/auth/login", in).Tokens(t)
	p.MustAnswer(401, p.Post("/auth/login", in), "the code again")
	p.MustAnswer(401, p.Bearer("/todos/", prepared.Token), "a session of who made the account")
	p.MustAnswer(401, p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "and the password")

	p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"})
	p.MustAnswer(204, p.Post("/auth/reset", sitetest.JSON{
		"email": "alice@example.com", "code": p.next().Code, "newPassword": sitetest.GoodPassword,
	}), "a password of one's own")
	own := p.LoggedIn("alice@example.com")
	chrome := sitetest.Browser(t)
	if page := p.Form(chrome, "/auth/login?return_to=/todos/", nil); !strings.Contains(
		page.Body, `href="/auth/code?return_to=%2ftodos%2f"`) {
		t.Errorf("the log-in page has no way: %s", page.Body)
	}
	page := p.Form(chrome, "/auth/code", url.Values{"email": {"alice@example.com"}, "return_to": {"/todos/"}})
	form := page.HiddenFields()
	form.Set("email", "alice@example.com")
	form.Set("code", p.next().Code)
	if done := p.Form(chrome, "/auth/login", form); done.Status != 303 || done.Header.Get("Location") != "/todos/" {
		t.Errorf("by code: %d %s %s", done.Status, done.Header.Get("Location"), done.Body)
	}
	p.MustAnswer(200, p.Bearer("/todos/", own.Token), "a session of a verified account goes on")
	p.LoggedIn("alice@example.com")
	p.MustAnswer(422, p.Post("/auth/login", sitetest.JSON{
		"email": "alice@example.com", "code": "123456", "password": sitetest.GoodPassword,
	}), "a code and a password")
}

// A new address is confirmed there, and told to the old one.
func TestChangeOfAddress(t *testing.T) {
	clock := sitetest.SetClock(t)
	p := mailSite(t, "verify_email")
	bob := p.verified("bob@example.com")
	alice := p.verified("alice@example.com")
	bearer := func(tokens sitetest.Tokens) string { return "Authorization: Bearer " + tokens.Token }
	ask := func(tokens sitetest.Tokens, body sitetest.JSON, status int) {
		t.Helper()
		p.MustAnswer(status, p.Post("/auth/email", body, bearer(tokens)), fmt.Sprint(body))
	}
	p.MustAnswer(401, p.Post("/auth/email", sitetest.JSON{"email": "new@example.com"}), "a stranger")
	ask(alice, sitetest.JSON{"email": "alice@example.com"}, 422)
	ask(alice, sitetest.JSON{"email": "new@example.com"}, 202)
	mail := p.next()
	if mail.To != "<new@example.com>" {
		t.Errorf("the code went to %s", mail.To)
	}
	p.MustAnswer(401, p.Post("/auth/email/confirm", sitetest.JSON{"code": mail.Code}, bearer(bob)), "of another user")
	p.MustAnswer(401, p.Post("/auth/email/confirm", sitetest.JSON{"code": wrong(mail.Code)}, bearer(alice)), "wrong")
	p.MustAnswer(202, p.Post("/auth/forgot", sitetest.JSON{"email": "alice@example.com"}), "forgot of the old one")
	reset := p.next()
	p.MustAnswer(204, p.Post("/auth/email/confirm", sitetest.JSON{"code": mail.Code}, bearer(alice)), "the code")
	if told := p.next(); told.To != "<alice@example.com>" || strings.Contains(told.Text, "new@example.com") {
		t.Errorf("the notice: %+v", told)
	}
	p.MustAnswer(401, p.Post("/auth/reset", sitetest.JSON{
		"email": "alice@example.com", "code": reset.Code, "newPassword": otherPassword,
	}), "a code that went to the old address")
	p.MustAnswer(401, p.Form(sitetest.Browser(t), reset.Link.RequestURI(), nil), "a link that went there")
	p.MustAnswer(401, p.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "the old address")
	p.LoggedIn("new@example.com")
	p.MustAnswer(200, p.Bearer("/todos/", alice.Token), "the session")

	ask(bob, sitetest.JSON{"email": "new@example.com"}, 202)
	if mail := p.next(); mail.To != "<new@example.com>" || mail.Code != "" {
		t.Errorf("of a taken address: %+v", mail)
	}
	clock.Ahead.Store(400) // no longer fresh
	ask(bob, sitetest.JSON{"email": "newer@example.com"}, 403)
	ask(bob, sitetest.JSON{"email": "newer@example.com", "password": otherPassword}, 401)
	ask(bob, sitetest.JSON{"email": "newer@example.com", "password": sitetest.GoodPassword}, 202)
	p.next()

	chrome := sitetest.Browser(t)
	p.Form(chrome, "/auth/login", sitetest.FormOf("bob@example.com"))
	if page := p.Form(chrome, "/auth/account", nil); !strings.Contains(page.Body, `href="/auth/email"`) {
		t.Error("the account page has no way")
	}
	p.MustAnswer(200, p.Form(chrome, "/auth/email", nil), "the page")
	p.MustAnswer(200, p.Form(chrome, "/auth/email", url.Values{"email": {"robert@example.com"}}), "the form")
	done := p.Form(chrome, "/auth/email/confirm", url.Values{"code": {p.next().Code}})
	if done.Status != 200 || !strings.Contains(done.Body, "robert@example.com") {
		t.Errorf("by page: %d %s", done.Status, done.Body)
	}
}

// The claim is there for rules.
func TestEmailVerifiedClaim(t *testing.T) {
	server := sitetest.NewSMTPServer(t)
	server.Start()
	s := sitetest.Serve(t, `
		jwt {
			accounts {
				store file `+sitetest.TempDir(t)+`/users.db
				signup open
				`+mailOption(server, "")+`
			}
			require claim email_verified true
		}
		respond "verified=[{http.auth.user.email_verified}]"`)
	p := &postbox{Site: s, server: server}
	tokens := p.SignedUp("alice@example.com")
	p.MustAnswer(403, p.Bearer("/x", tokens.Token), "unverified")
	p.MustAnswer(202, p.Post("/auth/email", sitetest.JSON{"email": "alice@example.com"}, "Authorization: Bearer "+tokens.Token),
		"the same address, to confirm it")
	p.MustAnswer(204, p.Post("/auth/email/confirm", sitetest.JSON{"code": p.next().Code}, "Authorization: Bearer "+tokens.Token),
		"confirming it")
	tokens = p.Post("/auth/refresh", sitetest.JSON{"refreshToken": tokens.RefreshToken}).Tokens(t)
	if got := p.Bearer("/x", tokens.Token); got.Status != http.StatusOK || got.Body != "verified=[true]" {
		t.Errorf("verified: %d %s", got.Status, got.Body)
	}
}

// The OpenAPI document has the routes that the options add, and no others.
func TestMailedRoutesInOpenAPI(t *testing.T) {
	routes := map[string]string{
		"/auth/verify": "verify_email", "/auth/code": "email_login", "/auth/forgot": "mail", "/auth/email": "mail",
		"/auth/email/confirm": "mail",
	}
	for _, options := range []string{"", "mail", "verify_email", "email_login"} {
		var s *sitetest.Site
		switch options {
		case "":
			s = sitetest.AccountsSite(t, "")
		case "mail":
			s = mailSite(t, "").Site
		default:
			s = mailSite(t, options).Site
		}
		document := s.Get("/auth/openapi.json").Body
		for path, needs := range routes {
			there := needs == options || needs == "mail" && options != ""
			if strings.Contains(document, `"`+path+`"`) != there {
				t.Errorf("with %q, %s in the document: expected %v", options, path, there)
			}
			if got := s.Post(path, "{}").Status; (got == 200 || got == 404) == there {
				t.Errorf("with %q, %s answers %d", options, path, got)
			}
		}
	}
}
