package texts

import (
	"fmt"

	"golang.org/x/text/language"
)

// Export returns all texts as the file of a language has them, to be translated: each key with its
// translation, or else with itself.
func Export(tag string) (map[string]any, error) {
	parsed, err := language.Parse(tag)
	if err != nil {
		return nil, fmt.Errorf("%q is not the tag of a language; write it as in sv or pt-BR", tag)
	}
	catalogue, err := Standard()
	if err != nil {
		return nil, err
	}
	standard := make(map[language.Tag]map[string]entry)
	for _, l := range catalogue.languages {
		standard[l.tag] = l.texts
	}
	of := nearest(standard, parsed)
	if of == nil {
		of = catalogue.English().texts
	}
	needed, _ := categoriesOf(parsed)
	all := make(map[string]any)
	for key := range Keys() {
		found, ok := of[key]
		switch {
		case ok && found.forms == nil:
			all[key] = found.text
		case !ok && countOf(key) == 0:
			all[key] = key
		default:
			forms := make(map[string]string)
			for _, category := range needed {
				if forms[category] = found.forms[category]; forms[category] == "" {
					forms[category] = key
				}
			}
			all[key] = forms
		}
	}
	return all, nil
}
