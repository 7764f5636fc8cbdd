package web

import (
	"cmp"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// MaxBodyBytes is the maximum size of a request body, in bytes.
const MaxBodyBytes = 64 << 10

// MaxPropertyErrors is the maximum number of listed errors of a body. If there are more,
// one additional entry says so.
const MaxPropertyErrors = 16

// input is the body of a request: a JSON object or a form.
type input struct {
	values     map[string]any
	form       bool
	properties []refusal.PropertyError
	unknown    int // properties
}

// trimmed are the properties to which keyboards of phones add a space.
var trimmed = []string{"email", "username"}

func isForm(r *http.Request) bool {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return kind == "application/x-www-form-urlencoded"
}

// readInput reads a body. Unknown properties are an error.
func readInput(w http.ResponseWriter, r *http.Request, known ...string) (*input, error) {
	in := &input{form: isForm(r)}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" && !in.form {
		return nil, refusal.New(refusal.MediaType, "it is %s", refusal.Quoted(kind))
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxBodyBytes)
	if in.form {
		return in, in.readForm(r)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, bodyRefusal(err)
	}
	object, err := jwt.ParseClaims(text)
	if err != nil {
		return nil, refusal.New(refusal.Body, "%v", err)
	}
	for _, name := range trimmed {
		if text, ok := object[name].(string); ok {
			object[name] = strings.Trim(text, " \t")
		}
	}
	in.values = object
	for name := range object {
		if slices.Contains(known, name) {
			continue
		}
		if in.unknown++; in.unknown <= MaxPropertyErrors {
			in.wrong(name, "additionalProperties", texts.Errorf("is not a known property"), map[string]any{
				"additionalProperty": shownName(name),
			})
		}
	}
	return in, nil
}

func (in *input) readForm(r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return bodyRefusal(err)
	}
	in.values = make(map[string]any)
	for name, values := range r.PostForm {
		if len(values) > 1 {
			return refusal.New(refusal.Body, "a field of the form is specified twice")
		}
		if slices.Contains(trimmed, name) {
			values[0] = strings.TrimSpace(values[0])
		}
		if values[0] != "" {
			in.values[name] = values[0]
		}
	}
	return nil
}

func bodyRefusal(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refusal.New(refusal.BodyTooLarge, "more than %d bytes", MaxBodyBytes)
	}
	return refusal.New(refusal.Body, "it was not received completely")
}

// text returns a property that is a string, otherwise the empty string.
func (in *input) text(name string) string {
	text, _ := in.values[name].(string)
	return text
}

// want returns a required string.
func (in *input) want(name string) string {
	value, present := in.values[name]
	text, isText := value.(string)
	switch {
	case !present:
		in.wrong(name, "required", texts.Errorf("is required"), map[string]any{"missingProperty": name})
	case !isText:
		in.wrong(name, "type", texts.Errorf("must be a string"), map[string]any{"type": "string"})
	case text == "":
		in.wrong(name, "minLength", texts.Errorf("must not be empty"), map[string]any{"limit": 1})
	}
	return text
}

// wantEmail returns the required e-mail address of a new account, or a new one.
func (h *Handler) wantEmail(in *input) string {
	email := in.want("email")
	if err := store.CheckNewEmail(email); email != "" && err != nil {
		in.wrong("email", "format", err, map[string]any{"format": "email"})
	}
	return email
}

// wantPassword returns a required new password.
func (h *Handler) wantPassword(in *input, name string) string {
	pw := in.want(name)
	if err := password.CheckNew(pw, h.PasswordMinLength); pw != "" && err != nil { // a missing one is already reported
		code, info := "password", map[string]any{}
		switch {
		case password.Length(pw) < h.PasswordMinLength:
			code, info = "minLength", map[string]any{"limit": h.PasswordMinLength}
		case len(pw) > password.MaxBytes:
			code, info = "maxLength", map[string]any{"limit": password.MaxBytes}
		}
		in.wrong(name, code, err, info)
	}
	return pw
}

// profile returns the optional properties of a new user.
func (h *Handler) profile(in *input) map[string]any {
	profile := make(map[string]any)
	for _, name := range h.Profile {
		value, given := in.values[name]
		if store.OutOfRange(value) {
			in.wrong(name, "type", texts.Errorf("contains a number that is out of range"), map[string]any{})
		}
		limit := map[string]any{"limit": store.MaxProfileDepth}
		if store.DeeperThan(value, store.MaxProfileDepth) {
			in.wrong(name, "maxDepth", texts.Errorf("is nested deeper than %d levels", store.MaxProfileDepth), limit)
		} else if store.ValueSize(value) > store.MaxProfileBytes {
			limit["limit"] = store.MaxProfileBytes
			in.wrong(name, "maxLength", texts.Errorf("has more than %d bytes", store.MaxProfileBytes), limit)
		}
		if given {
			profile[name] = store.PlainValue(value)
		}
	}
	return profile
}

func (in *input) wrong(name, code string, err error, info map[string]any) {
	path := "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(shownName(name))
	in.properties = append(in.properties, refusal.PropertyError{
		Path: path, Code: code, Message: err.Error(), Info: info, Cause: err,
	})
}

func (in *input) err() error {
	if len(in.properties) == 0 {
		return nil
	}
	all := len(in.properties) + max(0, in.unknown-MaxPropertyErrors)
	if all > MaxPropertyErrors { // known properties come first
		slices.SortStableFunc(in.properties, func(a, b refusal.PropertyError) int {
			return cmp.Compare(btoi(a.Code == "additionalProperties"), btoi(b.Code == "additionalProperties"))
		})
		in.properties = in.properties[:MaxPropertyErrors]
	}
	slices.SortFunc(in.properties, func(a, b refusal.PropertyError) int { return strings.Compare(a.Path, b.Path) })
	if more := all - len(in.properties); more > 0 {
		err := texts.Errorf("has errors that are not listed: %d", more)
		in.properties = append(in.properties, refusal.PropertyError{
			Path: "", Code: "more", Message: err.Error(), Info: map[string]any{"more": more}, Cause: err,
		})
	}
	return &refusal.Error{Reason: refusal.Properties, Properties: in.properties}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// shownName returns a property's name for a response, shortened because JSON needs six
// characters for a control character.
func shownName(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' {
			return '\ufffd'
		}
		return r
	}, accounts.Cut(name, 64))
}
