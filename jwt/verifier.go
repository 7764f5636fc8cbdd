package jwt

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxTokenBytes caps a token before anything is split or decoded.
const MaxTokenBytes = 16 << 10

// KeySource finds the keys that may have signed a token. Find returns none if
// it has no such key, and an *[Error] if it cannot tell. It may wait for a
// key set to load, until ctx ends. algorithm has been checked against the
// issuer's; id is the token's key ID, empty if it has none.
type KeySource interface {
	Find(ctx context.Context, algorithm, id string) ([]*Key, error)
}

// Refetcher is a KeySource that may know of other keys when it is asked again,
// after those that it gave first did not verify the signature.
type Refetcher interface {
	FindAgain(ctx context.Context, algorithm, id string) ([]*Key, error)
}

// Find implements KeySource.
func (s *KeySet) Find(_ context.Context, algorithm, id string) ([]*Key, error) {
	return s.Match(algorithm, id), nil
}

// Issuer is somebody whose tokens are accepted, with the keys that only it
// signs with.
type Issuer struct {
	// Name is what the `iss` claim must equal, to the letter (RFC 7519
	// §4.1.1). Empty leaves `iss` unchecked, and then it is the only issuer.
	Name string
	// Keys are asked in turn for the key of a token.
	Keys []KeySource
	// Algorithms (RFC 7518 §3.1) that are accepted. Required; a key still
	// verifies only those that it was made for.
	Algorithms []string
	// Audience: the `aud` claim must hold one of these (RFC 7519 §4.1.3).
	// Default: `aud` is not compared.
	Audience []string
	// TokenType is the `typ` that the header must have, compared without
	// case and without "application/" (RFC 7515 §4.1.9), such as at+jwt of
	// RFC 9068. Default: absent, JWT or at+jwt.
	TokenType string

	Revoked *Revocations // sessions, by `sid`, whose tokens are no longer good
}

// VerifierConfig says which tokens a [Verifier] accepts.
type VerifierConfig struct {
	// Issuers whose tokens are accepted. Required, each Name once.
	Issuers []Issuer
	// Leeway is the clock difference allowed in exp, nbf and iat. Default: 0.
	Leeway time.Duration
	// AllowMissingExpiry accepts tokens without `exp`. Such a token is good
	// until its key is changed: nobody can take it back.
	AllowMissingExpiry bool
	// UserID are the paths of the claims that may name the user; the first
	// that is there and not empty does, and a token without is refused.
	// Default: `sub`.
	UserID []string
}

// Verifier verifies JWTs (RFC 7519) in the compact serialisation of RFC 7515,
// by the rules of RFC 8725. It knows nothing of HTTP, and is safe for
// concurrent use.
type Verifier struct {
	issuers map[string]*Issuer
	anyone  *Issuer
	leeway  float64 // seconds
	config  VerifierConfig

	// lastHeader was read last: an issuer signs most tokens with one header.
	lastHeader atomic.Pointer[readHeader]
}

type readHeader struct {
	encoded string
	header  joseHeader
}

// Token is what a verified token says.
type Token struct {
	// Claims of the token.
	Claims Claims
	// UserID is the text of the claim that names the user.
	UserID string

	expiry  float64 // seconds since 1970, the leeway included; 0 for none
	begins  float64 // likewise
	key     *Key
	boxedID any // UserID in an interface, made once and not per request
	session liveness
}

// lastSecond is the end of the year 9999, the last that RFC 3339 can write.
const lastSecond = 253402300799

// UserIDValue is UserID in an interface, and allocates nothing.
func (t *Token) UserIDValue() any { return t.boxedID }

// Expiry is when the token ends, the leeway included, in the year 9999 at the
// latest; zero if it never does.
func (t *Token) Expiry() time.Time {
	if t.expiry == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(min(t.expiry, lastSecond) * 1000))
}

// NewVerifier checks the configuration.
func NewVerifier(config VerifierConfig) (*Verifier, error) {
	v := &Verifier{issuers: make(map[string]*Issuer), leeway: config.Leeway.Seconds(), config: config}
	if len(config.UserID) == 0 {
		v.config.UserID = []string{"sub"}
	}
	for i := range config.Issuers {
		issuer := &config.Issuers[i]
		switch {
		case len(issuer.Keys) == 0 || len(issuer.Algorithms) == 0:
			return nil, fmt.Errorf("issuer %q has no keys or no algorithms", issuer.Name)
		case issuer.Name == "" && len(config.Issuers) > 1:
			return nil, errors.New("there are several issuers, accounts included, and one has no name; each needs one, which tells whose a token is")
		case issuer.Name == "":
			v.anyone = issuer
		case v.issuers[issuer.Name] != nil:
			return nil, fmt.Errorf("issuer %q is specified twice", issuer.Name)
		default:
			v.issuers[issuer.Name] = issuer
		}
	}
	if len(config.Issuers) == 0 {
		return nil, errors.New("no issuer, so no token could be accepted")
	}
	return v, nil
}

