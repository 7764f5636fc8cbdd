package provider

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
)

// ageSessions makes all log-ins of a site be so long ago.
func (s *site) ageSessions(by time.Duration) {
	s.t.Helper()
	if _, err := s.store().(*filestore.Store).Exec(s.t.Context(), `UPDATE sessions SET created_at = created_at - $1`, by.Milliseconds()); err != nil {
		s.t.Fatal(err)
	}
}

// userCommand runs `caddy jwt user` on the store of a site.
func (s *site) userCommand(stdin string, args ...string) string {
	s.t.Helper()
	command := exec.Command(caddytest.Binary(s.t), append([]string{"jwt", "user", "--store", filepath.Join(s.dir, "users.db")}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	output, err := command.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%q: %v %s", args, err, output)
	}
	return string(output)
}

func (b *browser) logInAs(email, password string) answer {
	b.t.Helper()
	return b.post("/auth/login", url.Values{"email": {email}, "password": {password}})
}

// connectOut goes to the provider from the account page and back, as far as the
// question.
func (b *browser) connectOut(name string) answer {
	b.t.Helper()
	return b.get(b.get(b.connectLink(name)).to(b.t).String())
}

// connected is how many identities a user has.
func (s *site) connected(email string) int {
	s.t.Helper()
	user, err := s.store().UserByEmail(s.t.Context(), email)
	if err != nil {
		s.t.Fatal(err)
	}
	records, err := s.store().Records(s.t.Context(), "external identity", user.ID, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return len(records)
}

// Nobody's account gets a way in that its user has not said yes to, with the
// provider and the user there before their eyes, and the password or a log-in of a
// moment ago.
func TestThreatConnectAsks(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", `label "Fake & Sons"`))
	const question = "Connect Fake &amp; Sons (vic@example.com) to your account vic@example.com?"
	s.browser().signUp("vic@example.com")
	s.browser().signUp("other@example.com")
	p.lie(lies{subject: "evil", email: "vic@example.com"})
	page := func(b *browser) (offer string) {
		t.Helper()
		got := b.get("/auth/connect")
		if found := offered.FindStringSubmatch(got.body); got.status == 200 && found != nil {
			if !strings.Contains(got.body, question) {
				t.Errorf("it asks %s", got.body)
			}
			return found[1]
		}
		return ""
	}
	yes := func(b *browser, offer, password string) answer {
		return b.post("/auth/connect", url.Values{"offer": {offer}, "decision": {"yes"}, "currentPassword": {password}})
	}
	refusedAtLogin := func(b *browser) {
		t.Helper()
		got := b.logInBy("fake")
		b.mustBeOut(got, 409, "You are logged in to Fake &amp; Sons as vic@example.com.")
	}
	for _, attack := range []struct {
		name string
		do   func(victim *browser)
	}{
		{"an ordinary log-in after the 409", func(victim *browser) {
			refusedAtLogin(victim)
			victim.get("/auth/login")
			if to := victim.logInAs("vic@example.com", goodPassword).to(t).String(); to != "/auth/account" {
				t.Errorf("it leads to %s", to)
			}
			if page(victim) != "" {
				t.Error("it is still asked")
			}
		}},
		{"an ordinary log-in elsewhere on the site", func(victim *browser) {
			refusedAtLogin(victim)
			victim.get("/auth/login?return_to=/private")
			if to := victim.post("/auth/login", url.Values{"email": {"vic@example.com"}, "password": {goodPassword}, "return_to": {"/private"}}).to(t).String(); to != "/private" {
				t.Errorf("it leads to %s", to)
			}
		}},
		{"the log-in after the 409, and no answer", func(victim *browser) {
			refusedAtLogin(victim)
			victim.logInAs("vic@example.com", goodPassword).to(t)
			if page(victim) == "" {
				t.Error("control: nobody is asked")
			}
		}},
		{"no, and then yes", func(victim *browser) {
			refusedAtLogin(victim)
			victim.logInAs("vic@example.com", goodPassword).to(t)
			offer := page(victim)
			victim.post("/auth/connect", url.Values{"offer": {offer}, "decision": {"no"}}).to(t)
			yes(victim, offer, goodPassword)
		}},
		{"a log-in by JSON", func(victim *browser) {
			refusedAtLogin(victim)
			request, _ := http.NewRequest(http.MethodPost, s.url+"/auth/login", strings.NewReader(fmt.Sprintf(`{"email":"vic@example.com","password":%q}`, goodPassword)))
			request.Header.Set("Content-Type", "application/json")
			got, err := victim.client.Do(request)
			if err != nil || got.StatusCode != 200 {
				t.Fatal(got, err)
			}
			_ = got.Body.Close()
		}},
		{"an answer from a page of another site", func(victim *browser) {
			refusedAtLogin(victim)
			victim.logInAs("vic@example.com", goodPassword).to(t)
			offer := page(victim)
			if got := victim.post("/auth/connect", url.Values{"offer": {offer}, "decision": {"yes"}}, "Sec-Fetch-Site: cross-site"); got.status != 403 {
				t.Errorf("%s", got.brief())
			}
		}},
		{"a page that asked about another identity", func(victim *browser) {
			refusedAtLogin(victim)
			victim.logInAs("vic@example.com", goodPassword).to(t)
			if got := yes(victim, strings.Repeat("0", 64), goodPassword); got.status != 400 {
				t.Errorf("%s", got.brief())
			}
			if got := yes(victim, "", goodPassword); got.status != 400 {
				t.Errorf("%s", got.brief())
			}
		}},
		{"a session of before", func(victim *browser) {
			refusedAtLogin(victim)
			victim.logInAs("vic@example.com", goodPassword).to(t)
			offer := page(victim)
			victim.post("/auth/logout", url.Values{})
			victim.logInAs("other@example.com", goodPassword)
			yes(victim, offer, goodPassword)
		}},
		{"a stolen session, without the password", func(victim *browser) {
			victim.logInAs("vic@example.com", goodPassword).to(t)
			s.ageSessions(6 * time.Minute)
			victim.connectOut("fake").to(t)
			offer := page(victim)
			for password, status := range map[string]int{"": 403, "wrong password": 401} {
				if got := yes(victim, offer, password); got.status != status || !strings.Contains(got.body, question) {
					t.Errorf("password %q: %s", password, got.brief())
				}
			}
		}},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s.t = t
			attack.do(s.browser())
			if s.connected("vic@example.com") != 0 || s.connected("other@example.com") != 0 {
				t.Error("it is connected")
			}
		})
	}
	s.t = t

	// Controls.
	later := s.browser()
	later.logInAs("vic@example.com", goodPassword).to(t)
	s.ageSessions(6 * time.Minute)
	later.connectOut("fake").to(t)
	if got := later.get("/auth/connect"); !strings.Contains(got.body, `name="currentPassword"`) {
		t.Errorf("the password is not asked for: %s", got.body)
	}
	if got := yes(later, page(later), goodPassword); got.status != 303 || s.connected("vic@example.com") != 1 {
		t.Errorf("with the password: %s", got.brief())
	}
	s.userCommand("", "disconnect", "vic@example.com")
	fresh := s.browser()
	refusedAtLogin(fresh)
	if got := fresh.post("/auth/login", url.Values{"email": {"vic@example.com"}, "password": {goodPassword}, "return_to": {"/private/x"}}); got.to(t).String() != "/auth/connect" {
		t.Errorf("%s", got.brief())
	}
	if got := fresh.get("/auth/connect"); strings.Contains(got.body, `name="currentPassword"`) {
		t.Errorf("the password is asked for once more: %s", got.body)
	}
	if got := yes(fresh, page(fresh), ""); got.to(t).String() != "/private/x" || s.connected("vic@example.com") != 1 {
		t.Errorf("after the password: %s", got.brief())
	}
}

