package web_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// named are the credentials of a user with a name.
func named(name string) sitetest.JSON {
	return sitetest.JSON{"username": name, "password": sitetest.GoodPassword}
}

// refused checks that an answer is a refusal with this code.
func refused(t testing.TB, got sitetest.Reply, status int, code string) {
	t.Helper()
	if got.Status != status || got.ErrorBody(t).Error.Code != code {
		t.Errorf("got %s, expected %d %s", got.Brief(), status, code)
	}
}

// Sign-up, log-in, who-am-I and deletion by a name alone. Case and width of the name do not count.
func TestUsernames(t *testing.T) {
	s := sitetest.AccountsSite(t, "identifier username\n token_claims login username mail email")
	made := s.Post("/auth/signup", named(" Bob "))
	s.MustAnswer(201, made, "sign-up")
	if user := made.JSON(t); user["username"] != "Bob" || user["email"] != nil || user["emailVerified"] != nil {
		t.Errorf("sign-up answers %s", made.Body)
	}
	var token string
	for _, same := range []string{"Bob", "bob", "BOB", "ＢＯＢ", "bob "} {
		token = s.Post("/auth/login", named(same)).Tokens(t).Token
		refused(t, s.Post("/auth/signup", named(same)), 409, "username_taken")
	}
	claims := sitetest.ClaimsOf(t, token)
	if claims["preferred_username"] != "Bob" || claims["login"] != "Bob" {
		t.Errorf("claims %v", claims)
	}
	for _, name := range []string{"email", "email_verified", "mail"} {
		if value, there := claims[name]; there {
			t.Errorf("the claim %s is %v", name, value)
		}
	}
	if who := s.Bearer("/auth/whoami", token); who.Body != made.Body {
		t.Errorf("whoami: %s, expected %s", who.Body, made.Body)
	}
	if got := s.Bearer("/auth/export", token); strings.Contains(got.Body, "email") {
		t.Errorf("the export has an address: %s", got.Body)
	}
	wrong := s.Post("/auth/login", sitetest.JSON{"username": "bob", "password": "wrong password"})
	refused(t, wrong, 401, "invalid_credentials")
	if !strings.Contains(wrong.Body, `"Invalid name or password."`) {
		t.Errorf("wrong password: %s", wrong.Body)
	}
	for _, path := range []string{"/auth/login", "/auth/signup"} {
		got := s.Post(path, sitetest.CredentialsOf("bob@example.com"))
		refused(t, got, 422, "VALIDATION_FAILED")
	}
	refused(t, s.Post("/auth/login", named("bob@example.com")), 401, "invalid_credentials")

	s.MustAnswer(204, s.Send("POST", "/auth/password", sitetest.Marshal(t, sitetest.JSON{
		"currentPassword": sitetest.GoodPassword, "newPassword": otherPassword,
	}), "Content-Type: application/json", "Authorization: Bearer "+token), "new password")
	refused(t, s.Post("/auth/login", named("bob")), 401, "invalid_credentials")
	s.MustAnswer(204, s.Send("DELETE", "/auth/whoami", `{"password":"`+otherPassword+`"}`,
		"Content-Type: application/json", "Authorization: Bearer "+token), "deletion")
	again := s.Post("/auth/signup", named("bob"))
	s.MustAnswer(201, again, "the name is free again")
	if again.JSON(t)["id"] == made.JSON(t)["id"] {
		t.Error("the new user has the old ID")
	}
}