// Verify checks a token as it stood at the time now, and returns what it says
// or the *[Error] that tells which check it failed. It waits only where keys
// must be fetched, and then not longer than ctx lives.
func (v *Verifier) Verify(ctx context.Context, token string, now time.Time) (*Token, error) {
	scratch := scratches.Get().(*[]byte)
	defer scratches.Put(scratch)
	parts, err := SplitCompact(token, scratch)
	if err != nil {
		return nil, err
	}
	header, err := v.header(parts.Header)
	if err != nil {
		return nil, err
	}
	claims, err := ParseClaims(parts.Payload)
	if err != nil {
		return nil, refusal.New(refusal.Claims, "payload: %v", err)
	}
	if err := CheckNames(claims, RegisteredClaims); err != nil {
		return nil, refusal.New(refusal.Claims, "payload: %v", err)
	}
	issuer, err := v.issuer(claims)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(issuer.Algorithms, header.Algorithm) {
		return nil, refusal.New(refusal.Algorithm, "alg is %s, accepted: %s", refusal.Quoted(header.Algorithm), strings.Join(issuer.Algorithms, ", "))
	}
	if err := checkType(header.Type, issuer.TokenType); err != nil {
		return nil, err
	}
	key, err := verifySignature(ctx, issuer, header, parts)
	if err != nil {
		return nil, err
	}
	verified := &Token{Claims: claims, key: key}
	if verified.begins, verified.expiry, err = v.checkTimes(claims, now); err != nil {
		return nil, err
	}
	if err := checkAudience(claims, issuer.Audience); err != nil {
		return nil, err
	}
	if verified.UserID, err = v.userID(claims); err != nil {
		return nil, err
	}
	verified.boxedID = verified.UserID
	if issuer.Revoked != nil {
		verified.session.revoked = issuer.Revoked
		verified.session.sessionID, _ = claims["sid"].(string)
		if verified.session.ended() {
			return nil, refusal.New(refusal.Revoked, "session %s", refusal.Quoted(verified.session.sessionID))
		}
	}
	return verified, nil
}

// good tells whether a token that was verified before still is good, also by
// a clock that was set back.
func (t *Token) good(now time.Time) bool {
	at := seconds(now)
	return !t.key.Withdrawn.Load() && (t.expiry == 0 || at < t.expiry) && at >= t.begins && !t.session.ended()
}

type compact struct {
	SigningInput, Payload, Signature []byte

	Header string // still encoded
}

// Base64URL is strict about the bits that the last character leaves over.
var Base64URL = base64.RawURLEncoding.Strict()

// scratches are buffers that splitCompact decodes into: nothing of a token that
// is kept lies in one.
var scratches = sync.Pool{New: func() any { return new([]byte) }}

// SplitCompact takes a JWS compact serialisation apart (RFC 7515 §7.1):
// exactly three parts of base64url, without padding or white space. A JWE has
// five parts and ends here, before any key is looked at. The parts lie in the
// scratch buffer, and are good until that is used again.
func SplitCompact(token string, scratch *[]byte) (parts compact, err error) {
	if len(token) > MaxTokenBytes {
		return parts, refusal.New(refusal.TokenTooLarge, "%d bytes, at most %d are accepted", len(token), MaxTokenBytes)
	}
	// The decoder skips line ends, so they are looked for here.
	if strings.Count(token, ".") != 2 || strings.IndexByte(token, '\r') >= 0 || strings.IndexByte(token, '\n') >= 0 {
		return parts, refusal.New(refusal.MalformedToken, "%d parts, a signed JWT has 3", strings.Count(token, ".")+1)
	}
	buffer := append(slices.Grow((*scratch)[:0], 2*len(token)), token...)
	raw := buffer[:len(token):len(token)]
	first := bytes.IndexByte(raw, '.')
	last := first + 1 + bytes.IndexByte(raw[first+1:], '.')
	parts.SigningInput, parts.Header = raw[:last], token[:first]
	for _, part := range []struct {
		name string
		text []byte
		into *[]byte
	}{
		{"payload", raw[first+1 : last], &parts.Payload},
		{"signature", raw[last+1:], &parts.Signature},
	} {
		begin := len(buffer)
		buffer, err = Base64URL.AppendDecode(buffer, part.text)
		if err != nil || len(buffer) == begin {
			return parts, NotBase64(part.name)
		}
		*part.into = buffer[begin:len(buffer):len(buffer)]
	}
	*scratch = buffer
	return parts, nil
}

