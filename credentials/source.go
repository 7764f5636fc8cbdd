// Package credentials finds the token in a request: in a header, a cookie, the query or the
// subprotocols of a WebSocket.
package credentials

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"golang.org/x/net/http/httpguts"
)

// Source is a place in a request that can contain a token. Exactly one of Header, Cookie,
// Query and WebSocketProtocol must be set.
type Source struct {
	// Header is the name of a request header. Its value is Scheme, a space and the token.
	// To accept a header with and without a scheme, list it twice. Caddy's access log only
	// redacts `Authorization`; filter any other header there.
	Header string `json:"header,omitempty"`

	// Scheme is the authentication scheme before the token, compared without case (RFC 9110
	// §11.1). Default: `Bearer` for the `Authorization` header; none for any other header,
	// whose whole value is then the token.
	Scheme string `json:"scheme,omitempty"`

	// NoScheme means that the whole value of the header is the token, for clients that send
	// `Authorization: <token>`; in a Caddyfile, the scheme `""`. Credentials with a scheme,
	// such as `Basic`, are then not a token. Default: false.
	NoScheme bool `json:"no_scheme,omitempty"`

	// Cookie is the name of a cookie. Use a name with the prefix `__Host-`: any other cookie
	// can be set by other sites of the same domain, too. A request that is not read-only is
	// refused if a page of another origin sent it; see `trusted_origins`. The response is
	// marked `Cache-Control: private` and `Vary: Cookie`, unless a later handler sets
	// Cache-Control. The value can be the token, `Bearer <token>`, or be divided into the
	// cookies `<name>.0`, `<name>.1` and so on, up to 32, as by Auth.js, or `<name>C1`,
	// `<name>C2` and so on with `<name>=chunks-2`, as by ASP.NET. If a part is missing, or
	// there are both a whole cookie and parts, the request is refused with 400.
	Cookie string `json:"cookie,omitempty"`

	// Query is the name of a query parameter. URLs end up in logs, histories and `Referer`
	// headers, so use it only for links, which cannot have a header (RFC 6750 §2.3 and
	// §5.3). The response is marked `Cache-Control: private`.
	Query string `json:"query,omitempty"`

	// WebSocketProtocol is the name of a subprotocol in `Sec-WebSocket-Protocol`, because
	// scripts in a browser cannot set any other header of a WebSocket. The token is the next
	// subprotocol in the list, as in `bearer, <token>`, or follows the name in the same one,
	// in base64url, as in `base64url.bearer.authorization.k8s.io.<token>` (Kubernetes). It is
	// read only from requests that open a WebSocket. A browser closes the connection if the
	// upstream selects none of the subprotocols: `strip_token` only removes the token, so
	// that the upstream can still select the name or another one. Caddy's access log does not
	// redact the header; filter it there. Default: `bearer`, if a Caddyfile omits the name.
	WebSocketProtocol string `json:"websocket_protocol,omitempty"`

	// OfAccounts means that Cookie is the session cookie of the accounts, whose name
	// depends on the request. The handler sets it.
	OfAccounts bool `json:"-"`

	// Only is the verifier of all credentials in this place; nil for any verifier. The
	// handler sets it.
	Only Verifier `json:"-"`
}

// reservedHeaders are used by HTTP or the proxy.
var reservedHeaders = []string{
	"Host", "Connection", "Content-Length", "Transfer-Encoding", "Keep-Alive", "Trailer", "Te", "Upgrade",
	"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host",
}

// IsReservedHeader reports whether HTTP or the proxy uses a header, by its canonical name, so that
// it can have nothing else.
func IsReservedHeader(name string) bool { return slices.Contains(reservedHeaders, name) }

// AccountSources are the default sources of the accounts' own tokens.
var AccountSources = Sources{{Header: "Authorization", Scheme: "Bearer"}, {Cookie: SessionCookie, OfAccounts: true}}

