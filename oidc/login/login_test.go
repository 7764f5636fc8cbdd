package login_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/oidc/login"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
)

// site is a Caddy with accounts.
type site struct {
	*sitetest.Site
	dir string // of the store
}

// store opens the site's store.
func (s *site) store() store.UserStore {
	s.T.Helper()
	return accountstest.OpenUsers(s.T, filepath.Join(s.dir, "users.db"))
}

// newLoginSite returns a site with another host than its providers, because cookies do not depend
// on the port.
func newLoginSite(t testing.TB) *site {
	t.Helper()
	return &site{Site: &sitetest.Site{
		T: t, URL: "http://127.0.0.1:" + sitetest.FreePort(t), LogFile: filepath.Join(t.TempDir(), "log.json"),
	}, dir: t.TempDir()}
}

// caddyfile returns the site's Caddyfile with options of its accounts.
func (s *site) caddyfile(accounts string) string {
	if !strings.Contains(accounts, "signup ") {
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
`, s.URL, filepath.Join(s.dir, "users.db"), accounts)
}

// loginSite runs a site whose users may log in with these providers.
func loginSite(t testing.TB, accounts string) *site {
	t.Helper()
	s := newLoginSite(t)
	sitetest.RunSites(t, s.LogFile, s.caddyfile(accounts))
	return s
}

var nextLink = regexp.MustCompile(`<a class="button" href="([^"]+)">Continue to`)

// connectLink starts, on the account page, to connect a user of a provider.
func connectLink(b *sitetest.Visitor, name string) string {
	b.T.Helper()
	page := b.Post("/auth/login/"+name, url.Values{})
	found := nextLink.FindStringSubmatch(page.Body)
	if page.Status != 200 || found == nil {
		b.T.Fatal(page.Brief())
	}
	return html.UnescapeString(found[1])
}

var offered = regexp.MustCompile(`name="offer" value="([^"]*)"`)

// decideOffer answers the question to which the browser is redirected.
func decideOffer(b *sitetest.Visitor, got sitetest.Reply, decision, password string) sitetest.Reply {
	b.T.Helper()
	if to := got.To(b.T).String(); to != "/auth/connect" {
		b.T.Fatalf("it leads to %s", to)
	}
	page := b.Get("/auth/connect")
	found := offered.FindStringSubmatch(page.Body)
	if page.Status != 200 || found == nil {
		b.T.Fatal(page.Brief())
	}
	return b.Post("/auth/connect", url.Values{
		"offer": {found[1]}, "decision": {decision}, "currentPassword": {password},
	})
}

