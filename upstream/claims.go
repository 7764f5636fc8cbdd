package upstream

import (
	"net/http"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// ClaimSource adds claims to the tokens for an upstream. It is a Caddy module in the namespace
// `jwt.claims`, and is safe for concurrent use.
type ClaimSource interface {
	// Claims returns claims for the token of a user: values that JSON has, by name. It is
	// called at each request, and the same claims yield a token that was signed before. So it
	// should be fast, and claims should seldom change; a claim such as the time would need a
	// signature each time. An *[refusal.Error] refuses the request as it says, any other
	// error with 503.
	Claims(r *http.Request, user *jwt.Token) (map[string]any, error)
}

// Reserved are the claims that a [ClaimSource] cannot set: what the token means depends on them.
var Reserved = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "idp", "act", "client_id", "cnf"}

// Collect returns the claims of all sources. If two return the same claim, the first one counts.
func Collect(sources []ClaimSource, r *http.Request, user *jwt.Token) (map[string]any, error) {
	if len(sources) == 0 {
		return nil, nil
	}
	all := make(map[string]any)
	for _, source := range sources {
		claims, err := source.Claims(r, user)
		if err != nil {
			return nil, err
		}
		for name, value := range claims {
			if _, known := all[name]; !known && !slices.Contains(Reserved, name) {
				all[name] = value
			}
		}
	}
	return all, nil
}
