package caddyjwt

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/http/httpguts"
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

// ClaimHeader is a request header that tells the upstream a claim.
type ClaimHeader struct {
	// Header is the name of the header. The client's own copies are always
	// removed, in every spelling that an upstream might take for it
	// (`X-User`, `X_User`, `X.User`), also when the claim is absent and when
	// no token was needed.
	Header string `json:"header"`

	// Claim is the path of the claim. Lists are joined by commas, so that an element
	// with a comma in it looks like two; objects are JSON. If it is absent, or holds a line end or another control
	// character, the header is not set.
	Claim string `json:"claim"`
}

// headerName is a name that headers have, and claims do not.
var headerName = regexp.MustCompile(`^([Xx]|[A-Z][A-Za-z0-9]*|remote)(-[A-Za-z0-9]+)+$`)

// commonClaims are names that claims have, and headers do not.
var commonClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "name", "given_name", "family_name", "preferred_username", "nickname", "email", "email_verified", "phone_number", "scope", "scp", "role", "roles", "groups", "permissions", "entitlements", "azp", "client_id", "sid", "acr", "amr", "auth_time", "tid", "oid", "upn"}

// turnedRound reports whether the claim has the form of a header, or the header the
// name of a claim. Clients could then send the header that the service behind reads.
func turnedRound(header *ClaimHeader) bool {
	if headerName.MatchString(header.Header) {
		return false
	}
	return headerName.MatchString(header.Claim) || slices.Contains(commonClaims, strings.ToLower(header.Header)) && !slices.Contains(commonClaims, header.Claim)
}

func (h *Handler) validateClaimHeaders() error {
	for i, header := range h.ClaimHeaders {
		if !httpguts.ValidHeaderFieldName(header.Header) || header.Claim == "" {
			return fmt.Errorf("claim_header needs a header name and a claim, not %q and %q", header.Header, header.Claim)
		}
		if turnedRound(header) {
			return fmt.Errorf("claim_header takes the header first, and then the claim; write: claim_header %s %s", header.Claim, strings.ToLower(header.Header))
		}
		if slices.Contains([]string{"Host", "Connection", "Content-Length", "Transfer-Encoding", "Keep-Alive", "Trailer", "Te", "Upgrade", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"}, header.Header) {
			return fmt.Errorf("claim_header %s: this header is HTTP's own or the proxy's; give the claim another", header.Header)
		}
		for _, earlier := range h.ClaimHeaders[:i] {
			if sameHeader(header.Header, earlier.Header) {
				return fmt.Errorf("claim_header %s is specified twice; give each claim a header of its own", header.Header)
			}
		}
		for _, source := range h.sources {
			if sameHeader(header.Header, source.Header) || source.Cookie != "" && header.Header == "Cookie" {
				return fmt.Errorf("claim_header %s: the token is read from this header, and a client's copy is removed; give the claim another header", header.Header)
			}
		}
	}
	return nil
}

// sameHeader compares header names as CGI and its heirs do, which write `-`
// and any other punctuation as `_` (RFC 3875 §4.1.18).
func sameHeader(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if cgiByte(a[i]) != cgiByte(b[i]) {
			return false
		}
	}
	return true
}

func cgiByte(c byte) byte {
	switch {
	case 'a' <= c && c <= 'z':
		return c - 'a' + 'A'
	case 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return c
	}
	return '_'
}

func (h *Handler) setClaimHeaders(r *http.Request, claims jwt.Claims) {
	if len(h.ClaimHeaders) == 0 {
		return
	}
	who := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)[identityVar].(*identity)
	for _, header := range h.ClaimHeaders {
		value, _ := claims.Lookup(header.Claim)
		if value == nil {
			continue
		}
		if text := jwt.ClaimText(value); httpguts.ValidHeaderFieldValue(text) {
			r.Header[header.Header] = []string{text}
			who.headers = append(who.headers, header.Header)
		}
	}
}
