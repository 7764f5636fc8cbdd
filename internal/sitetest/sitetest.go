// Package sitetest has helpers that most tests share: sites in this process and in another one,
// their visitors, tokens and keys, identity providers, an upstream, a clock, the adapt tests. It
// imports no package that has white-box tests, so that those tests can use it too.
package sitetest

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TempDir returns a temporary folder. Unlike t.TempDir, its path does not contain the test's
// name, because Caddy may read parts of it as a placeholder.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caddy-jwt-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// FreeAddress returns an unused address on this machine.
func FreeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// FreeLocalhost is like FreeAddress with the host localhost, as OpenID Providers require.
func FreeLocalhost(t testing.TB) string {
	return strings.Replace(FreeAddress(t), "127.0.0.1", "localhost", 1)
}

// FreePort returns an unused port.
func FreePort(t testing.TB) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(FreeAddress(t))
	return port
}

// Eventually polls until a background task has done its work.
func Eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	Within(t, time.Minute, what, met)
}

// Within polls until a condition holds, and fails the test after the limit.
func Within(t testing.TB, limit time.Duration, what string, met func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !met() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
