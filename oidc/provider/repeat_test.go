package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/internal/storefault"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
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
	f.Connect, f.Store.Committed = faults.Connect(f.Connect), faults.Committed(f.Store.Committed)
	return err
}

// faulty is the site with its store as one that can fail.
func (s *site) faulty() {
	s.t.Helper()
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(strings.ReplaceAll(string(text), "store file ", "store faulty ")), map[string]any{"filename": "Caddyfile"})
	if err == nil {
		err = caddy.Load(config, true)
		http.DefaultClient.CloseIdleConnections()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { faults.Set(nil) })
}

const saysReplayed = "authorization code was used twice; its tokens are revoked"

func (s *site) replaysLogged() int { return strings.Count(s.log(), saysReplayed) }

// exchanges are the ways to tokens that work once. begin leads to what is sent.
var exchanges = []struct {
	name  string
	begin func(b *browser) (send func() answer)
}{
	{"a public client", func(b *browser) func() answer {
		code := b.code("spa", nil)
		return func() answer { return b.redeem("spa", code) }
	}},
	{"a confidential client", func(b *browser) func() answer {
		code := b.code("app", nil)
		return func() answer { return b.redeem("app", code) }
	}},
	{"without PKCE", func(b *browser) func() answer {
		code := b.code("web", url.Values{"code_challenge": {""}, "code_challenge_method": {""}})
		return func() answer {
			return b.exchange("web", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {appCallback}})
		}
	}},
	{"offline access", func(b *browser) func() answer {
		code := b.code("app", url.Values{"scope": {"openid offline_access"}})
		return func() answer { return b.redeem("app", code) }
	}},
	{"hybrid", func(b *browser) func() answer {
		code := b.hybrid("web")
		return func() answer { return b.redeem("web", code) }
	}},
	{"no refresh tokens", func(b *browser) func() answer {
		code := b.code("brief", nil)
		return func() answer { return b.redeemAs("brief", code) }
	}},
	{"hybrid, no refresh tokens", func(b *browser) func() answer {
		code := b.hybrid("brief")
		return func() answer { return b.redeemAs("brief", code) }
	}},
	{"a device", func(b *browser) func() answer {
		device := b.post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid email"}}).json(b.t)
		page := b.get(device["verification_uri_complete"].(string))
		if got := b.decide("/oidc/device", page, "allow"); got.status != 200 || !strings.Contains(got.body, "is connected") {
			b.t.Fatalf("%d %s", got.status, got.body)
		}
		return func() answer {
			return b.exchange("tv", url.Values{"grant_type": {grantDevice}, "device_code": {device["device_code"].(string)}})
		}
	}},
}

// hybrid is a code beside which an ID token comes.
func (b *browser) hybrid(client string) string {
	b.t.Helper()
	fragment, err := url.ParseQuery(b.goOn(b.authorizeURL(client, url.Values{"response_type": {"code id_token"}})).Fragment)
	if err != nil || fragment.Get("code") == "" {
		b.t.Fatalf("%v %v", fragment, err)
	}
	return fragment.Get("code")
}

func (b *browser) redeemAs(client, code string) answer {
	return b.post("/oidc/token", url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {appCallback}, "code_verifier": {verifier}}, basic(client, appSecret))
}

// repeating is a provider whose store can fail.
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
	chrome.signUp("alice@example.com")
	return s, chrome
}

