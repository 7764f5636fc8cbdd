package sitetest

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// ConformanceFile is the path of the page about the OpenID conformance suite, relative to
// oidc/provider and oidc/login.
const ConformanceFile = "../../docs/conformance.md"

const relyingParty = "## RP: "

// ConformancePage returns the two parts of ConformanceFile: the provider's and the relying
// party's.
func ConformancePage(t *testing.T) (provider, login string) {
	t.Helper()
	text, err := os.ReadFile(ConformanceFile)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(text), relyingParty)
	if at < 0 {
		t.Fatalf("%s has no %q", ConformanceFile, relyingParty)
	}
	return string(text[:at]), string(text[at:])
}

// ConformanceTable returns a part of the page. Each row has a module and what it asserts.
func ConformanceTable(title, about string, rows [][2]string) string {
	var table strings.Builder
	if about != "" {
		about += "\n\n"
	}
	fmt.Fprintf(&table, "## %s\n\n%sModule | What is asserted\n---|---\n", title, about)
	for _, row := range rows {
		fmt.Fprintf(&table, "`%s` | %s\n", row[0], row[1])
	}
	return table.String() + "\n"
}
