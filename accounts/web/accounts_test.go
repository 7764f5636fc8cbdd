package web_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	stdjson "encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/network"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
	"github.com/google/uuid"
	"golang.org/x/crypto/bcrypt"
)

// The tutorial of LoopBack's authentication-jwt: sign up, log in, copy the token, reach the todos,
// and get a refusal without it.
func TestAccountsTutorial(t *testing.T) {
	s := sitetest.AccountsSite(t, "default_roles author")
	refused := s.Get("/todos/")
	s.MustAnswer(401, refused, "without a token")
	user := s.Post("/auth/signup", sitetest.CredentialsOf("Alice@example.com"))
	s.MustAnswer(201, user, "sign-up")
	var made struct {
		ID, Email string
		Roles     []string
		Password  any
	}
	if err := stdjson.Unmarshal([]byte(user.Body), &made); err != nil || len(made.ID) != 36 ||
		made.Email != "Alice@example.com" || made.Password != nil || !slices.Equal(made.Roles, []string{"author"}) {
		t.Errorf("sign-up answers %s", user.Body)
	}
	got := s.LoggedIn("alice@EXAMPLE.com")
	if got.TokenType != "Bearer" || got.ExpiresIn != 900 {
		t.Errorf("log-in answers %+v", got)
	}
	todos := s.Bearer("/todos/", got.Token)
	if want := "user=[" + made.ID + "] roles=[author] cookies=[]"; todos.Body != want {
		t.Errorf("todos: %d %q, expected %q", todos.Status, todos.Body, want)
	}
	if who := s.Bearer("/auth/whoami", got.Token); who.Body != user.Body {
		t.Errorf("whoami: %s, expected %s", who.Body, user.Body)
	}
	if who := s.Get("/auth/whoami", "Authorization: Bearer "+got.Token, "Accept: text/plain"); who.Body != made.ID {
		t.Errorf("whoami as text: %s", who.Body)
	}
	s.MustAnswer(401, s.Get("/auth/whoami"), "whoami without a token")

	next := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}).Tokens(t)
	s.MustAnswer(200, s.Bearer("/todos/", next.Token), "the refreshed token")
	s.MustAnswer(204, s.Send("POST", "/auth/logout", "", "Authorization: Bearer "+next.Token), "log-out")
	for name, token := range map[string]string{
		"the newest token": next.Token, "an older token of the session": got.Token,
	} {
		s.MustAnswer(401, s.Bearer("/todos/", token), name+" after the log-out")
	}
	s.MustAnswer(
		401, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": next.RefreshToken}), "refresh after the log-out",
	)
}

func TestAccessTokenClaims(t *testing.T) {
	s := sitetest.AccountsSite(t, "issuer https://id.example\n audience https://api.example\n token_lifetime 5m")
	got := s.SignedUp("alice@example.com")
	decoded, err := jwt.Decode(got.Token)
	if err != nil {
		t.Fatal(err)
	}
	claims, header := decoded.Claims, decoded.Header
	for _, name := range []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "sid", "email", "roles", "scope"} {
		if _, there := claims[name]; !there {
			t.Errorf("no claim %s in %s", name, claims)
		}
	}
	if claims["exp"].(int64)-claims["iat"].(int64) != 300 || claims["iss"] != "https://id.example" ||
		!strings.Contains(string(header), `"typ":"at+jwt"`) || !strings.Contains(string(header), `"alg":"ES256"`) {
		t.Errorf("header %s, claims %s", header, claims)
	}
	// Another service verifies it with the published keys.
	other := sitetest.Serve(t, `
		jwt /api/* {
			issuer https://id.example
			audience https://api.example
			token_type at+jwt
			public_key `+"`"+s.Get("/auth/jwks.json").Body+"`"+`
		}
		respond "{http.auth.user.email}"`)
	if got := other.Bearer("/api/", got.Token); got.Body != "alice@example.com" {
		t.Errorf("by the published keys: %d %s", got.Status, got.Body)
	}
}

// Sites with different users have different keys: no token or user of one is valid at the other,
// although nothing else in their configs differs.
func TestAccountsOfOtherStores(t *testing.T) {
	other := sitetest.FreeAddress(t)
	dir := sitetest.TempDir(t)
	s := sitetest.Serve(t, sitetest.AccountsBody(filepath.Join(dir, "a.db"), "")+"\n}\nhttp://"+other+" {\n"+
		sitetest.AccountsBody(filepath.Join(dir, "b.db"), ""))
	b := &sitetest.Site{T: t, URL: "http://" + other}
	got := s.SignedUp("alice@example.com")
	s.MustAnswer(200, s.Bearer("/todos/", got.Token), "control")
	b.MustAnswer(401, b.Bearer("/todos/", got.Token), "a token of the other site")
	b.MustAnswer(401, b.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "a user of the other site")
	b.MustAnswer(
		401, b.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}),
		"a refresh token of the other site",
	)
	if a, b := s.Get("/auth/jwks.json").Body, b.Get("/auth/jwks.json").Body; a == b {
		t.Errorf("the sites have the same key: %s", a)
	}
}

// Sites with the same store have the same users, but separate sessions.
func TestThreatSessionsOfAnotherIssuer(t *testing.T) {
	other := sitetest.FreeAddress(t)
	store := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(store, "issuer https://a.example")+"\n}\nhttp://"+other+" {\n"+
		sitetest.AccountsBody(store, "issuer https://b.example"))
	b := &sitetest.Site{T: t, URL: "http://" + other}
	got := s.SignedUp("alice@example.com")
	b.MustAnswer(200, b.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "control: the same user")
	b.MustAnswer(
		401, b.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}),
		"a refresh token of the other site",
	)
	b.MustAnswer(401, b.Bearer("/todos/", got.Token), "an access token of the other site")
	s.MustAnswer(200, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}), "control: at its own")
}

// If a user has too many sessions, those that were unused for the longest time end.
func TestSessionsOfAUserAreBounded(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	first := s.SignedUp("alice@example.com")
	user := accountstest.UserOf(t, "alice@example.com")
	for range accounts.MaxSessions - 1 {
		if _, err := accountstest.ServiceOf(t).Factors.Enter(t.Context(), accounts.Entry{User: user}, accounts.Client{}); err != nil {
			t.Fatal(err)
		}
	}
	s.MustAnswer(200, s.Bearer("/todos/", first.Token), "as many as there may be")
	if _, err := accountstest.ServiceOf(t).Factors.Enter(t.Context(), accounts.Entry{User: user}, accounts.Client{}); err != nil {
		t.Fatal(err)
	}
	s.MustAnswer(401, s.Bearer("/todos/", first.Token), "one more")
	if sessions, err := accountstest.StoreOf(t).Sessions(t.Context(), user.ID, time.Now()); err != nil ||
		len(sessions) != accounts.MaxSessions {
		t.Errorf("%d sessions, %v", len(sessions), err)
	}
}

// handle_path removes a part of the path, which links and redirects need.
func TestAccountsBelowAPath(t *testing.T) {
	s := sitetest.Serve(
		t, "handle_path /app/* {\n"+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "")+"\n}",
	)
	chrome := sitetest.Browser(t)
	got := s.Form(chrome, "/app/todos/list?page=2", nil)
	if got.Status != 303 || got.Header.Get("Location") != "/app/auth/login?return_to=%2Fapp%2Ftodos%2Flist%3Fpage%3D2" {
		t.Fatalf("without a session: %d %v", got.Status, got.Header)
	}
	page := s.Form(chrome, got.Header.Get("Location"), nil)
	for _, link := range []string{`action="/app/auth/login"`, `href="/app/auth/style.css?v=`, `href="/app/auth/signup?`} {
		if !strings.Contains(page.Body, link) {
			t.Errorf("log-in page has no %s:\n%s", link, page.Body)
		}
	}
	made := s.Form(chrome, "/app/auth/signup", sitetest.FormOf("alice@example.com"))
	if made.Status != 303 || made.Header.Get("Location") != "/app/auth/account" {
		t.Fatalf("sign-up: %d %v %s", made.Status, made.Header, made.Body)
	}
	s.MustAnswer(200, s.Form(chrome, "/app/todos/", nil), "with the cookie")
	if out := s.Form(chrome, "/app/auth/logout", url.Values{}); out.Header.Get("Location") != "/app/auth/login" {
		t.Errorf("log-out: %d %v", out.Status, out.Header)
	}
}

func TestAccountsSecretAndMovedRoutes(t *testing.T) {
	s := sitetest.AccountsSite(t, `secret "`+sitetest.Secret+`"
		signup /users/signup
		login /users/login
		refresh /refresh
		whoami /whoAmI
		jwks /keys.json
		profile realm name`)
	s.MustAnswer(201, s.Post("/users/signup", sitetest.JSON{
		"email": "alice@example.com", "password": sitetest.GoodPassword, "realm": "earth", "name": "Alice",
	}), "sign-up")
	got := s.Post("/users/login", sitetest.CredentialsOf("alice@example.com")).Tokens(t)
	s.MustAnswer(200, s.Bearer("/todos/", got.Token), "HS256")
	if who := s.Bearer("/whoAmI", got.Token); !strings.Contains(who.Body, `"realm":"earth"`) {
		t.Errorf("whoami: %s", who.Body)
	}
	if keys := s.Get("/keys.json"); keys.Body != `{"keys":[]}` {
		t.Errorf("a secret is no public key: %s", keys.Body)
	}
	s.MustAnswer(
		401, s.Send("POST", "/auth/logout", "", "Content-Type: application/json"), "the others stay under the prefix",
	)
	if got := s.Get("/auth/login"); strings.Contains(got.Body, "<form") {
		t.Error("a moved route is still at its old path")
	}
}

