package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/spf13/cobra"
)

const keyArgument = "the ID of an API key, or the whole key"

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Manages API keys",
		Long: `
Manages the API keys of a site with the option api_keys, also while Caddy is running:
it notices every change within a second. The keys are stored in

    --store <path>   a file
    --config <file>  the store of the API keys in a Caddy config
    neither          the default file, which is also that of the accounts

The default file is in the data directory of the user who runs Caddy, and only that
user can read it. So run the command as that user, as in:
sudo -u caddy -H caddy jwt key list

Name a key by its ID, the part after the prefix, which is not secret.`,
		Example: `  caddy jwt key add --subject billing --scope films.read --rate 100/1m
  caddy jwt key list --config /etc/caddy/Caddyfile
  caddy jwt key roll --grace 24h 4fWq7GdC1xZp`,
	}
	AddStoreFlags(cmd)
	cmd.PersistentFlags().String("prefix", "", "Beginning of new keys; by default as in the config, otherwise key")
	cmd.AddCommand(addKeyCommand(), listAPIKeysCommand(), showKeyCommand(), rollKeyCommand(), revokeKeyCommand())
	complete(cmd, "<ID>", (*operator).chooseKeyStore, keyNames)
	return cmd
}

// onKeys is operates on the store of the API keys.
func onKeys(
	adds bool, operate func(*operator, apikeys.Keys) error, checks ...func(*operator) error,
) func(*cobra.Command, []string) error {
	return operatesOn((*operator).chooseKeyStore, adds, func(o *operator) error {
		keys, err := apikeys.In(o.store, o.keyPrefix, clock.Now)
		if err != nil {
			return err
		}
		return operate(o, keys)
	}, checks...)
}

// keySite is a place in a config where API keys are accepted.
type keySite struct {
	store  json.RawMessage
	prefix string
}

// chooseKeyStore finds the selected store, the prefix, and the config's storage.
func (o *operator) chooseKeyStore() (storage json.RawMessage, err error) {
	chosen := keySite{store: json.RawMessage(`{"module":"file"}`), prefix: apikeys.DefaultPrefix}
	path, prefix := o.flags.String("store"), o.flags.String("prefix")
	switch {
	case o.flags.String("config") == "" && path != "":
		chosen.store = caddyconfig.JSONModuleObject(&filestore.Store{Path: path}, "module", "file", nil)
	case o.flags.String("config") != "" && path != "":
		return nil, errors.New("--store and --config are both set; set only one of them")
	case o.flags.String("config") != "":
		config, err := loadConfig(o.flags)
		if err != nil {
			return nil, err
		}
		sites, err := config.keySites(prefix)
		if err != nil {
			return nil, err
		}
		if len(sites) == 0 {
			return nil, fmt.Errorf("%s has no api_keys with the prefix %s", config.file, prefix)
		}
		for _, site := range sites {
			if site.prefix != sites[0].prefix || !bytes.Equal(site.store, sites[0].store) {
				return nil, fmt.Errorf("%s has api_keys with different prefixes or stores; choose one with "+
					"--prefix <text>, or with --store <path> instead of --config", config.file)
			}
		}
		chosen, storage = sites[0], config.storage
	}
	if prefix != "" {
		chosen.prefix = prefix
	}
	o.keyPrefix = chosen.prefix
	o.sites = []*accounts.Config{{StoreRaw: chosen.store}}
	return storage, errors.Join(o.sites[0].Resolve(), apikeys.CheckPrefix(chosen.prefix))
}

