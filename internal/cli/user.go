package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const (
	usersPerPage     = 500
	maxImportLine    = 8 * 64 << 10 // of what a sign-up may have; JSON may write a byte in six
	progressInterval = 500 * time.Millisecond
)

func userCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Manages the users of a site that has accounts",
		Long: `
Manages the users of a site that has accounts, also while Caddy is running. The
users are read from

    --store <path>   a file
    --config <file>  the store of the accounts in a Caddy config
    neither          the default file of the accounts

The default file is in the data directory of the user who runs Caddy, and only that
user can read it. So run the command as that user, as in:
sudo -u caddy -H caddy jwt user list

Name a user by e-mail address, user name or ID.`,
		Example: `  caddy jwt user add --role admin alice@example.com
  caddy jwt user list --config /etc/caddy/Caddyfile
  caddy jwt user disable alice@example.com`,
	}
	AddStoreFlags(cmd)
	cmd.AddCommand(
		addUserCommand(), listUsersCommand(), showUserCommand(),
		disableUserCommand(), enableUserCommand(), deleteUserCommand(),
		updateUserCommand(), passwordCommand(), rolesCommand(), importCommand(), exportCommand(),
		resetLinkCommand(), disconnectCommand(), factorsCommand(),
		inviteCommand(), emailCommand(), verifyUserCommand(),
	)
	complete(cmd, "<user>", (*operator).chooseSites, userNames)
	return cmd
}

// chooseSites finds the selected accounts, and the config's storage.
func (o *operator) chooseSites() (storage json.RawMessage, err error) {
	path := o.flags.String("store")
	if o.flags.String("config") == "" {
		site := new(accounts.Config)
		if path != "" {
			site.StoreRaw = caddyconfig.JSONModuleObject(&filestore.Store{Path: path}, "module", "file", nil)
		}
		o.sites = []*accounts.Config{site}
		return nil, site.Resolve()
	}
	if path != "" {
		return nil, errors.New("--store and --config are both set; set only one of them")
	}
	config, err := loadConfig(o.flags)
	if err != nil {
		return nil, err
	}
	if o.sites, err = config.accounts(); err != nil {
		return nil, err
	}
	for _, site := range o.sites {
		if !bytes.Equal(site.StoreRaw, o.sites[0].StoreRaw) {
			return nil, fmt.Errorf(
				"%s has accounts with different stores%s; choose one with --store <path> instead of --config",
				config.file, storePaths(o.sites),
			)
		}
	}
	return config.storage, nil
}

// storePaths returns the files of the sites in parentheses, without those in databases; empty if there
// are none.
func storePaths(sites []*accounts.Config) string {
	var paths []string
	for _, site := range sites {
		path, err := filestore.Path(site.StoreRaw)
		if err == nil && path != "" && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		return ""
	}
	return " (" + strings.Join(paths, ", ") + ")"
}

// user returns the user that the argument names.
func (o *operator) user() (store.User, error) {
	name := o.args[0]
	if len(name) == 36 && uuid.Validate(name) == nil {
		name = strings.ToLower(name)
	}
	user, err := store.FindUser(o.ctx, o.store, name)
	if errors.Is(err, store.ErrNotFound) {
		return user, fmt.Errorf("there is no user %s; `caddy jwt user list` lists all users%s", refusal.Quoted(name),
			config.Meant(name, o.near(name)...))
	}
	return user, err
}

// pages returns all users, sorted by e-mail address.
func (o *operator) pages() iter.Seq2[[]store.User, error] {
	return func(yield func([]store.User, error) bool) {
		for after := ""; ; {
			page, err := o.store.Users(o.ctx, after, usersPerPage)
			if !yield(page, err) || err != nil || len(page) < usersPerPage {
				return
			}
			after = page[len(page)-1].EmailKey
		}
	}
}

func (o *operator) say(format string, args ...any) {
	fmt.Fprintf(o.cmd.OutOrStdout(), format+"\n", args...)
}

