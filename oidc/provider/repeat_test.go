package provider_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/internal/storefault"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// faulty returns the site with a store that can fail.
func (s *site) faulty() {
	s.T.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.T.Fatal(err)
	}
	s.LoadText(storefault.Faulty(string(text)))
	s.T.Cleanup(func() { storefault.Faults.Set(nil) })
}

const saysReplayed = "authorization code was used twice; its tokens are revoked"

func (s *site) replaysLogged() int { return strings.Count(s.Log(), saysReplayed) }

// exchanges are the ways to get tokens that work once. begin returns the request.
var exchanges = []struct {
	name  string
	begin func(b *browser) (send func() sitetest.Reply)
}{
	{"a public client", func(b *browser) func() sitetest.Reply {
		code := b.code("spa", nil)
		return func() sitetest.Reply { return b.redeem("spa", code) }
	}},
	{"a confidential client", func(b *browser) func() sitetest.Reply {
		code := b.code("app", nil)
		return func() sitetest.Reply { return b.redeem("app", code) }
	}},
	{"without PKCE", func(b *browser) func() sitetest.Reply {
		code := b.code("web", url.Values{"code_challenge": {""}, "code_challenge_method": {""}})
		return func() sitetest.Reply {
			return b.exchange("web", url.Values{
				"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {appCallback},
			})
		}
	}},
	{"offline access", func(b *browser) func() sitetest.Reply {
		code := b.code("app", url.Values{"scope": {"openid offline_access"}})
		return func() sitetest.Reply { return b.redeem("app", code) }
	}},
	{"hybrid", func(b *browser) func() sitetest.Reply {
		code := b.hybrid("web")
		return func() sitetest.Reply { return b.redeem("web", code) }
	}},
	{"no refresh tokens", func(b *browser) func() sitetest.Reply {
		code := b.code("brief", nil)
		return func() sitetest.Reply { return b.redeemAs("brief", code) }
	}},
	{"hybrid, no refresh tokens", func(b *browser) func() sitetest.Reply {
		code := b.hybrid("brief")
		return func() sitetest.Reply { return b.redeemAs("brief", code) }
	}},
	{"a device", func(b *browser) func() sitetest.Reply {
		device := b.Post("/oidc/device_authorization", url.Values{
			"client_id": {"tv"}, "scope": {"openid email"},
		}).JSON(b.T)
		page := b.Get(device["verification_uri_complete"].(string))
		if got := b.Decide("/oidc/device", page, "allow"); got.Status != 200 ||
			!strings.Contains(got.Body, "is connected") {
			b.T.Fatalf("%d %s", got.Status, got.Body)
		}
		return func() sitetest.Reply {
			return b.exchange("tv", url.Values{
				"grant_type": {grantDevice}, "device_code": {device["device_code"].(string)},
			})
		}
	}},
}

// hybrid returns a code that comes together with an ID token.
func (b *browser) hybrid(client string) string {
	b.T.Helper()
	fragment, err := url.ParseQuery(
		b.GoOn(b.authorizeURL(client, url.Values{"response_type": {"code id_token"}})).Fragment,
	)
	if err != nil || fragment.Get("code") == "" {
		b.T.Fatalf("%v %v", fragment, err)
	}
	return fragment.Get("code")
}

func (b *browser) redeemAs(client, code string) sitetest.Reply {
	return b.Post("/oidc/token", url.Values{
		"grant_type": {"authorization_code"}, "code": {code},
		"redirect_uri": {appCallback}, "code_verifier": {verifier},
	}, sitetest.Basic(client, appSecret))
}

// repeating returns a provider whose store can fail.
func repeating(t *testing.T) (*site, *browser) {
	t.Helper()
	s := serve(t, fmt.Sprintf(clientsOfTests, "")+`
	client brief {
		secret `+appSecret+`
		redirect_uri `+appCallback+`
		response_types code "code id_token"
		grant_types authorization_code implicit
		consent never
	}`, "")
	s.faulty()
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	return s, chrome
}

