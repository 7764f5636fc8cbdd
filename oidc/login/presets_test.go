package login_test

import (
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crypto/x509"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// standIn is a provider as its documentation for developers describes it. It checks the requests.
type standIn struct {
	*httptest.Server
	t       testing.TB
	mux     *http.ServeMux
	asked   url.Values // the authorization request
	problem string     // the first thing that is wrong with a request
}

func newStandIn(t testing.TB) *standIn {
	s := &standIn{t: t, mux: http.NewServeMux()}
	s.Server = httptest.NewServer(s.mux)
	t.Cleanup(s.Close)
	return s
}

// authorize lets the user log in at a path, which gives the code.
func (s *standIn) authorize(path string) {
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		s.asked = r.URL.Query()
		to := s.asked.Get("redirect_uri") + "?" + url.Values{
			"code": {"the-code"}, "state": {s.asked.Get("state")},
		}.Encode()
		http.Redirect(w, r, to, http.StatusSeeOther)
	})
}

// token answers the token request at a path; check says what is wrong with it.
func (s *standIn) token(path string, check func(r *http.Request) bool, write func(w http.ResponseWriter)) {
	s.mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		switch {
		case r.PostForm.Get("code") != "the-code" || r.PostForm.Get("grant_type") != "authorization_code" ||
			r.PostForm.Get("redirect_uri") != s.asked.Get("redirect_uri"):
			s.problem = "code, grant_type or redirect_uri"
		case sitetest.Challenge(r.PostForm.Get("code_verifier")) != s.asked.Get("code_challenge"):
			s.problem = "code_verifier"
		case !check(r):
			s.problem = "how the client authenticates: " + r.PostForm.Encode() + r.Header.Get("Authorization")
		}
		write(w)
	})
}

func inForm(r *http.Request) bool {
	return r.PostForm.Get("client_id") == "site" && r.PostForm.Get("client_secret") == "the-secret" &&
		r.Header.Get("Authorization") == ""
}

func inHeader(r *http.Request) bool {
	id, secret, ok := r.BasicAuth()
	return ok && id == "site" && secret == "the-secret" && r.PostForm.Get("client_secret") == ""
}

// api answers at a path, if the request has the access token.
func (s *standIn) api(path string, answer func(r *http.Request) any) {
	s.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer the-access-token" {
			s.problem = "Authorization: " + r.Header.Get("Authorization")
		}
		if r.Header.Get("User-Agent") == "" { // which GitHub requires
			s.problem = "no User-Agent"
		}
		sitetest.WriteJSON(s.t, w, 200, answer(r))
	})
}

func always(answer any) func(*http.Request) any { return func(*http.Request) any { return answer } }

// option returns the log-in with a preset at the stand-in.
func (s *standIn) option(preset, more string) string {
	return fmt.Sprintf("login_with %s {\n preset %s\n issuer %s\n client_id site\n client_secret the-secret\n %s\n}\n",
		preset, preset, s.URL, more)
}

func jsonTokens(t testing.TB, more sitetest.JSON) func(w http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		answer := sitetest.JSON{"access_token": "the-access-token", "token_type": "bearer", "expires_in": 3600}
		for name, value := range more {
			answer[name] = value
		}
		sitetest.WriteJSON(t, w, 200, answer)
	}
}

