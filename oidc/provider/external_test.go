package provider

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/oidc/login"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// run runs Caddy with these sites.
func run(t testing.TB, logFile, sites string) {
	t.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(fmt.Sprintf(`{
	admin off
	auto_https off
	storage file_system %s
	log {
		output file %s
		level DEBUG
	}
}
%s`, t.TempDir(), logFile, sites)), map[string]any{"filename": "Caddyfile"})
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// newLoginSite is at another host than its providers, as browsers do not tell
// the ports of a host apart in cookies.
func newLoginSite(t testing.TB) *site {
	t.Helper()
	return &site{t: t, url: "http://127.0.0.1:" + strings.TrimPrefix(sitetest.FreeLocalhost(t), "localhost:"), logFile: filepath.Join(t.TempDir(), "log.json"), dir: t.TempDir()}
}

// caddyfile is the site, with options of its accounts.
func (s *site) caddyfile(accounts string) string {
	if !strings.Contains(accounts, "signup closed") {
		accounts = "signup open\n" + accounts
	}
	return fmt.Sprintf(`
%s {
	jwt /private* {
		accounts {
			store file %s
			throttle off
			profile name
			%s
		}
	}
	respond "user={http.auth.user.id} email={http.auth.user.email}"
}
`, s.url, filepath.Join(s.dir, "users.db"), accounts)
}

// loginSite runs a site whose users may come by these providers.
func loginSite(t testing.TB, accounts string) *site {
	t.Helper()
	s := newLoginSite(t)
	run(t, s.logFile, s.caddyfile(accounts))
	return s
}

// fakeProvider is a provider that can be made to lie. Unless it is, it does all
// as it should: it checks PKCE and takes a code once.
type fakeProvider struct {
	*httptest.Server
	t   testing.TB
	key *rsa.PrivateKey

	lookUps, keyFetches atomic.Int64
	down                atomic.Bool

	mu    sync.Mutex
	lies  lies
	codes map[string]codeOf
	last  string // the last ID token
}

// lies are what a provider does wrong.
type lies struct {
	subject, email string
	unverified     bool
	more           map[string]any                           // claims of the ID token
	claims         func(claims map[string]any)              // of the ID token, changed last
	sign           func(claims map[string]any) string       // the ID token
	answer         func(values url.Values)                  // to the browser
	tokens         func(answer map[string]any)              // of the token endpoint
	userinfo       map[string]any                           // instead of that of the ID token
	userinfoToken  string                                   // userinfo as a JWT
	moreKeys       []any                                    // in the key set
	onToken        func(w http.ResponseWriter) (taken bool) // instead of tokens
}

type codeOf struct{ nonce, challenge, redirect string }

var fakeKeys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = key
	}
	return keys
})

func newFakeProvider(t testing.TB) *fakeProvider {
	p := &fakeProvider{t: t, key: fakeKeys()[0], codes: make(map[string]codeOf)}
	p.lie(lies{})
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		p.lookUps.Add(1)
		_ = writeJSON(w, 200, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys", "userinfo_endpoint": p.URL + "/userinfo",
			"id_token_signing_alg_values_supported": []string{"none", "HS256", "RS256"}, "authorization_response_iss_parameter_supported": true,
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		p.keyFetches.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		keys := []any{rsaJWK(p.key, "1"), map[string]any{"kty": "oct", "kid": "2", "k": b64([]byte(symmetricKey))}}
		_ = writeJSON(w, 200, map[string]any{"keys": append(keys, p.lies.moreKeys...)})
	})
	mux.HandleFunc("/authorize", p.authorize)
	mux.HandleFunc("/token", p.token)
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.lies.userinfoToken != "" {
			w.Header().Set("Content-Type", "application/jwt")
			_, _ = w.Write([]byte(p.lies.userinfoToken))
			return
		}
		if p.lies.userinfo == nil || r.Header.Get("Authorization") != "Bearer an-access-token" {
			w.WriteHeader(403)
			return
		}
		_ = writeJSON(w, 200, p.lies.userinfo)
	})
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.down.Load() {
			w.WriteHeader(500)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func rsaJWK(key *rsa.PrivateKey, id string) map[string]any {
	return map[string]any{"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())}
}

// symmetricKey is in the provider's key set, where it should not be.
const symmetricKey = "a-key-that-everybody-can-read-and-so-can-sign-with"

func b64(text []byte) string { return base64.RawURLEncoding.EncodeToString(text) }

// lie has the provider lie from now on, or not any more.
func (p *fakeProvider) lie(l lies) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.subject == "" {
		l.subject, l.email = "alice", "alice@example.com"
	}
	p.lies = l
}

func (p *fakeProvider) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := r.URL.Query()
	if q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 32 || len(q.Get("nonce")) < 32 || q.Get("client_id") != "site" {
		p.t.Errorf("the request is %s", r.URL)
	}
	code := store.RandomToken(32)
	p.codes[code] = codeOf{q.Get("nonce"), q.Get("code_challenge"), q.Get("redirect_uri")}
	answer := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.URL}}
	if p.lies.answer != nil {
		p.lies.answer(answer)
	}
	w.Header().Set("Location", q.Get("redirect_uri")+"?"+answer.Encode())
	w.WriteHeader(http.StatusSeeOther)
}

func (p *fakeProvider) token(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lies.onToken != nil && p.lies.onToken(w) {
		return
	}
	id, secret, _ := r.BasicAuth()
	code, known := p.codes[r.FormValue("code")]
	delete(p.codes, r.FormValue("code"))
	if id != "site" || secret != "the-secret-of-the-site" {
		_ = writeJSON(w, 401, map[string]any{"error": "invalid_client"})
		return
	}
	if !known || challengeOf(r.FormValue("code_verifier")) != code.challenge || r.FormValue("redirect_uri") != code.redirect {
		_ = writeJSON(w, 400, map[string]any{"error": "invalid_grant", "error_description": "SECRET-OF-THE-PROVIDER"})
		return
	}
	claims := p.goodClaims(code.nonce)
	maps.Copy(claims, p.lies.more)
	if p.lies.claims != nil {
		p.lies.claims(claims)
	}
	p.last = p.sign(claims, p.key)
	if p.lies.sign != nil {
		p.last = p.lies.sign(claims)
	}
	answer := map[string]any{"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 60, "id_token": p.last}
	if p.lies.tokens != nil {
		p.lies.tokens(answer)
	}
	_ = writeJSON(w, 200, answer)
}

func (p *fakeProvider) goodClaims(nonce string) map[string]any {
	now := time.Now().Unix()
	return map[string]any{
		"iss": p.URL, "sub": p.lies.subject, "aud": "site", "iat": now, "exp": now + 60, "nonce": nonce, "sid": "session of " + p.lies.subject,
		"email": p.lies.email, "email_verified": !p.lies.unverified, "at_hash": halfHash("an-access-token"),
	}
}

func unsigned(header, claims map[string]any) string {
	var parts []string
	for _, part := range []map[string]any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			panic(err)
		}
		parts = append(parts, b64(text))
	}
	return strings.Join(parts, ".")
}

func (p *fakeProvider) sign(claims map[string]any, key *rsa.PrivateKey) string {
	return signedWith(map[string]any{"alg": "RS256", "kid": "1", "typ": "JWT"}, claims, key)
}