func TestTemplates(t *testing.T) {
	dir := sitetest.TempDir(t)
	if err := os.WriteFile(
		filepath.Join(dir, "login.html"),
		[]byte(`{{define "title"}}Ours{{end}}{{define "content"}}<p>Our own page, for {{.Email}}</p>{{end}}`), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	s := sitetest.AccountsSite(t, "templates "+dir)
	if page := s.Form(sitetest.Browser(t), "/auth/login", url.Values{
		"email": {"<b>"}, "password": {"x"},
	}); !strings.Contains(page.Body, "<p>Our own page, for &lt;b&gt;</p>") ||
		!strings.Contains(page.Body, "<title>Ours") {
		t.Errorf("the replaced page: %s", page.Body)
	}
	if page := s.Form(sitetest.Browser(t), "/auth/signup", nil); !strings.Contains(page.Body, `name="password"`) {
		t.Errorf("a page that is not replaced: %s", page.Body)
	}
	if style := s.Get("/auth/style.css"); style.Status != 200 ||
		!strings.HasPrefix(style.Header.Get("Content-Type"), "text/css") {
		t.Errorf("style sheet: %d %v", style.Status, style.Header)
	}
	if err := os.WriteFile(
		filepath.Join(dir, "reset.html"), []byte(`{{define "content"}}{{.Broken`), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	if got := sitetest.ConfigError(
		t, sitetest.AccountsBody(filepath.Join(dir, "users.db"), "templates "+dir),
	); !strings.Contains(got, "templates: template: reset") {
		t.Errorf("a broken page: %s", got)
	}
}

func TestSignupClosed(t *testing.T) {
	s := sitetest.AccountsSite(t, "signup closed")
	s.MustAnswer(404, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "JSON")
	s.MustAnswer(404, s.Get("/auth/signup", "Accept: text/html"), "page")
	if page := s.Get("/auth/login", "Accept: text/html"); page.Status != 200 ||
		strings.Contains(page.Body, "/auth/signup") {
		t.Errorf("the log-in page links a sign-up that is closed: %d", page.Status)
	}
}

func TestThreatEnumeration(t *testing.T) {
	s := sitetest.AccountsSite(t, "throttle off")
	s.SignedUp("alice@example.com")
	s.SignedUp("disabled@example.com")
	accountstest.ChangeUser(t, "disabled@example.com", func(u *store.User) { u.Disabled = true })
	control := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"))
	s.MustAnswer(200, control, "control")
	var first sitetest.Reply
	for _, body := range []sitetest.JSON{
		{"email": "alice@example.com", "password": "wrong password"},
		{"email": "nobody@example.com", "password": sitetest.GoodPassword}, {
			"email": "disabled@example.com", "password": sitetest.GoodPassword,
		},
		{"email": "no address", "password": sitetest.GoodPassword},
		{"email": "alice@example.com", "password": strings.Repeat("x", 2000)},
	} {
		got := s.Post("/auth/login", body)
		if first.Body == "" {
			first = got
		}
		if got.Status != 401 || got.Body != first.Body ||
			got.ErrorBody(t).Error.Message != "Invalid email or password." {
			t.Errorf("%v: %d %s", body["email"], got.Status, got.Body)
		}
	}
}

func TestThreatCredentialStuffing(t *testing.T) {
	s := sitetest.Serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
`+sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), ""))
	from := func(ip string) string { return "X-Forwarded-For: " + ip }
	wrong := sitetest.JSON{"email": "alice@example.com", "password": "wrong password"}
	s.MustAnswer(
		201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"), from("2001:db8::1")), "sign-up",
	)
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), from("2001:db8::1")),
		"alice is logged in at home",
	)
	for i := range 10 {
		s.MustAnswer(401, s.Post("/auth/login", wrong, from(fmt.Sprintf("203.0.113.%d", i))), "a guess")
	}
	got := s.Post("/auth/login", wrong, from("203.0.113.99"))
	s.MustAnswer(429, got, "the guess that is too many")
	if got.Header.Get("Retry-After") == "" || got.ErrorBody(t).Error.Code != "too_many_requests" {
		t.Errorf("429: %v %s", got.Header, got.Body)
	}
	s.MustAnswer(429, s.Post(
		"/auth/login", sitetest.JSON{"email": "ALICE@example.com", "password": "wrong password"}, from("203.0.113.98"),
	), "the same account in other case")
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com"), from("2001:db8::2")),
		"alice herself, at home, is not locked out",
	)
	s.MustAnswer(401, s.Post(
		"/auth/login", sitetest.JSON{"email": "bob@example.com", "password": "wrong password"}, from("203.0.113.99"),
	), "another account")

	// Guesses of others do not lock out a user who has no session.
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("carol@example.com"), from("192.0.2.1")), "sign-up")
	wrong = sitetest.JSON{"email": "carol@example.com", "password": "wrong password"}
	for range 10 {
		s.MustAnswer(401, s.Post("/auth/login", wrong, from("203.0.113.200")), "a guess")
	}
	for range accounts.StrangerAttempts {
		s.MustAnswer(429, s.Post("/auth/login", wrong, from("203.0.113.200")), "a guess that is too many")
	}
	s.MustAnswer(
		429, s.Post("/auth/login", sitetest.CredentialsOf("carol@example.com"), from("203.0.113.200")),
		"the right guess after too many",
	)
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.CredentialsOf("carol@example.com"), from("198.51.100.1")), "carol herself",
	)
	for i := range accounts.SparedFactor*10 + 50 {
		accountstest.ServiceOf(t).LogIns.Spares(
			t.Context(), false, "carol@example.com", accounts.Client{Address: fmt.Sprint("10.0.0.", i)}, time.Now(),
		)
	}
	s.MustAnswer(
		429, s.Post("/auth/login", sitetest.CredentialsOf("carol@example.com"), from("203.0.113.201")),
		"the right guess of one of many clients",
	)

	s.MustAnswer(401, s.Post(
		"/auth/login", sitetest.JSON{"email": "first@example.com", "password": "wrong password"}, from("2001:db8:1::1"),
	), "control: a client's first")
	for range 29 { // at once, because attempts are forgiven over time
		accountstest.ServiceOf(t).Attempts.Clients.Begin(t.Context(), network.Key("2001:db8:1::ffff"), time.Now())
	}
	s.MustAnswer(429, s.Post(
		"/auth/login", sitetest.JSON{"email": "more@example.com", "password": "wrong password"},
		from("2001:db8:1::1:1"),
	), "31st of a client, by its /64")
	s.MustAnswer(401, s.Post(
		"/auth/login", sitetest.JSON{"email": "more@example.com", "password": "wrong password"}, from("2001:db8:2::1"),
	), "control: another client")
}

func TestThreatPasswordStorage(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.SignedUp("alice@example.com")
	hash := accountstest.UserOf(t, "alice@example.com").PasswordHash
	if !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash %s", hash)
	}
	s.SignedUp("bob@example.com")
	if accountstest.UserOf(t, "bob@example.com").PasswordHash == hash {
		t.Error("one password of two users has one hash")
	}
	imported, err := bcrypt.GenerateFromPassword([]byte(sitetest.GoodPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for name, old := range map[string]string{
		"bcrypt": string(imported), "weaker argon2id": sitetest.WeakArgon2id(sitetest.GoodPassword),
	} {
		accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.PasswordHash = old })
		s.MustAnswer(
			401, s.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": "wrong password"}),
			name+": wrong password",
		)
		if accountstest.UserOf(t, "alice@example.com").PasswordHash != old {
			t.Errorf("%s: hashed again by a wrong password", name)
		}
		s.MustAnswer(200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), name)
		if renewed := accountstest.UserOf(t, "alice@example.com").PasswordHash; password.Weak(renewed) {
			t.Errorf("%s is not hashed again at log-in: %s", name, renewed)
		}
		s.MustAnswer(
			200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), name+" after it was hashed again",
		)
	}
}

func TestThreatHashingDenialOfService(t *testing.T) {
	s := sitetest.AccountsSite(t, "throttle off\n hash_queue 4")
	got := s.SignedUp("alice@example.com")
	var busy, ok atomic.Int64
	var all sync.WaitGroup
	for range 60 {
		all.Go(func() {
			switch got := s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")); got.Status {
			case 200:
				ok.Add(1)
			case 503:
				if got.Header.Get("Retry-After") != "" {
					busy.Add(1)
				}
			default:
				t.Errorf("status %d %s", got.Status, got.Body)
			}
		})
		all.Go(func() { s.MustAnswer(200, s.Bearer("/todos/", got.Token), "verification goes on") })
	}
	all.Wait()
	if busy.Load() == 0 || ok.Load() == 0 {
		t.Errorf("%d served, %d turned away: expected some of each", ok.Load(), busy.Load())
	}
	if waiting := password.Busy(); waiting != 0 {
		t.Errorf("%d hashes are still counted", waiting)
	}
	s.MustAnswer(200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "control: afterwards")
}

func TestThreatPasswords(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	user := 0
	signup := func(password string) sitetest.Reply {
		user++
		return s.Post("/auth/signup", sitetest.JSON{
			"email": fmt.Sprintf("user%d@example.com", user), "password": password,
		})
	}
	for name, password := range map[string]string{
		"8 characters": "xk4 q9!z", "no composition rules": "zzzqqqvvvxxx", "1024 bytes": strings.Repeat("pw", 512),
		"a phrase": "пароль из слов", "blanks": "  two  words  ", "emoji": "🐢🐇🦊🐻🐼🐨🐯🦁",
	} {
		s.MustAnswer(201, signup(password), name)
	}
	for name, password := range map[string]string{
		"7 characters": "xk4q9!z", "1025 bytes": strings.Repeat("p", 1025), "common": "password",
		"common in capitals": "PassWord1", "most common digits": "123456789",
		"control character": "abcdefg\x00h", "tab": "abcd\tefgh",
	} {
		got := signup(password)
		s.MustAnswer(422, got, name)
		if got.Status == 422 && got.ErrorBody(t).Error.Details[0].Path != "/password" {
			t.Errorf("%s: %s", name, got.Body)
		}
	}
	long := strings.Repeat("a", 100)
	s.MustAnswer(
		201, s.Post("/auth/signup", sitetest.JSON{"email": "long@example.com", "password": long + "1"}), "control",
	)
	s.MustAnswer(
		401, s.Post("/auth/login", sitetest.JSON{"email": "long@example.com", "password": long + "2"}),
		"never cut short",
	)
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.JSON{"email": "long@example.com", "password": long + "1"}), "control",
	)
	// The same characters in another Unicode composition, as from another machine.
	s.MustAnswer(
		201, s.Post("/auth/signup", sitetest.JSON{"email": "nfc@example.com", "password": "cafe\u0301 cafe\u0301"}),
		"control",
	)
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.JSON{"email": "nfc@example.com", "password": "caf\u00e9 caf\u00e9"}),
		"composed",
	)
}

func TestThreatIdentifiers(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "control")
	for name, email := range map[string]string{
		"capitals": "ALICE@EXAMPLE.COM", "full width": "ａｌｉｃｅ@example.com",
		"domain in capitals": "alice@Example.Com", "compatible letters": "ﬁnn@example.com",
	} {
		if name == "compatible letters" {
			s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("finn@example.com")), "control")
		}
		got := s.Post("/auth/signup", sitetest.CredentialsOf(email))
		s.MustAnswer(409, got, name)
		if got.Status == 409 && got.ErrorBody(t).Error.Message != "Email value is already taken" {
			t.Errorf("409: %s", got.Body)
		}
	}
	for name, email := range map[string]string{
		"no at": "alice", "no domain": "alice@", "no local part": "@example.com", "blank": "al ice@example.com",
		"NUL": "alice\x00@example.com", "control": "alice\x07@example.com", "line end": "alice@example.com\n",
		"bidi override": "alice\u202e@example.com", "zero width": "ali\u200bce@example.com",
		"zero width joiner": "ali\u200dce@example.com", "soft hyphen": "ali\u00adce@example.com",
		"zero width in the domain": "ali@exam\u200bple.com",
		"word joiner there":        "ali@exam\u2060ple.com", "variation selector there": "ali@example\ufe0f.com",
		"soft hyphen there":                "ali@\u00adexample.com",
		"ideographic full stop at the end": "ali@example.com\u3002", "dot at the end": "ali@example.com.",
		"with a name": "Alice <alice@example.com>", "two": "alice@example.com, bob@example.com",
		"too long": strings.Repeat("a", 250) + "@example.com", "mixed direction": "alicעה@example.com", "empty": "",
	} {
		got := s.Post("/auth/signup", sitetest.CredentialsOf(email))
		s.MustAnswer(422, got, name)
	}
	const racers = 100
	var created, taken atomic.Int64
	var all sync.WaitGroup
	s = sitetest.AccountsSite(t, "")
	for i := range racers {
		all.Go(func() {
			email := "racer@example.com"
			if i%2 == 0 {
				email = "RACER@example.com"
			}
			switch got := s.Post("/auth/signup", sitetest.CredentialsOf(email)); got.Status {
			case 201:
				created.Add(1)
			case 409:
				taken.Add(1)
			default:
				t.Errorf("status %d %s", got.Status, got.Body)
			}
		})
	}
	all.Wait()
	if created.Load() != 1 || taken.Load() != racers-1 {
		t.Errorf("%d sign-ups of one name: %d created, %d taken", racers, created.Load(), taken.Load())
	}
}

func TestThreatRefreshReplay(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	first := s.SignedUp("alice@example.com")
	refresh := func(token string) sitetest.Reply {
		return s.Post("/auth/refresh", sitetest.JSON{"refreshToken": token})
	}
	second := refresh(first.RefreshToken).Tokens(t)
	if second.RefreshToken == first.RefreshToken || len(second.RefreshToken) < 60 {
		t.Error("the refresh token is not replaced, or too short")
	}
	third := refresh(second.RefreshToken).Tokens(t)
	s.MustAnswer(200, s.Bearer("/todos/", third.Token), "control")
	s.MustAnswer(401, refresh(first.RefreshToken), "a token that was used before")
	s.MustAnswer(401, refresh(third.RefreshToken), "the family is revoked: its newest refresh token")
	s.MustAnswer(401, s.Bearer("/todos/", third.Token), "the family is revoked: its access tokens, remembered ones too")

	other := s.LoggedIn("alice@example.com")
	family := other.RefreshToken[:22]
	for name, token := range map[string]string{
		"empty": "x", "nobody's": strings.Repeat("A", 65), "of a session ID": "00000000-0000-0000-0000-000000000000",
	} {
		s.MustAnswer(401, refresh(token), name)
	}
	s.MustAnswer(200, s.Bearer("/todos/", other.Token), "control: another session lives on")
	s.MustAnswer(401, refresh(family+strings.Repeat("B", 43)), "of the family, and never given out")
	s.MustAnswer(401, s.Bearer("/todos/", other.Token), "which ends that family")

	// 100 concurrent uses share one line of tokens.
	last := s.LoggedIn("alice@example.com")
	successors := make(map[string]int)
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			got := refresh(last.RefreshToken)
			if got.Status != 200 {
				t.Errorf("status %d %s", got.Status, got.Body)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			successors[got.Tokens(t).RefreshToken]++
		})
	}
	all.Wait()
	if len(successors) != 1 {
		t.Errorf("100 uses of one refresh token gave %d successors", len(successors))
	}
	for successor := range successors {
		s.MustAnswer(200, refresh(successor), "the successor")
		s.MustAnswer(401, refresh(last.RefreshToken), "the token whose successor was used")
	}
	s.MustAnswer(401, s.Bearer("/todos/", last.Token), "afterwards the session is ended")

	stored, err := accountstest.StoreOf(t).Sessions(
		t.Context(), accountstest.UserOf(t, "alice@example.com").ID, time.Now(),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, session := range stored {
		if strings.Contains(session.RefreshHash+session.FamilyHash, family) {
			t.Error("a refresh token is stored as it is")
		}
	}
}

func TestRefreshEndsWithTheSession(t *testing.T) {
	s := sitetest.AccountsSite(t, "token_lifetime 1s\n refresh_lifetime 2s")
	got := s.SignedUp("alice@example.com")
	sitetest.Eventually(t, "the session expires, however much it is used", func() bool {
		answer := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken})
		if answer.Status == 200 {
			got = answer.Tokens(t)
		}
		return answer.Status == 401
	})
}

func TestBrowserFlow(t *testing.T) {
	s := sitetest.AccountsSite(t, "token_lifetime 1s")
	chrome := sitetest.Browser(t)
	got := s.Form(chrome, "/todos/list?page=2", nil)
	if got.Status != 303 || got.Header.Get("Location") != "/auth/login?return_to=%2Ftodos%2Flist%3Fpage%3D2" {
		t.Fatalf("without a session: %d %v", got.Status, got.Header)
	}
	for authorization, status := range map[string]int{
		"Basic " + sitetest.BasicCredentials("carol", "opensesame"): 303, "Bearer x": 401,
	} {
		if got := s.Get("/todos/", "Accept: text/html", "Authorization: "+authorization); got.Status != status {
			t.Errorf("%.6s without a session: %d", authorization, got.Status)
		}
	}
	page := s.Form(chrome, got.Header.Get("Location"), nil)
	if page.Status != 200 || !strings.Contains(page.Body, `value="/todos/list?page=2"`) ||
		page.Header.Get("Content-Security-Policy") != "default-src 'none'; style-src 'self'; img-src 'self'; "+
			"frame-ancestors 'none'; base-uri 'none'; script-src "+strings.TrimPrefix(s.URL, "http://")+"/auth/script.js" {
		t.Errorf("log-in page: %d %v %s", page.Status, page.Header, page.Body)
	}
	made := s.Form(chrome, "/auth/signup", url.Values{
		"email": {" alice@example.com "}, "password": {sitetest.GoodPassword}, "return_to": {"/todos/list?page=2"},
	})
	if made.Status != 303 || made.Header.Get("Location") != "/todos/list?page=2" {
		t.Fatalf("sign-up: %d %v %s", made.Status, made.Header, made.Body)
	}
	first := s.Form(chrome, "/todos/", nil)
	if first.Status != 200 || !strings.Contains(first.Body, "user=[") || strings.Contains(first.Body, "refresh=") {
		t.Fatalf("with the cookie: %d %s", first.Status, first.Body)
	}
	home, _ := url.Parse(s.URL)
	access := chrome.Jar.Cookies(home)
	sitetest.Eventually(t, "the access token expires, and is renewed silently", func() bool {
		got := s.Form(chrome, "/todos/", nil)
		if got.Status != 200 {
			t.Fatalf("status %d %s", got.Status, got.Body)
		}
		return chrome.Jar.Cookies(home)[0].Value != access[0].Value
	})
	account := s.Form(chrome, "/auth/account", nil)
	if account.Status != 200 || !strings.Contains(account.Body, "alice@example.com") ||
		strings.Contains(account.Body, "$argon2id") {
		t.Errorf("account page: %d %s", account.Status, account.Body)
	}
	changed := s.Form(chrome, "/auth/password", url.Values{
		"currentPassword": {sitetest.GoodPassword}, "newPassword": {"another good password"},
	})
	if changed.Status != 200 || !strings.Contains(changed.Body, "Your password was changed") {
		t.Errorf("password: %d %s", changed.Status, changed.Body)
	}
	wrong := s.Form(chrome, "/auth/password", url.Values{
		"currentPassword": {sitetest.GoodPassword}, "newPassword": {"short"},
	})
	if wrong.Status != 422 || !strings.Contains(wrong.Body, "at least 8 characters") {
		t.Errorf("password: %d %s", wrong.Status, wrong.Body)
	}
	out := s.Form(chrome, "/auth/logout", url.Values{})
	if out.Status != 303 || len(chrome.Jar.Cookies(home)) != 0 {
		t.Errorf("log-out: %d, cookies left %v", out.Status, chrome.Jar.Cookies(home))
	}
	s.MustAnswer(303, s.Form(chrome, "/todos/", nil), "afterwards")
	refused := s.Form(chrome, "/auth/login", url.Values{
		"email": {"alice@example.com"}, "password": {"wrong <b>password"},
	})
	if refused.Status != 401 || !strings.Contains(refused.Body, "Invalid email or password.") ||
		!strings.Contains(refused.Body, `value="alice@example.com"`) || strings.Contains(refused.Body, "wrong") {
		t.Errorf("wrong password: %d %s", refused.Status, refused.Body)
	}
}

// Many concurrent requests of a page, all with an expired access token: none is refused, and the
// session stays valid.
func TestBrowserRenewsAtOnce(t *testing.T) {
	s := sitetest.AccountsSite(t, "token_lifetime 1s")
	chrome := sitetest.Browser(t)
	s.MustAnswer(303, s.Form(chrome, "/auth/signup", sitetest.FormOf("alice@example.com")), "sign-up")
	home, _ := url.Parse(s.URL)
	stale := chrome.Jar.Cookies(home)
	sitetest.Eventually(t, "the access token expires", func() bool {
		return s.Get("/todos/", "Cookie: session="+stale[0].Value).Status == 401
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			s.MustAnswer(
				200, s.Get("/todos/", "Cookie: session="+stale[0].Value+"; refresh="+stale[1].Value), "one of many",
			)
		})
	}
	all.Wait()
	s.MustAnswer(200, s.Form(chrome, "/todos/", nil), "afterwards")
}

func TestThreatCookies(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	checkCookies(
		t, "a log-in on this machine",
		s.Form(sitetest.Browser(t), "/auth/login", sitetest.FormOf("alice@example.com")).Header, "", false,
	)
	for url, secure := range map[string]bool{
		"https://app.example/": true, "http://app.example/": true, "https://localhost/": true,
		"http://localhost.example/": true, "http://127.0.0.1.example/": true,
		"http://localhost:8080/": false, "http://127.0.0.1/": false,
		"http://[::1]:8080/": false, "http://app.localhost/": false,
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, url, nil)
		r.RemoteAddr = "127.0.0.1:4711"
		web.SetSessionCookies(w, r, &accounts.Grant{
			AccessToken: "a", RefreshToken: "r", SessionEnds: time.Now().Add(time.Hour),
		})
		prefix := ""
		if secure {
			prefix = "__Host-"
		}
		checkCookies(t, url, w.Header(), prefix, secure)
		// A cookie without the prefix, which a sister site can set, is ignored.
		if secure {
			r.Header.Set("Cookie", "session=planted; refresh=planted")
			if c := credentials.AccountSources.Read(r); c.Token != "" || c.Err != nil {
				t.Errorf("%s: a cookie without the prefix is read: %q %v", url, c.Token, c.Err)
			}
		}
	}
}

func checkCookies(t *testing.T, what string, header http.Header, prefix string, secure bool) {
	t.Helper()
	cookies := header.Values("Set-Cookie")
	if len(cookies) != 2 || !strings.HasPrefix(cookies[0], prefix+"session=") ||
		!strings.HasPrefix(cookies[1], prefix+"refresh=") {
		t.Fatalf("%s: %q", what, cookies)
	}
	for _, cookie := range cookies {
		if !strings.Contains(cookie, "; HttpOnly") || !strings.Contains(cookie, "; SameSite=Lax") ||
			!strings.Contains(cookie, "; Path=/;") || strings.Contains(cookie, "Domain") ||
			strings.Contains(cookie, "; Secure") != secure {
			t.Errorf("%s: %s", what, cookie)
		}
	}
}

func TestThreatCrossSiteRequestForgery(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	chrome := sitetest.Browser(t)
	s.MustAnswer(303, s.Form(chrome, "/auth/signup", sitetest.FormOf("alice@example.com")), "control")
	cross := []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"}
	for _, c := range []struct {
		path   string
		fields url.Values
	}{
		{"/auth/login", sitetest.FormOf("alice@example.com")},
		{"/auth/signup", sitetest.FormOf("mallory@example.com")}, {"/auth/logout", url.Values{}},
		{"/auth/password", url.Values{"currentPassword": {sitetest.GoodPassword}, "newPassword": {"another good one"}}},
		{"/todos/", url.Values{"delete": {"all"}}},
	} {
		s.MustAnswer(403, s.Form(chrome, c.path, c.fields, cross...), c.path)
		s.MustAnswer(
			403, s.Form(chrome, c.path, c.fields, "Origin: https://evil.example"), c.path+" by an older browser",
		)
	}
	s.MustAnswer(
		200, s.Form(chrome, "/todos/", url.Values{"a": {"b"}}, "Sec-Fetch-Site: same-origin"),
		"control: the site's own form",
	)
	for _, kind := range []string{"text/plain", "multipart/form-data", "", "application/xml"} {
		s.MustAnswer(415, s.Send(
			"POST", "/auth/login",
			sitetest.Marshal(t, sitetest.CredentialsOf("alice@example.com")), "Content-Type: "+kind,
		), "JSON as "+kind)
	}
	for _, path := range []string{"/auth/refresh", "/auth/logout", "/auth/password"} {
		got := s.Get(path)
		s.MustAnswer(405, got, "GET "+path)
		if got.Header.Get("Allow") != "POST" {
			t.Errorf("Allow %q", got.Header.Get("Allow"))
		}
	}
	s.MustAnswer(200, s.Form(chrome, "/auth/account", nil), "control: still logged in")
}

func TestThreatOpenRedirect(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	location := func(to string) string {
		return s.Form(sitetest.Browser(t), "/auth/login", url.Values{
			"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "return_to": {to},
		}).Header.Get("Location")
	}
	for _, good := range []string{
		"/", "/todos/1?a=b&c=%20d#e", "/a%2Fb", "/a?q=100%25",
		`/a?path=C:%5Cx`, "/100%25", "/ü", "/x?url=https://elsewhere.example",
	} {
		if got := location(good); got != good && !strings.EqualFold(got, strings.ReplaceAll(good, "ü", "%C3%BC")) {
			t.Errorf("control: %q leads to %q", good, got)
		}
	}
	for _, bad := range []string{
		"https://evil.example", "http://evil.example/", "//evil.example", "///evil.example", "////evil.example",
		`/\evil.example`, `\/evil.example`, `\\evil.example`, `/\/evil.example`, `//\evil.example`,
		"/%09/evil.example", "/\t/evil.example", "\t//evil.example", "/%2Fevil.example", "/%2f/evil.example",
		"/%5Cevil.example", "/%5c/evil.example", "%2F%2Fevil.example", "/%252Fevil.example", "/%25252f/evil.example",
		"https:evil.example", "https:/evil.example", "https:///evil.example",
		"HTTPS://evil.example", "javascript:alert(1)", "JaVaScRiPt:alert(1)",
		"java\tscript:alert(1)", "data:text/html,x", "vbscript:x", "blob:x",
		"evil.example", "user@evil.example", "https://site@evil.example",
		"//site@evil.example", "//evil.example@site", "/\r\nLocation: https://evil.example",
		"/%0d%0aSet-Cookie: a=b", "/%0D%0ALocation:%20https://evil.example", "/%0a", "/%00",
		" //evil.example", "\u00a0//evil.example", "/\u0000", "/\u007f", ".//evil.example",
		"..//evil.example", "?//evil.example", "#//evil.example", "", "/%zz",
		"http:evil", "//", `/%5C%5Cevil.example`, "/" + strings.Repeat("a", 3000),
	} {
		if got := location(bad); got != "/auth/account" {
			t.Errorf("%q leads to %q", bad, got)
		}
	}
}

func TestThreatSessionFixation(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	planted := s.SignedUp("mallory@example.com")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	chrome := sitetest.Browser(t)
	home, _ := url.Parse(s.URL)
	chrome.Jar.SetCookies(home, []*http.Cookie{
		{Name: "session", Value: planted.Token, Path: "/"}, {Name: "refresh", Value: planted.RefreshToken, Path: "/"},
	})
	s.MustAnswer(303, s.Form(chrome, "/auth/login", sitetest.FormOf("alice@example.com")), "log-in")
	for _, cookie := range chrome.Jar.Cookies(home) {
		if cookie.Value == planted.Token || cookie.Value == planted.RefreshToken {
			t.Errorf("cookie %s is still the planted one", cookie.Name)
		}
	}
	if got := s.Form(chrome, "/auth/account", nil); !strings.Contains(got.Body, "alice@example.com") {
		t.Errorf("the session is not alice's: %s", got.Body)
	}
}

func TestThreatEndedSessions(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	one, two := s.SignedUp("alice@example.com"), s.LoggedIn("alice@example.com")
	remembered := func(token string) int { return s.Bearer("/todos/", token).Status }
	for range 3 {
		if remembered(one.Token) != 200 || remembered(two.Token) != 200 {
			t.Fatal("control")
		}
	}
	sessions := s.Bearer("/auth/sessions", one.Token)
	var listed []struct {
		ID      string
		Current bool
	}
	if err := stdjson.Unmarshal([]byte(sessions.Body), &listed); err != nil || len(listed) != 2 {
		t.Fatalf("sessions: %s", sessions.Body)
	}
	for _, session := range listed {
		if !session.Current {
			s.MustAnswer(
				204, s.Do("DELETE", "/auth/sessions/"+session.ID, "Authorization: Bearer "+one.Token),
				"end the other session",
			)
		}
	}
	if got := remembered(two.Token); got != 401 {
		t.Errorf("a token of an ended session: %d", got)
	}
	if got := remembered(one.Token); got != 200 {
		t.Errorf("control: %d", got)
	}
	s.MustAnswer(
		404, s.Do("DELETE", "/auth/sessions/"+listed[0].ID+"x", "Authorization: Bearer "+one.Token), "no such session",
	)
	bob := s.SignedUp("bob@example.com")
	for _, session := range listed {
		s.MustAnswer(
			404, s.Do("DELETE", "/auth/sessions/"+session.ID, "Authorization: Bearer "+bob.Token),
			"somebody else's session",
		)
	}

	three := s.LoggedIn("alice@example.com")
	change := s.Post(
		"/auth/password", sitetest.JSON{"currentPassword": sitetest.GoodPassword, "newPassword": "a new good password"},
		"Authorization: Bearer "+one.Token,
	)
	s.MustAnswer(204, change, "password change")
	if got := remembered(three.Token); got != 401 {
		t.Errorf("another session after a password change: %d", got)
	}
	if got := remembered(one.Token); got != 200 {
		t.Errorf("control: the session that changed it: %d", got)
	}
	s.MustAnswer(401, s.Post(
		"/auth/password", sitetest.JSON{"currentPassword": "wrong password", "newPassword": "one more good password"},
		"Authorization: Bearer "+one.Token,
	), "wrong current password")

	// Another process disables the user: this one learns it within a second.
	accountstest.ChangeUser(t, "bob@example.com", func(u *store.User) { u.Disabled = true })
	store := accountstest.StoreOf(t)
	if _, err := store.EndSessions(
		t.Context(), accountstest.UserOf(t, "bob@example.com").ID, "", "", time.Now(),
	); err != nil {
		t.Fatal(err)
	}
	sitetest.Eventually(t, "a disabled user's token is refused", func() bool { return remembered(bob.Token) == 401 })
	s.MustAnswer(
		401, s.Post("/auth/refresh", sitetest.JSON{"refreshToken": bob.RefreshToken}), "a disabled user's refresh",
	)
	s.MustAnswer(401, s.Post("/auth/login", sitetest.CredentialsOf("bob@example.com")), "a disabled user's log-in")
}

func TestThreatBodies(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"too large":         {`{"email":"alice@example.com","password":"` + strings.Repeat("x", 65<<10) + `"}`, 413},
		"empty":             {"", 400},
		"broken":            {`{"email":`, 400},
		"a list":            {`[]`, 400},
		"null":              {`null`, 400},
		"a name twice":      {`{"email":"a@example.com","email":"b@example.com","password":"correct horse"}`, 400},
		"more behind":       {`{"email":"a@example.com","password":"correct horse"} {}`, 400},
		"invalid UTF-8":     {"{\"email\":\"a\xff@example.com\",\"password\":\"correct horse\"}", 400},
		"number as e-mail":  {`{"email":7,"password":"correct horse"}`, 422},
		"null as password":  {`{"email":"a@example.com","password":null}`, 422},
		"unknown property":  {`{"email":"a@example.com","password":"correct horse","roles":["admin"]}`, 422},
		"id chosen":         {`{"email":"a@example.com","password":"correct horse","id":"1"}`, 422},
		"control: a good 1": {`{"email":"a@example.com","password":"correct horse"}`, 201},
	} {
		s.MustAnswer(c.status, s.Post("/auth/signup", c.body), name)
	}
	got := s.Post("/auth/signup", `{"password":"short","admin":true}`).ErrorBody(t)
	var paths []string
	for _, detail := range got.Error.Details {
		paths = append(paths, detail.Path+" "+detail.Code)
	}
	if got.Error.Code != "VALIDATION_FAILED" ||
		!slices.Equal(paths, []string{"/admin additionalProperties", "/email required", "/password minLength"}) {
		t.Errorf("details %q of %+v", paths, got)
	}
}

