package cli

import (
	"errors"
	"maps"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/spf13/cobra"
)

func updateUserCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "update <email or ID> [flags]",
		Short: "Changes the profile of a user",
		Long: `
Changes properties of the profile of a user; the others stay. A value is a text, or
JSON behind := as in verified:=true. An existing access token keeps what it has until
it expires or is refreshed.`,
		Example: `  caddy jwt user update alice@example.com --profile name="Alice A."
  caddy jwt user update alice@example.com --profile phone_number_verified:=true --remove nickname`,
		Args: Takes(userArgument),
		RunE: operates(false, updateUser, func(o *operator) error {
			_, err := o.properties()
			return err
		}),
	}
	addProfile(cmd)
	cmd.Flags().StringArray("remove", nil, "A profile property to remove; may be repeated")
	cmd.Flags().Bool("json", false, "Print the user as a JSON object")
	return cmd
}

// properties returns the properties to set, and nil for those to remove.
func (o *operator) properties() (map[string]any, error) {
	properties, err := o.profile()
	for _, name := range o.texts("remove") {
		if _, set := properties[name]; set {
			return nil, errors.New("--profile and --remove both name " + refusal.Quoted(name) + "; do only one of them")
		}
		if err == nil {
			properties[name] = nil
		}
	}
	if err == nil && len(properties) == 0 {
		err = errors.New("there is nothing to change; set --profile name=text, or --remove name")
	}
	return properties, err
}

func updateUser(o *operator) error {
	properties, err := o.properties()
	if err != nil {
		return err
	}
	user, err := o.change(func(u *store.User) {
		if u.Profile == nil {
			u.Profile = make(map[string]any)
		}
		maps.Copy(u.Profile, properties)
		maps.DeleteFunc(u.Profile, func(_ string, value any) bool { return value == nil })
	})
	if err != nil {
		return err
	}
	if o.flags.Bool("json") {
		return newJSONEncoder(o.cmd.OutOrStdout()).Encode(shownUser(user))
	}
	o.say("the profile of %s is changed", refusal.Visible(user.Email))
	return nil
}