// A fault of the store is not a replay. Whichever statement of an exchange fails, before it or
// after its commit, once or for a while: a client that repeats the request gets tokens, and the
// next use is still a replay.
func TestThreatStoreFaultIsNoReplay(t *testing.T) {
	s, chrome := repeating(t)
	for _, exchange := range exchanges {
		for name, fail := range map[string]func(n int) func() bool{
			"not made": func(n int) func() bool { return storefault.Faults.Once(storefault.BeforeStatement, n) },
			"away from then on": func(n int) func() bool {
				return storefault.Faults.Down(storefault.BeforeStatement, n)
			},
			"made, and not told": func(n int) func() bool { return storefault.Faults.Once(storefault.AfterCommit, n) },
		} {
			t.Run(exchange.name+"/"+name, func(t *testing.T) {
				s.T, chrome.T = t, t
				for n := 1; ; n++ {
					before := s.replaysLogged()
					send := exchange.begin(chrome)
					hit := fail(n)
					got := send()
					wasHit := hit()
					storefault.Faults.Set(nil)
					if wasHit {
						if got.Status != 503 || got.Header.Get("Retry-After") == "" {
							t.Fatalf("the %d. fails: %d %s", n, got.Status, got.Body)
						}
						got = send()
					}
					if got.Status != 200 {
						t.Fatalf("repeated after the %d. failed: %d %s", n, got.Status, got.Body)
					}
					tokens := got.JSON(t)
					if !chrome.live(tokens["access_token"]) {
						t.Fatalf("repeated after the %d. failed: the access token is dead", n)
					}
					if s.replaysLogged() != before {
						t.Errorf("the %d. fails: the log tells of a replay", n)
					}
					if refresh, has := tokens["refresh_token"].(string); has !=
						!strings.Contains(exchange.name, "no refresh") {
						t.Errorf("refresh token: %v", has)
					} else if has {
						client := map[string]string{
							"a public client": "spa", "a confidential client": "app",
							"offline access": "app", "a device": "tv",
						}[exchange.name]
						if client == "" {
							client = "web"
						}
						if again := chrome.refresh(client, refresh); again.Status != 200 {
							t.Errorf(
								"repeated after the %d. failed: the refresh token: %d %s", n, again.Status, again.Body,
							)
						}
					}
					if exchange.name == "a device" {
						send().MustFail(t, 400, "expired_token")
					} else {
						send().MustFail(t, 400, "invalid_grant")
						if chrome.live(tokens["access_token"]) {
							t.Errorf("after the %d. failed, a replay is not seen", n)
						}
					}
					if !wasHit {
						return
					}
				}
			})
		}
	}
}

// The store becomes unavailable right after it has recorded that tokens are issued, so that this
// cannot be undone: the client gets no tokens, as after a lost response.
func TestLostAtTheLastMoment(t *testing.T) {
	s, chrome := repeating(t)
	chrome.redeem("spa", chrome.code("spa", nil)) // the first exchange also creates the key of refresh tokens
	for _, exchange := range exchanges {
		t.Run(exchange.name, func(t *testing.T) {
			s.T, chrome.T = t, t
			send := exchange.begin(chrome)
			storefault.Faults.Set(nil)
			if got := send(); got.Status != 200 {
				t.Fatalf("control: %d %s", got.Status, got.Body)
			}
			statements, changes := storefault.Faults.Counts()
			t.Logf("%d statements of which %d are changes", statements, changes)
			send = exchange.begin(chrome)
			hit := storefault.Faults.Down(storefault.AfterCommit, changes)
			got, wasHit := send(), hit()
			storefault.Faults.Set(nil)
			if got.Status != 503 || !wasHit {
				t.Fatalf("%d %s", got.Status, got.Body)
			}
			if got := send(); got.Status != 400 {
				t.Errorf("%d %s", got.Status, got.Body)
			}
		})
	}
}

