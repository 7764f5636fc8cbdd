package web_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/chromedp"
)

// The scenario of LoopBack's tutorial, in the explorer: sign up, log in, authorize, and ask who one is.
func TestExplorerInChromium(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	ctx := chromiumtest.Start(t)
	page := chromiumtest.Page{T: t, Context: ctx}
	if err := chromedp.Do(ctx, chromedp.Navigate(s.URL+"/auth/explorer")); err != nil {
		t.Fatal(err)
	}
	call := func(path, method, body string) string { return page.Explore(method, path, "", body) }
	must := func(answer, want string) {
		t.Helper()
		if !strings.Contains(answer, want) {
			t.Errorf("%s, expected %s", answer, want)
		}
	}
	credentials := `{"email":"alice@example.com","password":"` + sitetest.GoodPassword + `"}`
	must(call("/auth/signup", "POST", credentials), "201")
	must(call("/auth/whoami", "GET", ""), "401")
	answer := call("/auth/login", "POST", credentials)
	must(answer, "200")
	_, rest, _ := strings.Cut(answer, `"token": "`)
	token, _, _ := strings.Cut(rest, `"`)
	page.Text(`(() => {
		document.getElementById("token").value = "` + token + `";
		document.getElementById("authorize").requestSubmit();
		return "";
	})()`)
	if page.Text(`String(document.getElementById("authorized").hidden)`) != "false" {
		t.Error("it does not say that the token is used")
	}
	must(call("/auth/whoami", "GET", ""), `"email": "alice@example.com"`)
	must(call("/auth/login", "POST", "{"), "400")
	must(call("/auth/logout", "POST", ""), "204")
	must(call("/auth/whoami", "GET", ""), "401")
}

// The explorer is light, needs no other host, and can be switched off.
func TestExplorer(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	page, script := s.Get("/auth/explorer", "Accept: text/html"), s.Get("/auth/explorer.js")
	policy := page.Header.Get("Content-Security-Policy")
	size := len(page.Body) + len(script.Body) + len(s.Get("/auth/style.css").Body) + len(s.Get("/auth/script.js").Body)
	if page.Status != 200 || script.Status != 200 || size > 60<<10 ||
		!strings.HasPrefix(policy, "default-src 'none'") || !strings.Contains(policy, "connect-src 'self'") ||
		strings.Contains(policy, "unsafe") || strings.Contains(page.Body+script.Body, "https://") {
		t.Errorf("%d, %d, %d bytes, %s", page.Status, script.Status, size, policy)
	}
	if other := s.Get("/auth/login", "Accept: text/html").Header.Get("Content-Security-Policy"); strings.Contains(
		other, "connect-src") || strings.Contains(other, "explorer") {
		t.Errorf("the policy of another page: %s", other)
	}
	s = sitetest.AccountsSite(t, "explorer off")
	for _, path := range []string{"/auth/explorer", "/auth/explorer.js"} {
		if got := s.Get(path); got.Body != "" {
			t.Errorf("off: %s %d", path, got.Status)
		}
	}
}

// Over plain http to another machine, browsers drop the cookies: the page and the log say so.
func TestLogInOverHTTP(t *testing.T) {
	s, dir := sitetest.AccountsSite(t, ""), sitetest.TempDir(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	s.LoadText(sitetest.GlobalOptions(dir, s.LogFile, "") + "http://:" + port + " {\n" +
		sitetest.AccountsBody(dir+"/users.db", "signup open") + "\n}")
	const says = "This page did not come by https"
	for name, c := range map[string]struct {
		headers []string
		says    bool
	}{
		"LAN":                  {[]string{"Host: nas.lan"}, true},
		"an address":           {[]string{"Host: 192.168.1.7:8080"}, true},
		"this machine":         {nil, false},
		"a proxy":              {[]string{"Host: app.example.com", "X-Forwarded-Proto: https"}, false},
		"a proxy that is mute": {[]string{"Host: app.example.com", "Sec-Fetch-Site: none"}, false},
	} {
		for _, path := range []string{"/auth/login", "/auth/signup"} {
			got := s.Send(http.MethodGet, path, "", append(c.headers, "Accept: text/html")...)
			if got.Status != 200 || strings.Contains(got.Body, says) != c.says {
				t.Errorf("%s: %s %d, it says so: %v", name, path, got.Status, !c.says)
			}
		}
	}
	if log := s.Log(); strings.Count(log, "login-over-http") != 2 || !strings.Contains(log, `"host":"nas.lan"`) {
		t.Error("the log does not say so once for each host")
	}
}
