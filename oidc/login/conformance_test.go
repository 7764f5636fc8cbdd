package login_test

import (
	"bufio"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

var interactionForm = regexp.MustCompile(`action="(http[^"]+/interaction/[^"]+)"`)

// oidc-provider from npm is the provider of login_with: the whole log-in, through the
// provider's pages, in a browser.
func TestLoginWithOIDCProviderFromNPM(t *testing.T) {
	clients := caddytest.NPM(t, "../provider/testdata/clients")
	s := newLoginSite(t)
	port := strings.TrimPrefix(sitetest.FreeLocalhost(t), "localhost:")
	command := exec.Command("node", "provider.mjs", port, "site", "the-secret-of-the-site", s.URL+"/auth/callback/npm")
	command.Dir = clients
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
	sitetest.RunSites(t, s.LogFile, s.caddyfile("login_with npm {\n issuer http://localhost:"+port+
		"\n client_id site\n client_secret the-secret-of-the-site\n map_claim name name\n}\n"))
	chrome := s.Visitor()
	location := chrome.Get("/auth/login/npm?return_to=/private/x").To(t).String()
	for range 12 {
		u, err := url.Parse(location)
		if err != nil {
			t.Fatal(err)
		}
		if u.Host == "" {
			u, _ = url.Parse("http://localhost:" + port + location)
		}
		if strings.HasPrefix(u.String(), s.URL) {
			location = u.String()
			break
		}
		page := chrome.Get(u.String())
		if page.Status != http.StatusOK {
			location = page.Header.Get("Location")
			if page.Status/100 != 3 {
				t.Fatalf("%s: %d %s", u, page.Status, page.Body)
			}
			continue
		}
		form := interactionForm.FindStringSubmatch(page.Body)
		if form == nil {
			t.Fatalf("%s: %s", u, page.Body)
		}
		values := url.Values{"prompt": {"consent"}}
		if strings.Contains(page.Body, `name="password"`) {
			values = url.Values{"prompt": {"login"}, "login": {"somebody"}, "password": {"any"}}
		}
		location = chrome.Post(form[1], values).Header.Get("Location")
	}
	back := chrome.Get(location)
	if to := back.To(t).String(); to != "/private/x" {
		t.Fatalf("back at %s", to)
	}
	if got := chrome.Get("/private/x"); got.Status != 200 || !strings.Contains(got.Body, "email=somebody@example.com") {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	if got := chrome.Get("/auth/whoami").JSON(t); got["name"] != "Somebody" {
		t.Errorf("%v", got)
	}
}

// rpModule is a module of the RP basic plan, and what the provider does in it.
type rpModule struct {
	name, asserts string
	lies          func(p *sitetest.OpenIDProvider) sitetest.Lies
	accepted      bool
}

func noLies(*sitetest.OpenIDProvider) sitetest.Lies { return sitetest.Lies{} }

func claim(change func(claims map[string]any)) func(*sitetest.OpenIDProvider) sitetest.Lies {
	return func(*sitetest.OpenIDProvider) sitetest.Lies { return sitetest.Lies{Claims: change} }
}

func withoutKeyID(p *sitetest.OpenIDProvider) sitetest.Lies {
	return sitetest.Lies{Sign: func(claims map[string]any) string {
		return sitetest.SignExactly(p.T, "RS256", p.Key, map[string]any{"alg": "RS256"}, claims)
	}}
}

var rpModules = []rpModule{
	{"oidcc-client-test", "A log-in with the code flow uses state, nonce and PKCE.", noLies, true},
	{
		"oidcc-client-test-invalid-iss", "An ID token of another issuer is refused.",
		claim(func(c map[string]any) { c["iss"] = "https://other.example" }), false,
	},
	{
		"oidcc-client-test-missing-sub", "An ID token without sub is refused.",
		claim(func(c map[string]any) { delete(c, "sub") }), false,
	},
	{
		"oidcc-client-test-invalid-aud", "An ID token for another client is refused.",
		claim(func(c map[string]any) { c["aud"] = "another" }), false,
	},
	{
		"oidcc-client-test-missing-iat", "An ID token without iat is refused.",
		claim(func(c map[string]any) { delete(c, "iat") }), false,
	},
	{
		"oidcc-client-test-kid-absent-single-jwks",
		"If the set has one key, an ID token without kid is verified with it.", withoutKeyID, true,
	},
	{"oidcc-client-test-kid-absent-multiple-jwks", "If the set has several keys, each is tried. " +
		"(The suite allows acceptance and refusal.)", func(p *sitetest.OpenIDProvider) sitetest.Lies {
		l := withoutKeyID(p)
		l.MoreKeys = []any{
			sitetest.JWK(p.T, sitetest.Keys().StrangerRSA, sitetest.JSON{"kid": "other", "use": "sig", "alg": "RS256"}),
		}
		return l
	}, true},
	{"oidcc-client-test-idtoken-sig-rs256", "An ID token signed with RS256 is verified.", noLies, true},
	{
		"oidcc-client-test-idtoken-sig-none", "An unsigned ID token is refused.",
		func(p *sitetest.OpenIDProvider) sitetest.Lies {
			return sitetest.Lies{Sign: func(claims map[string]any) string {
				return sitetest.Unsigned(p.T, map[string]any{"alg": "none"}, claims) + "."
			}}
		}, false,
	},
	{
		"oidcc-client-test-invalid-sig-rs256", "An ID token with a wrong signature is refused.",
		func(p *sitetest.OpenIDProvider) sitetest.Lies {
			return sitetest.Lies{Sign: func(claims map[string]any) string {
				return sitetest.SignExactly(
					p.T, "RS256", sitetest.Keys().StrangerRSA, map[string]any{"alg": "RS256", "kid": "1"}, claims,
				)
			}}
		}, false,
	},
	{
		"oidcc-client-test-userinfo-invalid-sub", "userinfo of another subject is refused.",
		func(*sitetest.OpenIDProvider) sitetest.Lies {
			return sitetest.Lies{Claims: func(c map[string]any) { delete(c, "email") }, Userinfo: map[string]any{
				"sub": "another", "email": "alice@example.com", "email_verified": true,
			}}
		}, false,
	},
	{
		"oidcc-client-test-nonce-invalid", "An ID token with another nonce is refused.",
		claim(func(c map[string]any) { c["nonce"] = "another" }), false,
	},
	{"oidcc-client-test-scope-userinfo-claims", "Claims that the ID token lacks come " +
		"from userinfo.", func(*sitetest.OpenIDProvider) sitetest.Lies {
		return sitetest.Lies{
			Claims:   func(c map[string]any) { delete(c, "email"); delete(c, "email_verified") },
			Userinfo: map[string]any{"sub": "alice", "email": "alice@example.com", "email_verified": true},
		}
	}, true},
	{"oidcc-client-test-client-secret-basic", "The client authenticates with client_secret_basic.", noLies, true},
}

// The modules of the RP basic plan, against login_with.
func TestConformanceOfLoginWith(t *testing.T) {
	for _, m := range rpModules {
		t.Run(m.name, func(t *testing.T) {
			p := sitetest.NewOpenIDProvider(t)
			p.Lie(m.lies(p))
			s := loginSite(t, p.Option("fake", ""))
			chrome := s.Visitor()
			got := chrome.LogInBy("fake")
			if m.accepted {
				chrome.MustBeIn(got)
			} else {
				chrome.MustBeOut(got, 401, "response is not valid")
			}
		})
	}
}

// TestConformancePage compares the last part of docs/conformance.md with the table of the tests;
// -update rewrites it.
func TestConformancePage(t *testing.T) {
	var rows [][2]string
	for _, m := range rpModules {
		rows = append(rows, [2]string{m.name, m.asserts})
	}
	provider, _ := sitetest.ConformancePage(t)
	sitetest.UpToDate(
		t, sitetest.ConformanceFile,
		provider+sitetest.ConformanceTable("RP: basic", "These modules test `login_with`.", rows),
	)
}