// Names that are refused, each beside one that differs in nothing else.
func TestUsernamesRefused(t *testing.T) {
	s := sitetest.AccountsSite(t, "identifier any")
	long := strings.Repeat("a", 64)
	for wrong, allowed := range map[string]string{
		"bob@example.com":                      "bob.example.com",
		"bob＠":                                 "bob-",
		"6ba7b810-9dad-11d1-80b4-00c04fd430c8": "6ba7b810-9dad-11d1-80b4-00c04fd430c",
		"6BA7B8109DAD11D180B400C04FD430C8":     "6BA7B8109DAD11D180B400C04FD430C",
		"６ba7b810-9dad-11d1-80b4-00c04fd430c9": "６ba7b810-9dad-11d1-80b4-00c04fd430",
		"bob smith":                            "bob_smith",
		"bob\u00a0smith":                       "bob+smith",
		"bob\tsmith":                           "bob,smith",
		"bob\x00":                              "bob0",
		"bob\u200bby":                          "bobby",
		"bob\u200dby":                          "bobbie",
		"b\u00adob":                            "b-ob",
		"क\u094d\u200dष":                       "क\u094dष",
		"\u202ebob":                            "bobob",
		"bob\ufe0f":                            "bobf",
		"bob🙂":                                 "bob:)",
		"א1a":                                  "א1",
		long + "a":                             long,
		strings.Repeat("ﷺ", 5):                 "ﷴ",
	} {
		got := s.Post("/auth/signup", named(wrong))
		refused(t, got, 422, "VALIDATION_FAILED")
		if details := got.ErrorBody(t).Error.Details; len(details) != 1 || details[0].Path != "/username" ||
			!strings.Contains(details[0].Message, "1 to 64 letters, digits and signs, without spaces and @") {
			t.Errorf("%q: %+v", wrong, details)
		}
		s.MustAnswer(201, s.Post("/auth/signup", named(allowed)), fmt.Sprintf("control %q", allowed))
	}
	refused(t, s.Post("/auth/signup", sitetest.JSON{"password": sitetest.GoodPassword}), 422, "VALIDATION_FAILED")
	refused(t, s.Post("/auth/signup", named("")), 422, "VALIDATION_FAILED")
}

// With `any`, users come in by either, or by both.
func TestUsernamesAndAddresses(t *testing.T) {
	s := sitetest.AccountsSite(t, "identifier any")
	both := s.Post("/auth/signup", sitetest.JSON{
		"username": "Alice", "email": "alice@example.com", "password": sitetest.GoodPassword,
	})
	s.MustAnswer(201, both, "sign-up with both")
	s.MustAnswer(201, s.Post("/auth/signup", named("bob")), "sign-up with a name")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "a name is no local part")
	users := make(map[any]string)
	for _, c := range []struct{ field, value, is string }{
		{"username", "ALICE", "alice"}, {"email", "Alice@Example.com", "alice"}, {"username", "alice@example.com", "alice"},
		{"email", "alice", "alice"}, {"username", "bob", "bob"}, {"email", "bob@example.com", "another bob"},
	} {
		got := s.Post("/auth/login", sitetest.JSON{c.field: c.value, "password": sitetest.GoodPassword}).Tokens(t)
		claims := sitetest.ClaimsOf(t, got.Token)
		if is, known := users[claims["sub"]]; known && is != c.is {
			t.Errorf("%s %s is %s, expected %s", c.field, c.value, is, c.is)
		}
		users[claims["sub"]] = c.is
		if c.is == "alice" && (claims["email"] != "alice@example.com" || claims["preferred_username"] != "Alice") {
			t.Errorf("claims of Alice: %v", claims)
		}
	}
	if len(users) != 3 {
		t.Errorf("users %v", users)
	}
	for _, c := range []struct{ name, email, code string }{
		{"alice", "", "username_taken"}, {"alice", "carol@example.com", "username_taken"},
		{"carol", "alice@example.com", "email_taken"}, {"", "alice@example.com", "email_taken"},
	} {
		body := sitetest.JSON{"password": sitetest.GoodPassword}
		for field, value := range map[string]string{"username": c.name, "email": c.email} {
			if value != "" {
				body[field] = value
			}
		}
		refused(t, s.Post("/auth/signup", body), 409, c.code)
	}
	// Who was refused has reserved nothing.
	s.MustAnswer(201, s.Post("/auth/signup", named("carol")), "the name of a refused sign-up")
	two := named("bob")
	two["email"] = "bob@example.com"
	refused(t, s.Post("/auth/login", two), 422, "VALIDATION_FAILED")

	// Without the option, nothing of this is there.
	plain := sitetest.AccountsSite(t, "")
	refused(t, plain.Post("/auth/signup", named("bob")), 422, "VALIDATION_FAILED")
	plain.MustAnswer(201, plain.Post("/auth/signup", sitetest.CredentialsOf("bob@example.com")), "control")
	if claims := sitetest.ClaimsOf(t, plain.LoggedIn("bob@example.com").Token); claims["preferred_username"] != nil {
		t.Errorf("claims %v", claims)
	}
}

func TestThreatOneOfManySignUpsOfAName(t *testing.T) {
	s := sitetest.AccountsSite(t, "identifier any\n throttle off")
	statuses := make(chan int, 40)
	var all sync.WaitGroup
	for i := range cap(statuses) {
		all.Go(func() {
			body := named([]string{"racer", "Racer", "ＲＡＣＥＲ"}[i%3])
			if i%2 == 0 {
				body["email"] = fmt.Sprintf("racer%d@example.com", i)
			}
			for {
				got := s.Post("/auth/signup", body)
				if got.Status != 503 { // the queue of hashes is full
					statuses <- got.Status
					return
				}
			}
		})
	}
	all.Wait()
	close(statuses)
	counts := make(map[int]int)
	for status := range statuses {
		counts[status]++
	}
	if counts[201] != 1 || counts[409] != cap(statuses)-1 {
		t.Errorf("answers %v", counts)
	}
}

