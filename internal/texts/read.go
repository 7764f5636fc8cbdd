package texts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	strict "github.com/go-json-experiment/json"
	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
)

// categories are the plural categories (Unicode Technical Standard 35, part 3 §5), the general one last.
var categories = []string{"zero", "one", "two", "few", "many", "other"}

// placeholder matches where an argument goes: %s, %d, or with its number, %[2]s.
var placeholder = regexp.MustCompile(`%(?:\[(\d+)\])?([sd])`)

// Keys returns the English texts, which are the keys of the catalogue.
var Keys = sync.OnceValue(func() map[string]bool {
	keys := make(map[string]bool)
	for _, name := range []string{"en", "de"} {
		text, err := embedded.ReadFile("catalogue/" + name + ".json")
		var all map[string]json.RawMessage
		if err == nil {
			err = json.Unmarshal(text, &all)
		}
		if err != nil {
			panic("catalogue: " + err.Error()) // a test reads it
		}
		for key := range all {
			keys[key] = true
		}
	}
	return keys
})

// readFolder reads the files `<tag>.json` of a folder. known are the keys that they may have; nil for
// any.
func readFolder(folder fs.FS, known map[string]bool) (map[language.Tag]map[string]entry, error) {
	names, err := fs.Glob(folder, "*.json")
	if err != nil {
		return nil, fmt.Errorf("languages: %w", err)
	}
	all := make(map[language.Tag]map[string]entry)
	for _, name := range names {
		tag, err := language.Parse(strings.TrimSuffix(path.Base(name), ".json"))
		if err != nil {
			return nil, fmt.Errorf(
				"languages: %s: the name must be the tag of a language, as in sv.json or pt-BR.json", name,
			)
		}
		if all[tag] != nil {
			return nil, fmt.Errorf("languages: %s: there is another file for the language %s; keep one", name, tag)
		}
		text, err := fs.ReadFile(folder, name)
		if err != nil {
			return nil, fmt.Errorf("languages: %w", err)
		}
		if all[tag], err = readLanguage(text, tag, known); err != nil {
			return nil, fmt.Errorf("languages: %s: %w", name, err)
		}
	}
	return all, nil
}

func readLanguage(text []byte, tag language.Tag, known map[string]bool) (map[string]entry, error) {
	var raw map[string]json.RawMessage
	text = bytes.TrimPrefix(text, []byte("\ufeff"))      // of editors on Windows
	if err := strict.Unmarshal(text, &raw); err != nil { // no text twice, and only UTF-8
		return nil, fmt.Errorf("it must be a JSON object of English texts and their translations: %w", err)
	}
	texts := make(map[string]entry)
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if known != nil && !known[key] {
			return nil, fmt.Errorf("%q is not a text of this program; `caddy jwt texts` prints those that are", key)
		}
		read, err := readEntry(raw[key], key, tag)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", key, err)
		}
		texts[key] = read
	}
	return texts, nil
}

func readEntry(raw json.RawMessage, key string, tag language.Tag) (e entry, err error) {
	if json.Unmarshal(raw, &e.text) == nil {
		if strings.TrimSpace(e.text) == "" {
			return e, errors.New("its translation is empty; remove it, or translate it")
		}
		if strings.HasPrefix(key, dateKey) && !saysDay(e.text) {
			return e, fmt.Errorf("%q must say how the day of 2 January 2006 is written, as in 2006-01-02", e.text)
		}
		return e, checkPlaceholders(key, e.text)
	}
	if json.Unmarshal(raw, &e.forms) != nil || len(e.forms) == 0 {
		return e, errors.New(`its translation must be a string or, if it has a number, an object such as ` +
			`{"one": "…", "other": "…"}`)
	}
	if countOf(key) == 0 {
		return e, errors.New("it has no number, so its translation must be a string")
	}
	needed, possible := categoriesOf(tag)
	for category, form := range e.forms {
		if !slices.Contains(possible, category) {
			return e, fmt.Errorf(
				"the language has no plural category %q; it has %s", category, strings.Join(possible, ", "),
			)
		}
		if err := checkPlaceholders(key, form); err != nil {
			return e, fmt.Errorf("%s: %w", category, err)
		}
	}
	for _, category := range needed {
		if e.forms[category] == "" {
			return e, fmt.Errorf("there is no form for the plural category %q; the language has %s", category,
				strings.Join(needed, ", "))
		}
	}
	if e.forms["other"] == "" { // of fractions
		e.forms["other"] = e.forms[needed[len(needed)-1]]
	}
	return e, nil
}

// dateKey is what the keys begin with that say how dates are written (see [time.Layout]).
const dateKey = "2 Jan 2006"

// saysDay reports whether a layout has the year, the month and the day.
func saysDay(layout string) bool {
	day := time.Date(2031, time.November, 12, 0, 0, 0, 0, time.UTC)
	shown := day.Format(layout)
	return shown != day.AddDate(1, 0, 0).Format(layout) && shown != day.AddDate(0, 1, 0).Format(layout) &&
		shown != day.AddDate(0, 0, 1).Format(layout)
}

// categoriesOf returns the plural categories of whole numbers that a language needs, and those that it
// can have.
func categoriesOf(tag language.Tag) (needed, possible []string) {
	forms := map[plural.Form]string{
		plural.Zero: "zero", plural.One: "one", plural.Two: "two", plural.Few: "few", plural.Many: "many",
		plural.Other: "other",
	}
	seen := make(map[string]bool)
	for n := range 200 {
		seen[forms[plural.Cardinal.MatchPlural(tag, n, 0, 0, 0, 0)]] = true
	}
	pick := func() []string {
		return slices.DeleteFunc(slices.Clone(categories), func(category string) bool { return !seen[category] })
	}
	needed = pick()
	seen[forms[plural.Cardinal.MatchPlural(tag, 1_000_000, 0, 0, 0, 0)]] = true
	seen["other"] = true
	return needed, pick()
}

// placeholders returns the arguments of a text by their number, each with its kind.
func placeholders(text string) map[string]string {
	found := make(map[string]string)
	next := 1
	for _, match := range placeholder.FindAllStringSubmatch(text, -1) {
		number := match[1]
		if number == "" {
			number = fmt.Sprint(next)
		}
		_, _ = fmt.Sscan(number, &next)
		next++
		found[number] = match[2]
	}
	return found
}

// countOf returns the number of the argument that the plural category depends on; 0 if there is none.
func countOf(key string) (number int) {
	for text, kind := range placeholders(key) {
		if kind == "d" {
			_, _ = fmt.Sscan(text, &number)
		}
	}
	return number
}

// checkPlaceholders checks that a translation has the arguments of its key. In one that has no
// argument, a % is a %.
func checkPlaceholders(key, translation string) error {
	want, got := placeholders(key), placeholders(translation)
	if !maps.Equal(want, got) {
		return fmt.Errorf("it must have %s, as the English text; it has %s", listed(want), listed(got))
	}
	if len(want) > 0 && strings.Contains(placeholder.ReplaceAllString(translation, ""), "%") {
		return errors.New("it has a % that is not one of the English text")
	}
	return nil
}

// listed returns placeholders for an error.
func listed(found map[string]string) string {
	if len(found) == 0 {
		return "no placeholder"
	}
	var all []string
	for _, number := range slices.Sorted(maps.Keys(found)) {
		if len(found) == 1 {
			all = append(all, "%"+found[number])
		} else {
			all = append(all, "%["+number+"]"+found[number])
		}
	}
	return strings.Join(all, " and ")
}
