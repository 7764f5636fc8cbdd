package web_test

import (
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

const browserAccept = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"

func mustHave(t *testing.T, page sitetest.Reply, why string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(page.Body, text) {
			t.Errorf("%s: the page has no %q: %s", why, text, page.Body)
		}
	}
}

func TestPagesTellWhoseTheyAre(t *testing.T) {
	s := sitetest.AccountsSite(t, "name \"The <Shop>\"\n logo https://cdn.example.com/logo.svg\n accent \"#fc0\"")
	for _, path := range []string{"/auth/login", "/auth/signup", "/auth/reset?token=x"} {
		page := s.Get(path, browserAccept)
		mustHave(
			t, page, path, " – The &lt;Shop&gt;</title>", "<p>The &lt;Shop&gt;</p>",
			`<img src="https://cdn.example.com/logo.svg" alt="">`, `<link rel="icon" href="https://cdn.example.com/logo.svg">`,
		)
		if policy := page.Header.Get("Content-Security-Policy"); !strings.Contains(
			policy, "img-src 'self' https://cdn.example.com;",
		) {
			t.Errorf("%s: policy %q", path, policy)
		}
	}
	if style := s.Get("/auth/style.css").Body; !strings.Contains(style, "--on-accent: #ffffff;") ||
		strings.Contains(style, "--accent: #ffcc00; --accent-hover: #cca300; --on-accent: #ffffff") {
		t.Errorf("a text of this accent cannot be read: %s", style[max(0, len(style)-400):])
	}
	s = sitetest.AccountsSite(t, "")
	page := s.Get("/auth/login", browserAccept)
	mustHave(t, page, "without a name", "<title>Log in – 127.0.0.1</title>", "<p>127.0.0.1</p>")
	if strings.Contains(page.Body, "<img") || strings.Contains(page.Header.Get("Content-Security-Policy"), "http") {
		t.Error("without a logo there is one")
	}
}

func TestThreatLooksOfAnotherSite(t *testing.T) {
	for option, want := range map[string]string{
		"logo http://example.com/logo.svg":         "must be a path of the site or an https URL",
		"logo //example.com/logo.svg":              "must be a path of the site or an https URL",
		"logo \"javascript:alert(1)\"":             "must be a path of the site or an https URL",
		"logo \"https://a.example; script-src *\"": "must be a path of the site or an https URL",
		"logo https://*/logo.svg":                  "must be a path of the site or an https URL",
		"logo https://u:p@a.example/logo.svg":      "must be a path of the site or an https URL",
		"logo logo.svg":                            "must be a path of the site or an https URL",
		"accent bluish":                            "write it as in 2457c5",
		"accent \"#fff;} body{display:none\"":      "write it as in 2457c5",
		"accent #2457c5":                           "# begins a comment",
		"accent 12345":                             "write it as in 2457c5",
		"accent xyzxyz":                            "write it as in 2457c5",
		"name " + strings.Repeat("x", 61):          "at most 60 characters",
	} {
		got := sitetest.ConfigError(t, sitetest.AccountsBody(t.TempDir()+"/users.db", option))
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s", option, got)
		}
	}
}

func TestSignupAsksForTheProfile(t *testing.T) {
	s := sitetest.AccountsSite(t, "profile given_name favouriteColour phone_number")
	page := s.Get("/auth/signup", browserAccept)
	mustHave(
		t, page, "sign-up", ">Given name <", ">Favourite colour <", ">Phone number <", `autocomplete="given-name"`,
		`autocomplete="tel"`,
	)
	v := s.Visitor()
	form := sitetest.FormOf("alice@example.com")
	form.Set("given_name", `A"<b>`)
	form.Set("password", "short")
	refused := v.Post("/auth/signup", form)
	s.MustAnswer(422, refused, "a short password")
	mustHave(t, refused, "what was entered stays", `value="A&#34;&lt;b&gt;"`)
	form.Set("favouriteColour", strings.Repeat("x", 5000))
	refused = v.Post("/auth/signup", form)
	mustHave(t, refused, "the error is at its field", `id="favouriteColour-error"`, `href="#favouriteColour"`)
	form.Set("password", sitetest.GoodPassword)
	form.Set("favouriteColour", "")
	s.MustAnswer(303, v.Post("/auth/signup", form), "sign-up")
	mustHave(t, v.Get("/auth/account"), "the account", `name="given_name" value="A&#34;&lt;b&gt;"`, `name="favouriteColour" value=""`)
}

