package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/cli"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func updateClientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "update [flags] <client>",
		Short: "Changes a client; its secret and its grants stay",
		Long: `
Changes the options of a client whose flags are given, and leaves the others as they
are. A flag that may be repeated replaces all values of before. Users stay logged in
at the client; they are asked for consent again if it may request more.`,
		Example: `  caddy jwt client update --redirect-uri https://wiki.example.com/new wiki
  caddy jwt client update --roles staff,admin wiki`,
		Args: cli.Takes("the ID of a client"),
		RunE: cli.OnStore(false, updateClient, changesSomething),
	}
	addClientFlags(cmd)
	return cmd
}

// changesSomething returns an error if no option of a client is given.
func changesSomething(cmd *cobra.Command, args []string) error {
	options, given := new(cobra.Command), false
	addClientFlags(options)
	options.Flags().VisitAll(func(option *pflag.Flag) { given = given || cmd.Flags().Changed(option.Name) })
	if !given {
		return fmt.Errorf("there is nothing to change; set an option, as in: client update --name Wiki %s", args[0])
	}
	return nil
}

func updateClient(ctx context.Context, cmd *cobra.Command, args []string, users store.UserStore) error {
	return changeClient(ctx, users, args[0], func(client *Client) error {
		authenticates := client.kind()
		client.set(cmd)
		if client.Public || client.PublicKey != "" {
			client.Secret = ""
		}
		if client.Secret == "" && client.kind() == "secret" {
			return fmt.Errorf("client %s authenticates by a %s key and has no secret; delete it and add it again",
				client.ID, authenticates)
		}
		if err := client.fitsConfig(cmd, false); err != nil {
			return err
		}
		_, err := client.asChecked()
		return err
	})
}

func rotateSecretCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate-secret [flags] <client>",
		Short: "Gives a client a new secret and prints it; the old one ends at once",
		Long: `
Gives a client a new secret, and prints it once. The old one is refused from then on,
so put the new one into the client at once. Users stay logged in.`,
		Example: "  caddy jwt client rotate-secret wiki",
		Args:    cli.Takes("the ID of a client"),
		RunE:    cli.OnStore(false, rotateSecret),
	}
}

func rotateSecret(ctx context.Context, cmd *cobra.Command, args []string, users store.UserStore) error {
	secret := store.RandomToken(32)
	err := changeClient(ctx, users, args[0], func(client *Client) error {
		if client.kind() != "secret" {
			return fmt.Errorf("client %s has no secret: it is public, or authenticates by a key", client.ID)
		}
		client.Secret = secretHash(secret)
		return nil
	})
	if err == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "The new secret of the client, which cannot be shown again:")
		fmt.Fprintln(cmd.OutOrStdout(), secret)
	}
	return err
}

// changeClient changes a client in the store.
func changeClient(ctx context.Context, users store.UserStore, id string, change func(*Client) error) error {
	_, err := users.UpdateRecord(ctx, kindClient, id, time.Now(), func(record *store.Record) error {
		var client Client
		if err := json.Unmarshal(record.Value, &client); err != nil {
			return fmt.Errorf("client %s is corrupt: %w", id, err)
		}
		if err := change(&client); err != nil {
			return err
		}
		text, err := json.Marshal(client)
		record.Value = text
		return err
	})
	return unknownClient(ctx, users, id, err)
}