// The site's users log in with this repository's provider in the same Caddy, which does not run yet
// when the site starts. The provider also ends their sessions.
func TestLoginWithOwnProvider(t *testing.T) {
	app := newLoginSite(t)
	id := &site{
		Site: &sitetest.Site{T: t, URL: "http://" + sitetest.FreeLocalhost(t), LogFile: app.LogFile}, dir: t.TempDir(),
	}
	sitetest.RunSites(t, app.LogFile, app.caddyfile(`login_with home {
		label "Home"
		issuer `+id.URL+`
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
}`, id.URL, id.URL, filepath.Join(id.dir, "users.db"), app.URL))
	there := id.Visitor()
	here := there.At(app.Site) // the same browser at the other site
	there.Do(http.MethodPost, "/auth/signup", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}, "name": {"Alice A."},
	}).To(t)
	logIn := func() sitetest.Reply {
		t.Helper()
		return here.Get(there.GoOn(here.Get("/auth/login/home?return_to=/private/x?y=1").To(t).String()).String())
	}
	here.MustBeOut(logIn(), 403, "has not verified your e-mail address")
	users := id.store()
	alice, err := users.UserByEmail(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := users.UpdateUser(
		t.Context(), alice.ID, time.Now(), func(u *store.User) error { u.Profile["email_verified"] = true; return nil },
	); err != nil {
		t.Fatal(err)
	}

	back := logIn()
	userID := here.MustBeIn(back)
	if to := back.To(t).String(); to != "/private/x?y=1" {
		t.Errorf("it returns to %s", to)
	}
	if got := here.Get("/private/x"); got.Status != 200 || got.Body != "user="+userID+" email=alice@example.com" {
		t.Errorf("behind jwt: %d %s", got.Status, got.Body)
	}
	if who := here.Do(
		http.MethodGet, "/auth/whoami", nil, "Accept: application/json",
	).JSON(t); who["name"] != "Alice A." || who["email"] != "alice@example.com" || who["id"] == alice.ID {
		t.Errorf("the user is %v", who)
	}

	// With another address at the provider, it is the same user here.
	if _, err := users.UpdateUser(t.Context(), alice.ID, time.Now(), func(u *store.User) error {
		u.Email, u.EmailKey = "alice@new.example", "alice@new.example"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	second := here.At(app.Site)
	there.Email = "alice@new.example" // she must enter her password again
	first := here.Get("/auth/account").Body
	if again := second.MustBeIn(logIn()); again != userID {
		t.Errorf("user %s is now %s", userID, again)
	}
	if strings.Count(second.Get("/auth/account").Body, "Logged in <time") != strings.Count(first, "Logged in <time")+1 {
		t.Error("the second log-in began no session of its own")
	}

	// A log-out there logs out here too, also from earlier log-ins.
	if got := there.Post("/auth/logout", url.Values{}); got.Status != 303 {
		t.Fatalf("log-out: %d %s", got.Status, got.Body)
	}
	sitetest.Eventually(t, "the session here ends with the one there", func() bool {
		return here.Get("/auth/whoami").Status == 401
	})
	if got := here.Get("/private/x"); got.Status != 303 {
		t.Errorf("after the log-out: %d %s", got.Status, got.Body)
	}
	if log := app.Log(); strings.Contains(log, "the-secret-of-the-site") || strings.Contains(log, "alice@") {
		t.Error("the log has a secret or an address")
	}
}

// Each attack has a control: a correct log-in that must work.
func TestLoginWithHostileProvider(t *testing.T) {
	p, other := sitetest.NewOpenIDProvider(t), sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", "map_claim full_name name")+other.Option("other", ""))
	set := func(name string, value any) sitetest.Lies {
		return sitetest.Lies{Claims: func(claims map[string]any) { claims[name] = value }}
	}
	without := func(name string) sitetest.Lies {
		return sitetest.Lies{Claims: func(claims map[string]any) { delete(claims, name) }}
	}
	signed := func(sign func(claims map[string]any) string) sitetest.Lies { return sitetest.Lies{Sign: sign} }
	answered := func(change func(url.Values)) sitetest.Lies { return sitetest.Lies{Answer: change} }
	public, err := x509.MarshalPKIXPublicKey(&p.Key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(kid string, secret []byte) func(map[string]any) string {
		return func(claims map[string]any) string {
			delete(claims, "at_hash") // its check depends on alg too
			return sitetest.SignExactly(t, "HS256", secret, map[string]any{"alg": "HS256", "kid": kid}, claims)
		}
	}
	const refused, begun = "response is not valid", "was started in another browser"
	for _, attack := range []struct {
		name   string
		lies   sitetest.Lies
		status int
		text   string
	}{
		{"wrong nonce", set("nonce", "of another log-in"), 401, refused},
		{"no nonce", without("nonce"), 401, refused},
		{
			"nonce in another case",
			sitetest.Lies{Claims: func(c map[string]any) { c["Nonce"] = c["nonce"]; delete(c, "nonce") }}, 401, refused,
		},
		{"wrong aud", set("aud", "another-site"), 401, refused},
		{"no aud", without("aud"), 401, refused},
		{"aud with others and no azp", set("aud", []string{"site", "another-site"}), 401, refused},
		{
			"azp of another",
			sitetest.Lies{More: map[string]any{"aud": []string{"site", "another-site"}, "azp": "another-site"}},
			401, refused,
		},
		{"wrong iss", set("iss", other.URL), 401, refused},
		{"iss with a slash", set("iss", p.URL+"/"), 401, refused},
		{"no iss", without("iss"), 401, refused},
		{"expired", set("exp", time.Now().Unix()-1), 401, refused},
		{"no exp", without("exp"), 401, refused},
		{"no sub", without("sub"), 401, refused},
		{
			"sub in another case",
			sitetest.Lies{Claims: func(c map[string]any) { c["SUB"] = c["sub"]; delete(c, "sub") }}, 401, refused,
		},
		{"at_hash of another access token", set("at_hash", sitetest.HalfHash("another")), 401, refused},
		{"at_hash empty", set("at_hash", ""), 401, refused},
		{"alg none", signed(func(c map[string]any) string {
			return sitetest.Unsigned(t, map[string]any{"alg": "none"}, c) + "."
		}), 401, refused},
		{"alg nOnE", signed(func(c map[string]any) string {
			return sitetest.Unsigned(t, map[string]any{"alg": "nOnE"}, c) + "."
		}), 401, refused},
		{
			"HS256 with the public key",
			signed(hs256("1", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))), 401, refused,
		},
		{"HS256 with the client secret", signed(hs256("1", []byte("the-secret-of-the-site"))), 401, refused},
		{"HS256 with a key of the key set", signed(hs256("2", []byte(sitetest.SymmetricKey))), 401, refused},
		{"unsigned", signed(func(c map[string]any) string {
			return sitetest.Unsigned(t, map[string]any{"alg": "RS256", "kid": "1"}, c) + "."
		}), 401, refused},
		{
			"another key",
			signed(func(c map[string]any) string { return p.Sign(c, sitetest.Keys().StrangerRSA) }), 401, refused,
		},
		{
			"no ID token",
			sitetest.Lies{Tokens: func(answer map[string]any) { delete(answer, "id_token") }}, 401, refused,
		},
		{"not a token", signed(func(map[string]any) string { return "x" }), 401, refused},
		{"more claims than fit", set("full_name", strings.Repeat("x", 64<<10)), 401, refused},
		{"iat in the future", set("iat", time.Now().Add(time.Hour).Unix()), 401, refused},
		{"userinfo as a JWT for another client", sitetest.Lies{
			Claims: func(c map[string]any) { delete(c, "email") }, UserinfoToken: p.Sign(map[string]any{
				"iss": p.URL, "aud": "another-site", "sub": "alice",
				"email": "alice@example.com", "email_verified": true,
			}, p.Key),
		}, 401, refused},
		{"userinfo as a JWT for nobody", sitetest.Lies{
			Claims: func(c map[string]any) { delete(c, "email") }, UserinfoToken: p.Sign(
				map[string]any{"iss": p.URL, "sub": "alice", "email": "alice@example.com", "email_verified": true},
				p.Key,
			),
		}, 401, refused},
		{"userinfo as a JWT of another issuer", sitetest.Lies{
			Claims: func(c map[string]any) { delete(c, "email") }, UserinfoToken: p.Sign(map[string]any{
				"iss": other.URL, "aud": "site", "sub": "alice", "email": "alice@example.com", "email_verified": true,
			}, p.Key),
		}, 401, refused},
		{
			"userinfo of another issuer",
			sitetest.Lies{Claims: func(c map[string]any) { delete(c, "email") }, Userinfo: map[string]any{
				"iss": other.URL, "aud": "site", "sub": "alice", "email": "alice@example.com", "email_verified": true,
			}}, 401, refused,
		},
		{
			"userinfo of another user",
			sitetest.Lies{Claims: func(c map[string]any) { delete(c, "email") }, Userinfo: map[string]any{
				"sub": "mallory", "email": "alice@example.com", "email_verified": true,
			}}, 401, refused,
		},
		{"mix-up: iss of another provider", answered(func(v url.Values) { v.Set("iss", other.URL) }), 401, refused},
		{"mix-up: iss with a slash", answered(func(v url.Values) { v.Set("iss", p.URL+"/") }), 401, refused},
		{"mix-up: no iss though the provider sends it", answered(func(v url.Values) { v.Del("iss") }), 401, refused},
		{
			"mix-up: an error of another provider",
			answered(func(v url.Values) { v.Set("iss", other.URL); v.Del("code"); v.Set("error", "access_denied") }),
			401, refused,
		},
		{"no code", answered(func(v url.Values) { v.Del("code") }), 401, refused},
		{"a code of its own", answered(func(v url.Values) { v.Set("code", "x") }), 401, refused},
		{"two codes", answered(func(v url.Values) { v.Add("code", "x") }), 401, refused},
		{"two states", answered(func(v url.Values) { v.Add("state", "x") }), 401, refused},
		{"another state", answered(func(v url.Values) { v.Set("state", v.Get("state")+"x") }), 400, begun},
		{"no state", answered(func(v url.Values) { v.Del("state") }), 400, begun},
		{"invalid_client", sitetest.Lies{OnToken: func(w http.ResponseWriter) bool {
			return sitetest.WriteJSON(t, w, 401, map[string]any{"error": "invalid_client"})
		}}, 401, refused},
		{
			"token endpoint down",
			sitetest.Lies{OnToken: func(w http.ResponseWriter) bool { w.WriteHeader(500); return true }},
			503, "is temporarily unavailable",
		},
		{"token endpoint leads elsewhere", sitetest.Lies{OnToken: func(w http.ResponseWriter) bool {
			w.Header().Set("Location", other.URL+"/token")
			w.WriteHeader(307)
			return true
		}}, 503, "is temporarily unavailable"},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s.T = t
			p.Lie(sitetest.Lies{})
			good, bad := s.Visitor(), s.Visitor()
			good.MustBeIn(good.LogInBy("fake"))
			p.Lie(attack.lies)
			bad.MustBeOut(bad.LogInBy("fake"), attack.status, attack.text)
		})
	}

	// Values that the attacker has from another browser, or from another log-in.
	for _, attack := range []struct {
		name string
		do   func(victim, attacker *sitetest.Visitor) sitetest.Reply
		text string
	}{
		{"callback of another browser", func(victim, attacker *sitetest.Visitor) sitetest.Reply {
			return victim.Get(attacker.Out("/auth/login/fake"))
		}, begun},
		{
			"code and state of another browser while one is under way",
			func(victim, attacker *sitetest.Visitor) sitetest.Reply {
				victim.Out("/auth/login/fake")
				return victim.Get(attacker.Out("/auth/login/fake"))
			}, begun,
		},
		{"code of another browser with the state of this one", func(victim, attacker *sitetest.Visitor) sitetest.Reply {
			stolen, _ := url.Parse(attacker.Out("/auth/login/fake"))
			own, _ := url.Parse(victim.Out("/auth/login/fake"))
			query := own.Query()
			query.Set("code", stolen.Query().Get("code")) // PKCE refuses it
			return victim.Get(own.Path + "?" + query.Encode())
		}, refused},
		{
			"code of another browser, and a provider without PKCE",
			func(victim, attacker *sitetest.Visitor) sitetest.Reply {
				stolen, _ := url.Parse(attacker.Out("/auth/login/fake"))
				own, _ := url.Parse(victim.Out("/auth/login/fake"))
				p.Rebind(stolen.Query().Get("code"), own.Query().Get("code")) // the nonce is still the other's
				query := own.Query()
				query.Set("code", stolen.Query().Get("code"))
				return victim.Get(own.Path + "?" + query.Encode())
			}, refused,
		},
		{
			"mix-up: the answer comes to the callback of another provider",
			func(victim, _ *sitetest.Visitor) sitetest.Reply {
				return victim.Get(strings.Replace(
					victim.Out("/auth/login/fake"), "/callback/fake", "/callback/other", 1,
				))
			}, begun,
		},
		{"replayed callback", func(victim, _ *sitetest.Visitor) sitetest.Reply {
			back := victim.Out("/auth/login/fake")
			victim.MustBeIn(victim.Get(back))
			victim.Post("/auth/logout", url.Values{})
			return victim.Get(back)
		}, begun},
		{"replayed callback with its cookie", func(victim, _ *sitetest.Visitor) sitetest.Reply {
			back := victim.Out("/auth/login/fake")
			at, _ := url.Parse(victim.URL)
			kept := victim.Client.Jar.Cookies(at)
			victim.MustBeIn(victim.Get(back))
			victim.Post("/auth/logout", url.Values{})
			victim.Client.Jar.SetCookies(at, kept)
			return victim.Get(back)
		}, begun},
		{"callback out of nothing", func(victim, _ *sitetest.Visitor) sitetest.Reply {
			return victim.Get("/auth/callback/fake?code=x&state=x")
		}, begun},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s.T = t
			p.Lie(sitetest.Lies{})
			good, bad := s.Visitor(), s.Visitor()
			good.MustBeIn(good.LogInBy("fake"))
			status := map[string]int{begun: 400, refused: 401}[attack.text]
			bad.MustBeOut(attack.do(bad, s.Visitor()), status, attack.text)
		})
	}
	s.T = t
	if log := s.Log(); strings.Contains(log, "the-secret-of-the-site") ||
		strings.Contains(log, "SECRET-OF-THE-PROVIDER") || strings.Contains(log, p.LastIDToken()) ||
		strings.Contains(log, "alice@example.com") {
		t.Error("the log has a secret, a token or an address")
	}
	if !strings.Contains(s.Log(), "provider rejects this site's credentials") {
		t.Error("nobody is told that the client secret is wrong")
	}
}

