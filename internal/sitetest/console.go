package sitetest

import (
	"regexp"
	"strings"
)

// Printed returns the pattern of what a document says that a command prints: a line of `…`
// matches any lines, and `…` within a line matches any text.
func Printed(expected string) *regexp.Regexp {
	pattern := regexp.QuoteMeta(strings.TrimSpace(expected))
	pattern = regexp.MustCompile(`(?m)^…\n`).ReplaceAllString(pattern, `(?:.*\n)*`)
	return regexp.MustCompile(`\A` + strings.ReplaceAll(pattern, "…", ".*") + `\z`)
}