func TestRefusalsAsPages(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt /admin/* {
			require role admin
			accounts {
				store file `+sitetest.TempDir(t)+`/users.db
				signup open
				throttle 3 15m
			}
		}
		respond ok`)
	v := s.Visitor()
	v.SignUp("eve@example.com")
	get := func(path string) sitetest.Reply { return v.Do(http.MethodGet, path, nil, browserAccept) }
	who := []string{"eve@example.com", `action="/auth/logout"`, `href="/auth/account"`}

	forbidden := get("/admin/")
	s.MustAnswer(403, forbidden, "without the role")
	mustHave(t, forbidden, "403", append(who, "You have no access to this page", "role")...)
	if kind := forbidden.Header.Get("Content-Type"); kind != "text/html; charset=utf-8" ||
		forbidden.Header.Get("Cache-Control") != "no-store" ||
		!strings.Contains(forbidden.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("headers %v", forbidden.Header)
	}
	unknown := get("/auth/sessions/00000000-0000-0000-0000-000000000000")
	s.MustAnswer(405, unknown, "a path for other methods")
	mustHave(t, unknown, "405", append(who, "This page cannot do that")...)
	missing := v.Do(http.MethodPost, "/auth/sessions/unknown", nil, browserAccept, "Content-Type: application/x-www-form-urlencoded")
	s.MustAnswer(404, missing, "an unknown session")
	mustHave(t, missing, "404", "There is no such page")

	throttled := sitetest.Reply{}
	for range 20 {
		throttled = s.Visitor().Do(http.MethodPost, "/auth/login", url.Values{
			"email": {"eve@example.com"}, "password": {"not the password"},
		}, browserAccept)
	}
	s.MustAnswer(429, throttled, "throttled")
	if !regexp.MustCompile(`try again in \d+ (seconds|minutes)`).MatchString(throttled.Body) {
		t.Errorf("429: it does not say how long to wait: %s", throttled.Body)
	}
	anonymous := s.Get("/auth/whoami", browserAccept)
	s.MustAnswer(401, anonymous, "nobody at a route for programs")
	mustHave(t, anonymous, "401", `href="/auth/login?return_to=%2fauth%2fwhoami"`)
	if strings.Contains(anonymous.Body, "eve@example.com") {
		t.Error("a page for nobody names a user")
	}
	// Controls: programs get JSON.
	for _, accept := range []string{"application/json", "*/*", ""} {
		reply := v.Do(http.MethodGet, "/admin/", nil, "Accept: "+accept)
		if s.MustAnswer(403, reply, "a program"); !strings.HasPrefix(reply.Body, `{"error":`) {
			t.Errorf("Accept %q: %s", accept, reply.Body)
		}
	}
}

func TestWaysToTheAccount(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	v := s.Visitor()
	for _, path := range []string{"/auth", "/auth/", "/AUTH"} {
		if to := v.Get(path).Header.Get("Location"); to != "/auth/account" && to != "auth/account" {
			t.Errorf("%s leads to %s", path, to)
		}
	}
	if to := v.Do(http.MethodGet, "/auth/logout", nil, browserAccept).To(t); to.Path != "/auth/login" {
		t.Errorf("log-out of nobody leads to %s", to)
	}
	v.SignUp("alice@example.com")
	page := v.Do(http.MethodGet, "/auth/logout", nil, browserAccept)
	s.MustAnswer(200, page, "the question")
	mustHave(t, page, "log-out", "alice@example.com", `action="/auth/logout"`)
	s.MustAnswer(200, v.Get("/auth/account"), "a GET logs nobody out")
	v.Decide("/auth/logout", page, "no").To(t)
	s.MustAnswer(200, v.Get("/auth/account"), "cancelled")
	v.Decide("/auth/logout", page, "yes").To(t)
	if to := v.Get("/auth/account").To(t); to.Path != "/auth/login" {
		t.Errorf("after the log-out the account leads to %s", to)
	}
}

