package caddyjwt

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

func (h *Handler) trustOrigins() error {
	if slices.Contains(h.TrustedOrigins, "*") {
		return nil
	}
	h.crossOrigin = http.NewCrossOriginProtection()
	for _, origin := range h.TrustedOrigins {
		if err := h.crossOrigin.AddTrustedOrigin(origin); err != nil {
			return fmt.Errorf(
				"trusted_origins %q: an origin is a scheme and a host, as in https://app.example.com, or * for all",
				origin,
			)
		}
	}
	return nil
}

// checkOrigin refuses a request from a page of another origin if it carries the user's
// cookie and is not read-only. A WebSocket is not read-only, although it starts with a GET.
func (h *Handler) checkOrigin(r *http.Request) *refusal.Error {
	if h.crossOrigin == nil {
		return nil
	}
	if r.Header.Get("Upgrade") != "" {
		r = r.Clone(r.Context())
		r.Method = http.MethodPost
	}
	if err := h.crossOrigin.Check(r); err != nil {
		return refusal.New(refusal.CrossOrigin, "%v; trusted_origins can allow it", err)
	}
	return nil
}
