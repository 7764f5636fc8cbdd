package web

import (
	"strings"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// pageField is a property of the profile in a form.
type pageField struct {
	Name, Label, Value string
	Autocomplete       string // for browsers that know it (HTML, autofill detail tokens); may be empty
}

// autocomplete has the autofill names of properties of OpenID Connect Core 1.0 §5.1.
var autocomplete = map[string]string{
	"name": "name", "given_name": "given-name", "middle_name": "additional-name", "family_name": "family-name",
	"nickname": "nickname", "website": "url", "birthdate": "bday", "phone_number": "tel", "phone": "tel",
	"company": "organization", "organization": "organization", "address": "street-address", "locale": "language",
	"gender": "sex",
}

func newField(name, value string) pageField {
	return pageField{Name: name, Label: labelOf(name), Value: value, Autocomplete: autocomplete[name]}
}

// labelOf returns the name of a property in words: given_name and givenName are Given name.
func labelOf(name string) string {
	var label strings.Builder
	before := ' '
	for i, r := range name {
		switch {
		case i == 0:
			r = unicode.ToUpper(r)
		case r == '_' || r == '-':
			r = ' '
		case unicode.IsUpper(r) && unicode.IsLower(before):
			label.WriteByte(' ')
			r = unicode.ToLower(r)
		}
		label.WriteRune(r)
		before = r
	}
	return label.String()
}

// signupFields returns the properties that the sign-up page asks for, with what was entered.
func (h *Handler) signupFields(entered func(name string) string) []pageField {
	fields := make([]pageField, len(h.Profile))
	for i, name := range h.Profile {
		fields[i] = newField(name, entered(name))
	}
	return fields
}

// editable returns the properties that the form of the account page has. Values that are no texts
// can only be set by programs.
func (h *Handler) editable(user store.User) (fields []pageField) {
	for _, name := range h.Profile {
		value, present := user.Profile[name]
		text, isText := value.(string)
		if !present || isText {
			fields = append(fields, newField(name, text))
		}
	}
	return fields
}
