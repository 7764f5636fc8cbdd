package jwt

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Claims are the claims of a JWT (RFC 7519 §4). A value is a string, a bool, nil, an int64,
// a float64, an encoding/json.Number (a whole number beyond int64, with all its digits), a
// [List] or nested Claims.
type Claims map[string]any

// List is a list of claim values.
type List []any

// Lookup returns the claim at a path: either the name of a claim, or names and list indices
// joined by dots. A name that itself contains dots, as in "https://example.com/roles", is
// found too.
func (c Claims) Lookup(path string) (any, bool) {
	return lookup(c, path)
}

func lookup(value any, path string) (any, bool) {
	if found, ok := child(value, path); ok {
		return found, true
	}
	for i, r := range path {
		if r != '.' {
			continue
		}
		if inner, ok := child(value, path[:i]); ok {
			if found, ok := lookup(inner, path[i+1:]); ok {
				return found, true
			}
		}
	}
	return nil, false
}

func child(value any, name string) (any, bool) {
	switch v := value.(type) {
	case Claims:
		found, ok := v[name]
		return found, ok
	case List:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(v) {
			return v[i], true
		}
	}
	return nil, false
}

// String returns the claims as JSON, sorted by name.
func (c Claims) String() string {
	text, err := MarshalClaims(c)
	if err != nil {
		return ""
	}
	return string(text)
}

// exactNumbers writes an encoding/json.Number as a number. By default, the library would
// write it as a string.
var exactNumbers = json.WithMarshalers(json.MarshalToFunc(func(e *jsontext.Encoder, n stdjson.Number) error {
	return e.WriteValue(jsontext.Value(n))
}))

// MarshalClaims returns claims as JSON, with numbers exactly as they were read.
func MarshalClaims(claims map[string]any) ([]byte, error) {
	return json.Marshal(claims, json.Deterministic(true), exactNumbers)
}

// String returns the values as text, joined by commas.
func (l List) String() string {
	texts := make([]string, len(l))
	for i, value := range l {
		texts[i] = ClaimText(value)
	}
	return strings.Join(texts, ",")
}

// ClaimText returns a claim as text: whole numbers exactly, lists joined by commas, objects
// as JSON, null as the empty string.
func ClaimText(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case stdjson.Number:
		return v.String()
	case List:
		return v.String()
	case Claims:
		return v.String()
	}
	return ""
}

// claimsReader reads claims from a decoder. Its strings are parts of one shared string,
// which is much cheaper than one allocation each.
type claimsReader struct {
	*jsontext.Decoder
	whole string
}

var decoders = sync.Pool{New: func() any { return jsontext.NewDecoder(bytes.NewReader(nil)) }}

// ParseClaims parses a JSON object as RFC 7519 §4 and RFC 8725 §2.4 require: unique names
// at every depth, valid UTF-8, and nothing after the object. The decoder checks all of this
// by default.
func ParseClaims(text []byte) (Claims, error) {
	r := claimsReader{decoders.Get().(*jsontext.Decoder), string(text)}
	defer decoders.Put(r.Decoder)
	r.Reset(bytes.NewBuffer(text))
	if r.PeekKind() != '{' {
		return nil, errors.New("not a JSON object")
	}
	claims, err := r.object(usualClaims)
	if err != nil {
		return nil, JSONError(err)
	}
	if _, err := r.ReadToken(); err != io.EOF {
		return nil, errors.New("extra bytes after the JSON object")
	}
	return claims, nil
}

// usualClaims is the initial capacity. Access tokens have about ten claims, and a map with
// room for 14 is the largest of its size class.
const usualClaims = 14

// value exists because the library decodes a number in an `any` as a float64, which cannot
// represent all whole numbers above 2⁵³.
func (r claimsReader) value() (any, error) {
	switch r.PeekKind() {
	case '{':
		return r.object(0)
	case '[':
		return r.list()
	case '"':
		return r.text()
	}
	token, err := r.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case '0':
		return number(token.String()), nil
	case 't', 'f':
		return token.Bool(), nil
	}
	return nil, nil
}

