package login_test

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
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
)

// ageSessions moves all log-ins of a site into the past.
func (s *site) ageSessions(by time.Duration) {
	s.T.Helper()
	if _, err := s.store().(*filestore.Store).Exec(
		s.T.Context(), `UPDATE sessions SET created_at = created_at - $1, authenticated_at = authenticated_at - $1`, by.Milliseconds(),
	); err != nil {
		s.T.Fatal(err)
	}
}

// userCommand runs `caddy jwt user` on the store of a site.
func (s *site) userCommand(stdin string, args ...string) string {
	s.T.Helper()
	command := exec.Command(
		caddytest.Binary(s.T), append([]string{"jwt", "user", "--store", filepath.Join(s.dir, "users.db")}, args...)...,
	)
	command.Stdin = strings.NewReader(stdin)
	output, err := command.CombinedOutput()
	if err != nil {
		s.T.Fatalf("%q: %v %s", args, err, output)
	}
	return string(output)
}

func logInAs(b *sitetest.Visitor, email, password string) sitetest.Reply {
	b.T.Helper()
	return b.Post("/auth/login", url.Values{"email": {email}, "password": {password}})
}

// connectOut goes from the account page to the provider and back, up to the question.
func connectOut(b *sitetest.Visitor, name string) sitetest.Reply {
	b.T.Helper()
	return b.Get(b.Get(connectLink(b, name)).To(b.T).String())
}

// connected returns the number of a user's identities.
func (s *site) connected(email string) int {
	s.T.Helper()
	user, err := s.store().UserByEmail(s.T.Context(), email)
	if err != nil {
		s.T.Fatal(err)
	}
	records, err := s.store().Records(s.T.Context(), "external identity", user.ID, time.Now())
	if err != nil {
		s.T.Fatal(err)
	}
	return len(records)
}

