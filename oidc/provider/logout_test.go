package provider_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/provider"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
)

// toldOf runs a client's back-channel log-out endpoint, and returns the received tokens.
func toldOf(t *testing.T) (receiver *httptest.Server, told chan map[string]any) {
	told = make(chan map[string]any, 100)
	receiver = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		told <- sitetest.ClaimsOf(t, r.PostFormValue("logout_token"))
	}))
	t.Cleanup(receiver.Close)
	return receiver, told
}

func mustBeTold(t *testing.T, told chan map[string]any, idToken any) {
	t.Helper()
	select {
	case claims := <-told:
		if wanted := sitetest.ClaimsOf(t, idToken.(string)); claims["sid"] != wanted["sid"] ||
			claims["sub"] != wanted["sub"] {
			t.Errorf("told of %v, expected %v", claims, wanted)
		}
	case <-time.After(30 * time.Second):
		t.Error("not told")
	}
}

// If a session was replaced, for example because a second client required the password again, a
// log-out with its ID token logs the browser out.
func TestLogoutOfAReplacedSession(t *testing.T) {
	for _, way := range []string{"GET by the browser", "POST without a cookie"} {
		t.Run(way, func(t *testing.T) {
			s := serveClients(t)
			chrome := s.browser()
			chrome.SignUp("alice@example.com")
			first := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
			second := chrome.redeem("spa", chrome.code("spa", url.Values{"prompt": {"login"}})).JSON(t)
			values := url.Values{
				"id_token_hint": {first["id_token"].(string)}, "post_logout_redirect_uri": {"https://app.example/"},
			}
			var got sitetest.Reply
			if way == "GET by the browser" {
				got = chrome.Get("/oidc/logout?" + values.Encode())
			} else {
				got = chrome.Get(s.browser().Post("/oidc/logout", values, "Sec-Fetch-Site: cross-site").To(t).String())
			}
			if got.To(t).String() != "https://app.example/" {
				t.Errorf("it leads to %s", got.To(t))
			}
			if chrome.Get("/auth/whoami").Status != 401 {
				t.Error("the browser is still logged in")
			}
			for name, tokens := range map[string]map[string]any{"first": first, "second": second} {
				if chrome.live(tokens["access_token"]) {
					t.Errorf("the tokens of the %s client are good", name)
				}
			}
		})
	}
}

// A log-in form that was sent twice starts two sessions. Whichever the browser keeps, both end
// together.
func TestLogoutOfEitherOfTwo(t *testing.T) {
	s := serveClients(t)
	s.browser().SignUp("alice@example.com")
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	for keeps := range 2 {
		chrome := s.browser()
		chrome.Post("/auth/login", url.Values{"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}})
		before := chrome.Client.Jar.Cookies(at)
		var cookies [][]*http.Cookie
		for range 2 {
			chrome.Client.Jar.SetCookies(at, before)
			chrome.Post("/auth/login", url.Values{"email": {"alice@example.com"}, "password": {sitetest.GoodPassword}})
			cookies = append(cookies, chrome.Client.Jar.Cookies(at))
		}
		chrome.Client.Jar.SetCookies(at, cookies[keeps])
		chrome.Post("/auth/logout", url.Values{})
		for i := range 2 {
			chrome.Client.Jar.SetCookies(at, cookies[i])
			if got := chrome.Get("/auth/whoami"); got.Status != 401 {
				t.Errorf("the browser keeps answer %d and logs out: that of %d is logged in", keeps, i)
			}
		}
	}
}

// A client that does not respond delays only its own log-out notifications.
func TestLogoutOfAClientThatHangs(t *testing.T) {
	stop := make(chan struct{})
	var asked atomic.Int64
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_ = r.ParseForm()
		<-stop
	}))
	defer hangs.Close()
	defer close(stop)
	receiver, told := toldOf(t)
	s := serve(t, fmt.Sprintf(`client app {
		secret %s
		redirect_uri %s
		consent never
		backchannel_logout_uri %s
	}
	client web {
		secret %s
		redirect_uri %s
		consent never
		backchannel_logout_uri %s
	}`, appSecret, appCallback, hangs.URL, appSecret, appCallback, receiver.URL), "")
	alice := s.browser()
	alice.SignUp("alice@example.com")
	for range 5 * logoutsAtOnce {
		s.browser().code("app", nil)
	}
	bob := s.browser()
	bob.Email = "bob@example.com"
	bob.SignUp(bob.Email)
	tokens := bob.redeem("web", bob.code("web", nil)).JSON(t)
	alice.Post("/auth/password", url.Values{
		"currentPassword": {sitetest.GoodPassword}, "newPassword": {"another good password"},
	})
	sitetest.Eventually(t, "the client hangs", func() bool { return asked.Load() > 0 })
	bob.Post("/auth/logout", url.Values{})
	mustBeTold(t, told, tokens["id_token"])
	if got := asked.Load(); got > logoutsAtOnce {
		t.Errorf("before the other is told the one that hangs was asked %d times", got)
	}
}