// read returns the token in this place, or the empty string. The others are all sources of the
// handler.
func (s *Source) read(r *http.Request, others Sources) (string, error) {
	switch {
	case s.Header != "":
		return s.readHeader(r.Header[s.Header], others)
	case s.Cookie != "":
		if _, present := r.Header["Cookie"]; !present {
			return "", nil
		}
		return s.readCookie(r)
	case s.WebSocketProtocol != "":
		return s.readProtocols(r)
	default:
		if r.URL.RawQuery == "" {
			return "", nil
		}
		return s.only(queryValues(r.URL.RawQuery, s.Query))
	}
}

func (s *Source) only(values []string) (string, error) {
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", refusal.New(refusal.SeveralTokens, "%s is specified twice", s)
}

// CookieValues returns the values of a cookie exactly as sent. net/http would drop a
// malformed value, but an invalid token is not the same as no token.
func CookieValues(r *http.Request, name string) (values []string) {
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if of, value := cutCookie(pair); of == name {
				values = append(values, value)
			}
		}
	}
	return values
}

// cutCookie splits a cookie pair like a browser (RFC 6265 §4.2.1, §5.2). It only trims
// ASCII white space: a sibling site can put other white space before a name, which defeats
// `__Host-`.
func cutCookie(pair string) (name, value string) {
	name, value, _ = strings.Cut(pair, "=")
	name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	return name, value
}

// queryValues returns the values of a parameter, including malformed ones.
func queryValues(query, name string) (values []string) {
	for pair := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(key); err != nil || decoded != name {
			continue
		}
		if decoded, err := url.QueryUnescape(value); err == nil {
			value = decoded
		}
		values = append(values, value)
	}
	return values
}

func (s *Source) cookieName(r *http.Request) string {
	if s.OfAccounts {
		return CookieName(r, s.Cookie)
	}
	return s.Cookie
}

func (s *Source) readHeader(values []string, others Sources) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", refusal.New(refusal.SeveralTokens, "header %s is specified twice", s.Header)
	}
	token := strings.Trim(values[0], " \t")
	if s.Scheme == "" {
		if other, err := s.hasScheme(token, others); other || err != nil {
			return "", err
		}
	} else {
		scheme, rest := cutScheme(token)
		if !strings.EqualFold(scheme, s.Scheme) {
			for part := range strings.SplitSeq(token, ",") {
				if scheme, _ := cutScheme(strings.Trim(part, " \t")); strings.EqualFold(scheme, s.Scheme) {
					return "", refusal.New(
						refusal.MalformedCredentials, "header %s has credentials with two schemes", s.Header,
					)
				}
			}
			return "", nil // another scheme, not for this source
		}
		token = rest
		if token == "" {
			return "", refusal.New(refusal.MalformedCredentials, "header %s has a scheme but no token", s.Header)
		}
	}
	// Three searches for one byte are faster than one search for any of them.
	if strings.IndexByte(token, ' ') >= 0 || strings.IndexByte(token, '\t') >= 0 || strings.IndexByte(token, ',') >= 0 {
		return "", refusal.New(
			refusal.MalformedCredentials, "header %s has more than one token or too many parts", s.Header,
		)
	}
	return token, nil
}

// schemes are registered authentication schemes (RFC 9110 §16.4.1), and NTLM. A word of these
// without more is not a token.
var schemes = []string{
	"basic", "bearer", "concealed", "digest", "dpop", "gnap", "hoba", "mutual", "negotiate", "ntlm", "oauth",
	"privatetoken", "scram-sha-1", "scram-sha-256", "vapid",
}

