package password

import (
	"strings"
	"testing"
	"unicode"

	"golang.org/x/crypto/bcrypt"
)

// What is typed matches a hash that was made here only by its normal form, because that is the
// normal form of itself, for each character there is.
func TestNormalFormIsStable(t *testing.T) {
	changed := 0
	for r := rune(1); r <= unicode.MaxRune; r++ {
		for _, typed := range []string{string(r), "a" + string(r), string(r) + "\u0308\u0323"} {
			normal, err := normalPassword(typed)
			if err != nil {
				continue
			}
			if normal != typed {
				changed++
			}
			if again, err := normalPassword(normal); err != nil || again != normal {
				t.Fatalf("%+q becomes %+q, which becomes %+q, %v", typed, normal, again, err)
			}
		}
	}
	if changed == 0 {
		t.Error("control: no form differs from what is typed")
	}
}

// The secret of a client is compared as a whole, and in its normal form.
func TestCheckSecret(t *testing.T) {
	secret := strings.Repeat("ab cd ", 12)
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string]bool{secret: true, secret + "x": false, "": false, "a\tb": false} {
		if right, err := CheckSecret(t.Context(), Turn{Queue: 1}, string(hash), typed); err != nil || right != want {
			t.Errorf("%q: %t, %v", typed, right, err)
		}
	}
}
