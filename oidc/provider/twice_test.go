package provider

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// Whoever presses a button twice gets where the first would have led: a browser
// drops the answer to the first.
func TestFormsSentTwice(t *testing.T) {
	s := provider(t)
	chrome := s.browser()
	chrome.signUp("alice@example.com")

	t.Run("log-in", func(t *testing.T) {
		browser := s.browser()
		login := browser.get(s.authorizeURL("spa", nil)).to(t)
		form := url.Values{"email": {"alice@example.com"}, "password": {goodPassword}, "return_to": {login.Query().Get("return_to")}}
		var codes []string
		for range 2 {
			back := browser.get(browser.post("/auth/login", form).to(t).String())
			codes = append(codes, back.to(t).Query().Get("code"))
		}
		if codes[0] == codes[1] {
			t.Errorf("the same code twice: %v", codes)
		}
		if got := browser.redeem("spa", codes[1]); got.status != 200 {
			t.Errorf("the second: %d %s", got.status, got.body)
		}
	})
	t.Run("consent", func(t *testing.T) {
		page := chrome.get(chrome.get(s.authorizeURL("app", nil)).to(t).String())
		for range 2 {
			back := chrome.get(chrome.decide("/oidc/consent", page, "allow").to(t).String()).to(t)
			if got := chrome.redeem("app", back.Query().Get("code")); got.status != 200 {
				t.Errorf("%s: %d %s", back, got.status, got.body)
			}
		}
	})
	t.Run("no", func(t *testing.T) {
		page := chrome.get(chrome.get(s.authorizeURL("app", url.Values{"prompt": {"consent"}})).to(t).String())
		for range 2 {
			if back := chrome.decide("/oidc/consent", page, "deny").to(t); back.Query().Get("error") != "access_denied" {
				t.Errorf("%s", back)
			}
		}
		if got := chrome.decide("/oidc/consent", page, "allow"); got.status != 400 {
			t.Errorf("yes after no: %d", got.status)
		}
	})
	t.Run("device", func(t *testing.T) {
		for decision, says := range map[string]string{"allow": "Your device is connected", "deny": "was not connected"} {
			device := chrome.post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid"}}).json(t)
			page := chrome.get("/oidc/device?user_code=" + device["user_code"].(string))
			for range 2 {
				if got := chrome.decide("/oidc/device", page, decision); got.status != 200 || !strings.Contains(got.body, says) {
					t.Errorf("%s: %d %s", decision, got.status, got.body)
				}
			}
			other := map[string]string{"allow": "deny", "deny": "allow"}[decision]
			if got := chrome.decide("/oidc/device", page, other); !strings.Contains(got.body, says) {
				t.Errorf("%s after %s: %d %s", other, decision, got.status, got.body)
			}
			somebody := s.browser()
			somebody.signUp(decision + "@example.com")
			if got := somebody.decide("/oidc/device", page, decision); got.status != 404 {
				t.Errorf("somebody else: %d %s", got.status, got.body)
			}
		}
	})
}

// A request is answered once more for its user, for a minute.
func TestInteractionAnswers(t *testing.T) {
	now := time.Now()
	var i interaction
	for _, test := range []struct {
		who   string
		after time.Duration
		good  bool
	}{{"alice", 0, true}, {"alice", answeredTwice, true}, {"bob", 0, false}, {"alice", answeredTwice + 1, false}} {
		if err := i.answer(test.who, now.Add(test.after)); (err == nil) != test.good {
			t.Errorf("%s after %s: %v", test.who, test.after, err)
		}
	}
}

// Chromium holds a page's form-action against all redirects that come of its form,
// and stops without a word: a client may lead on to any site.
func TestChromiumClientLeadsOn(t *testing.T) {
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<p>welcome at the site</p>"))
	}))
	defer home.Close()
	callback := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, home.URL+"/home", http.StatusFound)
	}))
	defer callback.Close()
	s := serve(t, "client app {\n secret "+appSecret+"\n redirect_uri "+callback.URL+"/cb\n consent always\n}\nclient own {\n secret "+appSecret+"\n redirect_uri "+callback.URL+"/cb\n consent never\n}\n", "")
	s.browser().signUp("alice@example.com")
	for _, test := range []struct {
		client string
		mode   string
	}{{"own", "query"}, {"app", "query"}, {"app", "form_post"}} {
		t.Run(test.client+" "+test.mode, func(t *testing.T) {
			ctx := chromium(t)
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
			do(chromedp.Navigate(s.authorizeURL(test.client, url.Values{"redirect_uri": {callback.URL + "/cb"}, "response_mode": {test.mode}})))
			do(chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"), chromedp.SendKeys(chromedp.CSS("#password"), goodPassword+kb.Enter))
			if test.client == "app" {
				shows("would like to")
				do(chromedp.Click(chromedp.CSS(`button[value="allow"]`)))
			}
			shows("welcome at the site")
		})
	}
}
