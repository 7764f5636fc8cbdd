// Package apikeys makes, stores and verifies API keys. It is the Caddy module
// jwt.credentials.api_keys.
package apikeys

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
)

// A key is <prefix>_<id>_<secret>_<checksum>. All parts after the prefix are in base62.
const (
	// DefaultPrefix is the default beginning of keys.
	DefaultPrefix = "key"

	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	idLength       = 12 // 71 random bits
	secretLength   = 30 // 178 random bits
	checksumLength = 6  // a CRC-32
)

// Pattern returns a regular expression for keys with the prefix, for secret scanners.
func Pattern(prefix string) string {
	return fmt.Sprintf(`\b%s_[0-9A-Za-z]{%d}_[0-9A-Za-z]{%d}_[0-9A-Za-z]{%d}\b`,
		regexp.QuoteMeta(prefix), idLength, secretLength, checksumLength)
}

var prefixForm = regexp.MustCompile(`^[0-9A-Za-z]+(_[0-9A-Za-z]+)*$`)

const longestPrefix = 32

// CheckPrefix returns an error if a prefix is not valid: at most 32 ASCII letters and digits,
// and single underscores between them.
func CheckPrefix(prefix string) error {
	if len(prefix) > longestPrefix || !prefixForm.MatchString(prefix) {
		return fmt.Errorf("prefix %q: it must be at most %d letters and digits, with single underscores between "+
			"them, as in: prefix acme_live", prefix, longestPrefix)
	}
	return nil
}

// random returns random base62 digits. Each is equally likely.
func random(digits int) string {
	limit := new(big.Int).Exp(big.NewInt(int64(len(base62))), big.NewInt(int64(digits)), nil)
	number, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic(err) // rand.Reader never fails
	}
	return inBase62(number, digits)
}

func inBase62(number *big.Int, digits int) string {
	base, digit := big.NewInt(int64(len(base62))), new(big.Int)
	text := make([]byte, digits)
	for i := range text {
		number.DivMod(number, base, digit)
		text[digits-1-i] = base62[digit.Int64()]
	}
	return string(text)
}

// checksum appends the CRC-32 (IEEE) of a text in base62.
func checksum(to []byte, text string) []byte {
	sum := crc32.ChecksumIEEE([]byte(text))
	var digits [checksumLength]byte
	for i := range digits {
		digits[checksumLength-1-i] = base62[sum%uint32(len(base62))]
		sum /= uint32(len(base62))
	}
	return append(to, digits[:]...)
}

// Text returns the key of an ID and a secret.
func Text(prefix, id, secret string) string {
	unchecked := prefix + "_" + id + "_" + secret
	return unchecked + "_" + string(checksum(nil, unchecked))
}

// Errors of split.
var (
	errOtherPrefix = errors.New("it does not begin with the prefix of the keys")
	errForm        = errors.New("it does not have the form of a key: was it copied completely?")
	errChecksum    = errors.New("its checksum is wrong: was it changed when it was copied?")
)

// split returns the ID and the secret of a key. It needs no store, so that wrong keys cost
// little.
func split(prefix, key string) (id, secret string, err error) {
	rest, ours := strings.CutPrefix(key, prefix)
	if !ours || rest == "" || rest[0] != '_' {
		return "", "", errOtherPrefix
	}
	const secretAt, checksumAt = 1 + idLength + 1, 1 + idLength + 1 + secretLength + 1
	if len(rest) != checksumAt+checksumLength || rest[secretAt-1] != '_' || rest[checksumAt-1] != '_' {
		return "", "", errForm
	}
	var wanted [checksumLength]byte
	if string(checksum(wanted[:0], key[:len(prefix)+checksumAt-1])) != rest[checksumAt:] {
		return "", "", errChecksum
	}
	return rest[1 : secretAt-1], rest[secretAt : checksumAt-1], nil
}

// hash returns the hash of a secret. A fast one is sufficient, because nobody can guess that
// many random bits.
func hash(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }
