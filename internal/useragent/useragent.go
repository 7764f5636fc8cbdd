// Package useragent names this module to the servers that it sends requests to, so that their
// operators know who asks, and firewalls that refuse unnamed libraries let it through.
package useragent

import (
	"net/http"
	"runtime/debug"
	"strings"
)

const module = "github.com/caddy-jwt/caddy-jwt"

// Value is the User-Agent of all requests (RFC 9110 §10.1.5).
var Value = "caddy-jwt/" + version() + " (+https://" + module + ")"

// version returns the version of the module in this program.
func version() string {
	found := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, part := range append(info.Deps, &info.Main) {
			if part.Path == module {
				found = part.Version
			}
		}
	}
	if found == "" || found == "(devel)" {
		return "devel"
	}
	return strings.TrimPrefix(found, "v")
}

// Wrap returns a transport that sets the header of requests that have none.
func Wrap(transport http.RoundTripper) http.RoundTripper { return named{transport} }

type named struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (n named) RoundTrip(request *http.Request) (*http.Response, error) {
	if _, has := request.Header["User-Agent"]; !has {
		own := *request // which a transport must not change
		own.Header = request.Header.Clone()
		own.Header.Set("User-Agent", Value)
		request = &own
	}
	return n.RoundTripper.RoundTrip(request)
}

// CloseIdleConnections closes unused connections, for http.Client.
func (n named) CloseIdleConnections() {
	if closer, ok := n.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}
