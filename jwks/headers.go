package jwks

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/internal/discovery"
	"golang.org/x/net/http/httpguts"
)

// Headers are the headers of the requests for a key set, as [NewHeaders] returns them. They are
// text, so that [Settings] can be compared, and may be secret.
type Headers string

// reservedHeaders are those that HTTP sets, and Accept-Encoding, without which the transport
// decodes the response.
var reservedHeaders = []string{
	"Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Authenticate",
	"Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Upgrade", "Expect", "Accept-Encoding",
}

// NewHeaders returns headers, by name. A value is what the option Expand of [Options] takes.
// NewHeaders returns an error if a name or a value is not valid.
func NewHeaders(values map[string]string) (Headers, error) {
	var lines, names []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return "", fmt.Errorf("header %q: this is not the name of a header, such as Authorization", name)
		case slices.Contains(reservedHeaders, canonical):
			return "", fmt.Errorf("header %s: HTTP sets this header itself; remove it", name)
		case slices.Contains(names, canonical):
			return "", fmt.Errorf("header %s is specified twice", name)
		case strings.TrimSpace(values[name]) == "" || strings.ContainsAny(values[name], "\r\n"):
			return "", fmt.Errorf("header %s: its value must be one line that is not empty", name)
		}
		names, lines = append(names, canonical), append(lines, canonical+": "+values[name])
	}
	slices.Sort(lines)
	return Headers(strings.Join(lines, "\n")), nil
}

// String does not return the values, so that no log shows them.
func (h Headers) String() string { return fmt.Sprintf("%d bytes of headers", len(h)) }

// GoString does not return the values either.
func (h Headers) GoString() string { return h.String() }

// Set adds the headers to those of a request, with the values that expand returns. Errors do not
// contain a value.
func (h Headers) Set(into http.Header, expand func(string) (string, error)) error {
	if h == "" {
		return nil
	}
	for line := range strings.SplitSeq(string(h), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		value, err := expand(value)
		if err == nil && (value == "" || !httpguts.ValidHeaderFieldValue(value)) {
			err = errors.New("its value is empty, or has characters that no header has, such as a line break")
		}
		if err != nil {
			return fmt.Errorf("header %s: %w", name, err)
		}
		into.Set(name, value)
	}
	return nil
}

// sameOrigin reports whether a URL has the scheme, host and port of another.
func sameOrigin(u *url.URL, other string) bool {
	o, err := url.Parse(other)
	return err == nil && origin(u) == origin(o)
}

func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// explainStatus adds what to write if the server wants to know who asks. own reports whether
// the headers were sent.
func (c *KeySet) explainStatus(failed *discovery.StatusError, own bool) error {
	refused := failed.Code == http.StatusUnauthorized || failed.Code == http.StatusForbidden
	switch {
	case refused && c.Headers == "":
		return fmt.Errorf("%w; if it requires a token, set it in jwks: header Authorization \"Bearer …\"", failed)
	case refused && !own:
		return fmt.Errorf("%w; a header is only sent to the host of the issuer, and this one is another: "+
			"if it may have the header, write jwks %s { header … }", failed, failed.From)
	}
	return failed
}