func signedWith(header, claims map[string]any, key *rsa.PrivateKey) string {
	text := unsigned(header, claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return text + "." + b64(signature)
}

// option is the log-in with the provider, as it stands in the accounts.
func (p *fakeProvider) option(name, more string) string {
	return fmt.Sprintf("login_with %s {\n issuer %s\n client_id site\n client_secret the-secret-of-the-site\n %s\n}\n", name, p.URL, more)
}

// out begins a log-in and returns the browser from the provider as far as the
// callback, which is not asked for yet.
func (b *browser) out(begin string) string {
	b.t.Helper()
	return b.get(b.get(begin).to(b.t).String()).to(b.t).String()
}

// logInBy logs in by a provider.
func (b *browser) logInBy(name string) answer {
	b.t.Helper()
	return b.get(b.out("/auth/login/" + name))
}

var alertText = regexp.MustCompile(`(?s)role="alert".*?</p>`)

// brief is what a failed test needs to say of an answer.
func (a answer) brief() string {
	text := alertText.FindString(a.body)
	if text == "" {
		text = a.body[:min(len(a.body), 300)]
	}
	return fmt.Sprint(a.status, " ", a.header.Get("Location"), " ", text)
}

var nextLink = regexp.MustCompile(`<a class="button" href="([^"]+)">Continue to`)

// connectLink begins, on the account page, to connect a user of a provider.
func (b *browser) connectLink(name string) string {
	b.t.Helper()
	page := b.post("/auth/login/"+name, url.Values{})
	found := nextLink.FindStringSubmatch(page.body)
	if page.status != 200 || found == nil {
		b.t.Fatal(page.brief())
	}
	return html.UnescapeString(found[1])
}

var offered = regexp.MustCompile(`name="offer" value="([^"]*)"`)

// decideOffer answers the question that the browser is led to.
func (b *browser) decideOffer(got answer, decision, password string) answer {
	b.t.Helper()
	if to := got.to(b.t).String(); to != "/auth/connect" {
		b.t.Fatalf("it leads to %s", to)
	}
	page := b.get("/auth/connect")
	found := offered.FindStringSubmatch(page.body)
	if page.status != 200 || found == nil {
		b.t.Fatal(page.brief())
	}
	return b.post("/auth/connect", url.Values{"offer": {found[1]}, "decision": {decision}, "currentPassword": {password}})
}

// mustBeIn checks that the answer to a callback logs in, and returns the user's
// ID.
func (b *browser) mustBeIn(got answer) string {
	b.t.Helper()
	if got.status != http.StatusSeeOther {
		b.t.Fatalf("not logged in: %s", got.brief())
	}
	who := b.do(http.MethodGet, "/auth/whoami", nil, "Accept: text/plain")
	if who.status != 200 {
		b.t.Fatalf("who: %d %s", who.status, who.body)
	}
	return who.body
}

// mustBeOut checks that the answer refuses, and that nobody is logged in.
func (b *browser) mustBeOut(got answer, status int, text string) {
	b.t.Helper()
	if got.status != status || !strings.Contains(got.body, text) || !strings.Contains(got.header.Get("Content-Type"), "text/html") {
		b.t.Errorf("got %s\nexpected %d and in it %q", got.brief(), status, text)
	}
	for _, cookie := range got.header.Values("Set-Cookie") {
		if strings.HasPrefix(cookie, "session=") || strings.HasPrefix(cookie, "refresh=") {
			b.t.Errorf("it sets %s", cookie)
		}
	}
	if who := b.get("/auth/whoami"); who.status != 401 {
		b.t.Errorf("somebody is logged in: %d %s", who.status, who.body)
	}
}

// The site's users come from this repository's own provider, in the same Caddy,
// which is not up when the site is set up; and the provider ends their sessions.
func TestLoginWithOwnProvider(t *testing.T) {
	app := newLoginSite(t)
	id := &site{t: t, url: "http://" + sitetest.FreeLocalhost(t), logFile: app.logFile, dir: t.TempDir()}
	run(t, app.logFile, app.caddyfile(`login_with home {
		label "Home"
		issuer `+id.url+`
		client_id site
		client_secret the-secret-of-the-site
		map_claim name name
	}`)+fmt.Sprintf(`
%s {
	oidc_provider {
		issuer %s
		accounts {
			signup open
			store file %s
			throttle off
			profile name
		}
		client site {
			secret the-secret-of-the-site
			redirect_uri %s/auth/callback/home
			backchannel_logout_uri %[4]s/auth/backchannel/home
			consent never
		}
	}
}`, id.url, id.url, filepath.Join(id.dir, "users.db"), app.url))
	there := id.browser()
	here := &browser{site: app, client: there.client} // the same one, at the other site
	there.do(http.MethodPost, "/auth/signup", url.Values{"email": {"alice@example.com"}, "password": {goodPassword}, "name": {"Alice A."}}).to(t)
	logIn := func() answer {
		t.Helper()
		return here.get(there.goOn(here.get("/auth/login/home?return_to=/private/x?y=1").to(t).String()).String())
	}
	here.mustBeOut(logIn(), 403, "has not verified your e-mail address")
	users := id.store()
	alice, err := users.UserByEmail(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := users.UpdateUser(t.Context(), alice.ID, time.Now(), func(u *store.User) error { u.Profile["email_verified"] = true; return nil }); err != nil {
		t.Fatal(err)
	}

	back := logIn()
	userID := here.mustBeIn(back)
	if to := back.to(t).String(); to != "/private/x?y=1" {
		t.Errorf("it returns to %s", to)
	}
	if got := here.get("/private/x"); got.status != 200 || got.body != "user="+userID+" email=alice@example.com" {
		t.Errorf("behind jwt: %d %s", got.status, got.body)
	}
	if who := here.do(http.MethodGet, "/auth/whoami", nil, "Accept: application/json").json(t); who["name"] != "Alice A." || who["email"] != "alice@example.com" || who["id"] == alice.ID {
		t.Errorf("the user is %v", who)
	}

	// With another address there it is the same user here.
	if _, err := users.UpdateUser(t.Context(), alice.ID, time.Now(), func(u *store.User) error {
		u.Email, u.EmailKey = "alice@new.example", "alice@new.example"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	second := &browser{site: app, client: here.client}
	there.email = "alice@new.example" // she is asked for her password again
	first := here.get("/auth/account").body
	if again := second.mustBeIn(logIn()); again != userID {
		t.Errorf("user %s is now %s", userID, again)
	}
	if strings.Count(second.get("/auth/account").body, "Logged in <time") != strings.Count(first, "Logged in <time")+1 {
		t.Error("the second log-in began no session of its own")
	}

	// Log-out there is log-out here, also of what was logged in before.
	if got := there.post("/auth/logout", url.Values{}); got.status != 303 {
		t.Fatalf("log-out: %d %s", got.status, got.body)
	}
	sitetest.Eventually(t, "the session here ends with the one there", func() bool { return here.get("/auth/whoami").status == 401 })
	if got := here.get("/private/x"); got.status != 303 {
		t.Errorf("after the log-out: %d %s", got.status, got.body)
	}
	if log := app.log(); strings.Contains(log, "the-secret-of-the-site") || strings.Contains(log, "alice@") {
		t.Error("the log has a secret or an address")
	}
}

// Each attack stands beside a log-in that is right and must work.
func TestLoginWithHostileProvider(t *testing.T) {
	p, other := newFakeProvider(t), newFakeProvider(t)
	s := loginSite(t, p.option("fake", "map_claim full_name name")+other.option("other", ""))
	set := func(name string, value any) lies {
		return lies{claims: func(claims map[string]any) { claims[name] = value }}
	}
	without := func(name string) lies {
		return lies{claims: func(claims map[string]any) { delete(claims, name) }}
	}
	signed := func(sign func(claims map[string]any) string) lies { return lies{sign: sign} }
	answered := func(change func(url.Values)) lies { return lies{answer: change} }
	public, err := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(kid string, secret []byte) func(map[string]any) string {
		return func(claims map[string]any) string {
			delete(claims, "at_hash") // which is checked by alg too
			text := unsigned(map[string]any{"alg": "HS256", "kid": kid}, claims)
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(text))
			return text + "." + b64(mac.Sum(nil))
		}
	}
	const refused, begun = "response is not valid", "was started in another browser"
	for _, attack := range []struct {
		name   string
		lies   lies
		status int
		text   string
	}{
		{"wrong nonce", set("nonce", "of another log-in"), 401, refused},
		{"no nonce", without("nonce"), 401, refused},
		{"nonce in another case", lies{claims: func(c map[string]any) { c["Nonce"] = c["nonce"]; delete(c, "nonce") }}, 401, refused},
		{"wrong aud", set("aud", "another-site"), 401, refused},
		{"no aud", without("aud"), 401, refused},
		{"aud with others and no azp", set("aud", []string{"site", "another-site"}), 401, refused},
		{"azp of another", lies{more: map[string]any{"aud": []string{"site", "another-site"}, "azp": "another-site"}}, 401, refused},
		{"wrong iss", set("iss", other.URL), 401, refused},
		{"iss with a slash", set("iss", p.URL+"/"), 401, refused},
		{"no iss", without("iss"), 401, refused},
		{"expired", set("exp", time.Now().Unix()-1), 401, refused},
		{"no exp", without("exp"), 401, refused},
		{"no sub", without("sub"), 401, refused},
		{"sub in another case", lies{claims: func(c map[string]any) { c["SUB"] = c["sub"]; delete(c, "sub") }}, 401, refused},
		{"at_hash of another access token", set("at_hash", halfHash("another")), 401, refused},
		{"at_hash empty", set("at_hash", ""), 401, refused},
		{"alg none", signed(func(c map[string]any) string { return unsigned(map[string]any{"alg": "none"}, c) + "." }), 401, refused},
		{"alg nOnE", signed(func(c map[string]any) string { return unsigned(map[string]any{"alg": "nOnE"}, c) + "." }), 401, refused},
		{"HS256 with the public key", signed(hs256("1", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))), 401, refused},
		{"HS256 with the client secret", signed(hs256("1", []byte("the-secret-of-the-site"))), 401, refused},
		{"HS256 with a key of the key set", signed(hs256("2", []byte(symmetricKey))), 401, refused},
		{"unsigned", signed(func(c map[string]any) string { return unsigned(map[string]any{"alg": "RS256", "kid": "1"}, c) + "." }), 401, refused},
		{"another key", signed(func(c map[string]any) string { return p.sign(c, fakeKeys()[1]) }), 401, refused},
		{"no ID token", lies{tokens: func(answer map[string]any) { delete(answer, "id_token") }}, 401, refused},
		{"not a token", signed(func(map[string]any) string { return "x" }), 401, refused},
		{"more claims than fit", set("full_name", strings.Repeat("x", 64<<10)), 401, refused},
		{"iat in the future", set("iat", time.Now().Add(time.Hour).Unix()), 401, refused},
		{"userinfo as a JWT for another client", lies{claims: func(c map[string]any) { delete(c, "email") }, userinfoToken: p.sign(map[string]any{"iss": p.URL, "aud": "another-site", "sub": "alice", "email": "alice@example.com", "email_verified": true}, p.key)}, 401, refused},
		{"userinfo as a JWT for nobody", lies{claims: func(c map[string]any) { delete(c, "email") }, userinfoToken: p.sign(map[string]any{"iss": p.URL, "sub": "alice", "email": "alice@example.com", "email_verified": true}, p.key)}, 401, refused},
		{"userinfo as a JWT of another issuer", lies{claims: func(c map[string]any) { delete(c, "email") }, userinfoToken: p.sign(map[string]any{"iss": other.URL, "aud": "site", "sub": "alice", "email": "alice@example.com", "email_verified": true}, p.key)}, 401, refused},
		{"userinfo of another issuer", lies{claims: func(c map[string]any) { delete(c, "email") }, userinfo: map[string]any{"iss": other.URL, "aud": "site", "sub": "alice", "email": "alice@example.com", "email_verified": true}}, 401, refused},
		{"userinfo of another user", lies{claims: func(c map[string]any) { delete(c, "email") }, userinfo: map[string]any{"sub": "mallory", "email": "alice@example.com", "email_verified": true}}, 401, refused},
		{"mix-up: iss of another provider", answered(func(v url.Values) { v.Set("iss", other.URL) }), 401, refused},
		{"mix-up: iss with a slash", answered(func(v url.Values) { v.Set("iss", p.URL+"/") }), 401, refused},
		{"mix-up: no iss though the provider sends it", answered(func(v url.Values) { v.Del("iss") }), 401, refused},
		{"mix-up: an error of another provider", answered(func(v url.Values) { v.Set("iss", other.URL); v.Del("code"); v.Set("error", "access_denied") }), 401, refused},
		{"no code", answered(func(v url.Values) { v.Del("code") }), 401, refused},
		{"a code of its own", answered(func(v url.Values) { v.Set("code", "x") }), 401, refused},
		{"two codes", answered(func(v url.Values) { v.Add("code", "x") }), 401, refused},
		{"two states", answered(func(v url.Values) { v.Add("state", "x") }), 401, refused},
		{"another state", answered(func(v url.Values) { v.Set("state", v.Get("state")+"x") }), 400, begun},
		{"no state", answered(func(v url.Values) { v.Del("state") }), 400, begun},
		{"invalid_client", lies{onToken: func(w http.ResponseWriter) bool {
			return writeJSON(w, 401, map[string]any{"error": "invalid_client"}) == nil
		}}, 401, refused},
		{"token endpoint down", lies{onToken: func(w http.ResponseWriter) bool { w.WriteHeader(500); return true }}, 503, "is temporarily unavailable"},
		{"token endpoint leads elsewhere", lies{onToken: func(w http.ResponseWriter) bool {
			w.Header().Set("Location", other.URL+"/token")
			w.WriteHeader(307)
			return true
		}}, 503, "is temporarily unavailable"},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s.t = t
			p.lie(lies{})
			good, bad := s.browser(), s.browser()
			good.mustBeIn(good.logInBy("fake"))
			p.lie(attack.lies)
			bad.mustBeOut(bad.logInBy("fake"), attack.status, attack.text)
		})
	}

	// What the attacker has of another browser, or of another log-in.
	for _, attack := range []struct {
		name string
		do   func(victim, attacker *browser) answer
		text string
	}{
		{"callback of another browser", func(victim, attacker *browser) answer {
			return victim.get(attacker.out("/auth/login/fake"))
		}, begun},
		{"code and state of another browser while one is under way", func(victim, attacker *browser) answer {
			victim.out("/auth/login/fake")
			return victim.get(attacker.out("/auth/login/fake"))
		}, begun},
		{"code of another browser with the state of this one", func(victim, attacker *browser) answer {
			stolen, _ := url.Parse(attacker.out("/auth/login/fake"))
			own, _ := url.Parse(victim.out("/auth/login/fake"))
			query := own.Query()
			query.Set("code", stolen.Query().Get("code")) // PKCE refuses it
			return victim.get(own.Path + "?" + query.Encode())
		}, refused},
		{"code of another browser, and a provider without PKCE", func(victim, attacker *browser) answer {
			stolen, _ := url.Parse(attacker.out("/auth/login/fake"))
			own, _ := url.Parse(victim.out("/auth/login/fake"))
			p.mu.Lock()
			code := p.codes[stolen.Query().Get("code")]
			code.challenge = p.codes[own.Query().Get("code")].challenge
			p.codes[stolen.Query().Get("code")] = code // the nonce is still the other's
			p.mu.Unlock()
			query := own.Query()
			query.Set("code", stolen.Query().Get("code"))
			return victim.get(own.Path + "?" + query.Encode())
		}, refused},
		{"mix-up: the answer comes to the callback of another provider", func(victim, _ *browser) answer {
			return victim.get(strings.Replace(victim.out("/auth/login/fake"), "/callback/fake", "/callback/other", 1))
		}, begun},
		{"replayed callback", func(victim, _ *browser) answer {
			back := victim.out("/auth/login/fake")
			victim.mustBeIn(victim.get(back))
			victim.post("/auth/logout", url.Values{})
			return victim.get(back)
		}, begun},
		{"replayed callback with its cookie", func(victim, _ *browser) answer {
			back := victim.out("/auth/login/fake")
			at, _ := url.Parse(victim.url)
			kept := victim.client.Jar.Cookies(at)
			victim.mustBeIn(victim.get(back))
			victim.post("/auth/logout", url.Values{})
			victim.client.Jar.SetCookies(at, kept)
			return victim.get(back)
		}, begun},
		{"callback out of nothing", func(victim, _ *browser) answer {
			return victim.get("/auth/callback/fake?code=x&state=x")
		}, begun},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s.t = t
			p.lie(lies{})
			good, bad := s.browser(), s.browser()
			good.mustBeIn(good.logInBy("fake"))
			status := map[string]int{begun: 400, refused: 401}[attack.text]
			bad.mustBeOut(attack.do(bad, s.browser()), status, attack.text)
		})
	}
	s.t = t
	if log := s.log(); strings.Contains(log, "the-secret-of-the-site") || strings.Contains(log, "SECRET-OF-THE-PROVIDER") || strings.Contains(log, p.last) || strings.Contains(log, "alice@example.com") {
		t.Error("the log has a secret, a token or an address")
	}
	if !strings.Contains(s.log(), "provider rejects this site's credentials") {
		t.Error("nobody is told that the client secret is wrong")
	}
}

