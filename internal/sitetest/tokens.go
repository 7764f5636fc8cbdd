package sitetest

import (
	"crypto/sha256"
	"encoding/base64"
	stdjson "encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"golang.org/x/crypto/bcrypt"
)

// Secret is long enough for all HMAC algorithms.
const Secret = "a secret of more than sixty-four bytes, for tests and for nothing else"

// JSON is a JSON object.
type JSON = map[string]any

// Claims returns claims that are accepted everywhere, with changes: a nil value removes the
// claim.
func Claims(changes JSON) JSON {
	claims := JSON{"iss": "https://issuer.example", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range changes {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

// Sign returns a token with the claims.
func Sign(t testing.TB, algorithm string, key any, header, claims JSON) string {
	t.Helper()
	full := JSON{"alg": algorithm, "typ": "JWT"}
	for name, value := range header {
		full[name] = value
	}
	return SignExactly(t, algorithm, key, full, claims)
}

// SignExactly returns a token whose header has exactly these members.
func SignExactly(t testing.TB, algorithm string, key any, header, claims JSON) string {
	t.Helper()
	return SignRaw(t, algorithm, key, Marshal(t, header), Marshal(t, claims))
}

// HS256 returns a token signed with the test secret.
func HS256(t testing.TB, changes JSON) string {
	t.Helper()
	return Sign(t, "HS256", []byte(Secret), nil, Claims(changes))
}

// SignRaw signs any header and payload, also ones that no library would write.
func SignRaw(t testing.TB, algorithm string, key any, header, payload string) string {
	t.Helper()
	input := Encode(header) + "." + Encode(payload)
	return input + "." + Encode(string(Signature(t, algorithm, key, input)))
}

// Signature returns a JWS signature of the input.
func Signature(t testing.TB, algorithm string, key any, input string) []byte {
	t.Helper()
	signer, err := jws.NewSigner(jwa.SignatureAlgorithm(algorithm))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign([]byte(input), key)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// Encode returns base64url without padding.
func Encode(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// Marshal returns a value as JSON.
func Marshal(t testing.TB, value any) string {
	t.Helper()
	text, err := stdjson.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func BasicCredentials(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// Basic returns the header with which a client authenticates at an authorization server.
func Basic(id, secret string) string {
	return "Authorization: Basic " + BasicCredentials(url.QueryEscape(id), url.QueryEscape(secret))
}

// Unsigned returns a token without its signature and the dot before it.
func Unsigned(t testing.TB, header, claims JSON) string {
	t.Helper()
	return Encode(Marshal(t, header)) + "." + Encode(Marshal(t, claims))
}

// ClaimsOf reads a token without verifying it.
func ClaimsOf(t testing.TB, token string) JSON {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no token: %q", token)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims JSON
	if err == nil {
		err = stdjson.Unmarshal(text, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// Challenge returns the S256 challenge of a code verifier (RFC 7636).
func Challenge(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return Encode(string(sum[:]))
}

// HalfHash returns the value of at_hash or c_hash for a 256-bit algorithm (OpenID Connect Core
// 1.0, section 3.3.2.11).
func HalfHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return Encode(string(sum[:len(sum)/2]))
}

// BcryptHash returns a hash of low cost for `basic_auth`.
func BcryptHash(t testing.TB, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}
