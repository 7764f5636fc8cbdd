package provider_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/provider"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// kept returns the number of bytes that the store has for clients that have not authenticated.
func (s *site) kept() (records, bytes int) {
	s.T.Helper()
	store := s.store()
	for _, kind := range []string{kindInteraction, kindDevice, kindUserCode, kindPushed, kindCode, kindGrant} {
		all, err := store.Records(s.T.Context(), s.kind(kind), "", time.Now())
		if err != nil {
			s.T.Fatal(err)
		}
		records += len(all)
		for _, record := range all {
			bytes += len(record.Value)
		}
	}
	return records, bytes
}

// sentBy returns the headers of a request that a page of another site makes a browser send.
func sentBy(dest, mode string) []string {
	return []string{
		"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: " + dest,
		"Sec-Fetch-Mode: " + mode, "Referer: https://evil.example/",
	}
}

// Whatever a page of another site makes a browser request, the limits of the users at that address
// are not used up, and nothing is stored.
func TestThreatRequestsOfOtherSites(t *testing.T) {
	s := serveClients(t)
	alice := s.browser()
	alice.SignUp("alice@example.com")
	visitor := s.browser()
	request := s.authorizeURL("app", nil)
	const many = 2*strangersRequests + 1
	for name, headers := range map[string][]string{
		"an image": sentBy("image", "no-cors"),
		"a script": sentBy("script", "no-cors"),
		"a fetch":  sentBy("empty", "cors"),
		"a style sheet of a sister": {
			"Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: style", "Sec-Fetch-Mode: no-cors",
		},
		"an object":                    sentBy("object", "navigate"),
		"an image of a browser's mode": sentBy("image", "navigate"),
		"a page that is fetched":       sentBy("document", "no-cors"),
	} {
		for range 3 {
			for _, b := range []*browser{visitor, alice} {
				if got := b.Do(http.MethodGet, request, nil, headers...); got.Status != 403 ||
					got.Header.Get("Location") != "" {
					t.Fatalf("%s: %d %v", name, got.Status, got.Header)
				}
			}
		}
	}
	for range many { // a window of the page, again and again
		if got := visitor.Do(
			http.MethodGet, request, nil, sentBy("document", "navigate")...,
		); got.To(t).Path != "/auth/login" {
			t.Fatalf("a window: %s", got.To(t))
		}
	}
	frame := sentBy("iframe", "navigate")
	if got := visitor.Do(http.MethodGet, request, nil, frame...).To(t); got.Query().Get("error") !=
		"interaction_required" {
		t.Errorf("a frame: %s", got)
	}
	if got := visitor.Do(
		http.MethodGet, s.authorizeURL("app", url.Values{"prompt": {"none"}}), nil, frame...,
	).To(t); got.Query().Get("error") != "login_required" {
		t.Errorf("a frame that asks for no page: %s", got)
	}
	cancelled := visitor.Get(request).To(t).Query().Get("return_to") + "&cancel="
	for range 3 {
		if got := visitor.Do(
			http.MethodGet, cancelled, nil, sentBy("document", "navigate")...,
		).To(t); got.Query().Get("error") != "access_denied" {
			t.Errorf("cancelled: %s", got)
		}
	}
	public, err := url.Parse(s.authorizeURL("spa", nil))
	if err != nil {
		t.Fatal(err)
	}
	posts := map[string]struct {
		form url.Values
		want int
	}{
		"/oidc/device_authorization": {url.Values{"client_id": {"tv"}, "scope": {"openid"}}, 200},
		"/oidc/par":                  {public.Query(), 201},
		"/oidc/token": {
			url.Values{"client_id": {"app"}, "client_secret": {"wrong"}, "grant_type": {"refresh_token"}}, 401,
		},
		"/oidc/introspect": {url.Values{"client_id": {"app"}, "client_secret": {"wrong"}, "token": {"x"}}, 401},
		"/oidc/revoke":     {url.Values{"client_id": {"app"}, "client_secret": {"wrong"}, "token": {"x"}}, 401},
	}
	for path, post := range posts {
		for name, headers := range map[string][]string{
			"a form":                append(sentBy("document", "navigate"), "Origin: https://evil.example"),
			"a fetch without CORS":  append(sentBy("empty", "no-cors"), "Origin: https://evil.example"),
			"a browser of old":      {"Origin: https://evil.example"},
			"a page without origin": {"Origin: null"},
			"a sister site":         {"Sec-Fetch-Site: same-site", "Origin: http://evil.localhost"},
			"no Origin":             sentBy("empty", "no-cors"),
		} {
			if got := visitor.Post(path, post.form, headers...); got.Status != 403 {
				t.Errorf("%s by %s: %d %s", path, name, got.Status, got.Body)
			}
		}
		for range many {
			visitor.Post(path, post.form, "Sec-Fetch-Site: cross-site", "Origin: https://evil.example")
		}
	}
	if records, bytes := s.kept(); records != 0 {
		t.Errorf("%d records of %d bytes are kept", records, bytes)
	}
	for path, post := range posts { // the controls
		if got := visitor.Post(path, post.form); got.Status != post.want {
			t.Errorf("%s by a client: %d %s", path, got.Status, got.Body)
		}
		if got := visitor.Post(
			path, post.form, "Sec-Fetch-Site: cross-site", "Origin: https://spa.example:4711",
		); path != "/oidc/par" &&
			path != "/oidc/introspect" && got.Status != post.want {
			t.Errorf("%s by a page of a client: %d %s", path, got.Status, got.Body)
		}
	}
	if back := s.browser().GoOn(request); back.Query().Get("code") == "" {
		t.Errorf("a user at that address: %s", back)
	}
	if back := alice.GoOn(s.authorizeURL("app", url.Values{"prompt": {"consent"}})); back.Query().Get("code") == "" {
		t.Errorf("a user who is logged in: %s", back)
	}

	// Codes of devices that a user did not type.
	device := alice.Post("/oidc/device_authorization", posts["/oidc/device_authorization"].form).JSON(t)
	for range 2 * deviceTries {
		if got := alice.Do(
			http.MethodGet, "/oidc/device?user_code=BBBB-BBBB", nil, sentBy("document", "navigate")...,
		); got.Status != 200 ||
			!strings.Contains(got.Body, `value="BBBB-BBBB"`) {
			t.Fatalf("a wrong code by another site: %d %s", got.Status, got.Body)
		}
	}
	if got := alice.Get("/oidc/device?user_code=" + device["user_code"].(string)); got.Status != 200 ||
		!strings.Contains(got.Body, "Continue only if the device is yours") {
		t.Errorf("the user's own code: %d %s", got.Status, got.Body)
	}
}

