// Package credentials finds the token in a request: in a header, a cookie or the query.
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

// Source is a place in a request that can contain a token. Exactly one of Header, Cookie
// and Query must be set.
type Source struct {
	// Header is the name of a request header. Its value is Scheme, a space and the token.
	// Caddy's access log only redacts `Authorization`; filter any other header there.
	Header string `json:"header,omitempty"`

	// Scheme is the authentication scheme before the token, compared without case (RFC 9110
	// §11.1). Default: `Bearer` for the `Authorization` header; none for any other header,
	// whose whole value is then the token.
	Scheme string `json:"scheme,omitempty"`

	// Cookie is the name of a cookie. Only a name with the prefix `__Host-` prevents other
	// sites of the same domain from setting the cookie. A request that is not read-only is
	// refused if a page of another origin sent it; see `trusted_origins`. The response is
	// marked `Cache-Control: private` and `Vary: Cookie`, unless a later handler sets
	// Cache-Control.
	Cookie string `json:"cookie,omitempty"`

	// Query is the name of a query parameter. URLs end up in logs, histories and `Referer`
	// headers, so use it only for links, which cannot have a header (RFC 6750 §2.3 and
	// §5.3). The response is marked `Cache-Control: private`.
	Query string `json:"query,omitempty"`

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

// read returns the token in this place, or the empty string.
func (s *Source) read(r *http.Request) (string, error) {
	switch {
	case s.Header != "":
		return s.readHeader(r.Header[s.Header])
	case s.Cookie != "":
		if _, present := r.Header["Cookie"]; !present {
			return "", nil
		}
		return s.only(CookieValues(r, s.cookieName(r)))
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

func (s *Source) readHeader(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", refusal.New(refusal.SeveralTokens, "header %s is specified twice", s.Header)
	}
	token := strings.Trim(values[0], " \t")
	if s.Scheme != "" {
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

func cutScheme(credentials string) (scheme, rest string) {
	for i := range min(len(credentials), 64) { // faster than strings.IndexAny
		if credentials[i] == ' ' || credentials[i] == '\t' {
			return credentials[:i], strings.TrimLeft(credentials[i:], " \t")
		}
	}
	return credentials, ""
}

// strip removes the token from the request, so that the next handlers do not see it.
func (s *Source) strip(r *http.Request) {
	switch {
	case s.Header != "":
		if token, err := s.readHeader(r.Header[s.Header]); token != "" || err != nil {
			r.Header.Del(s.Header)
		}
	case s.Cookie != "":
		if name := s.cookieName(r); len(CookieValues(r, name)) > 0 {
			StripCookie(r, name)
		}
	default:
		if len(queryValues(r.URL.RawQuery, s.Query)) > 0 {
			r.URL.RawQuery = withoutParameter(r.URL.RawQuery, s.Query)
		}
	}
}

// StripCookie removes a cookie and keeps the others byte for byte, which parsing and
// writing them again would not.
func StripCookie(r *http.Request, name string) {
	var kept []string
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.Trim(pair, " \t")
			if of, _ := cutCookie(pair); of != name && pair != "" {
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
}

// ByCookie reports whether the browser sent the token automatically.
func (c Credential) ByCookie() bool { return c.Source != nil && c.Source.Cookie != "" }

// ByQuery reports whether the token was in the URL.
func (c Credential) ByQuery() bool { return c.Source != nil && c.Source.Query != "" }

// Read returns the token of the request. Several tokens are an error, even if one of them
// is valid (RFC 6750 §2).
func (sources Sources) Read(r *http.Request) (c Credential) {
	for _, source := range sources {
		found, err := source.read(r)
		if err != nil {
			return Credential{Err: err}
		}
		if found == "" {
			continue
		}
		if c.Token != "" {
			return Credential{Err: refusal.New(refusal.SeveralTokens, "one in %s and one in %s", c.Source, source)}
		}
		c = Credential{Token: found, Source: source}
	}
	return c
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
		source.strip(r)
	}
}

// String returns a description of the source.
func (s *Source) String() string {
	switch {
	case s.Header != "":
		return "header " + s.Header
	case s.Cookie != "":
		return "cookie " + s.Cookie
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
			if source.String() == earlier.String() &&
				(strings.EqualFold(source.Scheme, earlier.Scheme) || source.Scheme == "" || earlier.Scheme == "") {
				return fmt.Errorf("`from` lists %s twice; remove one of them", source)
			}
		}
	}
	return nil
}

func (s *Source) problem() string {
	places := 0
	for _, name := range []string{s.Header, s.Cookie, s.Query} {
		if name != "" {
			places++
		}
	}
	switch {
	case places != 1:
		return "`from`: each entry must have exactly one of header, cookie and query"
	case s.Header != "" && !httpguts.ValidHeaderFieldName(s.Header):
		return "`from header` takes a header name, not \"" + s.Header + "\""
	case s.Scheme != "" && (s.Header == "" || !httpguts.ValidHeaderFieldName(s.Scheme)):
		return "`from header` takes a single word as the scheme, as in: from header Authorization Bearer"
	case s.Cookie != "" && !httpguts.ValidHeaderFieldName(s.Cookie):
		return "`from cookie` takes a cookie name, not \"" + s.Cookie + "\""
	}
	return ""
}
