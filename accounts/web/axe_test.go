package web_test

import (
	"encoding/json"
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
func axeSite(t *testing.T, more string) (*sitetest.Site, *postbox) {
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
				`+mailOption(server, "")+more+`
			}
		}
		respond ok`)
	return s, &postbox{Site: s, server: server}
}

// No page has a fault that axe-core finds, in both themes, on a phone and on a desk, and none is
// wider than its window, also when it is written from right to left. No page is heavy.
func TestPagesAreAccessible(t *testing.T) {
	visitPages(t, "en", "", looks{themes: []string{"light", "dark"}, widths: []int64{320, 1280}, mirrored: true})
}

// So are the pages in a language with long words, and in one that is written from right to left, in
// which every text is translated.
func TestPagesOfLanguagesAreAccessible(t *testing.T) {
	for language, options := range map[string]string{"de": "", "ar": "languages " + otherScript(t)} {
		t.Run(language, func(t *testing.T) {
			visitPages(t, language, options, looks{
				themes: []string{"light"}, widths: []int64{320}, untranslated: language == "ar",
			})
		})
	}
}

// looks are in what ways a page is looked at.
type looks struct {
	themes       []string
	widths       []int64
	mirrored     bool // also from right to left
	untranslated bool // no word may be in Latin letters, but for names
}

// visitPages opens every page in a language, and checks it.
func visitPages(t *testing.T, language, options string, looks looks) {
	axe, err := os.ReadFile(filepath.Join(caddytest.NPM(t, "testdata/axe"), "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := axeSite(t, options)
	words := accountstest.ServiceOf(t).Texts().Accepting(language)
	ctx := chromiumtest.Start(t, chromedp.Flag("accept-lang", language))
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	open := func(path string) { t.Helper(); do(path, chromedp.Navigate(s.URL+path)) }
	files := len(s.Get("/auth/style.css").Body) + len(s.Get("/auth/script.js").Body)
	// title is that of the page, after what marks an error.
	check := func(name, title string) {
		t.Helper()
		want, _, _ := strings.Cut(words.Text(title), "%")
		sitetest.Eventually(t, "the page "+name+" is there", func() bool {
			got, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.readyState + document.title`))
			return err == nil && strings.HasPrefix(got, "complete") && strings.Contains(got, want) &&
				strings.Contains(got, words.Text("Error:")) == strings.HasSuffix(name, " refused")
		})
		page := chromiumtest.Page{T: t, Context: ctx, Name: name}
		if got := page.Text("document.documentElement.lang"); got != language {
			t.Errorf("%s: it is in %s", name, got)
		}
		checkPage(t, page, string(axe), files, looks)
		chromiumtest.Picture(t, ctx, language+"-"+strings.NewReplacer("/", "-", "?", "-").Replace(name))
	}

	open("/auth/login")
	check("login", "Log in")
	login := chromiumtest.Page{T: t, Context: ctx, Name: "login"}
	if shown := login.Text(`const button = document.querySelector(".reveal button"); button.click();` +
		`document.querySelector("#password").type + " " + button.getAttribute("aria-label")`); shown != "text "+
		words.Text("Hide")+": "+words.Text("Password") {
		t.Errorf("after a click on Show: %s", shown)
	}
	open("/auth/login")
	do("log-in that fails", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), "wrong password"+kb.Enter))
	check("login refused", "Log in")
	for path, title := range map[string]string{
		"/auth/signup": "Create an account", "/auth/forgot": "Forgot your password?", "/auth/code": "Log in with a code",
		"/auth/reset?token=x": "This link does not work", "/auth/whoami": "Please log in",
	} {
		open(path)
		check(path, title)
	}
	open("/auth/signup")
	do("sign-up that fails", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), "password1"+kb.Enter))
	check("signup refused", "Create an account")
	do("sign-up", chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	check("account", "Your account")
	for path, title := range map[string]string{
		"/admin/": "You have no access to this page", "/auth/delete": "Delete your account %s?", "/auth/logout": "Log out?",
		"/auth/email": "Change your e-mail address", "/auth/factors": "Two-step log-in", "/auth/keys": "API keys",
		"/auth/passkeys": "Your passkeys", "/auth/explorer": "API explorer",
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
	check("a key", "API keys")

	token := s.LoggedIn("alice@example.com").Token
	accountstest.WithPasskey(s, token)
	accountstest.WithApp(s, token)
	open("/auth/passkeys")
	do("the details", chromedp.Click(chromedp.CSS("li summary")))
	check("passkeys", "Your passkeys")
	open("/auth/factors")
	check("factors", "Two-step log-in")
	do("log-in with a factor", chromedp.Navigate(s.URL+"/auth/login"),
		chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	check("factor", "Log in: second step")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Email = strings.Repeat("long", 15) + "@example.com" })
	open("/auth/account")
	check("account with a long address", "Your account")
}

const maxPageBytes = 30 << 10

// checkPage checks the page that the browser shows.
func checkPage(t *testing.T, page chromiumtest.Page, axe string, files int, looks looks) {
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
	if looks.untranslated && page.Name != "/auth/explorer" { // which shows the OpenAPI document
		if found := page.Text(latin); found != "" {
			t.Errorf("%s: not translated: %s", page.Name, found)
		}
	}
	page.Text(axe + `;"there"`)
	for _, theme := range looks.themes {
		for _, width := range looks.widths {
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
			const wider = `String(document.documentElement.scrollWidth > innerWidth)`
			if page.Text(wider) != "false" {
				t.Errorf("%s, %d pixels: it is wider than its window", page.Name, width)
			}
			if looks.mirrored && page.Text(`document.documentElement.dir = "rtl"; `+wider) != "false" {
				t.Errorf("%s, %d pixels, from right to left: it is wider than its window", page.Name, width)
			}
			if looks.mirrored {
				page.Text(`document.documentElement.dir = "ltr"; ""`)
			}
		}
	}
}

// latin finds words in Latin letters on a page, but for those of users, names, addresses and values.
const latin = `(() => {
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
	const names = /\S+@\S+|The Shop|\b(alice|backup|[Pp]hone|user|Go-http-client|Chrome|Chromium|Linux|Headless\w*|UTC|My key|SVG)\b/g;
	while (walker.nextNode()) {
		const text = walker.currentNode.data.replace(names, "");
		if (/[a-z]{3}/i.test(text) && !walker.currentNode.parentElement.closest("code, script, .codes")) found.push(text.trim());
	}
	for (const element of document.querySelectorAll("[placeholder], [aria-label], [data-failed], [data-exists], [data-show]"))
		for (const value of [element.placeholder, element.ariaLabel, ...Object.values(element.dataset)])
			if (value && /[a-z]{3} [a-z]{2}/i.test(value) && !value.startsWith("{")) found.push(value);
	return found.join(" | ");
})()`
