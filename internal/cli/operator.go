package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddy-jwt/caddy-jwt/store/filestore"
	"github.com/caddy-jwt/caddy-jwt/store/sqlstore"
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// AddStoreFlags adds the flags that select the accounts.
func AddStoreFlags(cmd *cobra.Command) {
	cmd.PersistentFlags().String("store", "", "Path of the file with the users")
	addConfigFlags(cmd, "Caddy config with the accounts")
}

// OnStore converts a function that works on the store selected by the flags of
// AddStoreFlags to the function of a command. If adds is set, it has the flag of AddCreate. The
// checks of the arguments are done before a file is created.
func OnStore(
	adds bool,
	run func(ctx context.Context, cmd *cobra.Command, args []string, store store.UserStore) error,
	checks ...func(cmd *cobra.Command, args []string) error,
) func(*cobra.Command, []string) error {
	return operates(
		adds, func(o *operator) error { return run(o.ctx, o.cmd, o.args, o.store) },
		func(o *operator) error {
			for _, check := range checks {
				if err := check(o.cmd, o.args); err != nil {
					return err
				}
			}
			return nil
		},
	)
}

// operator runs one command on the users.
type operator struct {
	ctx   caddy.Context
	cmd   *cobra.Command
	args  []string
	flags caddycmd.Flags
	sites []*accounts.Config // all with the same store
	store store.UserStore

	keyPrefix string // of the API keys
}

// AddCreate adds the flag --create to a command that adds something to the store.
func AddCreate(cmd *cobra.Command) {
	cmd.Flags().Bool("create", false, "Create the file of the store if it does not exist")
}

// operates converts a function that needs the store to the function of a command. If the
// store is a missing file, a command that adds something creates it if --create is set. The
// checks are done before that.
func operates(
	adds bool, operate func(*operator) error, checks ...func(*operator) error,
) func(*cobra.Command, []string) error {
	return operatesOn((*operator).chooseSites, adds, operate, checks...)
}

// operatesOn is operates on the store that choose finds.
func operatesOn(
	choose func(*operator) (json.RawMessage, error), adds bool, operate func(*operator) error,
	checks ...func(*operator) error,
) func(*cobra.Command, []string) error {
	return runs(onStoreOf(choose, adds, operate, checks...))
}

// onStoreOf is operatesOn without the report of an error.
func onStoreOf(
	choose func(*operator) (json.RawMessage, error), adds bool, operate func(*operator) error,
	checks ...func(*operator) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		o := &operator{cmd: cmd, args: args, flags: flagsOf(cmd)}
		for _, check := range checks {
			if err := check(o); err != nil {
				return err
			}
		}
		storage, err := choose(o)
		if err == nil {
			err = filestore.CheckExists(o.sites[0].StoreRaw)
		}
		if adds && errors.Is(err, filestore.ErrNoStore) && o.flags.Bool("create") {
			if err := o.checkDefaultStore(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%v, so it is created now; "+
				"its owner is the owner of its folder, which must be the user who runs Caddy\n", err)
			err = nil
		}
		if errors.Is(err, filestore.ErrNoStore) {
			return fmt.Errorf("%w; choose another store with --store <path> or --config <file>, "+
				"or run this as the user who runs Caddy; Caddy creates its store when it starts, and `%s "+
				"--create` before that", err, o.creator())
		}
		if err != nil {
			return err
		}
		ctx, cancel, err := openContext(storage)
		if err != nil {
			return err
		}
		defer cancel() // closes the store
		o.ctx = ctx
		if path, err := filestore.Path(o.sites[0].StoreRaw); err == nil && path != "" {
			defer printWarnings(cmd.ErrOrStderr(), path, owner.ReaderWarnings(path))
		}
		chosen := *o.sites[0] // a copy, because LoadStore clears the module's config
		if o.store, err = accounts.LoadStore(ctx, &chosen); err != nil {
			return fmt.Errorf("user store: %w", err)
		}
		if err := sqlstore.CheckWhole(ctx, o.store); err != nil {
			return fmt.Errorf("user store: %w", err)
		}
		return operate(o)
	}
}

// printWarnings prints warnings about the file of a store, if the store was opened: it is private
// then. Another file, which --store named by mistake, stays as it is.
func printWarnings(to io.Writer, path string, warnings []string) {
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
		return
	}
	for _, warning := range warnings {
		fmt.Fprintln(to, warning)
	}
}

// checkDefaultStore returns an error if root is about to create the default store in root's home, and
// Caddy probably runs as another user, who would never read it. In a container XDG_DATA_HOME is set.
func (o *operator) checkDefaultStore() error {
	var file filestore.Store
	if err := json.Unmarshal(o.sites[0].StoreRaw, &file); err != nil || file.Path != "" {
		return err
	}
	service := owner.Service()
	if service == "" || os.Getenv("XDG_DATA_HOME") != "" {
		return nil
	}
	path, err := filestore.Path(o.sites[0].StoreRaw)
	if err != nil {
		return err
	}
	line := o.cmd.CommandPath() + chosen(o.cmd) + " --create"
	for _, arg := range o.args {
		line += " " + filestore.ShellWord(arg)
	}
	return fmt.Errorf("this would create a store for root, %s, which Caddy does not read if it runs as the user %s; "+
		"instead run: sudo -u %s -H %s; or, if Caddy runs as root, with --store %s", path, service, service, line, path)
}

// creator returns a command that creates the store: this one, or the one of its group that adds.
func (o *operator) creator() string {
	add := o.cmd
	if add.Flags().Lookup("create") == nil && add.HasParent() {
		for _, beside := range add.Parent().Commands() {
			if beside.Name() == "add" {
				add = beside
			}
		}
	}
	if add.Flags().Lookup("create") == nil {
		return "caddy jwt user add"
	}
	return add.CommandPath()
}

// chosen returns the flags that select the store, as they were given, to append to a command.
func chosen(cmd *cobra.Command) (flags string) {
	for _, name := range []string{"config", "adapter", "store"} {
		if flag := cmd.Flags().Lookup(name); flag != nil && flag.Changed {
			flags += " --" + name + " " + filestore.ShellWord(flag.Value.String())
		}
	}
	return flags
}

// Takes checks that a command has one argument.
func Takes(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("%s takes %s, but no argument is given", cmd.CommandPath(), what)
		case 1:
			return nil
		}
		return fmt.Errorf("%s takes %s, but %d arguments are given", cmd.CommandPath(), what, len(args))
	}
}

const userArgument = "the e-mail address, the user name or the ID of a user"

// terminalOf returns the terminal that a command reads from or writes to, or nil.
func terminalOf(stream any) *os.File {
	if file, ok := stream.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return file
	}
	return nil
}

// readHidden reads a line without echo. If it is interrupted, it restores the echo.
func readHidden(terminal *os.File, prompt io.Writer, question string) (string, error) {
	shown, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		return "", err
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer close(interrupts)
	defer signal.Stop(interrupts)
	go func() {
		if _, interrupted := <-interrupts; interrupted {
			_ = term.Restore(int(terminal.Fd()), shown)
			os.Exit(caddy.ExitCodeForceQuit)
		}
	}()
	fmt.Fprint(prompt, question)
	line, err := term.ReadPassword(int(terminal.Fd()))
	fmt.Fprintln(prompt)
	return string(line), err
}
