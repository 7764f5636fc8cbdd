package provider

import (
	"bufio"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

var interactionForm = regexp.MustCompile(`action="(http[^"]+/interaction/[^"]+)"`)

// oidc-provider from npm as the provider of login_with: the whole way, by its own
// pages, in a browser.
func TestLoginWithOIDCProviderFromNPM(t *testing.T) {
	needNPM(t)
	s := newLoginSite(t)
	port := strings.TrimPrefix(sitetest.FreeLocalhost(t), "localhost:")
	command := exec.Command("node", "provider.mjs", port, "site", "the-secret-of-the-site", s.url+"/auth/callback/npm")
	command.Dir = "testdata/clients"
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	command.Stderr = &complaints
	scenario.Start(t, command)
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	if lines := bufio.NewScanner(stdout); !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("oidc-provider does not start: %s", complaints.String())
	}
	run(t, s.logFile, s.caddyfile("login_with npm {\n issuer http://localhost:"+port+"\n client_id site\n client_secret the-secret-of-the-site\n map_claim name name\n}\n"))
	chrome := s.browser()
	location := chrome.get("/auth/login/npm?return_to=/private/x").to(t).String()
	for range 12 {
		u, err := url.Parse(location)
		if err != nil {
			t.Fatal(err)
		}
		if u.Host == "" {
			u, _ = url.Parse("http://localhost:" + port + location)
		}
		if strings.HasPrefix(u.String(), s.url) {
			location = u.String()
			break
		}
		page := chrome.get(u.String())
		if page.status != http.StatusOK {
			location = page.header.Get("Location")
			if page.status/100 != 3 {
				t.Fatalf("%s: %d %s", u, page.status, page.body)
			}
			continue
		}
		form := interactionForm.FindStringSubmatch(page.body)
		if form == nil {
			t.Fatalf("%s: %s", u, page.body)
		}
		values := url.Values{"prompt": {"consent"}}
		if strings.Contains(page.body, `name="password"`) {
			values = url.Values{"prompt": {"login"}, "login": {"somebody"}, "password": {"any"}}
		}
		location = chrome.post(form[1], values).header.Get("Location")
	}
	back := chrome.get(location)
	if to := back.to(t).String(); to != "/private/x" {
		t.Fatalf("back at %s", to)
	}
	if got := chrome.get("/private/x"); got.status != 200 || !strings.Contains(got.body, "email=somebody@example.com") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := chrome.get("/auth/whoami").json(t); got["name"] != "Somebody" {
		t.Errorf("%v", got)
	}
}

// rpModule is one of the RP basic plan, and what a provider does in it.
type rpModule struct {
	name, asserts string
	lies          func(p *fakeProvider) lies
	accepted      bool
}

func noLies(*fakeProvider) lies { return lies{} }

func claim(change func(claims map[string]any)) func(*fakeProvider) lies {
	return func(*fakeProvider) lies { return lies{claims: change} }
}

func withoutKeyID(p *fakeProvider) lies {
	return lies{sign: func(claims map[string]any) string {
		return signedWith(map[string]any{"alg": "RS256"}, claims, p.key)
	}}
}

var rpModules = []rpModule{
	{"oidcc-client-test", "A log-in by the code flow, with state, nonce and PKCE.", noLies, true},
	{"oidcc-client-test-invalid-iss", "An ID token of another issuer is refused.", claim(func(c map[string]any) { c["iss"] = "https://other.example" }), false},
	{"oidcc-client-test-missing-sub", "An ID token without sub is refused.", claim(func(c map[string]any) { delete(c, "sub") }), false},
	{"oidcc-client-test-invalid-aud", "An ID token for another client is refused.", claim(func(c map[string]any) { c["aud"] = "another" }), false},
	{"oidcc-client-test-missing-iat", "An ID token without iat is refused.", claim(func(c map[string]any) { delete(c, "iat") }), false},
	{"oidcc-client-test-kid-absent-single-jwks", "An ID token without kid is verified by the one key of the set.", withoutKeyID, true},
	{"oidcc-client-test-kid-absent-multiple-jwks", "So it is where the set has several keys: the suite takes either, and here each is tried.", func(p *fakeProvider) lies {
		l := withoutKeyID(p)
		l.moreKeys = []any{rsaJWK(fakeKeys()[1], "other")}
		return l
	}, true},
	{"oidcc-client-test-idtoken-sig-rs256", "An ID token signed by RS256 is verified.", noLies, true},
	{"oidcc-client-test-idtoken-sig-none", "An unsigned ID token is refused.", func(*fakeProvider) lies {
		return lies{sign: func(claims map[string]any) string { return unsigned(map[string]any{"alg": "none"}, claims) + "." }}
	}, false},
	{"oidcc-client-test-invalid-sig-rs256", "An ID token with a wrong signature is refused.", func(*fakeProvider) lies {
		return lies{sign: func(claims map[string]any) string {
			return signedWith(map[string]any{"alg": "RS256", "kid": "1"}, claims, fakeKeys()[1])
		}}
	}, false},
	{"oidcc-client-test-userinfo-invalid-sub", "userinfo of another subject is refused.", func(*fakeProvider) lies {
		return lies{claims: func(c map[string]any) { delete(c, "email") }, userinfo: map[string]any{"sub": "another", "email": "alice@example.com", "email_verified": true}}
	}, false},
	{"oidcc-client-test-nonce-invalid", "An ID token with another nonce is refused.", claim(func(c map[string]any) { c["nonce"] = "another" }), false},
	{"oidcc-client-test-scope-userinfo-claims", "Claims that the ID token lacks come from userinfo.", func(*fakeProvider) lies {
		return lies{claims: func(c map[string]any) { delete(c, "email"); delete(c, "email_verified") }, userinfo: map[string]any{"sub": "alice", "email": "alice@example.com", "email_verified": true}}
	}, true},
	{"oidcc-client-test-client-secret-basic", "The client authenticates by client_secret_basic.", noLies, true},
}

// The modules of the RP basic plan, against login_with.
func TestConformanceOfLoginWith(t *testing.T) {
	for _, m := range rpModules {
		t.Run(m.name, func(t *testing.T) {
			p := newFakeProvider(t)
			p.lie(m.lies(p))
			s := loginSite(t, p.option("fake", ""))
			chrome := s.browser()
			got := chrome.logInBy("fake")
			if m.accepted {
				chrome.mustBeIn(got)
			} else {
				chrome.mustBeOut(got, 401, "response is not valid")
			}
		})
	}
}
