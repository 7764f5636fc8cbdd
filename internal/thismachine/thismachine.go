// Package thismachine prevents URLs from untrusted sources from reaching servers on this
// machine, which may only be meant for local use.
package thismachine

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Is reports whether a host is this machine: localhost (RFC 6761 §6.3), a loopback address,
// or the unspecified address.
func Is(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && isHere(address)
}

func isHere(address netip.Addr) bool {
	address = address.Unmap()
	return address.IsLoopback() || address.IsUnspecified()
}

// Reached returns a context whose requests record whether this machine answered one of them
// without a proxy.
func Reached(ctx context.Context) (traced context.Context, reached func() bool) {
	here := false
	traced = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		remote, err := netip.ParseAddrPort(got.Conn.RemoteAddr().String())
		here = here || err == nil && isHere(remote.Addr())
	}})
	return traced, func() bool { return here }
}

type forbidden struct{}

// Forbid returns a context whose requests through a [Transport] cannot reach this machine,
// by any name.
func Forbid(ctx context.Context) context.Context { return context.WithValue(ctx, forbidden{}, true) }

var errHere = errors.New("it points to this machine, but comes from another one")

// Transport implements [Forbid].
type Transport struct{ transport *http.Transport }

// NewTransport wraps a transport.
func NewTransport(transport *http.Transport) *Transport {
	dialer := &net.Dialer{
		Timeout: 30 * time.Second, KeepAlive: 30 * time.Second,
		ControlContext: func(ctx context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if ctx.Value(forbidden{}) == true && err == nil && isHere(to.Addr()) {
				return errHere
			}
			return nil
		},
	}
	transport.DialContext = dialer.DialContext
	return &Transport{transport}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Context().Value(forbidden{}) != true {
		return t.transport.RoundTrip(request)
	}
	if Is(request.URL.Hostname()) {
		return nil, errHere
	}
	if t.transport.Proxy != nil {
		if proxy, err := t.transport.Proxy(request); err == nil && proxy != nil { // the proxy may be on this machine
			request = request.WithContext(context.WithValue(request.Context(), forbidden{}, false))
		}
	}
	return t.transport.RoundTrip(request)
}

// CloseIdleConnections closes unused connections.
func (t *Transport) CloseIdleConnections() { t.transport.CloseIdleConnections() }
