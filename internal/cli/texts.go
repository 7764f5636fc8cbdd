package cli

import (
	"encoding/json"
	"fmt"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/spf13/cobra"
)

func textsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "texts [flags]",
		Short: "Prints the texts of pages, answers and mails, to translate them",
		Long: `
Prints the texts of pages, answers and mails as JSON: an object of the English texts and
their translations. Save it as the tag of the language (RFC 5646) in a folder, translate
the right sides, and name the folder in the Caddyfile: languages <dir>. Without a language,
or for one that does not come with this program, the right sides are in English. A text
with a number has a form for each plural category of the language, such as one and other.
%s and %d are where other texts and numbers go; %[2]s is the second of them.`,
		Example: `  caddy jwt texts --language sv > /etc/caddy/languages/sv.json
  caddy jwt texts --language de | jq '{"Log in"}' > /etc/caddy/languages/de.json`,
		Args: cobra.NoArgs,
		RunE: runs(printTexts),
	}
	cmd.Flags().String("language", "en", "Tag of the language, such as de or pt-BR")
	return cmd
}

func printTexts(cmd *cobra.Command, _ []string) error {
	all, err := texts.Export(flagsOf(cmd).String("language"))
	if err != nil {
		return fmt.Errorf("--language: %w", err)
	}
	encoder := json.NewEncoder(cmd.OutOrStdout())
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(all)
}
