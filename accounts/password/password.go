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
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
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

// Hash returns the PHC string of a password.
func Hash(ctx context.Context, turn Turn, password string) (hash string, err error) {
	normal, err := normalPassword(password)
	if err != nil {
		return "", err
	}
	salt := make([]byte, argon2SaltLen)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	err = hashing.do(ctx, turn, func() {
		key := argon2.IDKey([]byte(normal), salt, argon2Time, argon2Memory, argon2Threads, argon2KeyLen)
		hash = fmt.Sprintf(
			"$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argon2Memory, argon2Time, argon2Threads,
			base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key),
		)
	})
	return hash, err
}

// noPasswordHash is used if a user is unknown or has no password, so that checking takes
// the same time. No password matches it.
var noPasswordHash = fmt.Sprintf(
	"$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argon2Memory, argon2Time, argon2Threads,
	base64.RawStdEncoding.EncodeToString(make([]byte, argon2SaltLen)),
	base64.RawStdEncoding.EncodeToString(make([]byte, argon2KeyLen)),
)

// Check reports whether a password matches the hash. It takes the same time in either case,
// and for an empty hash.
func Check(ctx context.Context, turn Turn, hash, password string) (right bool, err error) {
	normal, normalErr := normalPassword(password)
	if hash == "" || normalErr != nil || isBcrypt(hash) && len(normal) > maxBcryptBytes {
		hash, normal = noPasswordHash, "no password"
	}
	err = hashing.do(ctx, turn, func() {
		if isBcrypt(hash) {
			right = bcrypt.CompareHashAndPassword([]byte(hash), []byte(normal)) == nil
			return
		}
		right, _ = caddyauth.Argon2idHash{}.Compare([]byte(hash), []byte(normal))
	})
	return right && normalErr == nil && hash != noPasswordHash, err
}

func isBcrypt(hash string) bool { return strings.HasPrefix(hash, "$2") }

// Weak reports whether a hash has weaker parameters than the current ones.
func Weak(hash string) bool {
	var version, memory, time, threads int
	_, err := fmt.Sscanf(hash, "$argon2id$v=%d$m=%d,t=%d,p=%d$", &version, &memory, &time, &threads)
	return err != nil || version < argon2.Version || memory < argon2Memory || time < argon2Time
}

var bcryptForm = regexp.MustCompile(`^\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}$`)

// CheckHash returns an error if an imported hash cannot be used, for example because
// checking it would be too expensive.
func CheckHash(hash string) error {
	if isBcrypt(hash) {
		if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost > 14 || !bcryptForm.MatchString(hash) {
			return errors.New("the bcrypt hash is corrupt, or its cost is above 14")
		}
		return nil
	}
	var version, memory, time, threads int
	if _, err := fmt.Sscanf(hash, "$argon2id$v=%d$m=%d,t=%d,p=%d$", &version, &memory, &time, &threads); err != nil {
		return errors.New("the hash is neither argon2id ($argon2id$v=19$m=…,t=…,p=…$salt$key) " +
			"nor bcrypt ($2b$…)")
	}
	if memory < 8 || memory > 256*1024 || time < 1 || time > 10 || threads < 1 || threads > 16 {
		return errors.New("the argon2id hash has parameters outside m=8 to 262144, t=1 to 10, p=1 to 16")
	}
	if _, key, err := caddyauth.DecodeHash([]byte(hash)); err != nil || len(key) < 16 || len(key) > 64 {
		return errors.New("the argon2id hash is corrupt")
	}
	return nil
}

var hashesWaiting = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
	Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "password_hashes",
	Help: "Passwords that are being hashed or are waiting to be.",
}, func() float64 { return float64(Busy()) })

func init() { answer.AddMetrics(hashesWaiting) }