// hasScheme reports whether a value is not for a source without a scheme, because it has the
// scheme of another source or, in Authorization, any scheme.
func (s *Source) hasScheme(value string, others Sources) (bool, error) {
	scheme, rest := cutScheme(value)
	if slices.ContainsFunc(others, func(other *Source) bool {
		return other.Header == s.Header && other.Scheme != "" && strings.EqualFold(other.Scheme, scheme)
	}) {
		return true, nil
	}
	if rest == "" && slices.Contains(schemes, strings.ToLower(scheme)) {
		return false, refusal.New(refusal.MalformedCredentials, "header %s has a scheme but no token", s.Header)
	}
	return s.Header == "Authorization" && rest != "" && !strings.ContainsFunc(scheme, notInScheme), nil
}

// notInScheme reports whether no authentication scheme has a character. Most tokens have one.
func notInScheme(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
}

func cutScheme(credentials string) (scheme, rest string) {
	for i := range min(len(credentials), 64) { // faster than strings.IndexAny
		if credentials[i] == ' ' || credentials[i] == '\t' {
			return credentials[:i], strings.TrimLeft(credentials[i:], " \t")
		}
	}
	return credentials, ""
}

// strip removes the token from the request, so that the next handlers do not see it.
func (s *Source) strip(r *http.Request, others Sources) {
	switch {
	case s.Header != "":
		if token, err := s.readHeader(r.Header[s.Header], others); token != "" || err != nil {
			r.Header.Del(s.Header)
		}
	case s.Cookie != "":
		s.stripCookies(r)
	case s.WebSocketProtocol != "":
		s.stripProtocols(r)
	default:
		if len(queryValues(r.URL.RawQuery, s.Query)) > 0 {
			r.URL.RawQuery = withoutParameter(r.URL.RawQuery, s.Query)
		}
	}
}

// StripCookie removes a cookie and keeps the others byte for byte, which parsing and
// writing them again would not.
func StripCookie(r *http.Request, name string) {
	stripCookies(r, func(other string) bool { return other == name })
}

func stripCookies(r *http.Request, isToken func(name string) bool) {
	var kept []string
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.Trim(pair, " \t")
			if name, _ := cutCookie(pair); !isToken(name) && pair != "" {
				kept = append(kept, pair)
			}
		}
	}
	r.Header.Del("Cookie")
	if len(kept) > 0 {
		r.Header.Set("Cookie", strings.Join(kept, "; "))
	}
}