// Clients are also notified of sessions that ended while no node ran and that are no longer stored
// as revoked.
func TestLogoutWhileCaddyIsDown(t *testing.T) {
	receiver, told := toldOf(t)
	clients := fmt.Sprintf(clientsOfTests, "backchannel_logout_uri "+receiver.URL)
	s := serve(t, clients, "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	tokens := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	userID := sitetest.ClaimsOf(t, tokens["id_token"].(string))["sub"].(string)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	store := s.store().(*filestore.Store)
	if _, err := store.EndSessions(t.Context(), userID, "", "", time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Exec(t.Context(), `DELETE FROM revocations`); err != nil { // as after some time
		t.Fatal(err)
	}
	s.load(clients, "", s.dir)
	mustBeTold(t, told, tokens["id_token"])
}

// A re-created client is not notified of sessions of its predecessor.
func TestLogoutOfAClientMadeAnew(t *testing.T) {
	s := serveClients(t)
	users := s.store()
	old, toldOld := toldOf(t)
	fresh, toldFresh := toldOf(t)
	add := func(id, since, uri string) {
		t.Helper()
		s.addClient(id, since, func(c *provider.Client) { c.Consent, c.BackchannelLogoutURI = "never", uri })
	}
	add("wiki", "1", old.URL)
	add("blog", "1", old.URL)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	for _, id := range []string{"wiki", "blog"} {
		chrome.code(id, url.Values{"redirect_uri": {"https://wiki.example/"}})
	}
	if _, err := users.TakeRecord(t.Context(), kindClient, "wiki", time.Now()); err != nil {
		t.Fatal(err)
	}
	add("wiki", "2", fresh.URL)
	chrome.Post("/auth/logout", url.Values{})
	if claims := <-toldOld; claims["aud"] != "blog" { // the control
		t.Errorf("told %v", claims)
	}
	sitetest.Eventually(t, "all log-outs are done", func() bool {
		all, err := users.Records(t.Context(), s.kind(kindLogout), "", time.Now())
		for _, record := range all {
			var l struct{ Done bool }
			if json.Unmarshal(record.Value, &l) != nil || !l.Done {
				return false
			}
		}
		return err == nil && len(all) == 2
	})
	if len(toldFresh) != 0 {
		t.Errorf("the new client is told of a session that it never had: %v", <-toldFresh)
	}
}

// If a client is deleted and added again, for example for a new secret, it is notified of the end
// of a session in which it has a login since then.
func TestLogoutOfAClientAddedAgain(t *testing.T) {
	s := serveClients(t)
	users := s.store()
	receiver, told := toldOf(t)
	add := func(since string) {
		t.Helper()
		s.addClient("wiki", since, func(c *provider.Client) {
			c.Consent, c.BackchannelLogoutURI = "never", receiver.URL
		})
	}
	add("1")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	chrome.code("wiki", url.Values{"redirect_uri": {"https://wiki.example/"}})
	if _, err := users.TakeRecord(t.Context(), kindClient, "wiki", time.Now()); err != nil {
		t.Fatal(err)
	}
	add("2")
	chrome.code("wiki", url.Values{"redirect_uri": {"https://wiki.example/"}})
	chrome.Post("/auth/logout", url.Values{})
	select {
	case <-told:
	case <-time.After(30 * time.Second):
		t.Error("not told")
	}
}

// If a client refuses some notifications, for example of sessions that it does not know, it gets
// the others in the same round.
func TestLogoutOfAClientThatRefusesSome(t *testing.T) {
	const sessions = 6 * logoutsAtOnce
	var mu sync.Mutex
	asked := make(map[any]bool)
	told := 0
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		sid := sitetest.ClaimsOf(t, r.PostFormValue("logout_token"))["sid"]
		again := asked[sid]
		if again && told < sessions/2 {
			t.Errorf("it is told of %v again before it was told of all once", sid)
		}
		if again || len(asked)%2 == 0 {
			w.WriteHeader(http.StatusBadRequest)
		} else {
			told++
		}
		asked[sid] = true
	}))
	defer receiver.Close()
	clients := fmt.Sprintf(clientsOfTests, "backchannel_logout_uri "+receiver.URL)
	s := serve(t, clients, "")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	// All are stored before the first is sent, so that the order does not depend on the clock.
	users := s.store()
	for i := range sessions {
		due, err := json.Marshal(sitetest.JSON{
			"client_id": "app", "user_id": "alice", "session_id": fmt.Sprint("session ", i),
		})
		if err == nil {
			err = users.CreateRecord(t.Context(), store.Record{Kind: s.kind(kindLogout), ID: fmt.Sprint(i), Value: due})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.load(clients, "", s.dir)
	sitetest.Eventually(t, "half of them are taken", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return told == sessions/2
	})
}

