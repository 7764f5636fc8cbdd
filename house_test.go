package caddyjwt_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/caddy-jwt/caddy-jwt"

// linked are the packages that a program links by importing one of this module, "." for
// its root.
func linked(t *testing.T, name string) []string {
	t.Helper()
	output, err := exec.Command("go", "list", "-deps", "./"+name).CombinedOutput()
	if err != nil {
		t.Fatalf("go list -deps ./%s: %v\n%s", name, err, output)
	}
	return strings.Fields(string(output))
}

// Imports run one way: each package may use those of this module that stand beside it
// here, and no others.
func TestImportsRunOneWay(t *testing.T) {
	for name, allowed := range map[string][]string{
		"refusal":              {},
		"internal/clock":       {},
		"internal/outage":      {},
		"internal/thismachine": {},
		"jwt":                  {"refusal"},
		"jwks":                 {"jwt", "refusal", "internal/clock", "internal/outage", "internal/thismachine"},
	} {
		for _, path := range linked(t, name) {
			own, ours := strings.CutPrefix(path, module+"/")
			if (ours || path == module) && own != name && !slices.Contains(allowed, own) {
				t.Errorf("%s links %s", name, path)
			}
		}
	}
}

// A Go program that verifies tokens links no web server, database or rule language.
func TestVerifierIsSmall(t *testing.T) {
	heavy := func(path string) bool {
		return slices.ContainsFunc([]string{
			"github.com/caddyserver/", "go.uber.org/zap", "github.com/prometheus/", "modernc.org/", "github.com/google/cel-go", "github.com/spf13/cobra", "github.com/jackc/",
		}, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
	}
	for _, path := range linked(t, "jwt") {
		if heavy(path) {
			t.Errorf("jwt links %s", path)
		}
	}
	for _, path := range linked(t, "jwks") {
		if heavy(path) && !strings.HasPrefix(path, "go.uber.org/zap") { // it logs outages
			t.Errorf("jwks links %s", path)
		}
	}
	if !slices.ContainsFunc(linked(t, "."), heavy) {
		t.Error("control: the root links none of them")
	}
}