// A log-in does not tell whether there is a name or an address: the answer is the same, and what it
// costs, too.
func TestThreatEnumerationByNames(t *testing.T) {
	s := sitetest.AccountsSite(t, "identifier any\n throttle off")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.JSON{
		"username": "alice", "email": "alice@example.com", "password": sitetest.GoodPassword,
	}), "sign-up")
	s.MustAnswer(201, s.Post("/auth/signup", named("bob")), "sign-up")
	var want string
	for _, who := range []string{"alice", "alice@example.com", "bob", "nobody", "nobody@example.com", "no body", "@"} {
		// If each waits for its turn to hash, all of them do hash.
		release := password.Occupy()
		answer := make(chan sitetest.Reply)
		before := password.Busy()
		go func() { answer <- s.Post("/auth/login", sitetest.JSON{"username": who, "password": "wrong password"}) }()
		sitetest.Eventually(t, who+" waits for a hash", func() bool { return password.Busy() > before })
		release()
		got := <-answer
		refused(t, got, 401, "invalid_credentials")
		if want == "" {
			want = got.Body
		}
		if got.Body != want {
			t.Errorf("%s: %s, expected %s", who, got.Body, want)
		}
	}
}

// A user with a name and an address cannot be guessed at twice as often, and attempts by the one do not
// tell which the other is.
func TestThreatGuessesByNameAndAddress(t *testing.T) {
	guesses := func(s *sitetest.Site, who string) (made int) {
		for {
			got := s.Post("/auth/login", sitetest.JSON{"email": who, "password": "wrong password"})
			if got.Status == 429 {
				return made
			}
			refused(t, got, 401, "invalid_credentials")
			made++
		}
	}
	plain := sitetest.AccountsSite(t, "throttle 8 15m")
	plain.SignedUp("alice@example.com")
	one := guesses(plain, "alice@example.com")
	s := sitetest.AccountsSite(t, "identifier any\n throttle 8 15m")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.JSON{
		"username": "alice", "email": "alice@example.com", "password": sitetest.GoodPassword,
	}), "sign-up")
	byName := guesses(s, "alice")
	byAddress, byNobody := guesses(s, "alice@example.com"), guesses(s, "nobody@example.com")
	if byName+byAddress > one+1 || byAddress != byNobody {
		t.Errorf("by the name %d, by the address %d, by an address of nobody %d; without names %d",
			byName, byAddress, byNobody, one)
	}
}

// With `verify_email`, a taken name is told, and a taken address is not.
func TestThreatNamesWithVerifiedAddresses(t *testing.T) {
	p := mailSite(t, "identifier any\n verify_email\n throttle off")
	p.verified("alice@example.com")
	named2 := func(name, email string) sitetest.JSON {
		return sitetest.JSON{"username": name, "email": email, "password": sitetest.GoodPassword}
	}
	p.MustAnswer(201, p.Post("/auth/signup", named("bob")), "a name needs no mail")
	got := p.Post("/auth/login", named("bob")).Tokens(t)
	if claims := sitetest.ClaimsOf(t, got.Token); claims["email_verified"] != nil || claims["email"] != nil {
		t.Errorf("claims of a name: %v", claims)
	}
	for _, email := range []string{"alice@example.com", "carol@example.com"} {
		refused(t, p.Post("/auth/signup", named2("BOB", email)), 409, "username_taken")
	}
	free, taken := p.Post("/auth/signup", named2("carol", "carol@example.com")), p.Post(
		"/auth/signup", named2("carol", "alice@example.com"),
	)
	p.same("a free and a taken address", free, taken)
	code := p.next().Code
	p.next()
	// Nobody has the name before the address is confirmed, whichever it is.
	refused(t, p.Post("/auth/login", named("carol")), 401, "invalid_credentials")
	in := p.Post("/auth/verify", sitetest.JSON{"email": "carol@example.com", "code": code}).Tokens(t)
	if claims := sitetest.ClaimsOf(t, in.Token); claims["preferred_username"] != "carol" ||
		claims["email"] != "carol@example.com" || claims["email_verified"] != true {
		t.Errorf("claims %v", claims)
	}
	p.Post("/auth/login", named("carol")).Tokens(t)

	// The name may be taken before the address is confirmed.
	p.MustAnswer(202, p.Post("/auth/signup", named2("dave", "dave@example.com")), "sign-up")
	code = p.next().Code
	p.MustAnswer(201, p.Post("/auth/signup", named("dave")), "the name meanwhile")
	refused(t, p.Post("/auth/verify", sitetest.JSON{"email": "dave@example.com", "code": code}), 409, "username_taken")
	refused(t, p.Post("/auth/login", sitetest.CredentialsOf("dave@example.com")), 403, "email_not_verified")
	p.next()

	// Who only has a name gets no mails, and can get an address.
	bearer := "Authorization: Bearer " + got.Token
	p.MustAnswer(202, p.Post("/auth/email", sitetest.JSON{"email": "bob@example.com"}, bearer), "a new address")
	code = p.next().Code
	p.MustAnswer(204, p.Post("/auth/email/confirm", sitetest.JSON{"code": code}, bearer), "its code")
	if who := p.Bearer("/auth/whoami", got.Token).JSON(t); who["email"] != "bob@example.com" ||
		who["username"] != "bob" || who["emailVerified"] != true {
		t.Errorf("whoami %v", who)
	}
	p.Post("/auth/login", named("bob")).Tokens(t)
	p.Post("/auth/login", sitetest.CredentialsOf("bob@example.com")).Tokens(t)
	if log := p.Log(); strings.Contains(log, "notice-not-queued") {
		t.Error("a notice to a name was queued")
	}
}

