package mail_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// A mail server that is down, or does not answer, holds up neither those who cause mails nor a
// reload, and the mails arrive when it works again, also after a restart.
func TestOutboxSurvivesServerAndRestart(t *testing.T) {
	clock := sitetest.SetClock(t)
	server := sitetest.NewSMTPServer(t)
	server.Hang = "CONNECT"
	server.Start()
	body := sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), smtp(server, "timeout 30s"))
	s := sitetest.Serve(t, body)
	for i := range 3 {
		queue(t, message(fmt.Sprintf("user%d@example.com", i)))
	}
	sitetest.Eventually(t, "it connects", func() bool { return server.Connects() > 0 })
	s.Load(strings.Replace(body, "timeout 30s", "timeout 29s", 1), sitetest.TempDir(t))
	if got := waiting(t); got != 3 {
		t.Errorf("%d mails wait after a reload, expected 3", got)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	s.Load(body, sitetest.TempDir(t))
	sitetest.Eventually(t, "a warning", func() bool { return strings.Contains(s.Log(), "#mails-not-sent") })
	if strings.Count(s.Log(), "#mails-not-sent") != 1 {
		t.Error("several warnings of one outage")
	}
	server.Change(func() { server.Hang = "" })
	server.Start()
	clock.Ahead.Store(120)
	server.MustGet(3)
	sent(t)
	if got := len(server.Received()); got != 3 {
		t.Errorf("%d mails came, expected 3", got)
	}
	sitetest.Eventually(t, "the end is logged", func() bool { return strings.Contains(s.Log(), "mails are sent again") })
	hasNoSecret(t, s.Log())
}

// What the server answers decides whether a mail is sent again.
func TestOutboxAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		verb, answer string
		event        string // in the audit log
		again        bool
	}{
		"greylisted":        {"RCPT", "451 4.7.1 try later", "mail deferred", true},
		"mailbox full":      {"DATA END", "452 4.2.2 full", "mail deferred", true},
		"closing":           {"RCPT", "421 4.3.2 closing", "mails cannot be sent", true},
		"sender refused":    {"MAIL", "553 5.7.1 not yours", "mails cannot be sent", true},
		"unknown recipient": {"RCPT", "550 5.1.1 <Alice@example.com> unknown", "mail refused", false},
		"spam":              {"DATA END", "554 5.7.1 spam", "mail refused", false},
	} {
		t.Run(name, func(t *testing.T) {
			clock := sitetest.SetClock(t)
			server := sitetest.NewSMTPServer(t)
			server.Once[c.verb] = c.answer
			server.Start()
			s := site(t, smtp(server, ""))
			queue(t, message("alice@example.com"))
			sitetest.Eventually(t, c.event, func() bool { return strings.Contains(s.Log(), c.event) })
			clock.Ahead.Store(60)
			sent(t)
			if got := len(server.Received()) == 1; got != c.again {
				t.Errorf("sent again: %t, expected %t", got, c.again)
			}
			queue(t, message("bob@example.com")) // control: it goes on
			sitetest.Eventually(t, "another mail", func() bool {
				all := server.Received()
				return len(all) > 0 && all[len(all)-1].To == "TO:<bob@example.com>"
			})
			if strings.Contains(strings.ToLower(s.Log()), "alice@example.com") {
				t.Error("the log has the address")
			}
			if !c.again && !strings.Contains(s.Log(), "#mail-refused") {
				t.Error("no warning")
			}
		})
	}
}

// A mail whose code has expired is not sent.
func TestOutboxExpiry(t *testing.T) {
	clock := sitetest.SetClock(t)
	server := sitetest.NewSMTPServer(t) // not started
	s := site(t, smtp(server, ""))
	soon := message("alice@example.com")
	soon.ExpiresAt = time.Now().Add(time.Minute)
	queue(t, soon, message("bob@example.com"))
	sitetest.Eventually(t, "a warning", func() bool { return strings.Contains(s.Log(), "#mails-not-sent") })
	server.Start()
	clock.Ahead.Store(120)
	sent(t)
	if got := server.Received(); len(got) != 1 || got[0].To != "TO:<bob@example.com>" {
		t.Errorf("got %+v", got)
	}
	if !strings.Contains(s.Log(), `"mail expired"`) {
		t.Error("the audit log does not say that the mail expired")
	}
}

