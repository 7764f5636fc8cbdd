package texts

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/message/catalog"
)

//go:embed catalogue/*.json
var embedded embed.FS

// Catalogue has the texts of all languages.
type Catalogue struct {
	languages []*Language
	matcher   language.Matcher
	choices   sync.Map // of *Language, by header
	chosen    atomic.Int32
}

// maxChoices is how many values of Accept-Language are remembered. Browsers send few.
const maxChoices = 1000

// Standard returns the languages that come with the program.
var Standard = sync.OnceValues(func() (*Catalogue, error) { return build(nil, nil) })

// Open returns the standard languages, and those of a folder: a file `<tag>.json` adds a language or
// replaces texts of one. It can also have the texts of the templates in another folder. Empty folders are
// none.
func Open(dir, templates string) (*Catalogue, error) {
	if dir == "" {
		return Standard()
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf(
			"languages: there is no folder %s; create it, or remove the option to use the standard languages", dir,
		)
	}
	known := maps.Clone(Keys())
	if templates != "" {
		if err := addTexts(known, os.DirFS(templates)); err != nil {
			return nil, fmt.Errorf("templates: %w", err)
		}
	}
	return build(os.DirFS(dir), known)
}

// build returns the catalogue of the standard languages and those of a folder, nil for none, whose files
// have known texts.
func build(own fs.FS, known map[string]bool) (*Catalogue, error) {
	standard, err := fs.Sub(embedded, "catalogue")
	if err != nil {
		return nil, err
	}
	files, err := readFolder(standard, nil)
	if err != nil {
		return nil, err
	}
	all := make(map[language.Tag]map[string]entry)
	for tag, texts := range files {
		all[tag] = texts
	}
	if own != nil {
		files, err := readFolder(own, known)
		if err != nil {
			return nil, err
		}
		// A language before its regions, so that de-AT has what de has.
		for _, tag := range slices.SortedFunc(maps.Keys(files), func(a, b language.Tag) int {
			return strings.Compare(a.String(), b.String())
		}) {
			whole := maps.Clone(nearest(all, tag))
			if whole == nil {
				whole = make(map[string]entry)
			}
			maps.Copy(whole, files[tag])
			all[tag] = whole
		}
	}
	return newCatalogue(all)
}

// nearest returns the texts of a language, or else of the one that it is a variant of, as es is for
// es-MX; nil if there is none.
func nearest(all map[language.Tag]map[string]entry, tag language.Tag) map[string]entry {
	for ; tag != language.Und; tag = tag.Parent() {
		if texts := all[tag]; texts != nil {
			return texts
		}
	}
	return nil
}

func newCatalogue(all map[language.Tag]map[string]entry) (*Catalogue, error) {
	c := new(Catalogue)
	builder := catalog.NewBuilder(catalog.Fallback(language.English))
	tags := slices.SortedFunc(maps.Keys(all), func(a, b language.Tag) int {
		switch {
		case a == language.English:
			return -1
		case b == language.English:
			return 1
		}
		return strings.Compare(a.String(), b.String())
	})
	for i, tag := range tags {
		l := &Language{tag: tag, index: i, texts: all[tag]}
		var failed error
		for key, text := range all[tag] {
			failed = errors.Join(failed, builder.Set(tag, key, text.message(key)...))
		}
		if failed != nil {
			return nil, fmt.Errorf("languages: %s: %w", tag, failed)
		}
		c.languages = append(c.languages, l)
	}
	for _, l := range c.languages {
		l.printer = message.NewPrinter(l.tag, message.Catalog(builder))
	}
	c.matcher = language.NewMatcher(tags)
	return c, nil
}

// entry is a text in one language: one form, or one for each plural category.
type entry struct {
	text  string
	forms map[string]string
}

// message returns the text for the catalogue of x/text.
func (e entry) message(key string) []catalog.Message {
	if e.forms == nil {
		return []catalog.Message{catalog.String(e.text)}
	}
	var cases []any
	for _, category := range categories {
		if form, ok := e.forms[category]; ok {
			cases = append(cases, category, form)
		}
	}
	return []catalog.Message{plural.Selectf(countOf(key), "%d", cases...)}
}

// Languages returns all languages, English first.
func (c *Catalogue) Languages() []*Language { return c.languages }

// English returns English.
func (c *Catalogue) English() *Language { return c.languages[0] }

// Named returns the language that suits a tag (RFC 5646), and whether there is one; else English.
func (c *Catalogue) Named(tag string) (*Language, bool) {
	parsed, err := language.Parse(tag)
	if err != nil {
		return c.English(), false
	}
	_, i, confidence := c.matcher.Match(parsed)
	return c.languages[i], confidence > language.No
}

// Preferring returns the first language that suits one of the tags, separated by spaces, or nil.
func (c *Catalogue) Preferring(tags string) *Language {
	for tag := range strings.FieldsSeq(tags[:min(len(tags), maxAccepted)]) {
		if language, ok := c.Named(tag); ok {
			return language
		}
	}
	return nil
}

// maxAccepted is the maximum length of a header that is read, in bytes.
const maxAccepted = 1024

// registered returns a header without the languages that are in no registry, as one of them makes the whole
// invalid for x/text.
func registered(header string) string {
	all := slices.DeleteFunc(strings.Split(header, ","), func(one string) bool {
		_, _, err := language.ParseAcceptLanguage(one)
		return err != nil
	})
	return strings.Join(all, ",")
}

// Accepting returns the language that suits a header Accept-Language (RFC 9110 §12.5.4) best, or
// English if none does. The header is a client's, so it can be anything.
func (c *Catalogue) Accepting(header string) *Language {
	if header == "" || len(header) > maxAccepted {
		return c.English()
	}
	if known, ok := c.choices.Load(header); ok {
		return known.(*Language)
	}
	best := c.English()
	if tags, _, err := language.ParseAcceptLanguage(registered(header)); err == nil {
		if _, i, confidence := c.matcher.Match(tags...); confidence > language.No {
			best = c.languages[i]
		}
	}
	if c.chosen.Add(1) <= maxChoices {
		c.choices.Store(header, best)
	} else {
		c.chosen.Store(maxChoices)
	}
	return best
}
