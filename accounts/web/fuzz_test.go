package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// Where a browser goes after a log-in is a path of the same site, as Go's URL
// parser and the rules of browsers (WHATWG URL) read it.
func FuzzReturnPath(f *testing.F) {
	site, err := url.Parse("https://site.example/auth/login")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := answer.SafeReturnPath(text, "/standard")
		if path != text && path != "/standard" {
			t.Fatalf("%q leads to %q, which is neither", text, path)
		}
		// Browsers drop these, and take a backslash for a slash.
		read := strings.NewReplacer("\t", "", "\n", "", "\r", "", `\`, "/").Replace(strings.Trim(path, "\x00 "))
		target, err := site.Parse(read)
		if err != nil || target.Host != site.Host || target.Scheme != "https" || target.User != nil ||
			strings.HasPrefix(read, "//") {
			t.Fatalf("%q leads to %v, %v", text, target, err)
		}
	})
}

// A key is its own key, and one address has one key, however it is written.
func FuzzEmail(f *testing.F) {
	f.Fuzz(func(t *testing.T, email string) {
		key, err := store.EmailKey(email)
		if err != nil {
			return
		}
		if again, err := store.EmailKey(key); err != nil || again != key {
			t.Fatalf("the key of %q is %q, whose key is %q, %v", email, key, again, err)
		}
		if strings.ContainsFunc(key, func(r rune) bool {
			return r <= ' ' || r == 0x7f || r >= 0x202a && r <= 0x202e || r >= 0x200b && r <= 0x200f
		}) {
			t.Fatalf("the key of %q has a character that cannot be seen: %q", email, key)
		}
	})
}

// Any body as any content type: it is read, or refused with a status of the
// client's fault.
func FuzzLogInForm(f *testing.F) {
	f.Fuzz(func(t *testing.T, kind, body string) {
		r := httptest.NewRequest(http.MethodPost, "/auth/login", strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		in, err := readInput(httptest.NewRecorder(), r, "email", "password")
		if err != nil {
			refusal, ok := errors.AsType[*refusal.Error](err)
			if !ok || refusal.Reason.Answer().Status/100 != 4 {
				t.Fatalf("error %v", err)
			}
			return
		}
		email, password := in.want("email"), in.want("password")
		if in.err() == nil && (email == "" || password == "") {
			t.Fatal("accepted without an address or a password")
		}
	})
}

// Any Cookie header: the token that is read is one that the header has, and
// taking cookies away leaves the others as they were.
func FuzzCookie(f *testing.F) {
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/", nil)
		r.RemoteAddr = "127.0.0.1:4711"
		r.Header.Set("Cookie", header)
		c := credentials.AccountSources.Read(r)
		token, err := c.Token, c.Err
		if err == nil && !strings.Contains(header, token) {
			t.Fatalf("token %q of %q", token, header)
		}
		others := make(map[string]int)
		for _, cookie := range r.Cookies() {
			if cookie.Name != credentials.RefreshCookie {
				others[cookie.Name+"="+cookie.Value]++
			}
		}
		credentials.StripRefreshCookie(r)
		if len(r.CookiesNamed(credentials.RefreshCookie)) > 0 {
			t.Fatalf("the refresh token is still in %q", r.Header.Get("Cookie"))
		}
		for _, cookie := range r.Cookies() {
			others[cookie.Name+"="+cookie.Value]--
		}
		for cookie, missing := range others {
			if missing != 0 {
				t.Fatalf("%q: %s is there %d times less", header, cookie, missing)
			}
		}
	})
}