// A name whose user was not added, because the server has crashed, is free after a while.
func TestUsernameAfterACrash(t *testing.T) {
	at := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "identifier any")
	value := sitetest.Marshal(t, at.Now())
	err := accountstest.StoreOf(t).CreateRecord(t.Context(), store.Record{
		Kind: "username", ID: "ghost", Owner: "nobody", Value: []byte(value),
	})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, s.Post("/auth/login", named("ghost")), 401, "invalid_credentials")
	refused(t, s.Post("/auth/signup", named("ghost")), 409, "username_taken")
	at.Ahead.Add(120)
	s.MustAnswer(201, s.Post("/auth/signup", named("ghost")), "after two minutes")
	s.Post("/auth/login", named("ghost")).Tokens(t)
}

// The pages ask for what users log in by.
func TestUsernamePages(t *testing.T) {
	for option, label := range map[string]string{
		"email": "E-mail address", "username": "User name", "any": "User name or e-mail address",
	} {
		s := sitetest.AccountsSite(t, "identifier "+option)
		for _, page := range []string{"/auth/login", "/auth/signup"} {
			got := s.Get(page, "Accept: text/html").Body
			field := "username"
			if option == "email" {
				field = "email"
			}
			autocomplete := `autocomplete="username"`
			if option == "email" && page == "/auth/signup" {
				autocomplete = `autocomplete="email"`
			}
			accountstest.Has(t, got, `<label for="`+field+`">`+label+"</label>", `name="`+field+`"`, autocomplete)
		}
	}
	s := sitetest.AccountsSite(t, "identifier any")
	form := func(field, value, pw string) url.Values { return url.Values{field: {value}, "password": {pw}} }
	v := s.Visitor()
	if got := v.Post("/auth/signup", form("username", "<Bob>", sitetest.GoodPassword)); got.Status != 303 {
		t.Fatalf("sign-up: %d %s", got.Status, got.Body)
	}
	account := v.Get("/auth/account").Body
	accountstest.Has(t, account, "<dt>User name</dt><dd>&lt;Bob&gt;</dd>")
	if strings.Contains(account, "<dt>E-mail address</dt>") {
		t.Error("the account page has an address")
	}
	if got := s.Visitor().Post("/auth/signup", form("username", "Carol@example.com", sitetest.GoodPassword)); got.Status != 303 {
		t.Fatalf("sign-up by the address: %d %s", got.Status, got.Body)
	}
	if user := accountstest.UserOf(t, "carol@example.com"); user.Address() == "" || user.Username() != "" {
		t.Errorf("user %+v", user)
	}
	for _, c := range []struct{ path, who, pw, want string }{
		{"/auth/signup", "b ob", sitetest.GoodPassword, "The user name must have 1 to 64 letters"},
		{"/auth/signup", "b ob@example.com", sitetest.GoodPassword, "The e-mail address must look like"},
		{"/auth/signup", "<bob>", sitetest.GoodPassword, "This user name is taken."},
		{"/auth/login", "<bob>", "wrong password", "Invalid name or password."},
	} {
		got := s.Visitor().Post(c.path, form("username", c.who, c.pw))
		if got.Status < 400 || !strings.Contains(got.Body, c.want) ||
			!strings.Contains(got.Body, strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(`value="`+c.who+`"`)) {
			t.Errorf("%s %q: %d %s", c.path, c.who, got.Status, got.Body)
		}
	}
	for field, who := range map[string]string{"username": "carol@example.com", "email": "<BOB>"} {
		if got := s.Visitor().Post("/auth/login", form(field, who, sitetest.GoodPassword)); got.Status != 303 {
			t.Errorf("log-in by %s %s: %d", field, who, got.Status)
		}
	}
	if got := s.Get("/auth/login", "Accept: text/html", "Accept-Language: de").Body; !strings.Contains(
		got, "Benutzername oder E-Mail-Adresse",
	) {
		t.Error("the German page has no label")
	}
}