func NotBase64(part string) *refusal.Error {
	return refusal.New(refusal.MalformedToken, "the %s is empty or not strict base64url", part)
}

func (v *Verifier) header(encoded string) (joseHeader, error) {
	if last := v.lastHeader.Load(); last != nil && last.encoded == encoded {
		return last.header, nil
	}
	text, err := Base64URL.DecodeString(encoded)
	if err != nil || len(text) == 0 {
		return joseHeader{}, NotBase64("header")
	}
	header, err := ParseHeader(text)
	if err == nil {
		v.lastHeader.Store(&readHeader{strings.Clone(encoded), header})
	}
	return header, err
}

// joseHeader holds the header parameters that are used (RFC 7515 §4.1). A key
// or a URL of one in the header (jwk, jku, x5c, x5u) is never looked at.
type joseHeader struct {
	Algorithm string         `json:"alg"`
	KeyID     string         `json:"kid"`
	Type      string         `json:"typ"`
	Critical  jsontext.Value `json:"crit"`
	Base64    jsontext.Value `json:"b64"`

	Others map[string]jsontext.Value `json:",embed"`
}

var (
	registeredParameters = []string{"alg", "kid", "typ", "crit", "b64"}
	RegisteredClaims     = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "events"}
)

func ParseHeader(text []byte) (header joseHeader, err error) {
	if err := json.Unmarshal(text, &header); err != nil {
		if _, ok := errors.AsType[*json.SemanticError](err); ok {
			return header, refusal.New(refusal.Header, "not a JSON object whose alg, kid and typ are strings")
		}
		return header, refusal.New(refusal.Header, "%v", JSONError(err))
	}
	if err := CheckNames(header.Others, registeredParameters); err != nil {
		return header, refusal.New(refusal.Header, "%v", err)
	}
	switch {
	case header.Critical != nil || header.Base64 != nil:
		return header, refusal.New(refusal.Header, "crit or b64 stands in it, and no extension is understood (RFC 7515 §4.1.11, RFC 7797)")
	case len(header.KeyID) > maxKeyIDBytes:
		return header, refusal.New(refusal.Header, "kid has %d bytes, at most %d are accepted", len(header.KeyID), maxKeyIDBytes)
	case header.Algorithm == "":
		return header, refusal.New(refusal.Header, "alg is missing")
	}
	return header, nil
}

// CheckNames refuses names that differ from a registered one by case alone: a
// reader that folds case would take them for it (RFC 7515 §5.3).
func CheckNames[V any](object map[string]V, registered []string) error {
	for name := range object {
		if !foldable(name) {
			continue
		}
		for _, exact := range registered {
			if strings.EqualFold(name, exact) {
				return fmt.Errorf("%q differs from %q by case", name, exact)
			}
		}
	}
	return nil
}

// foldable tells whether a name has a letter that may fold to a small ASCII
// one. Beside the capitals, U+017F and U+212A do.
func foldable(name string) bool {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' || c >= 0x80 {
			return true
		}
	}
	return false
}

func (v *Verifier) issuer(claims Claims) (*Issuer, error) {
	value, present := claims["iss"]
	name, isString := value.(string)
	if present && !isString {
		return nil, refusal.New(refusal.Issuer, "iss is not a string")
	}
	if v.anyone != nil {
		return v.anyone, nil
	}
	if issuer := v.issuers[name]; issuer != nil {
		return issuer, nil
	}
	if !present {
		return nil, refusal.New(refusal.Issuer, "iss is missing")
	}
	return nil, refusal.New(refusal.Issuer, "iss is %s, which is no issuer here", refusal.Quoted(name))
}

// checkType keeps ID tokens, log-out tokens, DPoP proofs and the like from
// passing for access tokens (RFC 8725 §3.11).
func checkType(typ, wanted string) error {
	got := mediaType(typ)
	if wanted == "" {
		if got == "" || got == "jwt" || got == "at+jwt" {
			return nil
		}
		wanted = "JWT or at+jwt"
	} else if got == mediaType(wanted) {
		return nil
	}
	return refusal.New(refusal.TokenType, "typ is %s, expected %s", refusal.Quoted(typ), wanted)
}

func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

