package login_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// What goes wrong because of the config or the provider is a warning that says what to change, once;
// and is only told as an outage if the provider did not answer.
func TestLoginFaultsAreTold(t *testing.T) {
	const refused, outage, never = "response is not valid", "temporarily unavailable", "trying again will not help"
	answers := func(status int, kind, body string) sitetest.Lies {
		return sitetest.Lies{OnToken: func(w http.ResponseWriter) bool {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}}
	}
	fails := func(code string) sitetest.Lies {
		return sitetest.Lies{Answer: func(v url.Values) { v.Del("code"); v.Set("error", code) }}
	}
	claims := func(change func(c sitetest.JSON)) sitetest.Lies { return sitetest.Lies{Claims: change} }
	for name, c := range map[string]struct {
		lies   sitetest.Lies
		status int
		shows  string
		warns  string // empty for nothing
	}{
		"invalid_scope":       {fails("invalid_scope"), 401, refused, "allow it there, or set other scopes"},
		"unauthorized_client": {fails("unauthorized_client"), 401, refused, "compare client_id"},
		"access_denied":       {fails("access_denied"), 401, "did not log you in", ""},
		"no nonce": {
			claims(func(c sitetest.JSON) { delete(c, "nonce") }), 401, refused, "set without_nonce",
		},
		"another alg": {sitetest.Lies{Sign: func(c sitetest.JSON) string {
			delete(c, "at_hash")
			return sitetest.SignExactly(t, "HS256", []byte("x"), sitetest.JSON{"alg": "HS256"}, c)
		}}, 401, refused, "the ID token is not valid"},
		"a key that is not published": {sitetest.Lies{Sign: func(c sitetest.JSON) string {
			return sitetest.SignExactly(
				t, "RS256", sitetest.Keys().StrangerRSA, sitetest.JSON{"alg": "RS256", "kid": "another"}, c,
			)
		}}, 401, refused, "a key that the provider does not publish"},
		"another issuer": {
			claims(func(c sitetest.JSON) { c["iss"] = "https://other.example" }), 401, refused, "write issuer exactly",
		},
		"invalid_client": {
			answers(401, "application/json", `{"error":"invalid_client"}`), 401, refused, "auth_method client_secret_post",
		},
		"invalid_grant": {answers(400, "application/json", `{"error":"invalid_grant"}`), 401, refused, "without_pkce"},
		"a page":        {answers(200, "text/html", "<html>"), 502, never, "is it the right URL?"},
		"no access token": {
			answers(200, "application/json", `{"token_type":"bearer"}`), 502, never, "is it the right URL?",
		},
		"500":         {answers(500, "text/plain", "x"), 503, outage, "log-ins at the provider fail"},
		"no ID token": {sitetest.Lies{Tokens: func(a sitetest.JSON) { delete(a, "id_token") }}, 401, refused, "OAuth 2.0"},
		"userinfo without sub": {sitetest.Lies{
			Claims:   func(c sitetest.JSON) { delete(c, "email") },
			Userinfo: sitetest.JSON{"sub": 17, "email": "a@example.com"},
		}, 502, never, "userinfo is not valid"},
		"no address": {
			sitetest.Lies{Subject: "none", Userinfo: sitetest.JSON{"sub": "none"}},
			403, "did not tell this site an e-mail", "set email_claim",
		},
		"no address but a name": {
			sitetest.Lies{Subject: "name", Email: "alice"}, 403, "is not valid, so no account", "set email_claim",
		},
		"address with blanks": {
			sitetest.Lies{Subject: "name", Email: "  "}, 403, "is not valid, so no account", "set email_claim",
		},
		"address too long": {
			sitetest.Lies{Subject: "name", Email: strings.Repeat("a", 300) + "@example.com"},
			403, "is not valid, so no account", "set email_claim",
		},
		"addresses in a list": {
			sitetest.Lies{Subject: "name", Email: "x", Claims: func(c sitetest.JSON) { c["email"] = []string{"a@b.example"} }},
			403, "is not valid, so no account", "set email_claim",
		},
		"ID token too large": {
			claims(func(c sitetest.JSON) {
				c["groups"] = slices.Repeat([]string{"a group with a name of 40 characters"}, 500)
			}),
			401, refused, "is too large; let it send fewer claims",
		},
		"no iss in the answer": {
			sitetest.Lies{Answer: func(v url.Values) { v.Del("iss") }}, 401, refused, "the response has no iss",
		},
		"another iss in the answer": {
			sitetest.Lies{Answer: func(v url.Values) { v.Set("iss", "https://b.example") }}, 401, refused,
			"write issuer exactly",
		},
		"empty sub": {claims(func(c sitetest.JSON) { c["sub"] = "" }), 401, refused, "no ID of the user (sub)"},
		"sub is 17": {claims(func(c sitetest.JSON) { c["sub"] = 17 }), 401, refused, "the ID token is not valid"},
		"no iat":    {claims(func(c sitetest.JSON) { delete(c, "iat") }), 401, refused, "compare the clocks"},
		"iat ahead": {
			claims(func(c sitetest.JSON) { c["iat"] = time.Now().Unix() + 3600 }), 401, refused, "compare the clocks",
		},
		"another azp":     {claims(func(c sitetest.JSON) { c["azp"] = "b" }), 401, refused, "compare issuer and client_id"},
		"another at_hash": {claims(func(c sitetest.JSON) { c["at_hash"] = "b" }), 401, refused, "at_hash of the ID token"},
		"address not verified": {
			sitetest.Lies{Subject: "not", Email: "not@example.com", Unverified: true},
			403, "has not verified your e-mail", "set trust_email",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := sitetest.NewOpenIDProvider(t)
			s := loginSite(t, p.Option("fake", ""))
			p.Lie(c.lies)
			for range 3 {
				chrome := s.Visitor()
				chrome.MustBeOut(chrome.LogInBy("fake"), c.status, c.shows)
			}
			var warnings []string
			for line := range strings.Lines(s.Log()) {
				var entry struct{ Level, Msg, Login, See string }
				if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "warn" && entry.Login == "fake" {
					warnings = append(warnings, entry.Msg+" "+entry.See)
				}
			}
			if c.warns == "" && len(warnings) == 0 {
				return
			}
			if len(warnings) != 1 || !strings.Contains(warnings[0], c.warns) || c.warns == "" {
				t.Errorf("warnings %q, expected one with %q", warnings, c.warns)
			}
			p.Lie(sitetest.Lies{}) // control
			chrome := s.Visitor()
			chrome.MustBeIn(chrome.LogInBy("fake"))
		})
	}
}

