package web_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
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
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(new(faultyStore)) }

// faultyStore is a file that fails when a test says so.
type faultyStore struct {
	filestore.Store
}

var faults storefault.Switch

func (*faultyStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "jwt.stores.faulty", New: func() caddy.Module { return new(faultyStore) }}
}

func (f *faultyStore) Provision(ctx caddy.Context) error {
	err := f.Store.Provision(ctx)
	f.Connect, f.Committed = faults.Connect(f.Connect), faults.Committed(f.Committed)
	return err
}

// repetition is a request that is sent again after a fault of the store.
type repetition struct {
	name string
	// begin leads to the request.
	begin func(t *testing.T) (send func() sitetest.Reply)
	// gets are the answers to the second, of which the first is that to one alone.
	gets []int
	// holds checks what must hold after the second, whatever the fault was.
	holds func(t *testing.T, second sitetest.Reply)
}

// sessionIn is the session of an access token.
func sessionIn(t *testing.T, accessToken string) string {
	t.Helper()
	token, err := accountstest.ServiceOf(t).Verifier.Verify(t.Context(), accessToken, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return web.SessionOf(token)
}

// accessCookie is the access token that a browser has.
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

// What comes of each request that changes something and is sent again, whichever of its
// statements failed: the table of docs/operations.md. Nothing is left undone that its
// answer, or that of the second, says is done.
func TestThreatRepeatedRequests(t *testing.T) {
	s := sitetest.Serve(t, strings.Replace(sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "throttle off"), "store file ", "store faulty ", 1))
	t.Cleanup(func() { faults.Set(nil) })
	const changed = "another horse battery"
	var email string
	var other sitetest.Tokens // a session of somebody else who knows the password
	signUp := func(t *testing.T) sitetest.Tokens {
		t.Helper()
		email = strings.ToLower(store.RandomToken(8)) + "@example.com"
		own := s.SignedUp(email)
		begun, err := accountstest.ServiceOf(t).Sessions.Begin(t.Context(), accountstest.UserOf(t, email), accounts.Client{})
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
		sitetest.Eventually(t, "the access token of another session is refused", func() bool { return s.Bearer("/todos/", other.Token).Status == 401 })
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
		err := accountstest.StoreOf(t).CreateOneTimeToken(t.Context(), store.OneTimeToken{Hash: store.HashToken(token), Purpose: accounts.PurposeReset, UserID: accountstest.UserOf(t, email).ID, ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	passwordIsNew := func(t *testing.T, _ sitetest.Reply) {
		logsInWith(t, changed)
		otherEnded(t)
	}
	for _, r := range []repetition{
		{"sign-up", func(*testing.T) func() sitetest.Reply {
			email = strings.ToLower(store.RandomToken(8)) + "@example.com"
			return func() sitetest.Reply { return s.Post("/auth/signup", sitetest.CredentialsOf(email)) }
		}, []int{201, 409}, func(t *testing.T, _ sitetest.Reply) { logsInWith(t, sitetest.GoodPassword) }},
		{"sign-up by the form", func(t *testing.T) func() sitetest.Reply {
			email = strings.ToLower(store.RandomToken(8)) + "@example.com"
			chrome := sitetest.Browser(t)
			return func() sitetest.Reply { return s.Form(chrome, "/auth/signup", sitetest.FormOf(email)) }
		}, []int{303, 409}, func(t *testing.T, second sitetest.Reply) {
			logsInWith(t, sitetest.GoodPassword)
			if second.Status == 409 && (!strings.Contains(second.Body, "log in with the password that you chose") || !strings.Contains(second.Body, `href="/auth/login`)) {
				t.Errorf("the page: %s", second.Body)
			}
		}},
		{"log-in", func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			return func() sitetest.Reply { return s.Post("/auth/login", sitetest.CredentialsOf(email)) }
		}, []int{200}, func(t *testing.T, second sitetest.Reply) {
			s.MustAnswer(200, s.Bearer("/todos/", second.Tokens(t).Token), "the access token")
		}},
		{"log-in by the form", func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := sitetest.Browser(t)
			return func() sitetest.Reply { return s.Form(chrome, "/auth/login", sitetest.FormOf(email)) }
		}, []int{303}, nil},
		{"password change", func(t *testing.T) func() sitetest.Reply {
			own := signUp(t)
			return func() sitetest.Reply {
				return s.Post("/auth/password", sitetest.JSON{"currentPassword": sitetest.GoodPassword, "newPassword": changed}, "Authorization: Bearer "+own.Token)
			}
		}, []int{204}, passwordIsNew},
		{"password change by the form", func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := loggedInBy(t)
			return func() sitetest.Reply {
				return s.Form(chrome, "/auth/password", url.Values{"currentPassword": {sitetest.GoodPassword}, "newPassword": {changed}})
			}
		}, []int{200}, passwordIsNew},
		{"reset", func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			token := link(t)
			return func() sitetest.Reply {
				return s.Post("/auth/reset", sitetest.JSON{"token": token, "newPassword": changed})
			}
		}, []int{204}, passwordIsNew},
		{"reset by the form", func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			token := link(t)
			chrome := sitetest.Browser(t)
			return func() sitetest.Reply {
				return s.Form(chrome, "/auth/reset", url.Values{"token": {token}, "newPassword": {changed}})
			}
		}, []int{200}, passwordIsNew},
		{"log-out", func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := loggedInBy(t)
			replaced := accessCookie(t, s, chrome)
			s.MustAnswer(303, s.Form(chrome, "/auth/login", sitetest.FormOf(email)), "the same browser logs in again")
			other = sitetest.Tokens{Token: replaced, RefreshToken: "none"}
			newest := accessCookie(t, s, chrome)
			return func() sitetest.Reply { return s.Post("/auth/logout", "", "Authorization: Bearer "+newest) }
		}, []int{204, 401}, func(t *testing.T, _ sitetest.Reply) { otherEnded(t) }},
		{"log-out by the form", func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := loggedInBy(t)
			other = sitetest.Tokens{Token: accessCookie(t, s, chrome), RefreshToken: "none"}
			return func() sitetest.Reply { return s.Form(chrome, "/auth/logout", url.Values{}) }
		}, []int{303}, func(t *testing.T, _ sitetest.Reply) { otherEnded(t) }},
		{"the end of another session", func(t *testing.T) func() sitetest.Reply {
			own := signUp(t)
			id := sessionIn(t, other.Token)
			return func() sitetest.Reply {
				return s.Send(http.MethodDelete, "/auth/sessions/"+id, "", "Authorization: Bearer "+own.Token)
			}
		}, []int{204, 404}, func(t *testing.T, _ sitetest.Reply) { otherEnded(t) }},
		{"the end of another session, by the form", func(t *testing.T) func() sitetest.Reply {
			signUp(t)
			chrome := loggedInBy(t)
			id := sessionIn(t, other.Token)
			return func() sitetest.Reply { return s.Form(chrome, "/auth/sessions/"+id, url.Values{}) }
		}, []int{303, 404}, func(t *testing.T, _ sitetest.Reply) { otherEnded(t) }},
	} {
		for name, moment := range map[string]storefault.Moment{"not made": storefault.BeforeStatement, "made, and not told": storefault.AfterCommit} {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				s.T = t
				var seen []int
				for n := 1; ; n++ {
					send := r.begin(t)
					hit := faults.Once(moment, n)
					got := send()
					wasHit := hit()
					faults.Set(nil)
					if !wasHit && got.Status != r.gets[0] {
						t.Fatalf("control: %d %s", got.Status, got.Body)
					}
					if wasHit {
						if got.Status != 503 || got.Header.Get("Retry-After") == "" {
							t.Errorf("the %d. fails: %d %v %s", n, got.Status, got.Header, got.Body)
						}
						got = send()
						if !slices.Contains(r.gets, got.Status) {
							t.Errorf("repeated after the %d. failed: %d %s", n, got.Status, got.Body)
						}
					}
					seen = append(seen, got.Status)
					if r.holds != nil {
						r.holds(t, got)
					}
					if t.Failed() {
						t.Fatalf("after the %d. failed", n)
					}
					if !wasHit {
						break
					}
				}
				t.Logf("answers to the second: %v", seen)
			})
		}
	}
	if n := strings.Count(s.Log(), "reused"); n > 0 {
		t.Error("the log tells of a theft")
	}
}
