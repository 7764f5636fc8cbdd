package caddyjwt

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Unique valid tokens, then invalid ones: the cache keeps its size, and no invalid token enters it.
func TestScenarioCacheFlood(t *testing.T) {
	seen := scenario.Promise(t, "memory within the cache's cap; a bad token is never remembered")
	const entries = 1000
	handler := provisioned(t, "secret \""+sitetest.Secret+"\"\n cache "+strconv.Itoa(entries))
	tokens := scenario.Length(20_000, 2_000_000)
	var refused atomic.Int64
	var all sync.WaitGroup
	before := scenario.HeapInUse()
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < tokens; i += 8 {
				secret, claims := sitetest.Secret, sitetest.Claims(sitetest.JSON{"n": i})
				if i%2 == 0 {
					secret, claims["sub"] = "another"+sitetest.Secret, "mallory"
				}
				raw := sitetest.Sign(t, "HS256", []byte(secret), nil, claims)
				request, _ := http.NewRequest(http.MethodGet, "/", nil)
				if _, refusal := handler.tokens.verify(request.Context(), raw); refusal != nil {
					refused.Add(1)
				}
			}
		})
	}
	all.Wait()
	if got := refused.Load(); got != int64(tokens/2) {
		t.Errorf("%d refused of %d bad ones", got, tokens/2)
	}
	remembered := handler.tokens.cache.All()
	kept, after := len(remembered), scenario.HeapInUse()
	if kept > entries {
		t.Errorf("%d entries, the cache is for %d", kept, entries)
	}
	if limit := int64(16 << 20); after-before > limit {
		t.Errorf("the heap grew by %d bytes, more than %d", after-before, limit)
	}
	seen("%d unique tokens, half of them bad: %d refused; %d of %d entries; heap %.1f MiB before, %.1f MiB after",
		tokens, refused.Load(), kept, entries, scenario.Mebibytes(before), scenario.Mebibytes(after))
	for _, token := range remembered {
		if token.UserID == "mallory" {
			t.Error("a bad token is remembered")
		}
	}
}
