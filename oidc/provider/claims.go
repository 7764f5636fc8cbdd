package provider

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// standardClaims are the claims of OpenID Connect Core §5.4 and additional ones of the
// accounts.
var standardClaims = map[string][]string{
	"profile": {
		"name", "family_name", "given_name", "middle_name", "nickname", "preferred_username",
		"profile", "picture", "website", "gender", "birthdate", "zoneinfo",
		"locale", "updated_at",
	},
	"email":       {"email", "email_verified"},
	"phone":       {"phone_number", "phone_number_verified"},
	"address":     {"address"},
	"roles":       {"roles"},
	"permissions": {"permissions"},
}

// decidingClaims are claims that clients use for decisions.
var decidingClaims = []string{
	"email_verified", "phone_number_verified", "updated_at", "preferred_username", "groups",
	"roles", "role", "permissions", "entitlements", "verified_claims",
}

// checkProfile returns an error for properties that users set at sign-up but that clients
// would trust.
func (p *Provider) checkProfile() error {
	for scope, claims := range p.Claims {
		for _, claim := range claims {
			if protocol.Among(protocol.TokenClaims, claim) {
				return fmt.Errorf(
					"claims %s: %s describes the token and is not a property of a user; remove it from this line",
					scope, claim,
				)
			}
		}
	}
	for _, name := range p.UserEditable {
		if !slices.Contains(p.Accounts.Profile, name) {
			return fmt.Errorf(
				"user_editable %s: the accounts have no such property, so users cannot set it; "+
					"write `profile %s` in accounts, or remove it from user_editable%s",
				name, name, config.Meant(name, p.Accounts.Profile...),
			)
		}
	}
	for _, name := range p.Accounts.Profile {
		if slices.Contains(p.UserEditable, name) {
			continue
		}
		const instead = "remove it from profile and set it with `caddy jwt user add --profile` or `caddy jwt user " +
			"import`; or, if users may choose its value freely, write `user_editable %s` in oidc_provider"
		if protocol.Among(protocol.TokenClaims, name) || protocol.Among(decidingClaims, name) {
			return fmt.Errorf(
				"accounts: profile %s: at sign-up, users could give themselves a value that clients trust; "+instead,
				name, name,
			)
		}
		for _, scope := range slices.Sorted(maps.Keys(p.Claims)) {
			if i := slices.IndexFunc(p.Claims[scope], func(claim string) bool {
				return strings.EqualFold(claim, name)
			}); i >= 0 &&
				!slices.Contains(standardClaims[scope], p.Claims[scope][i]) {
				return fmt.Errorf(
					"accounts: profile %s: `claims %s` passes it to clients, but users could give themselves any "+
						"value at sign-up; "+instead,
					name, scope, name,
				)
			}
		}
	}
	return nil
}

// userNames are the claims by which users log in.
var userNames = []string{"email", "username", "preferred_username"}

// checkRenamed returns an error for a claim with another name for the client, by which the client
// would trust what it should not.
func (p *Provider) checkRenamed(name, claim string) error {
	switch {
	case name == "" || claim == "" || protocol.Among(protocol.TokenClaims, name) || name == "email_verified":
		return fmt.Errorf("rename_claim %s %s: a client would take the claim %s for another one; choose another name",
			name, claim, name)
	case slices.Contains(userNames, claim): // which are unique, so they may name the user
		if name == "preferred_username" || !strings.EqualFold(name, "email") && !protocol.Among(decidingClaims, name) {
			return nil
		}
		return fmt.Errorf("rename_claim %s %s: users choose %[2]s themselves, and a client would trust %[1]s; name "+
			"another claim", name, claim)
	case p.Accounts == nil || !slices.Contains(p.Accounts.Profile, claim) || slices.Contains(p.UserEditable, claim):
		return nil
	case slices.Contains(standardClaims["profile"], name) && !protocol.Among(decidingClaims, name):
		return nil
	}
	return fmt.Errorf("rename_claim %s %s: users set %[2]s themselves (`profile` of the accounts), and a client may "+
		"trust %[1]s; name another claim, or, if users may choose its value freely, write `user_editable %[2]s` in "+
		"oidc_provider", name, claim)
}

