package web_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The pages of somebody who is logged in lead back to the site; those of others, and of a flow, do not.
func TestPagesLeadBack(t *testing.T) {
	s := passkeySite(t, "passkeys\nsecond_factor optional\nname Shop\n"+
		"mail smtp://localhost {\nfrom no-reply@example.com\n}")
	v := s.Visitor()
	v.Post("/auth/signup", sitetest.FormOf("alice@example.com"))
	for path, leads := range map[string]bool{
		"/auth/account": true, "/auth/factors": true, "/auth/passkeys": true, "/auth/login": false, "/auth/forgot": false,
	} {
		for _, language := range []string{"en", "ja"} {
			got := v.Do(http.MethodGet, path, nil, "Accept: text/html", "Accept-Language: "+language)
			if strings.Contains(got.Body, `<p><a href="/">Shop</a></p>`) != leads {
				t.Errorf("%s in %s: %d, it leads back: %v", path, language, got.Status, !leads)
			}
		}
	}
}

// So does the page of API keys.
func TestKeysPageLeadsBack(t *testing.T) {
	s := sitetest.Serve(t, "jwt {\n api_keys\n accounts {\n signup open\n name Shop\n store file "+
		filepath.Join(sitetest.TempDir(t), "users.db")+"\n}\n}\nrespond hi")
	v := s.Visitor()
	v.Post("/auth/signup", sitetest.FormOf("alice@example.com"))
	if got := v.Get("/auth/keys"); got.Status != 200 || !strings.Contains(got.Body, `<p><a href="/">Shop</a></p>`) {
		t.Errorf("%d %s", got.Status, got.Brief())
	}
}

// An error in JSON ends with one line break, so that the prompt of a shell is on its own line.
func TestErrorsEndWithALineBreak(t *testing.T) {
	s := sitetest.AccountsSite(t, "")
	token := s.SignedUp("alice@example.com").Token
	for name, c := range map[string]struct {
		got sitetest.Reply
		end string
	}{
		"no token":       {s.Get("/todos/"), "}}\n"},
		"wrong password": {s.Post("/auth/login", sitetest.JSON{"email": "a@b.example", "password": "x"}), "}}\n"},
		"no user":        {s.Get("/auth/whoami"), "}}\n"},
		"a user":         {s.Bearer("/auth/whoami", token), "}"},
	} {
		if !strings.HasSuffix(c.got.Body, c.end) || strings.HasSuffix(c.got.Body, "\n\n") {
			t.Errorf("%s: %q", name, c.got.Body)
		}
	}
}
