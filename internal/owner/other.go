//go:build !unix

// Package owner keeps files with the user who runs Caddy, whoever runs a command, and
// refuses files that others may have put there or can change.
package owner

import "github.com/caddyserver/certmagic"

// Other systems have other rights, which are inherited from the folder.

// Check refuses nothing.
func Check(string) error { return nil }

// WarnOfReaders says nothing.
func WarnOfReaders(string) {}

// ReaderWarnings are none.
func ReaderWarnings(string) []string { return nil }

// Keep changes no owner.
func Keep(string) func() error { return func() error { return nil } }

// KeepAll returns the storage.
func KeepAll(storage certmagic.Storage) certmagic.Storage { return storage }