// texts returns the values of a repeatable flag, also an empty one, which
// FlagSet.GetStringArray loses.
func (o *operator) texts(flag string) []string {
	values, _ := o.flags.Lookup(flag).Value.(pflag.SliceValue) // which the command has
	return values.GetSlice()
}

func addUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add [<email>] [flags]",
		Short: "Adds a user",
		Long: `
Adds a user and prints its ID. On a terminal, the command prompts for the password;
otherwise the password is the first line of standard input. The same password rules
apply as at sign-up. The user gets the given roles, but not default_roles. With
--username the user has a name to log in by, beside the e-mail address or instead of
it; the accounts need identifier username or any.`,
		Example: `  caddy jwt user add --role admin alice@example.com
  caddy jwt user add --role editor --role author --profile name="Bob B." bob@example.com < password.txt
  caddy jwt user add --no-password carol@example.com
  caddy jwt user reset-link --base https://example.com carol@example.com
  caddy jwt user add --username dave`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && cmd.Flags().Changed("username") {
				return nil
			}
			err := Takes("an e-mail address")(cmd, args)
			if len(args) == 0 {
				err = fmt.Errorf("%w; for a user who only has a name, write --username <name>", err)
			}
			return err
		},
		RunE: operates(true, addUser, func(o *operator) error {
			_, err := o.newUser()
			return err
		}),
	}
	cmd.Flags().StringArray("role", nil, "A role; may be repeated")
	cmd.Flags().String("username", "", "The name by which the user logs in")
	addProfile(cmd)
	AddCreate(cmd)
	cmd.Flags().Bool("disabled", false, "The user cannot log in until it is enabled")
	cmd.Flags().Bool(
		"no-password", false, "The user cannot log in until a password is set, for example with reset-link",
	)
	return cmd
}

// newUser returns the user of the arguments, without a password.
func (o *operator) newUser() (user store.User, err error) {
	now := time.Now()
	user = store.User{ID: uuid.NewString(), CreatedAt: now, UpdatedAt: now}
	user.Roles = o.texts("role")
	if err := store.CheckRoles(user.Roles); err != nil {
		return user, fmt.Errorf("--role: %w", err)
	}
	if user.Profile, err = o.profile(); err != nil {
		return user, err
	}
	if len(o.args) > 0 {
		if err = store.CheckNewEmail(o.args[0]); err == nil {
			err = user.SetEmail(o.args[0])
		}
		if err != nil {
			return user, fmt.Errorf("the e-mail address %s %w%s", refusal.Quoted(o.args[0]), err, nameHint(o.args[0]))
		}
	}
	if o.flags.Lookup("username") != nil && o.flags.Changed("username") {
		if name := o.flags.String("username"); user.SetUsername(name) != nil {
			return user, wrongUsername(name)
		}
	}
	setVerified(&user, user.Profile)
	return user, nil
}

// setVerified takes over whether the address is verified, if that is among the properties that are set.
func setVerified(user *store.User, properties map[string]any) {
	if verified, given := properties["email_verified"]; given {
		user.EmailVerified = verified == true && user.Address() != ""
	}
}

// nameHint returns what to write if a text can be a user name, but no address.
func nameHint(text string) string {
	if _, err := store.UsernameKey(text); err != nil {
		return ""
	}
	return "; if it is a user name, write: --username " + text
}

// wrongUsername says what is wrong with a user name.
func wrongUsername(name string) error {
	_, err := store.UsernameKey(name)
	return fmt.Errorf("the user name %s %w", refusal.Quoted(name), err)
}

// noteNames says that users do not log in by names, if all the accounts in the config want addresses, or if
// it is not known.
func (o *operator) noteNames() {
	if o.flags.String("config") == "" {
		fmt.Fprintln(o.cmd.ErrOrStderr(), "users log in by a user name only if the accounts block has "+
			"`identifier any` or `identifier username`")
		return
	}
	if slices.ContainsFunc(o.sites, func(site *accounts.Config) bool {
		return site.Identifier != accounts.IdentifierEmail
	}) {
		return
	}
	fmt.Fprintln(o.cmd.ErrOrStderr(), "the accounts in this config do not let users log in by a user name; "+
		"write `identifier any` or `identifier username` in the accounts block")
}

