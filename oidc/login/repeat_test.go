package login_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/internal/storefault"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// The results of the requests of a log-in with a provider that are sent again after one of their
// statements failed.
func TestThreatRepeatedLogIns(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := newLoginSite(t)
	sitetest.RunSites(
		t, s.LogFile, strings.ReplaceAll(s.caddyfile(p.Option("fake", "")), "store file ", "store faulty "),
	)
	var chrome *sitetest.Visitor
	everyone := s.Visitor() // its fields are set by the running test
	email := ""
	subject := func(name string) {
		email = strings.ToLower(store.RandomToken(32)[:8]) + "@example.com"
		p.Lie(sitetest.Lies{Subject: name + email, Email: email})
	}
	fresh := func() {
		subject("s")
		chrome = s.Visitor()
	}
	storefault.Repeat(t, s.Site, true, []storefault.Repetition{
		{Name: "to the provider", Begin: func(*testing.T) func() sitetest.Reply {
			fresh()
			return func() sitetest.Reply { return chrome.Get("/auth/login/fake") }
		}, Gets: []int{303}},
		{Name: "back from the provider", Begin: func(*testing.T) func() sitetest.Reply {
			fresh()
			back := chrome.Out("/auth/login/fake")
			return func() sitetest.Reply { return chrome.Get(back) }
		}, Gets: []int{303, 400}, Holds: func(_ *testing.T, second sitetest.Reply) {
			if second.Status == 400 {
				if !strings.Contains(second.Body, "Please log in again") {
					s.T.Errorf("%s", second.Body)
				}
				second = chrome.LogInBy("fake")
			}
			chrome.MustBeIn(second)
		}},
		{Name: "yes to connect", Begin: func(*testing.T) func() sitetest.Reply {
			fresh()
			chrome.SignUp(strings.ToLower(store.RandomToken(32)[:8]) + "@example.com")
			to := connectOut(chrome, "fake").To(s.T).String()
			found := offered.FindStringSubmatch(chrome.Get(to).Body)
			return func() sitetest.Reply {
				return chrome.Post("/auth/connect", url.Values{"offer": {found[1]}, "decision": {"yes"}})
			}
		}, Gets: []int{303, 400}, Holds: func(_ *testing.T, second sitetest.Reply) {
			if second.Status == 400 && !strings.Contains(second.Body, "Please log in again") {
				s.T.Errorf("%s", second.Body)
			}
		}},
		{Name: "a log-out by the provider", Begin: func(*testing.T) func() sitetest.Reply {
			fresh()
			chrome.MustBeIn(chrome.LogInBy("fake"))
			now := time.Now().Unix()
			token := p.Sign(map[string]any{
				"iss": p.URL, "aud": "site", "sub": "s" + email, "iat": now, "exp": now + 60,
				"jti": store.RandomToken(32), "events": map[string]any{protocol.LogoutEvent: map[string]any{}},
			}, p.Key)
			return func() sitetest.Reply {
				return everyone.Post("/auth/backchannel/fake", url.Values{"logout_token": {token}})
			}
		}, Gets: []int{200, 400}, Holds: func(*testing.T, sitetest.Reply) {
			sitetest.Eventually(s.T, "the session is ended", func() bool {
				return chrome.Do(http.MethodGet, "/auth/whoami", nil, "Accept: text/plain").Status == 401
			})
		}},
	})
}
