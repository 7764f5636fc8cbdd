package password

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-crypt/x/crypt"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// Limits of what checking a hash may cost: about a second of a core, with argon2 up to four.
const (
	maxBcryptCost   = 14
	maxArgon2Memory = 256 << 10 // KiB
	maxArgon2Time   = 10
	maxArgon2Lanes  = 16
	maxPBKDF2Rounds = 2_000_000 // for each part of the key that has the size of the hash function
	maxScryptMemory = 256 << 20 // bytes, for all p
	minCryptRounds  = 1000
	maxCryptRounds  = 1_000_000
	maxCryptBytes   = 256 // of a password: crypt hashes it in each round
	minKeyBytes     = 16
	maxKeyBytes     = 64
)

// matcher reports whether a hash is of a password.
type matcher func(password []byte) bool

// scheme is a kind of hash of other systems: it can be checked, and is replaced at the next log-in.
type scheme struct {
	prefix string
	read   func(hash string) (matcher, error)
}

// schemes are the kinds that are safe to keep until the next log-in.
var schemes = []scheme{
	{"$2", readBcrypt},
	{"bcrypt_sha256$$2", readDjangoBcrypt},
	{"$argon2id$", readArgon2id},
	{"$argon2i$", readArgon2i},
	{"pbkdf2_sha256$", readDjangoPBKDF2(sha256.New)},
	{"pbkdf2_sha1$", readDjangoPBKDF2(sha1.New)},
	{"$pbkdf2-sha256$", readPBKDF2(sha256.New)},
	{"$pbkdf2-sha512$", readPBKDF2(sha512.New)},
	{"$pbkdf2$", readPBKDF2(sha1.New)},
	{"pbkdf2:", readWerkzeug},
	{"$scrypt$", readScrypt},
	{"scrypt$", readDjangoScrypt},
	{"scrypt:", readWerkzeug},
	{"$6$", readCrypt(sha512.New, 86)},
	{"$5$", readCrypt(sha256.New, 43)},
}

// weakSchemes are kinds that somebody who gets the store can guess at within hours.
var weakSchemes = []scheme{
	{apr1Prefix, readAPR1},
	{"{SHA}", readSHA1},
}

// Kinds names the kinds of hashes that can be imported, for messages and help.
const Kinds = "argon2id, argon2i, bcrypt, scrypt, pbkdf2, sha512crypt ($6$) and sha256crypt ($5$)"

// wrapper matches what Spring and LDAP write before a hash that says itself what it is.
var wrapper = regexp.MustCompile(`^(?i:\{(?:bcrypt|argon2[@\w.]*|crypt)\})`)

// Import returns a hash of another system as it is kept, or an error if it cannot be checked, or
// checking it would be too expensive. Weak kinds are only allowed from an htpasswd file.
func Import(hash string, htpasswd bool) (kept string, weak bool, err error) {
	hash = wrapper.ReplaceAllString(hash, "")
	hash = strings.TrimPrefix(hash, "bcrypt$") // Django
	if rest, found := strings.CutPrefix(hash, "argon2$"); found {
		hash = "$" + rest
	}
	for _, weakKind := range weakSchemes {
		if strings.HasPrefix(hash, weakKind.prefix) {
			if !htpasswd {
				return "", true, fmt.Errorf("a hash that starts with %s is too weak, and only imported with "+
					"--format htpasswd; leave it empty, and let the user set a new password", weakKind.prefix)
			}
			_, err := weakKind.read(hash)
			return hash, true, err
		}
	}
	if strings.HasPrefix(hash, "$2x$") {
		return "", false, errors.New("$2x$ marks a hash of a faulty bcrypt, which may match other passwords than " +
			"the user's; leave it empty, and let the user set a new password by caddy jwt user reset-link")
	}
	_, err = readHash(hash)
	return hash, false, err
}

// readHash returns what checks a hash.
func readHash(hash string) (matcher, error) {
	for _, kinds := range [][]scheme{schemes, weakSchemes} {
		for _, kind := range kinds {
			if strings.HasPrefix(hash, kind.prefix) {
				return kind.read(hash)
			}
		}
	}
	return nil, errors.New("the hash is of an unknown kind; supported: " + Kinds)
}

// outside returns the error for parameters that cost too much, or too little to be right.
func outside(kind, limits string) error {
	return fmt.Errorf("the %s hash has parameters outside %s", kind, limits)
}

func corrupt(kind string) error { return fmt.Errorf("the %s hash is corrupt", kind) }

