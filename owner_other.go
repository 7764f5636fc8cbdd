//go:build !unix

package caddyjwt

import "github.com/caddyserver/certmagic"

// Other systems have other rights, which are inherited from the folder.

func checkStoreFile(string) error { return nil }

func warnOfReaders(string) {}

func readerWarnings(string) []string { return nil }

func keepOwner(string) func() error { return func() error { return nil } }

func keepOwners(storage certmagic.Storage) certmagic.Storage { return storage }