// An identity is connected to an account only if its user agrees, sees the provider and the user
// there, and enters the password or has just logged in.
func TestThreatConnectAsks(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", `label "Fake & Sons"`))
	const question = "Connect Fake &amp; Sons (vic@example.com) to your account vic@example.com?"
	s.Visitor().SignUp("vic@example.com")
	s.Visitor().SignUp("other@example.com")
	p.Lie(sitetest.Lies{Subject: "evil", Email: "vic@example.com"})
	page := func(b *sitetest.Visitor) (offer string) {
		t.Helper()
		got := b.Get("/auth/connect")
		if found := offered.FindStringSubmatch(got.Body); got.Status == 200 && found != nil {
			if !strings.Contains(got.Body, question) {
				t.Errorf("it asks %s", got.Body)
			}
			return found[1]
		}
		return ""
	}
	yes := func(b *sitetest.Visitor, offer, password string) sitetest.Reply {
		return b.Post("/auth/connect", url.Values{"offer": {offer}, "decision": {"yes"}, "currentPassword": {password}})
	}
	refusedAtLogin := func(b *sitetest.Visitor) {
		t.Helper()
		got := b.LogInBy("fake")
		b.MustBeOut(got, 409, "You are logged in to Fake &amp; Sons as vic@example.com.")
	}
	for _, attack := range []struct {
		name string
		do   func(victim *sitetest.Visitor)
	}{
		{"an ordinary log-in after the 409", func(victim *sitetest.Visitor) {
			refusedAtLogin(victim)
			victim.Get("/auth/login")
			if to := logInAs(victim, "vic@example.com", sitetest.GoodPassword).To(t).String(); to != "/auth/account" {
				t.Errorf("it leads to %s", to)
			}
			if page(victim) != "" {
				t.Error("it is still asked")
			}
		}},
		{"an ordinary log-in elsewhere on the site", func(victim *sitetest.Visitor) {
			refusedAtLogin(victim)
			victim.Get("/auth/login?return_to=/private")
			if to := victim.Post("/auth/login", url.Values{
				"email": {"vic@example.com"}, "password": {sitetest.GoodPassword}, "return_to": {"/private"},
			}).To(t).String(); to != "/private" {
				t.Errorf("it leads to %s", to)
			}
		}},
		{"the log-in after the 409, and no answer", func(victim *sitetest.Visitor) {
			refusedAtLogin(victim)
			logInAs(victim, "vic@example.com", sitetest.GoodPassword).To(t)
			if page(victim) == "" {
				t.Error("control: nobody is asked")
			}
		}},
		{"no, and then yes", func(victim *sitetest.Visitor) {
			refusedAtLogin(victim)
			logInAs(victim, "vic@example.com", sitetest.GoodPassword).To(t)
			offer := page(victim)
			victim.Post("/auth/connect", url.Values{"offer": {offer}, "decision": {"no"}}).To(t)
			yes(victim, offer, sitetest.GoodPassword)
		}},
		{"a log-in by JSON", func(victim *sitetest.Visitor) {
			refusedAtLogin(victim)
			request, _ := http.NewRequest(
				http.MethodPost, s.URL+"/auth/login",
				strings.NewReader(fmt.Sprintf(`{"email":"vic@example.com","password":%q}`, sitetest.GoodPassword)),
			)
			request.Header.Set("Content-Type", "application/json")
			got, err := victim.Client.Do(request)
			if err != nil || got.StatusCode != 200 {
				t.Fatal(got, err)
			}
			_ = got.Body.Close()
		}},
		{"an answer from a page of another site", func(victim *sitetest.Visitor) {
			refusedAtLogin(victim)
			logInAs(victim, "vic@example.com", sitetest.GoodPassword).To(t)
			offer := page(victim)
			if got := victim.Post(
				"/auth/connect", url.Values{"offer": {offer}, "decision": {"yes"}}, "Sec-Fetch-Site: cross-site",
			); got.Status != 403 {
				t.Errorf("%s", got.Brief())
			}
		}},
		{"a page that asked about another identity", func(victim *sitetest.Visitor) {
			refusedAtLogin(victim)
			logInAs(victim, "vic@example.com", sitetest.GoodPassword).To(t)
			if got := yes(victim, strings.Repeat("0", 64), sitetest.GoodPassword); got.Status != 400 {
				t.Errorf("%s", got.Brief())
			}
			if got := yes(victim, "", sitetest.GoodPassword); got.Status != 400 {
				t.Errorf("%s", got.Brief())
			}
		}},
		{"a session of before", func(victim *sitetest.Visitor) {
			refusedAtLogin(victim)
			logInAs(victim, "vic@example.com", sitetest.GoodPassword).To(t)
			offer := page(victim)
			victim.Post("/auth/logout", url.Values{})
			logInAs(victim, "other@example.com", sitetest.GoodPassword)
			yes(victim, offer, sitetest.GoodPassword)
		}},
		{"a stolen session, without the password", func(victim *sitetest.Visitor) {
			logInAs(victim, "vic@example.com", sitetest.GoodPassword).To(t)
			s.ageSessions(6 * time.Minute)
			connectOut(victim, "fake").To(t)
			offer := page(victim)
			for password, status := range map[string]int{"": 403, "wrong password": 401} {
				if got := yes(victim, offer, password); got.Status != status || !strings.Contains(got.Body, question) {
					t.Errorf("password %q: %s", password, got.Brief())
				}
			}
		}},
	} {
		t.Run(attack.name, func(t *testing.T) {
			s.T = t
			attack.do(s.Visitor())
			if s.connected("vic@example.com") != 0 || s.connected("other@example.com") != 0 {
				t.Error("it is connected")
			}
		})
	}
	s.T = t

	// Controls.
	later := s.Visitor()
	logInAs(later, "vic@example.com", sitetest.GoodPassword).To(t)
	s.ageSessions(6 * time.Minute)
	connectOut(later, "fake").To(t)
	if got := later.Get("/auth/connect"); !strings.Contains(got.Body, `name="currentPassword"`) {
		t.Errorf("the password is not asked for: %s", got.Body)
	}
	if got := yes(later, page(later), sitetest.GoodPassword); got.Status != 303 || s.connected("vic@example.com") != 1 {
		t.Errorf("with the password: %s", got.Brief())
	}
	s.userCommand("", "disconnect", "--yes", "vic@example.com")
	fresh := s.Visitor()
	refusedAtLogin(fresh)
	if got := fresh.Post("/auth/login", url.Values{
		"email": {"vic@example.com"}, "password": {sitetest.GoodPassword}, "return_to": {"/private/x"},
	}); got.To(t).String() != "/auth/connect" {
		t.Errorf("%s", got.Brief())
	}
	if got := fresh.Get("/auth/connect"); strings.Contains(got.Body, `name="currentPassword"`) {
		t.Errorf("the password is asked for once more: %s", got.Body)
	}
	if got := yes(fresh, page(fresh), ""); got.To(t).String() != "/private/x" || s.connected("vic@example.com") != 1 {
		t.Errorf("after the password: %s", got.Brief())
	}
}

