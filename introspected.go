package caddyjwt

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/introspection"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
)

// addIntrospection sets up the introspection of an issuer.
func (h *Handler) addIntrospection(
	ctx caddy.Context, issuer *IssuerConfig, provisioned jwt.Issuer, rules jwt.VerifierConfig,
) error {
	if issuer.Issuer == "" && (len(h.Issuers) > 1 || h.Accounts != nil) {
		return errors.New("there are several issuers (accounts count as one), and one of them has no name; " +
			"each needs a name, because users are distinguished by it")
	}
	if issuer.Introspection.Always && len(provisioned.Keys) == 0 {
		return errors.New("introspection: always requires keys, with which JWTs are verified first; " +
			"set `issuer`, `public_key`, `secret` or `jwks`, or remove always")
	}
	if err := issuer.Introspection.Open(ctx, provisioned, rules); err != nil {
		if issuer.Issuer != "" {
			err = fmt.Errorf("issuer %s: %w", issuer.Issuer, err)
		}
		return err
	}
	return nil
}

// introspectTokens adds the introspection of the issuers to the verifiers.
func (h *Handler) introspectTokens() {
	var all introspection.Issuers
	for _, issuer := range h.Issuers {
		if issuer.Introspection == nil {
			continue
		}
		all = append(all, issuer.Introspection)
		if issuer.Introspection.Always {
			if h.tokens.always == nil {
				h.tokens.always = make(map[string]*introspection.Introspection)
			}
			h.tokens.always[issuer.Issuer] = issuer.Introspection
		}
	}
	if len(all) > 0 {
		h.tokens.others = append(h.tokens.others, &all) // a pointer, which can be compared
	}
}

// confirm asks the issuer of a JWT that was verified by its keys, if that is to be asked always.
func (t *tokenIdentifier) confirm(r *http.Request, raw string, token *jwt.Token) *refusal.Error {
	issuer := t.always[token.Issuer().Name]
	if issuer == nil {
		return nil
	}
	return issuer.Confirm(r, raw, token)
}