// same reports whether two keys are the same, in constant time.
func same(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

func readBcrypt(hash string) (matcher, error) {
	if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost > maxBcryptCost || !bcryptForm.MatchString(hash) {
		return nil, fmt.Errorf("the bcrypt hash is corrupt, or its cost is above %d", maxBcryptCost)
	}
	return func(password []byte) bool {
		password = password[:min(len(password), maxBcryptBytes)]
		return bcrypt.CompareHashAndPassword([]byte(hash), password) == nil
	}, nil
}

// readDjangoBcrypt reads BCryptSHA256PasswordHasher: bcrypt of the SHA-256, in hex.
func readDjangoBcrypt(hash string) (matcher, error) {
	matches, err := readBcrypt(strings.TrimPrefix(hash, "bcrypt_sha256$"))
	if err != nil {
		return nil, err
	}
	return func(password []byte) bool {
		sum := sha256.Sum256(password)
		return matches([]byte(hex.EncodeToString(sum[:])))
	}, nil
}

func readArgon2id(hash string) (matcher, error) { return readArgon2(hash, "argon2id", argon2.IDKey) }

func readArgon2i(hash string) (matcher, error) { return readArgon2(hash, "argon2i", argon2.Key) }

var argon2Form = regexp.MustCompile(`^m=(\d{1,10}),t=(\d{1,10}),p=(\d{1,3})$`)

// readArgon2 reads the PHC string of RFC 9106's version, which is 19.
func readArgon2(
	hash, kind string, keyOf func(password, salt []byte, time, memory uint32, threads uint8, length uint32) []byte,
) (matcher, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return nil, fmt.Errorf("the %s hash must look like $%s$v=19$m=…,t=…,p=…$salt$key", kind, kind)
	}
	form := argon2Form.FindStringSubmatch(parts[3])
	if form == nil {
		return nil, corrupt(kind)
	}
	memory, time, threads := number(form[1]), number(form[2]), number(form[3])
	if memory < 8 || memory > maxArgon2Memory || time < 1 || time > maxArgon2Time ||
		threads < 1 || threads > maxArgon2Lanes {
		return nil, outside(kind, fmt.Sprintf(
			"m=8 to %d, t=1 to %d, p=1 to %d", maxArgon2Memory, maxArgon2Time, maxArgon2Lanes,
		))
	}
	salt, key, err := saltAndKey(parts[4], parts[5])
	if err != nil {
		return nil, corrupt(kind)
	}
	return func(password []byte) bool {
		return same(key, keyOf(password, salt, uint32(time), uint32(memory), uint8(threads), uint32(len(key))))
	}, nil
}

// number returns a number of decimal digits, or -1 if it is none.
func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// saltAndKey decodes the base64 of PHC strings, or that of passlib, which has a dot for the plus.
func saltAndKey(encodedSalt, encodedKey string) (salt, key []byte, err error) {
	decode := func(text string) ([]byte, error) {
		return base64.RawStdEncoding.Strict().DecodeString(strings.ReplaceAll(text, ".", "+"))
	}
	salt, err = decode(encodedSalt)
	if err == nil {
		key, err = decode(encodedKey)
	}
	if err == nil && (len(key) < minKeyBytes || len(key) > maxKeyBytes) {
		err = errors.New("length of the key")
	}
	return salt, key, err
}

// readDjangoPBKDF2 reads pbkdf2_<hash>$iterations$salt$key, whose salt is text.
func readDjangoPBKDF2(hashOf func() hash.Hash) func(string) (matcher, error) {
	return func(hash string) (matcher, error) {
		parts := strings.Split(hash, "$")
		if len(parts) != 4 {
			return nil, corrupt("pbkdf2")
		}
		_, key, err := saltAndKey("", strings.TrimRight(parts[3], "="))
		if err != nil {
			return nil, corrupt("pbkdf2")
		}
		return matchPBKDF2(hashOf, number(parts[1]), []byte(parts[2]), key)
	}
}

var pbkdf2Form = regexp.MustCompile(`^(?:i=)?(\d{1,10})(?:,l=\d{1,3})?$`)

// readPBKDF2 reads $pbkdf2-<hash>$iterations$salt$key of passlib, and with i=… of PHC strings.
func readPBKDF2(hashOf func() hash.Hash) func(string) (matcher, error) {
	return func(hash string) (matcher, error) {
		parts := strings.Split(hash, "$")
		if len(parts) != 5 {
			return nil, corrupt("pbkdf2")
		}
		form := pbkdf2Form.FindStringSubmatch(parts[2])
		salt, key, err := saltAndKey(parts[3], parts[4])
		if form == nil || err != nil {
			return nil, corrupt("pbkdf2")
		}
		return matchPBKDF2(hashOf, number(form[1]), salt, key)
	}
}

func matchPBKDF2(hashOf func() hash.Hash, rounds int, salt, key []byte) (matcher, error) {
	parts := (len(key) + hashOf().Size() - 1) / hashOf().Size()
	if rounds < 1 || rounds > maxPBKDF2Rounds/parts {
		return nil, outside("pbkdf2", fmt.Sprintf("1 to %d iterations", maxPBKDF2Rounds/parts))
	}
	return func(password []byte) bool {
		got, err := pbkdf2.Key(hashOf, string(password), salt, rounds, len(key))
		return err == nil && same(key, got)
	}, nil
}

var scryptForm = regexp.MustCompile(`^ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})$`)

