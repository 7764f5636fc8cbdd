package caddyjwt

import (
	"errors"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(ClaimHeaderGuard))
}

// ClaimHeaderGuard removes claim headers that a client sent, where the matcher
// of the `jwt` handler does not match: what is behind trusts these headers
// wherever they come. Headers that a `jwt` handler has set stay. The directive
// puts it into the site by itself.
type ClaimHeaderGuard struct {
	// Headers are the claim headers of the `jwt` handler.
	Headers []*ClaimHeader `json:"headers,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*ClaimHeaderGuard) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt_claim_headers",
		New: func() caddy.Module { return new(ClaimHeaderGuard) },
	}
}

// Provision replaces placeholders.
func (g *ClaimHeaderGuard) Provision(caddy.Context) error {
	if slices.Contains(g.Headers, nil) {
		return errors.New("headers holds objects, and one is null")
	}
	for _, header := range g.Headers {
		if err := resolve("claim_header", &header.Header, &header.Claim); err != nil {
			return err
		}
		header.Header = http.CanonicalHeaderKey(header.Header)
	}
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (g *ClaimHeaderGuard) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	var kept []string
	if who, ok := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)[identityVar].(*identity); ok {
		kept = who.headers
	}
	removeClaimHeaders(r, g.Headers, kept)
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*ClaimHeaderGuard)(nil)
	_ caddyhttp.MiddlewareHandler = (*ClaimHeaderGuard)(nil)
)