// A log-in in a second tab counts, and an answer to the first, or one that another
// site sends, does not use it up.
func TestLoginWithInTwoTabs(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", ""))
	chrome := s.browser()
	first := chrome.out("/auth/login/fake")
	second := chrome.out("/auth/login/fake")
	for _, other := range []string{first, "/auth/callback/fake?state=evil"} {
		if got := chrome.get(other); got.status != 400 {
			t.Errorf("%s", got.brief())
		}
	}
	chrome.mustBeIn(chrome.get(second))
}

// A browser that logs in by a provider has one session: that of another user
// ends, and that of the same ends with the new one.
func TestLoginWithReplacesASession(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", ""))
	chrome := s.browser()
	chrome.do(http.MethodPost, "/auth/signup", url.Values{"email": {"bob@example.com"}, "password": {goodPassword}}).to(t)
	at, _ := url.Parse(s.url)
	hers := ""
	for _, cookie := range chrome.client.Jar.Cookies(at) {
		if cookie.Name == "session" {
			hers = cookie.Value
		}
	}
	bearer := func(token string) int {
		return s.browser().do(http.MethodGet, "/private", nil, "Authorization: Bearer "+token).status
	}
	if got := bearer(hers); got != 200 {
		t.Fatalf("control: %d", got)
	}
	chrome.mustBeIn(chrome.logInBy("fake"))
	if got := bearer(hers); got != 401 {
		t.Errorf("the session of somebody else goes on: %d", got)
	}
}