// A fault of the store is no replay: whichever statement of an exchange fails, be it that
// it was not made, or made and not acknowledged, be it once or for a while, the client
// that repeats itself gets tokens, and its next use is still a replay.
func TestThreatStoreFaultIsNoReplay(t *testing.T) {
	s, chrome := repeating(t)
	for _, exchange := range exchanges {
		for name, fail := range map[string]func(n int) func() bool{
			"not made":           func(n int) func() bool { return faults.Once(storefault.BeforeStatement, n) },
			"away from then on":  func(n int) func() bool { return faults.Down(storefault.BeforeStatement, n) },
			"made, and not told": func(n int) func() bool { return faults.Once(storefault.AfterCommit, n) },
		} {
			t.Run(exchange.name+"/"+name, func(t *testing.T) {
				s.t, chrome.t = t, t
				for n := 1; ; n++ {
					before := s.replaysLogged()
					send := exchange.begin(chrome)
					hit := fail(n)
					got := send()
					wasHit := hit()
					faults.Set(nil)
					if wasHit {
						if got.status != 503 || got.header.Get("Retry-After") == "" {
							t.Fatalf("the %d. fails: %d %s", n, got.status, got.body)
						}
						got = send()
					}
					if got.status != 200 {
						t.Fatalf("repeated after the %d. failed: %d %s", n, got.status, got.body)
					}
					tokens := got.json(t)
					if !chrome.live(tokens["access_token"]) {
						t.Fatalf("repeated after the %d. failed: the access token is dead", n)
					}
					if s.replaysLogged() != before {
						t.Errorf("the %d. fails: the log tells of a replay", n)
					}
					if refresh, has := tokens["refresh_token"].(string); has != !strings.Contains(exchange.name, "no refresh") {
						t.Errorf("refresh token: %v", has)
					} else if has {
						client := map[string]string{"a public client": "spa", "a confidential client": "app", "offline access": "app", "a device": "tv"}[exchange.name]
						if client == "" {
							client = "web"
						}
						if again := chrome.refresh(client, refresh); again.status != 200 {
							t.Errorf("repeated after the %d. failed: the refresh token: %d %s", n, again.status, again.body)
						}
					}
					if exchange.name == "a device" {
						send().mustFail(t, 400, "expired_token")
					} else {
						send().mustFail(t, 400, "invalid_grant")
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

// A store that is away right after it was noted that tokens are given, so that this cannot
// be undone: the client gets no tokens, as after an answer that was lost on its way.
func TestLostAtTheLastMoment(t *testing.T) {
	s, chrome := repeating(t)
	chrome.redeem("spa", chrome.code("spa", nil)) // the first makes the key of refresh tokens beside
	for _, exchange := range exchanges {
		t.Run(exchange.name, func(t *testing.T) {
			s.t, chrome.t = t, t
			send := exchange.begin(chrome)
			faults.Set(nil)
			if got := send(); got.status != 200 {
				t.Fatalf("control: %d %s", got.status, got.body)
			}
			statements, changes := faults.Counts()
			t.Logf("%d statements of which %d are changes", statements, changes)
			send = exchange.begin(chrome)
			hit := faults.Down(storefault.AfterCommit, changes)
			got, wasHit := send(), hit()
			faults.Set(nil)
			if got.status != 503 || !wasHit {
				t.Fatalf("%d %s", got.status, got.body)
			}
			if got := send(); got.status != 400 {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}

// A client that hangs up while its exchange is under way gets tokens when it comes again.
func TestHangUpIsNoReplay(t *testing.T) {
	s, chrome := repeating(t)
	exchange := func(ctx context.Context, code string) error {
		form := url.Values{"grant_type": {"authorization_code"}, "client_id": {"spa"}, "code": {code}, "redirect_uri": {spaCallback}, "code_verifier": {verifier}}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/oidc/token", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		response, err := chrome.client.Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		return err
	}
	faults.Set(nil)
	if err := exchange(t.Context(), chrome.code("spa", nil)); err != nil {
		t.Fatal(err)
	}
	hungUp := func() int { return strings.Count(s.log(), `"error":"temporarily_unavailable"`) }
	const changes = 2 // of an exchange: the grant, and that it is given
	for n := 1; n <= changes; n++ {
		code, before := chrome.code("spa", nil), hungUp()
		ctx, hangUp := context.WithCancel(t.Context())
		faults.Set(func(ofRequest context.Context, moment storefault.Moment, i int) error {
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
		faults.Set(nil)
		if got := chrome.redeem("spa", code); got.status != 200 || !chrome.live(got.json(t)["access_token"]) || s.replaysLogged() > 0 {
			t.Errorf("after change %d: %d %s", n, got.status, got.body)
		}
	}
}

// Two have a code and what goes with it, and the store fails at one of them or at none: in
// each order of events one of them has tokens at most, and has none that are good when the
// other has come too.
func TestThreatCodeOrders(t *testing.T) {
	s, chrome := repeating(t)
	for name, steps := range map[string][]string{ // who comes, and whether the store fails then
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
			s.t, chrome.t = t, t
			for n := 1; ; n++ {
				code, before, failed := chrome.code("spa", nil), s.replaysLogged(), false
				var access any
				for i, who := range steps {
					hit := func() bool { return false }
					if faults.Set(nil); strings.HasSuffix(who, "!") {
						hit = faults.Once(storefault.AfterCommit, n)
					}
					got := chrome.redeem("spa", code)
					failed = failed || hit()
					if got.status == 200 {
						if access != nil {
							t.Fatalf("fault %d, step %d: tokens a second time", n, i+1)
						}
						if access = got.json(t)["access_token"]; !chrome.live(access) {
							t.Fatalf("fault %d, step %d: the tokens are dead", n, i+1)
						}
					}
				}
				faults.Set(nil)
				if access == nil || chrome.live(access) || s.replaysLogged() == before {
					t.Errorf("fault %d: tokens %v, good: %v, replays logged: %d", n, access != nil, chrome.live(access), s.replaysLogged()-before)
				}
				if !failed {
					return
				}
			}
		})
	}
}

// After a fault a code is as it was: good for the client that it was given to, for its
// minute, and for one of any number at once.
func TestThreatCodeAfterAFault(t *testing.T) {
	s, chrome := repeating(t)
	failed := func() (code string) {
		code = chrome.code("spa", nil)
		hit := faults.Once(storefault.AfterCommit, 2)
		if got := chrome.redeem("spa", code); got.status != 503 || !hit() {
			t.Fatalf("%d %s", got.status, got.body)
		}
		faults.Set(nil)
		return code
	}
	code := failed()
	form := func(name, value string) url.Values {
		form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {spaCallback}, "code_verifier": {verifier}}
		form.Set(name, value)
		return form
	}
	for name, other := range map[string]func() answer{
		"another client":       func() answer { return chrome.exchange("native", form("code", code)) },
		"another redirect_uri": func() answer { return chrome.exchange("spa", form("redirect_uri", "http://127.0.0.1/callback")) },
		"another verifier":     func() answer { return chrome.exchange("spa", form("code_verifier", strings.Repeat("x", 43))) },
		"no verifier":          func() answer { return chrome.exchange("spa", form("code_verifier", "")) },
	} {
		if got := other(); got.status != 400 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	if got := chrome.redeem("spa", code); got.status != 200 || !chrome.live(got.json(t)["access_token"]) {
		t.Errorf("control: %d %s", got.status, got.body)
	}

	users, kinds := s.store(), state{issuer: s.url}
	change := func(kind, id string, f func(kept map[string]any)) {
		t.Helper()
		_, err := users.UpdateRecord(t.Context(), kinds.kind(kind), id, time.Now(), func(r *store.Record) error {
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
	change(kindCode, hashed(code), func(kept map[string]any) { kept["expires_at"] = time.Now() })
	chrome.redeem("spa", code).mustFail(t, 400, "invalid_grant")

	code = chrome.code("spa", nil) // a replay is seen after the minute too
	access := chrome.redeem("spa", code).json(t)["access_token"]
	change(kindCode, hashed(code), func(kept map[string]any) { kept["expires_at"] = time.Now() })
	chrome.redeem("spa", code).mustFail(t, 400, "invalid_grant")
	if chrome.live(access) {
		t.Error("a replay after the minute is not seen")
	}

	code = failed() // the client comes again so late that the refresh token is another
	change(kindCode, hashed(code), func(kept map[string]any) {
		change(kindGrant, kept["grant"].(map[string]any)["id"].(string), func(g map[string]any) {
			g["rotated_at"] = time.Now().Add(-time.Hour).UnixMilli()
		})
	})
	if got := chrome.redeem("spa", code); got.status != 200 || chrome.refresh("spa", got.json(t)["refresh_token"].(string)).status != 200 {
		t.Errorf("later: %d %s", got.status, got.body)
	}

	code = failed()
	var all sync.WaitGroup
	var given atomic.Int64
	var last atomic.Value
	for range 50 {
		all.Go(func() {
			if got := s.browser().redeem("spa", code); got.status == 200 {
				given.Add(1)
				last.Store(got.json(t)["access_token"])
			}
		})
	}
	all.Wait()
	if given.Load() != 1 || chrome.live(last.Load()) {
		t.Errorf("%d of 50 uses gave tokens", given.Load())
	}
}

// repetition is a request that is sent again after a fault of the store.
type repetition struct {
	name string
	// begin leads to the request.
	begin func() (send func() answer)
	// gets are the answers to the second, of which the first is that to one alone.
	gets []int
	// holds checks what must hold after the second, whatever the fault was.
	holds func(second answer)
}

// repeatEach sends each request again after each fault of the store that it can meet.
func repeatEach(t *testing.T, s *site, chrome *browser, rows []repetition) {
	for _, r := range rows {
		for name, moment := range map[string]storefault.Moment{"not made": storefault.BeforeStatement, "made, and not told": storefault.AfterCommit} {
			t.Run(r.name+"/"+name, func(t *testing.T) {
				s.t, chrome.t = t, t
				var seen []int
				for n := 1; ; n++ {
					send := r.begin()
					hit := faults.Once(moment, n)
					got := send()
					wasHit := hit()
					faults.Set(nil)
					if !wasHit && got.status != r.gets[0] {
						t.Fatalf("control: %d %s", got.status, got.body)
					}
					toClient := strings.Contains(got.header.Get("Location"), "error=temporarily_unavailable")
					if wasHit && (got.status != r.gets[0] || toClient) { // else it was of no matter
						if !toClient && (got.status != 503 || got.header.Get("Retry-After") == "") {
							t.Errorf("the %d. fails: %d %v %s", n, got.status, got.header, got.body)
						}
						got = send()
						if !slices.Contains(r.gets, got.status) {
							t.Errorf("repeated after the %d. failed: %d %s", n, got.status, got.body)
						}
					}
					seen = append(seen, got.status)
					if r.holds != nil {
						r.holds(got)
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
}

// What comes of each request to the provider that changes something and is sent again,
// whichever of its statements failed: the table of docs/operations.md.
func TestThreatRepeatedRequests(t *testing.T) {
	s, chrome := repeating(t)
	dead := func(what string, access any) {
		s.t.Helper()
		sitetest.Eventually(s.t, what+" is dead", func() bool { return !chrome.live(access) })
	}
	var tokens map[string]any
	redeemed := func() { tokens = chrome.redeem("spa", chrome.code("spa", nil)).json(s.t) }
	codeIsGood := func(got answer) {
		s.t.Helper()
		if code := chrome.goOn(got.to(s.t).String()).Query().Get("code"); chrome.redeem("spa", code).status != 200 {
			s.t.Errorf("no good code in %v", got.header)
		}
	}
	repeatEach(t, s, chrome, []repetition{
		{"an authorization request", func() func() answer {
			return func() answer { return chrome.get(s.authorizeURL("spa", nil)) }
		}, []int{303}, codeIsGood},
		{"agreement", func() func() answer {
			page := chrome.get(chrome.get(s.authorizeURL("spa", url.Values{"prompt": {"consent"}})).to(s.t).String())
			return func() answer { return chrome.decide("/oidc/consent", page, "allow") }
		}, []int{303}, codeIsGood},
		{"the way back after agreement", func() func() answer {
			page := chrome.get(chrome.get(s.authorizeURL("spa", url.Values{"prompt": {"consent"}})).to(s.t).String())
			back := chrome.decide("/oidc/consent", page, "allow").to(s.t).String()
			return func() answer { return chrome.get(back) }
		}, []int{303}, codeIsGood},
		{"a pushed request", func() func() answer {
			values := url.Values{"client_id": {"spa"}, "redirect_uri": {spaCallback}, "response_type": {"code"}, "scope": {"openid"}, "state": {"a state"}, "code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}}
			return func() answer { return chrome.post("/oidc/par", values) }
		}, []int{201}, func(second answer) {
			uri := second.json(s.t)["request_uri"].(string)
			codeIsGood(chrome.get("/oidc/authorize?" + url.Values{"client_id": {"spa"}, "request_uri": {uri}}.Encode()))
		}},
		{"the use of a pushed request", func() func() answer {
			values := url.Values{"client_id": {"spa"}, "redirect_uri": {spaCallback}, "response_type": {"code"}, "scope": {"openid"}, "state": {"a state"}, "code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}}
			uri := chrome.post("/oidc/par", values).json(s.t)["request_uri"].(string)
			return func() answer {
				return chrome.get("/oidc/authorize?" + url.Values{"client_id": {"spa"}, "request_uri": {uri}}.Encode())
			}
		}, []int{303, 400}, nil},
		{"a device authorization", func() func() answer {
			return func() answer {
				return chrome.post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid"}})
			}
		}, []int{200}, func(second answer) {
			if page := chrome.get(second.json(s.t)["verification_uri_complete"].(string)); page.status != 200 {
				s.t.Errorf("%d %s", page.status, page.body)
			}
		}},
		{"a device that is let in", func() func() answer {
			device := chrome.post("/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid"}}).json(s.t)
			page := chrome.get(device["verification_uri_complete"].(string))
			return func() answer { return chrome.decide("/oidc/device", page, "allow") }
		}, []int{200}, func(second answer) {
			if !strings.Contains(second.body, "is connected") {
				s.t.Errorf("%s", second.body)
			}
		}},
		{"revocation of a refresh token", func() func() answer {
			redeemed()
			return func() answer {
				return chrome.post("/oidc/revoke", url.Values{"client_id": {"spa"}, "token": {tokens["refresh_token"].(string)}})
			}
		}, []int{200}, func(answer) { dead("the access token", tokens["access_token"]) }},
		{"revocation of an access token", func() func() answer {
			redeemed()
			return func() answer {
				return chrome.post("/oidc/revoke", url.Values{"client_id": {"spa"}, "token": {tokens["access_token"].(string)}})
			}
		}, []int{200}, func(answer) { dead("the access token", tokens["access_token"]) }},
		{"an application that is disconnected", func() func() answer {
			redeemed()
			return func() answer { return chrome.post("/oidc/applications", url.Values{"client_id": {"spa"}}) }
		}, []int{303}, func(answer) { dead("the access token", tokens["access_token"]) }},
		{"a log-out", func() func() answer {
			redeemed()
			return func() answer {
				return chrome.get("/oidc/logout?" + url.Values{"id_token_hint": {tokens["id_token"].(string)}}.Encode())
			}
		}, []int{200}, func(answer) { dead("the access token", tokens["access_token"]) }},
	})
}

// The same of log-ins by another provider.
func TestThreatRepeatedLogIns(t *testing.T) {
	p := newFakeProvider(t)
	s := newLoginSite(t)
	run(t, s.logFile, strings.ReplaceAll(s.caddyfile(p.option("fake", "")), "store file ", "store faulty "))
	t.Cleanup(func() { faults.Set(nil) })
	var chrome *browser
	everyone := s.browser() // whose fields are those of the test that runs
	email := ""
	subject := func(name string) {
		email = strings.ToLower(store.RandomToken(32)[:8]) + "@example.com"
		p.lie(lies{subject: name + email, email: email})
	}
	fresh := func() {
		subject("s")
		chrome = s.browser()
	}
	repeatEach(t, s, everyone, []repetition{
		{"to the provider", func() func() answer {
			fresh()
			return func() answer { return chrome.get("/auth/login/fake") }
		}, []int{303}, nil},
		{"back from the provider", func() func() answer {
			fresh()
			back := chrome.out("/auth/login/fake")
			return func() answer { return chrome.get(back) }
		}, []int{303, 400}, func(second answer) {
			if second.status == 400 {
				if !strings.Contains(second.body, "Please log in again") {
					s.t.Errorf("%s", second.body)
				}
				second = chrome.logInBy("fake")
			}
			chrome.mustBeIn(second)
		}},
		{"yes to connect", func() func() answer {
			fresh()
			chrome.signUp(strings.ToLower(store.RandomToken(32)[:8]) + "@example.com")
			to := chrome.connectOut("fake").to(s.t).String()
			found := offered.FindStringSubmatch(chrome.get(to).body)
			return func() answer {
				return chrome.post("/auth/connect", url.Values{"offer": {found[1]}, "decision": {"yes"}})
			}
		}, []int{303, 400}, func(second answer) {
			if second.status == 400 && !strings.Contains(second.body, "Please log in again") {
				s.t.Errorf("%s", second.body)
			}
		}},
		{"a log-out by the provider", func() func() answer {
			fresh()
			chrome.mustBeIn(chrome.logInBy("fake"))
			now := time.Now().Unix()
			token := p.sign(map[string]any{"iss": p.URL, "aud": "site", "sub": "s" + email, "iat": now, "exp": now + 60, "jti": store.RandomToken(32), "events": map[string]any{protocol.LogoutEvent: map[string]any{}}}, p.key)
			return func() answer { return everyone.post("/auth/backchannel/fake", url.Values{"logout_token": {token}}) }
		}, []int{200, 400}, func(answer) {
			sitetest.Eventually(s.t, "the session is ended", func() bool {
				return chrome.do(http.MethodGet, "/auth/whoami", nil, "Accept: text/plain").status == 401
			})
		}},
	})
}

// Two tabs use a refresh token at once, and the store lets one of them wait for longer
// than a repeat gives the same token: neither ends what the other was given.
func TestThreatSlowStoreIsNoReuse(t *testing.T) {
	var ahead atomic.Int64 // seconds
	clock.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load()) * time.Second) }
	t.Cleanup(func() { clock.Now = time.Now })
	s := provider(t)
	s.faulty()
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	refresh := chrome.redeem("spa", chrome.code("spa", nil)).json(t)["refresh_token"].(string)
	for n := 1; n <= 4; n++ {
		var once sync.Once
		var other answer
		faults.Set(func(_ context.Context, moment storefault.Moment, i int) error {
			if moment == storefault.BeforeStatement && i == n {
				once.Do(func() {
					other = s.browser().refresh("spa", refresh)
					ahead.Add(11)
				})
			}
			return nil
		})
		slow := chrome.refresh("spa", refresh)
		faults.Set(nil)
		if other.status != 200 {
			t.Fatalf("statement %d: the other tab: %d %s", n, other.status, other.body)
		}
		if slow.status != 200 && slow.status != 503 {
			t.Errorf("statement %d: the slow tab: %d %s", n, slow.status, slow.body)
		}
		next := chrome.refresh("spa", other.json(t)["refresh_token"].(string))
		if next.status != 200 {
			t.Fatalf("statement %d: what the other tab was given is refused: %d %s", n, next.status, next.body)
		}
		refresh = next.json(t)["refresh_token"].(string)
	}
}
