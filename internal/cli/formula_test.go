package cli_test

import (
	"encoding/csv"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// An exported file can be opened safely in a spreadsheet, and can be imported without changes.
func TestThreatFormulasInCSV(t *testing.T) {
	dir := sitetest.TempDir(t)
	from, to := &accountstest.CommandLine{TB: t, Where: []string{"--store", filepath.Join(dir, "from.db")}},
		&accountstest.CommandLine{
			TB: t, Where: []string{"--store", filepath.Join(dir, "to.db")},
		}
	values := append([]string{"'", "'t Hooft", "O'Brien", "plain", "a;b", "1-1", "''x"}, sitetest.Formulas...)
	var lines strings.Builder
	for i, value := range values {
		fmt.Fprintln(&lines, sitetest.Marshal(t, sitetest.JSON{
			"email": fmt.Sprintf("=%d+1@example.com", i), "password_hash": sitetest.WeakArgon2id("x"),
			"roles": []string{"=role", "-b"}, "profile": sitetest.JSON{
				"name": value, "=HYPERLINK(1)": value,
			},
		}))
	}
	from.Must(lines.String(), "user", "import", "--create", "--format", "jsonl", "-")
	exported := from.Must("", "user", "export", "--format", "csv")
	rows, err := csv.NewReader(strings.NewReader(exported)).ReadAll()
	if err != nil || len(rows) != len(values)+1 {
		t.Fatal(len(rows), err)
	}
	for _, row := range rows {
		for _, value := range row {
			sitetest.NoFormula(t, value)
		}
	}
	for _, separator := range []string{";", "\t", "|", ","} { // of spreadsheets elsewhere
		for _, cell := range strings.Split(strings.ReplaceAll(exported, "\n", separator), separator) {
			sitetest.NoFormula(t, cell)
		}
	}
	to.Must(exported, "user", "import", "--create", "--format", "csv", "-")
	if got, want := to.Must("", "user", "export"), from.Must("", "user", "export"); got != want {
		t.Errorf("imported as\n%s\nexpected\n%s", got, want)
	}
	if again := to.Must("", "user", "export", "--format", "csv"); again != exported {
		t.Error("exported again, it is something else")
	}
}
