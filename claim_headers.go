package caddyjwt

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"golang.org/x/net/http/httpguts"
)

// ClaimHeader is a request header that passes a claim to the upstream.
type ClaimHeader struct {
	// Header is the name of the header. Values from the client are always removed, for
	// every spelling that an upstream may treat as the same name (`X-User`, `X_User`,
	// `X.User`), also if the claim is absent or the request does not require a token.
	Header string `json:"header"`

	// Claim is the path of the claim. Lists are joined by commas, so an element that
	// contains a comma looks like two; objects are JSON. If the claim is absent or contains
	// a line break or another control character, the header is not set.
	Claim string `json:"claim"`
}

// headerName matches names that are used for headers but not for claims.
var headerName = regexp.MustCompile(`^([Xx]|[A-Z][A-Za-z0-9]*|remote)(-[A-Za-z0-9]+)+$`)

// commonClaims are names that are used for claims but not for headers.
var commonClaims = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "name", "given_name", "family_name", "preferred_username",
	"nickname", "email", "email_verified", "phone_number", "scope", "scp", "role", "roles", "groups",
	"permissions", "entitlements", "azp", "client_id", "sid", "acr", "amr", "auth_time", "tid", "oid", "upn",
}

// turnedRound reports whether header and claim are swapped: the claim looks like a header,
// or the header is the name of a claim. Clients could then send the header that the
// upstream uses.
func turnedRound(header *ClaimHeader) bool {
	if headerName.MatchString(header.Header) {
		return false
	}
	return headerName.MatchString(header.Claim) ||
		slices.Contains(commonClaims, strings.ToLower(header.Header)) && !slices.Contains(commonClaims, header.Claim)
}

func (h *Handler) validateClaimHeaders() error {
	for i, header := range h.ClaimHeaders {
		if !httpguts.ValidHeaderFieldName(header.Header) || header.Claim == "" {
			return fmt.Errorf(
				"claim_header takes a header name and a claim, not %q and %q", header.Header, header.Claim,
			)
		}
		if turnedRound(header) {
			return fmt.Errorf(
				"claim_header takes the header first and then the claim; write: claim_header %s %s",
				header.Claim, strings.ToLower(header.Header),
			)
		}
		if credentials.IsReservedHeader(header.Header) {
			return fmt.Errorf(
				"claim_header %s: this header is reserved for HTTP or the proxy; choose another header for the claim",
				header.Header,
			)
		}
		for _, earlier := range h.ClaimHeaders[:i] {
			if sameHeader(header.Header, earlier.Header) {
				return fmt.Errorf("claim_header %s is specified twice; give each claim its own header", header.Header)
			}
		}
		if h.UpstreamToken != nil && sameHeader(header.Header, h.UpstreamToken.Header) {
			return fmt.Errorf("claim_header %s: upstream_token sets this header; choose another one for the claim",
				header.Header)
		}
		for _, source := range h.sources {
			if sameHeader(header.Header, source.Header) || source.Cookie != "" && header.Header == "Cookie" {
				return fmt.Errorf("claim_header %s: the token is read from this header, "+
					"and clients' values are removed from it; choose another header for the claim", header.Header)
			}
		}
	}
	return nil
}

// sameHeader compares header names like CGI and similar interfaces, which convert `-` and
// any other punctuation to `_` (RFC 3875 §4.1.18).
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
	who := userOf(r)
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

// removeClaimHeaders removes headers that a client may have sent to impersonate a user.
// Headers with the names in kept were set by a jwt handler and stay.
func removeClaimHeaders(r *http.Request, headers []*ClaimHeader, kept []string) {
	if len(headers) == 0 {
		return
	}
	isClaim := func(name string) bool {
		return slices.ContainsFunc(headers, func(header *ClaimHeader) bool { return sameHeader(name, header.Header) })
	}
	maps.DeleteFunc(r.Header, func(name string, _ []string) bool {
		return isClaim(name) && !slices.Contains(kept, name)
	})
	if r.Trailer != nil {
		removeTrailers(r, isClaim)
	}
	// A proxy removes the headers named in these (RFC 9110 §7.6.1).
	for _, list := range []string{"Connection", "Trailer"} {
		for i, value := range r.Header[list] {
			names := strings.Split(value, ",")
			if slices.ContainsFunc(names, func(name string) bool { return isClaim(strings.TrimSpace(name)) }) {
				others := slices.DeleteFunc(names, func(name string) bool { return isClaim(strings.TrimSpace(name)) })
				r.Header[list][i] = strings.Join(others, ",")
			}
		}
	}
}

// removeTrailers removes claim headers that arrive after the body, declared or not:
// net/http adds them to the request's map when the body has ended.
func removeTrailers(r *http.Request, isClaim func(name string) bool) {
	trailers := r.Trailer
	remove := func() {
		maps.DeleteFunc(trailers, func(name string, _ []string) bool { return isClaim(name) })
	}
	remove()
	if r.Body != nil {
		r.Body = &trailerGuard{r.Body, remove}
	}
}

// trailerGuard calls ended at the end of the body, before the reader gets to know of it.
type trailerGuard struct {
	io.ReadCloser
	ended func()
}

// Read implements io.Reader.
func (g *trailerGuard) Read(into []byte) (int, error) {
	n, err := g.ReadCloser.Read(into)
	if err != nil {
		g.ended()
	}
	return n, err
}

// Close implements io.Closer. It may read the rest of the body.
func (g *trailerGuard) Close() error {
	defer g.ended()
	return g.ReadCloser.Close()
}