// readScrypt reads the PHC string $scrypt$ln=…,r=…,p=…$salt$key.
func readScrypt(hash string) (matcher, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 5 {
		return nil, corrupt("scrypt")
	}
	form := scryptForm.FindStringSubmatch(parts[2])
	salt, key, err := saltAndKey(parts[3], parts[4])
	if form == nil || err != nil {
		return nil, corrupt("scrypt")
	}
	return matchScrypt(1<<min(number(form[1]), 30), number(form[2]), number(form[3]), salt, key)
}

// readDjangoScrypt reads scrypt$N$salt$r$p$key, whose salt is text.
func readDjangoScrypt(hash string) (matcher, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 {
		return nil, corrupt("scrypt")
	}
	_, key, err := saltAndKey("", strings.TrimRight(parts[5], "="))
	if err != nil {
		return nil, corrupt("scrypt")
	}
	return matchScrypt(number(parts[1]), number(parts[3]), number(parts[4]), []byte(parts[2]), key)
}

func matchScrypt(n, r, p int, salt, key []byte) (matcher, error) {
	const blocks = maxScryptMemory / 128
	if n < 2 || n&(n-1) != 0 || r < 1 || p < 1 || n > blocks || r > blocks/n || p > blocks/n/r {
		return nil, outside("scrypt", fmt.Sprintf(
			"128·N·r·p = %d MiB, where N is a power of two", maxScryptMemory>>20,
		))
	}
	return func(password []byte) bool {
		got, err := scrypt.Key(password, salt, n, r, p, len(key))
		return err == nil && same(key, got)
	}, nil
}

var (
	werkzeugForm = regexp.MustCompile(
		`^(pbkdf2:sha1|pbkdf2:sha256|pbkdf2:sha512|scrypt):([\d:]{1,30})\$([^$]*)\$([0-9a-f]+)$`,
	)
	werkzeugSHA = map[string]func() hash.Hash{
		"pbkdf2:sha1": sha1.New, "pbkdf2:sha256": sha256.New, "pbkdf2:sha512": sha512.New,
	}
)

// readWerkzeug reads method:parameters$salt$key of Werkzeug and Flask, whose salt is text and whose key
// is in hex.
func readWerkzeug(hash string) (matcher, error) {
	form := werkzeugForm.FindStringSubmatch(hash)
	if form == nil {
		return nil, corrupt("Werkzeug")
	}
	key, err := hex.DecodeString(form[4])
	if err != nil || len(key) < minKeyBytes || len(key) > maxKeyBytes {
		return nil, corrupt("Werkzeug")
	}
	parameters, salt := strings.Split(form[2], ":"), []byte(form[3])
	switch hashOf := werkzeugSHA[form[1]]; {
	case hashOf != nil && len(parameters) == 1:
		return matchPBKDF2(hashOf, number(parameters[0]), salt, key)
	case hashOf == nil && len(parameters) == 3:
		return matchScrypt(number(parameters[0]), number(parameters[1]), number(parameters[2]), salt, key)
	}
	return nil, corrupt("Werkzeug")
}

var cryptForm = regexp.MustCompile(`^\$[56]\$(?:rounds=(\d{1,10})\$)?([^$:\s]{0,16})\$([./A-Za-z0-9]+)$`)

// readCrypt reads what crypt(3) makes with SHA-2, as in /etc/shadow. The key has so many characters.
func readCrypt(hashOf func() hash.Hash, keyLen int) func(string) (matcher, error) {
	return func(hash string) (matcher, error) {
		form := cryptForm.FindStringSubmatch(hash)
		if form == nil || len(form[3]) != keyLen {
			return nil, corrupt(hash[:len("$6$")])
		}
		rounds := 5000 // by default
		if form[1] != "" {
			rounds = number(form[1])
		}
		if rounds < minCryptRounds || rounds > maxCryptRounds {
			return nil, outside(hash[:len("$6$")], fmt.Sprintf("rounds=%d to %d", minCryptRounds, maxCryptRounds))
		}
		return func(password []byte) bool {
			tooLong := len(password) > maxCryptBytes
			got := crypt.KeySHACrypt(hashOf, password[:min(len(password), maxCryptBytes)], []byte(form[2]), rounds)
			return same([]byte(form[3]), got) && !tooLong
		}, nil
	}
}

const apr1Prefix = "$apr1$"

var apr1Form = regexp.MustCompile(`^\$apr1\$([^$:\s]{0,8})\$([./A-Za-z0-9]{22})$`)

// readAPR1 reads what Apache's htpasswd makes by default: the MD5-based crypt of FreeBSD with
// another prefix.
func readAPR1(hash string) (matcher, error) {
	form := apr1Form.FindStringSubmatch(hash)
	if form == nil {
		return nil, corrupt(apr1Prefix)
	}
	return func(password []byte) bool {
		return len(password) <= maxCryptBytes && same([]byte(form[2]), apr1(password, []byte(form[1])))
	}, nil
}

func readSHA1(hash string) (matcher, error) {
	key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(hash, "{SHA}"))
	if err != nil || len(key) != sha1.Size {
		return nil, corrupt("{SHA}")
	}
	return func(password []byte) bool {
		sum := sha1.Sum(password)
		return same(key, sum[:])
	}, nil
}
