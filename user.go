package caddyjwt

import (
	"net/http"
	"slices"
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
// log. A nil token means an anonymous user with empty placeholders. The placeholders of an
// earlier jwt handler are removed, so that claims of different users are never mixed in them.
// Its claim headers stay, because each handler sets its own; but if this handler owns one of
// them, it replaces the user for the upstream, and all are removed.
func attach(r *http.Request, token *jwt.Token, own []*ClaimHeader) {
	replacer := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	vars := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	who, attached := vars[requestUserVar].(*requestUser)
	if !attached {
		who = new(requestUser)
		vars[requestUserVar] = who
		replacer.Map(who.placeholder)
	}
	if attached && !who.is(token) && who.hasHeaderOf(own) {
		who.removeHeaders(r)
	}
	who.claims, who.userID = nil, nil
	if token == nil {
		return
	}
	who.claims, who.userID = token.Claims, token.UserIDValue()
	replacer.DeleteByPrefix(userPlaceholders)
}

// removeHeaders removes all headers that jwt handlers have set.
func (who *requestUser) removeHeaders(r *http.Request) {
	for _, name := range who.headers {
		r.Header.Del(name)
	}
	who.headers, who.replaced = nil, nil
}

// hasHeaderOf reports whether one of the headers that earlier handlers have set is of this one.
func (who *requestUser) hasHeaderOf(own []*ClaimHeader) bool {
	return slices.ContainsFunc(who.headers, func(name string) bool {
		return slices.ContainsFunc(own, func(header *ClaimHeader) bool { return sameHeader(name, header.Header) })
	})
}

// is reports whether a token has the same user; an ID is only unique per issuer.
func (who *requestUser) is(token *jwt.Token) bool {
	if token == nil {
		return false
	}
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
