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
	at := 0
	for _, part := range strings.Split(err.Error(), ": ") {
		found := w.find(strings.Fields(part), at)
		if found < 0 && at > 0 {
			break
		}
		at = max(at, found)
	}
	first := w.lines[at][0]
	return fmt.Errorf("%w, at %s:%d", err, first.File, first.Line)
}

// find returns the line of an option, starting at a line: the line that also has the second
// word, or, if the second word is a number, that occurrence. It returns -1 if there is
// none.
func (w Where) find(words []string, from int) (found int) {
	if len(words) == 0 {
		return -1
	}
	name, more := words[0], ""
	if len(words) > 1 {
		more = words[1]
	}
	number, err := strconv.Atoi(more)
	isNumber := err == nil
	found = -1
	for i := from; i < len(w.lines); i++ {
		line := w.lines[i]
		if line[0].Text != name {
			continue
		}
		if isNumber {
			if number--; number >= 0 {
				continue
			}
			return i
		}
		if slices.ContainsFunc(line[1:], func(t caddyfile.Token) bool { return t.Text == strings.Trim(more, `"`) }) {
			return i
		}
		if found < 0 {
			found = i
		}
	}
	return found
}