// Nobody can cause more mails than the limits, to one address or as one client.
func TestOutboxLimits(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	s := site(t, smtp(server, "per_address 2\nper_client 4"))
	mails := accountstest.ServiceOf(t).Mails
	try := func(to, address string) bool {
		t.Helper()
		err := mails.Queue(t.Context(), message(to), nil, accounts.Client{Address: address})
		if err != nil && refusal.Of(err).Reason != refusal.Throttled {
			t.Fatal(err)
		}
		return err == nil
	}
	for i, c := range []struct {
		to, from string
		allowed  bool
	}{
		{"alice@example.com", "192.0.2.1", true}, {"Alice@Example.com", "192.0.2.2", true},
		{"alice@example.com", "192.0.2.3", false}, {"alice@EXAMPLE.com", "192.0.2.4", false},
		{"bob@example.com", "192.0.2.4", true}, // control
		{"c1@example.com", "2001:db8::1", true}, {"c2@example.com", "2001:db8::2", true},
		{"c3@example.com", "2001:db8::3", true}, {"c4@example.com", "2001:db8::4", true},
		{"c5@example.com", "2001:db8::5", false}, {"c5@example.com", "2001:db8:0:1::5", true},
	} {
		if got := try(c.to, c.from); got != c.allowed {
			t.Errorf("%d: to %s from %s: %t, expected %t", i, c.to, c.from, got, c.allowed)
		}
	}
	sent(t)
	for _, line := range []string{
		`caddy_jwt_mails_total{kind="test",result="limited"}`, `caddy_jwt_mails_total{kind="test",result="sent"}`,
		`caddy_jwt_mails_waiting{issuer="caddy-jwt-accounts",`,
	} {
		if metrics := s.Get("/metrics").Body; !strings.Contains(metrics, line) {
			t.Errorf("no %s in the metrics", line)
		}
	}
}

