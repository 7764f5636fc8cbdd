package jwt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxTokenBytes is the maximum length of a token, in bytes. It is checked before anything
// is split or decoded.
const MaxTokenBytes = 16 << 10

type readHeader struct {
	encoded string
	header  joseHeader
}

type compact struct {
	signingInput, payload, signature []byte

	header string // still encoded
}

// base64URL rejects unused bits in the last character.
var base64URL = base64.RawURLEncoding.Strict()

// scratches pools the buffers that splitCompact decodes into; nothing that outlives the
// call may alias one.
var scratches = sync.Pool{New: func() any { return new([]byte) }}

// splitCompact splits a JWS in compact serialization (RFC 7515 §7.1): exactly three parts
// of base64url, without padding or white space. A JWE has five parts, so it is rejected
// here, before any key is used. The parts alias the scratch buffer and are valid until its
// next use.
func splitCompact(token string, scratch *[]byte) (parts compact, err error) {
	if len(token) > MaxTokenBytes {
		return parts, refusal.New(refusal.TokenTooLarge, "%d bytes; at most %d are accepted", len(token), MaxTokenBytes)
	}
	// The decoder ignores line breaks, so reject them here.
	if strings.Count(token, ".") != 2 || strings.IndexByte(token, '\r') >= 0 || strings.IndexByte(token, '\n') >= 0 {
		return parts, refusal.New(
			refusal.MalformedToken, "a signed JWT has 3 parts, not %d", strings.Count(token, ".")+1,
		)
	}
	buffer := append(slices.Grow((*scratch)[:0], 2*len(token)), token...)
	raw := buffer[:len(token):len(token)]
	first := bytes.IndexByte(raw, '.')
	last := first + 1 + bytes.IndexByte(raw[first+1:], '.')
	parts.signingInput, parts.header = raw[:last], token[:first]
	for _, part := range []struct {
		name string
		text []byte
		into *[]byte
	}{
		{"payload", raw[first+1 : last], &parts.payload},
		{"signature", raw[last+1:], &parts.signature},
	} {
		begin := len(buffer)
		buffer, err = base64URL.AppendDecode(buffer, part.text)
		if err != nil || len(buffer) == begin {
			return parts, notBase64(part.name)
		}
		*part.into = buffer[begin:len(buffer):len(buffer)]
	}
	*scratch = buffer
	return parts, nil
}

func notBase64(part string) *refusal.Error {
	return refusal.New(refusal.MalformedToken, "the %s is empty or not strict base64url", part)
}

func (v *Verifier) header(encoded string) (*joseHeader, error) {
	if last := v.lastHeader.Load(); last != nil && last.encoded == encoded {
		return &last.header, nil
	}
	header, err := decodeHeader(encoded)
	if err != nil {
		return nil, err
	}
	read := &readHeader{strings.Clone(encoded), header}
	v.lastHeader.Store(read)
	return &read.header, nil
}

func decodeHeader(encoded string) (joseHeader, error) {
	text, err := base64URL.DecodeString(encoded)
	if err != nil || len(text) == 0 {
		return joseHeader{}, notBase64("header")
	}
	return parseHeader(text)
}

// joseHeader holds the header parameters that are used (RFC 7515 §4.1). Keys and key URLs
// in the header (jwk, jku, x5c, x5u) are ignored.
type joseHeader struct {
	Algorithm   string         `json:"alg"`
	KeyID       string         `json:"kid"`
	Type        string         `json:"typ"`
	ContentType string         `json:"cty"`
	Critical    jsontext.Value `json:"crit"`
	Base64      jsontext.Value `json:"b64"`

	Others map[string]jsontext.Value `json:",embed"`

	hint KeyHint
}

var registeredParameters = []string{"alg", "kid", "typ", "cty", "crit", "b64"}

