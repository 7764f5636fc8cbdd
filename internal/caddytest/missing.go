package caddytest

import (
	"os"
	"os/exec"
	"testing"
)

// Missing skips the test because something is not installed. In CI it fails the test, because
// .ci/run installs all that tests need.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s, and CI=true", what)
	}
	t.Skip("this test needs " + what)
}

// Needs checks that the programs that a test requires are installed.
func Needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			Missing(t, program)
		}
	}
}
