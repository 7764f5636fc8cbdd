package caddyjwt

import (
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// keepSession renews the session of a browser whose access token is of no more
// use, where session cookies are read.
func (h *Handler) keepSession(w http.ResponseWriter, r *http.Request, token *jwt.Token, source *credentials.Source, failure *refusal.Error) (kept *jwt.Token, renewed *accounts.Grant, refused *refusal.Error) {
	if token == nil && (source == nil || source.OfAccounts) && h.sources.HaveSession() && web.Renewable(failure) {
		var err error
		if renewed, err = h.accounts.Renew(w, r); err != nil {
			return nil, nil, refusal.Of(err)
		}
		if renewed != nil {
			token, failure = h.verify(r, renewed.AccessToken)
		}
	}
	return token, renewed, failure
}

// checkOrigin refuses what does more than read, carries a user's cookie, and comes
// from a page of another origin. A WebSocket does, though it begins with a GET.
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
