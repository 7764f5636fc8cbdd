package caddyjwt

import (
	"net/http"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	userPlaceholders = "http.auth.user."
	identityVar      = "caddy_jwt_identity"
)

// identity is whose request it is, for the handlers behind. There is one per
// request; where several jwt handlers meet it, the last one decides.
type identity struct {
	claims  jwt.Claims
	userID  any      // a string, or nil for an anonymous user
	headers []string // claim headers that were set
}

// attach puts the user into the request's placeholders and, by the user ID,
// into its access log. A nil token is an anonymous user, whose placeholders
// are empty. What an earlier jwt handler said of the user is forgotten, so that
// nothing of one user stands beside something of another.
func attach(r *http.Request, token *jwt.Token) {
	replacer := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	vars := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	who, attached := vars[identityVar].(*identity)
	if !attached {
		who = new(identity)
		vars[identityVar] = who
		replacer.Map(who.placeholder)
	}
	if token == nil || attached && !who.is(token) {
		for _, name := range who.headers {
			r.Header.Del(name)
		}
		who.headers = nil
	}
	if token == nil {
		*who = identity{}
		return
	}
	who.claims, who.userID = token.Claims, token.UserIDValue()
	replacer.DeleteByPrefix(userPlaceholders)
}

// is tells whether a token is of the same user: an ID is one issuer's.
func (who *identity) is(token *jwt.Token) bool {
	issuer, _ := who.claims["iss"].(string)
	same, _ := token.Claims["iss"].(string)
	return who.userID == token.UserIDValue() && issuer == same
}

// placeholder looks a claim up when it is read. The names of claims are
// known, so an absent one is empty and not left as it is written.
func (who *identity) placeholder(key string) (any, bool) {
	path, ours := strings.CutPrefix(key, userPlaceholders)
	if !ours {
		return nil, false
	}
	if path == "id" && who.userID != nil {
		return who.userID, true
	}
	value, _ := who.claims.Lookup(path)
	if value == nil {
		return "", true
	}
	return value, true
}