// isText reports whether a standard claim is a string (OpenID Connect Core §5.1).
func isText(name string) bool {
	for _, scope := range []string{"profile", "email", "phone"} {
		if slices.Contains(standardClaims[scope], name) {
			return !strings.HasSuffix(name, "_verified") && name != "updated_at"
		}
	}
	return false
}

// isAddress reports whether a value is a valid address (OpenID Connect Core §5.1.1): an
// object of strings, or a string.
func isAddress(value any) bool {
	parts, isObject := value.(map[string]any)
	for _, part := range parts {
		if _, ok := part.(string); !ok {
			return false
		}
	}
	_, isText := value.(string)
	return isObject || isText
}

// scopes returns all scopes.
func (p *Provider) scopes() map[string]bool {
	all := map[string]bool{"openid": true, "offline_access": true}
	for scope := range p.Claims {
		all[scope] = true
	}
	for _, api := range p.APIs {
		for scope := range api.Scopes {
			all[scope] = true
		}
	}
	return all
}

// announcedScopes returns the scopes in the metadata: also those that only a client of the config has.
func (p *Provider) announcedScopes() []string {
	all := p.scopes()
	for _, client := range p.Clients {
		for _, scope := range client.Scopes {
			all[scope] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func (p *Provider) claimNames() []string {
	all := map[string]bool{
		"sub": true, "iss": true, "aud": true, "exp": true, "iat": true,
		"auth_time": true, "nonce": true, "acr": true, "amr": true, "sid": true,
	}
	for _, claims := range p.Claims {
		for _, claim := range claims {
			all[claim] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// claimOf returns a claim of a user, if present.
func claimOf(user store.User, name string) (any, bool) {
	switch name {
	case "email":
		return user.Address(), user.Address() != ""
	case "email_verified":
		return user.EmailVerified || isTrue(user.Profile["email_verified"]), user.Address() != ""
	case "username", "preferred_username":
		if user.Username() != "" {
			return user.Username(), true
		}
	case "roles":
		if user.Roles == nil {
			return []string{}, true
		}
		return user.Roles, true
	case "updated_at":
		return user.UpdatedAt.Unix(), true
	}
	value, ok := user.Profile[name]
	switch {
	case !ok || value == nil || protocol.Among(protocol.TokenClaims, name):
		return nil, false
	case isText(name):
		_, ok = value.(string)
	case strings.HasSuffix(name, "_verified"): // OpenID Connect Core §5.1
		return isTrue(value), true
	case name == "address":
		ok = isAddress(value)
	}
	return value, ok
}

// isTrue reports whether a property is true: as a boolean, or as the text that it was set to by a form
// or a table.
func isTrue(value any) bool { return value == true || value == "true" }

// renamed returns claims by their names for the client.
func (c *Client) renamed(claims map[string]any) map[string]any {
	if len(c.RenameClaims) == 0 {
		return claims
	}
	renamed := maps.Clone(claims)
	for _, claim := range c.RenameClaims {
		delete(renamed, claim)
	}
	for name, claim := range c.RenameClaims {
		if value, ok := claims[claim]; ok {
			renamed[name] = value
		}
	}
	return renamed
}

// userClaims returns the user's claims that the scopes, and the claims requested by name,
// include.
func (p *Provider) userClaims(user store.User, scopes []string, asked map[string]*claimRequest) map[string]any {
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
		return request, refuse("invalid_request", "claims is not a JSON object as in OpenID Connect Core §5.5")
	}
	return request, nil
}

// limit removes requested claims that none of the client's scopes includes, and returns the
// scopes of the rest: requesting a claim by name needs the same consent as requesting its
// scope.
func (p *Provider) limit(request *claimsRequest, client *Client) (scopes []string) {
	for _, asked := range []map[string]*claimRequest{request.UserInfo, request.IDToken} {
		for name := range asked {
			i := slices.IndexFunc(client.Scopes, func(scope string) bool {
				return slices.Contains(p.Claims[scope], name)
			})
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

// unverifiedClaim returns a string claim of an unverified token.
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