func parseHeader(text []byte) (header joseHeader, err error) {
	if err := json.Unmarshal(text, &header); err != nil {
		if _, ok := errors.AsType[*json.SemanticError](err); ok {
			return header, refusal.New(refusal.Header, "not a JSON object whose alg, kid, typ and cty are strings")
		}
		return header, refusal.New(refusal.Header, "%v", JSONError(err))
	}
	if err := checkNames(header.Others, registeredParameters); err != nil {
		return header, refusal.New(refusal.Header, "%v", err)
	}
	switch {
	case header.Critical != nil || header.Base64 != nil:
		return header, refusal.New(
			refusal.Header, "it has crit or b64, but no extensions are supported (RFC 7515 §4.1.11, RFC 7797)",
		)
	case len(header.KeyID) > maxKeyIDBytes:
		return header, refusal.New(
			refusal.Header, "kid has %d bytes; at most %d are accepted", len(header.KeyID), maxKeyIDBytes,
		)
	case header.Algorithm == "":
		return header, refusal.New(refusal.Header, "alg is missing")
	case isJWT(header.ContentType):
		return header, refusal.New(refusal.Header, "cty is %s, so it contains another JWT instead of claims "+
			"(RFC 7519 §5.2); let the issuer sign the claims themselves", refusal.Quoted(header.ContentType))
	}
	header.hint = KeyHint{Algorithm: header.Algorithm, ID: header.KeyID}
	if header.KeyID == "" {
		header.hint.Thumbprint256, header.hint.Thumbprint1 = header.text("x5t#S256"), header.text("x5t")
	}
	return header, nil
}

// text returns a parameter that is a string, or an empty one.
func (h joseHeader) text(name string) (text string) {
	if json.Unmarshal(h.Others[name], &text) != nil {
		return ""
	}
	return text
}

// checkNames rejects names that differ from a registered name only in case, because a
// case-insensitive reader would confuse them (RFC 7515 §5.3).
func checkNames[V any](object map[string]V, registered []string) error {
	for name := range object {
		if !foldable(name) {
			continue
		}
		for _, exact := range registered {
			if strings.EqualFold(name, exact) {
				return fmt.Errorf("%q differs from %q only in case", name, exact)
			}
		}
	}
	return nil
}

// foldable reports whether a name has a letter that may fold to a lower-case ASCII letter:
// a capital, U+017F or U+212A.
func foldable(name string) bool {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' || c >= 0x80 {
			return true
		}
	}
	return false
}

// checkType prevents ID tokens, logout tokens, DPoP proofs and similar from being accepted
// as access tokens (RFC 8725 §3.11).
func checkType(typ string, accepted []string) error {
	got, expected := mediaType(typ), "JWT, at+jwt or JOSE"
	if len(accepted) == 0 {
		switch got {
		case "", "jwt", "at+jwt", "jose": // JOSE says as little as JWT (RFC 7515 §4.1.9)
			return nil
		}
	} else {
		if slices.ContainsFunc(accepted, func(one string) bool { return got == mediaType(one) }) {
			return nil
		}
		expected = strings.Join(accepted, " or ")
	}
	return refusal.New(refusal.TokenType, "typ is %s; expected %s", refusal.Quoted(typ), expected)
}

// isJWT reports whether a `cty` says that the content is another token (RFC 7519 §5.2).
func isJWT(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";") // a media type may have parameters
	return mediaType(strings.TrimSpace(kind)) == "jwt"
}

func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// Decoded is the content of a token that was not verified.
type Decoded struct {
	// Header and Payload are the JSON texts of the token, or nil if they cannot be read.
	Header, Payload []byte
	// Claims are the claims of the payload, or nil.
	Claims Claims
}

// Decode returns the content of a token without verifying its signature or claims. Use it
// only to display a token, never for a decision. For a malformed token it returns the
// readable parts, and the error that [Verifier.Verify] would return.
func Decode(token string) (Decoded, error) {
	parts, err := splitCompact(token, new([]byte))
	decoded := Decoded{Payload: parts.payload}
	header, headerErr := base64URL.DecodeString(parts.header)
	if headerErr == nil {
		decoded.Header = header
	} else if err == nil {
		err = notBase64("header")
	}
	if err == nil {
		_, err = parseHeader(header)
	}
	if err != nil {
		return decoded, err
	}
	claims, err := ParseClaims(parts.payload)
	if err == nil {
		err = checkNames(claims, registeredClaims)
	}
	if err != nil {
		return decoded, refusal.New(refusal.Claims, "payload: %v", err)
	}
	decoded.Claims = claims
	return decoded, nil
}