func TestPrefixOfAnotherRoute(t *testing.T) {
	s := sitetest.AccountsSite(t, "login /auth")
	s.MustAnswer(200, s.Get("/auth", browserAccept), "the log-in page at the prefix")
}

func TestAccentCanBeRead(t *testing.T) {
	for _, accent := range []string{"yellow", "White", "black", "2457c5", "\"#777\"", "hotpink", "AbCdEf"} {
		s := sitetest.AccountsSite(t, "accent "+accent)
		style := s.Get("/auth/style.css").Body
		set := regexp.MustCompile(`:root \{ --accent: (#\w{6}); --accent-hover: (#\w{6}); --on-accent: (#\w{6}); \}`).
			FindAllStringSubmatch(style, -1)
		if len(set) != 2 {
			t.Fatalf("%s: %s", accent, style)
		}
		for i, backs := range [][]string{{"#ffffff", "#f3f4f7"}, {"#1b1e24", "#121418"}} {
			for _, back := range backs {
				for _, color := range set[i][1:3] {
					if ratio := contrast(t, color, back); ratio < 4.5 {
						t.Errorf("%s: %s on %s has the contrast %.2f", accent, color, back, ratio)
					}
				}
			}
			if ratio := contrast(t, set[i][3], set[i][1]); ratio < 4.5 {
				t.Errorf("%s: %s on a button of %s has the contrast %.2f", accent, set[i][3], set[i][1], ratio)
			}
		}
	}
}

// contrast is that of WCAG 2.2, here once more.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	luminance := func(color string) (sum float64) {
		for i, weight := range []float64{.2126, .7152, .0722} {
			n, err := strconv.ParseUint(color[1+2*i:3+2*i], 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			v := float64(n) / 255
			if v <= .04045 {
				sum += weight * v / 12.92
			} else {
				sum += weight * math.Pow((v+.055)/1.055, 2.4)
			}
		}
		return sum
	}
	x, y := luminance(a), luminance(b)
	return (max(x, y) + .05) / (min(x, y) + .05)
}

// A script that somebody has uploaded to the site does not run on these pages.
func TestThreatScriptsOfTheSite(t *testing.T) {
	s := sitetest.Serve(t, "respond ok")
	host := strings.TrimPrefix(s.URL, "http://")
	s.LoadText("{\n admin off\n}\nhttp://:" + host[strings.LastIndex(host, ":")+1:] + " {\n" +
		sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "") + "\n}")
	for _, sent := range []struct{ host, source string }{
		{host, host + "/auth/script.js"}, {"example.com", "example.com/auth/script.js"},
		{"[::1]:8080", "'self'"}, {"a,b", "'self'"},
	} {
		policy := s.Send(http.MethodGet, "/auth/login", "", browserAccept, "Host: "+sent.host).Header.Get("Content-Security-Policy")
		if _, source, _ := strings.Cut(policy, "script-src "); source != sent.source || strings.Count(policy, "script") > 2 {
			t.Errorf("%s: %s", sent.host, policy)
		}
	}
	page := s.Get("/auth/login", browserAccept).Body
	path := regexp.MustCompile(`<script src="(/auth/script\.js\?v=\w{8})" defer></script>`).FindStringSubmatch(page)
	if path == nil || strings.Count(page, "<script") != 1 {
		t.Fatalf("the scripts of %s", page)
	}
	script := s.Get(path[1])
	if script.Header.Get("Content-Type") != "text/javascript; charset=utf-8" ||
		script.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers %v", script.Header)
	}
}
