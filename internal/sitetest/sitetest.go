// Package sitetest has what tests share: sites in this process and in another, their
// visitors, tokens and keys, identity providers, an upstream, a clock, the adapt tests. It
// imports nothing that has white-box tests of its own, so that those can use it too.
package sitetest

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// TempDir is a folder whose name, unlike that of t.TempDir, holds nothing of
// the test's name, which Caddy may take for a placeholder.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caddy-jwt-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// FreeAddress is an address on this machine where nobody listens.
func FreeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// FreeLocalhost is one whose host is a name, as OpenID Providers want it.
func FreeLocalhost(t testing.TB) string {
	return strings.Replace(FreeAddress(t), "127.0.0.1", "localhost", 1)
}

// FreePort is the port of one.
func FreePort(t testing.TB) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(FreeAddress(t))
	return port
}

// Eventually polls, for what a background task brings about.
func Eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	Within(t, time.Minute, what, met)
}

// Within polls until something is met, and fails the test after the limit.
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
