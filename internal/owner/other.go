//go:build !unix

// Package owner makes sure that files belong to the user who runs Caddy, even if another user runs
// a command. It refuses files that others may have created or can change.
package owner

import "github.com/caddyserver/certmagic"

// Other systems have other permissions, which are inherited from the folder.

// Check does nothing on this system.
func Check(string) error { return nil }

// Service returns an empty string on this system.
func Service() string { return "" }

// SameAs does nothing on this system.
func SameAs(string, ...string) error { return nil }

// Creatable does nothing on this system.
func Creatable(string) error { return nil }

// Writable does nothing on this system.
func Writable(string) error { return nil }

// WarnOfReaders does nothing on this system.
func WarnOfReaders(string) {}

// ReaderWarnings returns nil on this system.
func ReaderWarnings(string) []string { return nil }

// Keep does nothing on this system.
func Keep(string) func() error { return func() error { return nil } }

// KeepAll returns the storage unchanged.
func KeepAll(storage certmagic.Storage) certmagic.Storage { return storage }
