package credentials_test

import (
	"net/http"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/credentials"
)

// In HTTP/2 and HTTP/3 a WebSocket is opened by CONNECT. Caddy offers that in HTTP/2 only with
// GODEBUG=http2xconnect=1, so the requests here are as net/http and quic-go pass them.
func TestWebSocketByConnect(t *testing.T) {
	sources := credentials.Sources{{WebSocketProtocol: "bearer"}}
	for _, c := range []struct {
		name   string
		method string
		major  int
		proto  string
		pseudo []string
		token  string
	}{
		{"HTTP/2", http.MethodConnect, 2, "HTTP/2.0", []string{"websocket"}, "x.y.z"},
		{"HTTP/3", http.MethodConnect, 3, "websocket", nil, "x.y.z"},
		{"HTTP/2, another protocol", http.MethodConnect, 2, "HTTP/2.0", []string{"connect-udp"}, ""},
		{"HTTP/2, a tunnel", http.MethodConnect, 2, "HTTP/2.0", nil, ""},
		{"HTTP/2, GET", http.MethodGet, 2, "HTTP/2.0", []string{"websocket"}, ""},
		{"HTTP/3, a tunnel", http.MethodConnect, 3, "HTTP/3.0", nil, ""},
		{"HTTP/1", http.MethodConnect, 1, "HTTP/1.1", []string{"websocket"}, ""},
	} {
		r := &http.Request{Method: c.method, ProtoMajor: c.major, Proto: c.proto, Header: http.Header{
			":protocol": c.pseudo, "Sec-Websocket-Protocol": {"bearer, x.y.z"},
		}}
		if got := sources.Read(r); got.Token != c.token || got.Err != nil {
			t.Errorf("%s: %q, %v", c.name, got.Token, got.Err)
		}
	}
}
