// Package config parses what users write: the options of Caddyfile blocks, placeholders,
// secrets and key files. It also runs what a module does when its config starts.
package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Block is a block of a Caddyfile, or an option that has its own block.
type Block struct {
	*caddyfile.Dispenser
	// Name is the block's name in error messages: the option, and its argument if there can
	// be several, as in `client my-app`.
	Name  string
	given map[string]bool
}

// Option is an option of a block. The same list of options is used to parse the block and
// to name its options in errors.
type Option struct {
	// Name is the option's name in the Caddyfile.
	Name string
	// Read parses the values after the name. It returns an error of the Dispenser.
	Read func(b *Block, name string) error
	// Repeatable options may be specified more than once.
	Repeatable bool
}

// blocks has the names of the options of each registered block.
var blocks = make(map[string][]string)

// RegisterBlock names the options of a block in the errors of other blocks in which one of
// them is specified. Call it from an init function.
func RegisterBlock(name string, options []Option) { blocks[name] = names(options) }

func names(options []Option) (names []string) {
	for _, option := range options {
		names = append(names, option.Name)
	}
	return names
}

// ReadBlock parses the block after the dispenser's current word, if there is one.
func ReadBlock(d *caddyfile.Dispenser, name string, options []Option) error {
	b := &Block{Dispenser: d, Name: name, given: make(map[string]bool)}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		i := slices.IndexFunc(options, func(o Option) bool { return o.Name == word })
		if i < 0 {
			return b.unknown(options)
		}
		if !options[i].Repeatable {
			if err := b.Once(word); err != nil {
				return err
			}
		}
		if err := options[i].Read(b, word); err != nil {
			return err
		}
	}
	return nil
}

// Once returns an error if the option is already set in this block.
func (b *Block) Once(name string) error {
	if b.given[name] {
		if strings.Contains(b.Name, " ") {
			return b.Errf("%s is specified twice in %s", name, b.Name)
		}
		return b.Errf("%s is specified twice", name)
	}
	b.given[name] = true
	return nil
}

// optionName matches option names, but not a line of a secret.
var optionName = regexp.MustCompile(`^[A-Za-z][A-Za-z_-]{0,23}$|^[a-z][a-z_-]{0,39}$`)

// unknown returns the error about an unknown option. It omits the word if it may be the
// second line of a secret.
func (b *Block) unknown(options []Option) error {
	known := names(options)
	kind, _, _ := strings.Cut(b.Name, " ")
	word := b.Val()
	switch {
	case word == "{":
		return b.Errf("unexpected block in %s: the option on this line does not take a block", kind)
	case !optionName.MatchString(word):
		return b.Errf("%s has no such option; it has %s. If this line is part of a secret: "+
			"a secret must be a single line, such as the output of openssl rand -hex 64", kind, List(known))
	case foreign[kind][word] != "":
		return b.Errf("%s has no option %q, which is one of another plugin; what to write instead is in %s",
			kind, word, foreign[kind][word])
	}
	var others []string
	for other, options := range blocks {
		if slices.Contains(options, word) {
			others = append(others, other)
		}
	}
	brace := ""
	if slices.Contains(directives, word) {
		brace = "a directive of Caddy; is a } missing above?"
	}
	switch meant := Meant(word, known...); {
	case len(others) > 0 && brace != "":
		slices.Sort(others)
		return b.Errf("%s has no option %q, which is an option of %s, and %s", kind, word, List(others), brace)
	case len(others) > 0:
		slices.Sort(others)
		return b.Errf("%s has no option %q, which is an option of %s", kind, word, List(others))
	case brace != "":
		return b.Errf("%s has no option %q, which is %s", kind, word, brace)
	case meant != "":
		return b.Errf("%s has no option %q%s", kind, word, meant)
	}
	return b.Errf("%s has no option %q; it has %s", kind, word, List(known))
}

// directives are those of Caddy, which only appear in a block if a brace is missing.
var directives = []string{
	"abort", "acme_server", "basic_auth", "basicauth", "bind", "encode", "error", "file_server", "forward_auth", "fs",
	"handle", "handle_errors", "handle_path", "header", "import", "intercept", "invoke", "jwt", "log", "log_append",
	"log_name", "log_skip", "map", "method", "metrics", "oidc_provider", "php_fastcgi", "push", "redir",
	"request_body", "request_header", "respond", "reverse_proxy", "rewrite", "root", "route", "templates", "tls",
	"tracing", "try_files", "uri", "vars",
}

// foreign has, for a block and an option of another plugin, the page that says what to write instead.
var foreign = make(map[string]map[string]string)

// RegisterForeign names options of another plugin, so that the error about one in the block points to a page.
// Call it from an init function.
func RegisterForeign(block, page string, options ...string) {
	if foreign[block] == nil {
		foreign[block] = make(map[string]string)
	}
	for _, option := range options {
		foreign[block][option] = page
	}
}

// Unknown returns the error about a word that must be one of a list, as in: unknown
// algorithm "hs256"; did you mean HS256? Supported: HS256, HS384.
func Unknown(what, word string, known []string) error {
	supported := "; supported: "
	if meant := Meant(word, known...); meant != "" {
		supported = meant + " Supported: "
	}
	if len(known) == 0 {
		return fmt.Errorf("unknown %s %q; this Caddy is built without any", what, word)
	}
	return fmt.Errorf("unknown %s %q%s%s", what, word, supported, strings.Join(known, ", "))
}

// Meant returns what an error about a mistyped word ends with, as in: ; did you mean open?
// It is empty if the word is not similar to a known one.
func Meant(word string, known ...string) string {
	if nearest := nearest(word, known); nearest != "" {
		return "; did you mean " + nearest + "?"
	}
	return ""
}