// Wrong passwords on the page with the question count like those of log-ins.
func TestThreatConnectIsThrottled(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := newLoginSite(t)
	sitetest.RunSites(
		t, s.LogFile, strings.Replace(s.caddyfile(p.Option("fake", "")), "throttle off", "throttle 3 15m", 1),
	)
	chrome := s.Visitor()
	chrome.SignUp("vic@example.com")
	s.ageSessions(6 * time.Minute)
	p.Lie(sitetest.Lies{Subject: "evil", Email: "vic@example.com"})
	connectOut(chrome, "fake").To(t)
	offer := offered.FindStringSubmatch(chrome.Get("/auth/connect").Body)[1]
	var last sitetest.Reply
	for range 10 {
		last = chrome.Post("/auth/connect", url.Values{
			"offer": {offer}, "decision": {"yes"}, "currentPassword": {"wrong password"},
		})
	}
	if last.Status != 429 || !strings.Contains(last.Body, "You can try again in ") || s.connected("vic@example.com") != 0 {
		t.Errorf("the tenth guess: %d %s", last.Status, last.Body)
	}
}

// When an owner recovers an account, an intruder loses all access: a session, an identity, and an
// identity that waits to be connected.
func TestThreatRecoveryDisconnects(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", ""))
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
		spoiled func(mallory *sitetest.Visitor)
	}{
		{"reset-link", func(email string) string {
			output := s.userCommand("", "reset-link", "--base", s.URL, email)
			if got := s.connected(email); got != 1 {
				t.Errorf("before the link is used, %d are connected", got)
			}
			owner := s.Visitor()
			got := owner.Post("/auth/reset", link(output))
			if got.Status != 200 || !strings.Contains(got.Body, "fake (mallory@evil.example) can no longer log in") {
				t.Errorf("the page: %s", got.Body)
			}
			return output
		}, "1 will be disconnected: fake (mallory@evil.example)", false, nil},
		{"reset-link by JSON, which comes after another one", func(email string) string {
			other := link(s.userCommand("", "reset-link", "--keep-identities", "--base", s.URL, email))
			output := s.userCommand("", "reset-link", "--base", s.URL, email)
			form := link(output)
			request, _ := http.NewRequest(http.MethodPost, s.URL+"/auth/reset", strings.NewReader(fmt.Sprintf(
				`{"token":%q,"newPassword":"the password of the owner"}`, form.Get("token"),
			)))
			request.Header.Set("Content-Type", "application/json")
			got, err := http.DefaultClient.Do(request)
			if err != nil || got.StatusCode != 204 {
				t.Fatal(got, err)
			}
			_ = got.Body.Close()
			if got := s.Visitor().Post("/auth/reset", other); got.Status != 401 {
				t.Errorf("the other link: %d", got.Status)
			}
			return output
		}, "1 will be disconnected", false, nil},
		{
			"passwd", func(email string) string { return s.userCommand("the password of the owner", "passwd", email) },
			"disconnected from 1: fake (mallory@evil.example)", false, nil,
		},
		{"reset-link --keep-identities", func(email string) string {
			output := s.userCommand("", "reset-link", "--keep-identities", "--base", s.URL, email)
			s.Visitor().Post("/auth/reset", link(output))
			return output
		}, "when the link is used, 1 will stay connected: fake (mallory@evil.example)", true, nil},
		{"passwd --keep-identities", func(email string) string {
			return s.userCommand("the password of the owner", "passwd", "--keep-identities", email)
		}, "still connected: 1: fake (mallory@evil.example)", true, nil},
	} {
		t.Run(recovery.name, func(t *testing.T) {
			user++
			email := fmt.Sprintf("victim%d@corp.example", user)
			mallory := s.Visitor()
			mallory.SignUp(email)
			p.Lie(sitetest.Lies{Subject: fmt.Sprint("mallory", user), Email: "mallory@evil.example"})
			decideOffer(mallory, connectOut(mallory, "fake"), "yes", "").To(t)
			back := s.Visitor()
			id := back.MustBeIn(back.LogInBy("fake"))
			p.Lie(sitetest.Lies{Subject: fmt.Sprint("second", user), Email: "mallory@evil.example"})
			connectOut(mallory, "fake").To(t) // waits for an answer to the question
			offer := offered.FindStringSubmatch(mallory.Get("/auth/connect").Body)[1]
			under := mallory.Get(connectLink(mallory, "fake")).To(t).String() // a log-in in progress there

			if told := recovery.do(email); !strings.Contains(told, recovery.told) {
				t.Errorf("the command says %s", told)
			}
			mallory.Post("/auth/connect", url.Values{"offer": {offer}, "decision": {"yes"}})
			mallory.Get(under)
			for name, b := range map[string]*sitetest.Visitor{
				"the session": mallory, "the session by the identity": back,
			} {
				got := b.Get("/auth/whoami")
				// another process changed it; known within a second
				for deadline := time.Now().Add(5 * time.Second); got.Status != 401 && time.Now().Before(deadline); {
					time.Sleep(20 * time.Millisecond)
					got = b.Get("/auth/whoami")
				}
				if got.Status != 401 {
					t.Errorf("%s goes on: %s", name, got.Brief())
				}
			}
			p.Lie(sitetest.Lies{Subject: fmt.Sprint("mallory", user), Email: "mallory@evil.example"})
			again := s.Visitor()
			again.LogInBy("fake")
			who := again.Do(http.MethodGet, "/auth/whoami", nil, "Accept: text/plain").Body
			if in := who == id; in != recovery.keeps {
				t.Errorf("the identity logs in to the account: %v", in)
			}
			if want := map[bool]int{true: 1}[recovery.keeps]; s.connected(email) != want {
				t.Errorf("%d are connected", s.connected(email))
			}
			if got := logInAs(s.Visitor(), email, "the password of the owner"); got.Status != 303 {
				t.Errorf("control: the owner: %s", got.Brief())
			}
			s.userCommand("", "disconnect", "--yes", email)
			// now an account of mallory
			if records, _ := s.store().Users(t.Context(), "mallory@evil.example\x00", 1); len(records) > 0 &&
				!recovery.keeps {
				s.userCommand("", "delete", "--yes", "mallory@evil.example")
			}
		})
	}
	// A user who knows the password keeps the connected identities, and sees a note about them.
	owner := s.Visitor()
	owner.SignUp("owner@corp.example")
	p.Lie(sitetest.Lies{Subject: "owner", Email: "owner@home.example"})
	decideOffer(owner, connectOut(owner, "fake"), "yes", "").To(t)
	if got := owner.Post("/auth/password", url.Values{
		"currentPassword": {sitetest.GoodPassword}, "newPassword": {"another good password"},
	}); got.Status != 200 ||
		!strings.Contains(got.Body, "can still log in through fake (owner@home.example)") ||
		s.connected("owner@corp.example") != 1 {
		t.Errorf("a new password: %s", got.Body)
	}
}