func withoutParameter(query, name string) string {
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if decoded, err := url.QueryUnescape(key); err != nil || decoded != name {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// Sources are searched in order.
type Sources []*Source

// Credential is the credential in a request.
type Credential struct {
	// Token is the unverified token, or empty.
	Token string
	// Source is where the token was; nil for none.
	Source *Source
	// Err is why no token could be read, an *[refusal.Error].
	Err error

	copies copies
}

// copies says where else a request has credentials, beside the source.
type copies struct {
	cookie, query bool // the same token
	otherCookie   bool // another token in a cookie, which is ignored
}

// ByCookie reports whether a page of another site can have sent the request with the user's
// credentials: the browser sent the token automatically, or the token is in a URL, which
// anybody can write, and another one is in a cookie. A page of another site cannot set a header,
// nor does it know the token of a cookie.
func (c Credential) ByCookie() bool {
	return c.Source != nil && (c.Source.Cookie != "" || c.Source.Query != "" && c.copies.otherCookie)
}

// InCookie reports whether the token was in a cookie, even if it was elsewhere, too.
func (c Credential) InCookie() bool { return c.ByCookie() || c.copies.cookie }

// ByQuery reports whether the token was in the URL, even if it was elsewhere, too.
func (c Credential) ByQuery() bool { return c.Source != nil && c.Source.Query != "" || c.copies.query }

// Read returns the token of the request. Several tokens are an error, even if one of them
// is valid (RFC 6750 §2). Equal tokens in several places are one; then the source is not a
// cookie, if any of the others is possible.
func (sources Sources) Read(r *http.Request) (c Credential) {
	for _, source := range sources {
		found, err := source.read(r, sources)
		switch {
		case err != nil:
			return Credential{Err: err}
		case found == "":
			continue
		case c.Token == "":
			c = Credential{Token: found, Source: source}
		case c.Token != found:
			return Credential{Err: refusal.New(refusal.SeveralTokens, "one in %s and one in %s", c.Source, source)}
		default:
			c.copies.cookie = c.copies.cookie || c.Source.Cookie != "" || source.Cookie != ""
			c.copies.query = c.copies.query || c.Source.Query != "" || source.Query != ""
			if c.Source.Cookie != "" && source.Cookie == "" {
				c.Source = source
			}
		}
	}
	return c
}

// ReadFirst returns the token of the first source that has one, and ignores the others.
func (sources Sources) ReadFirst(r *http.Request) Credential {
	for i, source := range sources {
		found, err := source.read(r, sources)
		if err != nil {
			return Credential{Err: err}
		}
		if found == "" {
			continue
		}
		c := Credential{Token: found, Source: source}
		c.copies.otherCookie = slices.ContainsFunc(sources[i+1:], func(other *Source) bool {
			if source.Query == "" || other.Cookie == "" {
				return false
			}
			ignored, err := other.read(r, sources)
			return err != nil || ignored != "" && ignored != found
		})
		return c
	}
	return Credential{}
}

// HaveCookie reports whether one of the sources is a cookie.
func (sources Sources) HaveCookie() bool {
	return slices.ContainsFunc(sources, func(s *Source) bool { return s.Cookie != "" })
}

// HaveSession reports whether one of the sources is the session cookie of the accounts.
func (sources Sources) HaveSession() bool {
	return slices.ContainsFunc(sources, func(s *Source) bool { return s.OfAccounts })
}

// Strip removes the tokens of all sources from the request.
func (sources Sources) Strip(r *http.Request) {
	for _, source := range sources {
		source.strip(r, sources)
	}
}

// String returns a description of the source.
func (s *Source) String() string {
	switch {
	case s.Header != "":
		return "header " + s.Header
	case s.Cookie != "":
		return "cookie " + s.Cookie
	case s.WebSocketProtocol != "":
		return "WebSocket protocol " + s.WebSocketProtocol
	}
	return "query parameter " + s.Query
}

// Validate returns an error if a source is not valid or is listed twice.
func (sources Sources) Validate() error {
	for i, source := range sources {
		if problem := source.problem(); problem != "" {
			return errors.New(problem)
		}
		for _, earlier := range sources[:i] {
			if source.String() == earlier.String() && strings.EqualFold(source.Scheme, earlier.Scheme) {
				return fmt.Errorf("`from` lists %s twice; remove one of them", source)
			}
		}
	}
	return nil
}

func (s *Source) problem() string {
	places := 0
	for _, name := range []string{s.Header, s.Cookie, s.Query, s.WebSocketProtocol} {
		if name != "" {
			places++
		}
	}
	switch {
	case places != 1:
		return "`from`: each entry must have exactly one of header, cookie, query and websocket_protocol"
	case s.Header != "" && !httpguts.ValidHeaderFieldName(s.Header):
		return "`from header` takes a header name, not \"" + s.Header + "\""
	case s.Scheme != "" && (s.Header == "" || !httpguts.ValidHeaderFieldName(s.Scheme)):
		return "`from header` takes a single word as the scheme, as in: from header Authorization Bearer"
	case s.NoScheme && (s.Header == "" || s.Scheme != ""):
		return "`from`: no_scheme is for a header without a scheme; remove no_scheme or the scheme"
	case s.WebSocketProtocol != "" && !httpguts.ValidHeaderFieldName(s.WebSocketProtocol):
		return "`from websocket_protocol` takes the name of a subprotocol, not \"" + s.WebSocketProtocol + "\""
	case s.Cookie != "" && !httpguts.ValidHeaderFieldName(s.Cookie):
		return "`from cookie` takes a cookie name, not \"" + s.Cookie + "\""
	}
	return ""
}