// signingKeyID returns the ID of the current signing key.
func signingKeyID(t *testing.T, keys *signing.Keys) string {
	t.Helper()
	token, err := keys.Sign("", map[string]any{"sub": "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := jwt.Decode(token)
	if err != nil {
		t.Fatal(err)
	}
	header, err := jwt.ParseClaims(decoded.Header)
	if err != nil {
		t.Fatal(err)
	}
	return header["kid"].(string)
}

// A rotated key verifies tokens until the last one has expired, and not longer.
func TestKeyRotation(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	old := s.SignedUp("alice@example.com")
	keys := accountstest.ServiceOf(t).Keys
	kid := func() string { return signingKeyID(t, keys) }
	rotate := func(at time.Time) {
		t.Helper()
		if _, fresh, err := signing.Rotate(
			t.Context(), caddy.ActiveContext().Storage(),
			signing.Path(accountstest.ServiceOf(t).Config.KeyScope()), signing.Rotation{Now: at},
		); err != nil {
			t.Fatal(err)
		} else if err := keys.Reload(t.Context(), 0); err != nil || kid() != fresh {
			t.Fatalf("signs with %s, expected %s, %v", kid(), fresh, err)
		}
	}
	s.MustAnswer(200, s.Bearer("/todos/", old.Token), "control, and now it is remembered")
	rotate(time.Now())
	s.MustAnswer(200, s.Bearer("/todos/", old.Token), "a token of the key before")
	fresh := s.LoggedIn("alice@example.com")
	s.MustAnswer(200, s.Bearer("/todos/", fresh.Token), "a token of the new key")
	if published := s.Get("/auth/jwks.json").Body; strings.Count(published, `"kid"`) != 2 {
		t.Errorf("published are %s", published)
	}
	rotate(time.Now().Add(-time.Hour)) // as if all had happened an hour ago
	s.MustAnswer(401, s.Bearer("/todos/", fresh.Token), "a token of a key whose last token has expired, remembered")
	s.MustAnswer(200, s.Bearer("/todos/", s.LoggedIn("alice@example.com").Token), "control: the newest key")
}

// If a single-page app comes first, it serves every path that is not a file, including the account
// routes. Then a browser cannot log in, and the log says why.
func TestAccountsOfASinglePageApp(t *testing.T) {
	app := sitetest.TempDir(t)
	if err := os.WriteFile(filepath.Join(app, "index.html"), []byte("the app"), 0o600); err != nil {
		t.Fatal(err)
	}
	jwt := "jwt {\n accounts {\n signup open\n store file " + filepath.Join(sitetest.TempDir(t), "users.db") +
		"\n}\n}\n"
	const rest = "try_files {path} /index.html\n file_server\n"
	html := "Accept: text/html"
	t.Run("before", func(t *testing.T) {
		s := sitetest.Serve(t, "root * "+app+"\n"+jwt+rest)
		if got := s.Get("/somewhere", html); got.Status != 303 {
			t.Errorf("a page: %d", got.Status)
		}
		s.MustAnswer(401, s.Get("/auth/login?return_to=%2Fsomewhere", html), "the log-in page")
		if log := s.Log(); strings.Count(log, "the log-in page cannot be reached") != 1 {
			t.Errorf("the log says %s", log)
		}
	})
	t.Run("behind", func(t *testing.T) {
		s := sitetest.Serve(t, "root * "+app+"\nroute {\n"+jwt+rest+"}")
		chrome := sitetest.Browser(t)
		got := s.Form(chrome, "/somewhere", nil)
		if got.Status != 303 || got.Header.Get("Location") != "/auth/login?return_to=%2Fsomewhere" {
			t.Fatalf("a page: %d %v", got.Status, got.Header)
		}
		form := sitetest.FormOf("alice@example.com")
		form.Set("return_to", "/somewhere")
		if made := s.Form(chrome, "/auth/signup", form); made.Status != 303 ||
			made.Header.Get("Location") != "/somewhere" {
			t.Fatalf("sign-up: %d %v %s", made.Status, made.Header, made.Body)
		}
		if got := s.Form(chrome, "/somewhere", nil); got.Status != 200 || got.Body != "the app" {
			t.Errorf("with a session: %d %s", got.Status, got.Body)
		}
	})
	t.Run("in a handle block", func(t *testing.T) {
		s := sitetest.Serve(t, "handle /app/* {\n"+
			strings.Replace(jwt, "accounts", "accounts /app/auth", 1)+"respond app\n}\n handle {\n respond other\n}")
		if got := s.Get("/app/", html); got.Status != 303 ||
			!strings.HasPrefix(got.Header.Get("Location"), "/app/auth/login?") {
			t.Errorf("a page: %d %v", got.Status, got.Header)
		}
		s.MustAnswer(200, s.Get("/app/auth/login", html), "the log-in page")
	})
}

// A new key is published before it signs: by every node, and in every copy of the key set that may
// still be cached.
func TestKeyRotationLead(t *testing.T) {
	const keptFor = 10 + 10 // seconds, by the answer's Cache-Control and two clocks
	for _, lead := range []time.Duration{signing.DefaultLead, 0} {
		t.Run(fmt.Sprint("lead ", lead), func(t *testing.T) {
			storage := &certmagic.FileStorage{Path: sitetest.TempDir(t)}
			now := time.Now()
			open := func() *signing.Keys {
				keys := signing.New(signing.Options{
					Algorithm: "ES256", Storage: storage, Path: "keys",
					TokenLifetime: time.Hour, Now: func() time.Time { return now },
				})
				if err := keys.Ensure(t.Context()); err != nil {
					t.Fatal(err)
				}
				return keys
			}
			nodes := []*signing.Keys{open(), open()}
			var published [2][]string // by second
			signed := make(map[string]bool)
			tooEarly := 0
			for second := range 200 {
				now = now.Add(time.Second)
				if second == keptFor {
					if _, _, err := signing.Rotate(
						t.Context(), storage, "keys", signing.Rotation{Now: now, Lead: lead},
					); err != nil {
						t.Fatal(err)
					}
				}
				for i, node := range nodes {
					if second >= 7*i { // they look at different moments
						if err := node.Reload(t.Context(), signing.ReloadInterval); err != nil {
							t.Fatal(err)
						}
					}
					published[i] = append(published[i], string(node.JWKS()))
				}
				for _, node := range nodes {
					kid := signingKeyID(t, node)
					signed[kid] = true
					for i := range nodes {
						for _, copy := range published[i][max(0, second-keptFor):] {
							if !strings.Contains(copy, kid) {
								tooEarly++
							}
						}
					}
				}
			}
			if len(signed) != 2 {
				t.Errorf("%d keys signed", len(signed))
			}
			if (tooEarly > 0) != (lead == 0) {
				t.Errorf("%d copies of the key set lack the key that signs", tooEarly)
			}
		})
	}
}

// A log-in with the old password, in progress while the password is changed, starts no session.
// Of many concurrent changes with the same old password, only one gets the response that it
// succeeded.
func TestThreatPasswordChangedTwiceAtOnce(t *testing.T) {
	s := sitetest.AccountsSite(t, "throttle off")
	got := s.SignedUp("alice@example.com")
	var done atomic.Int64
	var last atomic.Value
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			fresh := fmt.Sprintf("another good password %d", i)
			answer := s.Post(
				"/auth/password", sitetest.JSON{"currentPassword": sitetest.GoodPassword, "newPassword": fresh},
				"Authorization: Bearer "+got.Token,
			)
			if answer.Status == 204 {
				done.Add(1)
				last.Store(fresh)
			} else if answer.Status != 401 {
				t.Errorf("status %d", answer.Status)
			}
		})
	}
	all.Wait()
	if done.Load() != 1 {
		t.Fatalf("%d changes were acknowledged", done.Load())
	}
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": last.Load()}),
		"the one that was",
	)
}

