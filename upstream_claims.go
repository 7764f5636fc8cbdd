package caddyjwt

import (
	"fmt"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/upstream"
	"github.com/caddyserver/caddy/v2"
)

// readSource reads a module that adds claims, by its own grammar.
func (u *UpstreamToken) readSource(b *config.Block, _ string) error {
	const takes = "claims_from takes the name of a module in the namespace jwt.claims, and its options"
	module, err := config.ReadModule(b, "jwt.claims", takes)
	u.ClaimsFromRaw = append(u.ClaimsFromRaw, module)
	return err
}

// loadSources loads the modules that add claims.
func (u *UpstreamToken) loadSources(ctx caddy.Context) error {
	if u.ClaimsFromRaw == nil {
		return nil
	}
	modules, err := ctx.LoadModule(u, "ClaimsFromRaw")
	if err != nil {
		return err
	}
	for _, module := range modules.([]any) {
		source, ok := module.(upstream.ClaimSource)
		if !ok {
			return fmt.Errorf("upstream_token: claims_from: %T does not add claims", module)
		}
		u.sources = append(u.sources, source)
	}
	return nil
}
