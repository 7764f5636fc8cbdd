package cli

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

func verifyUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify <user> [flags]",
		Short: "Marks the e-mail address of a user as verified",
		Long: `
Marks the e-mail address of a user as verified, as if the user had confirmed it with a
code. Do this only if you know that the user receives mail there.`,
		Example: `  caddy jwt user verify alice@example.com`,
		Args:    Takes(userArgument),
		RunE:    operates(false, verifyUser),
	}
	cmd.Flags().Bool("json", false, "Print a JSON object")
	return cmd
}

func verifyUser(o *operator) error {
	user, err := o.user()
	if err == nil && user.Address() == "" {
		return fmt.Errorf(
			"%s has no e-mail address; give it one with `caddy jwt user email`", refusal.Visible(user.Email),
		)
	}
	if err == nil {
		user, err = o.change(func(u *store.User) { u.EmailVerified = true })
	}
	if err != nil {
		return err
	}
	if o.flags.Bool("json") {
		return newJSONEncoder(o.cmd.OutOrStdout()).Encode(shownUser(user))
	}
	o.say("the address %s is verified", refusal.Visible(user.Email))
	return nil
}

func emailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "email <user> <new email> [flags]",
		Short: "Changes the e-mail address of a user",
		Long: `
Changes the e-mail address of a user, or gives one to a user who only has a name, without
a mail to anybody. The name stays. The new address is not verified; if you know that the
user receives mail there, run caddy jwt user verify. Codes and links that were mailed to
the old address no longer work. Sessions continue, and access tokens have the old address
until they are refreshed.`,
		Example: `  caddy jwt user email alice@example.com alice@example.org`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%s takes %s, and the new address", cmd.CommandPath(), userArgument)
			}
			return nil
		},
		RunE: operates(false, changeEmail),
	}
	cmd.Flags().Bool("json", false, "Print a JSON object")
	return cmd
}

func changeEmail(o *operator) error {
	key, err := store.EmailKey(o.args[1])
	if err != nil {
		return fmt.Errorf("the e-mail address %s %w", refusal.Quoted(o.args[1]), err)
	}
	before, err := o.user()
	if err != nil {
		return err
	}
	user, err := o.change(func(u *store.User) {
		if u.EmailKey != key {
			delete(u.Profile, "email_verified") // an import's, of the address before
		}
		u.EmailVerified = u.EmailVerified && u.EmailKey == key
		_ = u.SetEmail(o.args[1]) // it has a key
	})
	if errors.Is(err, store.ErrEmailTaken) {
		return fmt.Errorf("%w: %s", err, refusal.Quoted(o.args[1]))
	}
	if err == nil && key != before.EmailKey {
		err = accounts.DropMailedCodes(o.ctx, o.store, before, time.Now)
	}
	if err != nil {
		return err
	}
	if o.flags.Bool("json") {
		return newJSONEncoder(o.cmd.OutOrStdout()).Encode(shownUser(user))
	}
	o.say("the address of %s is %s", user.ID, refusal.Visible(user.Email))
	return nil
}

func inviteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "invite <email> [flags]",
		Short: "Adds a user without a password, who chooses one with a link",
		Long: `
Adds a user without a password, who chooses one with a link that is valid for 24 hours.
If the accounts in --config have mail, the link is mailed, which the running Caddy does,
and using it verifies the address. Otherwise the link is printed: send it only to that
user. For a user who has not chosen a password yet, the command makes another link.`,
		Example: `  caddy jwt user invite --config /etc/caddy/Caddyfile --role editor alice@example.com
  caddy jwt user invite --base https://example.com alice@example.com`,
		Args: Takes("an e-mail address"),
		RunE: operates(true, inviteUser, func(o *operator) error {
			_, err := store.EmailKey(o.args[0])
			if err != nil {
				return fmt.Errorf("the e-mail address %s %w", refusal.Quoted(o.args[0]), err)
			}
			return nil
		}),
	}
	AddCreate(cmd)
	cmd.Flags().StringArray("role", nil, "A role; may be repeated")
	cmd.Flags().StringArray("profile", nil, "A profile property, as name=text; may be repeated")
	cmd.Flags().String(
		"base", "", "URL of the site, as in https://example.com; by default as in mails of the accounts in --config",
	)
	cmd.Flags().String(
		"prefix", "", "Path of the account routes; by default the path in --config, or "+accounts.DefaultPrefix,
	)
	cmd.Flags().Bool("json", false, "Print a JSON object")
	return cmd
}

