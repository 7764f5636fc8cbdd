package config

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
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

// Locate adds file and line to an error about an option. The error starts with the names of
// the enclosing options and the option: "issuer https://id.example.com: jwks: refresh is
// …".
func (w Where) Locate(err error) error {
	if err == nil || len(w.lines) == 0 {
		return err
	}
	at, last := 0, strings.Contains(err.Error(), "twice")
	for part := range strings.SplitSeq(err.Error(), ": ") {
		words := strings.Fields(strings.NewReplacer("`", " ", "\"", " ", ",", " ", ";", " ").Replace(part))
		found := w.find(words, at, last)
		if found < 0 { // an option of the only issuer may be before its block
			found = w.find(words, 0, last)
		}
		if found >= 0 {
			at = found
		}
	}
	first := w.lines[at][0]
	return fmt.Errorf("%w, at %s:%d", err, first.File, first.Line)
}

// find returns the line of the option that the first word names, or -1. It searches from a line on.
// If several lines have the option, it returns the one with most of the words. If the second word
// is a number, it returns the line with that number. If last is set, the last of equal lines wins.
func (w Where) find(words []string, from int, last bool) (found int) {
	if len(words) == 0 {
		return -1
	}
	if found = w.findOption(words, from, last); found >= 0 {
		return found
	}
	if len(words) != 1 {
		return -1
	}
	// A log-in or client by its name.
	for i := from; i < len(w.lines); i++ {
		if line := w.lines[i]; len(line) > 2 && line[1].Text == words[0] && line[len(line)-1].Text == "{" {
			return i
		}
	}
	return -1
}

func (w Where) findOption(words []string, from int, last bool) (found int) {
	name, more := words[0], words[1:]
	number, numbered := -1, false
	if len(more) > 0 {
		n, err := strconv.Atoi(more[0])
		number, numbered = n, err == nil
	}
	found = -1
	most := -1
	for i := from; i < len(w.lines); i++ {
		line := w.lines[i]
		if line[0].Text != name {
			continue
		}
		if numbered {
			if number--; number < 0 {
				return i
			}
			continue
		}
		score := 0
		for _, token := range line[1:] {
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
