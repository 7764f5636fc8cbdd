// Package texts has the texts that people read on pages, in answers and in mails, in the languages
// of the catalogue. The key of a text is its English form.
package texts

import (
	"errors"
	"fmt"

	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// Text is a text that is not translated yet. It is an error, so that a check can return it.
type Text struct {
	key  string
	args []any
}

// Errorf returns the error with a text of the catalogue. The arguments take the place of %s and %d.
func Errorf(key string, args ...any) error { return &Text{key, args} }

// Error returns the text in English, for logs and the command line.
func (t *Text) Error() string {
	if len(t.args) == 0 {
		return t.key
	}
	return fmt.Sprintf(t.key, t.args...)
}

// Language is one language of a catalogue. Its methods are safe for concurrent use.
type Language struct {
	tag     language.Tag
	index   int
	texts   map[string]entry
	printer *message.Printer
}

// Tag returns the tag of the language (RFC 5646), such as `de`.
func (l *Language) Tag() string { return l.tag.String() }

// Index returns the number of the language in its catalogue, from 0, which is English.
func (l *Language) Index() int { return l.index }

// Direction returns `rtl` for a language that is written from right to left, otherwise `ltr`.
func (l *Language) Direction() string {
	script, _ := l.tag.Script()
	switch script.String() {
	case "Arab", "Hebr", "Thaa", "Syrc", "Nkoo", "Adlm", "Rohg", "Aran":
		return "rtl"
	}
	return "ltr"
}

// Text returns a text in the language, in English if it is not translated. A text that is not in
// the catalogue shows itself.
func (l *Language) Text(key string, args ...any) string {
	if len(args) == 0 { // it may come from somebody else, so its % mean nothing
		if found, ok := l.texts[key]; ok && found.text != "" {
			return found.text
		}
		return key
	}
	return l.printer.Sprintf(key, args...)
}

// ErrorText returns the text of an error in the language. Errors that are not of [Errorf] show
// themselves.
func (l *Language) ErrorText(err error) string {
	if text, ok := errors.AsType[*Text](err); ok {
		return l.Text(text.key, text.args...)
	}
	return l.Text(err.Error())
}
