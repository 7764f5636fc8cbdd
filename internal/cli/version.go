package cli

import (
	"cmp"
	"fmt"
	"runtime/debug"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

const modulePath = "github.com/caddy-jwt/caddy-jwt"

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version [flags]",
		Short:   "Prints the versions of this plugin, of Caddy and of Go",
		Example: `  caddy jwt version --json | jq -r .caddy_jwt`,
		Args:    cobra.NoArgs,
		RunE:    runs(printVersion),
	}
	cmd.Flags().Bool("json", false, "Print a JSON object")
	return cmd
}

// release is set by the linker where the repository is not there to tell the version, as in an image.
var release string

// versions are the versions of what the program is built of.
type versions struct {
	CaddyJWT string `json:"caddy_jwt"`          // (devel) if it was not built as a module of a version
	Revision string `json:"revision,omitempty"` // of the repository, if it was built there
	Caddy    string `json:"caddy"`
	Go       string `json:"go"`
}

func builtOf() versions {
	v := versions{CaddyJWT: cmp.Or(release, "(devel)")}
	v.Caddy, _ = caddy.Version()
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	for _, module := range append(info.Deps, &info.Main) {
		if module.Path != modulePath {
			continue
		}
		if module.Replace != nil {
			module = module.Replace
		}
		if release == "" {
			v.CaddyJWT = cmp.Or(module.Version, v.CaddyJWT)
		}
	}
	if info.Main.Path == modulePath {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				v.Revision = setting.Value
			}
		}
	}
	return v
}

func printVersion(cmd *cobra.Command, _ []string) error {
	v := builtOf()
	if flagsOf(cmd).Bool("json") {
		return newJSONEncoder(cmd.OutOrStdout()).Encode(v)
	}
	revision := ""
	if v.Revision != "" {
		revision = ", revision " + v.Revision
	}
	_, err := fmt.Fprintf(
		cmd.OutOrStdout(), "caddy-jwt %s%s\nCaddy %s\nGo %s\n", v.CaddyJWT, revision, v.Caddy, v.Go,
	)
	return err
}
