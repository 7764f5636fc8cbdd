package caddyjwt

import (
	"time"

	"github.com/maypok86/otter/v2"
)

const defaultCacheEntries = 10_000

// tokenCache remembers verified tokens (W-TinyLFU: Einziger, Friedman and
// Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", 2017). Only
// tokens that passed every check get in, so a flood of bad ones cannot push
// out good ones. A nil cache remembers nothing.
type tokenCache struct {
	tokens *otter.Cache[string, *Token]
}

// newTokenCache returns a cache of at most this many entries, nil for 0.
func newTokenCache(entries int) *tokenCache {
	if entries <= 0 {
		return nil
	}
	return &tokenCache{otter.Must(&otter.Options[string, *Token]{MaximumSize: entries})}
}

// get returns a token that is still good: not past its expiry, its key not
// withdrawn.
func (c *tokenCache) get(raw string, now time.Time) *Token {
	if c == nil {
		return nil
	}
	token, found := c.tokens.GetIfPresent(raw)
	if !found {
		return nil
	}
	if !token.good(now) {
		c.tokens.Invalidate(raw)
		return nil
	}
	return token
}

func (c *tokenCache) put(raw string, token *Token) {
	if c != nil {
		c.tokens.Set(raw, token)
	}
}
