package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/spf13/cobra"
)

func storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "store",
		Short:   "Manages user stores",
		Long:    "\nManages user stores.",
		Example: `  caddy jwt store copy users.db 'postgres {env.ACCOUNTS_DSN}'`,
	}
	cmd.AddCommand(copyStoreCommand(), backupCommand(), restoreCommand(), schemaCommand())
	return cmd
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema [postgres|file]",
		Short: "Prints the SQL that makes the tables of a store",
		Long: `
Prints the SQL that makes the tables of a store in an empty database, for a database in
which Caddy may not make them. It is the same for all kinds of stores. Caddy usually
makes and upgrades the tables itself; then there is nothing to do.`,
		Example:   `  caddy jwt store schema postgres | psql "$ACCOUNTS_DSN"`,
		ValidArgs: []string{"postgres", "file"},
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), sqlstore.Schema())
			return err
		}),
	}
}

func copyStoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "copy <from> <to>",
		Short: "Copies all users, sessions, API keys and clients into an empty store",
		Long: `
Copies everything in a store into an empty store: users with their passwords,
sessions, revocations, API keys, and the OpenID Provider's clients, grants and consents.
Then it reads both stores completely and compares their row counts and checksums. If the
copy is interrupted, run the command again to resume it.

Name a store as after the option store in a Caddyfile, or by the path of its file:

    users.db
    'file /var/lib/caddy/jwt/users.db'
    'postgres {env.ACCOUNTS_DSN}'

Other users of the machine can see arguments, so put a password into an environment
variable. Stop Caddy first: changes made during the copy may be missing from it, and
are then reported as a difference. Signing keys are in Caddy's storage and are not
copied.`,
		Example: `  caddy jwt store copy users.db 'postgres {env.ACCOUNTS_DSN}'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%s takes two stores, as in: caddy jwt store copy users.db 'postgres "+
					"{env.ACCOUNTS_DSN}'; put each store in quotes", cmd.CommandPath())
			}
			return nil
		},
		RunE: runs(copyStores),
	}
}

func copyStores(cmd *cobra.Command, args []string) error {
	ctx, cancel, err := openContext(nil)
	if err != nil {
		return err
	}
	defer cancel() // closes the stores
	interrupted, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	var stores [2]*sqlstore.Store
	var names [2]string
	for i, text := range args {
		if stores[i], names[i], err = openNamedStore(ctx, text, i == 1); err != nil {
			return fmt.Errorf("the store to copy %s: %w", []string{"from", "to"}[i], err)
		}
	}
	if names[0] == names[1] {
		return errors.New("the two stores are the same")
	}
	return runCopy(interrupted, cmd, &sqlstore.Copy{From: stores[0], To: stores[1], Source: names[0]})
}

// runCopy runs a copy and prints what was copied.
func runCopy(interrupted context.Context, cmd *cobra.Command, copied *sqlstore.Copy) error {
	progress := &copyProgress{out: cmd.ErrOrStderr(), shows: terminalOf(cmd.ErrOrStderr()) != nil}
	copied.Progress = progress.report
	sums, err := copied.Run(interrupted)
	progress.end()
	switch {
	case interrupted.Err() != nil:
		return errors.New("interrupted; run the command again to resume")
	case errors.Is(err, sqlstore.ErrCopyDiffers):
		return fmt.Errorf("%w; was Caddy running during the copy? Stop it and run this again, which copies every row "+
			"again; if rows were deleted from the source in the meantime, copy to a new, empty store instead", err)
	case err != nil && !sqlstore.Resumes(err):
		return fmt.Errorf("the store to copy to, %s: %w", copied.To.Place, err)
	case err != nil:
		return fmt.Errorf("%w; the rows copied so far are kept; run the command again to resume", err)
	}
	for _, sum := range sums {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, the same in both\n", sum.Table, sqlstore.Rows(sum.Rows))
	}
	return nil
}

// openNamedStore opens a store that is named as after the option store in a Caddyfile, or
// by the path of its file. It also returns the hash of its name.
func openNamedStore(ctx caddy.Context, text string, create bool) (users *sqlstore.Store, name string, err error) {
	raw, err := namedStore(text)
	if err != nil {
		return nil, "", err
	}
	return openStore(ctx, raw, create)
}

// openStore opens a store for a copy. It also returns the hash of its name.
func openStore(ctx caddy.Context, raw json.RawMessage, create bool) (users *sqlstore.Store, name string, err error) {
	if err := filestore.CheckExists(raw); err != nil && !(create && errors.Is(err, filestore.ErrNoStore)) {
		return nil, "", err
	}
	path, err := filestore.Path(raw)
	if err != nil {
		return nil, "", err
	}
	if name = store.HashToken(path); path == "" {
		name = store.HashToken(string(raw))
	}
	ctx.Context = sqlstore.ForCopy(ctx.Context)
	config := &accounts.Config{StoreRaw: raw}
	module, err := accounts.LoadStore(ctx, config)
	if err != nil {
		return nil, "", err
	}
	of, ok := module.(interface{ SQL() *sqlstore.Store })
	if !ok {
		return nil, "", fmt.Errorf("%T cannot be copied", module)
	}
	_, _, err = of.SQL().Connect(ctx)
	return of.SQL(), name, err
}

func namedStore(text string) (json.RawMessage, error) {
	words, err := caddyfile.Tokenize([]byte(text), "the argument")
	if err != nil || len(words) == 0 {
		return nil, errors.New("it must be the path of a file, or what follows the option store in a Caddyfile, " +
			"as in: 'postgres {env.ACCOUNTS_DSN}'")
	}
	if scheme, _, isURL := strings.Cut(text, "://"); isURL && len(words) == 1 {
		words = append(words, words[0])
		words[0].Text = scheme
		if scheme == "postgresql" { // PostgreSQL has two names for it
			words[0].Text = "postgres"
		}
	} else if _, err := caddy.GetModule("jwt.stores." + words[0].Text); len(words) == 1 && err != nil ||
		strings.ContainsAny(words[0].Text, `/\.`) {
		return caddyconfig.JSONModuleObject(&filestore.Store{Path: text}, "module", "file", nil), nil
	}
	if err := config.CheckModule("jwt.stores", words[0].Text); err != nil {
		return nil, err
	}
	d := caddyfile.NewDispenser(words)
	d.Next() // on the kind, as UnmarshalModule wants it
	module, err := caddyfile.UnmarshalModule(d, "jwt.stores."+words[0].Text)
	if err != nil {
		return nil, err
	}
	return caddyconfig.JSONModuleObject(module, "module", words[0].Text, nil), nil
}

// copyProgress shows the progress of a copy: continuously on a terminal, otherwise
// occasionally.
type copyProgress struct {
	out   io.Writer
	shows bool // on a terminal
	last  time.Time
	line  string
}

// size reports how much is written.
func (p *copyProgress) size(bytes int64) {
	if p.shows {
		p.end()
		p.line = fmt.Sprintf("%d MiB", bytes>>20)
		fmt.Fprint(p.out, p.line)
	}
}

const quietProgressInterval = 10 * time.Second

func (p *copyProgress) report(doing, table string, rows, all int64) {
	line := fmt.Sprintf("%s %s: %d of %d", doing, table, rows, all)
	interval := quietProgressInterval
	if p.shows {
		interval = progressInterval
	}
	if rows < all && time.Since(p.last) < interval {
		return
	}
	p.last = time.Now()
	p.end()
	if fmt.Fprint(p.out, line); !p.shows {
		fmt.Fprintln(p.out)
	}
	p.line = line
}

// end clears the line of the terminal.
func (p *copyProgress) end() {
	if p.shows && p.line != "" {
		fmt.Fprintf(p.out, "\r%*s\r", len(p.line), "")
	}
}
