package web_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// axeSite has every page.
func axeSite(t *testing.T) (*sitetest.Site, *postbox) {
	t.Helper()
	server := sitetest.NewSMTPServer(t).Start()
	s := sitetest.ServeLocalhost(t, `
		jwt /admin/* {
			require role admin
			api_keys
			accounts {
				store file `+filepath.Join(sitetest.TempDir(t), "users.db")+`
				signup open
				name "The Shop"
				accent gold
				profile name phone_number
				second_factor optional
				passkeys
				email_login
				`+mailOption(server, "")+`
			}
		}
		respond ok`)
	return s, &postbox{Site: s, server: server}
}

// No page has a fault that axe-core finds, in both themes, on a phone and on a desk, and none is
// wider than its window, also when it is written from right to left. No page is heavy.
func TestPagesAreAccessible(t *testing.T) {
	axe, err := os.ReadFile(filepath.Join(caddytest.NPM(t, "testdata/axe"), "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := axeSite(t)
	ctx := chromiumtest.Start(t)
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	open := func(path string) { t.Helper(); do(path, chromedp.Navigate(s.URL+path)) }
	files := len(s.Get("/auth/style.css").Body) + len(s.Get("/auth/script.js").Body)
	check := func(name, title string) {
		t.Helper()
		sitetest.Eventually(t, "the page "+name+" is there", func() bool {
			got, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.readyState + document.title`))
			return err == nil && strings.HasPrefix(got, "complete") && strings.Contains(got, title)
		})
		checkPage(t, chromiumtest.Page{T: t, Context: ctx, Name: name}, string(axe), files)
		chromiumtest.Picture(t, ctx, strings.NewReplacer("/", "-", "?", "-").Replace(name))
	}

	open("/auth/login")
	check("login", "Log in")
	login := chromiumtest.Page{T: t, Context: ctx, Name: "login"}
	if shown := login.Text(`const button = document.querySelector(".reveal button"); button.click();` +
		`document.querySelector("#password").type + " " + button.getAttribute("aria-label")`); shown != "text Hide: Password" {
		t.Errorf("after a click on Show: %s", shown)
	}
	open("/auth/login")
	do("log-in that fails", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), "wrong password"+kb.Enter))
	check("login refused", "Error: Log in")
	for path, title := range map[string]string{
		"/auth/signup": "Create an account", "/auth/forgot": "password", "/auth/code": "code", "/auth/reset?token=x": "link",
		"/auth/whoami": "Please log in",
	} {
		open(path)
		check(path, title)
	}
	open("/auth/signup")
	do("sign-up that fails", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), "password1"+kb.Enter))
	check("signup refused", "Error: Create an account")
	do("sign-up", chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	check("account", "Your account")
	for path, title := range map[string]string{
		"/admin/": "no access", "/auth/delete": "Delete your account", "/auth/logout": "Log out?", "/auth/email": "address",
		"/auth/factors": "Two-step", "/auth/keys": "keys", "/auth/passkeys": "passkeys",
	} {
		open(path)
		check(path, title)
	}
	open("/auth/keys")
	do("a key", chromedp.SendKeys(chromedp.CSS("#name"), "backup"+kb.Enter))
	sitetest.Eventually(t, "the key is shown", func() bool {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.querySelector(".key") !== null`))
		return err == nil && got
	})
	check("a key", "keys")

	token := s.LoggedIn("alice@example.com").Token
	accountstest.WithPasskey(s, token)
	accountstest.WithApp(s, token)
	open("/auth/passkeys")
	do("the details", chromedp.Click(chromedp.CSS("li summary")))
	check("passkeys", "passkeys")
	open("/auth/factors")
	check("factors", "Two-step")
	do("log-in with a factor", chromedp.Navigate(s.URL+"/auth/login"),
		chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	check("factor", "second step")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Email = strings.Repeat("long", 15) + "@example.com" })
	open("/auth/account")
	check("account with a long address", "Your account")
}

const maxPageBytes = 30 << 10

// checkPage checks the page that the browser shows.
func checkPage(t *testing.T, page chromiumtest.Page, axe string, files int) {
	t.Helper()
	if weight := len(page.Text("document.documentElement.outerHTML")) + files; weight > maxPageBytes {
		t.Errorf("%s: %d bytes, with its style and script", page.Name, weight)
	} else {
		t.Logf("%s: %d bytes, with its style and script", page.Name, weight)
	}
	if others := page.Text(`performance.getEntriesByType("resource").map(e => new URL(e.name).host)` +
		`.filter(h => h !== location.host).join(" ")`); others != "" {
		t.Errorf("%s: it asks other hosts: %s", page.Name, others)
	}
	page.Text(axe + `;"there"`)
	for _, theme := range []string{"light", "dark"} {
		for _, width := range []int64{320, 1280} {
			page.Show(theme, width)
			var violations []struct {
				ID, Help string
				Nodes    []struct{ HTML string }
			}
			found := page.Text(`axe.run().then(r => JSON.stringify(r.violations))`)
			if err := json.Unmarshal([]byte(found), &violations); err != nil {
				t.Fatal(err)
			}
			for _, v := range violations {
				t.Errorf("%s, %s, %d pixels: %s: %s at %v", page.Name, theme, width, v.ID, v.Help, v.Nodes)
			}
			for _, direction := range []string{"ltr", "rtl"} {
				if wide := page.Text(fmt.Sprintf(
					`document.documentElement.dir = %q; String(document.documentElement.scrollWidth > innerWidth)`, direction,
				)); wide != "false" {
					t.Errorf("%s, %d pixels, %s: it is wider than its window", page.Name, width, direction)
				}
			}
			page.Text(`document.documentElement.removeAttribute("dir"); ""`)
		}
	}
}