// The log-in in a second tab counts. A response to the first log-in, or one sent by another site,
// does not invalidate it.
func TestLoginWithInTwoTabs(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", ""))
	chrome := s.Visitor()
	first := chrome.Out("/auth/login/fake")
	second := chrome.Out("/auth/login/fake")
	for _, other := range []string{first, "/auth/callback/fake?state=evil"} {
		if got := chrome.Get(other); got.Status != 400 {
			t.Errorf("%s", got.Brief())
		}
	}
	chrome.MustBeIn(chrome.Get(second))
}

// A browser that logs in with a provider has one session. The previous session of another user
// ends; a previous session of the same user ends together with the new one.
func TestLoginWithReplacesASession(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", ""))
	chrome := s.Visitor()
	chrome.Do(http.MethodPost, "/auth/signup", url.Values{
		"email": {"bob@example.com"}, "password": {sitetest.GoodPassword},
	}).To(t)
	at, _ := url.Parse(s.URL)
	hers := ""
	for _, cookie := range chrome.Client.Jar.Cookies(at) {
		if cookie.Name == "session" {
			hers = cookie.Value
		}
	}
	bearer := func(token string) int {
		return s.Visitor().Do(http.MethodGet, "/private", nil, "Authorization: Bearer "+token).Status
	}
	if got := bearer(hers); got != 200 {
		t.Fatalf("control: %d", got)
	}
	chrome.MustBeIn(chrome.LogInBy("fake"))
	if got := bearer(hers); got != 401 {
		t.Errorf("the session of somebody else goes on: %d", got)
	}
}

// Errors do not contain a secret with braces.
func TestLoginWithSecretIsInNoError(t *testing.T) {
	l := &login.Login{Name: "fake", Issuer: "https://id.example.com", ClientID: "site", ClientSecret: "abc{def}ghi"}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	if err := l.Provision(ctx); err == nil || strings.Contains(err.Error(), "def") ||
		!strings.Contains(err.Error(), "client_secret: it has a placeholder without a value") {
		t.Errorf("error %v", err)
	}
}