// Wrong passwords on the page that asks are counted as those of log-ins.
func TestThreatConnectIsThrottled(t *testing.T) {
	p := newFakeProvider(t)
	s := newLoginSite(t)
	run(t, s.logFile, strings.Replace(s.caddyfile(p.option("fake", "")), "throttle off", "throttle 3 15m", 1))
	chrome := s.browser()
	chrome.signUp("vic@example.com")
	s.ageSessions(6 * time.Minute)
	p.lie(lies{subject: "evil", email: "vic@example.com"})
	chrome.connectOut("fake").to(t)
	offer := offered.FindStringSubmatch(chrome.get("/auth/connect").body)[1]
	last := 0
	for range 10 {
		last = chrome.post("/auth/connect", url.Values{"offer": {offer}, "decision": {"yes"}, "currentPassword": {"wrong password"}}).status
	}
	if last != 429 || s.connected("vic@example.com") != 0 {
		t.Errorf("the tenth guess: %d", last)
	}
}

// Whoever was in an account is out of it when its owner has recovered it: by a
// session, by an identity, by one that waits.
func TestThreatRecoveryDisconnects(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", ""))
	user := 0
	link := func(output string) url.Values {
		t.Helper()
		found := regexp.MustCompile(`/auth/reset\?token=(\S+)`).FindStringSubmatch(output)
		if found == nil {
			t.Fatal(output)
		}
		return url.Values{"token": {found[1]}, "newPassword": {"the password of the owner"}}
	}
	for _, recovery := range []struct {
		name    string
		do      func(email string) (told string)
		told    string
		keeps   bool
		spoiled func(mallory *browser)
	}{
		{"reset-link", func(email string) string {
			output := s.userCommand("", "reset-link", "--base", s.url, email)
			if got := s.connected(email); got != 1 {
				t.Errorf("before the link is used, %d are connected", got)
			}
			owner := s.browser()
			got := owner.post("/auth/reset", link(output))
			if got.status != 200 || !strings.Contains(got.body, "fake (mallory@evil.example) can no longer log in") {
				t.Errorf("the page: %s", got.body)
			}
			return output
		}, "1 will be disconnected: fake (mallory@evil.example)", false, nil},
		{"reset-link by JSON, which comes after another one", func(email string) string {
			other := link(s.userCommand("", "reset-link", "--keep-identities", "--base", s.url, email))
			output := s.userCommand("", "reset-link", "--base", s.url, email)
			form := link(output)
			request, _ := http.NewRequest(http.MethodPost, s.url+"/auth/reset", strings.NewReader(fmt.Sprintf(`{"token":%q,"newPassword":"the password of the owner"}`, form.Get("token"))))
			request.Header.Set("Content-Type", "application/json")
			got, err := http.DefaultClient.Do(request)
			if err != nil || got.StatusCode != 204 {
				t.Fatal(got, err)
			}
			_ = got.Body.Close()
			if got := s.browser().post("/auth/reset", other); got.status != 401 {
				t.Errorf("the other link: %d", got.status)
			}
			return output
		}, "1 will be disconnected", false, nil},
		{"passwd", func(email string) string { return s.userCommand("the password of the owner", "passwd", email) }, "disconnected from 1: fake (mallory@evil.example)", false, nil},
		{"reset-link --keep-identities", func(email string) string {
			output := s.userCommand("", "reset-link", "--keep-identities", "--base", s.url, email)
			s.browser().post("/auth/reset", link(output))
			return output
		}, "when the link is used, 1 will stay connected: fake (mallory@evil.example)", true, nil},
		{"passwd --keep-identities", func(email string) string {
			return s.userCommand("the password of the owner", "passwd", "--keep-identities", email)
		}, "still connected: 1: fake (mallory@evil.example)", true, nil},
	} {
		t.Run(recovery.name, func(t *testing.T) {
			user++
			email := fmt.Sprintf("victim%d@corp.example", user)
			mallory := s.browser()
			mallory.signUp(email)
			p.lie(lies{subject: fmt.Sprint("mallory", user), email: "mallory@evil.example"})
			mallory.decideOffer(mallory.connectOut("fake"), "yes", "").to(t)
			back := s.browser()
			id := back.mustBeIn(back.logInBy("fake"))
			p.lie(lies{subject: fmt.Sprint("second", user), email: "mallory@evil.example"})
			mallory.connectOut("fake").to(t) // waits for a yes
			offer := offered.FindStringSubmatch(mallory.get("/auth/connect").body)[1]
			under := mallory.get(mallory.connectLink("fake")).to(t).String() // a log-in there that is under way

			if told := recovery.do(email); !strings.Contains(told, recovery.told) {
				t.Errorf("the command says %s", told)
			}
			mallory.post("/auth/connect", url.Values{"offer": {offer}, "decision": {"yes"}})
			mallory.get(under)
			for name, b := range map[string]*browser{"the session": mallory, "the session by the identity": back} {
				got := b.get("/auth/whoami")
				for deadline := time.Now().Add(5 * time.Second); got.status != 401 && time.Now().Before(deadline); { // of another process, within a second
					time.Sleep(20 * time.Millisecond)
					got = b.get("/auth/whoami")
				}
				if got.status != 401 {
					t.Errorf("%s goes on: %s", name, got.brief())
				}
			}
			p.lie(lies{subject: fmt.Sprint("mallory", user), email: "mallory@evil.example"})
			again := s.browser()
			again.logInBy("fake")
			who := again.do(http.MethodGet, "/auth/whoami", nil, "Accept: text/plain").body
			if in := who == id; in != recovery.keeps {
				t.Errorf("the identity logs in to the account: %v", in)
			}
			if want := map[bool]int{true: 1}[recovery.keeps]; s.connected(email) != want {
				t.Errorf("%d are connected", s.connected(email))
			}
			if got := s.browser().logInAs(email, "the password of the owner"); got.status != 303 {
				t.Errorf("control: the owner: %s", got.brief())
			}
			s.userCommand("", "disconnect", email)
			if records, _ := s.store().Users(t.Context(), "mallory@evil.example\x00", 1); len(records) > 0 && !recovery.keeps { // an account of mallory's own by now
				s.userCommand("", "delete", "--yes", "mallory@evil.example")
			}
		})
	}
	// A user who knows the password keeps what is connected, and is told.
	owner := s.browser()
	owner.signUp("owner@corp.example")
	p.lie(lies{subject: "owner", email: "owner@home.example"})
	owner.decideOffer(owner.connectOut("fake"), "yes", "").to(t)
	if got := owner.post("/auth/password", url.Values{"currentPassword": {goodPassword}, "newPassword": {"another good password"}}); got.status != 200 || !strings.Contains(got.body, "can still log in through fake (owner@home.example)") || s.connected("owner@corp.example") != 1 {
		t.Errorf("a new password: %s", got.body)
	}
}

