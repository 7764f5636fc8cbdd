package web_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// bcryptAsOthers hashes a password as most implementations do: as its bytes, of which bcrypt takes
// the first 72.
func bcryptAsOthers(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password[:min(len(password), 72)]), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(hash)
}

// logsIn returns the status of a log-in of Alice.
func logsIn(s *sitetest.Site, password string) int {
	return s.Post("/auth/login", sitetest.JSON{"email": "alice@example.com", "password": password}).Status
}

// siteWithHash returns a site where Alice has a hash of another system.
func siteWithHash(t *testing.T, hash string) *sitetest.Site {
	t.Helper()
	s := sitetest.AccountsSite(t, "throttle off")
	s.SignedUp("alice@example.com")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.PasswordHash = hash })
	return s
}

// A password logs in by a hash of another system, which took it as it was typed and, with bcrypt,
// only its first 72 bytes. It is hashed anew, and then only the whole one logs in.
func TestThreatImportedPasswords(t *testing.T) {
	long := strings.Repeat("x", 80)
	for name, of := range map[string]struct {
		password string
		never    []string // log in neither before nor after
		after    []string // also log in after it was hashed anew
	}{
		"ASCII":               {"correct horse", []string{"correct horsf", "correct horse\x00correct horse", ""}, nil},
		"80 bytes":            {long, []string{long[:71], "y" + long[1:]}, nil},
		"78 bytes of 2 words": {strings.Repeat("密码", 13), []string{strings.Repeat("密码", 11)}, nil},
		"decomposed":          {"pa\u0308sswo\u0308rter123", []string{"passworter123"}, []string{"p\u00e4ssw\u00f6rter123"}},
		"no-break space":      {"correct\u00a0horse", []string{"correcthorse"}, []string{"correct horse"}},
		"tab":                 {"correct\thorse", []string{"correct horse", "correct\t\thorse"}, nil},
		"joined emoji": {
			"👨\u200d👩\u200d👧\u200d👦family❤\ufe0f", []string{"👨👩👧👦family❤", "👨\u200d👩\u200d👧\u200d👦family❤"}, nil,
		},
		"long and forbidden": {"\t" + long, []string{long}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := siteWithHash(t, bcryptAsOthers(t, of.password))
			refuses := func(passwords ...string) {
				t.Helper()
				for _, wrong := range passwords {
					if got := logsIn(s, wrong); got == 200 {
						t.Errorf("%q logs in", wrong)
					}
				}
			}
			refuses(of.never...)
			if got := logsIn(s, of.password); got != 200 {
				t.Fatalf("the password: %d", got)
			}
			if hash := accountstest.UserOf(t, "alice@example.com").PasswordHash; password.Weak(hash) {
				t.Errorf("it is not hashed anew: %s", hash)
			}
			for _, right := range append(of.after, of.password) {
				if got := logsIn(s, right); got != 200 {
					t.Errorf("%q after it was hashed anew: %d", right, got)
				}
			}
			refuses(of.never...)
			if len(of.password) > 72 {
				refuses(of.password[:72], of.password+"x")
			}
		})
	}
}

// A hash of argon2id that is as good as one made here is replaced if it is of the text as it was
// typed, so that the password then logs in from any keyboard.
func TestImportedArgon2idOfRawText(t *testing.T) {
	typed, salt := "pa\u0308sswo\u0308rter123", []byte("0123456789abcdef")
	hashOf := func(text string) string {
		return fmt.Sprintf(
			"$argon2id$v=19$m=65536,t=2,p=1$%s$%s", base64.RawStdEncoding.EncodeToString(salt),
			base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(text), salt, 2, 65536, 1, 32)),
		)
	}
	for text, replaced := range map[string]bool{typed: true, "p\u00e4ssw\u00f6rter123": false} {
		s := siteWithHash(t, hashOf(text))
		for _, step := range []struct {
			typed string
			want  int
		}{{"passworter123", 401}, {typed, 200}, {"p\u00e4ssw\u00f6rter123", 200}, {typed, 200}} {
			if got := logsIn(s, step.typed); got != step.want {
				t.Errorf("of %+q: %+q: %d, expected %d", text, step.typed, got, step.want)
			}
		}
		hash := accountstest.UserOf(t, "alice@example.com").PasswordHash
		if (hash != hashOf(text)) != replaced {
			t.Errorf("of %+q: the hash is %s", text, hash)
		}
	}
}

// Before a long password is hashed anew, bcrypt cannot tell what follows its first 72 bytes.
func TestImportedPasswordBeginsWith72Bytes(t *testing.T) {
	long := strings.Repeat("x", 80)
	s := siteWithHash(t, bcryptAsOthers(t, long))
	if got := logsIn(s, long[:72]); got != 200 {
		t.Errorf("the first 72 bytes: %d", got)
	}
	if got := logsIn(s, long); got != 401 {
		t.Errorf("then the first log-in has decided, but the whole: %d", got)
	}
}

// A password that was chosen here has one form, whatever is typed.
func TestPasswordMadeHereHasOneForm(t *testing.T) {
	s := sitetest.AccountsSite(t, "throttle off")
	s.MustAnswer(201, s.Post(
		"/auth/signup", sitetest.JSON{"email": "alice@example.com", "password": "correct\u00a0horse " + strings.Repeat("x", 80)},
	), "sign-up")
	for typed, want := range map[string]int{
		"correct horse " + strings.Repeat("x", 80):      200,
		"correct\u00a0horse " + strings.Repeat("x", 80): 200,
		"correct horse " + strings.Repeat("x", 58):      401,
		"correct\thorse " + strings.Repeat("x", 80):     401,
		"correct horse " + strings.Repeat("x", 81):      401,
	} {
		if got := logsIn(s, typed); got != want {
			t.Errorf("%q: %d, expected %d", typed, got, want)
		}
	}
}