// After an identity was disconnected, it cannot log in until a log-in to the account connects it
// again.
func TestLoginWithDisconnected(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", ""))
	command := func(args ...string) string {
		t.Helper()
		output, err := exec.Command(
			caddytest.Binary(t),
			append([]string{"jwt", "user", "--store", filepath.Join(s.dir, "users.db")}, args...)...,
		).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v %s", args, err, output)
		}
		return string(output)
	}
	chrome := s.Visitor()
	id := chrome.MustBeIn(chrome.LogInBy("fake"))
	for i, told := range []string{"disconnected from 1", "disconnected from 0"} {
		if got := command("disconnect", "--yes", id); !strings.Contains(got, told) {
			t.Errorf("%d: %s", i, got)
		}
	}
	s.Visitor().MustBeOut(s.Visitor().LogInBy("fake"), 409, "An account with this e-mail address already exists")
	// It has no password, so nobody can prove that it is theirs, until the operator helps them.
	reset := regexp.MustCompile(`/auth/reset[^\s"]*`).FindString(command("reset-link", "--base", s.URL, id))
	opener := s.Visitor()
	if got := opener.Get(opener.Get(reset).To(t).String()); got.Status != 200 {
		t.Fatalf("control: %d %s", got.Status, got.Body)
	}
	token, _ := url.Parse(reset)
	if got := s.Visitor().Post("/auth/reset", url.Values{
		"token": {token.Query().Get("token")}, "password": {sitetest.GoodPassword},
		"newPassword": {sitetest.GoodPassword},
	}); got.Status >= 400 {
		t.Fatalf("a new password: %d %s", got.Status, got.Body)
	}
	again := s.Visitor()
	again.MustBeOut(again.LogInBy("fake"), 409, "An account with this e-mail address already exists")
	if got := decideOffer(again, again.Post("/auth/login", url.Values{
		"email": {"alice@example.com"}, "password": {sitetest.GoodPassword},
	}), "yes", ""); got.Status != 303 {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	other := s.Visitor()
	if got := other.MustBeIn(other.LogInBy("fake")); got != id {
		t.Errorf("connected again, it is %s and not %s", got, id)
	}

	// Another user who had it in the meantime cannot restore it either.
	command("disconnect", "--yes", id)
	bob := s.Visitor()
	bob.SignUp("bob@example.com")
	decideOffer(bob, bob.Get(bob.Get(connectLink(bob, "fake")).To(t).String()), "yes", "").To(t)
	if got := s.Visitor(); got.MustBeIn(got.LogInBy("fake")) == id {
		t.Error("control: it is not that of who connected it")
	}
	command("delete", "--yes", "bob@example.com")
	s.Visitor().MustBeOut(s.Visitor().LogInBy("fake"), 409, "An account with this e-mail address already exists")
}

// The cookie of a log-in in progress, and where it leads.
func TestLoginWithRequest(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", "label \"Fake & Sons\"\n scopes email groups"))
	chrome := s.Visitor()
	page := chrome.Get("/auth/login?return_to=/private/x")
	if !strings.Contains(page.Body, `href="/auth/login/fake?return_to=%2fprivate%2fx">Fake &amp; Sons</a>`) {
		t.Errorf("no button: %s", page.Body)
	}
	got := chrome.Get("/auth/login/fake")
	to := got.To(t)
	query := to.Query()
	if !strings.HasPrefix(to.String(), p.URL+"/authorize?") || query.Get("scope") != "openid email groups" ||
		query.Get("redirect_uri") != s.URL+"/auth/callback/fake" || query.Get("code_challenge_method") != "S256" {
		t.Errorf("it leads to %s", to)
	}
	cookies := got.Header.Values("Set-Cookie")
	if len(cookies) != 1 || !strings.HasPrefix(cookies[0], "login=") || !strings.Contains(cookies[0], "HttpOnly") ||
		!strings.Contains(cookies[0], "SameSite=Lax") || !strings.Contains(cookies[0], "Path=/;") {
		t.Errorf("cookies %q", cookies)
	}
	behind := chrome.Do(http.MethodGet, "/auth/login/fake", nil, "X-Forwarded-Proto: https")
	if cookie := behind.Header.Get("Set-Cookie"); !strings.HasPrefix(cookie, "__Host-login=") ||
		!strings.Contains(cookie, "Secure") ||
		!strings.HasPrefix(behind.To(t).Query().Get("redirect_uri"), "https://127.0.0.1:") {
		t.Errorf("behind a proxy: %s, %v", cookie, behind.To(t))
	}
	other := chrome.Get("/auth/login/fake").To(t).Query()
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if query.Get(name) == other.Get(name) {
			t.Errorf("%s is the same twice", name)
		}
	}
	if got := chrome.Do(
		http.MethodGet, "/auth/login/fake?return_to=/private", nil, "Sec-Fetch-Site: cross-site",
	); got.To(t).String() != "/auth/login?return_to=%2Fprivate" || got.Header.Get("Set-Cookie") != "" {
		t.Errorf("a page of another site begins it: %v", got.Header)
	}
	for _, path := range []string{"//evil.example", `/\evil.example`, "https://evil.example", "/%09/evil.example"} {
		back := chrome.Get(chrome.Out("/auth/login/fake?return_to=" + url.QueryEscape(path)))
		chrome.MustBeIn(back)
		if to := back.To(t).String(); to != "/auth/account" {
			t.Errorf("return to %q leads to %s", path, to)
		}
	}
	// An unknown name does not bypass jwt.
	for path, status := range map[string]int{
		"/auth/login/none": 404, "/auth/callback/none": 404, "/auth/login/fake/x": 200, "/AUTH/LOGIN/fake": 303,
	} {
		if got := s.Visitor().Get(path); got.Status != status {
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
	}
	if got := chrome.Do(http.MethodHead, "/auth/callback/fake", nil); got.Status != 405 {
		t.Errorf("HEAD: %d", got.Status)
	}
}

