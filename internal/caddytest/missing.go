package caddytest

import (
	"os"
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