// Guesses from an address where a user is logged in are counted and answered like any others.
func TestThreatEnumerationFromAFamiliarAddress(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.SignedUp("alice@example.com")
	var statuses [2][]int
	for i, email := range []string{"alice@example.com", "nobody@example.com"} {
		for range 13 {
			statuses[i] = append(
				statuses[i], s.Post("/auth/login", sitetest.JSON{"email": email, "password": "wrong password"}).Status,
			)
		}
	}
	if !slices.Equal(statuses[0], statuses[1]) || statuses[0][12] != 429 {
		t.Errorf("answers for a user %v, for nobody %v", statuses[0], statuses[1])
	}
	s.MustAnswer(
		200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "the right password, from there",
	)
}

// If the config reads a key from a file, a reload uses the new key, and tokens signed with the old
// one are no longer valid.
func TestKeyOfTheConfigIsReplacedByAReload(t *testing.T) {
	dir := sitetest.TempDir(t)
	key, secret := filepath.Join(dir, "key.json"), filepath.Join(dir, "secret")
	write := func(round int) {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string][]byte{
			key:    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
			secret: fmt.Appendf(nil, "%s-%d", sitetest.Secret, round),
		} {
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, option := range map[string]string{
		"signing_key": "signing_key " + key, "secret": "secret {file." + secret + "}",
	} {
		write(1)
		storage, body := sitetest.TempDir(t), sitetest.AccountsBody(
			filepath.Join(sitetest.TempDir(t), "users.db"), option,
		)
		s := sitetest.Serve(t, "respond ok")
		s.Load(body, storage)
		got := s.SignedUp("alice@example.com")
		s.MustAnswer(200, s.Bearer("/todos/", got.Token), name+": control")
		write(2)
		s.Load(body, storage)
		// Caddy does not wait for the previous server, which may still respond for a moment.
		sitetest.Eventually(t, name+": a token of the old key is refused", func() bool {
			return s.Bearer("/todos/", got.Token).Status == 401
		})
		s.MustAnswer(200, s.Bearer("/todos/", s.LoggedIn("alice@example.com").Token), name+": a token of the new one")
	}
}

// The prefix of the cookies' names is omitted only for a browser on this machine, whatever the
// Host header says.
func TestThreatCookiesBehindAProxy(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.SignedUp("alice@example.com")
	for header, plain := range map[string]bool{
		"X-Other: 1": true, "X-Forwarded-Proto: https": false, "X-Forwarded-Host: example.com": false,
		"Forwarded: proto=https": false, "X-Forwarded-For: 203.0.113.7": false, "X-Real-Ip: 203.0.113.7": false,
		"Via: 1.1 proxy": false, "X-Forwarded-Ssl: on": false, "Sec-Fetch-Site: same-origin": true,
	} {
		got := s.Form(sitetest.Browser(t), "/auth/login", sitetest.FormOf("alice@example.com"), header)
		for _, cookie := range got.Header.Values("Set-Cookie") {
			if strings.HasPrefix(cookie, "__Host-") == plain || strings.Contains(cookie, "; Secure") == plain {
				t.Errorf("%s: %.20s…%s", header, cookie, cookie[strings.Index(cookie, ";"):])
			}
		}
	}
}

// By default nginx sends the address of its upstream as Host, not the browser's Host.
func TestThreatCookiesBehindNginx(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.SignedUp("alice@example.com")
	address := strings.TrimPrefix(s.URL, "http://")
	for version, plain := range map[string]bool{"1.1": true, "1.0": false} {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		body := sitetest.FormOf("alice@example.com").Encode()
		fmt.Fprintf(
			connection,
			"POST /auth/login HTTP/%s\r\nHost: %s\r\nConnection: close\r\nAccept: text/html\r\n"+
				"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
			version, address, len(body), body,
		)
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = connection.Close()
		cookies := response.Header.Values("Set-Cookie")
		if len(cookies) == 0 {
			t.Fatalf("HTTP/%s: %s", version, response.Status)
		}
		for _, cookie := range cookies {
			if strings.HasPrefix(cookie, "__Host-") == plain || strings.Contains(cookie, "; Secure") == plain {
				t.Errorf("HTTP/%s: %.12s…%s", version, cookie, cookie[strings.Index(cookie, ";"):])
			}
		}
	}
}

func TestThreatLogInDuringPasswordChange(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	checked := accountstest.UserOf(t, "alice@example.com")
	service := accountstest.ServiceOf(t)
	if _, err := service.Factors.Enter(t.Context(), accounts.Entry{User: checked}, accounts.Client{}); err != nil {
		t.Fatalf("control: %v", err)
	}
	if err := service.LogIns.SetPassword(
		t.Context(), checked.ID, nil, "another good password", accounts.Client{},
	); err != nil {
		t.Fatal(err)
	}
	if _, err := service.Factors.Enter(t.Context(), accounts.Entry{User: checked}, accounts.Client{}); err == nil ||
		refusal.Of(err).Reason != refusal.WrongCredentials {
		t.Errorf("a session begins by the old password: %v", err)
	}
}

// An unknown user, a disabled one and one with a bcrypt hash cost a hash like any other: if no
// hash slot is free, all of them wait in vain.
func TestThreatUnknownUserCostsAHash(t *testing.T) {
	s := sitetest.AccountsSite(t, "hash_queue 1\n throttle off")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("old@example.com")), "sign-up")
	imported, err := bcrypt.GenerateFromPassword([]byte(sitetest.GoodPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	accountstest.ChangeUser(t, "old@example.com", func(u *store.User) { u.PasswordHash = string(imported) })
	defer accountstest.FillHashGate(t, "127.0.0.1")()
	long := strings.Repeat("x", 73)
	for _, body := range []sitetest.JSON{
		{"email": "alice@example.com", "password": "wrong password"},
		{"email": "nobody@example.com", "password": "wrong password"}, {
			"email": "no address", "password": "wrong password",
		},
		{"email": "old@example.com", "password": "wrong password"}, {"email": "old@example.com", "password": long},
		{"email": "alice@example.com", "password": strings.Repeat("x", 2000)},
	} {
		s.MustAnswer(503, s.Post("/auth/login", body), fmt.Sprint(body))
	}
}

// A token that the accounts' key has signed for another purpose gives no access to the account.
func TestAccountRoutesNeedTheirScope(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	got := s.SignedUp("alice@example.com")
	s.MustAnswer(200, s.Bearer("/auth/whoami", got.Token), "control")
	parts, err := jwt.Decode(got.Token)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(jwt.Claims){
		"another scope": func(c jwt.Claims) { c["scope"] = "openid" },
		"no scope":      func(c jwt.Claims) { delete(c, "scope") },
		"no session":    func(c jwt.Claims) { delete(c, "sid") },
	} {
		claims, err := jwt.ParseClaims(parts.Payload)
		if err != nil {
			t.Fatal(err)
		}
		change(claims)
		token, err := accountstest.ServiceOf(t).Keys.Sign("at+jwt", claims)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/auth/whoami", "/auth/sessions"} {
			if got := s.Bearer(path, token); got.Status != 403 && got.Status != 401 {
				t.Errorf("%s at %s: %d", name, path, got.Status)
			}
		}
		if got := s.Send("POST", "/auth/logout", "", "Authorization: Bearer "+token); got.Status != 403 &&
			got.Status != 401 {
			t.Errorf("%s at log-out: %d", name, got.Status)
		}
	}
}

