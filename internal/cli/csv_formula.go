package cli

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// escaped are values for a line of CSV that no spreadsheet takes for a formula: an
// apostrophe stands before what it might (OWASP: CSV Injection). Spreadsheets of some
// countries separate cells by semicolons or tabs, so that a formula may also begin
// within a value.
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

// notEscaped is a value as it was before escaped. What cannot have come from there
// stays as it is.
func notEscaped(value string) string {
	return eachCell(value, func(cell string) string {
		if rest, ok := strings.CutPrefix(cell, "'"); ok && looksLikeFormula(rest) {
			return rest
		}
		return cell
	})
}

// eachCell changes the parts of a value that some spreadsheet takes for cells. What
// separates them belongs to the end of the one before.
func eachCell(value string, change func(string) string) string {
	var b strings.Builder
	for cell := range splitAfterAny(value) {
		b.WriteString(change(cell))
	}
	return b.String()
}

// splitAfterAny splits a value after each of what separates cells.
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

// looksLikeFormula tells whether the first character of a cell begins a formula,
// beyond blanks, quotation marks and apostrophes. So an apostrophe before a formula
// leaves one, and notEscaped knows what was escaped.
func looksLikeFormula(cell string) bool {
	for _, r := range cell {
		switch {
		case r == '\t' || r == '\r' || r == '\n':
			return true
		case unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || unicode.IsControl(r) || strings.ContainsRune("'\"`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb", r):
			continue
		}
		return r == '\u2212' || strings.ContainsAny(norm.NFKC.String(string(r)), "=+-@") // full width too
	}
	return false
}
