package web_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A person sets up an authenticator app, logs out, and logs in with its code, without JavaScript.
func TestChromiumSecondFactor(t *testing.T) {
	s := sitetest.AccountsSite(t, "second_factor optional")
	ctx := chromiumtest.Start(t)
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	text := func() string {
		body, err := chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body")))
		if err != nil {
			return "" // while another page loads
		}
		return body
	}
	shows := func(want string) {
		t.Helper()
		sitetest.Eventually(t, "the page shows "+want, func() bool { return strings.Contains(text(), want) })
	}
	at := func(path string) {
		t.Helper()
		sitetest.Eventually(t, "the browser is at "+path, func() bool {
			location, err := chromedp.Run(ctx, chromedp.Location())
			parsed, parseErr := url.Parse(location)
			return err == nil && parseErr == nil && strings.EqualFold(parsed.RequestURI(), path)
		})
	}
	if _, err := chromedp.Call(
		ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true},
	); err != nil {
		t.Fatal(err)
	}
	do("sign-up", chromedp.Navigate(s.URL+"/auth/signup"),
		chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	at("/auth/account")
	do("to the page", chromedp.Click(chromedp.CSS(`a[href="/auth/factors"]`)))
	at("/auth/factors")
	chromiumtest.Picture(t, ctx, "factors-none")
	do("set-up", chromedp.Click(chromedp.CSS(`form[action="/auth/factors/totp"] button`)))
	shows("Scan this picture")
	chromiumtest.Picture(t, ctx, "factors-scan")
	secret := regexp.MustCompile(`(?:[A-Z2-7]{4} ){7}[A-Z2-7]{4}`).FindString(text())
	app := accountstest.NewApp(t, secret)
	do("the first code", chromedp.SendKeys(chromedp.CSS("#code"), app.Code(0)+kb.Enter))
	shows("These are your recovery codes")
	chromiumtest.Picture(t, ctx, "factors-codes")
	do("go on", chromedp.Click(chromedp.CSS(`a.button`)))
	at("/auth/factors")
	shows("Recovery codes left: 10")
	chromiumtest.Picture(t, ctx, "factors-set")
	do("log-out", chromedp.Navigate(s.URL+"/auth/account"),
		chromedp.Click(chromedp.CSS(`form[action="/auth/logout"] button`)))
	at("/auth/login")
	do("a protected page", chromedp.Navigate(s.URL+"/todos/list?page=2"))
	at("/auth/login?return_to=%2ftodos%2flist%3fpage%3d2")
	do("log-in", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	shows("second step")
	chromiumtest.Picture(t, ctx, "factor")
	do("a wrong code", chromedp.SendKeys(chromedp.CSS("#code"), app.Wrong()+kb.Enter))
	shows("This code is wrong")
	chromiumtest.Picture(t, ctx, "factor-refused")
	do("the code, and trust", chromedp.Click(chromedp.CSS(`input[name="trust"]`)),
		chromedp.SendKeys(chromedp.CSS("#code"), app.Code(1)+kb.Enter))
	at("/todos/list?page=2")
	shows("user=[")
	do("log-out", chromedp.Navigate(s.URL+"/auth/account"),
		chromedp.Click(chromedp.CSS(`form[action="/auth/logout"] button`)))
	at("/auth/login")
	do("log-in in the trusted browser", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	at("/auth/account")
	do("the browser is listed", chromedp.Navigate(s.URL+"/auth/factors"))
	shows("This browser")
	chromiumtest.Picture(t, ctx, "factors-trusted")
}