// Guesses at the password in a session that a user left open are throttled.
func TestThreatPasswordChangeIsThrottled(t *testing.T) {
	s := sitetest.AccountsSite(t, "throttle 3 15m")
	got := s.SignedUp("alice@example.com")
	guess := sitetest.JSON{"currentPassword": "wrong password", "newPassword": "another good password"}
	statuses := make(map[int]int)
	for range 40 {
		statuses[s.Post("/auth/password", guess, "Authorization: Bearer "+got.Token).Status]++
	}
	if statuses[429] == 0 || statuses[401] > 35 {
		t.Errorf("answers %v", statuses)
	}
}

// A path below the sessions that is not a session goes to the next handler, and requires a token
// there.
func TestThreatPathsBelowAccountRoutes(t *testing.T) {
	s := sitetest.Serve(t, "jwt {\n accounts /api {\n signup open\n store file "+
		filepath.Join(sitetest.TempDir(t), "users.db")+"\n }\n}\nrespond upstream")
	s.MustAnswer(200, s.Get("/api/jwks.json"), "control")
	for _, path := range []string{
		"/api/other", "/api/sessions/", "/api/sessions/1/messages",
		"/api/sessions//", "/api/login/x", "/api/jwks.json/", "/api//login",
	} {
		s.MustAnswer(401, s.Get(path), path)
	}
}

