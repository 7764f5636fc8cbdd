package provider_test

import (
	"fmt"
	"html"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// chained is a provider whose users log in with another provider.
func chained(t testing.TB, p *sitetest.OpenIDProvider) *site {
	t.Helper()
	s := &site{Site: &sitetest.Site{
		T: t, URL: "http://127.0.0.1:" + sitetest.FreePort(t), LogFile: filepath.Join(t.TempDir(), "log.json"),
	}, dir: t.TempDir()}
	sitetest.RunSites(t, s.LogFile, fmt.Sprintf(`%s {
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
}`, s.URL, filepath.Join(s.dir, "users.db"), p.Option("fake", ""), spaCallback))
	return s
}

// The users of a provider may log in with another provider.
func TestLoginWithInAChain(t *testing.T) {
	s := chained(t, sitetest.NewOpenIDProvider(t))
	chrome := s.browser()
	login := chrome.Get(chrome.Get(s.authorizeURL("spa", nil)).To(t).String())
	button := regexp.MustCompile(`href="(/auth/login/fake[^"]*)"`).FindStringSubmatch(login.Body)
	if button == nil {
		t.Fatal(login.Brief())
	}
	back := chrome.Get(chrome.Out(html.UnescapeString(button[1]))).To(t).String()
	if to := chrome.GoOn(back); !strings.HasPrefix(to.String(), spaCallback) || to.Query().Get("code") == "" {
		t.Errorf("back at %s", to)
	}
}

// A client's prompt=login and max_age also work for users of another provider: that provider is
// asked for a new log-in, and must confirm it.
func TestLoginWithAsksAgain(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := chained(t, p)
	const notFresh = "requires a fresh log-in"
	login, maxAge0, anyAge := url.Values{"prompt": {"login"}}, url.Values{"max_age": {"0"}},
		url.Values{"max_age": {"600"}}
	ago := func(d time.Duration) func() any { return func() any { return time.Now().Add(-d).Unix() } }
	for _, test := range []struct {
		name     string
		asked    url.Values
		authTime func() any // auth_time of the other provider
		wants    url.Values // expected parameters at the other provider
		refused  bool
		told     bool // whether the client gets an auth_time
	}{
		{"nothing is asked, nothing told", nil, nil, nil, false, false},
		{"nothing is asked, an old log-in told", nil, ago(time.Hour), nil, false, true},
		{"prompt=login, logged in anew", login, ago(0), url.Values{"prompt": {"login"}, "max_age": {"0"}}, false, true},
		{
			"prompt=login, logged in anew by a clock that is behind", login,
			ago(20 * time.Second), url.Values{"prompt": {"login"}, "max_age": {"0"}}, false, true,
		},
		{
			"prompt=login, the old session", login, ago(time.Hour),
			url.Values{"prompt": {"login"}, "max_age": {"0"}}, true, false,
		},
		{"prompt=login, nothing told", login, nil, url.Values{"prompt": {"login"}, "max_age": {"0"}}, true, false},
		{
			"prompt=login, told in words", login, func() any { return "now" },
			url.Values{"prompt": {"login"}, "max_age": {"0"}}, true, false,
		},
		{
			"max_age=0, the old session", maxAge0, ago(time.Hour),
			url.Values{"prompt": {"login"}, "max_age": {"0"}}, true, false,
		},
		{"max_age=600, logged in before", anyAge, ago(5 * time.Minute), url.Values{"max_age": {"600"}}, false, true},
		{"max_age=600, logged in too long before", anyAge, ago(time.Hour), url.Values{"max_age": {"600"}}, true, false},
		{"max_age=600, nothing told", anyAge, nil, url.Values{"max_age": {"600"}}, true, false},
	} {
		for _, already := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, logged in already: %v", test.name, already), func(t *testing.T) {
				chrome := s.browser()
				if already { // also a control: without prompt, the provider need not return auth_time
					p.Lie(sitetest.Lies{})
					chrome.MustBeIn(chrome.LogInBy("fake"))
				}
				told := sitetest.Lies{}
				if test.authTime != nil {
					told.More = map[string]any{"auth_time": test.authTime()}
				}
				p.Lie(told)
				location := chrome.Get(chrome.authorizeURL("spa", test.asked)).To(t)
				if location.Path == "/auth/login" {
					out := chrome.Get(
						"/auth/login/fake?" + url.Values{"return_to": {location.Query().Get("return_to")}}.Encode(),
					).To(t)
					for _, name := range []string{"prompt", "max_age"} {
						if got := out.Query().Get(name); got != test.wants.Get(name) {
							t.Errorf("the provider is asked for %s %q, not %q", name, got, test.wants.Get(name))
						}
					}
					back := chrome.Get(chrome.Get(out.String()).To(t).String())
					if test.refused {
						if back.Status != 401 || !strings.Contains(back.Body, notFresh) {
							t.Errorf("got %s", back.Brief())
						}
						// A log-in without prompt does not bypass this.
						chrome.Get(chrome.Out("/auth/login/fake"))
						if again := chrome.Get(location.Query().Get("return_to")).To(t); again.Path != "/auth/login" {
							t.Errorf("a log-in for something else will do: %s", again)
						}
						return
					}
					location = chrome.Get(back.To(t).String()).To(t)
				} else if test.asked != nil || !already {
					t.Fatalf("no log-in: %s", location)
				}
				tokens := chrome.redeem("spa", location.Query().Get("code")).JSON(t)
				claims := sitetest.ClaimsOf(t, tokens["id_token"].(string))
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
