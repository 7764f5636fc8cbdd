package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// refreshStep is a use of a refresh token, some seconds after the previous one. Tokens have names.
// A returned token gets the name in gives; if the name is already known, it must be the same token.
type refreshStep struct {
	after int
	uses  string
	gives string // empty: it is refused, and the session has ended
}

// Sequences of events with the expected results. o is the owner's, t a thief's.
var refreshOrders = []struct {
	name  string
	steps []refreshStep
	ends  bool
}{
	{
		"an answer is lost, and its client repeats itself at once",
		[]refreshStep{{0, "n0", "n1"}, {1, "n0", "n1"}, {8, "n0", "n1"}, {60, "n1", "n2"}, {60, "n2", "n3"}}, false,
	},
	{"an outage of hours", []refreshStep{{0, "n0", "lost"}, {6 * 3600, "n0", "n1"}, {60, "n1", "n2"}}, false},
	{"lost again and again", []refreshStep{
		{0, "n0", "lost"}, {11, "n0", "lost too"}, {3600, "n0", "and this"},
		{11, "n0", "n1"}, {5, "n0", "n1"}, {60, "n1", "n2"},
	}, false},
	{
		"two tabs",
		[]refreshStep{{0, "n0", "n1"}, {9, "n0", "n1"}, {900, "n1", "n2"}, {8, "n1", "n2"}, {900, "n2", "n3"}}, false,
	},
	{
		"a clock that is set back",
		[]refreshStep{{0, "n0", "n1"}, {-3600, "n0", "n1"}, {1, "n1", "n2"}, {1, "n1", "n2"}}, false,
	},

	{
		"the thief is first, and the owner's answer makes his token dead",
		[]refreshStep{{0, "n0", "t1"}, {60, "n0", "o1"}, {60, "t1", ""}, {0, "o1", ""}}, true,
	},
	{
		"the same, and the owner goes on before the thief does",
		[]refreshStep{{0, "n0", "t1"}, {60, "n0", "o1"}, {60, "o1", "o2"}, {60, "t1", ""}, {0, "o2", ""}}, true,
	},
	{
		"the thief is first, and goes on",
		[]refreshStep{{0, "n0", "t1"}, {60, "t1", "t2"}, {60, "n0", ""}, {0, "t2", ""}}, true,
	},
	{"the thief goes on at once", []refreshStep{{0, "n0", "t1"}, {1, "t1", "t2"}, {1, "n0", ""}, {0, "t2", ""}}, true},
	{"the owner is first", []refreshStep{{0, "n0", "o1"}, {60, "n0", "t1"}, {60, "o1", ""}, {0, "t1", ""}}, true},
	{
		"the owner is first, and the thief goes on",
		[]refreshStep{{0, "n0", "o1"}, {60, "n0", "t1"}, {60, "t1", "t2"}, {60, "o1", ""}, {0, "t2", ""}}, true,
	},
	{"the owner has gone on", []refreshStep{{0, "n0", "o1"}, {60, "o1", "o2"}, {60, "n0", ""}, {0, "o2", ""}}, true},
	{
		"they take turns with one token",
		[]refreshStep{{0, "n0", "t1"}, {60, "n0", "o1"}, {60, "n0", "t2"}, {60, "o1", ""}, {0, "t2", ""}}, true,
	},
	{"both within seconds, and later not", []refreshStep{
		{0, "n0", "n1"}, {5, "n0", "n1"}, {60, "n1", "o2"}, {60, "n1", "t2"}, {60, "o2", ""}, {0, "t2", ""},
	}, true},
	{"both within seconds, and one skips a turn", []refreshStep{
		{0, "n0", "n1"}, {5, "n0", "n1"}, {60, "n1", "o2"}, {60, "o2", "o3"}, {60, "n1", ""}, {0, "o3", ""},
	}, true},
}

// A client whose response was lost can continue with its token until the successor is used. If two
// clients have used a token, the session ends, in each order of events. JSON and cookies behave
// the same.
func TestThreatRefreshOrders(t *testing.T) {
	hands := sitetest.SetClock(t)
	s := sitetest.Serve(t, sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "throttle off"))
	s.SignedUp("alice@example.com")
	byJSON := func(token string) string {
		got := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": token})
		if got.Status == 200 {
			return got.Tokens(t).RefreshToken
		}
		if got.Status != 401 {
			t.Errorf("status %d %s", got.Status, got.Body)
		}
		return ""
	}
	byCookie := func(token string) string {
		got := s.Get("/todos/", "Cookie: refresh="+token)
		fresh := cookieOf(got, "refresh")
		if got.Status == 200 && fresh == "" || got.Status != 200 && got.Status != 401 {
			t.Errorf("status %d, %v", got.Status, got.Header)
		}
		return fresh
	}
	for how, use := range map[string]func(string) string{"JSON": byJSON, "cookies": byCookie} {
		for _, c := range refreshOrders {
			t.Run(how+"/"+c.name, func(t *testing.T) {
				hands.Ahead.Store(0)
				began := s.LoggedIn("alice@example.com")
				reused := countOf(s, "refresh", "reused")
				known := map[string]string{"n0": began.RefreshToken}
				for i, step := range c.steps {
					hands.Ahead.Add(int64(step.after))
					got := use(known[step.uses])
					before, named := known[step.gives]
					switch {
					case step.gives == "" && got != "":
						t.Fatalf("step %d: %s is taken", i+1, step.uses)
					case step.gives != "" && got == "":
						t.Fatalf("step %d: %s is refused", i+1, step.uses)
					case named && before != got:
						t.Errorf("step %d: %s gives another than before", i+1, step.uses)
					}
					for name, token := range known {
						if name != step.gives && token == got {
							t.Errorf("step %d: %s gives %s again", i+1, step.uses, name)
						}
					}
					if step.gives != "" {
						known[step.gives] = got
					}
				}
				if got := countOf(s, "refresh", "reused") - reused; (got > 0) != c.ends {
					t.Errorf("%v reuses are counted", got)
				}
				hands.Ahead.Store(0)
				if got := s.Bearer("/todos/", began.Token); (got.Status == 401) != c.ends {
					t.Errorf("the session's access token: %d", got.Status)
				}
			})
		}
	}
}

// cookieOf returns the value of a cookie that a response sets.
func cookieOf(got sitetest.Reply, name string) string {
	for _, cookie := range (&http.Response{Header: got.Header}).Cookies() {
		if cookie.Name == name {
			return cookie.Value
		}
	}
	return ""
}

// failingRotations is a store that works but returns an error, like a database whose commit is not
// confirmed.
type failingRotations struct {
	store.UserStore
	before, after error
	also          func()
}

func (f *failingRotations) RotateSession(ctx context.Context, r store.Rotation) error {
	if f.also != nil {
		f.also()
	}
	if f.before != nil {
		return f.before
	}
	return errors.Join(f.UserStore.RotateSession(ctx, r), f.after)
}

// A fault of the store is not a theft: no session ends, nothing is counted, no cookie is removed,
// and the same token works afterwards.
func TestThreatStoreFaultIsNoTheft(t *testing.T) {
	hands := sitetest.SetClock(t)
	s := sitetest.Serve(t, sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "throttle off"))
	got := s.SignedUp("alice@example.com")
	reused := countOf(s, "refresh", "reused")
	real := accountstest.StoreOf(t)
	for name, fault := range map[string]*failingRotations{
		"not written":              {before: errors.New("unplugged")},
		"written and not told":     {after: errors.New("the commit was not confirmed")},
		"slow":                     {also: func() { hands.Ahead.Add(11) }},
		"timed out":                {after: context.DeadlineExceeded},
		"timed out, and slow":      {after: context.DeadlineExceeded, also: func() { hands.Ahead.Add(30) }},
		"no room":                  {before: store.ErrStoreFull},
		"said to be another's way": {after: store.ErrNotFound}, // as a statement that was done twice
	} {
		t.Run(name, func(t *testing.T) {
			fault.UserStore = real
			var faulty store.UserStore = fault
			for _, long := range []int64{0, 60} {
				accountstest.ServiceOf(t).AddStore(&faulty)
				for range 3 {
					answer := s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken})
					if status := answer.Status; status != 503 && status != 507 && status != 200 {
						t.Fatalf("status %d %s", status, answer.Body)
					}
					browser := s.Get("/todos/", "Cookie: refresh="+got.RefreshToken)
					if browser.Status != 503 && browser.Status != 507 && browser.Status != 200 ||
						browser.Status != 200 && len(browser.Header["Set-Cookie"]) > 0 {
						t.Fatalf("browser: status %d %v", browser.Status, browser.Header)
					}
					hands.Ahead.Add(long)
				}
				accountstest.ServiceOf(t).AddStore(&real)
				got = s.Post("/auth/refresh", sitetest.JSON{"refreshToken": got.RefreshToken}).Tokens(t)
				s.MustAnswer(200, s.Bearer("/todos/", got.Token), "afterwards")
			}
		})
	}
	if got := countOf(s, "refresh", "reused") - reused; got != 0 {
		t.Errorf("%v reuses are counted", got)
	}
	if strings.Contains(s.Log(), "reused") {
		t.Error("the log tells of a theft")
	}
}