func (r claimsReader) object(room int) (Claims, error) {
	if _, err := r.ReadToken(); err != nil {
		return nil, err
	}
	object := make(Claims, room)
	for r.PeekKind() != '}' {
		name, err := r.text()
		if err != nil {
			return nil, err
		}
		if object[name], err = r.value(); err != nil {
			return nil, err
		}
	}
	_, err := r.ReadToken()
	return object, err
}

func (r claimsReader) list() (List, error) {
	if _, err := r.ReadToken(); err != nil {
		return nil, err
	}
	var list List
	for r.PeekKind() != ']' {
		value, err := r.value()
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := r.ReadToken()
	return list, err
}

// text reads a string: a claim name or a value.
func (r claimsReader) text() (string, error) {
	quoted, err := r.ReadValue()
	if err != nil {
		return "", err
	}
	if quoted.Kind() != '"' || bytes.IndexByte(quoted, '\\') >= 0 {
		unquoted, err := jsontext.AppendUnquote(nil, quoted)
		return string(unquoted), err
	}
	end := int(r.InputOffset()) - 1
	return r.whole[end-(len(quoted)-2) : end], nil
}

func number(text string) any {
	if whole, err := strconv.ParseInt(text, 10, 64); err == nil {
		return whole
	}
	fraction, err := strconv.ParseFloat(text, 64)
	if err != nil || !strings.ContainsAny(text, ".eE") {
		return stdjson.Number(text)
	}
	return fraction
}

// numericDate converts a NumericDate (RFC 7519 §2) to seconds. Any finite number is
// accepted, also with a fraction.
func numericDate(value any) (float64, bool) {
	switch v := value.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case stdjson.Number:
		seconds, err := v.Float64()
		return seconds, err == nil && !math.IsInf(seconds, 0)
	}
	return 0, false
}

// Time returns a claim that is a NumericDate (RFC 7519 §2) as a time, from 1970 to the year 9999.
func Time(value any) (at time.Time, ok bool) {
	seconds, ok := numericDate(value)
	if !ok {
		return at, false
	}
	return time.UnixMilli(int64(min(max(seconds, 0), lastSecond) * 1000)), true
}

// JSONError returns an error with the kind and position of a JSON error, but without its
// excerpt of the input, which is part of a token.
func JSONError(err error) error {
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		what := "malformed JSON"
		if errors.Is(err, jsontext.ErrDuplicateName) {
			what = "a name that appears twice"
		}
		return errors.New(what + " at byte " + strconv.FormatInt(syntactic.ByteOffset, 10))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("malformed JSON: unexpected end")
	}
	return errors.New("malformed JSON")
}

// IsScope reports whether a text is a scope: one word of visible ASCII without quotes and
// backslashes (RFC 6749 §3.3).
func IsScope(text string) bool {
	return text != "" &&
		!strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

var defaultScopeClaims = []string{"scope", "scp"}

// Scopes returns the scopes in the first of the claims that has any, by their paths. Default:
// `scope` and `scp` (RFC 8693 §4.2). A string has words separated by spaces (RFC 6749 §3.3).
func Scopes(claims Claims, paths ...string) []string {
	if len(paths) == 0 {
		paths = defaultScopeClaims
	}
	for _, path := range paths {
		value, _ := claims.Lookup(path)
		var found []string
		if text, ok := value.(string); ok {
			found = strings.FieldsFunc(text, func(r rune) bool { return r == ' ' })
		} else {
			found = Texts(value)
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// Texts returns a claim as a list of strings. Values other than strings, numbers and
// booleans are omitted.
func Texts(value any) []string {
	list, isList := value.(List)
	if !isList {
		list = List{value}
	}
	var found []string
	for _, element := range list {
		switch element.(type) {
		case nil, Claims, List:
		default:
			found = append(found, ClaimText(element))
		}
	}
	return found
}
