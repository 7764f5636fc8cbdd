package docs_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The error about an unknown option lists the same options as the reference shows in the syntax of
// the block.
func TestReferenceHasTheOptionsOfTheProgram(t *testing.T) {
	comments := sourceComments(t, []string{"caddyfile.go", "accounts/caddyfile.go", "mail/smtp.go"})
	for block, c := range map[string]struct{ comment, body string }{
		"jwt":    {"Handler.UnmarshalCaddyfile", "jwt {\n xxxxxxxx\n}"},
		"issuer": {"Handler.UnmarshalCaddyfile", "jwt {\n issuer a {\n xxxxxxxx\n}\n}"},
		"jwks":   {"Handler.UnmarshalCaddyfile", "jwt {\n issuer a {\n jwks {\n xxxxxxxx\n}\n}\n}"},
		"backchannel_logout": {
			"Handler.UnmarshalCaddyfile", "jwt {\n issuer a {\n backchannel_logout /x {\n xxxxxxxx\n}\n}\n}",
		},
		"introspection": {
			"Handler.UnmarshalCaddyfile", "jwt {\n issuer a {\n introspection {\n xxxxxxxx\n}\n}\n}",
		},
		"api_keys": {"Handler.UnmarshalCaddyfile", "jwt {\n api_keys {\n xxxxxxxx\n}\n}"},
		"mail":     {"SMTP.UnmarshalCaddyfile", "jwt {\n accounts {\n mail smtp://a {\n xxxxxxxx\n}\n}\n}"},
		"accounts": {"Parse", "jwt {\n accounts {\n xxxxxxxx\n}\n}"},
	} {
		_, err := sitetest.AdaptCaddyfile(t, c.body, "127.0.0.1:0", t.TempDir(), "log.json")
		if err == nil {
			t.Fatalf("%s: no error", block)
		}
		list := regexp.MustCompile(`it has ([\w, ]+)`).FindStringSubmatch(err.Error())
		if list == nil {
			t.Fatalf("%s: no list in %v", block, err)
		}
		text := strings.ReplaceAll(list[1], " and ", ", ")
		text, _, _ = strings.Cut(text, ", at Caddyfile")
		named := strings.Split(strings.TrimRight(text, ", "), ", ")
		shown := optionsShown(comments[c.comment], block)
		if block == "jwt" { // a single issuer's options may be outside its block
			shown = append(shown, optionsShown(comments[c.comment], "issuer")...)
		}
		slices.Sort(named)
		slices.Sort(shown)
		if shown = slices.Compact(shown); !slices.Equal(named, shown) {
			t.Errorf("%s: the program has %v, the reference %v", block, named, shown)
		}
	}
}

// optionsShown returns the first words of the lines in a block of a syntax.
func optionsShown(comment, block string) (names []string) {
	within, depth := -1, 0
	for line := range strings.Lines(comment) {
		words := strings.Fields(line)
		if !strings.HasPrefix(line, "\t") || len(words) == 0 {
			continue
		}
		if strings.HasPrefix(words[0], "}") {
			if depth--; depth < within {
				return names
			}
			continue
		}
		if depth == within {
			names = append(names, strings.Split(words[0], "|")...)
		}
		if strings.HasSuffix(words[len(words)-1], "{") {
			depth++
			if words[0] == block && within < 0 {
				within = depth
			}
		}
	}
	return names
}
