package caddyjwt

import (
	"fmt"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/upstream"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// readSource reads a module that adds claims, by its own grammar.
func (u *UpstreamToken) readSource(b *config.Block, _ string) error {
	if !b.NextArg() {
		return b.Errf("claims_from takes the name of a module in the namespace jwt.claims, and its options")
	}
	name := b.Val()
	if err := accounts.CheckModule("jwt.claims", name); err != nil {
		return b.WrapErr(err)
	}
	module, err := caddyfile.UnmarshalModule(b.Dispenser, "jwt.claims."+name)
	if err != nil {
		return err
	}
	u.ClaimsFromRaw = append(u.ClaimsFromRaw, caddyconfig.JSONModuleObject(module, "module", name, nil))
	return nil
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