func TestThreatMassAssignment(t *testing.T) {
	s := sitetest.AccountsSite(t, "profile name")
	chrome := sitetest.Browser(t)
	in := s.Form(chrome, "/auth/signup", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "name": {"Alice"},
		"roles": {"admin"}, "id": {"1"}, "disabled": {"true"}, "plan": {"gold"},
	})
	s.MustAnswer(303, in, "sign-up")
	user := accountstest.UserOf(t, "alice@example.com")
	if len(user.Roles) != 0 || user.ID == "1" || len(user.Profile) != 1 || user.Profile["name"] != "Alice" {
		t.Errorf("user %+v", user)
	}
	for name, value := range map[string]string{
		"1e999": "1e999", "2⁶⁴": "18446744073709551616", "in a list": "[1e999]",
	} {
		s.MustAnswer(422, s.Post(
			"/auth/signup", `{"email":"bob@example.com","password":"`+sitetest.GoodPassword+`","name":`+value+`}`,
		), name)
	}
	got := s.Post(
		"/auth/signup", `{"email":"bob@example.com","password":"`+sitetest.GoodPassword+`","name":9007199254740993}`,
	)
	s.MustAnswer(201, got, "control")
	token := s.LoggedIn("bob@example.com").Token
	if who := s.Bearer("/auth/whoami", token); who.Body != got.Body {
		t.Errorf("sign-up answers %s, whoami %s", got.Body, who.Body)
	}
}

