package cli

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/mail"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/spf13/cobra"
)

func factorsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "factors <user> [flags]",
		Short: "Lists or resets the second factors of a user",
		Long: `
Lists the second factors of a user: the authenticator app, the number of recovery
codes that are left, the passkeys, and the browsers that are not asked for a second
factor. Secrets and codes are not shown; nobody can read the codes.`,
		Example: `  caddy jwt user factors alice@example.com
  caddy jwt user factors reset alice@example.com`,
		Args: Takes(userArgument),
		RunE: operates(false, listFactors),
	}
	cmd.PersistentFlags().Bool("json", false, "Print a JSON object")
	reset := &cobra.Command{
		Use:   "reset <user> [flags]",
		Short: "Removes the second factors of a user",
		Long: `
Removes the second factors of a user, who has lost the authenticator app and the
recovery codes, or whose account somebody else has prepared: the app, the recovery
codes, the passkeys, and the trust in browsers. It prints what there was. From then on the password
is enough to log in, unless the site requires a second factor; then whoever logs in
next with the password sets up a new one. So make sure that you talk to the user, and
also run caddy jwt user reset-link if somebody else may know the password. Sessions of
the user continue; to end them, use caddy jwt user passwd or reset-link.`,
		Example: `  caddy jwt user factors reset alice@example.com`,
		Args:    Takes(userArgument),
		RunE:    operates(false, resetFactors),
	}
	AddYes(reset)
	cmd.AddCommand(reset)
	return cmd
}

func listFactors(o *operator) error {
	user, err := o.user()
	if err != nil {
		return err
	}
	found, err := accounts.LoadFactors(o.ctx, o.store, user.ID, time.Now())
	if err != nil {
		return err
	}
	if o.flags.Bool("json") {
		return newJSONEncoder(o.cmd.OutOrStdout()).Encode(shownFactors(user, found))
	}
	table := tabwriter.NewWriter(o.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	app := "none"
	if found.TOTP != nil {
		app = "set up " + timeText(*found.TOTP)
	}
	fmt.Fprintf(table, "Authenticator app\t%s\nRecovery codes left\t%d\n", app, found.RecoveryCodesLeft)
	if len(found.Passkeys) > 0 {
		fmt.Fprintln(table, "\nPASSKEY\tFOR\tADDED\tLAST USED")
	}
	for _, k := range found.Passkeys {
		used := "never"
		if !k.UsedAt.IsZero() {
			used = timeText(k.UsedAt)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", refusal.Visible(k.Name), k.Party, timeText(k.AddedAt), used)
	}
	if len(found.Trusted) > 0 {
		fmt.Fprintln(table, "\nTRUSTED SINCE\tUNTIL\tADDRESS\tBROWSER")
	}
	for _, browser := range found.Trusted {
		fmt.Fprintf(
			table, "%s\t%s\t%s\t%s\n", timeText(browser.At), timeText(browser.ExpiresAt),
			refusal.Visible(browser.Address), refusal.Visible(browser.UserAgent),
		)
	}
	return table.Flush()
}

// shownFactors returns the second factors of a user for JSON.
func shownFactors(user store.User, found accounts.FactorsOf) map[string]any {
	shown := map[string]any{"user_id": user.ID, "totp": nil, "recovery_codes_left": found.RecoveryCodesLeft}
	if found.TOTP != nil {
		shown["totp"] = map[string]any{"added_at": found.TOTP.UTC()}
	}
	browsers := make([]map[string]any, len(found.Trusted))
	for i, browser := range found.Trusted {
		browsers[i] = map[string]any{
			"client": browser.UserAgent, "address": browser.Address, "trusted_at": browser.At.UTC(),
			"expires_at": browser.ExpiresAt.UTC(),
		}
	}
	shown["trusted_browsers"] = browsers
	passkeys := make([]map[string]any, len(found.Passkeys))
	for i, k := range found.Passkeys {
		passkeys[i] = map[string]any{
			"id": k.ID, "name": k.Name, "domain": k.Party, "added_at": k.AddedAt.UTC(), "used_at": nil,
			"synced": k.Synced(), "suspended": k.Suspended,
		}
		if !k.UsedAt.IsZero() {
			passkeys[i]["used_at"] = k.UsedAt.UTC()
		}
	}
	shown["passkeys"] = passkeys
	return shown
}

func resetFactors(o *operator) error {
	user, err := o.user()
	if err != nil {
		return err
	}
	found, err := accounts.LoadFactors(o.ctx, o.store, user.ID, time.Now())
	if err != nil {
		return err
	}
	what := "remove the second factors of " + refusal.Visible(user.Email)
	if err := Confirm(o.cmd, what); err != nil {
		return err
	}
	if err := accounts.ResetFactors(o.ctx, o.store, user.ID, time.Now()); err != nil {
		return err
	}
	if found.TOTP != nil || len(found.Passkeys) > 0 {
		if err := o.tell(user, (*accounts.Config).ResetMail); err != nil {
			return fmt.Errorf("the second factor is removed, but the mail about it is not queued: %w", err)
		}
	}
	if o.flags.Bool("json") {
		return newJSONEncoder(o.cmd.OutOrStdout()).Encode(shownFactors(user, found))
	}
	if found.TOTP == nil && len(found.Passkeys) == 0 {
		o.say("%s had no second factor", refusal.Visible(user.Email))
		return nil
	}
	o.say(
		"the second factor of %s is removed, with recovery codes: %d, passkeys: %d, trusted browsers: %d",
		refusal.Visible(user.Email), found.RecoveryCodesLeft, len(found.Passkeys), len(found.Trusted),
	)
	return nil
}

// tell mails a notice to a user who has an address, if the site has mail.
func (o *operator) tell(
	user store.User, notice func(*accounts.Config, mail.Mailer, store.User) (mail.Message, error),
) error {
	if len(o.sites) == 0 || user.Address() == "" {
		return nil
	}
	mailer, err := o.mailer()
	if err != nil || mailer == nil {
		return err
	}
	message, err := notice(o.sites[0], mailer, user)
	if err == nil {
		err = o.queue(mailer, message)
	}
	return err
}

// sayFactor prints that a user still has a second factor.
func (o *operator) sayFactor(user store.User) error {
	found, err := accounts.LoadFactors(o.ctx, o.store, user.ID, time.Now())
	if err == nil && found.TOTP != nil {
		fmt.Fprintf(
			o.cmd.ErrOrStderr(), "%s still has a second factor, set up %s; `caddy jwt user factors reset` removes it\n",
			refusal.Visible(user.Email), timeText(*found.TOTP),
		)
	}
	return err
}
