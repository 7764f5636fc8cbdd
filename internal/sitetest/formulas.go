package sitetest

import (
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
)

// Formulas are values that some spreadsheets treat as formulas.
var Formulas = []string{
	"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\u00a0=1", " =1", "  \"=1", "'=1", "''=1",
	"' =1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201", "\u22121", "\u200b=1", "\ufeff=1",
	"x;=1+1", "x;'=1", "x\t=1", "a,=1", "a, \"=1\"", "=;=;'=;''=", "\x00=1", "\ufe631",
}

// NoFormula fails the test if a spreadsheet may treat a cell as a formula. It shares no code with
// the export, so that it does not share its mistakes.
func NoFormula(t testing.TB, cell string) {
	t.Helper()
	cell = norm.NFKC.String(cell)
	for _, trim := range []string{"", " ", " \"", " \"\u00a0\u200b\ufeff\x00"} {
		if rest := strings.TrimLeft(cell, trim); rest != "" &&
			strings.ContainsRune("=+-@\t\r\u2212", rune([]rune(rest)[0])) {
			t.Errorf("a spreadsheet takes %q for a formula", cell)
		}
	}
}