// The queue is bounded, and those that wait belong to their users.
func TestOutboxBounds(t *testing.T) {
	defer mail.SetMaxWaiting(3)()
	server := sitetest.NewSMTPServer(t) // not started
	s := site(t, smtp(server, ""))
	s.MustAnswer(201, s.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
	users := accountstest.StoreOf(t)
	alice := accountstest.UserOf(t, "alice@example.com")
	hers := message("alice@example.com")
	hers.UserID = alice.ID
	queue(t, hers, message("b@example.com"), message("c@example.com"))
	err := accountstest.ServiceOf(t).Mails.Queue(t.Context(), message("d@example.com"), nil, client)
	if err == nil || refusal.Of(err).Reason != refusal.StoreUnavailable || !strings.Contains(s.Log(), "#mail-queue-full") {
		t.Errorf("a fourth mail: %v", err)
	}
	if got := waiting(t); got != 3 {
		t.Errorf("%d wait, expected 3", got)
	}
	if err := users.DeleteUser(t.Context(), alice.ID, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := waiting(t); got != 2 {
		t.Errorf("%d wait after the user was deleted, expected 2", got)
	}
}

// A reload reads the password again, although the text of the config is the same.
func TestReloadReadsPassword(t *testing.T) {
	clock := sitetest.SetClock(t)
	server := sitetest.NewSMTPServer(t)
	server.User, server.Password = "u", "second"
	server.Start()
	t.Setenv("PW", "first")
	body := sitetest.AccountsBody(
		filepath.Join(sitetest.TempDir(t), "users.db"), smtp(server, "username u\npassword {env.PW}"),
	)
	s := sitetest.Serve(t, body)
	queue(t, message("alice@example.com"))
	sitetest.Eventually(t, "a warning", func() bool { return strings.Contains(s.Log(), "#mails-not-sent") })
	t.Setenv("PW", "second")
	s.Load(body, sitetest.TempDir(t))
	clock.Ahead.Store(120)
	server.MustGet(1)
}

// Two processes with one store send each mail once.
func TestOutboxOfTwoNodes(t *testing.T) {
	server := sitetest.NewSMTPServer(t)
	server.Gate = make(chan struct{})
	server.Start()
	dir := t.TempDir()
	path := filepath.Join(dir, "users.db")
	body := sitetest.AccountsBody(path, smtp(server, ""))
	for _, name := range []string{"-a", "-b"} {
		p := sitetest.NewProcess(t, dir, name, sitetest.FreeAddress(t), "", body)
		p.Start()
		p.AwaitAnswer(func(status int) bool { return status == 200 })
	}
	const number = 60
	accountstest.WithUsers(t, path, func(users store.UserStore) {
		module := module(t, server)
		outbox := mail.NewOutbox(mail.Options{
			Issuer: "caddy-jwt-accounts", Now: time.Now, Log: zap.NewNop(), Mailer: func() mail.Mailer { return module },
			Records: func() store.RecordStore { return users },
		})
		for i := range number {
			if _, err := outbox.Queue(t.Context(), message(fmt.Sprintf("user%d@example.com", i))); err != nil {
				t.Fatal(err)
			}
		}
		// Both are sending, and do not know of what the other sends but by the store.
		sitetest.Eventually(t, "both nodes send", func() bool { return server.Connects() >= 8 })
		close(server.Gate)
		server.MustGet(number)
		sitetest.Eventually(t, "no mail waits", func() bool {
			left, err := users.Records(t.Context(), "mail of caddy-jwt-accounts", "", time.Now())
			return err == nil && len(left) == 0
		})
	})
	recipients := make(map[string]int)
	for _, got := range server.Received() {
		recipients[got.To]++
	}
	if len(recipients) != number || len(server.Received()) != number {
		t.Errorf("%d mails to %d recipients, expected %d", len(server.Received()), len(recipients), number)
	}
}

// To validate a config neither connects nor sends.
func TestValidateDoesNotConnect(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	dir := sitetest.TempDir(t)
	adapted, err := sitetest.AdaptCaddyfile(
		t, sitetest.AccountsBody(filepath.Join(dir, "users.db"), smtp(server, "")), "127.0.0.1:0", dir,
		filepath.Join(dir, "log.json"),
	)
	if err == nil {
		err = sitetest.Validate(t, adapted)
	}
	if err != nil || server.Connects() != 0 {
		t.Errorf("%v, %d connections", err, server.Connects())
	}
}

// countingMailer counts attempts, which fail while it is down.
type countingMailer struct {
	mail.Mailer
	down  bool
	tries int
}

func (m *countingMailer) Send(context.Context, *mail.Message) (string, error) {
	if m.tries++; m.down {
		return "", errors.New("it is down")
	}
	return "ok", nil
}

// While no mail can be sent, one is tried now and then; decoys, which need no mailer, change nothing about that.
func TestDecoysDoNotEndThePause(t *testing.T) {
	accountstest.WithUsers(t, filepath.Join(sitetest.TempDir(t), "users.db"), func(users store.UserStore) {
		now := time.Now()
		mailer := &countingMailer{Mailer: module(t, sitetest.NewSMTPServer(t)), down: true}
		outbox := mail.NewOutbox(mail.Options{
			Issuer: "caddy-jwt-accounts", Now: func() time.Time { return now }, Log: zap.NewNop(),
			Mailer: func() mail.Mailer { return mailer }, Records: func() store.RecordStore { return users },
		})
		put := func(decoy bool) {
			t.Helper()
			m := message("alice@example.com")
			m.Decoy = decoy
			if _, err := outbox.Queue(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		round := func(why string, tries, left int) {
			t.Helper()
			before := mailer.tries
			outbox.SendDue(t.Context())
			records, err := users.Records(t.Context(), "mail of caddy-jwt-accounts", "", now)
			if err != nil || mailer.tries-before != tries || len(records) != left {
				t.Errorf("%s: %d attempts, %d mails left, %v", why, mailer.tries-before, len(records), err)
			}
			now = now.Add(90 * time.Second) // longer than any pause
		}
		put(false)
		round("the first failure", 1, 1)
		put(true)
		put(true)
		put(false)
		for range 3 {
			round("one attempt, whatever is first", 1, 4)
		}
		mailer.down = false
		round("it works again", 1, 3)
		round("then all", 1, 0)

		mailer.down = true
		put(false)
		round("a failure again", 1, 1)
		put(true)
		now = now.Add(24 * time.Hour)
		round("both expire", 0, 1)
		round("a decoy alone is no attempt", 0, 0)
		put(false)
		put(false)
		round("so the pause goes on", 1, 2)
	})
}