// List joins words as in a sentence: a, b and c.
func List(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// nearest returns the name that was probably meant by a mistyped word, or the empty string:
// the name with the fewest changed letters, at most a third of its own; otherwise the only
// one that has the word as its beginning, or is the beginning of the word. Of a URN, as of a
// grant type, its last part counts.
func nearest(word string, names []string) (nearest string) {
	plain := func(text string) string {
		if strings.HasPrefix(text, "urn:") {
			text = text[strings.LastIndex(text, ":")+1:]
		}
		return strings.ReplaceAll(strings.ToLower(text), "-", "_")
	}
	least := len(word)
	if slices.Contains(names, word) {
		return ""
	}
	for _, name := range names {
		if d := distance(plain(word), plain(name)); d < least && d <= max(1, len(plain(name))/3) {
			nearest, least = name, d
		}
	}
	if nearest == "" {
		nearest = extended(plain(word), names, plain)
	}
	if singular, plural := strings.CutSuffix(plain(word), "s"); nearest == "" && plural {
		nearest = extended(singular, names, plain)
	}
	return nearest
}

// extended returns the name that begins with the word, or that the word begins with, if
// there is exactly one.
func extended(word string, names []string, plain func(string) string) (found string) {
	const least = 3 // letters, so that it is no coincidence
	for _, name := range names {
		text := plain(name)
		if min(len(word), len(text)) < least || !strings.HasPrefix(word, text) && !strings.HasPrefix(text, word) {
			continue
		}
		if found != "" {
			return ""
		}
		found = name
	}
	return found
}

// distance returns how many letters must be changed, added, removed or swapped with the
// next one (optimal string alignment).
func distance(a, b string) int {
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(last[j]+change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// Flag returns a parser for an option without a value.
func Flag(into *bool) func(*Block, string) error {
	return func(b *Block, name string) error {
		*into = true
		if b.NextArg() {
			return b.Errf("%s does not take a value, but has %q; to switch it off, remove the line", name, b.Val())
		}
		return nil
	}
}

// Word returns a parser for an option with one value. takes completes the sentence "<name>
// takes …".
func Word(takes string, into *string) func(*Block, string) error {
	return func(b *Block, name string) error {
		args := b.RemainingArgs()
		if len(args) != 1 || args[0] == "" {
			return b.Errf("%s takes %s%s", name, takes, noValue(args))
		}
		*into = args[0]
		return nil
	}
}

// noValue returns how the error about an option without a value ends.
func noValue(args []string) string {
	if strings.Join(args, "") != "" {
		return ""
	}
	return "; it has no value here; if that is the environment variable in {$…}, is it set?"
}

// Words returns a parser for an option with one or more values, which are appended.
func Words(takes string, into *[]string) func(*Block, string) error {
	return func(b *Block, name string) error {
		args := b.RemainingArgs()
		if strings.Join(args, "") == "" {
			return b.Errf("%s takes one or more %s%s", name, takes, noValue(args))
		}
		*into = append(*into, args...)
		return nil
	}
}

// Count returns a parser for a number of at least 1.
func Count(takes string, into *int) func(*Block, string) error {
	return func(b *Block, name string) error {
		var text string
		if err := Word(takes, &text)(b, name); err != nil {
			return err
		}
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 {
			return b.Errf("%s takes %s, not %q%s", name, takes, text, PlaceholderHint(text))
		}
		*into = number
		return nil
	}
}

// Duration returns a parser for a duration greater than 0.
func Duration(into *caddy.Duration) func(*Block, string) error {
	return func(b *Block, name string) error {
		err := DurationOrZero(into)(b, name)
		if err == nil && *into == 0 {
			return b.Errf("%s is 0; set a duration, or remove the line to use the default", name)
		}
		return err
	}
}

// DurationOrZero returns a parser for a duration of at least 0.
func DurationOrZero(into *caddy.Duration) func(*Block, string) error {
	const takes = "a duration, as in: 30s, 10m or 24h"
	return func(b *Block, name string) error {
		var text string
		if err := Word(takes, &text)(b, name); err != nil {
			return err
		}
		duration, err := caddy.ParseDuration(text)
		if err != nil {
			return b.Errf("%s takes %s, not %q%s", name, takes, text, PlaceholderHint(text))
		}
		if duration < 0 {
			return b.Errf("%s is %s; it must not be negative", name, text)
		}
		*into = caddy.Duration(duration)
		return nil
	}
}

// PlaceholderHint returns how to set a number or duration from the environment, if the text
// contains a placeholder.
func PlaceholderHint(text string) string {
	if strings.Contains(text, "{") {
		return fmt.Sprintf(
			"; a placeholder such as %s is not replaced here; use {$NAME} for the environment variable NAME", text,
		)
	}
	return ""
}

// ParseSecret parses `secret [base64|hex] <value>`.
func ParseSecret(b *Block, name string) (*Secret, error) {
	secret := new(Secret)
	switch args := b.RemainingArgs(); {
	case len(args) == 1 && args[0] != "":
		secret.Value = args[0]
	case len(args) == 2:
		secret.Encoding, secret.Value = args[0], args[1]
		if secret.Encoding != "base64" && secret.Encoding != "hex" {
			return nil, b.Errf(
				"%s takes base64, hex or nothing before its value; put the value in quotes if it contains spaces%s",
				name, Meant(secret.Encoding, encodings...),
			)
		}
	default:
		return nil, b.Errf("%s takes a value, as in: secret {env.JWT_SECRET}, or an encoding and a value, as in: "+
			"secret base64 {env.JWT_SECRET}%s", name, noValue(args))
	}
	return secret, nil
}