// A client's prompt=login and max_age are worth something with users whom another
// provider lets in: it is asked to have them log in anew, and must say that it
// did.
func TestLoginWithAsksAgain(t *testing.T) {
	p := newFakeProvider(t)
	s := chained(t, p)
	const notFresh = "requires a fresh log-in"
	login, maxAge0, anyAge := url.Values{"prompt": {"login"}}, url.Values{"max_age": {"0"}}, url.Values{"max_age": {"600"}}
	ago := func(d time.Duration) func() any { return func() any { return time.Now().Add(-d).Unix() } }
	for _, test := range []struct {
		name     string
		asked    url.Values
		authTime func() any // as the provider tells it
		wants    url.Values // of the provider
		refused  bool
		told     bool // whether the client is told an auth_time
	}{
		{"nothing is asked, nothing told", nil, nil, nil, false, false},
		{"nothing is asked, an old log-in told", nil, ago(time.Hour), nil, false, true},
		{"prompt=login, logged in anew", login, ago(0), url.Values{"prompt": {"login"}, "max_age": {"0"}}, false, true},
		{"prompt=login, logged in anew by a clock that is behind", login, ago(20 * time.Second), url.Values{"prompt": {"login"}, "max_age": {"0"}}, false, true},
		{"prompt=login, the old session", login, ago(time.Hour), url.Values{"prompt": {"login"}, "max_age": {"0"}}, true, false},
		{"prompt=login, nothing told", login, nil, url.Values{"prompt": {"login"}, "max_age": {"0"}}, true, false},
		{"prompt=login, told in words", login, func() any { return "now" }, url.Values{"prompt": {"login"}, "max_age": {"0"}}, true, false},
		{"max_age=0, the old session", maxAge0, ago(time.Hour), url.Values{"prompt": {"login"}, "max_age": {"0"}}, true, false},
		{"max_age=600, logged in before", anyAge, ago(5 * time.Minute), url.Values{"max_age": {"600"}}, false, true},
		{"max_age=600, logged in too long before", anyAge, ago(time.Hour), url.Values{"max_age": {"600"}}, true, false},
		{"max_age=600, nothing told", anyAge, nil, url.Values{"max_age": {"600"}}, true, false},
	} {
		for _, already := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, logged in already: %v", test.name, already), func(t *testing.T) {
				chrome := s.browser()
				if already { // a control too: without a question the provider need not say anything
					p.lie(lies{})
					chrome.mustBeIn(chrome.logInBy("fake"))
				}
				told := lies{}
				if test.authTime != nil {
					told.more = map[string]any{"auth_time": test.authTime()}
				}
				p.lie(told)
				location := chrome.get(chrome.authorizeURL("spa", test.asked)).to(t)
				if location.Path == "/auth/login" {
					out := chrome.get("/auth/login/fake?" + url.Values{"return_to": {location.Query().Get("return_to")}}.Encode()).to(t)
					for _, name := range []string{"prompt", "max_age"} {
						if got := out.Query().Get(name); got != test.wants.Get(name) {
							t.Errorf("the provider is asked for %s %q, not %q", name, got, test.wants.Get(name))
						}
					}
					back := chrome.get(chrome.get(out.String()).to(t).String())
					if test.refused {
						if back.status != 401 || !strings.Contains(back.body, notFresh) {
							t.Errorf("got %s", back.brief())
						}
						// Nor is there a way round by a log-in that asks nothing.
						chrome.get(chrome.out("/auth/login/fake"))
						if again := chrome.get(location.Query().Get("return_to")).to(t); again.Path != "/auth/login" {
							t.Errorf("a log-in for something else will do: %s", again)
						}
						return
					}
					location = chrome.get(back.to(t).String()).to(t)
				} else if test.asked != nil || !already {
					t.Fatalf("no log-in: %s", location)
				}
				tokens := chrome.redeem("spa", location.Query().Get("code")).json(t)
				claims := claimsOf(t, tokens["id_token"].(string))
				if _, told := claims["auth_time"]; told != (test.told && !(already && test.asked == nil)) {
					t.Errorf("auth_time is %v", claims["auth_time"])
				}
				if claims["amr"] != nil || claims["acr"] != nil {
					t.Errorf("it claims a password: %v", claims)
				}
			})
		}
	}
}

// A secret with braces in it is in no error.
func TestLoginWithSecretIsInNoError(t *testing.T) {
	l := &login.Login{Name: "fake", Issuer: "https://id.example.com", ClientID: "site", ClientSecret: "abc{def}ghi"}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	if err := l.Provision(ctx); err == nil || strings.Contains(err.Error(), "def") || !strings.Contains(err.Error(), "client_secret: it has a placeholder without a value") {
		t.Errorf("error %v", err)
	}
}

