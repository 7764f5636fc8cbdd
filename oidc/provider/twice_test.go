package provider_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// If a user presses a button twice, the second press leads to the same page as the first, because
// the browser ignores the first response.
func TestFormsSentTwice(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")

	t.Run("log-in", func(t *testing.T) {
		browser := s.browser()
		login := browser.Get(s.authorizeURL("spa", nil)).To(t)
		form := url.Values{
			"email": {"alice@example.com"}, "password": {sitetest.GoodPassword},
			"return_to": {login.Query().Get("return_to")},
		}
		var codes []string
		for range 2 {
			back := browser.Get(browser.Post("/auth/login", form).To(t).String())
			codes = append(codes, back.To(t).Query().Get("code"))
		}
		if codes[0] == codes[1] {
			t.Errorf("the same code twice: %v", codes)
		}
		if got := browser.redeem("spa", codes[1]); got.Status != 200 {
			t.Errorf("the second: %d %s", got.Status, got.Body)
		}
	})
	t.Run("consent", func(t *testing.T) {
		page := chrome.Get(chrome.Get(s.authorizeURL("app", nil)).To(t).String())
		for range 2 {
			back := chrome.Get(chrome.Decide("/oidc/consent", page, "allow").To(t).String()).To(t)
			if got := chrome.redeem("app", back.Query().Get("code")); got.Status != 200 {
				t.Errorf("%s: %d %s", back, got.Status, got.Body)
			}
		}
	})
	t.Run("no", func(t *testing.T) {
		page := chrome.Get(chrome.Get(s.authorizeURL("app", url.Values{"prompt": {"consent"}})).To(t).String())
		for range 2 {
			if back := chrome.Decide("/oidc/consent", page, "deny").To(t); back.Query().Get("error") !=
				"access_denied" {
				t.Errorf("%s", back)
			}
		}
		if got := chrome.Decide("/oidc/consent", page, "allow"); got.Status != 400 {
			t.Errorf("yes after no: %d", got.Status)
		}
	})
	t.Run("device", func(t *testing.T) {
		for decision, says := range map[string]string{
			"allow": "Your device is connected", "deny": "was not connected",
		} {
			device := chrome.Post("/oidc/device_authorization", url.Values{
				"client_id": {"tv"}, "scope": {"openid"},
			}).JSON(t)
			page := chrome.Get("/oidc/device?user_code=" + device["user_code"].(string))
			for range 2 {
				if got := chrome.Decide("/oidc/device", page, decision); got.Status != 200 ||
					!strings.Contains(got.Body, says) {
					t.Errorf("%s: %d %s", decision, got.Status, got.Body)
				}
			}
			other := map[string]string{"allow": "deny", "deny": "allow"}[decision]
			if got := chrome.Decide("/oidc/device", page, other); !strings.Contains(got.Body, says) {
				t.Errorf("%s after %s: %d %s", other, decision, got.Status, got.Body)
			}
			somebody := s.browser()
			somebody.SignUp(decision + "@example.com")
			if got := somebody.Decide("/oidc/device", page, decision); got.Status != 404 {
				t.Errorf("somebody else: %d %s", got.Status, got.Body)
			}
		}
	})
}

// Chromium checks a page's form-action for all redirects of its form, and stops silently. A client
// may redirect to any site.
func TestChromiumClientLeadsOn(t *testing.T) {
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<p>welcome at the site</p>"))
	}))
	defer home.Close()
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, home.URL+"/home", http.StatusFound)
	}))
	defer callback.Close()
	s := serve(t, "client app {\n secret "+appSecret+"\n redirect_uri "+callback.URL+
		"/cb\n consent always\n}\nclient own {\n secret "+appSecret+"\n redirect_uri "+callback.URL+
		"/cb\n consent never\n}\n", "")
	s.browser().SignUp("alice@example.com")
	for _, test := range []struct {
		client string
		mode   string
	}{{"own", "query"}, {"app", "query"}, {"app", "form_post"}} {
		t.Run(test.client+" "+test.mode, func(t *testing.T) {
			ctx := chromiumtest.Start(t)
			do := func(actions ...chromedp.Action[chromedp.Void]) {
				t.Helper()
				if err := chromedp.Do(ctx, actions...); err != nil {
					t.Fatal(err)
				}
			}
			shows := func(text string) {
				t.Helper()
				sitetest.Eventually(t, "the page shows "+text, func() bool {
					body, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
					return err == nil && strings.Contains(body, text)
				})
			}
			do(chromedp.Navigate(s.authorizeURL(test.client, url.Values{
				"redirect_uri": {callback.URL + "/cb"}, "response_mode": {test.mode},
			})))
			do(
				chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
				chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter),
			)
			if test.client == "app" {
				shows("would like to")
				do(chromedp.Click(chromedp.CSS(`button[value="allow"]`)))
			}
			shows("welcome at the site")
		})
	}
}
