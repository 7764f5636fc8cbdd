package caddyjwt

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/introspection"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
)

// caller is the sender of a request, as far as an identifier knows.
type caller struct {
	token      *jwt.Token // nil for nobody
	failure    *refusal.Error
	credential credentials.Credential
	renewed    *accounts.Grant // tokens for the browser, to be sent with the response; nil for none
}

// byCookie reports whether the browser sent the credential automatically, which it also
// does for requests from pages of other sites.
func (c caller) byCookie() bool { return c.renewed != nil || c.credential.ByCookie() }

// identifier finds the user of a credential. It returns neither a token nor a failure only
// if `optional` allows that.
type identifier interface {
	identify(w http.ResponseWriter, r *http.Request, credential credentials.Credential) caller
}

// tokenIdentifier identifies callers by a JWT.
type tokenIdentifier struct {
	verifier *jwt.Verifier // nil without issuers
	cache    *jwt.Cache
	optional bool
	others   []credentials.Verifier // of other kinds of credentials

	always map[string]*introspection.Introspection // of JWTs, by issuer
}

func (t *tokenIdentifier) identify(w http.ResponseWriter, r *http.Request, credential credentials.Credential) caller {
	who := caller{credential: credential}
	switch {
	case credential.Err != nil:
		who.failure = refusal.Of(credential.Err)
	case credential.Token != "" && len(t.others) > 0:
		who.token, who.failure = t.verifyAny(w, r, credential)
	case credential.Token != "":
		who.token, who.failure = t.verify(r.Context(), credential.Token)
	case !t.optional:
		who.failure = &refusal.Error{Reason: refusal.NoCredentials}
	}
	return who
}

// verify returns a verified token, from the cache if possible.
func (t *tokenIdentifier) verify(ctx context.Context, raw string) (*jwt.Token, *refusal.Error) {
	now := clock.Now()
	if token := t.cache.Get(raw, now); token != nil {
		cacheHits.Inc()
		return token, nil
	}
	cacheMisses.Inc()
	token, err := t.verifier.Verify(ctx, raw, now)
	if err != nil {
		return nil, refusal.Of(err)
	}
	t.cache.Put(raw, token)
	return token, nil
}

// provisionVerifier sets up the accepted issuers and the identifiers that use them.
func (h *Handler) provisionVerifier(ctx caddy.Context) error {
	config := jwt.VerifierConfig{
		Leeway:             time.Duration(*h.Leeway),
		AllowMissingExpiry: h.AllowMissingExp,
		UserID:             h.UserID,
	}
	if h.Accounts != nil {
		var err error
		if h.accounts, err = web.Open(ctx, h.Accounts); err != nil {
			return err
		}
		h.answers.Page = h.accounts.RefusedPage
		config.Issuers = append(config.Issuers, h.accounts.AsIssuer())
	}
	h.locateGrants(config.Issuers)
	if err := h.openCredentials(ctx); err != nil {
		return err
	}
	if len(h.Issuers) == 0 && h.Accounts == nil && len(h.others) == 0 {
		return errors.New("no keys and no issuer, so every token would be rejected; " +
			"give `issuer <url>` to find the keys by discovery, or `secret`, `public_key` or `jwks`")
	}
	provisioned := make([]jwt.Issuer, len(h.Issuers))
	for i, issuer := range h.Issuers {
		var err error
		provisioned[i], err = issuer.provision(ctx, h)
		if err != nil {
			if issuer.Issuer != "" {
				err = fmt.Errorf("issuer %s: %w", issuer.Issuer, err)
			}
			return err
		}
		if len(provisioned[i].Keys) > 0 {
			config.Issuers = append(config.Issuers, provisioned[i])
		}
	}
	for i, issuer := range h.Issuers {
		if issuer.Introspection != nil {
			if err := h.addIntrospection(ctx, issuer, provisioned[i], config); err != nil {
				return err
			}
		}
	}
	for _, q := range h.Require {
		if err := q.checkIssuer(config.Issuers); err != nil {
			return err
		}
	}
	h.tokens = &tokenIdentifier{cache: jwt.NewCache(*h.Cache), optional: h.Optional, others: h.others}
	h.introspectTokens()
	var err error
	if len(config.Issuers) > 0 {
		h.tokens.verifier, err = jwt.NewVerifier(config)
	}
	h.identifier = h.tokens
	if h.accounts != nil {
		h.identifier = &sessionIdentifier{tokens: h.tokens, accounts: h.accounts, browsers: h.sources.HaveSession()}
	}
	if err == nil && h.UpstreamToken != nil {
		err = h.UpstreamToken.provision(ctx, len(config.Issuers) > 1 || h.hasTenants())
	}
	h.warn(place.Of(ctx))
	return err
}

// hasTenants reports whether an issuer stands for several.
func (h *Handler) hasTenants() bool {
	return slices.ContainsFunc(h.Issuers, (*IssuerConfig).multiTenant)
}

// locateGrants tells the rules which claims have the scopes and the roles. own has the issuer of
// the accounts, if there are any.
func (h *Handler) locateGrants(own []jwt.Issuer) {
	accounts := ""
	if len(own) > 0 {
		accounts = own[0].Name
	}
	roles := []string{"roles"}
	for _, q := range h.Require {
		q.scopesIn = claimsOf{tokens: h.ScopeClaim, accounts: accounts}
		q.rolesIn = claimsOf{tokens: h.RoleClaim, own: roles, accounts: accounts}
		if len(h.RoleClaim) == 0 {
			q.rolesIn.tokens = roles
		}
	}
}

var (
	cacheLookups = answer.CountResults("cache_lookups_total",
		"Look-ups in the cache of verified tokens by result, hit or miss.")
	cacheHits   = cacheLookups.WithLabelValues("hit")
	cacheMisses = cacheLookups.WithLabelValues("miss")
)
