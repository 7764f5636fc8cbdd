package jwt

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
)

// The default and the maximum number of tokens in a [Cache] of this module's handlers.
const (
	DefaultCacheEntries = 10_000
	MaxCacheEntries     = 10_000_000 // some 20 GiB
)

// Cache remembers verified tokens. A nil cache remembers nothing. It is safe for concurrent
// use. It does not know by which rules a token was verified, so each [Verifier] needs its own
// cache.
//
// Only tokens that passed every check are added, so a flood of invalid tokens cannot evict
// valid ones. Eviction is W-TinyLFU (Einziger, Friedman and Manes, "TinyLFU: A Highly
// Efficient Cache Admission Policy", 2017).
//
// The key of an entry is a short hash of the token, because the library hashes its keys
// repeatedly to track their use. The hash proves nothing: the full text of the token is
// compared as well.
type Cache struct {
	seed   maphash.Seed
	tokens *otter.Cache[uint64, remembered]
}

// remembered is a value and not a pointer, because the library then stores it within its
// own entry, which saves a memory access outside the CPU caches.
type remembered struct {
	*Token
	text string
}

// NewCache returns a cache of at most this many tokens, nil for 0. 10,000 tokens of 492
// bytes take 19 MiB.
func NewCache(entries int) *Cache {
	if entries <= 0 {
		return nil
	}
	return &Cache{maphash.MakeSeed(), otter.Must(&otter.Options[uint64, remembered]{MaximumSize: entries})}
}

// Get returns the remembered token with this text if it is still valid: it has not expired,
// its key was not withdrawn, and its session was not revoked. Otherwise it returns nil.
func (c *Cache) Get(raw string, now time.Time) *Token {
	if c == nil {
		return nil
	}
	hash := maphash.String(c.seed, raw)
	remembered, found := c.tokens.GetIfPresent(hash)
	if !found || remembered.text != raw {
		return nil
	}
	if !remembered.good(now) {
		c.tokens.Invalidate(hash)
		return nil
	}
	return remembered.Token
}

// All returns the remembered tokens, in no particular order.
func (c *Cache) All() []*Token {
	var all []*Token
	if c == nil {
		return nil
	}
	c.tokens.CleanUp() // evict what is due
	for remembered := range c.tokens.Values() {
		all = append(all, remembered.Token)
	}
	return all
}

// Put remembers a token that [Verifier.Verify] returned, under its text.
func (c *Cache) Put(raw string, token *Token) {
	if c != nil {
		// raw may be part of a long header
		c.tokens.Set(maphash.String(c.seed, raw), remembered{token, strings.Clone(raw)})
	}
}
