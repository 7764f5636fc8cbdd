package cli

import (
	"encoding/csv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

func FuzzFormulas(f *testing.F) {
	for _, value := range sitetest.Formulas {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		safe := escaped([]string{value})[0]
		if got := notEscaped(safe); got != value {
			t.Errorf("%q is exported as %q and imported as %q", value, safe, got)
		}
		for _, cell := range strings.FieldsFunc(safe, func(r rune) bool { return strings.ContainsRune(";,|", r) }) {
			sitetest.NoFormula(t, cell)
		}
		// Nor does a whole line change it.
		if strings.ContainsAny(value, "\r\n") || value == "" || !utf8.ValidString(value) { // no value in a store is
			return
		}
		header := csvHeader{"email", "password_hash", "name"}
		var line strings.Builder
		w := csv.NewWriter(&line)
		if err := w.Write(escaped([]string{"a@example.com", "", value})); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		record, err := header.parseUser([]byte(strings.TrimRight(line.String(), "\n")))
		if err != nil {
			t.Fatal(err)
		}
		user, _, err := record.user(time.Now())
		if err != nil || user.Profile["name"] != value {
			t.Errorf("%q is imported as %q, %v", value, user.Profile["name"], err)
		}
	})
}
