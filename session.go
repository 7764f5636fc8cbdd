package caddyjwt

import (
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// sessionIdentifier also identifies the users of the accounts. If a browser's access token
// is no longer accepted, it renews the session.
type sessionIdentifier struct {
	tokens   *tokenIdentifier
	accounts *web.Shared
	browsers bool // whether session cookies are read
}

func (s *sessionIdentifier) identify(w http.ResponseWriter, r *http.Request, who *caller) {
	if who.failure = s.accounts.Ready(r.Context()); who.failure != nil {
		return
	}
	s.tokens.identify(w, r, who)
	mayRenew := s.browsers && (who.credential.Source == nil || who.credential.Source.OfAccounts)
	if who.token != nil || !mayRenew || !web.Renewable(who.failure) {
		return
	}
	renewed, err := s.accounts.Renew(w, r)
	if err != nil {
		who.failure = refusal.Of(err)
		return
	}
	if renewed != nil {
		who.renewed = renewed
		who.token, who.failure = s.tokens.verify(r.Context(), renewed.AccessToken)
	}
}
