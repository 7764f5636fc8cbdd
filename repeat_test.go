package caddyjwt

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
	begin func(t *testing.T) (send func() reply)
	// gets are the answers to the second, of which the first is that to one alone.
	gets []int
	// holds checks what must hold after the second, whatever the fault was.
	holds func(t *testing.T, second reply)
}

// sessionIn is the session of an access token.
func sessionIn(t *testing.T, accessToken string) string {
	t.Helper()
	token, err := serviceOf(t).Verifier.Verify(t.Context(), accessToken, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return web.SessionOf(token)
}

// accessCookie is the access token that a browser has.
func accessCookie(t *testing.T, s *site, client *http.Client) string {
	t.Helper()
	at, err := url.Parse(s.url)
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
	s := serve(t, strings.Replace(accountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "throttle off"), "store file ", "store faulty ", 1))
	t.Cleanup(func() { faults.Set(nil) })
	const changed = "another horse battery"
	var email string
	var other tokens // a session of somebody else who knows the password
	signUp := func(t *testing.T) tokens {
		t.Helper()
		email = strings.ToLower(store.RandomToken(8)) + "@example.com"
		own := s.signedUp(email)
		begun, err := serviceOf(t).BeginSession(t.Context(), userOf(t, email), accounts.Client{})
		if err != nil {
			t.Fatal(err)
		}
		other = tokens{Token: begun.AccessToken, RefreshToken: begun.RefreshToken}
		return own
	}
	logsInWith := func(t *testing.T, password string) {
		t.Helper()
		if got := s.post("/auth/login", sitetest.JSON{"email": email, "password": password}); got.status != 200 {
			t.Errorf("the log-in with %s: %d %s", password, got.status, got.body)
		}
	}
	otherEnded := func(t *testing.T) {
		t.Helper()
		sitetest.Eventually(t, "the access token of another session is refused", func() bool { return s.bearer("/todos/", other.Token).status == 401 })
		if got := s.post("/auth/refresh", sitetest.JSON{"refreshToken": other.RefreshToken}); got.status != 401 {
			t.Errorf("the refresh token of another session: %d", got.status)
		}
	}
	loggedInBy := func(t *testing.T) *http.Client {
		t.Helper()
		chrome := browser(t)
		s.mustAnswer(303, s.form(chrome, "/auth/login", formOf(email)), "log-in")
		return chrome
	}
	link := func(t *testing.T) (token string) {
		t.Helper()
		token = store.RandomToken(32)
		err := storeOf(t).CreateOneTimeToken(t.Context(), store.OneTimeToken{Hash: store.HashToken(token), Purpose: accounts.PurposeReset, UserID: userOf(t, email).ID, ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	passwordIsNew := func(t *testing.T, _ reply) {
		logsInWith(t, changed)
		otherEnded(t)
	}
	for _, r := range []repetition{
		{"sign-up", func(*testing.T) func() reply {
			email = strings.ToLower(store.RandomToken(8)) + "@example.com"
			return func() reply { return s.post("/auth/signup", credentialsOf(email)) }
		}, []int{201, 409}, func(t *testing.T, _ reply) { logsInWith(t, goodPassword) }},
		{"sign-up by the form", func(t *testing.T) func() reply {
			email = strings.ToLower(store.RandomToken(8)) + "@example.com"
			chrome := browser(t)
			return func() reply { return s.form(chrome, "/auth/signup", formOf(email)) }
		}, []int{303, 409}, func(t *testing.T, second reply) {
			logsInWith(t, goodPassword)
			if second.status == 409 && (!strings.Contains(second.body, "log in with the password that you chose") || !strings.Contains(second.body, `href="/auth/login`)) {
				t.Errorf("the page: %s", second.body)
			}
		}},
		{"log-in", func(t *testing.T) func() reply {
			signUp(t)
			return func() reply { return s.post("/auth/login", credentialsOf(email)) }
		}, []int{200}, func(t *testing.T, second reply) {
			s.mustAnswer(200, s.bearer("/todos/", second.tokens(t).Token), "the access token")
		}},
		{"log-in by the form", func(t *testing.T) func() reply {
			signUp(t)
			chrome := browser(t)
			return func() reply { return s.form(chrome, "/auth/login", formOf(email)) }
		}, []int{303}, nil},
		{"password change", func(t *testing.T) func() reply {
			own := signUp(t)
			return func() reply {
				return s.post("/auth/password", sitetest.JSON{"currentPassword": goodPassword, "newPassword": changed}, "Authorization: Bearer "+own.Token)
			}
		}, []int{204}, passwordIsNew},
		{"password change by the form", func(t *testing.T) func() reply {
			signUp(t)
			chrome := loggedInBy(t)
			return func() reply {
				return s.form(chrome, "/auth/password", url.Values{"currentPassword": {goodPassword}, "newPassword": {changed}})
			}
		}, []int{200}, passwordIsNew},
		{"reset", func(t *testing.T) func() reply {
			signUp(t)
			token := link(t)
			return func() reply { return s.post("/auth/reset", sitetest.JSON{"token": token, "newPassword": changed}) }
		}, []int{204}, passwordIsNew},
		{"reset by the form", func(t *testing.T) func() reply {
			signUp(t)
			token := link(t)
			chrome := browser(t)
			return func() reply {
				return s.form(chrome, "/auth/reset", url.Values{"token": {token}, "newPassword": {changed}})
			}
		}, []int{200}, passwordIsNew},
		{"log-out", func(t *testing.T) func() reply {
			signUp(t)
			chrome := loggedInBy(t)
			replaced := accessCookie(t, s, chrome)
			s.mustAnswer(303, s.form(chrome, "/auth/login", formOf(email)), "the same browser logs in again")
			other = tokens{Token: replaced, RefreshToken: "none"}
			newest := accessCookie(t, s, chrome)
			return func() reply { return s.post("/auth/logout", "", "Authorization: Bearer "+newest) }
		}, []int{204, 401}, func(t *testing.T, _ reply) { otherEnded(t) }},
		{"log-out by the form", func(t *testing.T) func() reply {
			signUp(t)
			chrome := loggedInBy(t)
			other = tokens{Token: accessCookie(t, s, chrome), RefreshToken: "none"}
			return func() reply { return s.form(chrome, "/auth/logout", url.Values{}) }
		}, []int{303}, func(t *testing.T, _ reply) { otherEnded(t) }},
		{"the end of another session", func(t *testing.T) func() reply {
			own := signUp(t)
			id := sessionIn(t, other.Token)
			return func() reply {
				return s.send(http.MethodDelete, "/auth/sessions/"+id, "", "Authorization: Bearer "+own.Token)
			}
		}, []int{204, 404}, func(t *testing.T, _ reply) { otherEnded(t) }},
		{"the end of another session, by the form", func(t *testing.T) func() reply {
			signUp(t)
			chrome := loggedInBy(t)
			id := sessionIn(t, other.Token)
			return func() reply { return s.form(chrome, "/auth/sessions/"+id, url.Values{}) }
		}, []int{303, 404}, func(t *testing.T, _ reply) { otherEnded(t) }},
	} {
		for name, moment := range map[string]storefault.Moment{"not made": storefault.BeforeStatement, "made, and not told": storefault.AfterCommit} {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				s.t = t
				var seen []int
				for n := 1; ; n++ {
					send := r.begin(t)
					hit := faults.Once(moment, n)
					got := send()
					wasHit := hit()
					faults.Set(nil)
					if !wasHit && got.status != r.gets[0] {
						t.Fatalf("control: %d %s", got.status, got.body)
					}
					if wasHit {
						if got.status != 503 || got.header.Get("Retry-After") == "" {
							t.Errorf("the %d. fails: %d %v %s", n, got.status, got.header, got.body)
						}
						got = send()
						if !slices.Contains(r.gets, got.status) {
							t.Errorf("repeated after the %d. failed: %d %s", n, got.status, got.body)
						}
					}
					seen = append(seen, got.status)
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
	if n := strings.Count(s.log(), "reused"); n > 0 {
		t.Error("the log tells of a theft")
	}
}
