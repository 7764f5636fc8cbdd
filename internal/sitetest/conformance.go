package sitetest

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// ConformanceFile is the page of the modules of the OpenID conformance suite, as seen
// from oidc/provider and oidc/login.
const ConformanceFile = "../../docs/conformance.md"

const relyingParty = "## RP: "

// ConformancePage is what ConformanceFile has of the provider, and of the relying party.
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

// ConformanceTable is a part of the page. Each row is a module and what it asserts.
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
