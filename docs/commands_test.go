package docs_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/opstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// asks matches the commands that ask first on a terminal.
var asks = regexp.MustCompile(` (disable|disconnect|delete|revoke|reset) `)

// program matches the commands that are tried: those of this program, and what prepares them.
var program = regexp.MustCompile(`^(caddy jwt|mkdir) `)

var commandsBlock = regexp.MustCompile("(?ms)^```(?:sh|console)\n(.*?)^```$")

// commandsOf returns the commands for this program in the blocks of a page, with what a page says
// that they print.
func commandsOf(t *testing.T, page string) (commands, printed []string) {
	t.Helper()
	for _, block := range commandsBlock.FindAllStringSubmatch(readText(t, page), -1) {
		ours := false
		for line := range strings.Lines(block[1]) {
			command, typed := strings.CutPrefix(line, "$ ")
			if typed || strings.HasPrefix(block[0], "```sh") {
				if ours = program.MatchString(command); ours {
					commands, printed = append(commands, strings.TrimSpace(command)), append(printed, "")
				}
			} else if ours {
				printed[len(printed)-1] += line
			}
		}
	}
	if len(commands) == 0 {
		t.Fatalf("%s has no commands", page)
	}
	return commands, printed
}

// The commands of the pages work, one after the other, on a machine with Caddy and its users.
func TestDocsCommands(t *testing.T) {
	caddytest.Needs(t, "bash", "curl")
	server := sitetest.NewSMTPServer(t).Start()
	host := opstest.NewHost(t, caddytest.Binary(t), ".")
	host.Write("Caddyfile", "", `jwt /todos/* {
		accounts {
			signup open
			throttle off
			second_factor optional
			mail smtp://`+server.Address+` {
				from "The Shop <no-reply@example.com>"
			}
		}
	}
	respond /todos/* ok`)
	host.Shell("systemctl start caddy; mkdir languages; ln -s etc/Caddyfile Caddyfile")
	s := &sitetest.Site{T: t, URL: host.URL}
	tokens := s.SignedUp("dora@example.com")
	host.Answer(tokens.Token, "cat > token.txt")
	with := func(page string, replace ...string) {
		t.Helper()
		commands, printed := commandsOf(t, page)
		for i, command := range commands {
			command = strings.NewReplacer(replace...).Replace(command)
			if asks.MatchString(command) {
				command += " --yes"
			}
			got := host.Answer(sitetest.GoodPassword+"\n", command)
			want := strings.NewReplacer(replace...).Replace(printed[i])
			if want != "" && !sitetest.Printed(want).MatchString(strings.TrimSpace(got)) {
				t.Errorf("%s: %s\nprints:\n%s\nexpected:\n%s", page, command, got, want)
			}
		}
	}
	accountstest.Has(t, host.Shell("caddy jwt user --help"), "blob/main/docs/commands.md")
	const store = "data/caddy/jwt/users.db"
	with("docs/accounts.md", "postgres {env.ACCOUNTS_DSN}", "copy.db", "users.db", store)
	with("docs/oidc.md")
	with("docs/mail.md", "mail.example.com:587", server.Address, "Ok: queued", "…")
	with("docs/languages.md")
	with("docs/one-login.md", "/var/lib/caddy/people.db", "people.db")
	accountstest.WithApp(s, s.SignedUp("alice@example.com").Token)
	with("docs/second-factor.md", "2026-11-30T20:59:31Z", "…")
	with("docs/passkeys.md")
	host.Answer("email,password_hash\nerin@example.com,\n", "cat > users.csv")
	with("docs/migration/users.md")

	made := strings.TrimSpace(host.Shell("caddy jwt key add --subject billing"))
	host.Answer(`{"subject":"billing","scope":["films.read"]}`+"\n", "cat > keys.jsonl")
	with("docs/api-keys.md", "key_4fWq7GdC1xZp_8Rk0bTgPz3LxYvW5nQ2sMdJ7cHfA1e_0Wk2bX", "key_…",
		"ID 4fWq7GdC1xZp", "ID …", "4fWq7GdC1xZp", made[len("key_"):len("key_")+12])
}

// Every command that a document names exists, with its flags.
func TestDocsCommandsExist(t *testing.T) {
	root := &cobra.Command{Use: "jwt"}
	caddycmd.Commands()["jwt"].CobraFunc(root)
	named := regexp.MustCompile("(?m)caddy jwt ([a-z][^`\n|]*)")
	found := 0
	for _, page := range documents(t) {
		for _, at := range named.FindAllStringSubmatch(readText(t, page), -1) {
			// the clients' commands are those of another package; reference.md is made of the program
			if strings.HasPrefix(at[1], "client") || page == "docs/reference.md" {
				continue
			}
			found++
			if fault := commandFault(root, strings.Fields(at[1])); fault != "" {
				t.Errorf("%s: caddy jwt %s: %s", page, at[1], fault)
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d commands are found", found)
	}
	for _, wrong := range []string{"user ad", "key add --scopes x", "texts --langauge sv"} {
		if commandFault(root, strings.Fields(wrong)) == "" {
			t.Errorf("control: caddy jwt %s is not noticed", wrong)
		}
	}
}

// commandFault returns what does not exist of a command: it, or a flag.
func commandFault(root *cobra.Command, words []string) string {
	command, rest, err := root.Find(words)
	if err != nil {
		return err.Error()
	}
	if command.HasSubCommands() && command.Name() != "factors" && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return command.Name() + " has no command " + rest[0]
	}
	for _, word := range rest {
		name, isFlag := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(name, "=")
		if isFlag && name != "help" && command.Flag(name) == nil && command.InheritedFlags().Lookup(name) == nil {
			return command.Name() + " has no flag " + word
		}
	}
	return ""
}
