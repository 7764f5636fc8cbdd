package cli

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// escaped returns values for a line of CSV that spreadsheets do not interpret as formulas:
// a potential formula gets an apostrophe in front (OWASP: CSV Injection). In some locales,
// spreadsheets separate cells by semicolons or tabs, so a formula may also start within a
// value.
func escaped(values []string) []string {
	safe := make([]string, len(values))
	for i, value := range values {
		safe[i] = eachCell(value, func(cell string) string {
			if looksLikeFormula(cell) {
				return "'" + cell
			}
			return cell
		})
	}
	return safe
}

// notEscaped reverts escaped. It does not change values that escaped cannot have produced.
func notEscaped(value string) string {
	return eachCell(value, func(cell string) string {
		if rest, ok := strings.CutPrefix(cell, "'"); ok && looksLikeFormula(rest) {
			return rest
		}
		return cell
	})
}

// eachCell applies a function to the parts of a value that some spreadsheet interprets as
// cells. A separator belongs to the cell before it.
func eachCell(value string, change func(string) string) string {
	var b strings.Builder
	for cell := range splitAfterAny(value) {
		b.WriteString(change(cell))
	}
	return b.String()
}

// splitAfterAny splits a value after each cell separator.
func splitAfterAny(value string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for value != "" {
			end := len(value)
			if i := strings.IndexAny(value, ";,|\t\r\n"); i >= 0 {
				end = i + 1
			}
			if !yield(value[:end]) {
				return
			}
			value = value[end:]
		}
	}
}

// looksLikeFormula reports whether a cell starts with a formula after any spaces, quotation
// marks and apostrophes. So it also matches an escaped formula, which notEscaped relies on.
func looksLikeFormula(cell string) bool {
	for _, r := range cell {
		switch {
		case r == '\t' || r == '\r' || r == '\n':
			return true
		case unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || unicode.IsControl(r) ||
			strings.ContainsRune("'\"`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb", r):
			continue
		}
		return r == '\u2212' || strings.ContainsAny(norm.NFKC.String(string(r)), "=+-@") // full width too
	}
	return false
}