// Data stored for strangers is bounded for each purpose, by address, by network, and in size.
func TestThreatStrangersAreBounded(t *testing.T) {
	s := serveClients(t)
	nobody := s.browser()
	public, err := url.Parse(s.authorizeURL("spa", nil))
	if err != nil {
		t.Fatal(err)
	}
	push := func(address string) int {
		return nobody.Post("/oidc/par", public.Query(), "X-Forwarded-For: "+address).Status
	}
	device := func(address string) int {
		return nobody.Post(
			"/oidc/device_authorization",
			url.Values{"client_id": {"tv"}, "scope": {"openid"}}, "X-Forwarded-For: "+address,
		).Status
	}
	mustBeBounded(t, strangersRequests, 0, func() int { return push("192.0.2.1") })
	if got := push("192.0.2.2"); got != 201 {
		t.Errorf("control, another address: %d", got)
	}
	if got := device("192.0.2.1"); got != 200 {
		t.Errorf("another purpose: %d", got)
	}
	if got := nobody.Do(
		http.MethodGet, public.String(), nil, "X-Forwarded-For: 192.0.2.1",
	).To(t); got.Path != "/auth/login" {
		t.Errorf("a log-in: %s", got)
	}
	mustBeBounded(t, strangersRequests, 0, func() int { return device("2001:db8:1::1") })
	statuses := make(map[int]int)
	for range 10 { // one is allowed again every few seconds
		statuses[device("2001:db8:1:0:ffff::1")]++
	}
	if statuses[429] == 0 {
		t.Errorf("of the /64: %v", statuses)
	}
	if got := device("2001:db8:1:1::1"); got != 200 {
		t.Errorf("control, another /64: %d", got)
	}
	network, refused := 0, 0
	for ; refused < 5 && network < 30*strangersRequests; network++ {
		if device(fmt.Sprintf("2001:db8:1:%x::1", network+2)) == 429 {
			refused++
		}
	}
	if refused == 0 {
		t.Errorf("%d networks of one /48 have one each", network)
	}
	if got := device("2001:db8:2::1"); got != 200 {
		t.Errorf("control, another /48: %d", got)
	}

	long := strings.Repeat("x", maxEchoedBytes)
	for name, c := range map[string]struct {
		more url.Values
		good bool
	}{
		"control": {url.Values{"state": {long}, "nonce": {long}}, true},
		"state":   {url.Values{"state": {long + "x"}}, false},
		"nonce":   {url.Values{"nonce": {long + "x"}}, false},
		"each, but not all": {url.Values{
			"acr_values": {strings.Repeat("x", 4000)}, "login_hint": {strings.Repeat("x", 4000)}, "state": {long},
		}, false},
		"what has no meaning": {url.Values{"junk": {strings.Repeat("x", 30000)}}, true},
		"many words of one scope": {url.Values{
			"scope":      {strings.Repeat("openid ", 500)},
			"acr_values": {strings.Repeat("y ", 2000)}, "prompt": {strings.Repeat("login ", 400)},
		}, false},
	} {
		request, err := url.Parse(s.authorizeURL("spa", c.more))
		if err != nil {
			t.Fatal(err)
		}
		to := nobody.Post("/oidc/authorize", request.Query()).To(t)
		if (to.Query().Get("interaction") != "") != c.good || !c.good && to.Query().Get("error") != "invalid_request" {
			t.Errorf("%s: %.200s", name, to)
		}
		if got := nobody.Post(
			"/oidc/par", request.Query(), "X-Forwarded-For: 192.0.2.3",
		); (got.Status == 201) != c.good {
			t.Errorf("%s, pushed: %d %s", name, got.Status, got.Body)
		}
		if id := to.Query().Get("interaction"); len(id) > 5000 {
			t.Errorf("%s: it goes on by %d bytes", name, len(id))
		}
	}
	records, before := s.kept()
	for range 50 {
		nobody.Get(public.String())
	}
	if now, bytes := s.kept(); now != records || bytes != before {
		t.Errorf("log-ins of nobody: %d records before, %d after", records, now)
	}
}

