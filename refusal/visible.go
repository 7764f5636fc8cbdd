package refusal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// Visible makes a text of unknown origin safe for a terminal: non-printing characters are
// escaped as in JSON.
func Visible(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}
