package web_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/chromedp"
	"golang.org/x/net/http/httpguts"
)

// unicodeBlanks are characters that Go and others trim, but that browsers treat as part of a name.
var unicodeBlanks = []string{
	"\u0085", "\u00a0", "\u1680", "\u2000", "\u2003", "\u2028", "\u2029",
	"\u202f", "\u205f", "\u3000", "\ufeff", "\u200b", "\v", "\f",
}

// A cookie has the name that its browser gave it.
func TestThreatCookieNames(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			from cookie __Host-token
			strip_token
		}
		respond "{http.auth.user.id}|{http.request.header.Cookie}"`)
	alice, mallory := sitetest.HS256(t, nil), sitetest.HS256(t, sitetest.JSON{"sub": "mallory"})
	for _, cookie := range []string{
		"__Host-token=" + alice, "a=1;\t__Host-token = " + alice + " ;b=2", `__Host-token="` + alice + `"`,
	} {
		if got := s.Get("/", "Cookie: "+cookie); got.Status != 200 || !strings.HasPrefix(got.Body, "alice|") ||
			strings.Contains(got.Body, "__Host-token") {
			t.Errorf("control: %q: %d %s", cookie[:14], got.Status, got.Body)
		}
	}
	for _, blank := range unicodeBlanks {
		if blank == "\v" || blank == "\f" {
			continue // net/http refuses such a header
		}
		for where, planted := range map[string]string{
			"before": blank + "__Host-token=" + mallory, "after": "__Host-token" + blank + "=" + mallory,
		} {
			s.MustAnswer(401, s.Get("/", "Cookie: "+planted), fmt.Sprintf("%q %s the name", blank, where))
			got := s.Get("/", "Cookie: "+planted+"; __Host-token="+alice)
			if got.Status != 200 || !strings.HasPrefix(got.Body, "alice|"+planted[:4]) {
				t.Errorf("%q %s the name, beside the user's own: %d %s", blank, where, got.Status, got.Body)
			}
		}
		s.MustAnswer(401, s.Get("/", "Cookie: __Host-token="+blank+alice), fmt.Sprintf("%q before the value", blank))
	}
	s.MustAnswer(401, s.Get("/", "Cookie: __host-token="+alice), "another case")
	s.MustAnswer(401, s.Get("/", `Cookie: __Host-token=""`+alice+`""`), "two quotes")
	s.MustAnswer(400, s.Get("/", "Cookie: __Host-token="+alice+"; __Host-token="+mallory), "two of the name")
}

// Cookie names are read as net/http reads them, which drops malformed ones. Removing a cookie
// removes it and no other.
func FuzzCookies(f *testing.F) {
	for _, seed := range []string{
		"token=a", " token =\"a\"; token=b", "\u2000token=a", "token=a;token",
		";;=;token==", "a=1; token=a b; b=\"", "token=\"a;b\"", "\ttoken\t=\ta\t",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if !httpguts.ValidHeaderFieldValue(line) {
			return
		}
		r := &http.Request{Header: http.Header{"Cookie": {line}}}
		found := credentials.CookieValues(r, "token")
		for _, cookie := range r.CookiesNamed("token") {
			if !slices.Contains(found, strings.Trim(cookie.Value, " \t")) {
				t.Fatalf("%q: net/http reads %q, which is not among %q", line, cookie.Value, found)
			}
		}
		others := len(credentials.CookieValues(r, "other"))
		credentials.StripCookie(r, "token")
		if left := append(credentials.CookieValues(r, "token"), r.Header.Values("Set-Cookie")...); len(left) > 0 ||
			len(r.CookiesNamed("token")) > 0 {
			t.Fatalf("%q: left after its removal: %q", line, left)
		}
		if kept := len(credentials.CookieValues(r, "other")); kept != others {
			t.Fatalf("%q: %d others and then %d", line, others, kept)
		}
	})
}

// A sister site of the domain cannot plant a session, in a real browser.
func TestThreatSisterSite(t *testing.T) {
	port := sitetest.ServeTLS(t, map[string]string{
		"app.example.test": `
			jwt {
				secret "` + sitetest.Secret + `"
				from cookie __Host-token
			}
			respond "user={http.auth.user.id}"`,
		"evil.example.test": `respond "a page"`,
	})
	browser := chromiumtest.Start(
		t, chromedp.Flag("host-resolver-rules", "MAP *.example.test 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors", true),
	)
	alice, mallory := sitetest.HS256(t, nil), sitetest.HS256(t, sitetest.JSON{"sub": "mallory"})
	app, evil := "https://app.example.test:"+port+"/", "https://evil.example.test:"+port+"/"
	// page evaluates a script on a page, and returns its value.
	page := func(address, script string) string {
		t.Helper()
		err := chromedp.Do(browser, chromedp.Navigate(address))
		var value string
		if err == nil {
			value, err = chromedp.Run(browser, chromedp.Evaluate[string](script))
		}
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	const text = "document.body.textContent"
	for _, before := range append([]string{""}, unicodeBlanks...) {
		page(evil, fmt.Sprintf(
			`document.cookie = %q + "__Host-token=%s; Domain=example.test; Path=/; Secure"`, before, mallory,
		))
		if got := page(app, text); !strings.Contains(got, "credentials_required") {
			t.Errorf("%q before the name: a planted cookie is read: %s", before, got)
		}
	}
	page(evil, `document.cookie = "planted=yes; Domain=example.test; Path=/; Secure"`)
	if cookies := page(app, "document.cookie"); !strings.Contains(cookies, "planted=yes") {
		t.Errorf("control: the sister site cannot plant anything: %q", cookies)
	}
	page(app, `document.cookie = "__Host-token=`+alice+`; Path=/; Secure"`)
	if got := page(app, text); got != "user=alice" {
		t.Errorf("control: the site's own cookie beside the planted ones: %s", got)
	}
}

// A shared cache stores no response to a request with a session cookie.
func TestThreatSharedCaches(t *testing.T) {
	site := func(more string) string {
		return "jwt {\n secret \"" + sitetest.Secret + "\"\n from cookie token\n from header\n" +
			more + "\n}\n reverse_proxy " + sitetest.NewUpstream(t)
	}
	s := sitetest.Serve(t, site(""))
	token := sitetest.HS256(t, nil)
	for path, want := range map[string][2]string{
		"/": {"private", "Cookie"}, "/public": {"public, max-age=60", ""},
		"/no-store": {"no-store", "Cookie"}, "/max-age": {"max-age=60, private", "Cookie"},
	} {
		got := s.Get(path, "Cookie: token="+token)
		if control, vary := got.Header.Get("Cache-Control"), got.Header.Get("Vary"); got.Status != 200 ||
			control != want[0] || vary != want[1] {
			t.Errorf("%s: %d, Cache-Control %q, Vary %q", path, got.Status, control, vary)
		}
	}
	if got := s.Bearer("/", token); got.Header.Get("Cache-Control") != "" {
		t.Errorf("control: by Authorization: %v", got.Header)
	}
	s = sitetest.Serve(t, site("optional"))
	if got := s.Get("/"); got.Status != 200 || got.Header.Get("Vary") != "Cookie" ||
		got.Header.Get("Cache-Control") != "" {
		t.Errorf("anonymous: %d %v", got.Status, got.Header)
	}
}

// A request with a cookie that changes something must come from a page of the site.
func TestThreatCrossSiteRequestsByCookie(t *testing.T) {
	token := sitetest.HS256(t, nil)
	for name, c := range map[string]struct {
		option          string
		foreign, sister int
	}{
		"by default":      {"", 403, 403},
		"trusted_origins": {"trusted_origins https://sister.example", 403, 200},
		"all are trusted": {"trusted_origins *", 200, 200},
	} {
		s := sitetest.Serve(
			t, "jwt {\n secret \""+sitetest.Secret+"\"\n from cookie token\n from header\n"+c.option+"\n}\n respond ok",
		)
		byCookie := "Cookie: token=" + token
		foreign := []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}
		sister := []string{"Origin: https://sister.example", "Sec-Fetch-Site: same-site"}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			s.MustAnswer(c.foreign, s.Do(method, "/", append(foreign, byCookie)...), name+": another site: "+method)
			s.MustAnswer(c.sister, s.Do(method, "/", append(sister, byCookie)...), name+": a sister site: "+method)
			s.MustAnswer(
				200, s.Do(method, "/", "Origin: "+s.URL, "Sec-Fetch-Site: same-origin", byCookie),
				name+": control: the site itself: "+method,
			)
			s.MustAnswer(200, s.Do(method, "/", byCookie), name+": control: a program: "+method)
			s.MustAnswer(
				200, s.Do(method, "/", append(foreign, "Authorization: Bearer "+token)...),
				name+": control: by header: "+method,
			)
		}
		s.MustAnswer(200, s.Get("/", append(foreign, byCookie)...), name+": control: GET")
		s.MustAnswer(
			c.foreign, s.Get("/", append(foreign, byCookie, "Connection: Upgrade", "Upgrade: websocket")...),
			name+": a WebSocket",
		)
	}
	for _, wrong := range []string{"sister.example", "https://sister.example/x", "ftp"} {
		if err := sitetest.ConfigError(
			t, "jwt {\n secret \""+sitetest.Secret+"\"\n from cookie token\n trusted_origins "+wrong+"\n}",
		); !strings.Contains(err, "as in https://app.example.com") {
			t.Errorf("%s: %s", wrong, err)
		}
	}
}