// Who was disconnected logs in by the provider no more, before the account's own
// log-in connects it again.
func TestLoginWithDisconnected(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", ""))
	command := func(args ...string) string {
		t.Helper()
		output, err := exec.Command(caddytest.Binary(t), append([]string{"jwt", "user", "--store", filepath.Join(s.dir, "users.db")}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v %s", args, err, output)
		}
		return string(output)
	}
	chrome := s.browser()
	id := chrome.mustBeIn(chrome.logInBy("fake"))
	for i, told := range []string{"disconnected from 1", "disconnected from 0"} {
		if got := command("disconnect", id); !strings.Contains(got, told) {
			t.Errorf("%d: %s", i, got)
		}
	}
	s.browser().mustBeOut(s.browser().logInBy("fake"), 409, "An account with this e-mail address already exists")
	// It has no password, so nobody can say that it is theirs, until the operator
	// lets them.
	reset := regexp.MustCompile(`/auth/reset[^\s"]*`).FindString(command("reset-link", "--base", s.url, id))
	opener := s.browser()
	if got := opener.get(opener.get(reset).to(t).String()); got.status != 200 {
		t.Fatalf("control: %d %s", got.status, got.body)
	}
	token, _ := url.Parse(reset)
	if got := s.browser().post("/auth/reset", url.Values{"token": {token.Query().Get("token")}, "password": {goodPassword}, "newPassword": {goodPassword}}); got.status >= 400 {
		t.Fatalf("a new password: %d %s", got.status, got.body)
	}
	again := s.browser()
	again.mustBeOut(again.logInBy("fake"), 409, "An account with this e-mail address already exists")
	if got := again.decideOffer(again.post("/auth/login", url.Values{"email": {"alice@example.com"}, "password": {goodPassword}}), "yes", ""); got.status != 303 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	other := s.browser()
	if got := other.mustBeIn(other.logInBy("fake")); got != id {
		t.Errorf("connected again, it is %s and not %s", got, id)
	}

	// Nor does it come back by way of somebody who had it meanwhile.
	command("disconnect", id)
	bob := s.browser()
	bob.signUp("bob@example.com")
	bob.decideOffer(bob.get(bob.get(bob.connectLink("fake")).to(t).String()), "yes", "").to(t)
	if got := s.browser(); got.mustBeIn(got.logInBy("fake")) == id {
		t.Error("control: it is not that of who connected it")
	}
	command("delete", "--yes", "bob@example.com")
	s.browser().mustBeOut(s.browser().logInBy("fake"), 409, "An account with this e-mail address already exists")
}

// The cookie of a log-in under way, and where it leads.
func TestLoginWithRequest(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", "label \"Fake & Sons\"\n scopes email groups"))
	chrome := s.browser()
	page := chrome.get("/auth/login?return_to=/private/x")
	if !strings.Contains(page.body, `href="/auth/login/fake?return_to=%2fprivate%2fx">Fake &amp; Sons</a>`) {
		t.Errorf("no button: %s", page.body)
	}
	got := chrome.get("/auth/login/fake")
	to := got.to(t)
	query := to.Query()
	if !strings.HasPrefix(to.String(), p.URL+"/authorize?") || query.Get("scope") != "openid email groups" || query.Get("redirect_uri") != s.url+"/auth/callback/fake" || query.Get("code_challenge_method") != "S256" {
		t.Errorf("it leads to %s", to)
	}
	cookies := got.header.Values("Set-Cookie")
	if len(cookies) != 1 || !strings.HasPrefix(cookies[0], "login=") || !strings.Contains(cookies[0], "HttpOnly") || !strings.Contains(cookies[0], "SameSite=Lax") || !strings.Contains(cookies[0], "Path=/;") {
		t.Errorf("cookies %q", cookies)
	}
	behind := chrome.do(http.MethodGet, "/auth/login/fake", nil, "X-Forwarded-Proto: https")
	if cookie := behind.header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "__Host-login=") || !strings.Contains(cookie, "Secure") || !strings.HasPrefix(behind.to(t).Query().Get("redirect_uri"), "https://127.0.0.1:") {
		t.Errorf("behind a proxy: %s, %v", cookie, behind.to(t))
	}
	other := chrome.get("/auth/login/fake").to(t).Query()
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if query.Get(name) == other.Get(name) {
			t.Errorf("%s is the same twice", name)
		}
	}
	if got := chrome.do(http.MethodGet, "/auth/login/fake?return_to=/private", nil, "Sec-Fetch-Site: cross-site"); got.to(t).String() != "/auth/login?return_to=%2Fprivate" || got.header.Get("Set-Cookie") != "" {
		t.Errorf("a page of another site begins it: %v", got.header)
	}
	for _, path := range []string{"//evil.example", `/\evil.example`, "https://evil.example", "/%09/evil.example"} {
		back := chrome.get(chrome.out("/auth/login/fake?return_to=" + url.QueryEscape(path)))
		chrome.mustBeIn(back)
		if to := back.to(t).String(); to != "/auth/account" {
			t.Errorf("return to %q leads to %s", path, to)
		}
	}
	// A name that there is none of is no way past jwt.
	for path, status := range map[string]int{"/auth/login/none": 404, "/auth/callback/none": 404, "/auth/login/fake/x": 200, "/AUTH/LOGIN/fake": 303} {
		if got := s.browser().get(path); got.status != status {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if got := chrome.do(http.MethodHead, "/auth/callback/fake", nil); got.status != 405 {
		t.Errorf("HEAD: %d", got.status)
	}
}

// Below a path that Caddy takes off, and with the redirect URI of the config.
func TestLoginWithBelowAPath(t *testing.T) {
	p := newFakeProvider(t)
	s := newLoginSite(t)
	below := strings.Replace(s.caddyfile(p.option("fake", "")), "\tjwt", "\thandle_path /app/* {\n\tjwt", 1)
	run(t, s.logFile, strings.Replace(below, "\trespond", "}\n\trespond", 1))
	chrome := s.browser()
	if page := chrome.get("/app/auth/login"); !strings.Contains(page.body, `href="/app/auth/login/fake"`) {
		t.Errorf("log-in page: %s", page.body)
	}
	out := chrome.out("/app/auth/login/fake")
	if !strings.HasPrefix(out, s.url+"/app/auth/callback/fake?") {
		t.Errorf("back at %s", out)
	}
	if got := chrome.get(out); got.header.Get("Location") != "/app/auth/account" {
		t.Errorf("it leads to %s", got.brief())
	}
	proxied := loginSite(t, p.option("fake", "redirect_uri https://site.example/x/auth/callback/fake"))
	if got := proxied.browser().get("/auth/login/fake").to(t).Query().Get("redirect_uri"); got != "https://site.example/x/auth/callback/fake" {
		t.Errorf("redirect_uri %s", got)
	}
}

// Whoever begins log-ins without an end fills the store no faster than this.
func TestLoginWithIsThrottled(t *testing.T) {
	p := newFakeProvider(t)
	s := newLoginSite(t)
	run(t, s.logFile, strings.Replace(s.caddyfile(p.option("fake", "")), "throttle off", "", 1))
	chrome := s.browser()
	const most = 30
	for i := range 3 * most { // time gives some back meanwhile
		got := chrome.get("/auth/login/fake")
		if got.status == 303 {
			continue
		}
		if i < most || got.status != 429 || got.header.Get("Retry-After") == "" {
			t.Errorf("after %d: %s", i, got.brief())
		}
		return
	}
	t.Errorf("%d are not refused", 3*most)
}

// chained is a provider that has its users from another one.
func chained(t testing.TB, p *fakeProvider) *site {
	t.Helper()
	s := newLoginSite(t)
	run(t, s.logFile, fmt.Sprintf(`%s {
	oidc_provider {
		issuer %[1]s
		accounts {
			signup open
			store file %[2]s
			throttle off
			%[3]s
		}
		client spa {
			public
			redirect_uri %[4]s
			consent never
		}
	}
}`, s.url, filepath.Join(s.dir, "users.db"), p.option("fake", ""), spaCallback))
	return s
}

// A provider may itself have its users from another one.
func TestLoginWithInAChain(t *testing.T) {
	s := chained(t, newFakeProvider(t))
	chrome := s.browser()
	login := chrome.get(chrome.get(s.authorizeURL("spa", nil)).to(t).String())
	button := regexp.MustCompile(`href="(/auth/login/fake[^"]*)"`).FindStringSubmatch(login.body)
	if button == nil {
		t.Fatal(login.brief())
	}
	back := chrome.get(chrome.out(html.UnescapeString(button[1]))).to(t).String()
	if to := chrome.goOn(back); !strings.HasPrefix(to.String(), spaCallback) || to.Query().Get("code") == "" {
		t.Errorf("back at %s", to)
	}
}

// Whose account it is.
func TestLoginWithAccounts(t *testing.T) {
	p, other := newFakeProvider(t), newFakeProvider(t)
	s := loginSite(t, "default_roles member\n"+p.option("fake", "map_claim person.name name")+other.option("other", "trust_email"))
	users := s.store()
	userOf := func(email string) store.User {
		t.Helper()
		user, err := users.UserByEmail(t.Context(), email)
		if err != nil {
			t.Fatal(email, err)
		}
		return user
	}

	t.Run("a new user", func(t *testing.T) {
		p.lie(lies{subject: "new", email: "new@example.com", more: map[string]any{"person": map[string]any{"name": "New"}, "roles": []string{"admin"}}})
		chrome := s.browser()
		id := chrome.mustBeIn(chrome.logInBy("fake"))
		user := userOf("new@example.com")
		if user.ID != id || user.PasswordHash != "" || user.Profile["name"] != "New" || strings.Join(user.Roles, " ") != "member" {
			t.Errorf("user %+v", user)
		}
		if page := chrome.get("/auth/account"); strings.Contains(page.body, "Change your password") || !strings.Contains(page.body, "Connect other") || !strings.Contains(page.body, "<dt>fake</dt><dd>new@example.com</dd>") {
			t.Errorf("account page: %s", page.body)
		}
		if got := s.browser().post("/auth/login", url.Values{"email": {"new@example.com"}, "password": {goodPassword}}); got.status != 401 {
			t.Errorf("a password: %d", got.status)
		}
	})

	t.Run("userinfo as a JWT", func(t *testing.T) {
		s.t = t
		// What the ID token alone says is not taken from it.
		p.lie(lies{subject: "signed", claims: func(c map[string]any) { delete(c, "email"); delete(c, "sid") },
			userinfoToken: p.sign(map[string]any{"iss": p.URL, "aud": []string{"site", "others"}, "sub": "signed", "email": "signed@example.com", "email_verified": true, "sid": "of userinfo", "auth_time": 1}, p.key)})
		chrome := s.browser()
		chrome.mustBeIn(chrome.logInBy("fake"))
		now := time.Now().Unix()
		token := p.sign(map[string]any{"iss": p.URL, "aud": "site", "sid": "of userinfo", "iat": now, "exp": now + 60, "jti": store.RandomToken(32), "events": map[string]any{protocol.LogoutEvent: map[string]any{}}}, p.key)
		s.browser().post("/auth/backchannel/fake", url.Values{"logout_token": {token}})
		if got := chrome.get("/auth/whoami"); got.status != 200 {
			t.Errorf("the session is that of userinfo: %d", got.status)
		}
	})
	t.Run("claims of userinfo", func(t *testing.T) {
		p.lie(lies{subject: "info", email: "x", claims: func(c map[string]any) { delete(c, "email"); delete(c, "email_verified") },
			userinfo: map[string]any{"sub": "info", "email": "info@example.com", "email_verified": "true", "person": map[string]any{"name": "Info", "nonce": 1}}})
		chrome := s.browser()
		chrome.mustBeIn(chrome.logInBy("fake"))
		if user := userOf("info@example.com"); user.Profile["name"] != "Info" {
			t.Errorf("user %+v", user)
		}
	})

	t.Run("many at once make one user", func(t *testing.T) {
		p.lie(lies{subject: "many", email: "many@example.com"})
		var all sync.WaitGroup
		ids := make(chan string, 8)
		for range cap(ids) {
			all.Go(func() {
				chrome := s.browser()
				if got := chrome.logInBy("fake"); got.status != 303 {
					t.Error(got.brief())
				}
				ids <- chrome.do(http.MethodGet, "/auth/whoami", nil, "Accept: text/plain").body
			})
		}
		all.Wait()
		close(ids)
		for id := range ids {
			if id != userOf("many@example.com").ID {
				t.Errorf("user %s", id)
			}
		}
	})

	t.Run("the same sub at another issuer is somebody else", func(t *testing.T) {
		p.lie(lies{subject: "same", email: "same@example.com"})
		other.lie(lies{subject: "same", email: "other@example.com"})
		one, two := s.browser(), s.browser()
		if one.mustBeIn(one.logInBy("fake")) == two.mustBeIn(two.logInBy("other")) {
			t.Error("it is one user")
		}
	})

	t.Run("an address that is not verified", func(t *testing.T) {
		p.lie(lies{subject: "unverified", email: "unverified@example.com", unverified: true})
		chrome := s.browser()
		chrome.mustBeOut(chrome.logInBy("fake"), 403, "has not verified your e-mail address")
		other.lie(lies{subject: "unverified", email: "unverified@example.com", unverified: true}) // trusted by the config
		chrome.mustBeIn(chrome.logInBy("other"))
	})

	t.Run("no address, and none that is one", func(t *testing.T) {
		for _, email := range []string{"", "nobody", "a@example.com\r\nBcc: b@example.com"} {
			other.lie(lies{subject: "no address", email: email})
			chrome := s.browser()
			chrome.mustBeOut(chrome.logInBy("other"), 403, "has not verified your e-mail address")
		}
	})

	t.Run("an account with the address", func(t *testing.T) {
		const exists = "Log in to it with its password"
		s.browser().signUp("bob@example.com")
		s.browser().signUp("carol@example.com")
		bob := userOf("bob@example.com")
		p.lie(lies{subject: "bob", email: "BOB@example.com"})
		logIn := func(b *browser, email, password string) answer {
			return b.post("/auth/login", url.Values{"email": {email}, "password": {password}})
		}
		for name, do := range map[string]func(b *browser){
			"nothing":         func(*browser) {},
			"another browser": func(*browser) { logIn(s.browser(), "bob@example.com", goodPassword) },
			"another account": func(b *browser) {
				logIn(b, "carol@example.com", goodPassword)
				logIn(b, "bob@example.com", goodPassword)
			},
			"a wrong password":          func(b *browser) { logIn(b, "bob@example.com", "wrong password") },
			"a log-in by the provider":  func(b *browser) { b.logInBy("fake") },
			"a cookie of another's own": func(b *browser) { s.browser().logInBy("fake"); logIn(s.browser(), "bob@example.com", goodPassword) },
		} {
			chrome := s.browser()
			chrome.mustBeOut(chrome.logInBy("fake"), 409, exists)
			do(chrome)
			later := s.browser()
			if got := later.logInBy("fake"); got.status != 409 {
				t.Errorf("after %s: connected: %d %s", name, got.status, got.body)
			}
		}
		chrome := s.browser()
		chrome.mustBeOut(chrome.logInBy("fake"), 409, exists)
		logIn(chrome, "bob@example.com", "wrong password")
		if got := chrome.decideOffer(logIn(chrome, "bob@example.com", goodPassword), "yes", ""); got.status != 303 {
			t.Fatalf("connecting: %s", got.brief())
		}
		later := s.browser()
		if id := later.mustBeIn(later.logInBy("fake")); id != bob.ID {
			t.Errorf("the provider's user is %s and not %s", id, bob.ID)
		}
		if page := later.get("/auth/account").body; !strings.Contains(page, "<dt>fake</dt><dd>BOB@example.com</dd>") {
			t.Errorf("account page: %s", page)
		}
	})

	t.Run("connected on the account page", func(t *testing.T) {
		dave, erin := s.browser(), s.browser()
		dave.signUp("dave@example.com")
		erin.signUp("erin@example.com")
		p.lie(lies{subject: "dave", email: "dave@work.example", unverified: true})
		connect := func(b *browser) answer {
			t.Helper()
			return b.get(b.get(b.connectLink("fake")).to(t).String())
		}
		for _, header := range []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"} {
			if got := dave.post("/auth/login/fake", url.Values{}, header); got.status != 403 {
				t.Errorf("%s: %d", header, got.status)
			}
		}
		if got := s.browser().post("/auth/login/fake", url.Values{}); got.status != 401 {
			t.Errorf("nobody connects: %d", got.status)
		}
		if to := dave.decideOffer(connect(dave), "yes", "").to(t).String(); to != "/auth/account" {
			t.Errorf("it leads to %s", to)
		}
		if to := connect(dave).to(t).String(); to != "/auth/account" { // again is no harm
			t.Errorf("again leads to %s", to)
		}
		chrome := s.browser()
		if id := chrome.mustBeIn(chrome.logInBy("fake")); id != userOf("dave@example.com").ID {
			t.Errorf("user %s", id)
		}
		if got := connect(erin); got.status != 409 || !strings.Contains(got.body, "already connected to another account here") {
			t.Errorf("to a second account: %d %s", got.status, got.body)
		}
		// A session that ended meanwhile connects nothing.
		p.lie(lies{subject: "erin", email: "erin@work.example"})
		back := erin.get(erin.connectLink("fake")).to(t).String()
		erin.post("/auth/logout", url.Values{})
		erin.post("/auth/login", url.Values{"email": {"carol@example.com"}, "password": {goodPassword}})
		if got := erin.get(back); got.status != 400 {
			t.Errorf("another session: %d %s", got.status, got.body)
		}
		if records, err := users.Records(t.Context(), "external identity", userOf("carol@example.com").ID, time.Now()); err != nil || len(records) != 0 {
			t.Errorf("connected: %v %v", records, err)
		}
	})

	t.Run("a disabled user", func(t *testing.T) {
		p.lie(lies{subject: "frank", email: "frank@example.com"})
		chrome := s.browser()
		id := chrome.mustBeIn(chrome.logInBy("fake"))
		if _, err := users.UpdateUser(t.Context(), id, time.Now(), func(u *store.User) error { u.Disabled = true; return nil }); err != nil {
			t.Fatal(err)
		}
		chrome = s.browser()
		chrome.mustBeOut(chrome.logInBy("fake"), 403, "This account is disabled.")
	})

	t.Run("a deleted user is a new one", func(t *testing.T) {
		p.lie(lies{subject: "grace", email: "grace@example.com"})
		chrome := s.browser()
		if err := users.DeleteUser(t.Context(), chrome.mustBeIn(chrome.logInBy("fake")), time.Now()); err != nil {
			t.Fatal(err)
		}
		chrome = s.browser()
		chrome.mustBeIn(chrome.logInBy("fake"))
	})
}