// keySites returns the stores and prefixes of the API keys in the config, only those with the
// prefix unless that is empty.
func (c *siteConfig) keySites(prefix string) (sites []keySite, err error) {
	accepted := false
	for _, handler := range c.handlers("jwt") {
		var found struct {
			Credentials []struct {
				Module string          `json:"module"`
				Store  json.RawMessage `json:"store"`
				Prefix string          `json:"prefix"`
			} `json:"credentials"`
			Accounts *accounts.Config `json:"accounts"`
		}
		if err := json.Unmarshal(handler.text, &found); err != nil {
			return nil, fmt.Errorf("%s: %w", c.file, err)
		}
		for _, credential := range found.Credentials {
			if credential.Module != "api_keys" {
				continue
			}
			site := keySite{json.RawMessage(`{"module":"file"}`), credential.Prefix}
			accepted = true
			config.SetDefault(&site.prefix, apikeys.DefaultPrefix)
			err := config.Resolve("prefix", &site.prefix)
			if prefix != "" && (err != nil || site.prefix != prefix) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if found.Accounts != nil && found.Accounts.StoreRaw != nil {
				site.store = found.Accounts.StoreRaw
			}
			if credential.Store != nil {
				site.store = credential.Store
			}
			sites = append(sites, site)
		}
	}
	if !accepted {
		return nil, fmt.Errorf("%s accepts no API keys; add the option `api_keys` to its jwt block", c.file)
	}
	return sites, nil
}

// keyInput is a new key as flags or a line of --batch describe it.
type keyInput struct {
	Subject  string            `json:"subject"`
	Name     string            `json:"name"`
	Scope    []string          `json:"scope"`
	Roles    []string          `json:"roles"`
	Metadata map[string]string `json:"metadata"`
	Expires  string            `json:"expires"`
	Networks []string          `json:"networks"`
	Rate     string            `json:"rate"`
}

var keyMembers = []string{"subject", "name", "scope", "roles", "metadata", "expires", "networks", "rate"}

// key returns the new key, without its subject.
func (in keyInput) key(now time.Time) (*apikeys.Key, error) {
	key := &apikeys.Key{Name: in.Name, Scope: in.Scope, Roles: in.Roles, Metadata: in.Metadata}
	var err error
	if key.ExpiresAt, err = expiry(in.Expires, now); err != nil {
		return nil, err
	}
	for _, text := range in.Networks {
		network, err := apikeys.ParseNetwork(text)
		if err != nil {
			return nil, err
		}
		key.Networks = append(key.Networks, network)
	}
	if in.Rate != "" {
		if key.Rate, err = apikeys.ParseRate(in.Rate); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// expiry parses a time from now, such as 90d, or a date; zero for none.
func expiry(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if after, err := caddy.ParseDuration(text); err == nil && after > 0 {
		return now.Add(after).Truncate(time.Second), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf(
		"expires %s: it must be a time from now, such as 90d, or a date, as in 2030-12-31 or 2030-12-31T12:00:00Z",
		refusal.Quoted(text),
	)
}

func addKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add --subject <subject> [flags]",
		Short: "Makes an API key",
		Long: `
Makes an API key and prints it. It is not stored, so it cannot be printed again.

The subject is a user, by e-mail address or ID, or the name of a service. Scopes,
roles and metadata are the key's claims; a key has no roles of its user by itself.

With --batch, it reads descriptions of keys, one JSON object a line, and makes them if
all are valid, as in
{"subject":"billing","scope":["films.read"],"expires":"90d","rate":"100/1m"}
with the members subject, name, scope, roles, metadata, expires, networks and rate,
and prints each with its key as JSON.`,
		Example: `  caddy jwt key add --subject billing --scope films.read --expires 90d
  caddy jwt key add --subject alice@example.com --role admin --name laptop
  caddy jwt key add --subject ci --network 192.0.2.0/24 --rate 100/1m --metadata team=web
  caddy jwt key add --batch keys.jsonl > made.jsonl`,
		Args: cobra.NoArgs,
		RunE: onKeys(true, addKeys, func(o *operator) error {
			if o.flags.String("batch") != "" {
				if o.flags.String("subject") != "" {
					return errors.New("--batch and --subject are both set; set only one of them")
				}
				return nil
			}
			_, err := o.keyOfFlags()
			return err
		}),
	}
	AddCreate(cmd)
	cmd.Flags().String("subject", "", "The user, by e-mail address or ID, or the name of the service")
	cmd.Flags().String("name", "", "A name that tells the keys of a subject apart")
	cmd.Flags().StringArray("scope", nil, "A scope; may be repeated")
	cmd.Flags().StringArray("role", nil, "A role; may be repeated")
	cmd.Flags().StringArray("metadata", nil, "A further claim, as name=value; may be repeated")
	cmd.Flags().String("expires", "", "When it expires: a time from now, such as 90d, or a date; by default never")
	cmd.Flags().StringArray(
		"network", nil, "A network that may use it, as in 192.0.2.0/24; may be repeated; by default any",
	)
	cmd.Flags().String("rate", "", "Requests and a time within which they are allowed, as in 100/1m; by default any")
	cmd.Flags().String("batch", "", "File with descriptions of keys; - is standard input")
	cmd.Flags().Bool("json", false, "Print JSON")
	return cmd
}

// keyOfFlags returns the key that the flags describe, without its subject.
func (o *operator) keyOfFlags() (*apikeys.Key, error) {
	in := keyInput{
		Name: o.flags.String("name"), Scope: o.texts("scope"), Roles: o.texts("role"),
		Expires: o.flags.String("expires"), Networks: o.texts("network"), Rate: o.flags.String("rate"),
	}
	if o.flags.String("subject") == "" {
		return nil, fmt.Errorf("whose key is it? Set --subject to a user or to the name of a service, "+
			"as in: %s --subject billing", o.cmd.CommandPath())
	}
	for _, text := range o.texts("metadata") {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--metadata %s: it must be a name and a value, as in team=web", refusal.Quoted(text))
		}
		if in.Metadata == nil {
			in.Metadata = make(map[string]string)
		}
		in.Metadata[name] = value
	}
	return in.key(clock.Now())
}