// Log-in below a path that Caddy removes, and with the redirect URI of the config.
func TestLoginWithBelowAPath(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := newLoginSite(t)
	below := strings.Replace(s.caddyfile(p.Option("fake", "")), "\tjwt", "\thandle_path /app/* {\n\tjwt", 1)
	sitetest.RunSites(t, s.LogFile, strings.Replace(below, "\trespond", "}\n\trespond", 1))
	chrome := s.Visitor()
	if page := chrome.Get("/app/auth/login"); !strings.Contains(page.Body, `href="/app/auth/login/fake"`) {
		t.Errorf("log-in page: %s", page.Body)
	}
	out := chrome.Out("/app/auth/login/fake")
	if !strings.HasPrefix(out, s.URL+"/app/auth/callback/fake?") {
		t.Errorf("back at %s", out)
	}
	if got := chrome.Get(out); got.Header.Get("Location") != "/app/auth/account" {
		t.Errorf("it leads to %s", got.Brief())
	}
	proxied := loginSite(t, p.Option("fake", "redirect_uri https://site.example/x/auth/callback/fake"))
	if got := proxied.Visitor().Get("/auth/login/fake").To(t).Query().Get("redirect_uri"); got !=
		"https://site.example/x/auth/callback/fake" {
		t.Errorf("redirect_uri %s", got)
	}
}

// The rate at which unfinished log-ins fill the store is limited.
func TestLoginWithIsThrottled(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := newLoginSite(t)
	sitetest.RunSites(t, s.LogFile, strings.Replace(s.caddyfile(p.Option("fake", "")), "throttle off", "", 1))
	chrome := s.Visitor()
	const most = 30
	for i := range 3 * most { // some are allowed again over time
		got := chrome.Get("/auth/login/fake")
		if got.Status == 303 {
			continue
		}
		if i < most || got.Status != 429 || got.Header.Get("Retry-After") == "" ||
			!strings.Contains(got.Body, "You can try again in ") {
			t.Errorf("after %d: %s", i, got.Brief())
		}
		return
	}
	t.Errorf("%d are not refused", 3*most)
}