// A client that disconnects during its exchange gets tokens when it repeats the request.
func TestHangUpIsNoReplay(t *testing.T) {
	s, chrome := repeating(t)
	exchange := func(ctx context.Context, code string) error {
		form := url.Values{
			"grant_type": {"authorization_code"}, "client_id": {"spa"},
			"code": {code}, "redirect_uri": {spaCallback}, "code_verifier": {verifier},
		}
		request, err := http.NewRequestWithContext(
			ctx, http.MethodPost, s.URL+"/oidc/token", strings.NewReader(form.Encode()),
		)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := chrome.Client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	}
	storefault.Faults.Set(nil)
	if err := exchange(t.Context(), chrome.code("spa", nil)); err != nil {
		t.Fatal(err)
	}
	hungUp := func() int { return strings.Count(s.Log(), `"error":"temporarily_unavailable"`) }
	const changes = 2 // of an exchange: the grant, and that its tokens are issued
	for n := 1; n <= changes; n++ {
		code, before := chrome.code("spa", nil), hungUp()
		ctx, hangUp := context.WithCancel(t.Context())
		storefault.Faults.Set(func(ofRequest context.Context, moment storefault.Moment, i int) error {
			if moment == storefault.AfterCommit && i == n {
				hangUp()
				<-ofRequest.Done()
			}
			return nil
		})
		if err := exchange(ctx, code); err == nil {
			t.Fatal("the client has not hung up")
		}
		sitetest.Eventually(t, "the request is over", func() bool { return hungUp() > before })
		storefault.Faults.Set(nil)
		if got := chrome.redeem("spa", code); got.Status != 200 || !chrome.live(got.JSON(t)["access_token"]) ||
			s.replaysLogged() > 0 {
			t.Errorf("after change %d: %d %s", n, got.Status, got.Body)
		}
	}
}

// Two clients have a code and its secrets, and the store fails for one of them or for none. In each
// order of events at most one of them gets tokens, and these are not valid after the other one has
// used the code.
func TestThreatCodeOrders(t *testing.T) {
	s, chrome := repeating(t)
	for name, steps := range map[string][]string{ // which client uses the code, and whether the store fails
		"the owner is first":                          {"owner", "thief"},
		"the thief is first":                          {"thief", "owner"},
		"a fault, and the thief is first":             {"owner!", "thief", "owner"},
		"a fault, and the owner is first":             {"owner!", "owner", "thief"},
		"the thief meets a fault":                     {"thief!", "owner", "thief"},
		"the thief meets a fault, and comes again":    {"thief!", "thief", "owner"},
		"faults at both, and the owner is first":      {"owner!", "thief!", "owner", "thief"},
		"faults at both, and the thief is first":      {"thief!", "owner!", "thief", "owner"},
		"a fault again and again, and then the thief": {"owner!", "owner!", "owner!", "thief", "owner"},
	} {
		t.Run(name, func(t *testing.T) {
			s.T, chrome.T = t, t
			for n := 1; ; n++ {
				code, before, failed := chrome.code("spa", nil), s.replaysLogged(), false
				var access any
				for i, who := range steps {
					hit := func() bool { return false }
					if storefault.Faults.Set(nil); strings.HasSuffix(who, "!") {
						hit = storefault.Faults.Once(storefault.AfterCommit, n)
					}
					got := chrome.redeem("spa", code)
					failed = failed || hit()
					if got.Status == 200 {
						if access != nil {
							t.Fatalf("fault %d, step %d: tokens a second time", n, i+1)
						}
						if access = got.JSON(t)["access_token"]; !chrome.live(access) {
							t.Fatalf("fault %d, step %d: the tokens are dead", n, i+1)
						}
					}
				}
				storefault.Faults.Set(nil)
				if access == nil || chrome.live(access) || s.replaysLogged() == before {
					t.Errorf(
						"fault %d: tokens %v, good: %v, replays logged: %d", n,
						access != nil, chrome.live(access), s.replaysLogged()-before,
					)
				}
				if !failed {
					return
				}
			}
		})
	}
}

