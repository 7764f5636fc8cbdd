// Package outgoing is what the requests to other servers have in common: they name this module, so
// that the servers' operators know who asks, and firewalls that refuse unnamed libraries let them
// through; and they are in the trace of the request that needs them.
package outgoing

import (
	"net/http"
	"runtime/debug"
	"strings"
)

const module = "github.com/caddy-jwt/caddy-jwt"

// UserAgent is that of all requests (RFC 9110 §10.1.5).
var UserAgent = "caddy-jwt/" + version() + " (+https://" + module + ")"

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

// Wrap returns a transport that names this module in requests that have no User-Agent, and adds
// them to the trace of their context.
func Wrap(transport http.RoundTripper) http.RoundTripper { return named{traced{transport}} }

type named struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (n named) RoundTrip(request *http.Request) (*http.Response, error) {
	if _, has := request.Header["User-Agent"]; !has {
		own := *request // which a transport must not change
		own.Header = request.Header.Clone()
		own.Header.Set("User-Agent", UserAgent)
		request = &own
	}
	return n.RoundTripper.RoundTrip(request)
}

// CloseIdleConnections closes unused connections, for http.Client.
func (n named) CloseIdleConnections() { closeIdle(n.RoundTripper) }

func closeIdle(transport http.RoundTripper) {
	if closer, ok := transport.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}
