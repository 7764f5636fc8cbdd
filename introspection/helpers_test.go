package introspection_test

import (
	"net"
	"net/http"
	"testing"
)

// fromAddress returns a transport whose connections come from an address of this machine.
func fromAddress(t *testing.T, address string) http.RoundTripper {
	transport := &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}
