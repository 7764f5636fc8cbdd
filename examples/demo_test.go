package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// In a browser, the demo leads from its front page to an account, an API call with a token of its own, an
// API key, and out again.
func TestChromiumDemo(t *testing.T) {
	s := runExample(t, "")
	ctx := chromiumtest.Start(t)
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	text := func() string {
		body, _ := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body"))) // an error while the page changes
		return body
	}
	shows := func(part string) {
		t.Helper()
		sitetest.Within(t, time.Minute, "the page shows "+part, func() bool { return strings.Contains(text(), part) })
	}
	click := func(selector string) {
		t.Helper()
		do("click on "+selector, chromedp.Click(chromedp.CSS(selector)))
	}
	home := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	do("the front page", chromedp.Navigate(home))
	chromiumtest.Picture(t, ctx, "demo-front")
	click("a.button")
	shows("Log in")
	chromiumtest.Picture(t, ctx, "demo-login")
	click(`a[href^="/auth/signup"]`)
	shows("At least 8 characters")
	do("the sign-up", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), "correct horse"+kb.Enter))
	shows("Hello, alice@example.com")
	shows(`"aud":"https://films.demo.example"`)
	chromiumtest.Picture(t, ctx, "demo-hello")

	click(`a[href="/auth/keys"]`)
	shows("API keys")
	do("a key", chromedp.SendKeys(chromedp.CSS("#name"), "script"+kb.Enter))
	shows("key_")
	_, key, _ := strings.Cut(text(), "key_")
	runSteps(s, step{"/films", bearerOf("key_" + strings.Fields(key)[0]), 200, `"aud":"https://films.demo.example"`},
		step{"/films", bearerOf("key_x"), 401, ""})

	do("back", chromedp.Navigate(home+"/hello/"))
	click(`a[href^="/auth/logout"]`)
	shows("Log out")
	click(`form[action^="/auth/logout"] button`)
	shows("Create an account")
	do("again", chromedp.Navigate(home+"/hello/"))
	shows("Password")
}

// The pictures of the README are of this log-in page. `PICTURES=docs/images go test ./examples -run
// Picture` takes them again.
func TestChromiumPicture(t *testing.T) {
	ctx := chromiumtest.Start(t)
	s := sitetest.ServeLocalhost(t, `jwt {
		accounts {
			store file `+filepath.Join(sitetest.TempDir(t), "users.db")+`
			signup open
			name "The Film Club"
			accent 7a3fc0
			passkeys
			login_with google {
				client_id x
				client_secret x
			}
			login_with github {
				client_id x
				client_secret x
			}
		}
	}`)
	for _, theme := range []string{"light", "dark"} {
		page := chromiumtest.Page{T: t, Context: ctx, Name: theme}
		page.Show(theme, 400)
		err := chromedp.Do(ctx, chromedp.Navigate(s.URL+"/auth/login"), chromedp.EmulateViewport(400, 680))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"The Film Club", "Google", "GitHub", "passkey"} {
			if text := page.Text("document.body.innerText"); !strings.Contains(text, part) {
				t.Errorf("%s: the page has no %q: %s", theme, part, text)
			}
		}
		png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil || len(png) > 60<<10 {
			t.Fatalf("%s: %d bytes, %v", theme, len(png), err)
		}
		if folder := os.Getenv("PICTURES"); folder != "" {
			if err := os.WriteFile(filepath.Join(folder, "login-"+theme+".png"), png, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