// isTaken reports whether another user has the address or the name.
func isTaken(err error) bool {
	return errors.Is(err, store.ErrEmailTaken) || errors.Is(err, store.ErrUsernameTaken)
}

func addUser(o *operator) error {
	user, err := o.newUser()
	if err != nil {
		return err
	}
	user.Disabled = o.flags.Bool("disabled")
	if err := o.checkFree(user); err != nil { // before somebody types a password
		return err
	}
	if !o.flags.Bool("no-password") {
		if user.PasswordHash, err = o.newPassword(); err != nil {
			return err
		}
	}
	if err = store.AddUser(o.ctx, o.store, user, time.Now()); err != nil {
		return named(err, user)
	}
	o.say("%s", user.ID)
	if user.Username() != "" {
		o.noteNames()
	}
	return nil
}

// checkFree returns an error if another user has the address or the name of a new one.
func (o *operator) checkFree(user store.User) error {
	if key, err := store.UsernameKey(user.Username()); err == nil {
		if _, err := store.UserByKey(o.ctx, o.store, key); !errors.Is(err, store.ErrNotFound) {
			return cmp.Or(err, named(store.ErrUsernameTaken, user))
		}
	}
	if user.Address() == "" {
		return nil
	}
	if _, err := o.store.UserByEmail(o.ctx, user.EmailKey); !errors.Is(err, store.ErrNotFound) {
		return cmp.Or(err, named(store.ErrEmailTaken, user))
	}
	return nil
}

// named adds to an error which address or name is taken.
func named(err error, user store.User) error {
	switch {
	case errors.Is(err, store.ErrUsernameTaken):
		return fmt.Errorf("%w: %s", store.ErrUsernameTaken, refusal.Quoted(user.Username()))
	case errors.Is(err, store.ErrEmailTaken):
		return fmt.Errorf("%w: %s", store.ErrEmailTaken, refusal.Quoted(user.Email))
	}
	return err
}

func addProfile(cmd *cobra.Command) {
	cmd.Flags().StringArray("profile", nil, "A profile property, as name=text, or name:=JSON; may be repeated")
}

// profile returns the properties of the flags --profile.
func (o *operator) profile() (map[string]any, error) {
	profile := make(map[string]any)
	for _, text := range o.texts("profile") {
		name, value, found := strings.Cut(text, "=")
		name, isJSON := strings.CutSuffix(name, ":")
		if !found {
			return nil, fmt.Errorf("--profile %q: it must be a name and a text, as in name=Alice", text)
		}
		if err := store.CheckProfileName(name); err != nil {
			return nil, fmt.Errorf("--profile: %w", err)
		}
		if _, twice := profile[name]; twice {
			return nil, fmt.Errorf("--profile %s is specified twice; write several values as JSON, as in "+
				`%s:=["a","b"]`, name, name)
		}
		typed, err := store.TypedProperty(name, value)
		if err != nil && !isJSON {
			return nil, fmt.Errorf("--profile %q: %w", text, err)
		}
		profile[name] = typed
		if isJSON {
			object, err := jwt.ParseClaims([]byte(`{"value":` + value + `}`)) // keeps every digit of a whole number
			if err != nil || len(object) != 1 || store.OutOfRange(object) {
				return nil, fmt.Errorf("--profile %q: what is after := must be JSON, as in verified:=true", text)
			}
			profile[name] = store.PlainValue(object["value"])
		}
	}
	return profile, nil
}

// newPassword prompts for a password and returns its hash.
func (o *operator) newPassword() (hash string, err error) {
	pw, err := o.askPassword()
	if err != nil {
		return "", err
	}
	minLength := 0
	for _, site := range o.sites {
		minLength = max(minLength, site.PasswordMinLength)
	}
	if err := password.CheckNew(pw, minLength); err != nil {
		return "", fmt.Errorf("the password %w", err)
	}
	return password.Hash(o.ctx, password.Turn{Queue: password.DefaultQueue}, pw)
}

