package web

import (
	"net/http"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// caller returns the token of the request, from a bearer header or cookie.
func (a *Shared) caller(w http.ResponseWriter, r *http.Request) (*jwt.Token, error) {
	credential := credentials.AccountSources.Read(r)
	if credential.Err != nil {
		return nil, credential.Err
	}
	var token *jwt.Token
	var err error
	if credential.Token == "" {
		err = &refusal.Error{Reason: refusal.NoCredentials}
	} else {
		token, err = a.service.Verifier.Verify(r.Context(), credential.Token, a.service.Now())
	}
	if err != nil && (credential.Source == nil || credential.Source.OfAccounts) && Renewable(refusal.Of(err)) {
		renewed, storeErr := a.Renew(w, r)
		if storeErr != nil {
			return nil, storeErr
		}
		if renewed != nil {
			token, err = a.service.Verifier.Verify(r.Context(), renewed.AccessToken, a.service.Now())
		}
	}
	if err != nil {
		return nil, err
	}
	if SessionOf(token) == "" {
		return nil, refusal.New(refusal.Claims, "sid is missing")
	}
	if !slices.Contains(jwt.Scopes(token.Claims), accounts.AccountScope) {
		return nil, &refusal.Error{
			Reason: refusal.Scope, Scope: accounts.AccountScope, Detail: "the account routes require it",
		}
	}
	return token, nil
}

func (a *Shared) callerUser(w http.ResponseWriter, r *http.Request) (*jwt.Token, store.User, error) {
	token, err := a.caller(w, r)
	if err != nil {
		return nil, store.User{}, err
	}
	user, err := a.service.Users().User(r.Context(), token.UserID)
	if err == nil && user.Disabled {
		err = store.ErrNotFound
	}
	return token, user, accounts.StoreRefusal(err)
}
