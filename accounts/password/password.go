// Package password hashes and checks passwords with limited concurrency, and validates new
// passwords.
package password

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/argon2"
	"golang.org/x/text/secure/precis"
)

// Parameters of argon2id (RFC 9106), the minimum of OWASP's Password Storage Cheat Sheet.
const (
	argon2Memory  = 19 * 1024 // KiB
	argon2Time    = 2
	argon2Threads = 1
	argon2KeyLen  = 32 // bytes
	argon2SaltLen = 16 // bytes
)

const (
	DefaultMinLength = 8    // characters
	MaxBytes         = 1024 // a longer password costs time without benefit
	maxBcryptBytes   = 72   // bcrypt ignores the rest
	DefaultQueue     = 64   // waiting hashes
)

//go:embed passwords.txt
var commonPasswordList string

var commonPasswords = sync.OnceValue(func() map[string]bool {
	common := make(map[string]bool)
	for password := range strings.Lines(commonPasswordList) {
		common[strings.TrimSpace(password)] = true
	}
	return common
})

// normalPassword normalizes a password before hashing (RFC 8265 §4.2), so that the same
// keys give the same password, regardless of how the keyboard driver composes characters.
func normalPassword(password string) (string, error) {
	if len(password) > MaxBytes {
		return "", texts.Errorf("is longer than %d bytes", MaxBytes)
	}
	normal, err := precis.OpaqueString.String(password)
	if err != nil {
		return "", texts.Errorf("contains a character that is not allowed in passwords, such as a control character")
	}
	return normal, nil
}

// Length returns the length of a normalized password, in characters.
func Length(password string) int {
	if normal, err := normalPassword(password); err == nil {
		password = normal
	}
	return utf8.RuneCountInString(password)
}

// CheckNew returns an error if a new password is not acceptable.
func CheckNew(password string, minLength int) error {
	normal, err := normalPassword(password)
	switch {
	case Length(password) < minLength: // also the empty one, which is not normal
		return texts.Errorf("must have at least %d characters", minLength)
	case err != nil:
		return err
	case commonPasswords()[strings.ToLower(normal)]:
		return texts.Errorf("is too common, so it is easy to guess; choose another")
	}
	return nil
}

// Hash returns the PHC string of a new password.
func Hash(ctx context.Context, turn Turn, password string) (hash string, err error) {
	normal, err := normalPassword(password)
	if err != nil {
		return "", err
	}
	return hashForm(ctx, turn, normal)
}

// HashAgain returns the PHC string of a password that has matched a hash of another system. If
// it has no normal form, because that system allowed other characters, it is hashed as it is.
func HashAgain(ctx context.Context, turn Turn, password string) (hash string, err error) {
	forms := typed(password)
	if len(forms) == 0 {
		return Hash(ctx, turn, password)
	}
	return hashForm(ctx, turn, forms[0])
}

func hashForm(ctx context.Context, turn Turn, form string) (hash string, err error) {
	salt := make([]byte, argon2SaltLen)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	err = hashing.do(ctx, turn, func() {
		key := argon2.IDKey([]byte(form), salt, argon2Time, argon2Memory, argon2Threads, argon2KeyLen)
		hash = fmt.Sprintf(
			"$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argon2Memory, argon2Time, argon2Threads,
			base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key),
		)
	})
	return hash, err
}

// noPassword takes the time of checking a hash, and is used if a user is unknown or has no
// password.
func noPassword(password []byte) bool {
	argon2.IDKey(password, make([]byte, argon2SaltLen), argon2Time, argon2Memory, argon2Threads, argon2KeyLen)
	return false
}

// Check reports whether a user's password matches the hash. The hash may be one of another
// system, which did not normalize passwords, or ignored what is beyond the 72 bytes of bcrypt:
// so a password matches in its normal form, or as it was typed, and bcrypt compares its first
// 72 bytes. A hash that was made here is of a normal form, which is the normal form of itself,
// so that nothing else matches it. The time depends on what was typed and on the kind of the
// hash, not on the result; an empty hash takes the time of one that was made here.
func Check(ctx context.Context, turn Turn, hash, password string) (right bool, err error) {
	right, _, err = Match(ctx, turn, hash, password)
	return right, err
}

// Match is [Check], and also reports whether a password that matches should be hashed again by
// [HashAgain]: because the hash is [Weak], or is not of the normal form.
func Match(ctx context.Context, turn Turn, hash, password string) (right, outdated bool, err error) {
	found, err := check(ctx, turn, hash, typed(password))
	return found >= 0, found > 0 || found == 0 && Weak(hash), err
}

// CheckSecret is [Check] for what no user chose or typed, such as the secret of a client: only
// the normal form matches, and nothing beyond 72 bytes matches a hash of bcrypt.
func CheckSecret(ctx context.Context, turn Turn, hash, secret string) (right bool, err error) {
	normal, err := normalPassword(secret)
	if err != nil || isBcrypt(hash) && len(normal) > maxBcryptBytes {
		hash, normal = "", secret
	}
	found, err := check(ctx, turn, hash, []string{normal})
	return found >= 0, err
}

// typed returns the forms in which a password may be in a hash. There are none if it is in none.
func typed(password string) (forms []string) {
	normal, err := normalPassword(password)
	if err == nil {
		forms = append(forms, normal)
	}
	if mayBeRaw(password) && normal != password {
		forms = append(forms, password)
	}
	return forms
}

// mayBeRaw reports whether another system could have hashed a password as it was typed. bcrypt
// repeats a password with a NUL after it, so one with a NUL would match the hash of another.
func mayBeRaw(password string) bool {
	return password != "" && len(password) <= MaxBytes && utf8.ValidString(password) &&
		!strings.Contains(password, "\x00")
}

// check returns the index of the first form that matches the hash, or -1.
func check(ctx context.Context, turn Turn, hash string, forms []string) (found int, err error) {
	matches, readErr := readHash(hash)
	if readErr != nil || len(forms) == 0 {
		matches = noPassword
	}
	if len(forms) == 0 {
		forms = []string{"no password"}
	}
	found = -1
	err = hashing.do(ctx, turn, func() {
		found = slices.IndexFunc(forms, func(form string) bool { return matches([]byte(form)) })
	})
	return found, err
}

func isBcrypt(hash string) bool { return strings.HasPrefix(hash, "$2") }

// Weak reports whether a hash has weaker parameters than the current ones.
func Weak(hash string) bool {
	var version, memory, time, threads int
	_, err := fmt.Sscanf(hash, "$argon2id$v=%d$m=%d,t=%d,p=%d$", &version, &memory, &time, &threads)
	return err != nil || version < argon2.Version || memory < argon2Memory || time < argon2Time
}

var bcryptForm = regexp.MustCompile(`^\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}$`)

// CheckHash returns an error if a hash of argon2id or bcrypt cannot be used, for example because
// checking it would be too expensive.
func CheckHash(hash string) error {
	_, err := readHash(hash)
	if err == nil && !isBcrypt(hash) && !strings.HasPrefix(hash, "$argon2id$") {
		err = errors.New("the hash is neither argon2id ($argon2id$v=19$m=…,t=…,p=…$salt$key) nor bcrypt ($2b$…)")
	}
	return err
}

var hashesWaiting = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
	Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "password_hashes",
	Help: "Passwords that are being hashed or are waiting to be.",
}, func() float64 { return float64(Busy()) })

func init() { answer.AddMetrics(hashesWaiting) }