// A slow page does not set a refresh token that another request has replaced in the meantime.
func TestSlowPageBringsNoDeadCookie(t *testing.T) {
	hands := sitetest.SetClock(t)
	var slow sync.Mutex
	arrived := make(chan struct{}, 1)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/todos/slow" {
			arrived <- struct{}{}
			slow.Lock()
			defer slow.Unlock()
		}
		w.Header().Add("Set-Cookie", "theirs=1")
	}))
	t.Cleanup(behind.Close)
	body := strings.Replace(
		sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "throttle off"),
		"respond /todos/* ", "reverse_proxy /todos/* "+behind.URL+"\n respond /nothing ", 1,
	)
	s := sitetest.Serve(t, body)
	first := "Cookie: refresh=" + s.SignedUp("alice@example.com").RefreshToken
	slow.Lock()
	done := make(chan sitetest.Reply)
	go func() { done <- s.Get("/todos/slow", first) }()
	<-arrived // so the session is renewed
	hands.Ahead.Add(11)
	valid := cookieOf(s.Get("/todos/", first), "refresh")
	slow.Unlock()
	late := <-done
	if late.Status != 200 || valid == "" || cookieOf(late, "session") == "" || cookieOf(late, "theirs") == "" {
		t.Fatalf("control: %d %v", late.Status, late.Header)
	}
	if cookieOf(late, "refresh") != "" {
		t.Error("the slow page brings a refresh token that is dead")
	}
	if got := s.Get("/todos/", "Cookie: refresh="+valid); got.Status != 200 || cookieOf(got, "refresh") == "" {
		t.Errorf("the session goes on: %d %v", got.Status, got.Header)
	}
}

// countOf returns the number of account events.
func countOf(s *sitetest.Site, event, result string) (number int) {
	where := accountstest.StoreOf(s.T).(store.Located).Where()
	_, after, _ := strings.Cut(s.Get("/metrics").Body, fmt.Sprintf(
		"caddy_jwt_account_events_total{event=%q,result=%q,store=%q} ", event, result, where,
	))
	_, _ = fmt.Sscan(after, &number)
	return number
}

// An access token does not reveal when the session's refresh token is used. Otherwise a thief would
// learn when a repetition returns the same successor.
func TestThreatOwnSessionTellsNoRefresh(t *testing.T) {
	hands := sitetest.SetClock(t)
	s := sitetest.AccountsSite(t, "")
	owner, other := s.SignedUp("alice@example.com"), s.LoggedIn("alice@example.com")
	usedAt := func(token string, current bool) string {
		t.Helper()
		var sessions []struct {
			Current bool
			UsedAt  time.Time
		}
		if err := json.Unmarshal([]byte(s.Bearer("/auth/sessions", token).Body), &sessions); err != nil ||
			len(sessions) != 2 {
			t.Fatal(sessions, err)
		}
		for _, x := range sessions {
			if x.Current == current {
				return x.UsedAt.Truncate(time.Second).Format(time.TimeOnly)
			}
		}
		return ""
	}
	now := func() string { return hands.Now().UTC().Truncate(time.Second).Format(time.TimeOnly) }
	before := usedAt(other.Token, false)
	hands.Ahead.Add(30)
	if got, want := usedAt(owner.Token, true), now(); got < before || got > want || got == before {
		t.Errorf("the own session was used at %s, it is %s", got, want)
	}
	if got := usedAt(other.Token, false); got != before {
		t.Errorf("control: the other one was used at %s, and before at %s", got, before)
	}
	s.Post("/auth/refresh", sitetest.JSON{"refreshToken": owner.RefreshToken}).Tokens(t)
	if got := usedAt(other.Token, false); got == before {
		t.Error("control: a refresh is no use")
	}
}