// A user who deletes the account leaves nothing to the clients: they are told, and codes and grants are
// gone with it.
func TestClientsOfADeletedUser(t *testing.T) {
	receiver, told := toldOf(t)
	s := serve(t, fmt.Sprintf(`client app {
		secret %s
		redirect_uri %s
		consent never
		scopes openid email offline_access
		backchannel_logout_uri %s
	}`, appSecret, appCallback, receiver.URL), "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	id := accountstest.UserOf(t, "alice@example.com").ID
	tokens := chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	chrome.redeem("app", chrome.code("app", url.Values{"scope": {"openid offline_access"}, "prompt": {"consent"}})).JSON(t)
	unused := chrome.code("app", nil)
	chrome.Post("/auth/logout", url.Values{}) // codes of an ended session belong to the user, too
	mustBeTold(t, told, tokens["id_token"])
	chrome.Post("/auth/login", sitetest.FormOf("alice@example.com"))
	tokens = chrome.redeem("app", chrome.code("app", nil)).JSON(t)
	all := func(kind string) (values int) {
		records, err := s.store().Records(t.Context(), s.kind(kind), "", time.Now())
		for _, record := range records {
			if strings.Contains(string(record.Value), id) {
				values++
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		return values
	}
	if all(kindGrant) != 2 || all(kindCode) != 4 {
		t.Fatalf("control: %d grants, %d codes", all(kindGrant), all(kindCode))
	}
	if err := s.store().DeleteUser(t.Context(), id, time.Now()); err != nil {
		t.Fatal(err)
	}
	if all(kindGrant) != 0 || all(kindCode) != 0 {
		t.Errorf("left are %d grants, %d codes", all(kindGrant), all(kindCode))
	}
	mustBeTold(t, told, tokens["id_token"])
	if got := chrome.redeem("app", unused); got.Status != 400 {
		t.Errorf("a code of the user: %d %s", got.Status, got.Body)
	}
}