// A user disconnects an identity on the page and with JSON, with the password or soon after the
// log-in. The last way to log in stays.
func TestDisconnect(t *testing.T) {
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, p.Option("fake", ""))
	owner := s.Visitor()
	owner.SignUp("owner@corp.example")
	connect := func() (path string) {
		t.Helper()
		p.Lie(sitetest.Lies{Subject: "owner", Email: "owner@home.example"})
		decideOffer(owner, connectOut(owner, "fake"), "yes", "").To(t)
		found := regexp.MustCompile(`href="(/auth/identities/[0-9a-f]{64})"`).
			FindStringSubmatch(owner.Get("/auth/account").Body)
		if found == nil {
			t.Fatal("no link to disconnect")
		}
		return found[1]
	}
	path := connect()
	stranger := s.Visitor()
	stranger.SignUp("stranger@corp.example")
	yes := url.Values{"decision": {"yes"}}
	if got := stranger.Post(path, yes); got.Status != 404 {
		t.Errorf("somebody else: %s", got.Brief())
	}
	if got := owner.Post(path, yes, "Sec-Fetch-Site: cross-site"); got.Status != 403 {
		t.Errorf("a page of another site: %s", got.Brief())
	}
	if got := owner.Get(path); got.Status != 200 ||
		!strings.Contains(got.Body, "Disconnect fake (owner@home.example) from your account owner@corp.example?") ||
		strings.Contains(got.Body, `name="currentPassword"`) {
		t.Errorf("the question: %s", got.Body)
	}
	owner.Post(path, url.Values{"decision": {"no"}}).To(t)
	owner.Post(path, url.Values{}).To(t)
	if s.connected("owner@corp.example") != 1 {
		t.Error("disconnected")
	}
	owner.Post(path, yes).To(t)
	if s.connected("owner@corp.example") != 0 {
		t.Error("not disconnected")
	}

	path = connect()
	s.ageSessions(6 * time.Minute)
	if got := owner.Get(path); !strings.Contains(got.Body, `name="currentPassword"`) {
		t.Errorf("no password is asked for: %s", got.Body)
	}
	for password, status := range map[string]int{"": 403, "wrong password": 401, sitetest.GoodPassword: 303} {
		if got := owner.Post(path, url.Values{
			"decision": {"yes"}, "currentPassword": {password},
		}); got.Status != status {
			t.Errorf("password %q: %s", password, got.Brief())
		}
		if password == sitetest.GoodPassword {
			connectAgain := s.connected("owner@corp.example")
			if connectAgain != 0 {
				t.Error("not disconnected")
			}
			break
		}
	}

	// With JSON.
	send := func(b *sitetest.Visitor, method, path, body string) sitetest.Reply {
		t.Helper()
		request, _ := http.NewRequest(method, s.URL+path, strings.NewReader(body))
		if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		got, err := b.Client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		return sitetest.Reply{Status: got.StatusCode, Header: got.Header}
	}
	owner = s.Visitor()
	logInAs(owner, "owner@corp.example", sitetest.GoodPassword)
	if s.connected("owner@corp.example") == 0 {
		path = connect()
	}
	s.ageSessions(6 * time.Minute)
	for _, c := range []struct {
		body   string
		status int
	}{
		{"", 403}, {`{"currentPassword":"wrong password"}`, 401}, {`{"currentPassword":1,"x":2}`, 422},
		{fmt.Sprintf(`{"currentPassword":%q}`, sitetest.GoodPassword), 204}, {"", 404},
	} {
		if got := send(owner, http.MethodDelete, path, c.body); got.Status != c.status {
			t.Errorf("%s: %d", c.body, got.Status)
		}
	}

	// The only way to log in stays.
	p.Lie(sitetest.Lies{Subject: "alone", Email: "alone@home.example"})
	alone := s.Visitor()
	alone.MustBeIn(alone.LogInBy("fake"))
	path = regexp.MustCompile(`/auth/identities/[0-9a-f]{64}`).FindString(alone.Get("/auth/account").Body)
	if got := alone.Get(path); !strings.Contains(got.Body, "your only way to log in") {
		t.Errorf("%s", got.Body)
	}
	if got := alone.Post(path, yes); got.Status != 409 || s.connected("alone@home.example") != 1 {
		t.Errorf("the only way in: %s", got.Brief())
	}
	if got := s.userCommand("", "disconnect", "--yes", "alone@home.example"); !strings.Contains(
		got, "nobody can log in to the account now",
	) {
		t.Errorf("the command says %s", got)
	}
}
