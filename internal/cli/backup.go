package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/spf13/cobra"
)

// whatElse is what a backup of the store does not have.
const whatElse = "Also back up the folder jwt of Caddy's storage: it has the signing keys, and the key that encrypts " +
	"the secrets of authenticator apps."

func backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup <file> [flags]",
		Short: "Writes a backup of a store into a new file",
		Long: `
Writes everything in a store into a new file, which only its owner can read, and checks
the file. Caddy may run meanwhile: the backup of a file is a snapshot of one moment. A
database is copied table by table, as by caddy jwt store copy, so stop Caddy on all nodes
for that, or use the database's own program.

The backup has password hashes: keep it as secret as a password. It does not have the
signing keys, nor the key that encrypts the secrets of authenticator apps, which are in
the folder jwt of Caddy's storage.`,
		Example: `  caddy jwt store backup /var/backups/caddy/monday.db
  caddy jwt store backup --config /etc/caddy/Caddyfile monday.db`,
		Args: Takes("the path of a new file"),
		RunE: operates(false, backUp, func(o *operator) error {
			if _, err := os.Lstat(o.args[0]); err == nil {
				return fmt.Errorf("%s already exists; a backup needs a name of its own", o.args[0])
			}
			_, err := os.Stat(filepath.Dir(o.args[0]))
			return err
		}),
	}
	AddStoreFlags(cmd)
	return cmd
}

func backUp(o *operator) error {
	interrupted, stop := signal.NotifyContext(o.ctx, os.Interrupt)
	defer stop()
	file, ok := o.store.(*filestore.Store)
	if !ok {
		return o.copyToFile(interrupted)
	}
	progress := &copyProgress{out: o.cmd.ErrOrStderr(), shows: terminalOf(o.cmd.ErrOrStderr()) != nil}
	users, err := file.Backup(interrupted, o.args[0], progress.size)
	progress.end()
	if err == nil {
		o.say("%s is complete; users: %d", o.args[0], users)
		fmt.Fprintln(o.cmd.ErrOrStderr(), whatElse)
	}
	return err
}

// copyToFile makes a backup of a store that is no file.
func (o *operator) copyToFile(ctx context.Context) error {
	from, ok := o.store.(interface{ SQL() *sqlstore.Store })
	if !ok {
		return fmt.Errorf("%T cannot be copied", o.store)
	}
	raw := caddyconfig.JSONModuleObject(&filestore.Store{Path: o.args[0]}, "module", "file", nil)
	to, _, err := openStore(o.ctx, raw, true)
	if err != nil {
		return err
	}
	name := store.HashToken(string(o.sites[0].StoreRaw))
	if err = runCopy(ctx, o.cmd, &sqlstore.Copy{From: from.SQL(), To: to, Source: name}); err == nil {
		fmt.Fprintln(o.cmd.ErrOrStderr(), whatElse)
	}
	return err
}

func restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore <file> [flags]",
		Short: "Replaces what is in a store by a backup",
		Long: `
Replaces everything in a store by a backup of caddy jwt store backup. Caddy may run
meanwhile, and need not be reloaded: it sees either all of it or nothing.

Users, passwords, roles, second factors and clients are then those of the backup. If the
store has users, what ended since the backup stays ended: sessions, links, grants,
signing keys that were withdrawn, and API keys that were revoked or whose user was
deleted. Who was shut out otherwise, such as by user disable or passwd, must be so
again. Sessions that began since end at once.

It restores files. For a database, stop Caddy, and use caddy jwt store copy into an empty
one. A file that is damaged cannot be opened: stop Caddy, and put the backup in its place.`,
		Example: `  caddy jwt store restore monday.db --config /etc/caddy/Caddyfile`,
		Args:    Takes("the path of a backup"),
		RunE: operates(true, restore, func(o *operator) error {
			_, err := filestore.CheckBackup(o.cmd.Context(), o.args[0])
			return err
		}),
	}
	AddStoreFlags(cmd)
	AddCreate(cmd)
	AddYes(cmd)
	return cmd
}

func restore(o *operator) error {
	file, ok := o.store.(*filestore.Store)
	if !ok {
		return errors.New("a backup is restored into a file; for a database, stop Caddy and copy it into an empty " +
			"one: caddy jwt store copy <file> 'postgres {env.ACCOUNTS_DSN}'")
	}
	if there, err := o.store.Users(o.ctx, "", 1); err != nil {
		return err
	} else if len(there) > 0 {
		err := Confirm(o.cmd, "replace all users of the store, and what belongs to them, by those of "+o.args[0])
		if err != nil {
			return err
		}
	}
	users, err := file.Restore(o.ctx, o.args[0], time.Now())
	if err != nil {
		return err
	}
	o.say("%s is restored; users: %d", o.args[0], users)
	fmt.Fprintln(
		o.cmd.ErrOrStderr(), "Caddy need not be reloaded. If Caddy's storage was lost too, restore its folder jwt, "+
			"and restart Caddy.",
	)
	return nil
}
