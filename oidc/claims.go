package oidc

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	caddyjwt "github.com/caddy-jwt/caddy-jwt"
)

// standardClaims are those of OpenID Connect Core §5.4, and what a user of the
// accounts has beside.
var standardClaims = map[string][]string{
	"profile": {
		"name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture", "website", "gender", "birthdate", "zoneinfo",
		"locale", "updated_at",
	},
	"email":       {"email", "email_verified"},
	"phone":       {"phone_number", "phone_number_verified"},
	"address":     {"address"},
	"roles":       {"roles"},
	"permissions": {"permissions"},
}

// scopes are all that there are.
func (p *Provider) scopes() map[string]bool {
	all := map[string]bool{"openid": true, "offline_access": true}
	for scope := range p.Claims {
		all[scope] = true
	}
	return all
}

// checkScope refuses what is no scope-token (RFC 6749 §3.3). Scopes of the
// clients' own services need no claims.
func checkScope(scope string) error {
	if scope == "" || strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
		return fmt.Errorf("scopes: %q is no scope", scope)
	}
	return nil
}

func (p *Provider) claimNames() []string {
	all := map[string]bool{"sub": true, "iss": true, "aud": true, "exp": true, "iat": true, "auth_time": true, "nonce": true, "acr": true, "amr": true, "sid": true}
	for _, claims := range p.Claims {
		for _, claim := range claims {
			all[claim] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// claimOf is a claim of a user, if there is one.
func claimOf(user caddyjwt.User, name string) (any, bool) {
	switch name {
	case "email":
		return user.Email, true
	case "email_verified":
		if verified, ok := user.Profile["email_verified"].(bool); ok {
			return verified, true
		}
		return false, true
	case "roles":
		if user.Roles == nil {
			return []string{}, true
		}
		return user.Roles, true
	case "updated_at":
		return user.UpdatedAt.Unix(), true
	}
	value, ok := user.Profile[name]
	return value, ok && value != nil
}

// userClaims are what the scopes, and the claims that were asked for by name,
// give of a user.
func (p *Provider) userClaims(user caddyjwt.User, scopes []string, asked map[string]*claimRequest) map[string]any {
	names := make(map[string]bool)
	for _, scope := range scopes {
		for _, name := range p.Claims[scope] {
			names[name] = true
		}
	}
	for name := range asked {
		names[name] = true
	}
	found := make(map[string]any)
	for name := range names {
		if value, ok := claimOf(user, name); ok {
			found[name] = value
		}
	}
	return found
}

// claimsRequest is the `claims` parameter (OpenID Connect Core §5.5).
type claimsRequest struct {
	UserInfo map[string]*claimRequest `json:"userinfo,omitempty"`
	IDToken  map[string]*claimRequest `json:"id_token,omitempty"`
}

type claimRequest struct {
	Essential bool  `json:"essential,omitempty"`
	Value     any   `json:"value,omitempty"`
	Values    []any `json:"values,omitempty"`
}

func parseClaimsRequest(text string) (request claimsRequest, err error) {
	if text == "" {
		return request, nil
	}
	if err := json.Unmarshal([]byte(text), &request); err != nil {
		return request, refuse("invalid_request", "claims is not the JSON object of OpenID Connect Core §5.5")
	}
	return request, nil
}

// limit leaves out what none of the client's scopes gives, and returns the
// scopes that give the rest: to ask for a claim by its name is to ask for what
// its scope gives, and the user is to agree to that.
func (p *Provider) limit(request *claimsRequest, client *Client) (scopes []string) {
	for _, asked := range []map[string]*claimRequest{request.UserInfo, request.IDToken} {
		for name := range asked {
			i := slices.IndexFunc(client.Scopes, func(scope string) bool { return slices.Contains(p.Claims[scope], name) })
			if i < 0 {
				if name != "acr" && name != "auth_time" && name != "sub" {
					delete(asked, name)
				}
				continue
			}
			scopes = append(scopes, client.Scopes[i])
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes)
}

// unverifiedClaim is a text that a token claims, whoever made it.
func unverifiedClaim(token, name string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	var claims map[string]any
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return ""
	}
	claim, _ := claims[name].(string)
	return claim
}
