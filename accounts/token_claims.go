package accounts

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/store"
)

const defaultAlgorithm = "ES256"

// ownAlgorithms are the algorithms of keys that Caddy creates for the accounts.
var ownAlgorithms = []string{defaultAlgorithm, "RS256", "EdDSA"}

// tokenClaimsBytes is the room for further claims in a token, which must fit into a cookie.
const tokenClaimsBytes = 1024

// fixedClaims are the claims that `token_claims` cannot set: those that the tokens have, and those
// that decide elsewhere who somebody is or what they may.
var fixedClaims = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "scope", "scp", "client_id", "azp", "roles", "role",
	"groups", "permissions", "entitlements", "email", "email_verified", "amr", "acr", "auth_time", "cnf", "act",
	"may_act", "nonce", "at_hash", "events",
}

func (a *Config) checkTokenClaims() error {
	for _, claim := range slices.Sorted(maps.Keys(a.TokenClaims)) {
		property := a.TokenClaims[claim]
		switch {
		case claim == "" || property == "":
			return fmt.Errorf("token_claims has an empty name, as in: token_claims id sub name name")
		case slices.Contains(fixedClaims, claim),
			isLoginName(claim) && a.Identifier != IdentifierEmail && property != "username":
			return fmt.Errorf("token_claims %s: this claim has a meaning of its own; choose another name", claim)
		case property == "id" || property == "password" || property == "roles":
			return fmt.Errorf(
				"token_claims %s %s: it must be sub, email, username, or a property of the profile%s",
				claim, property, config.Meant(property, "sub"),
			)
		}
	}
	return nil
}

// addTokenClaims adds the further claims of a user to those of a token.
func (a *Config) addTokenClaims(claims map[string]any, user store.User) {
	room := tokenClaimsBytes
	for _, claim := range slices.Sorted(maps.Keys(a.TokenClaims)) {
		var value any
		switch property := a.TokenClaims[claim]; property {
		case "sub":
			value = user.ID
		case "email":
			value = textOrNil(user.Address())
		case "username":
			if value = textOrNil(user.Username()); value == nil {
				value = user.Profile[property]
			}
		default:
			value = user.Profile[property]
		}
		text, err := json.Marshal(value)
		if value == nil || err != nil || len(claim)+len(text) > room {
			continue
		}
		room -= len(claim) + len(text)
		claims[claim] = value
	}
}

// textOrNil returns nil for the empty string, as for a property that is not there.
func textOrNil(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func (a *Config) readTokenClaims(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) == 0 || len(args)%2 != 0 {
		return b.Errf("token_claims takes pairs of a claim and a property, as in: token_claims id sub name name")
	}
	if a.TokenClaims == nil {
		a.TokenClaims = make(map[string]string)
	}
	for pair := range slices.Chunk(args, 2) {
		if _, twice := a.TokenClaims[pair[0]]; twice {
			return b.Errf("token_claims %s is specified twice", pair[0])
		}
		a.TokenClaims[pair[0]] = pair[1]
	}
	return nil
}