// A key set that is wrong is no outage either, but one that cannot be fetched is.
func TestLoginKeySetFaults(t *testing.T) {
	const outage, never = "temporarily unavailable", "trying again will not help"
	for name, c := range map[string]struct {
		status int
		body   string
		closed bool // without an answer

		page   int
		shows  string
		logged string
	}{
		"a page":            {status: 200, body: "<html>", page: 502, shows: never, logged: "not JSON"},
		"no keys":           {status: 200, body: `{"keys":[]}`, page: 502, shows: never, logged: "has no keys"},
		"a list":            {status: 200, body: `[{"kty":"RSA"}]`, page: 502, shows: never, logged: "RFC 7517"},
		"a name twice":      {status: 200, body: `{"keys":[],"keys":[]}`, page: 502, shows: never, logged: "keys"},
		"no usable key":     {status: 200, body: `{"keys":[{"kty":"RSA"}]}`, page: 502, shows: never, logged: "is usable"},
		"an encryption key": {status: 200, body: `{"keys":[{"kty":"RSA","use":"enc"}]}`, page: 502, shows: never, logged: "none for"},
		"not found":         {status: 404, page: 502, shows: never, logged: "404"},
		"no answer":         {closed: true, page: 503, shows: outage, logged: "EOF"},
		"500":               {status: 500, page: 503, shows: outage, logged: "500"},
		"busy":              {status: 429, page: 503, shows: outage, logged: "429"},
	} {
		t.Run(name, func(t *testing.T) {
			p := sitetest.NewOpenIDProvider(t)
			s := loginSite(t, p.Option("fake", ""))
			p.Lie(sitetest.Lies{OnKeys: func(w http.ResponseWriter) bool {
				if c.closed {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
				return true
			}})
			for range 2 {
				chrome := s.Visitor()
				chrome.MustBeOut(chrome.LogInBy("fake"), c.page, c.shows)
			}
			var warnings []string
			for line := range strings.Lines(s.Log()) {
				var entry struct{ Level, Msg, Login, Error string }
				if json.Unmarshal([]byte(line), &entry) == nil && entry.Level == "warn" && entry.Login == "fake" {
					warnings = append(warnings, entry.Msg+" "+entry.Error)
				}
			}
			if len(warnings) != 1 || !strings.Contains(warnings[0], c.logged) ||
				!strings.Contains(warnings[0], p.URL+"/keys") ||
				strings.Contains(warnings[0], "compare jwks_uri") != (c.page == 502) {
				t.Errorf("warnings %q", warnings)
			}
		})
	}
}

// A discovery document that is wrong is no outage; see TestLoginWithOutage for one.
func TestLoginDiscoveryFaults(t *testing.T) {
	stand := newStandIn(t)
	stand.mux.HandleFunc("GET /slash/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		sitetest.WriteJSON(t, w, 200, sitetest.JSON{"issuer": stand.URL + "/slash/"})
	})
	stand.mux.HandleFunc("GET /plain/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		sitetest.WriteJSON(t, w, 200, sitetest.JSON{
			"issuer": stand.URL + "/plain", "authorization_endpoint": stand.URL + "/a", "jwks_uri": stand.URL + "/k",
			"token_endpoint": "http://keycloak.example:8080/token",
		})
	})
	option := func(name string) string {
		return fmt.Sprintf("login_with %s {\n issuer %s/%[1]s\n client_id site\n}\n", name, stand.URL)
	}
	s := loginSite(t, option("slash")+option("plain")+option("none"))
	for name, logged := range map[string]string{
		"slash": "slash/", "plain": "set allow_http", "none": "404",
	} {
		chrome := s.Visitor()
		got := chrome.Get("/auth/login/" + name)
		chrome.MustBeOut(got, 502, "trying again will not help")
		if log := s.Log(); !strings.Contains(log, "provider discovery fails") ||
			!strings.Contains(log, logged) || !strings.Contains(log, `"login":"`+name+`"`) {
			t.Errorf("%s: the log does not say why", name)
		}
	}
}

