package web_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A user with a real browser, without JavaScript and only with the keyboard: from a protected page
// to the log-in, the sign-up and back, to the account page, a new password, another session, and
// the log-out.
func TestChromium(t *testing.T) {
	s := sitetest.AccountsSite(t, "default_roles author\n token_lifetime 2s")
	ctx := chromiumtest.Start(t)
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	at := func(path string) {
		t.Helper()
		sitetest.Eventually(t, "the browser is at "+path, func() bool {
			location, err := chromedp.Run(ctx, chromedp.Location())
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := url.Parse(location)
			return err == nil && strings.EqualFold(parsed.RequestURI(), path) // html/template writes %2f for %2F
		})
	}
	shows := func(text string) {
		t.Helper()
		sitetest.Eventually(t, "the page shows "+text, func() bool {
			body, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
			return err == nil && strings.Contains(body, text) // while another page loads there is no body
		})
	}

	if _, err := chromedp.Call(
		ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true},
	); err != nil {
		t.Fatal(err)
	}
	do("protected page", chromedp.Navigate(s.URL+"/todos/list?page=2"))
	at("/auth/login?return_to=%2Ftodos%2Flist%3Fpage%3D2")
	chromiumtest.Picture(t, ctx, "login")
	do(
		"log-in that fails", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), "wrong password"+kb.Enter),
	)
	shows("Invalid email or password.")
	chromiumtest.Picture(t, ctx, "login-refused")
	do("to the sign-up", chromedp.Click(chromedp.CSS(`a[href^="/auth/signup"]`)))
	at("/auth/signup?return_to=%2Ftodos%2Flist%3Fpage%3D2")
	do(
		"a common password", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), "password1"+kb.Enter),
	)
	shows("is too common, so it is easy to guess")
	chromiumtest.Picture(t, ctx, "signup-refused")
	do("sign-up", chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	at("/todos/list?page=2")
	shows("roles=[author]")

	do("the account page", chromedp.Navigate(s.URL+"/auth/account"))
	shows("alice@example.com")
	chromiumtest.Picture(t, ctx, "account")
	sitetest.Eventually(t, "the session is renewed after its access token expired", func() bool {
		do("again", chromedp.Navigate(s.URL+"/todos/"))
		shows("roles=[author]")
		return strings.Contains(s.Get("/metrics").Body, `caddy_jwt_account_events_total{event="refresh",result="ok",`)
	})
	elsewhere := s.LoggedIn("alice@example.com")
	do("change of the password", chromedp.Navigate(s.URL+"/auth/account"),
		chromedp.SendKeys(chromedp.CSS("#currentPassword"), sitetest.GoodPassword),
		chromedp.SendKeys(chromedp.CSS("#newPassword"), "another good password"+kb.Enter))
	shows("Your password was changed")
	s.MustAnswer(401, s.Bearer("/todos/", elsewhere.Token), "the session elsewhere is ended")
	do("log-out", chromedp.Click(chromedp.CSS(`form[action="/auth/logout"] button`)))
	at("/auth/login")
	do("protected page", chromedp.Navigate(s.URL+"/todos/"))
	at("/auth/login?return_to=%2Ftodos%2F")
	do(
		"log-in with the new password", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), "another good password"+kb.Enter),
	)
	at("/todos/")
}