// Which account a log-in leads to.
func TestLoginWithAccounts(t *testing.T) {
	p, other := sitetest.NewOpenIDProvider(t), sitetest.NewOpenIDProvider(t)
	s := loginSite(
		t, "default_roles member\n"+p.Option("fake", "map_claim person.name name")+other.Option("other", "trust_email"),
	)
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
		p.Lie(sitetest.Lies{Subject: "new", Email: "new@example.com", More: map[string]any{
			"person": map[string]any{"name": "New"}, "roles": []string{"admin"},
		}})
		chrome := s.Visitor()
		id := chrome.MustBeIn(chrome.LogInBy("fake"))
		user := userOf("new@example.com")
		if user.ID != id || user.PasswordHash != "" || user.Profile["name"] != "New" ||
			strings.Join(user.Roles, " ") != "member" {
			t.Errorf("user %+v", user)
		}
		if page := chrome.Get("/auth/account"); strings.Contains(page.Body, "Change your password") ||
			!strings.Contains(page.Body, "Connect other") ||
			!strings.Contains(page.Body, "<dt>fake</dt><dd>new@example.com</dd>") {
			t.Errorf("account page: %s", page.Body)
		}
		if got := s.Visitor().Post("/auth/login", url.Values{
			"email": {"new@example.com"}, "password": {sitetest.GoodPassword},
		}); got.Status != 401 {
			t.Errorf("a password: %d", got.Status)
		}
	})

	t.Run("userinfo as a JWT", func(t *testing.T) {
		s.T = t
		// sid and auth_time are not taken from userinfo: only the ID token may have them.
		p.Lie(sitetest.Lies{Subject: "signed", Claims: func(c map[string]any) { delete(c, "email"); delete(c, "sid") },
			UserinfoToken: p.Sign(map[string]any{
				"iss": p.URL, "aud": []string{"site", "others"}, "sub": "signed",
				"email": "signed@example.com", "email_verified": true, "sid": "of userinfo", "auth_time": 1,
			}, p.Key)})
		chrome := s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("fake"))
		now := time.Now().Unix()
		token := p.Sign(map[string]any{
			"iss": p.URL, "aud": "site", "sid": "of userinfo", "iat": now, "exp": now + 60,
			"jti": store.RandomToken(32), "events": map[string]any{protocol.LogoutEvent: map[string]any{}},
		}, p.Key)
		s.Visitor().Post("/auth/backchannel/fake", url.Values{"logout_token": {token}})
		if got := chrome.Get("/auth/whoami"); got.Status != 200 {
			t.Errorf("the session is that of userinfo: %d", got.Status)
		}
	})
	t.Run("claims of userinfo", func(t *testing.T) {
		p.Lie(sitetest.Lies{Subject: "info", Email: "x", Claims: func(c map[string]any) {
			delete(c, "email")
			delete(c, "email_verified")
		},
			Userinfo: map[string]any{
				"sub": "info", "email": "info@example.com", "email_verified": "true",
				"person": map[string]any{"name": "Info", "nonce": 1},
			}})
		chrome := s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("fake"))
		if user := userOf("info@example.com"); user.Profile["name"] != "Info" {
			t.Errorf("user %+v", user)
		}
	})

	t.Run("many at once make one user", func(t *testing.T) {
		p.Lie(sitetest.Lies{Subject: "many", Email: "many@example.com"})
		var all sync.WaitGroup
		ids := make(chan string, 8)
		for range cap(ids) {
			all.Go(func() {
				chrome := s.Visitor()
				if got := chrome.LogInBy("fake"); got.Status != 303 {
					t.Error(got.Brief())
				}
				ids <- chrome.Do(http.MethodGet, "/auth/whoami", nil, "Accept: text/plain").Body
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
		p.Lie(sitetest.Lies{Subject: "same", Email: "same@example.com"})
		other.Lie(sitetest.Lies{Subject: "same", Email: "other@example.com"})
		one, two := s.Visitor(), s.Visitor()
		if one.MustBeIn(one.LogInBy("fake")) == two.MustBeIn(two.LogInBy("other")) {
			t.Error("it is one user")
		}
	})

	t.Run("an address that is not verified", func(t *testing.T) {
		p.Lie(sitetest.Lies{Subject: "unverified", Email: "unverified@example.com", Unverified: true})
		chrome := s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("fake"), 403, "has not verified your e-mail address")
		// trusted by the config
		other.Lie(sitetest.Lies{Subject: "unverified", Email: "unverified@example.com", Unverified: true})
		chrome.MustBeIn(chrome.LogInBy("other"))
	})

	t.Run("no address, and none that is one", func(t *testing.T) {
		for email, says := range map[string]string{
			"": "did not tell this site an e-mail", "nobody": "is not valid, so no account",
			"a@example.com\r\nBcc: b@example.com": "is not valid, so no account",
		} {
			other.Lie(sitetest.Lies{Subject: "no address", Email: email})
			chrome := s.Visitor()
			chrome.MustBeOut(chrome.LogInBy("other"), 403, says)
		}
	})

	t.Run("an account with the address", func(t *testing.T) {
		const exists = "Log in to it with its password"
		s.Visitor().SignUp("bob@example.com")
		s.Visitor().SignUp("carol@example.com")
		bob := userOf("bob@example.com")
		p.Lie(sitetest.Lies{Subject: "bob", Email: "BOB@example.com"})
		logIn := func(b *sitetest.Visitor, email, password string) sitetest.Reply {
			return b.Post("/auth/login", url.Values{"email": {email}, "password": {password}})
		}
		for name, do := range map[string]func(b *sitetest.Visitor){
			"nothing":         func(*sitetest.Visitor) {},
			"another browser": func(*sitetest.Visitor) { logIn(s.Visitor(), "bob@example.com", sitetest.GoodPassword) },
			"another account": func(b *sitetest.Visitor) {
				logIn(b, "carol@example.com", sitetest.GoodPassword)
				logIn(b, "bob@example.com", sitetest.GoodPassword)
			},
			"a wrong password":         func(b *sitetest.Visitor) { logIn(b, "bob@example.com", "wrong password") },
			"a log-in by the provider": func(b *sitetest.Visitor) { b.LogInBy("fake") },
			"a cookie of another's own": func(b *sitetest.Visitor) {
				s.Visitor().LogInBy("fake")
				logIn(s.Visitor(), "bob@example.com", sitetest.GoodPassword)
			},
		} {
			chrome := s.Visitor()
			chrome.MustBeOut(chrome.LogInBy("fake"), 409, exists)
			do(chrome)
			later := s.Visitor()
			if got := later.LogInBy("fake"); got.Status != 409 {
				t.Errorf("after %s: connected: %d %s", name, got.Status, got.Body)
			}
		}
		chrome := s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("fake"), 409, exists)
		logIn(chrome, "bob@example.com", "wrong password")
		if got := decideOffer(
			chrome, logIn(chrome, "bob@example.com", sitetest.GoodPassword), "yes", "",
		); got.Status != 303 {
			t.Fatalf("connecting: %s", got.Brief())
		}
		later := s.Visitor()
		if id := later.MustBeIn(later.LogInBy("fake")); id != bob.ID {
			t.Errorf("the provider's user is %s and not %s", id, bob.ID)
		}
		if page := later.Get("/auth/account").Body; !strings.Contains(page, "<dt>fake</dt><dd>BOB@example.com</dd>") {
			t.Errorf("account page: %s", page)
		}
	})

	t.Run("connected on the account page", func(t *testing.T) {
		dave, erin := s.Visitor(), s.Visitor()
		dave.SignUp("dave@example.com")
		erin.SignUp("erin@example.com")
		p.Lie(sitetest.Lies{Subject: "dave", Email: "dave@work.example", Unverified: true})
		connect := func(b *sitetest.Visitor) sitetest.Reply {
			t.Helper()
			return b.Get(b.Get(connectLink(b, "fake")).To(t).String())
		}
		for _, header := range []string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"} {
			if got := dave.Post("/auth/login/fake", url.Values{}, header); got.Status != 403 {
				t.Errorf("%s: %d", header, got.Status)
			}
		}
		if got := s.Visitor().Post("/auth/login/fake", url.Values{}); got.Status != 401 {
			t.Errorf("nobody connects: %d", got.Status)
		}
		if to := decideOffer(dave, connect(dave), "yes", "").To(t).String(); to != "/auth/account" {
			t.Errorf("it leads to %s", to)
		}
		if to := connect(dave).To(t).String(); to != "/auth/account" { // a repetition is harmless
			t.Errorf("again leads to %s", to)
		}
		chrome := s.Visitor()
		if id := chrome.MustBeIn(chrome.LogInBy("fake")); id != userOf("dave@example.com").ID {
			t.Errorf("user %s", id)
		}
		if got := connect(erin); got.Status != 409 ||
			!strings.Contains(got.Body, "already connected to another account here") {
			t.Errorf("to a second account: %d %s", got.Status, got.Body)
		}
		// A session that ended in the meantime connects nothing.
		p.Lie(sitetest.Lies{Subject: "erin", Email: "erin@work.example"})
		back := erin.Get(connectLink(erin, "fake")).To(t).String()
		erin.Post("/auth/logout", url.Values{})
		erin.Post("/auth/login", url.Values{"email": {"carol@example.com"}, "password": {sitetest.GoodPassword}})
		if got := erin.Get(back); got.Status != 400 {
			t.Errorf("another session: %d %s", got.Status, got.Body)
		}
		if records, err := users.Records(
			t.Context(), "external identity", userOf("carol@example.com").ID, time.Now(),
		); err != nil || len(records) != 0 {
			t.Errorf("connected: %v %v", records, err)
		}
	})

	t.Run("a disabled user", func(t *testing.T) {
		p.Lie(sitetest.Lies{Subject: "frank", Email: "frank@example.com"})
		chrome := s.Visitor()
		id := chrome.MustBeIn(chrome.LogInBy("fake"))
		if _, err := users.UpdateUser(
			t.Context(), id, time.Now(), func(u *store.User) error { u.Disabled = true; return nil },
		); err != nil {
			t.Fatal(err)
		}
		chrome = s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("fake"), 403, "This account is disabled.")
	})

	t.Run("a deleted user is a new one", func(t *testing.T) {
		p.Lie(sitetest.Lies{Subject: "grace", Email: "grace@example.com"})
		chrome := s.Visitor()
		if err := users.DeleteUser(t.Context(), chrome.MustBeIn(chrome.LogInBy("fake")), time.Now()); err != nil {
			t.Fatal(err)
		}
		chrome = s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("fake"))
	})
}

func TestLoginWithSignupClosed(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, "signup closed\n"+p.Option("fake", ""))
	chrome := s.Visitor()
	chrome.MustBeOut(chrome.LogInBy("fake"), 403, "sign-up is closed")
	now := time.Now()
	if err := s.store().CreateUser(t.Context(), store.User{
		ID: "1", Email: "alice@example.com", EmailKey: "alice@example.com", CreatedAt: now, UpdatedAt: now,
		PasswordHash: "$2a$10$CwTycUXWue0Thq9StjUM0uJ8n0xZ0Y5xE0y5mVh8t0Z1xQ1w0y5eG",
	}); err != nil {
		t.Fatal(err)
	}
	chrome.MustBeOut(chrome.LogInBy("fake"), 409, "Log in to it with its password")
}