// What some providers do, with the option for it.
func TestLoginDeviations(t *testing.T) {
	t.Run("LinkedIn: no nonce", func(t *testing.T) {
		p := sitetest.NewOpenIDProvider(t)
		s := loginSite(t, p.Option("fake", "without_nonce"))
		p.Lie(sitetest.Lies{Claims: func(c sitetest.JSON) { delete(c, "nonce") }})
		chrome := s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("fake"))
		p.Lie(sitetest.Lies{Claims: func(c sitetest.JSON) { c["nonce"] = "another" }})
		chrome = s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("fake"), 401, "response is not valid")
	})
	t.Run("LinkedIn: the preset", func(t *testing.T) {
		p := sitetest.NewOpenIDProvider(t)
		s := loginSite(t, p.Option("linkedin", "preset linkedin\nauth_method client_secret_basic"))
		p.Lie(sitetest.Lies{Claims: func(c sitetest.JSON) { delete(c, "nonce") }})
		chrome := s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("linkedin"))
	})
	t.Run("Google: hd", func(t *testing.T) {
		p := sitetest.NewOpenIDProvider(t)
		s := loginSite(t, p.Option("google", "preset google\nallow domain example.com"))
		chrome := s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("google"), 403, "may not be used") // an address alone can be anybody's
		p.Lie(sitetest.Lies{More: sitetest.JSON{"hd": "example.com"}})
		chrome.MustBeIn(chrome.LogInBy("google"))
	})
	t.Run("GitLab: groups are in userinfo", func(t *testing.T) {
		p := sitetest.NewOpenIDProvider(t)
		s := loginSite(t, p.Option("gitlab", "preset gitlab\nallow group acme/backend\nroles_from groups"))
		for group, in := range map[string]bool{"acme/backend": true, "acme": false} {
			p.Lie(sitetest.Lies{
				Subject: "alice", Email: "alice@example.com",
				Userinfo: sitetest.JSON{"sub": "alice", "groups": []string{"others", group}},
			})
			chrome := s.Visitor()
			if got := chrome.LogInBy("gitlab"); in {
				chrome.MustBeIn(got)
			} else {
				chrome.MustBeOut(got, 403, "may not be used")
			}
		}
		p.Lie(sitetest.Lies{Subject: "alice", Email: "alice@example.com"}) // userinfo fails: who knows the groups?
		chrome := s.Visitor()
		chrome.MustBeOut(chrome.LogInBy("gitlab"), 502, "trying again will not help")
	})
	t.Run("tokens as text/plain", func(t *testing.T) {
		stand := newStandIn(t)
		stand.discord(sitetest.JSON{"id": "1", "email": "a@example.com", "verified": true})
		s := loginSite(t, stand.option("discord", "token_endpoint "+stand.URL+"/plain"))
		stand.token("/plain", inHeader, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte(`{"access_token":"the-access-token","token_type":"bearer"}`))
		})
		chrome := s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("discord"))
	})
	t.Run("no PKCE, the secret in the form, parameters", func(t *testing.T) {
		stand := newStandIn(t)
		stand.authorize("/oauth2/authorize")
		stand.mux.HandleFunc("POST /api/oauth2/token", func(w http.ResponseWriter, r *http.Request) {
			_ = r.ParseForm()
			if r.PostForm.Has("code_verifier") || stand.asked.Has("code_challenge") || !inForm(r) ||
				stand.asked.Get("prompt") != "select_account" {
				w.WriteHeader(400)
				return
			}
			jsonTokens(t, nil)(w)
		})
		stand.api("/api/users/@me", always(sitetest.JSON{"id": "1", "email": "a@example.com", "verified": true}))
		s := loginSite(t, stand.option("discord",
			"without_pkce\nauth_method client_secret_post\nauthorization_parameter prompt select_account"))
		chrome := s.Visitor()
		chrome.MustBeIn(chrome.LogInBy("discord"))
	})
	t.Run("a CA of one's own", func(t *testing.T) {
		stand := &standIn{t: t, mux: http.NewServeMux()}
		stand.Server = newTLSServer(t, stand.mux)
		stand.discord(sitetest.JSON{"id": "1", "email": "a@example.com", "verified": true})
		file := filepath.Join(t.TempDir(), "ca.pem")
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stand.Certificate().Raw})
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s := loginSite(t, stand.option("discord", "trusted_ca_certs "+file)+
			strings.Replace(stand.option("discord", ""), "login_with discord", "login_with without", 1))
		for name, in := range map[string]bool{"discord": true, "without": false} {
			chrome := s.Visitor()
			begun, _ := url.Parse(chrome.Get("/auth/login/" + name).To(t).String())
			stand.asked = begun.Query() // the browser trusts the CA
			back := begun.Query().Get("redirect_uri") + "?code=the-code&state=" + begun.Query().Get("state")
			at, _ := url.Parse(back)
			if got := chrome.Get(at.RequestURI()); in {
				chrome.MustBeIn(got)
			} else {
				chrome.MustBeOut(got, 503, "temporarily unavailable")
			}
		}
	})
}

// With auto_login, whoever must log in is sent straight to the provider; but nobody who logs out, or
// whom the provider refuses.
func TestAutoLogin(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", "auto_login"))
	chrome := s.Visitor()
	login := chrome.Get("/private/x").To(t).String()
	out := chrome.Do(http.MethodGet, login, nil, "Accept: text/html", "Sec-Fetch-Site: cross-site") // from a link
	if at := out.To(t).String(); !strings.HasPrefix(at, p.URL) {
		t.Fatal(at)
	}
	back := chrome.Get(out.To(t).String()).To(t)
	if got := chrome.Get(back.RequestURI()); got.Status != 303 || got.To(t).String() != "/private/x" {
		t.Fatal(got.Brief())
	}
	if page := chrome.Get(chrome.Post("/auth/logout", url.Values{}).To(t).String()); page.Status != 200 {
		t.Errorf("after log-out: %s", page.Brief())
	}
	p.Lie(sitetest.Lies{Answer: func(v url.Values) { v.Del("code"); v.Set("error", "access_denied") }})
	other := s.Visitor()
	other.MustBeOut(other.Get(other.Out("/auth/login?return_to=/private/x")), 401, "did not log you in")
}
