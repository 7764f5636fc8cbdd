package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/spf13/cobra"
)

func mailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "mail",
		Short:   "Works with the mails of the accounts",
		Long:    "\nWorks with the mails that the accounts of a site send.",
		Example: `  caddy jwt mail test alice@example.com --config /etc/caddy/Caddyfile`,
	}
	addConfigFlags(cmd, "Caddy config with the accounts; by default the Caddyfile in this folder")
	cmd.AddCommand(testMailCommand())
	return cmd
}

func testMailCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test <address>",
		Short: "Sends a test mail",
		Long: `
Sends a mail to an address, as the accounts in the config send theirs, and prints what
the mail server answers, or what is wrong and what to do. It sends at once, without the
queue in which mails of the accounts wait, and is not counted for their limits. If the
config has several accounts whose mail differs, it sends a mail by each.

Caddy's placeholders are read here as well, so set the same environment variables.`,
		Example: `  caddy jwt mail test alice@example.com --config /etc/caddy/Caddyfile`,
		Args:    Takes("the address to send to"),
		RunE:    runs(testMail),
	}
}

// testMailTimeout is how long the command waits for a mail to be taken.
const testMailTimeout = 80 * time.Second

func testMail(cmd *cobra.Command, args []string) error {
	to, err := mail.Address(args[0])
	if err != nil {
		return fmt.Errorf("the address %s %w", refusal.Quoted(args[0]), err)
	}
	config, err := loadConfig(flagsOf(cmd))
	if err != nil {
		return err
	}
	sites, err := config.accounts()
	if err != nil {
		return err
	}
	done := make(map[string]bool)
	var failed error
	for _, site := range sites {
		if len(site.MailRaw) == 0 || done[string(site.MailRaw)] {
			continue
		}
		done[string(site.MailRaw)] = true
		failed = errors.Join(failed, sendTestMail(cmd, config.storage, site, to))
	}
	if len(done) == 0 {
		return fmt.Errorf("the accounts in %s have no mail; add it to their block, as in: "+
			"mail smtp://user:{env.SMTP_PASSWORD}@mail.example.com { from no-reply@example.com }", config.file)
	}
	return failed
}

func sendTestMail(cmd *cobra.Command, storage json.RawMessage, site *accounts.Config, to string) error {
	ctx, cancel, err := openContext(storage)
	if err != nil {
		return err
	}
	defer cancel()
	mailer, err := accounts.LoadMailer(ctx, site)
	if err != nil {
		return err
	}
	message := &mail.Message{ID: store.RandomToken(16), Kind: "test", To: to, CreatedAt: time.Now()}
	if err := site.MailTemplates().Write(message, site.Site(mailer, ""), nil); err != nil {
		return err
	}
	timed, stop := context.WithTimeout(ctx, testMailTimeout)
	defer stop()
	answer, err := mailer.Send(timed, message)
	if err != nil {
		return fmt.Errorf("not sent by %s: %s", mailer.Where(), refusal.Visible(err.Error()))
	}
	fmt.Fprintf(
		cmd.OutOrStdout(), "sent to %s, from %s, by %s: %s\n", to, mailer.Common().From, mailer.Where(),
		refusal.Visible(answer),
	)
	return nil
}
