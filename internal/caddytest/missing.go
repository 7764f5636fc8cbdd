package caddytest

import (
	"os"
	"os/exec"
	"testing"
)

// Missing skips the test for want of something, except in CI, where .ci/run
// installs all that a test needs and nothing may be missing.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s, and CI=true", what)
	}
	t.Skip("this test needs " + what)
}

// Needs looks for programs that a test cannot do without.
func Needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			Missing(t, program)
		}
	}
}
