// Package cli implements `caddy jwt …`: commands for tokens, signing keys, users, their
// stores, mails and texts. Other packages add commands with [Add].
package cli

import (
	"fmt"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/owner"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// documentation is where the commands are described; Caddy's help would name its own page.
const documentation = "https://github.com/caddy-jwt/caddy-jwt/blob/main/docs/commands.md"

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "jwt",
		Short: "Works with JSON Web Tokens",
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(
				tokenCommand(), inspectCommand(), userCommand(), keyCommand(), keysCommand(), storeCommand(),
				mailCommand(), textsCommand(), versionCommand(), doctorCommand(),
			)
			for _, further := range furtherCommands {
				cmd.AddCommand(further())
			}
			groups(cmd)
			cmd.SetFlagErrorFunc(flagError)
			cmd.SetHelpTemplate(cmd.HelpTemplate() + "\nFull documentation is available at:\n" + documentation + "\n")
		},
	})
}

var furtherCommands []func() *cobra.Command

// Add registers a command of another module below `caddy jwt`. Call it from an init
// function.
func Add(command func() *cobra.Command) { furtherCommands = append(furtherCommands, command) }

// groups makes pure parent commands reject unknown subcommands, so that scripts notice
// typos.
func groups(cmd *cobra.Command) {
	for _, inner := range cmd.Commands() {
		groups(inner)
	}
	if cmd.Runnable() || !cmd.HasSubCommands() {
		return
	}
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = runs(func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, inner := range cmd.Commands() {
			names = append(names, inner.Name())
		}
		return fmt.Errorf(
			"%s has no command %s; `%s --help` lists them%s", cmd.CommandPath(),
			refusal.Quoted(args[0]), cmd.CommandPath(), config.Meant(args[0], names...),
		)
	})
}

// flagError adds the flag that was probably meant to the error about an unknown one.
func flagError(cmd *cobra.Command, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: ")
	if !unknown {
		return err
	}
	var known []string
	cmd.Flags().VisitAll(func(flag *pflag.Flag) { known = append(known, "--"+flag.Name) })
	return fmt.Errorf("%w%s", err, config.Meant(name, known...))
}

// runs converts a function to the function of a command. Errors are reported as by Caddy's
// own commands, and determine the exit code.
func runs(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) {
			if err := owner.OfCommand(run(cmd, args)); err != nil {
				return caddy.ExitCodeFailedStartup, err
			}
			return caddy.ExitCodeSuccess, nil
		})(cmd, args)
	}
}

func flagsOf(cmd *cobra.Command) caddycmd.Flags { return caddycmd.Flags{FlagSet: cmd.Flags()} }

func addConfigFlags(cmd *cobra.Command, usage string) {
	cmd.PersistentFlags().String("config", "", usage)
	cmd.PersistentFlags().String(
		"adapter", "", "Config adapter; by default caddyfile, and none for JSON",
	)
}
