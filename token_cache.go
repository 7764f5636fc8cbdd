package caddyjwt

import (
	"hash/maphash"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	defaultCacheEntries = 10_000
	maxCacheEntries     = 10_000_000 // some 20 GiB
)

// tokenCache remembers verified tokens (W-TinyLFU: Einziger, Friedman and
// Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017). Only
// tokens that passed every check get in, so a flood of bad ones cannot push
// out good ones. A nil cache remembers nothing.
//
// Entries are found by a short hash of the token, since the library hashes its
// keys again and again to see which are used. The hash proves nothing: the
// whole text of the token is compared.
type tokenCache struct {
	seed   maphash.Seed
	tokens *otter.Cache[uint64, rememberedToken]
}

// rememberedToken is a value and not a pointer, since the library keeps it in
// its own entry then: one less place to fetch from memory that is no longer in
// the cores' caches.
type rememberedToken struct {
	*Token
	text string
}

// newTokenCache returns a cache of at most this many entries, nil for 0.
func newTokenCache(entries int) *tokenCache {
	if entries <= 0 {
		return nil
	}
	return &tokenCache{maphash.MakeSeed(), otter.Must(&otter.Options[uint64, rememberedToken]{MaximumSize: entries})}
}

// get returns a token that is still good: not past its expiry, its key not
// withdrawn.
func (c *tokenCache) get(raw string, now time.Time) *Token {
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

func (c *tokenCache) put(raw string, token *Token) {
	if c != nil {
		c.tokens.Set(maphash.String(c.seed, raw), rememberedToken{token, strings.Clone(raw)}) // raw may be part of a long header
	}
}
