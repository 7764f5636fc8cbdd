package mail_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddyserver/caddy/v2"
)

const from = "from no-reply@example.com\n"

// site runs a site whose mails are sent by a mailer.
func site(t *testing.T, mailer string) *sitetest.Site {
	t.Helper()
	return sitetest.AccountsSite(t, mailer)
}

// smtp returns the option mail for a server, with more options.
func smtp(server *sitetest.SMTPServer, more string) string {
	return fmt.Sprintf("mail smtp://%s {\n%s%s\n}\n", server.Address, from, more)
}

// encrypted is smtp by STARTTLS.
func encrypted(server *sitetest.SMTPServer, more string) string {
	return smtp(server, "trusted_ca_certs "+server.CAFile+"\n"+more)
}

// message returns a mail with a code.
func message(to string) mail.Message {
	return mail.Message{
		Kind: "test", To: to, Subject: "Your code", Text: "The code is 123456.\n",
		HTML: "<p>The code is <b>123456</b>.</p>",
	}
}

var client = accounts.Client{Address: "192.0.2.1"}

// queue queues mails as a request of a client does.
func queue(t *testing.T, messages ...mail.Message) {
	t.Helper()
	for _, m := range messages {
		if err := accountstest.ServiceOf(t).Mails.Queue(t.Context(), m, nil, client); err != nil {
			t.Fatal(err)
		}
	}
}

// waiting returns how many mails are in the store.
func waiting(t *testing.T) int {
	t.Helper()
	records, err := accountstest.StoreOf(t).Records(t.Context(), "mail of caddy-jwt-accounts", "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return len(records)
}

// sent waits until no mail waits.
func sent(t *testing.T) {
	t.Helper()
	sitetest.Eventually(t, "no mail waits", func() bool { return waiting(t) == 0 })
}

// command returns `caddy jwt …` with the config of a site.
func command(t *testing.T, mailer string) *accountstest.CommandLine {
	t.Helper()
	dir := sitetest.TempDir(t)
	config := filepath.Join(dir, "Caddyfile")
	text := "{\n\tadmin off\n\tstorage file_system " + dir + "\n}\n:0 {\n jwt {\n accounts {\n" + mailer + "}\n}\n}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &accountstest.CommandLine{TB: t, Where: []string{"--config", config}}
}

// hasNoSecret checks that no text for an operator has the code or the password.
func hasNoSecret(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{"123456", "hunter2"} {
		if strings.Contains(text, secret) {
			t.Errorf("it has %q: %s", secret, text)
		}
	}
}

// module returns a mailer without a site.
func module(t *testing.T, server *sitetest.SMTPServer) *mail.SMTP {
	t.Helper()
	module := &mail.SMTP{URL: "smtp://" + server.Address, Settings: mail.Settings{From: "no-reply@example.com"}}
	if err := module.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	return module
}
