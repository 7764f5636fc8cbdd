package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/cli"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

func init() {
	cli.Add(clientCommand)
}

func clientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Manages the clients of an OpenID Provider in the user store",
		Long: `
Manages the clients of an OpenID Provider in the user store; clients in the config
are not affected. Changes take effect at once. The store is chosen as for
caddy jwt user:

    --store <path>   a file
    --config <file>  the store of the accounts in a Caddy config
    neither          the default file of the accounts`,
		Example: `  caddy jwt client add --redirect-uri https://wiki.example.com/callback wiki
  caddy jwt client list`,
	}
	cli.AddStoreFlags(cmd)
	cmd.AddCommand(
		addClientCommand(), updateClientCommand(), rotateSecretCommand(),
		listClientsCommand(), showClientCommand(), deleteClientCommand(),
	)
	cli.Complete(cmd, "<client>", clientIDs)
	return cmd
}

// clientIDs returns the clients in the store.
func clientIDs(ctx context.Context, users store.UserStore) (ids []string, err error) {
	records, err := users.Records(ctx, kindClient, "", time.Now())
	for _, record := range records {
		ids = append(ids, record.ID)
	}
	return ids, err
}

func addClientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add [flags] <id>",
		Short: "Adds a client and prints its secret",
		Long: `
Adds a client. Unless the client is public or has a key, the command generates a
secret and prints it once; the store only keeps its hash.`,
		Example: `  caddy jwt client add --redirect-uri https://wiki.example.com/callback wiki
  caddy jwt client add --public --redirect-uri com.example.app:/callback app`,
		Args: cli.Takes("the ID of a client"),
		RunE: cli.OnStore(true, addClient, checkNewClient),
	}
	cli.AddCreate(cmd)
	addClientFlags(cmd)
	return cmd
}

// addClientFlags adds the flags for the options of a client.
func addClientFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Bool("public", false, "The client cannot keep a secret, and uses PKCE")
	flags.String("public-key", "", "Public key (PEM or JWK) of a client that authenticates with private_key_jwt")
	flags.String("name", "", "Name that users see; the ID by default")
	flags.StringArray("redirect-uri", nil, "URL that users are sent back to; may be repeated")
	flags.StringArray("post-logout-redirect-uri", nil, "URL that users can be sent to after a log-out; may be repeated")
	flags.StringSlice(
		"grant-types", nil, "Grant types, separated by commas; authorization_code and refresh_token by default",
	)
	flags.StringArray("response-type", nil, "Response type; may be repeated; code by default")
	flags.StringSlice(
		"scopes", nil, "Scopes, separated by commas; openid, profile, email and offline_access by default",
	)
	flags.String("consent", "", "When the user is asked for consent: always, once or never; once by default")
	flags.String("backchannel-logout-uri", "", "URL that is notified when a session ends")
	flags.Bool("introspect", false, "The client is an API that may introspect the access tokens of all clients")
	flags.Duration("access-token-lifetime", 0, "Lifetime of access tokens; 15m by default")
	flags.Duration("refresh-token-lifetime", 0, "Maximum time that a user stays logged in there; 720h by default")
	flags.Duration("id-token-lifetime", 0, "Lifetime of ID tokens; 1h by default")
	flags.StringSlice("roles", nil, "Roles, separated by commas, of which a user must have one; none by default")
	flags.Bool("id-token-claims", false, "Claims of the granted scopes are in the ID token, too")
	flags.StringToString("rename-claim", nil, "A claim that the client gets by another name, as groups=roles")
	flags.Bool("undotted-scheme", false, "Redirect URIs may have an app's own scheme without a dot")
}

func addClient(ctx context.Context, cmd *cobra.Command, args []string, users store.UserStore) error {
	client := clientOf(cmd, args[0])
	if err := client.fitsConfig(cmd, true); err != nil {
		return err
	}
	secret := ""
	if !client.Public && client.PublicKey == "" {
		secret = store.RandomToken(32)
		client.Secret = secretHash(secret)
	}
	checked, err := client.asChecked()
	if err != nil {
		return err
	}
	text, err := json.Marshal(client)
	if err != nil {
		return err
	}
	err = users.CreateRecord(ctx, store.Record{Kind: kindClient, ID: client.ID, Value: text})
	if errors.Is(err, store.ErrRecordExists) {
		return fmt.Errorf("the client %s already exists; delete it first, or choose another ID", client.ID)
	}
	if uri := checked.asksAllTheSame(); err == nil && uri != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "Users are asked for consent in spite of --consent never, "+
			"because any program on their machine can intercept %s.\n", uri)
	}
	if err == nil && secret != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "The secret of the client, which cannot be shown again:")
		fmt.Fprintln(cmd.OutOrStdout(), secret)
	}
	return err
}