// The provider's description of a failure is not shown.
func TestLoginWithErrorsOfTheProvider(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", ""))
	for code, expected := range map[string]struct {
		status int
		text   string
	}{
		"access_denied":           {401, "did not log you in"},
		"temporarily_unavailable": {503, "is temporarily unavailable"},
		"<script>":                {401, "is not valid"},
	} {
		p.Lie(sitetest.Lies{Answer: func(values url.Values) {
			values.Del("code")
			values.Set("error", code)
			values.Set("error_description", "<b>call this number</b>")
		}})
		chrome := s.Visitor()
		got := chrome.Get(chrome.Out("/auth/login/fake?return_to=/private"))
		chrome.MustBeOut(got, expected.status, expected.text)
		if strings.Contains(got.Body, "call this number") || strings.Contains(got.Body, "<script>") ||
			!strings.Contains(got.Body, `name="return_to" value="/private"`) {
			t.Errorf("%s: page %s", code, got.Body)
		}
		if (expected.status == 503) != (got.Header.Get("Retry-After") != "") {
			t.Errorf("%s: Retry-After %q", code, got.Header.Get("Retry-After"))
		}
	}
}

// If a provider is down when Caddy starts, only its own button does not work until it is back. A
// reload does not fetch discovery documents again.
func TestLoginWithOutage(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	p.Down.Store(true)
	s := loginSite(t, p.Option("fake", ""))
	if p.LookUps.Load() != 0 {
		t.Error("it is looked up before anybody wants to log in")
	}
	chrome := s.Visitor()
	got := chrome.Get("/auth/login/fake?return_to=/private")
	if got.Status != 503 || got.Header.Get("Retry-After") == "" ||
		!strings.Contains(got.Body, "is temporarily unavailable") ||
		!strings.Contains(got.Body, `name="return_to" value="/private"`) {
		t.Errorf("%d %v %s", got.Status, got.Header, got.Body)
	}
	chrome.SignUp("alice@example.com")
	if got := chrome.Get("/private/x"); got.Status != 200 {
		t.Errorf("everything else: %d", got.Status)
	}
	if got := chrome.Post("/auth/backchannel/fake", url.Values{"logout_token": {"x"}}); got.Status != 503 {
		t.Errorf("log-out token: %d", got.Status)
	}
	p.Lie(sitetest.Lies{Subject: "bob", Email: "bob@example.com"})
	p.Down.Store(false)
	sitetest.Eventually(t, "the provider is looked up again", func() bool {
		return chrome.Get("/auth/login/fake").Status == 303
	})
	chrome = s.Visitor()
	chrome.MustBeIn(chrome.LogInBy("fake"))
	if log := s.Log(); strings.Count(log, "provider discovery fails") != 1 ||
		!strings.Contains(log, "provider discovery works again") {
		t.Error("the log does not tell of the outage once, and of its end")
	}
	before, keys := p.LookUps.Load(), p.KeyFetches.Load()
	sitetest.RunSites(t, s.LogFile, s.caddyfile("signup_limit 100\n"+p.Option("fake", "")))
	chrome = s.Visitor()
	chrome.MustBeIn(chrome.LogInBy("fake"))
	if p.LookUps.Load() != before || p.KeyFetches.Load() != keys {
		t.Errorf(
			"after a reload: %d look-ups and %d fetches of keys more",
			p.LookUps.Load()-before, p.KeyFetches.Load()-keys,
		)
	}
	p.Down.Store(true) // known metadata stays in use: the browser goes there, and returns to an error page
	if got := s.Visitor().Get("/auth/login/fake"); got.Status != 303 {
		t.Errorf("down later: %d", got.Status)
	}
}