func TestLoginWithSignupClosed(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, "signup closed\n"+p.option("fake", ""))
	chrome := s.browser()
	chrome.mustBeOut(chrome.logInBy("fake"), 403, "sign-up is closed")
	now := time.Now()
	if err := s.store().CreateUser(t.Context(), store.User{ID: "1", Email: "alice@example.com", EmailKey: "alice@example.com", CreatedAt: now, UpdatedAt: now}); err != nil {
		t.Fatal(err)
	}
	chrome.mustBeOut(chrome.logInBy("fake"), 409, "Log in to it with its password")
}

// What the provider says of a failure is not shown.
func TestLoginWithErrorsOfTheProvider(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", ""))
	for code, expected := range map[string]struct {
		status int
		text   string
	}{
		"access_denied":           {401, "did not log you in"},
		"temporarily_unavailable": {503, "is temporarily unavailable"},
		"<script>":                {401, "is not valid"},
	} {
		p.lie(lies{answer: func(values url.Values) {
			values.Del("code")
			values.Set("error", code)
			values.Set("error_description", "<b>call this number</b>")
		}})
		chrome := s.browser()
		got := chrome.get(chrome.out("/auth/login/fake?return_to=/private"))
		chrome.mustBeOut(got, expected.status, expected.text)
		if strings.Contains(got.body, "call this number") || strings.Contains(got.body, "<script>") || !strings.Contains(got.body, `name="return_to" value="/private"`) {
			t.Errorf("%s: page %s", code, got.body)
		}
		if (expected.status == 503) != (got.header.Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After %q", code, got.header.Get("Retry-After"))
		}
	}
}

