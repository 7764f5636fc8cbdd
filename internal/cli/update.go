package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/spf13/cobra"
)

func updateUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "update <user> [flags]",
		Short: "Changes the profile or the name of a user",
		Long: `
Changes properties of the profile of a user; the others stay. A value is a text, or
JSON behind := as in verified:=true. --username gives the user another name to log in
by, or the first one; the name before is free then. An existing access token keeps what it has until
it expires or is refreshed.`,
		Example: `  caddy jwt user update alice@example.com --profile name="Alice A."
  caddy jwt user update alice@example.com --profile phone_number_verified:=true --remove nickname
  caddy jwt user update bob --username bobby`,
		Args: Takes(userArgument),
		RunE: operates(false, updateUser, func(o *operator) error {
			_, err := o.properties()
			return err
		}),
	}
	addProfile(cmd)
	cmd.Flags().String("username", "", "Another name by which the user logs in")
	cmd.Flags().StringArray("remove", nil, "A profile property to remove; may be repeated")
	cmd.Flags().Bool("json", false, "Print the user as a JSON object")
	return cmd
}

// properties returns the properties to set, and nil for those to remove.
func (o *operator) properties() (map[string]any, error) {
	properties, err := o.profile()
	for _, name := range o.texts("remove") {
		if err == nil {
			err = store.CheckProfileName(name)
		}
		if _, set := properties[name]; set {
			return nil, errors.New("--profile and --remove both name " + refusal.Quoted(name) + "; do only one of them")
		}
		if err == nil {
			properties[name] = nil
		}
	}
	if name := o.flags.String("username"); err == nil && o.flags.Changed("username") {
		if _, keyErr := store.UsernameKey(name); keyErr != nil {
			return nil, wrongUsername(name)
		}
	} else if err == nil && len(properties) == 0 {
		err = errors.New("there is nothing to change; set --profile name=text, --remove name, or --username name")
	}
	return properties, err
}

func updateUser(o *operator) error {
	properties, err := o.properties()
	if err != nil {
		return err
	}
	user, err := o.user()
	if err == nil && o.flags.Changed("username") {
		name := o.flags.String("username")
		if user, err = store.Rename(o.ctx, o.store, user.ID, name, time.Now()); errors.Is(err, store.ErrUsernameTaken) {
			return fmt.Errorf("%w: %s", err, refusal.Quoted(name))
		}
	}
	if err != nil {
		return err
	}
	user, err = o.changeByID(user.ID, func(u *store.User) {
		u.SetProperties(properties)
		setVerified(u, properties)
	})
	if err != nil {
		return err
	}
	if o.flags.Bool("json") {
		return newJSONEncoder(o.cmd.OutOrStdout()).Encode(shownUser(user))
	}
	if o.flags.Changed("username") {
		o.say("the name of %s is %s", user.ID, refusal.Visible(user.Username()))
		o.noteNames()
		return nil
	}
	o.say("the profile of %s is changed", refusal.Visible(user.Email))
	return nil
}