// A page of a sister site can open a WebSocket with the user's cookies.
func TestThreatCrossSiteWebSocket(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	chrome := sitetest.Browser(t)
	s.MustAnswer(303, s.Form(chrome, "/auth/signup", sitetest.FormOf("alice@example.com")), "sign-up")
	s.MustAnswer(
		403,
		s.Form(chrome, "/todos/", nil, "Upgrade: websocket", "Connection: Upgrade", "Origin: https://evil.example"),
		"another origin",
	)
	s.MustAnswer(
		403, s.Form(chrome, "/todos/", nil, "Upgrade: websocket", "Connection: Upgrade", "Sec-Fetch-Site: same-site"),
		"a sister site",
	)
	s.MustAnswer(
		200, s.Form(chrome, "/todos/", nil, "Upgrade: websocket", "Connection: Upgrade", "Sec-Fetch-Site: same-origin"),
		"control",
	)
}

// If a config is refused after its accounts were ready, the running config keeps working, even if
// its store differs.
func TestRefusedReloadKeepsTheStore(t *testing.T) {
	dir := sitetest.TempDir(t)
	where := filepath.Join(dir, "where")
	point := func(name string) {
		t.Helper()
		if err := os.WriteFile(where, []byte(filepath.Join(dir, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	point("a.db")
	body := "route {\n" + sitetest.AccountsBody("{file."+where+"}", "throttle off") + "\n}\n"
	s := &sitetest.Site{T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(dir, "log.json")}
	storage := filepath.Join(dir, "storage")
	accountstest.RunSite(t, s, body, storage)
	s.SignedUp("alice@example.com")
	point("b.db")
	config, err := sitetest.AdaptCaddyfile(
		t, body+"jwt /late/* {\nsecret {env.JWT_NOT_SET}\n}\n",
		strings.TrimPrefix(s.URL, "http://"), storage, s.LogFile,
	)
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err == nil {
		t.Fatal("control: the config is not refused")
	}
	sitetest.Eventually(t, "log-ins go on", func() bool {
		return s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")).Status == 200
	})
	point("a.db")
	s.Load(body+"respond /more more\n", storage)
	s.MustAnswer(200, s.Post("/auth/login", sitetest.CredentialsOf("alice@example.com")), "after a reload that is good")
}

// hangingStorage is a file storage that does not load anything while it hangs, like a network file
// system.
type hangingStorage struct {
	*certmagic.FileStorage
}

var hangs, asked atomic.Bool

func init() { caddy.RegisterModule(hangingStorage{}) }

func (hangingStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID: "caddy.storage.hanging", New: func() caddy.Module { return &hangingStorage{new(certmagic.FileStorage)} },
	}
}

func (s *hangingStorage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	d.Next()
	s.Path = d.Val()
	return nil
}

func (s *hangingStorage) CertMagicStorage() (certmagic.Storage, error) { return s, nil }

func (s *hangingStorage) Load(ctx context.Context, key string) ([]byte, error) {
	for hangs.Load() {
		asked.Store(true)
		time.Sleep(10 * time.Millisecond)
	}
	return s.FileStorage.Load(ctx, key)
}

// A hanging storage delays neither the keys in memory for long, nor the news of ended sessions.
func TestStorageHangs(t *testing.T) {
	s := &sitetest.Site{
		T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(sitetest.TempDir(t), "log.json"),
	}
	s.Load(
		sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "signup open"),
		"hanging "+sitetest.TempDir(t),
	)
	t.Cleanup(func() { stopCaddy(t) })
	s.SignedUp("alice@example.com")
	keys := accountstest.ServiceOf(t).Keys
	hangs.Store(true)
	defer hangs.Store(false)
	given := s.LoggedIn("alice@example.com")
	reloaded := make(chan struct{})
	go func() {
		_ = keys.Reload(context.Background(), 0)
		close(reloaded)
	}()
	sitetest.Eventually(t, "the storage is asked", asked.Load)
	s.MustAnswer(200, s.Bearer("/todos/", given.Token), "a token of the key in memory")
	if _, err := accountstest.ServiceOf(t).Users().EndSessions(
		t.Context(), accountstest.UserOf(t, "alice@example.com").ID, "", "", time.Now(),
	); err != nil {
		t.Fatal(err)
	}
	sitetest.Eventually(t, "the end of the session is learned", func() bool {
		return s.Bearer("/todos/", given.Token).Status == 401
	})
	<-reloaded // it waits no longer than keyLoadTimeout
	if err := keys.Reload(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "does not respond") {
		t.Errorf("control: the storage has answered meanwhile, %v", err)
	}
	hangs.Store(false)
	sitetest.Eventually(t, "the storage has answered", func() bool { return keys.Reload(t.Context(), 0) == nil })
	s.LoggedIn("alice@example.com")
}

// A browser's session cookie is checked like a renewed token: with the keys, the sources and the
// rules of the handler.
func TestRenewal(t *testing.T) {
	store := filepath.Join(sitetest.TempDir(t), "users.db")
	body := func(first, secret, more string) string {
		return `
		jwt /todos/* {
			` + first + `
			accounts {
				signup open
				store file ` + store + `
				secret ` + strings.Repeat(secret, 32) + `
			}
		}
		` + more + `
		respond /todos/* "user=[{http.auth.user.id}]"`
	}
	s := sitetest.Serve(t, body("", "a", ""))
	chrome := sitetest.Browser(t)
	if made := s.Form(chrome, "/auth/signup", sitetest.FormOf("alice@example.com")); made.Status != 303 {
		t.Fatalf("sign-up: %d %s", made.Status, made.Body)
	}
	restart := func(text string) {
		t.Helper()
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		s.Load(text, sitetest.TempDir(t))
	}
	load := func(text string) {
		t.Helper()
		restart(text)
		chrome = sitetest.Browser(t)
		if got := s.Form(chrome, "/auth/login", sitetest.FormOf("alice@example.com")); got.Status != 303 {
			t.Fatalf("log-in: %d %s", got.Status, got.Body)
		}
	}
	home, _ := url.Parse(s.URL)
	without := func(name string) *http.Client {
		other := sitetest.Browser(t)
		for _, cookie := range chrome.Jar.Cookies(home) {
			if cookie.Name != name {
				other.Jar.SetCookies(home, []*http.Cookie{cookie})
			}
		}
		return other
	}

	restart(body("", "b", "")) // the key that signed is gone
	if got := s.Form(without("refresh"), "/todos/", nil); got.Status != 303 {
		t.Errorf("control: a token of another key: %d", got.Status)
	}
	if got := s.Form(chrome, "/todos/", nil); got.Status != 200 {
		t.Errorf("the key that signed is gone: %d %v", got.Status, got.Header)
	}
	if got := s.Form(chrome, "/auth/account", nil); got.Status != 200 {
		t.Errorf("the account page: %d", got.Status)
	}

	load(body("user_id email", "b", ""))
	for _, missing := range []string{"", "session"} {
		if got := s.Form(without(missing), "/todos/", nil); got.Body != "user=[alice@example.com]" {
			t.Errorf("user_id, without the cookie %q: %d %s", missing, got.Status, got.Body)
		}
	}
	load(body("user_id nickname", "b", ""))
	if got := s.Form(without("session"), "/todos/", nil); got.Status == 200 {
		t.Errorf("a user without the claim of user_id: %d %s", got.Status, got.Body)
	}
	load(body("from header Authorization", "b", ""))
	if got := s.Form(without(""), "/todos/", nil); got.Status == 200 || len(got.Header["Set-Cookie"]) > 0 {
		t.Errorf("cookies are no place for a token: %d %v", got.Status, got.Header)
	}
	load(body(
		"", "b",
		"jwt /todos/admin/* {\n require claim email alice@example.com\n accounts {\n signup open\n store file "+store+
			"\n secret "+strings.Repeat("b", 32)+"\n }\n }",
	))
	if got := s.Form(without("session"), "/todos/admin/", nil); got.Status != 200 {
		t.Errorf("two handlers: %d %v", got.Status, got.Header)
	}
}

// A profile that cannot be exported again is refused, and an existing one does not keep other
// users out of an export.
func TestThreatDeepProfile(t *testing.T) {
	path := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(path, "profile name"))
	nested := func(levels int) string {
		return fmt.Sprintf(
			`{"email":"a%d@example.com","password":%q,"name":%s}`, levels,
			sitetest.GoodPassword, strings.Repeat("[", levels)+strings.Repeat("]", levels),
		)
	}
	s.MustAnswer(201, s.Post("/auth/signup", nested(store.MaxProfileDepth)), "control")
	for _, levels := range []int{store.MaxProfileDepth + 1, 9999} {
		got := s.Post("/auth/signup", nested(levels))
		s.MustAnswer(422, got, fmt.Sprintf("%d levels", levels))
		if details := got.ErrorBody(t).Error.Details; len(details) != 1 || details[0].Path != "/name" ||
			details[0].Code != "maxDepth" {
			t.Errorf("details %+v", details)
		}
	}
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", path}}
	line := `{"email":"b@example.com","password_hash":"","profile":{"name":` + strings.Repeat("[", 17) +
		strings.Repeat("]", 17) + `}}`
	if _, said, _ := c.Run(line, "user", "import", "--format", "jsonl", "-"); !strings.Contains(
		said, "a property is nested deeper than 16 levels",
	) {
		t.Errorf("import says %s", said)
	}
	id := uuid.NewString()
	accountstest.WithUsers(t, path, func(users store.UserStore) {
		var deep any = []any{}
		for range 9998 {
			deep = []any{deep}
		}
		if err := users.CreateUser(t.Context(), store.User{
			ID: id, Email: "0@example.com", EmailKey: "0@example.com",
			Profile: map[string]any{"name": deep}, CreatedAt: time.Now(),
		}); err != nil {
			t.Fatal(err)
		}
	})
	out, _, err := c.Run("", "user", "export")
	if strings.Count(out, "\n") != 1 || err == nil || !strings.Contains(err.Error(), "user "+id+" is skipped") {
		t.Errorf("%v, exported is %s", err, out)
	}
}

// If `from` lists the session cookie, its renewal and the refusal of other sites' requests still
// work. If it does not, browsers are not redirected.
func TestThreatSourcesBesideAccounts(t *testing.T) {
	dir := sitetest.TempDir(t)
	body := func(sources string) string {
		return strings.Replace(
			sitetest.AccountsBody(filepath.Join(dir, "users.db"), "token_lifetime 1s"),
			"leeway 0s", "leeway 0s\n"+sources, 1,
		)
	}
	for _, cookie := range []string{"session", "__Host-session"} {
		s := sitetest.Serve(t, body("from header\nfrom cookie "+cookie+"\nfrom query t"))
		chrome := sitetest.Browser(t)
		s.Form(chrome, "/auth/signup", sitetest.FormOf(cookie+"@example.com"))
		if got := s.Form(chrome, "/todos/", nil); got.Status != 200 {
			t.Fatalf("control: %d %s", got.Status, got.Body)
		}
		if got := s.Form(
			chrome, "/todos/", url.Values{"a": {"b"}}, "Origin: https://evil.example", "Sec-Fetch-Site: same-site",
		); got.Status != 403 {
			t.Errorf("from another site: %d", got.Status)
		}
		home, _ := url.Parse(s.URL)
		access := func() string {
			for _, c := range chrome.Jar.Cookies(home) {
				if c.Name == "session" {
					return c.Value
				}
			}
			return ""
		}
		before := access()
		sitetest.Eventually(t, "it is renewed", func() bool {
			if got := s.Form(chrome, "/todos/", nil); got.Status != 200 {
				t.Fatalf("%d %s", got.Status, got.Body)
			}
			return access() != before
		})
	}
	s := sitetest.Serve(t, body("from header"))
	s.MustAnswer(401, s.Get("/todos/", "Accept: text/html"), "a browser where no cookie is read")
	s.MustAnswer(200, s.Bearer("/todos/", s.LoggedIn("session@example.com").Token), "control: the header")
}

// Neither a reload with other options nor another site with the same users resets the attempts.
func TestThreatTriesOfTwoConfigs(t *testing.T) {
	dir := sitetest.TempDir(t)
	store := filepath.Join(dir, "users.db")
	s := sitetest.Serve(t, "respond ok")
	s.Load(sitetest.AccountsBody(store, ""), dir)
	s.SignedUp("alice@example.com")
	statuses := func() (counts map[int]int) {
		counts = make(map[int]int)
		for range 14 {
			counts[s.Post("/auth/login", sitetest.JSON{
				"email": "alice@example.com", "password": "a wrong password",
			}).Status]++
		}
		return counts
	}
	if got := statuses(); got[401] < 10 || got[429] == 0 {
		t.Fatalf("control: %v", got)
	}
	s.Load(sitetest.AccountsBody(store, "hash_queue 65"), dir)
	if got := statuses(); got[401] > 0 {
		t.Errorf("after a reload: %v", got)
	}
}

// A program gets errors as JSON, even if the site has error pages; a browser gets the pages.
func TestAccountErrorsBesideHandleErrors(t *testing.T) {
	s := sitetest.Serve(t, sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "")+
		"\n handle_errors {\n respond \"our page\" {err.status_code}\n}")
	for _, header := range []string{"Accept: application/json", "Accept: */*"} {
		got := s.Post("/auth/signup", sitetest.JSON{"email": "bad", "password": "x"}, header)
		if got.Status != 422 || len(got.ErrorBody(t).Error.Details) != 2 {
			t.Errorf("%s: %d %s", header, got.Status, got.Body)
		}
		s.MustAnswer(401, s.Post(
			"/auth/login", sitetest.JSON{"email": "a@example.com", "password": sitetest.GoodPassword}, header,
		), "log-in")
	}
	if got := s.Get("/auth/whoami", "Accept: text/html"); got.Status != 401 || got.Body != "our page" {
		t.Errorf("a browser: %d %s", got.Status, got.Body)
	}
	if got := s.Get("/todos/"); got.Status != 401 || got.Body != "our page" {
		t.Errorf("control: behind the account routes: %d %s", got.Status, got.Body)
	}
}

