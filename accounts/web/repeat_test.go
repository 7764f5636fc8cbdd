package web_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/internal/storefault"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// sessionIn returns the session of an access token.
func sessionIn(t *testing.T, accessToken string) string {
	t.Helper()
	token, err := accountstest.ServiceOf(t).Verifier.Verify(t.Context(), accessToken, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return web.SessionOf(token)
}

// accessCookie returns the access token of a browser.
func accessCookie(t *testing.T, s *sitetest.Site, client *http.Client) string {
	t.Helper()
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, cookie := range client.Jar.Cookies(at) {
		if cookie.Name == credentials.SessionCookie {
			return cookie.Value
		}
	}
	t.Fatal("the browser has no session")
	return ""
}

// The results of requests that change something and are sent again after one of their statements
// failed: the table of docs/operations.md. If a response says that something is done, it is done.
func TestThreatRepeatedRequests(t *testing.T) {
	s := sitetest.Serve(t, strings.Replace(
		sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "throttle off"),
		"store file ", "store faulty ", 1,
	))
	const changed = "another horse battery"
	var email string
	var other sitetest.Tokens // a session of somebody else who knows the password
	signUp := func(t *testing.T) sitetest.Tokens {
		t.Helper()
		email = strings.ToLower(store.RandomToken(8)) + "@example.com"
		own := s.SignedUp(email)
		begun, err := accountstest.ServiceOf(t).Factors.Enter(
			t.Context(), accounts.Entry{User: accountstest.UserOf(t, email)}, accounts.Client{},
		)
		if err != nil {
			t.Fatal(err)
		}
		other = sitetest.Tokens{Token: begun.AccessToken, RefreshToken: begun.RefreshToken}
		return own
	}
	logsInWith := func(t *testing.T, password string) {
		t.Helper()
		if got := s.Post("/auth/login", sitetest.JSON{"email": email, "password": password}); got.Status != 200 {
			t.Errorf("the log-in with %s: %d %s", password, got.Status, got.Body)
		}
	}
	otherEnded := func(t *testing.T) {
		t.Helper()
		sitetest.Eventually(t, "the access token of another session is refused", func() bool {
			return s.Bearer("/todos/", other.Token).Status == 401
		})
		if got := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": other.RefreshToken}); got.Status != 401 {
			t.Errorf("the refresh token of another session: %d", got.Status)
		}
	}
	loggedInBy := func(t *testing.T) *http.Client {
		t.Helper()
		chrome := sitetest.Browser(t)
		s.MustAnswer(303, s.Form(chrome, "/auth/login", sitetest.FormOf(email)), "log-in")
		return chrome
	}
	link := func(t *testing.T) (token string) {
		t.Helper()
		token = store.RandomToken(32)
		err := accountstest.StoreOf(t).CreateOneTimeToken(t.Context(), store.OneTimeToken{
			Hash: store.HashToken(token), Purpose: accounts.PurposeReset,
			UserID: accountstest.UserOf(t, email).ID, ExpiresAt: time.Now().Add(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	passwordIsNew := func(t *testing.T, _ sitetest.Reply) {
		logsInWith(t, changed)
		otherEnded(t)
	}
	storefault.Repeat(t, s, false, []storefault.Repetition{
		{Name: "sign-up", Begin: func(*testing.T) func() sitetest.Reply {
			email = strings.ToLower(store.RandomToken(8)) + "@example.com"
			return func() sitetest.Reply { return s.Post("/auth/signup", sitetest.CredentialsOf(email)) }
		}, Gets: []int{201, 409}, Holds: func(t *testing.T, _ sitetest.Reply) { logsInWith(t, sitetest.GoodPassword) }},
		{Name: "sign-up by the form", Begin: func(t *testing.T) func() sitetest.Reply {
			email = strings.ToLower(store.RandomToken(8)) + "@example.com"
			chrome := sitetest.Browser(t)
			return func() sitetest.Reply { return s.Form(chrome, "/auth/signup", sitetest.FormOf(email)) }
		}, Gets: []int{303, 409}, Holds: func(t *testing.T, second sitetest.Reply) {
			logsInWith(t, sitetest.GoodPassword)
			if second.Status == 409 &&
				(!strings.Contains(second.Body, "log in with the password that you chose") ||
					!strings.Contains(second.Body, `href="/auth/login`)) {
				t.Errorf("the page: %s", second.Body)
			}
		}},
		{Name: "log-in", Begin: func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			return func() sitetest.Reply { return s.Post("/auth/login", sitetest.CredentialsOf(email)) }
		}, Gets: []int{200}, Holds: func(t *testing.T, second sitetest.Reply) {
			s.MustAnswer(200, s.Bearer("/todos/", second.Tokens(t).Token), "the access token")
		}},
		{Name: "log-in by the form", Begin: func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := sitetest.Browser(t)
			return func() sitetest.Reply { return s.Form(chrome, "/auth/login", sitetest.FormOf(email)) }
		}, Gets: []int{303}},
		{Name: "password change", Begin: func(t *testing.T) func() sitetest.Reply {
			own := signUp(t)
			return func() sitetest.Reply {
				return s.Post(
					"/auth/password", sitetest.JSON{"currentPassword": sitetest.GoodPassword, "newPassword": changed},
					"Authorization: Bearer "+own.Token,
				)
			}
		}, Gets: []int{204}, Holds: passwordIsNew},
		{Name: "password change by the form", Begin: func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := loggedInBy(t)
			return func() sitetest.Reply {
				return s.Form(chrome, "/auth/password", url.Values{
					"currentPassword": {sitetest.GoodPassword}, "newPassword": {changed},
				})
			}
		}, Gets: []int{200}, Holds: passwordIsNew},
		{Name: "reset", Begin: func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			token := link(t)
			return func() sitetest.Reply {
				return s.Post("/auth/reset", sitetest.JSON{"token": token, "newPassword": changed})
			}
		}, Gets: []int{204}, Holds: passwordIsNew},
		{Name: "reset by the form", Begin: func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			token := link(t)
			chrome := sitetest.Browser(t)
			return func() sitetest.Reply {
				return s.Form(chrome, "/auth/reset", url.Values{"token": {token}, "newPassword": {changed}})
			}
		}, Gets: []int{200}, Holds: passwordIsNew},
		{Name: "log-out", Begin: func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := loggedInBy(t)
			replaced := accessCookie(t, s, chrome)
			s.MustAnswer(303, s.Form(chrome, "/auth/login", sitetest.FormOf(email)), "the same browser logs in again")
			other = sitetest.Tokens{Token: replaced, RefreshToken: "none"}
			newest := accessCookie(t, s, chrome)
			return func() sitetest.Reply { return s.Post("/auth/logout", "", "Authorization: Bearer "+newest) }
		}, Gets: []int{204, 401}, Holds: func(t *testing.T, _ sitetest.Reply) { otherEnded(t) }},
		{Name: "log-out by the form", Begin: func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := loggedInBy(t)
			other = sitetest.Tokens{Token: accessCookie(t, s, chrome), RefreshToken: "none"}
			return func() sitetest.Reply { return s.Form(chrome, "/auth/logout", url.Values{}) }
		}, Gets: []int{303}, Holds: func(t *testing.T, _ sitetest.Reply) { otherEnded(t) }},
		{Name: "the end of another session", Begin: func(t *testing.T) func() sitetest.Reply {
			own := signUp(t)
			id := sessionIn(t, other.Token)
			return func() sitetest.Reply {
				return s.Send(http.MethodDelete, "/auth/sessions/"+id, "", "Authorization: Bearer "+own.Token)
			}
		}, Gets: []int{204, 404}, Holds: func(t *testing.T, _ sitetest.Reply) { otherEnded(t) }},
		{Name: "the end of another session, by the form", Begin: func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := loggedInBy(t)
			id := sessionIn(t, other.Token)
			return func() sitetest.Reply { return s.Form(chrome, "/auth/sessions/"+id, url.Values{}) }
		}, Gets: []int{303, 404}, Holds: func(t *testing.T, _ sitetest.Reply) { otherEnded(t) }},
	})
	if n := strings.Count(s.Log(), "reused"); n > 0 {
		t.Error("the log tells of a theft")
	}
}