// A user disconnects an identity by page and by JSON, with the password or soon
// after the log-in, and keeps a way in.
func TestDisconnect(t *testing.T) {
	p := newFakeProvider(t)
	s := loginSite(t, p.option("fake", ""))
	owner := s.browser()
	owner.signUp("owner@corp.example")
	connect := func() (path string) {
		t.Helper()
		p.lie(lies{subject: "owner", email: "owner@home.example"})
		owner.decideOffer(owner.connectOut("fake"), "yes", "").to(t)
		found := regexp.MustCompile(`href="(/auth/identities/[0-9a-f]{64})"`).FindStringSubmatch(owner.get("/auth/account").body)
		if found == nil {
			t.Fatal("no link to disconnect")
		}
		return found[1]
	}
	path := connect()
	stranger := s.browser()
	stranger.signUp("stranger@corp.example")
	yes := url.Values{"decision": {"yes"}}
	if got := stranger.post(path, yes); got.status != 404 {
		t.Errorf("somebody else: %s", got.brief())
	}
	if got := owner.post(path, yes, "Sec-Fetch-Site: cross-site"); got.status != 403 {
		t.Errorf("a page of another site: %s", got.brief())
	}
	if got := owner.get(path); got.status != 200 || !strings.Contains(got.body, "Disconnect fake (owner@home.example) from your account owner@corp.example?") || strings.Contains(got.body, `name="currentPassword"`) {
		t.Errorf("the question: %s", got.body)
	}
	owner.post(path, url.Values{"decision": {"no"}}).to(t)
	owner.post(path, url.Values{}).to(t)
	if s.connected("owner@corp.example") != 1 {
		t.Error("disconnected")
	}
	owner.post(path, yes).to(t)
	if s.connected("owner@corp.example") != 0 {
		t.Error("not disconnected")
	}

	path = connect()
	s.ageSessions(6 * time.Minute)
	if got := owner.get(path); !strings.Contains(got.body, `name="currentPassword"`) {
		t.Errorf("no password is asked for: %s", got.body)
	}
	for password, status := range map[string]int{"": 403, "wrong password": 401, goodPassword: 303} {
		if got := owner.post(path, url.Values{"decision": {"yes"}, "currentPassword": {password}}); got.status != status {
			t.Errorf("password %q: %s", password, got.brief())
		}
		if password == goodPassword {
			connectAgain := s.connected("owner@corp.example")
			if connectAgain != 0 {
				t.Error("not disconnected")
			}
			break
		}
	}

	// By JSON.
	send := func(b *browser, method, path, body string) answer {
		t.Helper()
		request, _ := http.NewRequest(method, s.url+path, strings.NewReader(body))
		if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		got, err := b.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		return answer{status: got.StatusCode, header: got.Header}
	}
	owner = s.browser()
	owner.logInAs("owner@corp.example", goodPassword)
	if s.connected("owner@corp.example") == 0 {
		path = connect()
	}
	s.ageSessions(6 * time.Minute)
	for _, c := range []struct {
		body   string
		status int
	}{{"", 403}, {`{"currentPassword":"wrong password"}`, 401}, {`{"currentPassword":1,"x":2}`, 422}, {fmt.Sprintf(`{"currentPassword":%q}`, goodPassword), 204}, {"", 404}} {
		if got := send(owner, http.MethodDelete, path, c.body); got.status != c.status {
			t.Errorf("%s: %d", c.body, got.status)
		}
	}

	// The only way in stays.
	p.lie(lies{subject: "alone", email: "alone@home.example"})
	alone := s.browser()
	alone.mustBeIn(alone.logInBy("fake"))
	path = regexp.MustCompile(`/auth/identities/[0-9a-f]{64}`).FindString(alone.get("/auth/account").body)
	if got := alone.get(path); !strings.Contains(got.body, "your only way to log in") {
		t.Errorf("%s", got.body)
	}
	if got := alone.post(path, yes); got.status != 409 || s.connected("alone@home.example") != 1 {
		t.Errorf("the only way in: %s", got.brief())
	}
	if got := s.userCommand("", "disconnect", "alone@home.example"); !strings.Contains(got, "nobody can log in to the account now") {
		t.Errorf("the command says %s", got)
	}
}