// A provider that is down when Caddy starts holds up its own button alone, and
// is looked up when it is back. A reload looks nothing up again.
func TestLoginWithOutage(t *testing.T) {
	p := newFakeProvider(t)
	p.down.Store(true)
	s := loginSite(t, p.option("fake", ""))
	if p.lookUps.Load() != 0 {
		t.Error("it is looked up before anybody wants to log in")
	}
	chrome := s.browser()
	got := chrome.get("/auth/login/fake?return_to=/private")
	if got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "is temporarily unavailable") || !strings.Contains(got.body, `name="return_to" value="/private"`) {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
	chrome.signUp("alice@example.com")
	if got := chrome.get("/private/x"); got.status != 200 {
		t.Errorf("everything else: %d", got.status)
	}
	if got := chrome.post("/auth/backchannel/fake", url.Values{"logout_token": {"x"}}); got.status != 503 {
		t.Errorf("log-out token: %d", got.status)
	}
	p.lie(lies{subject: "bob", email: "bob@example.com"})
	p.down.Store(false)
	sitetest.Eventually(t, "the provider is looked up again", func() bool { return chrome.get("/auth/login/fake").status == 303 })
	chrome = s.browser()
	chrome.mustBeIn(chrome.logInBy("fake"))
	if log := s.log(); strings.Count(log, "provider discovery fails") != 1 || !strings.Contains(log, "provider discovery works again") {
		t.Error("the log does not tell of the outage once, and of its end")
	}
	before, keys := p.lookUps.Load(), p.keyFetches.Load()
	run(t, s.logFile, s.caddyfile("signup_limit 100\n"+p.option("fake", "")))
	chrome = s.browser()
	chrome.mustBeIn(chrome.logInBy("fake"))
	if p.lookUps.Load() != before || p.keyFetches.Load() != keys {
		t.Errorf("after a reload: %d look-ups and %d fetches of keys more", p.lookUps.Load()-before, p.keyFetches.Load()-keys)
	}
	p.down.Store(true) // what is known is used on: the browser goes out, and comes back to a page
	if got := s.browser().get("/auth/login/fake"); got.status != 303 {
		t.Errorf("down later: %d", got.status)
	}
}