func (o *operator) askPassword() (string, error) {
	terminal := terminalOf(o.cmd.InOrStdin())
	if terminal == nil {
		line, err := readLine(o.cmd.InOrStdin())
		if err == nil && line == "" {
			err = errors.New("the first line of standard input is empty; it must be the password")
		}
		return line, err
	}
	password, err := readHidden(terminal, o.cmd.ErrOrStderr(), "Password: ")
	if err != nil {
		return "", err
	}
	again, err := readHidden(terminal, o.cmd.ErrOrStderr(), "Repeat it: ")
	if err == nil && again != password {
		err = errors.New("the passwords do not match; nothing was changed")
	}
	return password, err
}

// readLine reads the first line of standard input, up to a length that is too long for a
// password.
func readLine(in io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(in, password.MaxBytes+3)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("standard input: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

func listUsersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [flags]",
		Short: "Lists the users",
		Long: `
Lists the users, sorted by e-mail address or user name, as a table or, with --json, as one JSON
object per line.`,
		Example: `  caddy jwt user list
  caddy jwt user list --json | jq -r 'select(.disabled) | .email'`,
		Args: cobra.NoArgs,
		RunE: operates(false, listUsers),
	}
	cmd.Flags().Bool("json", false, "Print one JSON object per line")
	return cmd
}

func listUsers(o *operator) error {
	table := tabwriter.NewWriter(o.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	lines := newJSONEncoder(o.cmd.OutOrStdout())
	asJSON := o.flags.Bool("json")
	if !asJSON {
		fmt.Fprintln(table, "ID\tE-MAIL\tUSERNAME\tROLES\tSTATE\tCREATED")
	}
	for users, err := range o.pages() {
		if err != nil {
			return err
		}
		for _, user := range users {
			if !asJSON {
				fmt.Fprintf(
					table, "%s\t%s\t%s\t%s\t%s\t%s\n", user.ID, refusal.Visible(user.Address()),
					refusal.Visible(user.Username()),
					refusal.Visible(strings.Join(user.Roles, " ")), state(user), timeText(user.CreatedAt),
				)
			} else if err := lines.Encode(shownUser(user)); err != nil {
				return err
			}
		}
		if err := table.Flush(); err != nil { // with each page, as the table would hold them all
			return err
		}
	}
	return nil
}

func newJSONEncoder(w io.Writer) *json.Encoder {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder
}

// shownUser returns a user for JSON, without the password hash.
func shownUser(user store.User) map[string]any {
	shown := map[string]any{
		"id": user.ID, "email": user.Address(), "roles": user.Roles, "profile": user.Properties(),
		"email_verified": user.EmailVerified, "disabled": user.Disabled, "has_password": user.PasswordHash != "",
		"created_at": user.CreatedAt.UTC(), "updated_at": user.UpdatedAt.UTC(),
	}
	if name := user.Username(); name != "" {
		shown["username"] = name
	}
	if user.Roles == nil {
		shown["roles"] = []string{}
	}
	if user.Profile == nil {
		shown["profile"] = map[string]any{}
	}
	return shown
}

func state(user store.User) string {
	switch {
	case user.Disabled:
		return "disabled"
	case user.PasswordHash == "":
		return "no password"
	}
	return "active"
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func disconnectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disconnect <user> [flags]",
		Short: "Disconnects a user from other providers",
		Long: `
Disconnects a user from all identities at the providers of login_with: nobody can
log in to the account through a provider until an identity is connected again. The
sessions of the user continue; to end them, use caddy jwt user passwd.`,
		Example: `  caddy jwt user disconnect alice@example.com`,
		Args:    Takes(userArgument),
		RunE:    operates(false, disconnectUser),
	}
	AddYes(cmd)
	return cmd
}

