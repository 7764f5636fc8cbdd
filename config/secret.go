package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
)

// Secret is a shared secret.
type Secret struct {
	// Value of the secret, at least as long as the hash: 32 bytes for HS256, 48 for HS384,
	// 64 for HS512 (RFC 7518 §3.2). Keep it out of the config: use `{env.JWT_SECRET}` or
	// `{file./run/secrets/jwt}`.
	Value string `json:"value,omitempty"`

	// Encoding of Value: `base64` (either alphabet, padded or not) or `hex`. Default: the
	// bytes are used unchanged.
	Encoding string `json:"encoding,omitempty"`
}

var encodings = []string{"base64", "hex"}

// Key returns the key of the secret, with placeholders resolved. Errors never contain the
// secret.
func (c *Secret) Key() (*jwt.Key, error) {
	if jwt.LooksLikeKey([]byte(c.Value)) { // the braces of a JWK look like a placeholder
		return jwt.NewSecretKey([]byte(c.Value))
	}
	if err := CheckVariable(c.Value); err != nil {
		return nil, err
	}
	value, err := caddy.NewReplacer().ReplaceOrErr(c.Value, true, true)
	if err != nil || value == "" { // the error may quote part of the secret
		return nil, errors.New("it is empty, or a placeholder in it is; " + WhyEmpty(c.Value) +
			" {env.NAME} and {file./path} are read when the config is loaded; " +
			"write a brace that is part of the secret as \\{")
	}
	key, err := DecodeSecret(value, c.Encoding)
	if errors.Is(err, ErrEncoding) {
		err = fmt.Errorf("%w; if it is the plain secret, write: secret <value>", err)
	}
	return key, err
}

// ErrEncoding is returned for a secret that does not have its encoding.
var ErrEncoding = errors.New("the value is not")

// DecodeSecret returns the key of a secret with an encoding. Errors never contain the
// secret.
func DecodeSecret(value, encoding string) (*jwt.Key, error) {
	if !jwt.LooksLikeKey([]byte(value)) && strings.ContainsAny(strings.TrimRight(value, "\r\n"), "\r\n") {
		return nil, errors.New(
			"it has several lines; a secret must be a single line, such as the output of openssl rand -hex 64",
		)
	}
	secret := []byte(value)
	var err error
	switch encoding {
	case "":
	case "hex":
		secret, err = hex.DecodeString(strings.TrimSpace(value))
	case "base64":
		standardAlphabet := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimSpace(value))
		secret, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(standardAlphabet, "="))
	default:
		return nil, Unknown("encoding", encoding, encodings)
	}
	if err != nil {
		return nil, fmt.Errorf("%w %s", ErrEncoding, encoding)
	}
	return jwt.NewSecretKey(secret)
}
