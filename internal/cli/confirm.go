package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// AddYes adds the flag --yes, for a command that calls [Confirm].
func AddYes(cmd *cobra.Command) { cmd.Flags().Bool("yes", false, "Do not ask for confirmation") }

// Confirm asks on a terminal whether to do something that cannot be undone, or that shuts users
// out, as in "delete the client wiki". Without a terminal, it returns an error unless --yes is
// set.
func Confirm(cmd *cobra.Command, what string) error {
	if flagsOf(cmd).Bool("yes") {
		return nil
	}
	if terminalOf(cmd.InOrStdin()) == nil {
		return fmt.Errorf(
			"nothing was changed, because the command cannot ask here whether to %s; confirm with --yes", what,
		)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "This will %s. Type yes to continue: ", what)
	if answer, err := readLine(cmd.InOrStdin()); err != nil || answer != "yes" {
		return errors.Join(errors.New("nothing was changed"), err)
	}
	return nil
}