func disconnectUser(o *operator) error {
	user, err := o.user()
	if err != nil {
		return err
	}
	if err := Confirm(o.cmd, "disconnect "+refusal.Visible(user.Email)+" from all other providers"); err != nil {
		return err
	}
	gone, err := accounts.RecoverAccount(o.ctx, o.store, user.ID, false, time.Now(), func() error { return nil })
	if err != nil {
		return err
	}
	o.say("disconnected from %d%s", len(gone), behindColon(gone))
	if user.PasswordHash == "" {
		fmt.Fprintf(
			o.cmd.ErrOrStderr(),
			"%s has no password, so nobody can log in to the account now; "+
				"create a link to set one with `caddy jwt user reset-link`\n",
			refusal.Visible(user.Email),
		)
	}
	return nil
}

// behindColon returns a list of identities to append to their number.
func behindColon(links []accounts.LinkedIdentity) string {
	if len(links) == 0 {
		return ""
	}
	return ": " + accounts.Listed(links)
}

func showUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show <user> [flags]",
		Short: "Shows a user and its sessions",
		Long: `
Shows a user and its sessions.`,
		Example: `  caddy jwt user show alice@example.com`,
		Args:    Takes(userArgument),
		RunE:    operates(false, showUser),
	}
	cmd.Flags().Bool("json", false, "Print a JSON object")
	return cmd
}

func showUser(o *operator) error {
	user, err := o.user()
	if err != nil {
		return err
	}
	sessions, err := o.store.Sessions(o.ctx, user.ID, time.Now())
	if err != nil {
		return err
	}
	if o.flags.Bool("json") {
		shown, list := shownUser(user), make([]map[string]any, len(sessions))
		for i, s := range sessions {
			list[i] = map[string]any{
				"id": s.ID, "client": s.UserAgent, "address": s.Address, "created_at": s.CreatedAt.UTC(),
				"used_at": s.UsedAt.UTC(), "expires_at": s.ExpiresAt.UTC(),
			}
		}
		shown["sessions"] = list
		return newJSONEncoder(o.cmd.OutOrStdout()).Encode(shown)
	}
	profile, err := json.Marshal(user.Properties())
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(o.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(
		table,
		"ID\t%s\nE-mail\t%s\nUsername\t%s\nVerified\t%s\nRoles\t%s\nState\t%s\nProfile\t%s\n"+
			"Created\t%s\nChanged\t%s\n\n",
		user.ID, refusal.Visible(user.Address()), refusal.Visible(user.Username()),
		map[bool]string{true: "yes", false: "no"}[user.EmailVerified],
		refusal.Visible(strings.Join(user.Roles, " ")), state(user),
		refusal.Visible(string(profile)), timeText(user.CreatedAt), timeText(user.UpdatedAt),
	)
	fmt.Fprintln(table, "SESSION\tSTARTED\tLAST USED\tENDS\tADDRESS\tCLIENT")
	for _, s := range sessions {
		fmt.Fprintf(
			table, "%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, timeText(s.CreatedAt), timeText(s.UsedAt),
			timeText(s.ExpiresAt), refusal.Visible(s.Address), refusal.Visible(s.UserAgent),
		)
	}
	return table.Flush()
}

func disableUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disable <user> [flags]",
		Short: "Disables a user",
		Long: `
Disables a user: the user can no longer log in, and its sessions end. Running servers
refuse its access tokens within a second.`,
		Example: `  caddy jwt user disable alice@example.com`,
		Args:    Takes(userArgument),
		RunE:    operates(false, disableUser),
	}
	AddYes(cmd)
	return cmd
}

func disableUser(o *operator) error {
	user, err := o.user()
	if err != nil {
		return err
	}
	if err := Confirm(o.cmd, "disable "+refusal.Visible(user.Email)+" and end its sessions"); err != nil {
		return err
	}
	user, err = o.change(func(u *store.User) { u.Disabled = true })
	if err != nil {
		return err
	}
	ended, err := o.endSessions(user)
	if err == nil {
		err = errors.Join(
			accounts.EndTrust(o.ctx, o.store, user.ID, time.Now()),
			accounts.DropMailedCodes(o.ctx, o.store, user, time.Now),
		)
	}
	if err != nil {
		return fmt.Errorf("the user is disabled, but ending its sessions failed: %w", err)
	}
	o.say("%s is disabled, sessions ended: %d", refusal.Visible(user.Email), ended)
	return nil
}