func verifySignature(ctx context.Context, issuer *Issuer, header joseHeader, parts compact) (*Key, error) {
	found := false
	verifying := func(keys []*Key) *Key {
		for _, key := range keys {
			found = true
			if key.verify(header.Algorithm, parts.SigningInput, parts.Signature) == nil {
				return key
			}
		}
		return nil
	}
	for _, source := range issuer.Keys {
		keys, err := source.Find(ctx, header.Algorithm, header.KeyID)
		if err != nil {
			return nil, err
		}
		if key := verifying(keys); key != nil {
			return key, nil
		}
		again, ok := source.(Refetcher)
		if !ok || len(keys) == 0 {
			continue
		}
		fresh, err := again.FindAgain(ctx, header.Algorithm, header.KeyID)
		if err != nil {
			return nil, err
		}
		fresh = slices.DeleteFunc(slices.Clone(fresh), func(key *Key) bool { return slices.Contains(keys, key) })
		if key := verifying(fresh); key != nil {
			return key, nil
		}
	}
	if found {
		return nil, refusal.New(refusal.Signature, "no %s key of issuer %q verifies it, kid is %s", header.Algorithm, issuer.Name, refusal.Quoted(header.KeyID))
	}
	return nil, refusal.New(refusal.UnknownKey, "issuer %q has no %s key for kid %s", issuer.Name, header.Algorithm, refusal.Quoted(header.KeyID))
}

// checkTimes checks exp, nbf and iat (RFC 7519 §4.1.4 to §4.1.6) and returns
// when the token begins and ends, in seconds since 1970 with the leeway.
func (v *Verifier) checkTimes(claims Claims, now time.Time) (begins, expiry float64, err error) {
	at := seconds(now)
	exp, present := claims["exp"]
	switch date, ok := NumericDate(exp); {
	case !present && !v.config.AllowMissingExpiry:
		return 0, 0, refusal.New(refusal.MissingExpiry, "exp is missing")
	case !present:
	case !ok:
		return 0, 0, refusal.New(refusal.Claims, "exp is not a finite number")
	case date+v.leeway <= at:
		return 0, 0, refusal.New(refusal.Expired, "exp was %.0f s ago, the leeway is %.0f s", at-date, v.leeway)
	default:
		expiry = date + v.leeway
	}
	for _, name := range []string{"nbf", "iat"} {
		value, present := claims[name]
		if !present {
			continue
		}
		switch date, ok := NumericDate(value); {
		case !ok:
			return 0, 0, refusal.New(refusal.Claims, "%s is not a finite number", name)
		case date-v.leeway > at:
			return 0, 0, refusal.New(refusal.NotYetValid, "%s is %.0f s ahead, the leeway is %.0f s", name, date-at, v.leeway)
		default:
			begins = max(begins, date-v.leeway)
		}
	}
	return begins, expiry, nil
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

func checkAudience(claims Claims, accepted []string) error {
	value, present := claims["aud"]
	if !present {
		if len(accepted) > 0 {
			return refusal.New(refusal.Audience, "aud is missing, expected one of %q", accepted)
		}
		return nil
	}
	list, isList := value.(List)
	if !isList {
		list = List{value}
	}
	meant := len(accepted) == 0
	for _, element := range list {
		audience, ok := element.(string)
		if !ok || audience == "" {
			return refusal.New(refusal.Audience, "aud is neither a string nor a list of strings, or one is empty")
		}
		meant = meant || slices.Contains(accepted, audience)
	}
	switch {
	case len(list) == 0:
		return refusal.New(refusal.Audience, "aud is empty")
	case !meant:
		return refusal.New(refusal.Audience, "aud is %s, expected one of %q", refusal.Quoted(list.String()), accepted)
	}
	return nil
}

// userID names the user. It also refuses what is no access token by its
// claims: a `sub` that is no string (RFC 7519 §4.1.2), and a security event or
// log-out token, which `events` gives away (RFC 8417 §2.2).
func (v *Verifier) userID(claims Claims) (string, error) {
	if sub, present := claims["sub"]; present {
		if _, ok := sub.(string); !ok {
			return "", refusal.New(refusal.Claims, "sub is not a string")
		}
	}
	if _, present := claims["events"]; present {
		return "", refusal.New(refusal.TokenType, "it holds events, so it is a security event or log-out token")
	}
	for _, path := range v.config.UserID {
		value, _ := claims.Lookup(path)
		switch value.(type) {
		case nil, bool, List, Claims:
			continue
		}
		if id := ClaimText(value); id != "" {
			return id, nil
		}
	}
	return "", refusal.New(refusal.UserID, "no claim of %q is a string or number that is not empty", v.config.UserID)
}

const (
	DefaultLeeway = 30 * time.Second
)

const (
	MaxLeeway = 5 * time.Minute
)
