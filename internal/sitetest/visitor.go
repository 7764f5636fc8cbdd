package sitetest

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
)

// Browser is a client with cookies that follows no redirects.
func Browser(t testing.TB) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{
		Transport: caddytest.Transport{}, Jar: jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Form sends a form as a browser does. Without fields it requests a page.
func (s *Site) Form(client *http.Client, path string, fields url.Values, headers ...string) Reply {
	s.T.Helper()
	method := http.MethodGet
	if fields != nil {
		method = http.MethodPost
	}
	return s.browse(client, method, path, fields, headers)
}

// browse requests a path of the site, or a whole URL.
func (s *Site) browse(client *http.Client, method, location string, fields url.Values, headers []string) Reply {
	s.T.Helper()
	if strings.HasPrefix(location, "/") {
		location = s.URL + location
	}
	var body io.Reader
	if fields != nil {
		body = strings.NewReader(fields.Encode())
	}
	usual := []string{"Accept: text/html,application/xhtml+xml,*/*;q=0.8"}
	if fields != nil {
		usual = append(usual, "Content-Type: application/x-www-form-urlencoded")
	}
	return s.exchange(client.Do, method, location, body, append(usual, headers...))
}

// Visitor is a person with a browser at a site. The browser keeps cookies and
// follows no redirects.
type Visitor struct {
	*Site
	Client *http.Client
	Email  string // which GoOn logs in with; default: alice@example.com
}

// Visitor returns a new visitor with a new browser.
func (s *Site) Visitor() *Visitor {
	s.T.Helper()
	return &Visitor{Site: s, Client: Browser(s.T)}
}

// At returns the same browser at another site.
func (v *Visitor) At(s *Site) *Visitor { return &Visitor{Site: s, Client: v.Client} }

// Do requests a path of the site, or a whole URL, with a form if there is one.
func (v *Visitor) Do(method, location string, form url.Values, headers ...string) Reply {
	v.T.Helper()
	return v.browse(v.Client, method, location, form, headers)
}

// Get requests a page.
func (v *Visitor) Get(location string) Reply {
	v.T.Helper()
	return v.Do(http.MethodGet, location, nil)
}

// Post sends a form, which may be nil.
func (v *Visitor) Post(location string, form url.Values, headers ...string) Reply {
	v.T.Helper()
	return v.Do(http.MethodPost, location, form, headers...)
}

// SignUp creates an account and logs in. It sends properties, which sites without them ignore.
func (v *Visitor) SignUp(email string) {
	v.T.Helper()
	got := v.Post("/auth/signup", url.Values{
		"email": {email}, "password": {GoodPassword}, "name": {"Alice A."}, "employer": {"Example Ltd"},
	})
	if got.Status != http.StatusSeeOther {
		v.T.Fatalf("sign-up: %d %s", got.Status, got.Body)
	}
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="(\w+)" value="([^"]*)">`)

// HiddenFields returns the hidden fields of the forms on a page.
func (a Reply) HiddenFields() url.Values {
	form := make(url.Values)
	for _, field := range hiddenField.FindAllStringSubmatch(a.Body, -1) {
		form.Set(field[1], html.UnescapeString(field[2]))
	}
	return form
}

// Decide sends the form of a consent page, with its hidden fields.
func (v *Visitor) Decide(path string, page Reply, decision string, headers ...string) Reply {
	v.T.Helper()
	form := page.HiddenFields()
	form.Set("decision", decision)
	return v.Post(path, form, headers...)
}

// GoOn follows a log-in at an OpenID Provider, through the log-in page and the consent page,
// until it leads back to the client.
func (v *Visitor) GoOn(location string) *url.URL {
	v.T.Helper()
	for range 8 {
		to, err := url.Parse(location)
		if err != nil {
			v.T.Fatal(err)
		}
		if to.Scheme != "" && v.URL != to.Scheme+"://"+to.Host {
			return to
		}
		switch to.Path {
		case "/auth/login":
			page := v.Get(location)
			if page.Status != http.StatusOK {
				v.T.Fatalf("log-in page: %d %s", page.Status, page.Body)
			}
			email := v.Email
			if email == "" {
				email = "alice@example.com"
			}
			location = v.Post("/auth/login", url.Values{
				"email": {email}, "password": {GoodPassword}, "return_to": {to.Query().Get("return_to")},
			}).To(v.T).String()
		case "/oidc/consent":
			page := v.Get(location)
			if page.HiddenFields().Get("interaction") == "" {
				v.T.Fatalf("consent page: %d %s", page.Status, page.Body)
			}
			location = v.Decide("/oidc/consent", page, "allow").To(v.T).String()
		default:
			location = v.Get(location).To(v.T).String()
		}
	}
	v.T.Fatalf("it does not end: %s", location)
	return nil
}