// change changes the user that the argument names.
func (o *operator) change(change func(*store.User)) (store.User, error) {
	user, err := o.user()
	if err != nil {
		return user, err
	}
	return o.changeByID(user.ID, change)
}

func (o *operator) changeByID(id string, change func(*store.User)) (store.User, error) {
	return o.store.UpdateUser(o.ctx, id, time.Now(), func(u *store.User) error {
		before := slices.Clone(u.Roles)
		change(u)
		if slices.Equal(before, u.Roles) {
			return nil
		}
		return store.CheckRoles(u.Roles)
	})
}

func (o *operator) endSessions(user store.User) (ended int, err error) {
	ids, err := o.store.EndSessions(o.ctx, user.ID, "", "", time.Now())
	return len(ids), err
}

func enableUserCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "enable <user>",
		Short:   "Enables a disabled user",
		Long:    "\nEnables a disabled user, who can then log in again.",
		Example: `  caddy jwt user enable alice@example.com`,
		Args:    Takes(userArgument),
		RunE:    operates(false, enableUser),
	}
}

func enableUser(o *operator) error {
	user, err := o.change(func(u *store.User) { u.Disabled = false })
	if err == nil {
		o.say("%s is enabled", refusal.Visible(user.Email))
	}
	return err
}

func deleteUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete <user> [flags]",
		Short: "Deletes a user and all its data",
		Long: `
Deletes a user and all its data, and ends its sessions. Running servers refuse its
access tokens within a second. After that, somebody else can sign up with the e-mail
address and the user name.`,
		Example: `  caddy jwt user delete --yes alice@example.com`,
		Args:    Takes(userArgument),
		RunE:    operates(false, deleteUser),
	}
	AddYes(cmd)
	return cmd
}

func deleteUser(o *operator) error {
	user, err := o.user()
	if err != nil {
		return err
	}
	if err := Confirm(o.cmd, fmt.Sprintf("delete %s, %s", refusal.Visible(user.Email), user.ID)); err != nil {
		return err
	}
	if err := o.store.DeleteUser(o.ctx, user.ID, time.Now()); err != nil {
		return err
	}
	o.say("%s is deleted", refusal.Visible(user.Email))
	return nil
}

func passwordCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "passwd <user>",
		Short: "Sets the password of a user",
		Long: `
Sets the password of a user, and removes what an intruder may have set up in the
account: its sessions, its reset links, its API keys and, unless --keep-identities is set, its
connected identities at other providers. A second factor stays; see caddy jwt user factors
reset. On a terminal, the command prompts for the
password; otherwise the password is the first line of standard input.`,
		Example: `  caddy jwt user passwd alice@example.com`,
		Args:    Takes(userArgument),
		RunE:    operates(false, setPassword),
	}
	addKeepIdentities(cmd)
	return cmd
}

func addKeepIdentities(cmd *cobra.Command) {
	cmd.Flags().Bool(
		"keep-identities", false, "Keep the identities at other providers that are connected to the account",
	)
}

func setPassword(o *operator) error {
	if _, err := o.user(); err != nil { // before somebody types a password
		return err
	}
	hash, err := o.newPassword()
	if err != nil {
		return err
	}
	user, err := o.change(func(u *store.User) { u.PasswordHash = hash })
	if err != nil {
		return err
	}
	keep, ended := o.flags.Bool("keep-identities"), 0
	revoked, err := o.countKeys(user)
	if err != nil {
		return err
	}
	err = errors.Join(
		accounts.RevokeKeys(o.ctx, o.store, user.ID, time.Now()),
		accounts.DropMailedCodes(o.ctx, o.store, user, time.Now),
	)
	if err != nil {
		return err
	}
	gone, err := accounts.RecoverAccount(o.ctx, o.store, user.ID, keep, time.Now(), func() error {
		more, err := o.endSessions(user)
		ended += more
		return err
	})
	if err != nil {
		return fmt.Errorf("the password is set, but ending the sessions or disconnecting the other providers failed; "+
			"run this again: %w", err)
	}
	o.say(
		"the password of %s is set, sessions ended: %d, API keys revoked: %d, disconnected from %d%s",
		refusal.Visible(user.Email), ended, revoked, len(gone), behindColon(gone),
	)
	if err := o.tell(user, (*accounts.Config).PasswordMail); err != nil {
		return fmt.Errorf("the password is set, but the mail about it is not queued: %w", err)
	}
	return errors.Join(o.sayKept(user), o.sayFactor(user))
}