// After a fault a code is unchanged: it is valid for its client, for a minute, and for only one of
// several concurrent uses.
func TestThreatCodeAfterAFault(t *testing.T) {
	s, chrome := repeating(t)
	failed := func() (code string) {
		code = chrome.code("spa", nil)
		hit := storefault.Faults.Once(storefault.AfterCommit, 2)
		if got := chrome.redeem("spa", code); got.Status != 503 || !hit() {
			t.Fatalf("%d %s", got.Status, got.Body)
		}
		storefault.Faults.Set(nil)
		return code
	}
	code := failed()
	form := func(name, value string) url.Values {
		form := url.Values{
			"grant_type": {"authorization_code"}, "code": {code},
			"redirect_uri": {spaCallback}, "code_verifier": {verifier},
		}
		form.Set(name, value)
		return form
	}
	for name, other := range map[string]func() sitetest.Reply{
		"another client": func() sitetest.Reply { return chrome.exchange("native", form("code", code)) },
		"another redirect_uri": func() sitetest.Reply {
			return chrome.exchange("spa", form("redirect_uri", "http://127.0.0.1/callback"))
		},
		"another verifier": func() sitetest.Reply {
			return chrome.exchange("spa", form("code_verifier", strings.Repeat("x", 43)))
		},
		"no verifier": func() sitetest.Reply { return chrome.exchange("spa", form("code_verifier", "")) },
	} {
		if got := other(); got.Status != 400 {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if got := chrome.redeem("spa", code); got.Status != 200 || !chrome.live(got.JSON(t)["access_token"]) {
		t.Errorf("control: %d %s", got.Status, got.Body)
	}

	users := s.store()
	change := func(kind, id string, f func(kept map[string]any)) {
		t.Helper()
		_, err := users.UpdateRecord(t.Context(), s.kind(kind), id, time.Now(), func(r *store.Record) error {
			var kept map[string]any
			err := json.Unmarshal(r.Value, &kept)
			if err == nil {
				f(kept)
				r.Value, err = json.Marshal(kept)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	code = failed()
	change(kindCode, sitetest.Challenge(code), func(kept map[string]any) { kept["expires_at"] = time.Now() })
	chrome.redeem("spa", code).MustFail(t, 400, "invalid_grant")

	code = chrome.code("spa", nil) // a replay is also detected after the minute
	access := chrome.redeem("spa", code).JSON(t)["access_token"]
	change(kindCode, sitetest.Challenge(code), func(kept map[string]any) { kept["expires_at"] = time.Now() })
	chrome.redeem("spa", code).MustFail(t, 400, "invalid_grant")
	if chrome.live(access) {
		t.Error("a replay after the minute is not seen")
	}

	code = failed() // the client repeats the request so late that it gets another refresh token
	change(kindCode, sitetest.Challenge(code), func(kept map[string]any) {
		change(kindGrant, kept["grant"].(map[string]any)["id"].(string), func(g map[string]any) {
			g["rotated_at"] = time.Now().Add(-time.Hour).UnixMilli()
		})
	})
	if got := chrome.redeem("spa", code); got.Status != 200 ||
		chrome.refresh("spa", got.JSON(t)["refresh_token"].(string)).Status != 200 {
		t.Errorf("later: %d %s", got.Status, got.Body)
	}

	code = failed()
	var all sync.WaitGroup
	var given atomic.Int64
	var last atomic.Value
	for range 50 {
		all.Go(func() {
			if got := s.browser().redeem("spa", code); got.Status == 200 {
				given.Add(1)
				last.Store(got.JSON(t)["access_token"])
			}
		})
	}
	all.Wait()
	if given.Load() != 1 || chrome.live(last.Load()) {
		t.Errorf("%d of 50 uses gave tokens", given.Load())
	}
}

// The results of requests to the provider that change something and are sent again after one of
// their statements failed: the table of docs/operations.md.
func TestThreatRepeatedRequests(t *testing.T) {
	s, chrome := repeating(t)
	dead := func(what string, access any) {
		s.T.Helper()
		sitetest.Eventually(s.T, what+" is dead", func() bool { return !chrome.live(access) })
	}
	var tokens map[string]any
	redeemed := func() { tokens = chrome.redeem("spa", chrome.code("spa", nil)).JSON(s.T) }
	codeIsGood := func(t *testing.T, got sitetest.Reply) {
		s.T.Helper()
		if code := chrome.GoOn(got.To(s.T).String()).Query().Get("code"); chrome.redeem("spa", code).Status != 200 {
			s.T.Errorf("no good code in %v", got.Header)
		}
	}
	storefault.Repeat(t, s.Site, true, []storefault.Repetition{
		{Name: "an authorization request", Begin: func(*testing.T) func() sitetest.Reply {
			return func() sitetest.Reply { return chrome.Get(s.authorizeURL("spa", nil)) }
		}, Gets: []int{303}, Holds: codeIsGood},
		{Name: "agreement", Begin: func(*testing.T) func() sitetest.Reply {
			page := chrome.Get(chrome.Get(s.authorizeURL("spa", url.Values{"prompt": {"consent"}})).To(s.T).String())
			return func() sitetest.Reply { return chrome.Decide("/oidc/consent", page, "allow") }
		}, Gets: []int{303}, Holds: codeIsGood},
		{Name: "the way back after agreement", Begin: func(*testing.T) func() sitetest.Reply {
			page := chrome.Get(chrome.Get(s.authorizeURL("spa", url.Values{"prompt": {"consent"}})).To(s.T).String())
			back := chrome.Decide("/oidc/consent", page, "allow").To(s.T).String()
			return func() sitetest.Reply { return chrome.Get(back) }
		}, Gets: []int{303}, Holds: codeIsGood},
		{Name: "a pushed request", Begin: func(*testing.T) func() sitetest.Reply {
			values := url.Values{
				"client_id": {"spa"}, "redirect_uri": {spaCallback},
				"response_type": {"code"}, "scope": {"openid"}, "state": {"a state"},
				"code_challenge": {sitetest.Challenge(verifier)}, "code_challenge_method": {"S256"},
			}
			return func() sitetest.Reply { return chrome.Post("/oidc/par", values) }
		}, Gets: []int{201}, Holds: func(t *testing.T, second sitetest.Reply) {
			uri := second.JSON(s.T)["request_uri"].(string)
			codeIsGood(
				t, chrome.Get("/oidc/authorize?"+url.Values{"client_id": {"spa"}, "request_uri": {uri}}.Encode()),
			)
		}},
		{Name: "the use of a pushed request", Begin: func(*testing.T) func() sitetest.Reply {
			values := url.Values{
				"client_id": {"spa"}, "redirect_uri": {spaCallback},
				"response_type": {"code"}, "scope": {"openid"}, "state": {"a state"},
				"code_challenge": {sitetest.Challenge(verifier)}, "code_challenge_method": {"S256"},
			}
			uri := chrome.Post("/oidc/par", values).JSON(s.T)["request_uri"].(string)
			return func() sitetest.Reply {
				return chrome.Get("/oidc/authorize?" + url.Values{"client_id": {"spa"}, "request_uri": {uri}}.Encode())
			}
		}, Gets: []int{303, 400}},
		{Name: "a device authorization", Begin: func(*testing.T) func() sitetest.Reply {
			return func() sitetest.Reply {
				return chrome.Post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid"}})
			}
		}, Gets: []int{200}, Holds: func(_ *testing.T, second sitetest.Reply) {
			if page := chrome.Get(second.JSON(s.T)["verification_uri_complete"].(string)); page.Status != 200 {
				s.T.Errorf("%d %s", page.Status, page.Body)
			}
		}},
		{Name: "a device that is let in", Begin: func(*testing.T) func() sitetest.Reply {
			device := chrome.Post("/oidc/device_authorization", url.Values{
				"client_id": {"tv"}, "scope": {"openid"},
			}).JSON(s.T)
			page := chrome.Get(device["verification_uri_complete"].(string))
			return func() sitetest.Reply { return chrome.Decide("/oidc/device", page, "allow") }
		}, Gets: []int{200}, Holds: func(_ *testing.T, second sitetest.Reply) {
			if !strings.Contains(second.Body, "is connected") {
				s.T.Errorf("%s", second.Body)
			}
		}},
		{Name: "revocation of a refresh token", Begin: func(*testing.T) func() sitetest.Reply {
			redeemed()
			return func() sitetest.Reply {
				return chrome.Post("/oidc/revoke", url.Values{
					"client_id": {"spa"}, "token": {tokens["refresh_token"].(string)},
				})
			}
		}, Gets: []int{200}, Holds: func(*testing.T, sitetest.Reply) {
			dead("the access token", tokens["access_token"])
		}},
		{Name: "revocation of an access token", Begin: func(*testing.T) func() sitetest.Reply {
			redeemed()
			return func() sitetest.Reply {
				return chrome.Post("/oidc/revoke", url.Values{
					"client_id": {"spa"}, "token": {tokens["access_token"].(string)},
				})
			}
		}, Gets: []int{200}, Holds: func(*testing.T, sitetest.Reply) {
			dead("the access token", tokens["access_token"])
		}},
		{Name: "an application that is disconnected", Begin: func(*testing.T) func() sitetest.Reply {
			redeemed()
			return func() sitetest.Reply { return chrome.Post("/oidc/applications", url.Values{"client_id": {"spa"}}) }
		}, Gets: []int{303}, Holds: func(*testing.T, sitetest.Reply) {
			dead("the access token", tokens["access_token"])
		}},
		{Name: "a log-out", Begin: func(*testing.T) func() sitetest.Reply {
			redeemed()
			return func() sitetest.Reply {
				return chrome.Get("/oidc/logout?" + url.Values{"id_token_hint": {tokens["id_token"].(string)}}.Encode())
			}
		}, Gets: []int{200}, Holds: func(*testing.T, sitetest.Reply) {
			dead("the access token", tokens["access_token"])
		}},
	})
}

// Two tabs use a refresh token at the same time, and the store delays one of them until a
// repetition no longer returns the same token: neither invalidates the other's tokens.
func TestThreatSlowStoreIsNoReuse(t *testing.T) {
	var ahead atomic.Int64 // seconds
	clock.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load()) * time.Second) }
	t.Cleanup(func() { clock.Now = time.Now })
	s := serveClients(t)
	s.faulty()
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	refresh := chrome.redeem("spa", chrome.code("spa", nil)).JSON(t)["refresh_token"].(string)
	for n := 1; n <= 4; n++ {
		var once sync.Once
		var other sitetest.Reply
		storefault.Faults.Set(func(_ context.Context, moment storefault.Moment, i int) error {
			if moment == storefault.BeforeStatement && i == n {
				once.Do(func() {
					other = s.browser().refresh("spa", refresh)
					ahead.Add(11)
				})
			}
			return nil
		})
		slow := chrome.refresh("spa", refresh)
		storefault.Faults.Set(nil)
		if other.Status != 200 {
			t.Fatalf("statement %d: the other tab: %d %s", n, other.Status, other.Body)
		}
		if slow.Status != 200 && slow.Status != 503 {
			t.Errorf("statement %d: the slow tab: %d %s", n, slow.Status, slow.Body)
		}
		next := chrome.refresh("spa", other.JSON(t)["refresh_token"].(string))
		if next.Status != 200 {
			t.Fatalf("statement %d: what the other tab was given is refused: %d %s", n, next.Status, next.Body)
		}
		refresh = next.JSON(t)["refresh_token"].(string)
	}
}