// clientOf returns the client of the flags, without a secret.
func clientOf(cmd *cobra.Command, id string) Client {
	client := Client{ID: id, Since: time.Now().UTC().Format(time.RFC3339Nano)}
	client.set(cmd)
	return client
}

// set sets the options whose flags are given.
func (c *Client) set(cmd *cobra.Command) {
	flags := cmd.Flags()
	for name, into := range map[string]*bool{
		"public": &c.Public, "introspect": &c.Introspect, "id-token-claims": &c.IDTokenClaims,
		"undotted-scheme": &c.UndottedScheme,
	} {
		if flags.Changed(name) {
			*into, _ = flags.GetBool(name)
		}
	}
	for name, into := range map[string]*string{
		"public-key": &c.PublicKey, "name": &c.Name, "consent": &c.Consent,
		"backchannel-logout-uri": &c.BackchannelLogoutURI,
	} {
		if flags.Changed(name) {
			*into, _ = flags.GetString(name)
		}
	}
	for name, into := range map[string]*[]string{
		"redirect-uri": &c.RedirectURIs, "post-logout-redirect-uri": &c.PostLogoutRedirectURIs,
		"response-type": &c.ResponseTypes,
	} {
		if flags.Changed(name) {
			*into, _ = flags.GetStringArray(name)
		}
	}
	for name, into := range map[string]*[]string{
		"grant-types": &c.GrantTypes, "scopes": &c.Scopes, "roles": &c.Roles,
	} {
		if flags.Changed(name) {
			*into, _ = flags.GetStringSlice(name)
		}
	}
	if flags.Changed("rename-claim") {
		c.RenameClaims, _ = flags.GetStringToString("rename-claim")
	}
	for name, into := range map[string]*caddy.Duration{
		"access-token-lifetime":  &c.AccessTokenLifetime,
		"refresh-token-lifetime": &c.RefreshTokenLifetime, "id-token-lifetime": &c.IDTokenLifetime,
	} {
		if flags.Changed(name) {
			lifetime, _ := flags.GetDuration(name)
			*into = caddy.Duration(lifetime)
		}
	}
}

// asChecked returns a copy with defaults, or why the client is not valid.
func (c Client) asChecked() (Client, error) {
	checked := c
	checked.GrantTypes, checked.ResponseTypes, checked.Scopes = slices.Clone(c.GrantTypes),
		slices.Clone(c.ResponseTypes), slices.Clone(c.Scopes)
	if err := checked.resolve(&Provider{Issuer: "https://issuer.invalid"}); err != nil {
		return checked, fmt.Errorf("client %s: %w", c.ID, err)
	}
	return checked, nil
}

// checkNewClient checks the flags of `add`, before a store is created.
func checkNewClient(cmd *cobra.Command, args []string) error {
	client := clientOf(cmd, args[0])
	if !client.Public && client.PublicKey == "" {
		client.Secret = secretHash(store.RandomToken(32))
	}
	_, err := client.asChecked()
	return err
}

// fitsConfig returns an error if a provider in the config would refuse the client. A new one must not
// have the ID of a client in the config either, because servers use that one.
func (c Client) fitsConfig(cmd *cobra.Command, isNew bool) error {
	providers, err := cli.HandlersOf(cmd, "oidc_provider")
	for _, text := range providers {
		var provider Provider
		if err := json.Unmarshal(text, &provider); err != nil {
			return err
		}
		if isNew && slices.ContainsFunc(provider.Clients, func(in *Client) bool { return in != nil && in.ID == c.ID }) {
			return fmt.Errorf(
				"the config already has a client %s, of issuer %s; change it there, or choose another ID",
				c.ID, provider.Issuer,
			)
		}
		for name, claim := range c.RenameClaims {
			if err := provider.checkRenamed(name, claim); err != nil {
				return fmt.Errorf("issuer %s: %w", provider.Issuer, err)
			}
		}
	}
	return err
}

func listClientsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list [flags]",
		Short: "Lists the clients in the store",
		Long: `
Lists the clients in the store, as a table or, with --json, as one JSON object per line.`,
		Example: `  caddy jwt client list --config /etc/caddy/Caddyfile
  caddy jwt client list --json | jq -r .id`,
		Args: cobra.NoArgs,
		RunE: cli.OnStore(false, listClients),
	}
	cmd.Flags().Bool("json", false, "Print one JSON object per line, without secrets")
	return cmd
}

func listClients(ctx context.Context, cmd *cobra.Command, _ []string, users store.UserStore) error {
	asJSON, _ := cmd.Flags().GetBool("json")
	records, err := users.Records(ctx, kindClient, "", time.Now())
	if err != nil {
		return err
	}
	clients := make([]Client, len(records))
	for i, record := range records {
		if err := json.Unmarshal(record.Value, &clients[i]); err != nil {
			return fmt.Errorf("client %s is corrupt: %w", record.ID, err)
		}
		clients[i].Secret = ""
	}
	if asJSON {
		lines := json.NewEncoder(cmd.OutOrStdout())
		lines.SetEscapeHTML(false)
		for _, client := range clients {
			if err := lines.Encode(client); err != nil {
				return err
			}
		}
		return nil
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tKIND\tREDIRECT URIS")
	for _, client := range clients {
		fmt.Fprintf(table, "%s\t%s\t%s\n", client.ID, client.kind(), strings.Join(client.RedirectURIs, " "))
	}
	return table.Flush()
}

func (c *Client) kind() string {
	switch {
	case c.Public:
		return "public"
	case c.PublicKey != "":
		return "key"
	}
	return "secret"
}

func showClientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show [flags] <client>",
		Short:   "Shows a client as JSON, without its secret",
		Example: "  caddy jwt client show wiki",
		Args:    cli.Takes("the ID of a client"),
		RunE: cli.OnStore(
			false, func(ctx context.Context, cmd *cobra.Command, args []string, store store.UserStore) error {
				record, err := store.Record(ctx, kindClient, args[0], time.Now())
				if err != nil {
					return unknownClient(ctx, store, args[0], err)
				}
				var client Client
				if err := json.Unmarshal(record.Value, &client); err != nil {
					return fmt.Errorf("client %s is corrupt: %w", record.ID, err)
				}
				client.Secret = ""
				text, err := json.MarshalIndent(client, "", "  ")
				if err == nil {
					_, err = io.WriteString(cmd.OutOrStdout(), string(text)+"\n")
				}
				return err
			},
		),
	}
	cmd.Flags().Bool("json", false, "Print JSON, which the command always does")
	return cmd
}

func deleteClientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "delete [flags] <client>",
		Short:   "Deletes a client; users can no longer log in to it",
		Example: "  caddy jwt client delete wiki",
		Args:    cli.Takes("the ID of a client"),
		RunE: cli.OnStore(
			false, func(ctx context.Context, cmd *cobra.Command, args []string, store store.UserStore) error {
				if _, err := store.Record(ctx, kindClient, args[0], time.Now()); err != nil {
					return unknownClient(ctx, store, args[0], err)
				}
				if err := cli.Confirm(cmd, "delete the client "+args[0]+" and all that was granted to it"); err != nil {
					return err
				}
				if _, err := store.TakeRecord(ctx, kindClient, args[0], time.Now()); err != nil {
					return unknownClient(ctx, store, args[0], err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "client %s is deleted\n", args[0])
				return nil
			},
		),
	}
	cli.AddYes(cmd)
	return cmd
}

// unknownClient explains that there is no such client. Other errors it returns as they are.
func unknownClient(ctx context.Context, users store.UserStore, id string, err error) error {
	if !errors.Is(err, errNotFound) {
		return err
	}
	known, _ := clientIDs(ctx, users)
	return fmt.Errorf("there is no client %q in the store; `caddy jwt client list` lists all; "+
		"clients in the config are not in the store%s", id, config.Meant(id, known...))
}
