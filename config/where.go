package config

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Where is the position of a module in a Caddyfile, for errors that occur when the config
// is loaded. It is known if this process has adapted the Caddyfile, as in `caddy run` and
// `caddy validate`; for a JSON config it is the zero value.
type Where struct {
	lines [][]caddyfile.Token // of the directive and its block
}

// maxPlaces limits the remembered positions, because an API may adapt any number of
// configs.
const maxPlaces = 1000

var places = struct {
	sync.Mutex
	known map[[sha256.Size]byte]Where
}{known: make(map[[sha256.Size]byte]Where)}

// Remember stores the position of a module that was parsed from the tokens of d.
func Remember(d *caddyfile.Dispenser, module any) {
	key, ok := placeKey(module)
	if !ok {
		return
	}
	tokens := *d // the parser continues with its own position
	tokens.Reset()
	var where Where
	for tokens.Next() {
		token := tokens.Token()
		last := len(where.lines) - 1
		if last >= 0 && where.lines[last][0].Line == token.Line && where.lines[last][0].File == token.File {
			where.lines[last] = append(where.lines[last], token)
		} else {
			where.lines = append(where.lines, []caddyfile.Token{token})
		}
	}
	places.Lock()
	defer places.Unlock()
	if len(places.known) >= maxPlaces {
		clear(places.known)
	}
	places.known[key] = where
}

// WhereIs returns the position of a module whose config is unchanged since it was loaded.
func WhereIs(module any) Where {
	key, ok := placeKey(module)
	if !ok {
		return Where{}
	}
	places.Lock()
	defer places.Unlock()
	return places.known[key]
}

func placeKey(module any) (key [sha256.Size]byte, ok bool) {
	text, err := json.Marshal(module)
	return sha256.Sum256(append([]byte(fmt.Sprintf("%T", module)), text...)), err == nil
}

// repeated matches an error about an option that occurs a second time.
var repeated = regexp.MustCompile(`(is specified|is used|lists .+) twice(;|$)`)

// Locate adds file and line to an error about an option. The error starts with the names of
// the enclosing options and the option: "issuer https://id.example.com: jwks: refresh is
// …".
func (w Where) Locate(err error) error {
	if err == nil || len(w.lines) == 0 {
		return err
	}
	at := 0
	for part := range strings.SplitSeq(err.Error(), ": ") {
		words := strings.Fields(strings.NewReplacer("`", " ", "\"", " ", ",", " ", ";", " ").Replace(part))
		if len(words) == 0 {
			continue
		}
		if found := w.find(words, at, repeated.MatchString(part)); found >= 0 {
			at = found
		}
	}
	return fmt.Errorf("%w, at %s", err, w.place(at))
}

// Append adds file and line of the directive to a warning, if they are known.
func (w Where) Append(warning string) string {
	if len(w.lines) == 0 {
		return warning
	}
	return warning + ", at " + w.place(0)
}

func (w Where) place(line int) string {
	first := w.lines[line][0]
	return fmt.Sprintf("%s:%d", first.File, first.Line)
}

// find returns the line in the block of another line that the words name, or -1: that of an
// option, or of a log-in or client by its name.
func (w Where) find(words []string, block int, last bool) int {
	direct := w.block(block, false)
	if w.lines[block][0].Text == "issuer" { // options of the only issuer may be outside its block
		direct = append(direct, w.block(0, false)...)
	}
	all := w.block(block, true)
	for _, lines := range [][]int{direct, all} {
		if found := w.findOption(words, lines, last); found >= 0 {
			return found
		}
	}
	for _, i := range all {
		if line := w.lines[i]; len(words) == 1 && len(line) > 2 && line[1].Text == words[0] && opens(line) {
			return i
		}
	}
	return -1
}

// findOption returns the line of the option that the words begin with: the one with most of
// the other words in it, and of several the first or the last. If the words are as in "the
// second secret", it returns that one. It returns -1 if there is none.
func (w Where) findOption(words []string, lines []int, last bool) (found int) {
	name, more, skip := words[0], words[1:], 0
	if number := ordinalNumber(words); number >= 0 {
		name, more, skip = words[2], nil, number
	}
	found = -1
	most := -1
	for _, i := range lines {
		if w.lines[i][0].Text != name {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		score := 0
		for _, token := range w.lines[i][1:] {
			if slices.Contains(more, token.Text) {
				score++
			}
		}
		if score > most || last && score == most {
			found, most = i, score
		}
	}
	return found
}

// block returns the lines in the block that a line opens; without deep, only those of its
// own options.
func (w Where) block(line int, deep bool) (lines []int) {
	if !opens(w.lines[line]) {
		return nil
	}
	depth := 0
	for i := line + 1; i < len(w.lines); i++ {
		if w.lines[i][0].Text == "}" {
			if depth--; depth < 0 {
				return lines
			}
		} else if deep || depth == 0 {
			lines = append(lines, i)
		}
		if opens(w.lines[i]) {
			depth++
		}
	}
	return lines
}

func opens(line []caddyfile.Token) bool { return line[len(line)-1].Text == "{" }

var ordinals = []string{"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"}

// Nth returns the name of a repeatable option in an error: the option, or the second
// option, if there are several. index begins with 0.
func Nth(option string, index, of int) string {
	switch {
	case of == 1:
		return option
	case index < len(ordinals):
		return "the " + ordinals[index] + " " + option
	}
	return fmt.Sprintf("the %dth %s", index+1, option)
}

// ordinalNumber returns the index of an option that is named as by Nth, or -1.
func ordinalNumber(words []string) int {
	if len(words) < 3 || words[0] != "the" {
		return -1
	}
	if number, err := strconv.Atoi(strings.TrimSuffix(words[1], "th")); err == nil {
		return number - 1
	}
	return slices.Index(ordinals, words[1])
}