// Little is stored for all strangers together, from all addresses. Authenticated clients are not
// counted.
func TestThreatStrangersTogetherAreBounded(t *testing.T) {
	const strangersKept = 20
	t.Cleanup(provider.SetStrangersKept(strangersKept))
	s := serveClients(t)
	nobody := s.browser()
	device := func(i int) sitetest.Reply {
		return nobody.Post(
			"/oidc/device_authorization", url.Values{"client_id": {"tv"}, "scope": {"openid"}},
			fmt.Sprintf("X-Forwarded-For: 192.0.2.%d", i),
		)
	}
	for i := range strangersKept {
		if got := device(i); got.Status != 200 {
			t.Fatalf("control, request %d: %d %s", i, got.Status, got.Body)
		}
	}
	if got := device(100); got.Status != 503 || got.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %d %v %s", got.Status, got.Header, got.Body)
	}
	request, err := url.Parse(s.authorizeURL("other", url.Values{"redirect_uri": {"https://other.example/callback"}}))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * strangersKept {
		if got := nobody.Post(
			"/oidc/par", request.Query(), sitetest.Basic("other", "another-secret-0123456789"),
		); got.Status != 201 {
			t.Fatalf("control, a client with a secret: %d %s", got.Status, got.Body)
		}
	}
	if got := nobody.Get(s.authorizeURL("spa", nil)).To(t); got.Path != "/auth/login" {
		t.Errorf("control, a log-in: %s", got)
	}
}

// A request that continues in a URL must have been issued by this provider.
func TestThreatInteractionsAreSealed(t *testing.T) {
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	to := s.browser().Get(s.authorizeURL("spa", nil)).To(t)
	own, err := url.Parse(to.Query().Get("return_to"))
	if err != nil {
		t.Fatal(err)
	}
	id := own.Query().Get("interaction")
	if strings.Contains(id, sitetest.Encode("client_id")[:10]) {
		t.Error("it can be read")
	}
	parameters, err := url.Parse(s.authorizeURL("spa", nil))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal(sitetest.JSON{"parameters": parameters.Query(), "began_at": time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for name, forged := range map[string]string{
		"changed": id[:len(id)/2] + map[bool]string{true: "B", false: "A"}[id[len(id)/2] == 'A'] +
			id[len(id)/2+1:],
		"shorter":      id[:len(id)-4],
		"longer":       id + "AAAA",
		"padded":       id + "=",
		"plain":        sitetest.Encode(string(plain)),
		"nothing":      "x",
		"very long":    strings.Repeat("A", 20000),
		"of another's": store.RandomToken(32),
	} {
		if got := chrome.Get("/oidc/authorize?interaction=" + forged); got.Status != 400 ||
			got.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v", name, got.Status, got.Header)
		}
	}
	s.load(fmt.Sprintf(clientsOfTests, ""), "", s.dir)
	if got := chrome.Get(own.String()).To(t); got.Query().Get("code") == "" {
		t.Errorf("control, after a reload: %s", got)
	}
}