// With `identifier username`, nobody can be mailed: there are no routes for mails, and the log says so.
func TestUsernamesWithMail(t *testing.T) {
	p := mailSite(t, "identifier username")
	accountstest.Has(t, p.Log(), "accounts: mail with identifier username", "#mail-without-addresses")
	p.MustAnswer(201, p.Post("/auth/signup", named("bob")), "sign-up")
	v := p.Visitor()
	v.Post("/auth/login", url.Values{"username": {"bob"}, "password": {sitetest.GoodPassword}})
	if got := v.Get("/auth/account"); got.Status != 200 || strings.Contains(got.Body, "/auth/email") ||
		strings.Contains(got.Body, "E-mail address") {
		t.Errorf("account page: %d %s", got.Status, got.Body)
	}
	for _, path := range []string{"/auth/forgot", "/auth/email", "/auth/email/confirm"} {
		if got := p.Post(path, sitetest.JSON{"email": "bob@example.com"}); got.Status == 202 || got.Status == 422 {
			t.Errorf("%s: %d", path, got.Status)
		}
	}
	if other := mailSite(t, "identifier any"); strings.Contains(other.Log(), "mail-without-addresses") {
		t.Error("any warns, too")
	}
}

// Two blocks of one site, and two sites with the same users, must agree.
func TestIdentifiersMustAgree(t *testing.T) {
	file := filepath.Join(sitetest.TempDir(t), "users.db")
	block := func(path, option string) string {
		return "jwt " + path + " {\n accounts {\n store file " + file + "\n identifier " + option + "\n }\n}\n"
	}
	if got := sitetest.ConfigError(t, block("/a/*", "any")+block("/b/*", "username")); !strings.Contains(
		got, "two accounts blocks with different identifier",
	) {
		t.Errorf("the error is %q", got)
	}
}

// What the accounts describe is what they take.
func TestUsernamesInOpenAPI(t *testing.T) {
	for option, want := range map[string]string{
		"email": `"required":["email","password"]`, "username": `"required":["username","password"]`,
		"any": `"oneOf":[{"additionalProperties":false,"properties":{"email":`,
	} {
		s := sitetest.AccountsSite(t, "identifier "+option)
		if got := s.Get("/auth/openapi.json").Body; !strings.Contains(got, want) {
			t.Errorf("%s: no %s", option, want)
		}
	}
}

// A user of before, with an address, logs in by it with `any`, and by a name that the operator gives.
func TestUsernameByOperator(t *testing.T) {
	file := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(file, "identifier username"))
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", file}}
	c.Must(sitetest.GoodPassword, "user", "add", "alice@example.com")
	refused(t, s.Post("/auth/login", named("alice")), 401, "invalid_credentials")
	c.Must("", "user", "update", "alice@example.com", "--username", "Alice")
	got := s.Post("/auth/login", named("alice")).Tokens(t)
	if claims := sitetest.ClaimsOf(t, got.Token); claims["email"] != "alice@example.com" {
		t.Errorf("claims %v", claims)
	}
	c.Must("", "user", "update", "alice", "--username", "alicia")
	refused(t, s.Post("/auth/login", named("alice")), 401, "invalid_credentials")
	s.Post("/auth/login", named("Alicia")).Tokens(t)
	path := filepath.Join(sitetest.TempDir(t), ".htpasswd")
	line := "erin:" + sitetest.BcryptHash(t, sitetest.GoodPassword) + "\n"
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Must("", "user", "import", path)
	s.Post("/auth/login", named("Erin")).Tokens(t)
}