// The link of a disabled user sets no password, neither then nor later.
func TestThreatResetLinkOfADisabledUser(t *testing.T) {
	store := filepath.Join(sitetest.TempDir(t), "users.db")
	s := sitetest.Serve(t, sitetest.AccountsBody(store, ""))
	s.SignedUp("alice@example.com")
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", store}}
	link := func() string {
		link := c.Must("", "user", "reset-link", "--base", s.URL, "alice@example.com")
		return strings.TrimSpace(link[strings.Index(link, "token=")+len("token="):])
	}
	reset := func(token string) sitetest.Reply {
		return s.Post("/auth/reset", sitetest.JSON{"token": token, "newPassword": "a password by link"})
	}
	token := link()
	c.Must("", "user", "disable", "--yes", "alice@example.com")
	s.MustAnswer(401, reset(token), "while disabled")
	c.Must("", "user", "enable", "alice@example.com")
	s.MustAnswer(401, reset(token), "later")
	s.MustAnswer(204, reset(link()), "control")
}

func TestPasswordLengthIsThatOfItsNormalForm(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	s.MustAnswer(
		422, s.Post("/auth/signup", sitetest.JSON{"email": "a@example.com", "password": strings.Repeat("e\u0301", 7)}),
		"7 letters of two characters each",
	)
	s.MustAnswer(
		201, s.Post("/auth/signup", sitetest.JSON{"email": "a@example.com", "password": strings.Repeat("e\u0301", 8)}),
		"control: 8",
	)
}

func TestSignupByPlaceholder(t *testing.T) {
	t.Setenv("SIGNUP", "maybe")
	if text := sitetest.ConfigError(
		t, sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "signup {env.SIGNUP}"),
	); !strings.Contains(text, "signup must be open, closed or a path") {
		t.Errorf("a wrong value: %s", text)
	}
	t.Setenv("SIGNUP", "closed")
	s := sitetest.AccountsSite(t, "signup {env.SIGNUP}")
	s.MustAnswer(
		404, s.Post("/auth/signup", sitetest.JSON{"email": "a@example.com", "password": sitetest.GoodPassword}),
		"closed",
	)
}
