package caddyjwt

import (
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// sessionIdentifier also identifies the users of the accounts. If a browser's access token
// is no longer accepted, it renews the session.
type sessionIdentifier struct {
	tokens   *tokenIdentifier
	accounts *web.Shared
	browsers bool // whether session cookies are read
}

func (s *sessionIdentifier) identify(w http.ResponseWriter, r *http.Request, credential credentials.Credential) caller {
	if failure := s.accounts.Ready(r.Context()); failure != nil {
		return caller{failure: failure, credential: credential}
	}
	who := s.tokens.identify(w, r, credential)
	mayRenew := s.browsers && (credential.Source == nil || credential.Source.OfAccounts)
	if who.token != nil || !mayRenew || !web.Renewable(who.failure) {
		return who
	}
	renewed, err := s.accounts.Renew(w, r)
	if err != nil {
		return caller{failure: refusal.Of(err), credential: credential}
	}
	if renewed != nil {
		who.renewed = renewed
		who.token, who.failure = s.tokens.verify(r.Context(), renewed.AccessToken)
	}
	return who
}
