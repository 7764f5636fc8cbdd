package caddyjwt

import (
	"net/http"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const (
	userPlaceholders = "http.auth.user."
	requestUserVar   = "caddy_jwt_user"
)

// requestUser is the user of a request, for the next handlers. There is one per request; if
// several jwt handlers run, the last one decides.
type requestUser struct {
	claims  jwt.Claims
	userID  any      // a string, or nil for an anonymous user
	headers []string // claim headers set by the handler
	// replaced is the credential in whose place the upstream gets a token; see
	// [UpstreamToken].
	replaced *credentials.Credential
}

// userOf returns the user that a jwt handler has set for the request, or nil.
func userOf(r *http.Request) *requestUser {
	user, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)[requestUserVar].(*requestUser)
	return user
}

// attach sets the user in the request's placeholders and, by the user ID, in its access
// log. A nil token means an anonymous user with empty placeholders. Data of an earlier jwt
// handler is removed, so that data of different users is never mixed.
func attach(r *http.Request, token *jwt.Token) {
	replacer := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	vars := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	who, attached := vars[requestUserVar].(*requestUser)
	if !attached {
		who = new(requestUser)
		vars[requestUserVar] = who
		replacer.Map(who.placeholder)
	}
	if token == nil || attached && !who.is(token) {
		for _, name := range who.headers {
			r.Header.Del(name)
		}
		who.headers = nil
	}
	if token == nil {
		*who = requestUser{}
		return
	}
	who.claims, who.userID = token.Claims, token.UserIDValue()
	replacer.DeleteByPrefix(userPlaceholders)
}

// is reports whether a token has the same user; an ID is only unique per issuer.
func (who *requestUser) is(token *jwt.Token) bool {
	issuer, _ := who.claims["iss"].(string)
	same, _ := token.Claims["iss"].(string)
	return who.userID == token.UserIDValue() && issuer == same
}

// placeholder evaluates a claim when it is used. The prefix is known, so an absent claim is
// empty and the placeholder is not left unchanged.
func (who *requestUser) placeholder(key string) (any, bool) {
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