// Log-out tokens of another issuer, for another purpose, or for another time.
func TestLoginWithBackchannelLogout(t *testing.T) {
	p, other := sitetest.NewOpenIDProvider(t), sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", "")+other.Option("other", ""))
	good := func() map[string]any {
		now := time.Now().Unix()
		return map[string]any{
			"iss": p.URL, "aud": "site", "sub": "alice", "sid": "session of alice", "iat": now, "exp": now + 60,
			"jti": store.RandomToken(32), "events": map[string]any{protocol.LogoutEvent: map[string]any{}},
		}
	}
	tell := func(token string) sitetest.Reply {
		return s.Visitor().Post("/auth/backchannel/fake", url.Values{"logout_token": {token}})
	}
	change := func(f func(map[string]any)) func() string {
		return func() string {
			claims := good()
			f(claims)
			return p.Sign(claims, p.Key)
		}
	}
	set := func(name string, value any) func() string {
		return change(func(c map[string]any) { c[name] = value })
	}
	without := func(name string) func() string {
		return change(func(c map[string]any) { delete(c, name) })
	}
	used := p.Sign(good(), p.Key)
	for _, attack := range []struct {
		name  string
		token func() string
	}{
		{"wrong key", func() string { return p.Sign(good(), sitetest.Keys().StrangerRSA) }},
		{"alg none", func() string { return sitetest.Unsigned(t, map[string]any{"alg": "none"}, good()) + "." }},
		{"unsigned", func() string {
			return sitetest.Unsigned(t, map[string]any{"alg": "RS256", "kid": "1"}, good()) + "."
		}},
		{"HS256", func() string {
			return sitetest.Unsigned(t, map[string]any{"alg": "HS256", "kid": "1"}, good()) + ".AAAA"
		}},
		{"wrong aud", set("aud", "another-site")},
		{"no aud", without("aud")},
		{"wrong iss", set("iss", other.URL)},
		{"no iss", without("iss")},
		{"with nonce", set("nonce", "x")},
		{"with nonce null", set("nonce", nil)},
		{"an ID token", p.LastIDToken},
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
			return sitetest.SignExactly(
				t, "RS256", p.Key, map[string]any{"alg": "RS256", "kid": "1", "typ": "at+jwt"}, good(),
			)
		}},
		{"typ application/at+jwt", func() string {
			return sitetest.SignExactly(
				t, "RS256", p.Key, map[string]any{"alg": "RS256", "kid": "1", "typ": "application/AT+JWT"}, good(),
			)
		}},
		{"typ that is no text", func() string {
			return sitetest.SignExactly(t, "RS256", p.Key, map[string]any{"alg": "RS256", "kid": "1", "typ": 1}, good())
		}},
		{"iat a year ago", set("iat", time.Now().AddDate(-1, 0, 0).Unix())},
		{"exp in ten years", set("exp", time.Now().AddDate(10, 0, 0).Unix())},
		{"exp in two hours", set("exp", time.Now().Add(2*time.Hour).Unix())},
		{"neither sub nor sid", change(func(c map[string]any) { delete(c, "sub"); delete(c, "sid") })},
		{"replayed jti", func() string { return used }},
		{"empty", func() string { return "" }},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s.T = t
			if attack.name == "replayed jti" {
				if got := tell(used); got.Status != 200 {
					t.Fatalf("the first time: %d %s", got.Status, got.Body)
				}
			}
			chrome := s.Visitor()
			chrome.MustBeIn(chrome.LogInBy("fake"))
			if got := tell(attack.token()); got.Status != 400 || got.Header.Get("Cache-Control") != "no-store" ||
				!strings.Contains(got.Body, "invalid_request") {
				t.Errorf("%d %v %s", got.Status, got.Header, got.Body)
			}
			if got := chrome.Get("/auth/whoami"); got.Status != 200 {
				t.Errorf("the session has ended: %d", got.Status)
			}
			if got := tell(p.Sign(good(), p.Key)); got.Status != 200 || got.Header.Get("Cache-Control") != "no-store" ||
				got.Body != "" {
				t.Errorf("a good one: %d %v %s", got.Status, got.Header, got.Body)
			}
			if got := chrome.Get("/auth/whoami"); got.Status != 401 {
				t.Errorf("the session goes on after a good one: %d", got.Status)
			}
		})
	}
	s.T = t

	// the controls
	for _, header := range []map[string]any{
		{"alg": "RS256", "kid": "1"}, {"alg": "RS256", "kid": "1", "typ": "logout+jwt"},
		{"alg": "RS256", "kid": "1", "typ": "application/logout+jwt"},
	} {
		if got := tell(sitetest.SignExactly(t, "RS256", p.Key, header, good())); got.Status != 200 {
			t.Errorf("%v: %d %s", header, got.Status, got.Body)
		}
	}

	// The ended sessions are those of the provider's session, or of its user.
	bySID, bySub := good(), good()
	delete(bySID, "sub")
	delete(bySub, "sid")
	for name, token := range map[string]map[string]any{"by sid": bySID, "by sub": bySub, "by both": good()} {
		p.Lie(sitetest.Lies{})
		alice, bob, local := s.Visitor(), s.Visitor(), s.Visitor()
		alice.MustBeIn(alice.LogInBy("fake"))
		p.Lie(sitetest.Lies{Subject: "bob", Email: "bob@example.com"})
		bob.MustBeIn(bob.LogInBy("fake"))
		local.SignUp(strings.ReplaceAll(name, " ", "-") + "@example.com")
		if got := tell(p.Sign(token, p.Key)); got.Status != 200 {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
		for who, expected := range map[*sitetest.Visitor]int{alice: 401, bob: 200, local: 200} {
			if got := who.Get("/auth/whoami"); got.Status != expected {
				t.Errorf("%s: %d, expected %d", name, got.Status, expected)
			}
		}
	}
	p.Lie(sitetest.Lies{})
	alice := s.Visitor()
	alice.MustBeIn(alice.LogInBy("fake"))
	mixed := good()
	mixed["sub"] = "bob"
	tell(p.Sign(mixed, p.Key))
	if got := alice.Get("/auth/whoami"); got.Status != 200 {
		t.Errorf("a sid with another's sub ends it: %d", got.Status)
	}
	stranger := other.Sign(good(), other.Key)
	if got := s.Visitor().Post("/auth/backchannel/other", url.Values{"logout_token": {stranger}}); got.Status != 400 {
		t.Errorf("another provider speaks for this one: %d", got.Status)
	}

	// Unknown keys cause a fetch only once in a while.
	before := p.KeyFetches.Load()
	for i := range 50 {
		token := sitetest.Unsigned(t, map[string]any{"alg": "RS256", "kid": fmt.Sprint("unknown ", i)}, good()) + "." +
			sitetest.Encode(string(make([]byte, 256)))
		if got := tell(token); got.Status != 400 {
			t.Error(got.Brief())
		}
	}
	if more := p.KeyFetches.Load() - before; more > 1 {
		t.Errorf("50 unknown keys are %d fetches", more)
	}
	for name, got := range map[string]sitetest.Reply{
		"GET": s.Visitor().Get("/auth/backchannel/fake"),
		"another page": s.Visitor().Post(
			"/auth/backchannel/fake", url.Values{"logout_token": {p.Sign(good(), p.Key)}}, "Sec-Fetch-Site: cross-site",
		),
		"two tokens": s.Visitor().Post("/auth/backchannel/fake", url.Values{
			"logout_token": {p.Sign(good(), p.Key), "x"},
		}),
		"none": s.Visitor().Post("/auth/backchannel/fake", url.Values{}),
	} {
		if got.Status < 400 || got.Status >= 500 {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	if got := alice.Get("/auth/whoami"); got.Status != 200 {
		t.Errorf("the session has ended: %d", got.Status)
	}
}

// A fault of the provider during log-ins is logged once, and once more when they work again.
func TestLoginOutageIsSaidOnce(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", ""))
	first := s.Visitor()
	first.MustBeIn(first.LogInBy("fake"))
	for _, fault := range []struct {
		status int
		body   map[string]any
		says   string
	}{
		{500, nil, "log-ins at the provider fail"},
		{401, map[string]any{"error": "invalid_client"}, "provider rejects this site's credentials"},
	} {
		p.Lie(sitetest.Lies{
			OnToken: func(w http.ResponseWriter) bool { return sitetest.WriteJSON(t, w, fault.status, fault.body) },
		})
		for range 5 {
			if got := s.Visitor().LogInBy("fake"); got.Status < 400 {
				t.Errorf("control: %d", got.Status)
			}
		}
		if got := strings.Count(s.Log(), fault.says); got != 1 {
			t.Errorf("%q is said %d times", fault.says, got)
		}
		ends := strings.Count(s.Log(), "log-ins at the provider work again")
		p.Lie(sitetest.Lies{})
		chrome := s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("fake"))
		if got := strings.Count(s.Log(), "log-ins at the provider work again") - ends; got != 1 {
			t.Errorf("the end of %q is said %d times", fault.says, got)
		}
	}
}