// Each preset logs in a user of its provider, with what that does differently.
func TestPresetsOfOAuth(t *testing.T) {
	t.Run("iss of the answer", func(t *testing.T) {
		stand := newStandIn(t)
		stand.discord(sitetest.JSON{"id": "1", "email": "a@example.com", "verified": true})
		s := loginSite(t, stand.option("discord", ""))
		for iss, in := range map[string]bool{stand.URL + "/oauth": true, stand.URL: true, "https://evil.example": false} {
			chrome := s.Visitor()
			back := chrome.Out("/auth/login/discord") + "&iss=" + url.QueryEscape(iss)
			if got := chrome.Get(back); in {
				chrome.MustBeIn(got)
			} else {
				chrome.MustBeOut(got, 401, "response is not valid")
			}
		}
	})
	for name, c := range map[string]struct {
		preset, option string
		provide        func(s *standIn)
		email          string // of the user; empty if there must be no account
		says           string
	}{
		"github": {preset: "github", email: "octo@example.com", provide: func(s *standIn) {
			s.github(sitetest.JSON{"id": 583231, "login": "octocat", "email": "shown@example.com"}, []any{
				sitetest.JSON{"email": "other@example.com", "primary": false, "verified": true},
				sitetest.JSON{"email": "octo@example.com", "primary": true, "verified": true},
			})
		}},
		"github: only the profile's address": {
			preset: "github", says: "did not tell this site an e-mail", provide: func(s *standIn) {
				s.github(sitetest.JSON{"id": 1, "email": "victim@example.com"}, []any{
					sitetest.JSON{"email": "victim@example.com", "primary": true, "verified": false},
					sitetest.JSON{"email": "second@example.com", "primary": false, "verified": true},
				})
			},
		},
		"github: organization": {
			preset: "github", option: "allow organization acme", email: "octo@example.com",
			provide: func(s *standIn) { s.githubMember("acme") },
		},
		"github: another organization": {
			preset: "github", option: "allow organization acme", says: "may not be used to log in here",
			provide: func(s *standIn) { s.githubMember("ACME-fans") },
		},
		"github: wrong code": {
			preset: "github", says: "response is not valid", provide: func(s *standIn) {
				s.authorize("/login/oauth/authorize")
				s.token("/login/oauth/access_token", inForm, func(w http.ResponseWriter) {
					w.Header().Set("Content-Type", "application/x-www-form-urlencoded") // with status 200
					_, _ = w.Write([]byte("error=bad_verification_code&error_description=expired"))
				})
			},
		},
		"discord": {preset: "discord", email: "nelly@example.com", provide: func(s *standIn) {
			s.discord(sitetest.JSON{
				"id": "80351110224678912", "username": "nelly", "email": "nelly@example.com", "verified": true,
			})
		}},
		"discord: not verified": {
			preset: "discord", says: "has not verified your e-mail address", provide: func(s *standIn) {
				s.discord(sitetest.JSON{"id": "2", "email": "nelly@example.com", "verified": false, "email_verified": true})
			},
		},
		"discord: server": {
			preset: "discord", option: "allow organization 197038439483310086", email: "nelly@example.com",
			provide: func(s *standIn) {
				s.discord(sitetest.JSON{"id": "3", "email": "nelly@example.com", "verified": true})
				s.api("/api/users/@me/guilds", always([]any{sitetest.JSON{"id": "197038439483310086"}}))
			},
		},
		"facebook": {preset: "facebook", option: "trust_email", email: "fb@example.com", provide: func(s *standIn) {
			s.facebook()
		}},
		"facebook: address not trusted": {
			preset: "facebook", says: "has not verified your e-mail address", provide: func(s *standIn) { s.facebook() },
		},
		"x": {preset: "x", email: "x@example.com", provide: func(s *standIn) {
			s.authorize("/i/oauth2/authorize")
			s.token("/2/oauth2/token", inHeader, jsonTokens(s.t, nil))
			s.api("/2/users/me", always(sitetest.JSON{"data": sitetest.JSON{
				"id": "2244994945", "username": "x", "confirmed_email": "x@example.com",
			}}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			stand := newStandIn(t)
			c.provide(stand)
			s := loginSite(t, stand.option(c.preset, c.option))
			chrome := s.Visitor()
			got := chrome.LogInBy(c.preset)
			if stand.problem != "" {
				t.Error(stand.problem)
			}
			if c.email == "" {
				chrome.MustBeOut(got, got.Status, c.says)
				return
			}
			chrome.MustBeIn(got)
			if _, err := s.store().UserByEmail(t.Context(), c.email); err != nil {
				t.Error(c.email, err)
			}
			again := s.Visitor() // is the same user
			if one, two := chrome.Do(http.MethodGet, "/auth/whoami", nil).Body, ""; one != "" {
				again.MustBeIn(again.LogInBy(c.preset))
				if two = again.Do(http.MethodGet, "/auth/whoami", nil).Body; one != two {
					t.Errorf("%s, then %s", one, two)
				}
			}
		})
	}
}

func (s *standIn) github(user sitetest.JSON, addresses []any) {
	s.authorize("/login/oauth/authorize")
	s.token("/login/oauth/access_token", inForm, func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		_, _ = w.Write([]byte("access_token=the-access-token&scope=user%3Aemail&token_type=bearer"))
	})
	s.api("/api/v3/user", always(user))
	s.api("/api/v3/user/emails", always(addresses))
}

func (s *standIn) githubMember(organization string) {
	s.github(sitetest.JSON{"id": 1}, []any{
		sitetest.JSON{"email": "octo@example.com", "primary": true, "verified": true},
	})
	s.api("/api/v3/user/orgs", func(*http.Request) any {
		if !strings.Contains(s.asked.Get("scope"), "read:org") {
			s.problem = "scope " + s.asked.Get("scope")
		}
		return []any{sitetest.JSON{"login": organization, "id": 1}}
	})
}

func (s *standIn) discord(user sitetest.JSON) {
	s.authorize("/oauth2/authorize")
	s.token("/api/oauth2/token", inHeader, jsonTokens(s.t, nil))
	s.api("/api/users/@me", always(user))
}

func (s *standIn) facebook() {
	s.authorize("/v23.0/dialog/oauth")
	s.token("/v23.0/oauth/access_token", inForm, jsonTokens(s.t, nil))
	s.api("/v23.0/me", func(r *http.Request) any {
		proof := hmac.New(sha256.New, []byte("the-secret"))
		proof.Write([]byte("the-access-token"))
		if query := r.URL.Query(); query.Get("appsecret_proof") != hex.EncodeToString(proof.Sum(nil)) ||
			!strings.Contains(query.Get("fields"), "email") {
			s.problem = "query " + r.URL.RawQuery
		}
		return sitetest.JSON{"id": "10221", "name": "F", "email": "fb@example.com"}
	})
}

// idToken signs an ID token with these claims; of which nil ones are left out.
func idToken(t testing.TB, key *rsa.PrivateKey, nonce string, claims sitetest.JSON) string {
	now := time.Now().Unix()
	made := sitetest.JSON{"nonce": nonce, "iat": now, "exp": now + 600}
	for name, value := range claims {
		if value != nil {
			made[name] = value
		}
	}
	return sitetest.Sign(t, "RS256", key, sitetest.JSON{"kid": "1"}, made)
}

// A provider that only knows OAuth 2.0, by its endpoints and where its userinfo has what.
func TestLoginByOAuth(t *testing.T) {
	option := func(s *standIn, more string) string {
		return fmt.Sprintf(`login_with forum {
			authorization_endpoint %s/authorize
			token_endpoint %[1]s/token
			userinfo_endpoint %[1]s/me
			client_id site
			client_secret the-secret
			%s
		}`, s.URL, more)
	}
	stand := newStandIn(t)
	var user any
	stand.authorize("/authorize")
	stand.token("/token", inHeader, jsonTokens(t, nil))
	stand.api("/me", func(*http.Request) any { return user })
	const claims = "id_claim user.id\nemail_claim user.mail\ntrust_email\nmap_claim user.nick name"
	s := loginSite(t, "signup_limit 100\n"+option(stand, claims))
	for _, c := range []struct {
		user any
		says string
	}{
		{sitetest.JSON{"user": sitetest.JSON{"id": 17, "mail": "a@example.com", "nick": "A"}}, ""},
		{sitetest.JSON{"user": sitetest.JSON{"id": "17", "mail": "changed@example.com"}}, ""}, // the same user
		{sitetest.JSON{"user": sitetest.JSON{"id": 9007199254740993, "mail": "b@example.com"}}, ""},
		{sitetest.JSON{"user": sitetest.JSON{"id": 1.5, "mail": "c@example.com"}}, "does not work"},
		{sitetest.JSON{"user": sitetest.JSON{"id": 0, "mail": "c@example.com"}}, "does not work"},
		{sitetest.JSON{"user": sitetest.JSON{"id": "", "mail": "c@example.com"}}, "does not work"},
		{sitetest.JSON{"user": sitetest.JSON{"mail": "c@example.com"}}, "does not work"},
		{sitetest.JSON{"sub": "x", "email": "c@example.com"}, "does not work"},
		{[]any{1}, "does not work"},
		{sitetest.JSON{"user": sitetest.JSON{"id": 3}}, "did not tell this site"},
	} {
		text, _ := json.Marshal(c.user)
		t.Run(string(text), func(t *testing.T) {
			s.T = t
			user = c.user
			chrome := s.Visitor()
			if got := chrome.LogInBy("forum"); c.says == "" {
				chrome.MustBeIn(got)
			} else {
				chrome.MustBeOut(got, got.Status, c.says)
			}
		})
	}
	s.T = t
	alice, err := s.store().UserByEmail(t.Context(), "a@example.com")
	if err != nil || alice.Profile["name"] != "A" {
		t.Errorf("%+v %v", alice, err)
	}
	if _, err := s.store().UserByEmail(t.Context(), "changed@example.com"); err == nil {
		t.Error("a user with another address is somebody else")
	}
	if stand.problem != "" {
		t.Error(stand.problem)
	}
	if got := s.Visitor().Post("/auth/backchannel/forum", url.Values{"logout_token": {"x"}}); got.Status != 400 {
		t.Errorf("a log-out token: %d", got.Status)
	}
}

// Microsoft's issuer is that of the user's tenant, which must be one of the login's; and no
// administrator of a tenant can claim somebody's address.
func TestPresetMicrosoft(t *testing.T) {
	const ours, theirs = "8eaef023-2b34-4da1-9baa-8bc8c9d6a490", "11111111-2222-3333-4444-555555555555"
	const personal = "9188040d-6c67-4c5b-b112-36a304b66dad"
	stand := newStandIn(t)
	key := sitetest.Keys().RSA
	claims := sitetest.JSON{}
	for _, at := range []string{"common", ours} {
		issuer := stand.URL + "/{tenantid}/v2.0"
		if at != "common" {
			issuer = stand.URL + "/" + at + "/v2.0"
		}
		document := sitetest.JSON{
			"issuer": issuer, "authorization_endpoint": stand.URL + "/common/oauth2/v2.0/authorize",
			"token_endpoint": stand.URL + "/common/oauth2/v2.0/token", "jwks_uri": stand.URL + "/common/discovery/v2.0/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		}
		stand.mux.HandleFunc("GET /"+at+"/v2.0/.well-known/openid-configuration",
			func(w http.ResponseWriter, _ *http.Request) { sitetest.WriteJSON(t, w, 200, document) })
	}
	stand.mux.HandleFunc("GET /common/discovery/v2.0/keys", func(w http.ResponseWriter, _ *http.Request) {
		sitetest.WriteJSON(t, w, 200, sitetest.JSON{"keys": []any{
			sitetest.JWK(t, key, sitetest.JSON{"kid": "1", "use": "sig", "issuer": stand.URL + "/{tenantid}/v2.0"}),
		}})
	})
	stand.authorize("/common/oauth2/v2.0/authorize")
	stand.token("/common/oauth2/v2.0/token", inHeader, func(w http.ResponseWriter) {
		jsonTokens(t, sitetest.JSON{"id_token": idToken(t, key, stand.asked.Get("nonce"), claims)})(w)
	})
	option := func(name, more string) string {
		return strings.Replace(stand.option("microsoft", more), "login_with microsoft", "login_with "+name, 1)
	}
	s := loginSite(t, "signup_limit 100\n"+option("any", "")+option("work", "tenant organizations")+
		option("one", "tenant "+ours)+option("some", "tenant "+ours+" consumers")+option("trusting", "tenant "+ours+"\ntrust_email"))
	user := func(tenant, sub string, more sitetest.JSON) sitetest.JSON {
		made := sitetest.JSON{
			"iss": stand.URL + "/" + tenant + "/v2.0", "tid": tenant, "aud": "site", "sub": sub,
			"email": sub + "@example.com", "xms_edov": true,
		}
		for name, value := range more {
			made[name] = value
		}
		return made
	}
	const out, invalid, unverified = "may not be used to log in here", "response is not valid", "has not verified your e-mail"
	for _, c := range []struct {
		login  string
		claims sitetest.JSON
		says   string
	}{
		{"any", user(ours, "a1", nil), ""},
		{"any", user(theirs, "a2", nil), ""},
		{"any", user(personal, "a3", sitetest.JSON{"xms_edov": nil}), ""},
		{"any", user(theirs, "a4", sitetest.JSON{"xms_edov": nil}), unverified},
		{"any", user(theirs, "a5", sitetest.JSON{"xms_edov": false, "email_verified": true}), unverified},
		{"any", user(theirs, "a6", sitetest.JSON{"tid": ours}), invalid},
		{"any", user(theirs, "a7", sitetest.JSON{"tid": nil}), invalid},
		{"any", user("common", "a8", nil), invalid},
		{"any", user(theirs, "a9", sitetest.JSON{"iss": stand.URL + "/{tenantid}/v2.0"}), invalid},
		{"work", user(theirs, "b1", nil), ""},
		{"work", user(personal, "b2", nil), out},
		{"one", user(ours, "c1", sitetest.JSON{"xms_edov": "1"}), ""},
		{"one", user(theirs, "c2", nil), invalid},
		{"some", user(ours, "d1", nil), ""},
		{"some", user(personal, "d2", nil), ""},
		{"some", user(theirs, "d3", nil), out},
		{"trusting", user(ours, "e1", sitetest.JSON{"xms_edov": nil}), ""},
	} {
		t.Run(c.login+" "+c.claims["sub"].(string), func(t *testing.T) {
			s.T, claims = t, c.claims
			chrome := s.Visitor()
			if got := chrome.LogInBy(c.login); c.says == "" {
				chrome.MustBeIn(got)
			} else {
				chrome.MustBeOut(got, got.Status, c.says)
			}
		})
	}
	s.T = t
	// the same sub in two tenants are two users
	claims = user(ours, "same", sitetest.JSON{"email": "one@example.com"})
	one, two := s.Visitor(), s.Visitor()
	first := one.MustBeIn(one.LogInBy("any"))
	claims = user(theirs, "same", sitetest.JSON{"email": "two@example.com"})
	if first == two.MustBeIn(two.LogInBy("any")) {
		t.Error("the users of two tenants are one")
	}
	if stand.problem != "" {
		t.Error(stand.problem)
	}
}

// Apple takes a JWT as client secret, answers by a form of its own site, and only the first time with a name.
func TestPresetApple(t *testing.T) {
	stand := newStandIn(t)
	key, signing := sitetest.Keys().RSA, sitetest.Keys().P256
	der, err := x509.MarshalPKCS8PrivateKey(signing)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "AuthKey_ABC123DEFG.p8")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	stand.mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		sitetest.WriteJSON(t, w, 200, sitetest.JSON{
			"issuer": stand.URL, "authorization_endpoint": stand.URL + "/auth/authorize",
			"token_endpoint": stand.URL + "/auth/token", "jwks_uri": stand.URL + "/auth/keys",
			"response_modes_supported":              []string{"query", "fragment", "form_post"},
			"token_endpoint_auth_methods_supported": []string{"client_secret_post"},
		})
	})
	stand.mux.HandleFunc("GET /auth/keys", func(w http.ResponseWriter, _ *http.Request) {
		sitetest.WriteJSON(t, w, 200, sitetest.JSON{"keys": []any{sitetest.JWK(t, key, sitetest.JSON{"kid": "1"})}})
	})
	stand.authorize("/auth/authorize")
	stand.token("/auth/token", func(r *http.Request) bool {
		signer, err := jwt.NewKey("ABC123DEFG", &signing.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		payload, algorithm, err := jwt.VerifySignature(
			r.Context(), r.PostForm.Get("client_secret"), jwt.NewKeySet(signer), []string{"ES256"},
		)
		var made struct{ Iss, Sub, Aud string }
		return err == nil && algorithm == "ES256" && json.Unmarshal(payload, &made) == nil &&
			made.Iss == "TEAM123456" && made.Sub == "site" && made.Aud == stand.URL
	}, func(w http.ResponseWriter) {
		jsonTokens(t, sitetest.JSON{"id_token": idToken(t, key, stand.asked.Get("nonce"), sitetest.JSON{
			"iss": stand.URL, "aud": "site", "sub": "000.abc", "email": "a@example.com", "email_verified": "true",
		})})(w)
	})
	s := loginSite(t, fmt.Sprintf(`login_with apple {
		preset apple
		issuer %s
		client_id site
		team_id TEAM123456
		key_id ABC123DEFG
		private_key %s
		map_claim name name
	}`, stand.URL, file))
	chrome := s.Visitor()
	back, err := url.Parse(chrome.Out("/auth/login/apple"))
	if err != nil || stand.asked.Get("response_mode") != "form_post" {
		t.Fatal(stand.asked, err)
	}
	form := back.Query()
	form.Set("user", `{"name":{"firstName":"Ada","lastName":"L."},"email":"lie@example.com"}`)
	posted := chrome.Do(http.MethodPost, back.Path, form,
		"Origin: https://appleid.apple.com", "Sec-Fetch-Site: cross-site", "Accept: text/html")
	chrome.MustBeIn(chrome.Get(posted.To(t).String()))
	user, err := s.store().UserByEmail(t.Context(), "a@example.com")
	if err != nil || user.Profile["name"] != "Ada L." {
		t.Errorf("%+v %v", user, err)
	}
	if stand.problem != "" {
		t.Error(stand.problem)
	}
	if log := s.Log(); strings.Contains(log, "the-code") {
		t.Error("the log has the code")
	}
	if got := chrome.Do(http.MethodPost, back.Path, url.Values{"code": {strings.Repeat("x", 9<<10)}},
		"Accept: text/html"); got.Status != 401 {
		t.Errorf("a long form: %d", got.Status)
	}
}

func newTLSServer(t testing.TB, handler http.Handler) *httptest.Server {
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	return server
}
