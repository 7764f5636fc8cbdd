package login

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"golang.org/x/oauth2"
)

// verifyIDToken verifies the ID token (OpenID Connect Core §3.1.3.7) and that it belongs to
// this log-in. It returns the claims.
func (l *Login) verifyIDToken(
	ctx context.Context, tokens *oauth2.Token, nonce string,
) (jwt.Claims, error) {
	raw, _ := tokens.Extra("id_token").(string)
	if raw == "" {
		return nil, faulty(faultIDToken, "the token endpoint returned no id_token")
	}
	s := &signatures{keys: l.provider.keys}
	token, err := l.verifier(s).Verify(ctx, raw)
	if err != nil {
		return nil, s.failure(err)
	}
	claims, err := claimsOf(token)
	if err != nil {
		return nil, err
	}
	if err := l.checkIssuer(claims); err != nil {
		return nil, err
	}
	switch got, given := claims["nonce"]; {
	case !given && !l.WithoutNonce:
		return nil, faulty(faultNonce, "the ID token has no nonce")
	case given && got != nonce:
		return nil, errors.New("nonce of the ID token does not match this log-in")
	}
	if err := l.checkParties(token.Audience, claims); err != nil {
		return nil, err
	}
	if claims["at_hash"] != nil && !s.matches(token.AccessTokenHash, tokens.AccessToken) {
		return nil, faulty(faultHash, "at_hash of the ID token does not match the access token")
	}
	if sub, _ := claims["sub"].(string); sub == "" {
		return nil, faulty(faultSubject, "sub of the ID token is missing, empty, or not a text")
	}
	if ahead := time.Until(token.IssuedAt); claims["iat"] == nil {
		return nil, faulty(faultIssuedAt, "the ID token has no iat")
	} else if ahead > maxClockDifference {
		return nil, faulty(faultIssuedAt, "iat of the ID token is %s ahead", ahead.Round(time.Second))
	}
	return claims, nil
}

// checkParties refuses a token with several audiences unless it was issued to this site.
func (l *Login) checkParties(audience []string, claims jwt.Claims) error {
	if azp := claims["azp"]; azp != l.ClientID && (azp != nil || len(audience) > 1) {
		return faulty(faultToken, "azp of the ID token is not this site's client_id")
	}
	return nil
}

// claimsOf returns the claims of a token by their exact names.
func claimsOf(token interface{ Claims(into any) error }) (jwt.Claims, error) {
	var raw json.RawMessage
	if err := token.Claims(&raw); err != nil {
		return nil, err
	}
	return jwt.ParseClaims(raw)
}
