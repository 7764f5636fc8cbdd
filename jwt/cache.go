package jwt

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	DefaultCacheEntries = 10_000
	MaxCacheEntries     = 10_000_000 // some 20 GiB
)

// Cache remembers verified tokens (W-TinyLFU: Einziger, Friedman and
// Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017). Only
// tokens that passed every check get in, so a flood of bad ones cannot push
// out good ones. A nil cache remembers nothing.
//
// Entries are found by a short hash of the token, since the library hashes its
// keys again and again to see which are used. The hash proves nothing: the
// whole text of the token is compared.
type Cache struct {
	seed   maphash.Seed
	Tokens *otter.Cache[uint64, remembered]
}

// remembered is a value and not a pointer, since the library keeps it in
// its own entry then: one less place to fetch from memory that is no longer in
// the cores' caches.
type remembered struct {
	*Token
	text string
}

// NewCache returns a cache of at most this many entries, nil for 0.
func NewCache(entries int) *Cache {
	if entries <= 0 {
		return nil
	}
	return &Cache{maphash.MakeSeed(), otter.Must(&otter.Options[uint64, remembered]{MaximumSize: entries})}
}

// Get returns a token that is still good: not past its expiry, its key not
// withdrawn.
func (c *Cache) Get(raw string, now time.Time) *Token {
	if c == nil {
		return nil
	}
	hash := maphash.String(c.seed, raw)
	remembered, found := c.Tokens.GetIfPresent(hash)
	if !found || remembered.text != raw {
		return nil
	}
	if !remembered.good(now) {
		c.Tokens.Invalidate(hash)
		return nil
	}
	return remembered.Token
}

// Put remembers a token that was verified.
func (c *Cache) Put(raw string, token *Token) {
	if c != nil {
		c.Tokens.Set(maphash.String(c.seed, raw), remembered{token, strings.Clone(raw)}) // raw may be part of a long header
	}
}