func addKeys(o *operator, keys apikeys.Keys) error {
	if o.flags.String("batch") != "" {
		return o.addKeyBatch(keys)
	}
	key, err := o.keyOfFlags()
	if err == nil {
		err = key.SetSubject(o.ctx, o.store, o.flags.String("subject"))
	}
	if err != nil {
		return err
	}
	texts, err := keys.Make(o.ctx, key)
	if err != nil {
		return err
	}
	if o.flags.Bool("json") {
		return o.printJSON(key.View(texts[0]))
	}
	o.say("%s", texts[0])
	fmt.Fprintf(
		o.cmd.ErrOrStderr(), "This is the key with the ID %s. It is not stored, so it cannot be shown again.\n", key.ID,
	)
	return nil
}

func (o *operator) printJSON(value any) error {
	text, err := json.Marshal(value)
	if err == nil {
		o.say("%s", text)
	}
	return err
}

func listAPIKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [flags]",
		Short: "Lists API keys",
		Long: `
Lists the API keys that are not revoked, without their secrets. Expired ones are listed
for 30 days. The last use is stored within a minute.`,
		Example: `  caddy jwt key list
  caddy jwt key list --subject alice@example.com --json`,
		Args: cobra.NoArgs,
		RunE: onKeys(false, listAPIKeys),
	}
	cmd.Flags().String("subject", "", "Only the keys of a user or service")
	cmd.Flags().Bool("json", false, "Print JSON, one object a line")
	return cmd
}

const keysPerPage = 1000