// Log-out tokens that are not the provider's, or not for this, or not for now.
func TestLoginWithBackchannelLogout(t *testing.T) {
	p, other := newFakeProvider(t), newFakeProvider(t)
	s := loginSite(t, p.option("fake", "")+other.option("other", ""))
	good := func() map[string]any {
		now := time.Now().Unix()
		return map[string]any{"iss": p.URL, "aud": "site", "sub": "alice", "sid": "session of alice", "iat": now, "exp": now + 60, "jti": store.RandomToken(32), "events": map[string]any{protocol.LogoutEvent: map[string]any{}}}
	}
	tell := func(token string) answer {
		return s.browser().post("/auth/backchannel/fake", url.Values{"logout_token": {token}})
	}
	change := func(f func(map[string]any)) func() string {
		return func() string {
			claims := good()
			f(claims)
			return p.sign(claims, p.key)
		}
	}
	set := func(name string, value any) func() string {
		return change(func(c map[string]any) { c[name] = value })
	}
	without := func(name string) func() string {
		return change(func(c map[string]any) { delete(c, name) })
	}
	used := p.sign(good(), p.key)
	for _, attack := range []struct {
		name  string
		token func() string
	}{
		{"wrong key", func() string { return p.sign(good(), fakeKeys()[1]) }},
		{"alg none", func() string { return unsigned(map[string]any{"alg": "none"}, good()) + "." }},
		{"unsigned", func() string { return unsigned(map[string]any{"alg": "RS256", "kid": "1"}, good()) + "." }},
		{"HS256", func() string { return unsigned(map[string]any{"alg": "HS256", "kid": "1"}, good()) + ".AAAA" }},
		{"wrong aud", set("aud", "another-site")},
		{"no aud", without("aud")},
		{"wrong iss", set("iss", other.URL)},
		{"no iss", without("iss")},
		{"with nonce", set("nonce", "x")},
		{"with nonce null", set("nonce", nil)},
		{"an ID token", func() string { p.mu.Lock(); defer p.mu.Unlock(); return p.last }},
		{"no events", without("events")},
		{"other events", set("events", map[string]any{"http://schemas.openid.net/event/other": map[string]any{}})},
		{"event null", set("events", map[string]any{protocol.LogoutEvent: nil})},
		{"events in another case", change(func(c map[string]any) { c["Events"] = c["events"]; delete(c, "events") })},
		{"expired", set("exp", time.Now().Unix()-1)},
		{"no exp", without("exp")},
		{"no iat", without("iat")},
		{"iat in the future", set("iat", time.Now().Unix()+3600)},
		{"no jti", without("jti")},
		{"typ at+jwt", func() string {
			return signedWith(map[string]any{"alg": "RS256", "kid": "1", "typ": "at+jwt"}, good(), p.key)
		}},
		{"typ application/at+jwt", func() string {
			return signedWith(map[string]any{"alg": "RS256", "kid": "1", "typ": "application/AT+JWT"}, good(), p.key)
		}},
		{"typ that is no text", func() string { return signedWith(map[string]any{"alg": "RS256", "kid": "1", "typ": 1}, good(), p.key) }},
		{"iat a year ago", set("iat", time.Now().AddDate(-1, 0, 0).Unix())},
		{"exp in ten years", set("exp", time.Now().AddDate(10, 0, 0).Unix())},
		{"exp in two hours", set("exp", time.Now().Add(2*time.Hour).Unix())},
		{"neither sub nor sid", change(func(c map[string]any) { delete(c, "sub"); delete(c, "sid") })},
		{"replayed jti", func() string { return used }},
		{"empty", func() string { return "" }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s.t = t
			if attack.name == "replayed jti" {
				if got := tell(used); got.status != 200 {
					t.Fatalf("the first time: %d %s", got.status, got.body)
				}
			}
			chrome := s.browser()
			chrome.mustBeIn(chrome.logInBy("fake"))
			if got := tell(attack.token()); got.status != 400 || got.header.Get("Cache-Control") != "no-store" || !strings.Contains(got.body, "invalid_request") {
				t.Errorf("%d %v %s", got.status, got.header, got.body)
			}
			if got := chrome.get("/auth/whoami"); got.status != 200 {
				t.Errorf("the session has ended: %d", got.status)
			}
			if got := tell(p.sign(good(), p.key)); got.status != 200 || got.header.Get("Cache-Control") != "no-store" || got.body != "" {
				t.Errorf("a good one: %d %v %s", got.status, got.header, got.body)
			}
			if got := chrome.get("/auth/whoami"); got.status != 401 {
				t.Errorf("the session goes on after a good one: %d", got.status)
			}
		})
	}
	s.t = t

	for _, header := range []map[string]any{{"alg": "RS256", "kid": "1"}, {"alg": "RS256", "kid": "1", "typ": "logout+jwt"}, {"alg": "RS256", "kid": "1", "typ": "application/logout+jwt"}} { // the controls
		if got := tell(signedWith(header, good(), p.key)); got.status != 200 {
			t.Errorf("%v: %d %s", header, got.status, got.body)
		}
	}

	// Which sessions end: those of the provider's session, or of its user.
	bySID, bySub := good(), good()
	delete(bySID, "sub")
	delete(bySub, "sid")
	for name, token := range map[string]map[string]any{"by sid": bySID, "by sub": bySub, "by both": good()} {
		p.lie(lies{})
		alice, bob, local := s.browser(), s.browser(), s.browser()
		alice.mustBeIn(alice.logInBy("fake"))
		p.lie(lies{subject: "bob", email: "bob@example.com"})
		bob.mustBeIn(bob.logInBy("fake"))
		local.signUp(strings.ReplaceAll(name, " ", "-") + "@example.com")
		if got := tell(p.sign(token, p.key)); got.status != 200 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		for who, expected := range map[*browser]int{alice: 401, bob: 200, local: 200} {
			if got := who.get("/auth/whoami"); got.status != expected {
				t.Errorf("%s: %d, expected %d", name, got.status, expected)
			}
		}
	}
	p.lie(lies{})
	alice := s.browser()
	alice.mustBeIn(alice.logInBy("fake"))
	mixed := good()
	mixed["sub"] = "bob"
	tell(p.sign(mixed, p.key))
	if got := alice.get("/auth/whoami"); got.status != 200 {
		t.Errorf("a sid with another's sub ends it: %d", got.status)
	}
	stranger := other.sign(good(), other.key)
	if got := s.browser().post("/auth/backchannel/other", url.Values{"logout_token": {stranger}}); got.status != 400 {
		t.Errorf("another provider speaks for this one: %d", got.status)
	}

	// Unknown keys are fetched for once in a while.
	before := p.keyFetches.Load()
	for i := range 50 {
		token := unsigned(map[string]any{"alg": "RS256", "kid": fmt.Sprint("unknown ", i)}, good()) + "." + b64(make([]byte, 256))
		if got := tell(token); got.status != 400 {
			t.Error(got.brief())
		}
	}
	if more := p.keyFetches.Load() - before; more > 1 {
		t.Errorf("50 unknown keys are %d fetches", more)
	}
	for name, got := range map[string]answer{
		"GET":          s.browser().get("/auth/backchannel/fake"),
		"another page": s.browser().post("/auth/backchannel/fake", url.Values{"logout_token": {p.sign(good(), p.key)}}, "Sec-Fetch-Site: cross-site"),
		"two tokens":   s.browser().post("/auth/backchannel/fake", url.Values{"logout_token": {p.sign(good(), p.key), "x"}}),
		"none":         s.browser().post("/auth/backchannel/fake", url.Values{}),
	} {
		if got.status < 400 || got.status >= 500 {
			t.Errorf("%s: %d", name, got.status)
		}
	}
	if got := alice.get("/auth/whoami"); got.status != 200 {
		t.Errorf("the session has ended: %d", got.status)
	}
}

// A fault of the provider that log-ins meet is said once, and when they work again.
func TestLoginOutageIsSaidOnce(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", ""))
	first := s.browser()
	first.mustBeIn(first.logInBy("fake"))
	for _, fault := range []struct {
		status int
		body   map[string]any
		says   string
	}{{500, nil, "log-ins at the provider fail"}, {401, map[string]any{"error": "invalid_client"}, "provider rejects this site's credentials"}} {
		p.lie(lies{onToken: func(w http.ResponseWriter) bool { return writeJSON(w, fault.status, fault.body) == nil }})
		for range 5 {
			if got := s.browser().logInBy("fake"); got.status < 400 {
				t.Errorf("control: %d", got.status)
			}
		}
		if got := strings.Count(s.log(), fault.says); got != 1 {
			t.Errorf("%q is said %d times", fault.says, got)
		}
		ends := strings.Count(s.log(), "log-ins at the provider work again")
		p.lie(lies{})
		chrome := s.browser()
		chrome.mustBeIn(chrome.logInBy("fake"))
		if got := strings.Count(s.log(), "log-ins at the provider work again") - ends; got != 1 {
			t.Errorf("the end of %q is said %d times", fault.says, got)
		}
	}
}