// countKeys returns the number of the user's API keys.
func (o *operator) countKeys(user store.User) (count int, err error) {
	of, ok := o.store.(store.KeyStore)
	for after := ""; ok && err == nil; {
		var page []store.APIKey
		page, err = of.Keys(o.ctx, user.ID, after, keysPerPage)
		if count += len(page); len(page) < keysPerPage {
			break
		}
		after = page[len(page)-1].ID
	}
	return count, err
}

// sayKept prints the identities that can still log in to the account.
func (o *operator) sayKept(user store.User) error {
	kept, err := accounts.IdentitiesOf(o.ctx, o.store, user.ID, time.Now())
	if err == nil && len(kept) > 0 {
		fmt.Fprintf(o.cmd.ErrOrStderr(), "still connected: %d%s\n", len(kept), behindColon(kept))
	}
	return err
}

func rolesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "roles <user> [flags]",
		Short: "Prints or changes the roles of a user",
		Long: `
Changes the roles of a user as the flags say, then prints all roles, one per line. An
existing access token keeps its roles until it expires or is refreshed.`,
		Example: `  caddy jwt user roles alice@example.com
  caddy jwt user roles alice@example.com --add editor --remove author
  caddy jwt user roles alice@example.com --set admin,editor`,
		Args: Takes(userArgument),
		RunE: operates(false, changeRoles),
	}
	cmd.Flags().StringArray("add", nil, "A role to add; may be repeated")
	cmd.Flags().StringArray("remove", nil, "A role to remove; may be repeated")
	cmd.Flags().StringSlice("set", nil, "The new list of roles, separated by commas; empty to remove all roles")
	cmd.MarkFlagsMutuallyExclusive("set", "add")
	cmd.MarkFlagsMutuallyExclusive("set", "remove")
	return cmd
}

func changeRoles(o *operator) error {
	set, err := o.flags.GetStringSlice("set")
	if err != nil {
		return err
	}
	added, removed := slices.Concat(set, o.texts("add")), o.texts("remove")
	for _, role := range added {
		if slices.Contains(removed, role) {
			return fmt.Errorf("the role %s is both added and removed; do only one of them", role)
		}
	}
	user, err := o.user()
	missing := slices.DeleteFunc(slices.Clone(removed), func(role string) bool {
		return slices.Contains(user.Roles, role)
	})
	if err == nil && slices.ContainsFunc([]string{"add", "remove", "set"}, o.flags.Changed) {
		user, err = o.change(func(u *store.User) {
			if o.flags.Changed("set") {
				u.Roles = nil
			}
			u.Roles = slices.DeleteFunc(u.Roles, func(role string) bool { return slices.Contains(removed, role) })
			for _, role := range added {
				if !slices.Contains(u.Roles, role) {
					u.Roles = append(u.Roles, role)
				}
			}
		})
	}
	if err != nil {
		return err
	}
	for _, role := range missing {
		fmt.Fprintf(o.cmd.ErrOrStderr(), "%s does not have the role %s%s\n", refusal.Visible(user.Email),
			refusal.Quoted(role), config.Meant(role, user.Roles...))
	}
	for _, role := range user.Roles {
		o.say("%s", refusal.Visible(role))
	}
	return nil
}

func resetLinkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "reset-link <user> [flags]",
		Aliases: []string{"reset"},
		Short:   "Creates a link for setting a new password",
		Long: `
Prints a link with which a user can set a new password, once. Anybody who has the link
can use it, so send it only to that user.

Using the link removes what an intruder may have set up in the account: its sessions,
other reset links, API keys and, unless --keep-identities is set, its connected identities at
other providers, which the command lists. A second factor stays, and the user still needs it to
log in. If the user has lost it, or if somebody else has set it up, run caddy jwt user factors
reset as well.`,
		Example: `  caddy jwt user reset-link --base https://example.com alice@example.com
  caddy jwt user reset-link --config /etc/caddy/Caddyfile --lifetime 1d alice@example.com`,
		Args: Takes(userArgument),
		RunE: operates(false, makeResetLink),
	}
	cmd.Flags().String(
		"base", "", "URL of the site, as in https://example.com; by default as in mails of the accounts in --config",
	)
	cmd.Flags().String(
		"prefix", "", "Path of the account routes; by default the path in --config, or "+accounts.DefaultPrefix,
	)
	cmd.Flags().String("lifetime", "1h", "Time until the link expires")
	addKeepIdentities(cmd)
	return cmd
}

func makeResetLink(o *operator) error {
	lifetime, err := caddy.ParseDuration(o.flags.String("lifetime"))
	if err != nil || lifetime <= 0 {
		return fmt.Errorf("--lifetime %q: it must be a duration, as in 30m, 1h or 2d", o.flags.String("lifetime"))
	}
	link, err := o.resetPage()
	if err != nil {
		return err
	}
	user, err := o.user()
	if err != nil {
		return err
	}
	if user.Disabled {
		return fmt.Errorf("%s is disabled; run `caddy jwt user enable` first", refusal.Visible(user.Email))
	}
	purpose := accounts.PurposeReset
	if o.flags.Bool("keep-identities") {
		purpose = accounts.PurposeResetKeep
	}
	connected, err := accounts.IdentitiesOf(o.ctx, o.store, user.ID, time.Now())
	if err != nil {
		return err
	}
	keys, err := o.countKeys(user)
	if err != nil {
		return err
	}
	token := store.RandomToken(accounts.RefreshBytes)
	err = o.store.CreateOneTimeToken(o.ctx, store.OneTimeToken{
		Hash: store.HashToken(token), Purpose: purpose, UserID: user.ID, ExpiresAt: time.Now().Add(lifetime),
	})
	if err != nil {
		return err
	}
	switch {
	case len(connected) == 0:
	case purpose == accounts.PurposeResetKeep:
		fmt.Fprintf(
			o.cmd.ErrOrStderr(), "when the link is used, %d will stay connected%s\n",
			len(connected), behindColon(connected),
		)
	default:
		fmt.Fprintf(
			o.cmd.ErrOrStderr(),
			"when the link is used, %d will be disconnected%s; to keep them, set --keep-identities\n",
			len(connected), behindColon(connected),
		)
	}
	if keys > 0 {
		fmt.Fprintf(o.cmd.ErrOrStderr(), "when the link is used, API keys that are revoked: %d\n", keys)
	}
	link.RawQuery = url.Values{"token": {token}}.Encode()
	o.say("%s", link)
	return o.sayFactor(user)
}

// resetPage returns the URL of the page for setting a new password.
func (o *operator) resetPage() (*url.URL, error) {
	site, err := o.base()
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(site)
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" || base.User != nil ||
		base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf(
			"--base %q: it must be the URL of the site, as in https://example.com", site,
		)
	}
	config := accounts.Config{Prefix: o.flags.String("prefix")}
	if config.Prefix == "" {
		config.Prefix = o.sites[0].Prefix
		if slices.ContainsFunc(o.sites, func(other *accounts.Config) bool { return other.Prefix != config.Prefix }) {
			return nil, errors.New("the config has several accounts blocks for these users; " +
				"choose one with --prefix, the path after `accounts` in the Caddyfile, as in --prefix /auth")
		}
	}
	if err := accounts.CheckRoutePath(config.Prefix); err != nil {
		return nil, fmt.Errorf("--prefix: %w", err)
	}
	return base.JoinPath(config.Path("reset")), nil
}