func inviteUser(o *operator) error {
	page, err := o.resetPage()
	if err != nil {
		return err
	}
	mailer, err := o.mailer()
	if err != nil {
		return err
	}
	user, err := o.invited()
	if err != nil {
		return err
	}
	token, err := accounts.Invite(o.ctx, o.store, user, mailer != nil, time.Now)
	if err != nil {
		return err
	}
	page.RawQuery = url.Values{"token": {token}}.Encode()
	shown := shownUser(user)
	if mailer == nil {
		shown["link"] = page.String()
	} else {
		message, err := o.sites[0].InviteMail(mailer, user, page.String(), time.Now())
		if err == nil {
			err = o.queue(mailer, message)
		}
		if err != nil {
			return fmt.Errorf("the user is added, but the mail is not queued: %w; run this again", err)
		}
		shown["mailed"] = true
	}
	switch {
	case o.flags.Bool("json"):
		return newJSONEncoder(o.cmd.OutOrStdout()).Encode(shown)
	case mailer == nil:
		o.say("%s", page)
	default:
		o.say("%s is invited; the running Caddy sends the mail", refusal.Visible(user.Email))
	}
	return nil
}

// base returns the URL of the site, from the flag or else as in the config.
func (o *operator) base() (string, error) {
	if base := o.flags.String("base"); base != "" {
		return base, nil
	}
	if o.flags.String("config") == "" {
		return "", errors.New("which site is it? Set --base to its URL, as in --base https://example.com, or --config")
	}
	config, err := loadConfig(o.flags)
	if err != nil {
		return "", err
	}
	return config.baseOf(o.sites[0].Issuer)
}

// mailer returns the mailer of the accounts, or nil if they have none.
func (o *operator) mailer() (mail.Mailer, error) {
	site := *o.sites[0] // a copy, because LoadMailer changes it
	return accounts.LoadMailer(o.ctx, &site)
}

// invited returns the user of the argument, who is added unless it exists without a password.
func (o *operator) invited() (store.User, error) {
	user, err := o.newUser()
	if err != nil {
		return user, err
	}
	there, err := o.store.UserByEmail(o.ctx, user.EmailKey)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return user, o.store.CreateUser(o.ctx, user)
	case err != nil:
		return user, err
	case there.Disabled:
		return there, fmt.Errorf("%s is disabled; run `caddy jwt user enable` first", refusal.Visible(there.Email))
	case there.PasswordHash != "":
		return there, fmt.Errorf("%w: %s", store.ErrEmailTaken, refusal.Quoted(there.Email))
	case o.flags.Changed("role") || o.flags.Changed("profile"):
		return there, fmt.Errorf("%s is invited already; to change the roles, run `caddy jwt user roles`",
			refusal.Visible(there.Email))
	}
	return there, nil
}

// queue puts a mail into the outbox of the running Caddy.
func (o *operator) queue(mailer mail.Mailer, message mail.Message) error {
	outbox := mail.NewOutbox(mail.Options{
		Issuer: o.sites[0].Issuer, Now: time.Now, Log: zap.NewNop(),
		Records: func() store.RecordStore { return o.store }, Mailer: func() mail.Mailer { return mailer },
	})
	_, err := outbox.Queue(o.ctx, message)
	return err
}
