package caddyjwt

import (
	"encoding/csv"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"golang.org/x/text/unicode/norm"
)

var formulas = []string{
	"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\u00a0=1", " =1", "  \"=1", "'=1", "''=1", "' =1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201", "\u22121", "\u200b=1", "\ufeff=1",
	"x;=1+1", "x;'=1", "x\t=1", "a,=1", "a, \"=1\"", "=;=;'=;''=", "\x00=1", "\ufe631",
}

// A file that is exported can be opened in a spreadsheet, and is imported as it was.
func TestThreatFormulasInCSV(t *testing.T) {
	dir := sitetest.TempDir(t)
	from, to := &commandLine{t, []string{"--store", filepath.Join(dir, "from.db")}}, &commandLine{t, []string{"--store", filepath.Join(dir, "to.db")}}
	values := append([]string{"'", "'t Hooft", "O'Brien", "plain", "a;b", "1-1", "''x"}, formulas...)
	var lines strings.Builder
	for i, value := range values {
		fmt.Fprintln(&lines, sitetest.Marshal(t, sitetest.JSON{"email": fmt.Sprintf("=%d+1@example.com", i), "password_hash": weakArgon2id("x"), "roles": []string{"=role", "-b"}, "profile": sitetest.JSON{"name": value, "=HYPERLINK(1)": value}}))
	}
	from.must(lines.String(), "user", "import", "--format", "jsonl", "-")
	exported := from.must("", "user", "export", "--format", "csv")
	rows, err := csv.NewReader(strings.NewReader(exported)).ReadAll()
	if err != nil || len(rows) != len(values)+1 {
		t.Fatal(len(rows), err)
	}
	for _, row := range rows {
		for _, value := range row {
			mustBeNoFormula(t, value)
		}
	}
	for _, separator := range []string{";", "\t", "|", ","} { // of spreadsheets elsewhere
		for _, cell := range strings.Split(strings.ReplaceAll(exported, "\n", separator), separator) {
			mustBeNoFormula(t, cell)
		}
	}
	to.must(exported, "user", "import", "--format", "csv", "-")
	if got, want := to.must("", "user", "export"), from.must("", "user", "export"); got != want {
		t.Errorf("imported as\n%s\nexpected\n%s", got, want)
	}
	if again := to.must("", "user", "export", "--format", "csv"); again != exported {
		t.Error("exported again, it is something else")
	}
}

// mustBeNoFormula judges in its own words what a spreadsheet makes of a cell.
func mustBeNoFormula(t testing.TB, cell string) {
	t.Helper()
	cell = norm.NFKC.String(cell)
	for _, trim := range []string{"", " ", " \"", " \"\u00a0\u200b\ufeff\x00"} {
		if rest := strings.TrimLeft(cell, trim); rest != "" && strings.ContainsRune("=+-@\t\r\u2212", rune([]rune(rest)[0])) {
			t.Errorf("a spreadsheet takes %q for a formula", cell)
		}
	}
}

func FuzzFormulas(f *testing.F) {
	for _, value := range formulas {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		safe := escaped([]string{value})[0]
		if got := notEscaped(safe); got != value {
			t.Errorf("%q is exported as %q and imported as %q", value, safe, got)
		}
		for _, cell := range strings.FieldsFunc(safe, func(r rune) bool { return strings.ContainsRune(";,|", r) }) {
			mustBeNoFormula(t, cell)
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
		user, err := record.user(time.Now())
		if err != nil || user.Profile["name"] != value {
			t.Errorf("%q is imported as %q, %v", value, user.Profile["name"], err)
		}
	})
}
