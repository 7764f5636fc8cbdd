package mail_test

import (
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A mail arrives by each way of encryption and of writing the user.
func TestSMTP(t *testing.T) {
	for name, c := range map[string]struct {
		mailer    func(s *sitetest.SMTPServer) string
		set       func(s *sitetest.SMTPServer)
		encrypted bool
		user      string
	}{
		"this machine": {mailer: func(s *sitetest.SMTPServer) string { return smtp(s, "") }},
		"this machine with a user": {
			mailer: func(s *sitetest.SMTPServer) string { return smtp(s, "username u\npassword {env.PW}") },
			set:    func(s *sitetest.SMTPServer) { s.User, s.Password = "u", "hunter2 @/#%" }, user: "u",
		},
		"STARTTLS":   {mailer: func(s *sitetest.SMTPServer) string { return encrypted(s, "") }, encrypted: true},
		"smtps":      {mailer: smtps, set: fromStart, encrypted: true},
		"smtps user": {mailer: smtpsUser, set: withUser, encrypted: true, user: "no-reply@example.com"},
		"a user in the URL": {
			mailer: func(s *sitetest.SMTPServer) string {
				return strings.Replace(encrypted(s, ""), "smtp://", "smtp://u%40x:hunter2%25@", 1)
			},
			set:       func(s *sitetest.SMTPServer) { s.User, s.Password = "u@x", "hunter2%" },
			encrypted: true, user: "u@x",
		},
		"the whole URL": {
			mailer: func(s *sitetest.SMTPServer) string {
				t.Setenv("URL", "smtp://"+s.Address)
				return "mail {env.URL} {\n" + from + "}\n"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PW", "hunter2 @/#%")
			server := sitetest.NewSMTPServer(t)
			if c.set != nil {
				c.set(server)
			}
			server.Start()
			s := site(t, c.mailer(server))
			queue(t, message("alice@example.com"))
			got := server.MustGet(1)[0]
			sent(t)
			if got.Encrypted != c.encrypted || got.User != c.user ||
				!strings.HasPrefix(got.From, "FROM:<no-reply@example.com>") || got.To != "TO:<alice@example.com>" {
				t.Errorf("got %+v", got)
			}
			hasNoSecret(t, s.Log())
			if !strings.Contains(s.Log(), `"mail sent"`) || !strings.Contains(s.Log(), `"mail queued"`) {
				t.Error("the audit log does not say that a mail was queued and sent")
			}
			if strings.Contains(s.Log(), "alice@example.com") {
				t.Error("the log has the address")
			}
		})
	}
}

func fromStart(s *sitetest.SMTPServer) { s.FromStart = true }

func withUser(s *sitetest.SMTPServer) {
	s.FromStart, s.User, s.Password = true, "no-reply@example.com", "hunter2 @/#%"
}

func smtps(s *sitetest.SMTPServer) string {
	return strings.Replace(encrypted(s, ""), "smtp:", "smtps:", 1)
}

func smtpsUser(s *sitetest.SMTPServer) string {
	return strings.Replace(smtps(s), "smtps://", "smtps://no-reply@example.com:{env.PW}@", 1)
}

// What is wrong with a mail server is said with what to do, and neither the password nor a mail
// goes to a server that is not the one in the config.
func TestSMTPErrors(t *testing.T) {
	t.Setenv("PW", "hunter2")
	const user = "username u\npassword {env.PW}"
	withPassword := func(s *sitetest.SMTPServer) { s.User, s.Password = "u", "another" }
	for name, c := range map[string]struct {
		mailer func(s *sitetest.SMTPServer) string
		set    func(s *sitetest.SMTPServer)
		want   string
	}{
		"wrong password": {
			func(s *sitetest.SMTPServer) string { return encrypted(s, user) }, withPassword,
			`535 "5.7.8 Authentication credentials invalid"; are the user and the password right?`,
		},
		"no user": {
			func(s *sitetest.SMTPServer) string { return encrypted(s, "") }, withPassword, "set them in the URL",
		},
		"no AUTH": {func(s *sitetest.SMTPServer) string { return encrypted(s, user) }, nil, "no way to log in"},
		"no STARTTLS": {
			func(s *sitetest.SMTPServer) string { return encrypted(s, user) },
			func(s *sitetest.SMTPServer) { s.NoSTARTTLS = true }, "anybody in between could read the mails",
		},
		"unknown certificate": {
			func(s *sitetest.SMTPServer) string { return strings.Replace(smtp(s, user), "smtp://", "smtps://", 1) },
			fromStart, "not of a known authority",
		},
		"another name": {
			func(s *sitetest.SMTPServer) string { return encrypted(s, user) },
			func(s *sitetest.SMTPServer) { s.Address = strings.Replace(s.Address, "127.0.0.1", "127.0.0.2", 1) },
			"the certificate of the server is not for this name",
		},
		"no TLS at the port": {smtps, nil, "write smtp:// for STARTTLS"},
		"TLS at the port": {
			func(s *sitetest.SMTPServer) string { return encrypted(s, "timeout 1s") }, fromStart, "needs smtps://",
		},
		"hangs": {
			func(s *sitetest.SMTPServer) string { return smtp(s, "timeout 1s") },
			func(s *sitetest.SMTPServer) { s.Hang = "EHLO" }, "does not answer",
		},
		"drops": {
			func(s *sitetest.SMTPServer) string { return smtp(s, "") },
			func(s *sitetest.SMTPServer) { s.Drop = "DATA" }, "not sent by smtp://127.0.0.1",
		},
		"not welcome": {
			func(s *sitetest.SMTPServer) string { return smtp(s, "") },
			func(s *sitetest.SMTPServer) { s.Answers["CONNECT"] = "554 5.7.1 on a blocklist" }, "on a blocklist",
		},
		"sender": {
			func(s *sitetest.SMTPServer) string { return smtp(s, "") },
			func(s *sitetest.SMTPServer) { s.Answers["MAIL"] = "553 5.7.1 not your address" }, "set `from` to an address",
		},
		"recipient": {
			func(s *sitetest.SMTPServer) string { return smtp(s, "") },
			func(s *sitetest.SMTPServer) { s.Answers["RCPT"] = "550 5.1.1 nobody" }, `550 "5.1.1 nobody"; the server does not`,
		},
		"no such host": {
			func(*sitetest.SMTPServer) string { return "mail smtp://mail.invalid {\n" + from + "}\n" }, nil, "host",
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := sitetest.NewSMTPServer(t)
			if c.set != nil {
				c.set(server)
			}
			server.Start()
			out, _, err := command(t, c.mailer(server)).Run("", "mail", "test", "alice@example.com")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s%v; expected %q", out, err, c.want)
			} else {
				hasNoSecret(t, err.Error())
				t.Log(err)
			}
			if len(server.Received()) > 0 {
				t.Error("the mail was sent")
			}
		})
	}
}

func TestMailTest(t *testing.T) {
	server := sitetest.NewSMTPServer(t).Start()
	c := command(t, encrypted(server, ""))
	accountstest.Has(t, c.Must("", "mail", "test", "alice@example.com"), "sent to alice@example.com", "2.0.0 taken")
	got := server.MustGet(1)[0].Message(t)
	if subject := got.Header.Get("Subject"); subject != "Test of the mails of example.com" {
		t.Errorf("subject %q", subject)
	}
	c.Refuses("", "must look like name@example.com", "mail", "test", "alice")
	c.Refuses("", "takes the address", "mail", "test")
	command(t, "").Refuses("", "have no mail", "mail", "test", "alice@example.com")
}
