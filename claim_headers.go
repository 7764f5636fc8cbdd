package caddyjwt

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/caddy-jwt/caddy-jwt/config"
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

	// Claim is the path of the claim, or `*` for all claims as one JSON object. Lists are
	// joined by commas, so an element that contains a comma looks like two; objects are JSON.
	// Text is sent as its bytes in UTF-8, which servers that expect ISO 8859-1, as in Node.js
	// and Java, read as other characters; set a form for these. If the claim is absent, or
	// its header would contain a line break or another control character, the header is not
	// set.
	Claim string `json:"claim"`

	// Form is how the claim is written: `json`, or `lines` for one field line for each
	// element of a list; and an encoding, `percent` (UTF-8 as in a URL, RFC 3986 §2.1, for
	// `decodeURIComponent`), `base64` (with padding, RFC 4648 §4) or `base64url` (without,
	// §5); or both. `json` is ASCII, with other characters as `\u00e9`, and whole numbers
	// exact. `*` is always `json`. A proxy may join lines by commas (RFC 9110 §5.3), so encode
	// elements that contain some. Encoded or as `json`, a claim can contain line breaks: its
	// reader must not write it to a header as it is. The claims of a token have up to 12 KB, and
	// a form can make them four times as long; many servers refuse more than 8 KB of headers,
	// so pass only the claims that are used. Default: text.
	Form []string `json:"form,omitempty"`

	write func(claim any) []string // returns the lines of the header; nil for text
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
		if err := header.provision(); err != nil {
			return err
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
			if sameHeader(header.Header, source.Header) || source.Cookie != "" && header.Header == "Cookie" ||
				source.WebSocketProtocol != "" && sameHeader(header.Header, "Sec-WebSocket-Protocol") {
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

// The words of a form: each has at most one format and one encoding.
var (
	claimFormats   = []string{"json", "lines"}
	claimEncodings = map[string]func(text string) string{
		"percent":   func(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") },
		"base64":    func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) },
		"base64url": func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) },
	}
	claimForms = []string{"json", "lines", "percent", "base64", "base64url"}
)

// provision prepares the form.
func (header *ClaimHeader) provision() error {
	format, encoding := "", ""
	for _, word := range header.Form {
		into := &format
		if claimEncodings[word] != nil {
			into = &encoding
		} else if !slices.Contains(claimFormats, word) {
			return fmt.Errorf(
				"claim_header %s: unknown form %q after the header and the claim; the forms are %s%s",
				header.Header, word, config.List(claimForms), config.Meant(word, claimForms...),
			)
		}
		if *into == word {
			return fmt.Errorf("claim_header %s: %s is specified twice", header.Header, word)
		}
		if *into != "" {
			return fmt.Errorf("claim_header %s: %s and %s exclude each other; keep one", header.Header, *into, word)
		}
		*into = word
	}
	if header.Claim == allClaims {
		if format == "lines" {
			return fmt.Errorf("claim_header %s: lines is for a list, and * is an object; "+
				"write: claim_header %[1]s * json", header.Header)
		}
		format = "json"
	}
	if format != "" || encoding != "" {
		header.write = func(claim any) []string { return claimLines(claim, format, claimEncodings[encoding]) }
	}
	return nil
}

// allClaims stands for all claims.
const allClaims = "*"

// claimLines returns the values of the lines of a header.
func claimLines(claim any, format string, encode func(text string) string) (lines []string) {
	list, isList := claim.(jwt.List)
	switch {
	case format == "json":
		text, err := asciiJSON(claim)
		if err != nil {
			return nil
		}
		lines = []string{text}
	case format == "lines" && isList:
		for _, element := range list {
			lines = append(lines, jwt.ClaimText(element))
		}
	default:
		lines = []string{jwt.ClaimText(claim)}
	}
	for i := range lines {
		if encode != nil {
			lines[i] = encode(lines[i])
		}
	}
	return lines
}

// asciiJSON returns a claim as JSON. Its other characters are all in strings, and escaped there
// (RFC 8259 §7).
func asciiJSON(claim any) (string, error) {
	object, err := jwt.MarshalClaims(jwt.Claims{"": claim}) // numbers exact, which they are in claims only
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, c := range string(object[len(`{"":`) : len(object)-len(`}`)]) {
		switch {
		case c < 0x7f:
			text.WriteByte(byte(c))
		case c < 0x10000:
			fmt.Fprintf(&text, `\u%04x`, c)
		default:
			first, second := utf16.EncodeRune(c)
			fmt.Fprintf(&text, `\u%04x\u%04x`, first, second)
		}
	}
	return text.String(), nil
}

func (h *Handler) setClaimHeaders(r *http.Request, claims jwt.Claims) {
	if len(h.ClaimHeaders) == 0 {
		return
	}
	who := userOf(r)
	for _, header := range h.ClaimHeaders {
		if lines := header.lines(claims); len(lines) > 0 {
			r.Header[header.Header] = lines
			who.headers = append(who.headers, header.Header)
		}
	}
}

// lines returns the values of the header, or none if it is not to be set.
func (header *ClaimHeader) lines(claims jwt.Claims) (lines []string) {
	var value any = claims
	if header.Claim != allClaims {
		value, _ = claims.Lookup(header.Claim)
	}
	switch {
	case value == nil:
		return nil
	case header.write == nil:
		lines = []string{jwt.ClaimText(value)}
	default:
		lines = header.write(value)
	}
	if slices.ContainsFunc(lines, func(text string) bool { return !httpguts.ValidHeaderFieldValue(text) }) {
		return nil
	}
	return lines
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