func listAPIKeys(o *operator, keys apikeys.Keys) error {
	var of apikeys.Key
	if subject := o.flags.String("subject"); subject != "" {
		of.Subject = subject
		user, err := (&operator{ctx: o.ctx, store: o.store, args: []string{subject}}).user()
		if err == nil {
			of.Subject = user.ID
		} else if strings.Contains(subject, "@") {
			return err
		}
	}
	table := tabwriter.NewWriter(o.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	var corrupt []error
	names, shown := o.subjects(), [][]string{{
		"ID", "SUBJECT", "NAME", "SCOPE", "ROLES", "NETWORKS", "RATE", "EXPIRES", "LAST USE",
	}}
	for after := ""; ; {
		page, err := keys.List(o.ctx, of.Subject, after, keysPerPage)
		if errors.Is(err, apikeys.ErrCorrupt) { // the others are not
			corrupt = append(corrupt, err)
		} else if err != nil {
			return err
		}
		for i := range page {
			if o.flags.Bool("json") {
				if err := o.printJSON(viewOf(&page[i], names)); err != nil {
					return err
				}
				continue
			}
			shown = append(shown, keyRow(&page[i], names(&page[i]), time.Now()))
		}
		if len(page) < keysPerPage {
			break
		}
		after = page[len(page)-1].ID
	}
	printRows(table, shown, "NETWORKS", "RATE")
	if len(shown) == 1 && !o.flags.Bool("json") {
		fmt.Fprintln(o.cmd.ErrOrStderr(), "There are no API keys; make one with: caddy jwt key add --subject <subject>")
	}
	return errors.Join(append(corrupt, table.Flush())...)
}

// keyView is a key in JSON, with the address or the name of the user whose ID is the subject.
type keyView struct {
	apikeys.View
	User string `json:"user,omitempty"`
}

func viewOf(key *apikeys.Key, names func(*apikeys.Key) string) keyView {
	view := keyView{View: key.View("")}
	if name := names(key); name != key.Subject {
		view.User = name
	}
	return view
}

// subjects returns a function that returns the subject of a key as it is given to commands: the
// address or the name of a user, or the name of a service.
func (o *operator) subjects() func(*apikeys.Key) string {
	known := make(map[string]string)
	return func(key *apikeys.Key) string {
		if key.Owner == "" {
			return key.Subject
		}
		name, ok := known[key.Owner]
		if !ok {
			name = key.Subject
			if user, err := o.store.User(o.ctx, key.Owner); err == nil {
				name = user.Email
			}
			known[key.Owner] = name
		}
		return name
	}
}

// printRows prints rows below a head, if there are any, without those of the named columns that are
// empty in all rows.
func printRows(w io.Writer, rows [][]string, optional ...string) {
	if len(rows) == 1 {
		return
	}
	empty := func(column int) bool {
		return !slices.ContainsFunc(rows[1:], func(row []string) bool { return row[column] != "" })
	}
	var kept []int
	for column, name := range rows[0] {
		if !slices.Contains(optional, name) || !empty(column) {
			kept = append(kept, column)
		}
	}
	for _, row := range rows {
		cells := make([]string, len(kept))
		for i, column := range kept {
			cells[i] = row[column]
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
}

func keyRow(key *apikeys.Key, subject string, now time.Time) []string {
	expires, used := "never", "never"
	if !key.ExpiresAt.IsZero() {
		expires = key.ExpiresAt.Format(time.DateOnly)
		if !key.ExpiresAt.After(now) {
			expires += " (expired)"
		}
	}
	if !key.UsedAt.IsZero() {
		used = key.UsedAt.Format(time.DateTime)
	}
	rate := ""
	if key.Rate.Requests > 0 {
		rate = fmt.Sprint(key.Rate)
	}
	return []string{
		key.ID, refusal.Visible(subject), key.Name, strings.Join(key.Scope, " "), strings.Join(key.Roles, " "),
		strings.Trim(fmt.Sprint(key.Networks), "[]"), rate, expires, used,
	}
}

func showKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show <ID>",
		Short: "Shows an API key, without its secret",
		Long: `
Shows an API key, without its secret. It takes the ID or the whole key, such as
one that was found in a public place.`,
		Example: `  caddy jwt key show 4fWq7GdC1xZp`,
		Args:    Takes(keyArgument),
		RunE: onKeys(false, func(o *operator, keys apikeys.Keys) error {
			key, err := keys.Get(o.ctx, apikeys.IDIn(o.args[0]))
			if err != nil {
				return o.noSuchKey(keys, err)
			}
			view := viewOf(&key, o.subjects())
			if o.flags.Bool("json") {
				return o.printJSON(view)
			}
			return o.showKey(view)
		}),
	}
	cmd.Flags().Bool("json", false, "Print JSON")
	return cmd
}

func (o *operator) showKey(key keyView) error {
	table := tabwriter.NewWriter(o.cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	row := func(name string, value any) {
		if text := strings.Trim(fmt.Sprint(value), "[]"); text != "" && text != "0001-01-01 00:00:00 +0000 UTC" {
			fmt.Fprintf(table, "%s:\t%s\n", name, text)
		}
	}
	row("id", key.ID)
	row("subject", key.Subject)
	row("user", refusal.Visible(key.User))
	row("name", key.Name)
	row("scope", key.Scope)
	row("roles", key.Roles)
	for _, name := range slices.Sorted(maps.Keys(key.Metadata)) {
		row("metadata "+name, key.Metadata[name])
	}
	row("networks", key.Networks)
	if key.Rate.Requests > 0 {
		row("rate", key.Rate)
	}
	row("created", key.CreatedAt)
	row("expires", key.ExpiresAt)
	row("last use", key.UsedAt)
	row("old key until", key.PreviousUntil)
	return table.Flush()
}

// noSuchKey explains that there is no key as the argument says. It does not repeat a whole key.
func (o *operator) noSuchKey(keys apikeys.Keys, err error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	id := apikeys.IDIn(o.args[0])
	if strings.Contains(id, "_") { // perhaps a part of a key, with its secret
		return errors.New("this is neither the ID of an API key nor a whole key; `caddy jwt key list` lists all keys")
	}
	if of, _ := keys.List(o.ctx, id, "", 1); len(of) > 0 {
		return fmt.Errorf("%[1]s is the subject of API keys, and not the ID of one; "+
			"`caddy jwt key list --subject %[1]s` lists them with their IDs", refusal.Visible(id))
	}
	var known []string
	all, _ := keys.List(o.ctx, "", "", keysPerPage)
	for _, key := range all {
		known = append(known, key.ID)
	}
	return fmt.Errorf("there is no API key %s, or it was revoked; `caddy jwt key list` lists all keys%s",
		refusal.Quoted(id), config.Meant(id, known...))
}

func rollKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "roll <ID> [flags]",
		Short: "Gives an API key a new secret",
		Long: `
Gives an API key a new secret and prints the new key. The old one is accepted for the
grace period, and one from a roll before that no longer. Everything else stays.`,
		Example: `  caddy jwt key roll --grace 24h 4fWq7GdC1xZp`,
		Args:    Takes(keyArgument),
		RunE: onKeys(false, func(o *operator, keys apikeys.Keys) error {
			var grace time.Duration
			if text := o.flags.String("grace"); text != "" {
				var err error
				if grace, err = caddy.ParseDuration(text); err != nil {
					return fmt.Errorf("--grace %s: it must be a time such as 24h or 7d", refusal.Quoted(text))
				}
			}
			text, key, err := keys.Roll(o.ctx, apikeys.IDIn(o.args[0]), grace)
			if err != nil {
				return o.noSuchKey(keys, err)
			}
			if o.flags.Bool("json") {
				return o.printJSON(key.View(text))
			}
			o.say("%s", text)
			return nil
		}),
	}
	cmd.Flags().String(
		"grace", "", "How long the old key is still accepted, such as 24h; at most 90d, by default not at all",
	)
	cmd.Flags().Bool("json", false, "Print JSON")
	return cmd
}

func revokeKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke <ID> [flags]",
		Short: "Revokes an API key",
		Long: `
Revokes an API key. Running servers refuse it within a second. This cannot be undone. It
takes the ID or the whole key, such as one that was found in a public place.`,
		Example: `  caddy jwt key revoke 4fWq7GdC1xZp`,
		Args:    Takes(keyArgument),
		RunE: onKeys(false, func(o *operator, keys apikeys.Keys) error {
			id := apikeys.IDIn(o.args[0])
			key, err := keys.Get(o.ctx, id)
			if err != nil && !errors.Is(err, apikeys.ErrCorrupt) {
				return o.noSuchKey(keys, err)
			}
			if err := Confirm(o.cmd, "revoke the API key "+id+" of "+refusal.Visible(key.Subject)); err != nil {
				return err
			}
			if err := keys.Revoke(o.ctx, id); err != nil {
				return o.noSuchKey(keys, err)
			}
			o.say("API key %s was revoked", id)
			return nil
		}),
	}
	AddYes(cmd)
	return cmd
}
