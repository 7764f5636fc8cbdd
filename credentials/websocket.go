package credentials

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"golang.org/x/net/http/httpguts"
)

// protocolHeader is the name of the header in Go's canonical form.
const protocolHeader = "Sec-Websocket-Protocol"

// opensWebSocket reports whether a request opens a WebSocket: by an upgrade (RFC 6455 §4.1), or by
// an extended CONNECT in HTTP/2 (RFC 8441 §4) and HTTP/3 (RFC 9220).
func opensWebSocket(r *http.Request) bool {
	if r.ProtoMajor == 1 {
		return r.Method == http.MethodGet && httpguts.HeaderValuesContainsToken(r.Header["Connection"], "upgrade") &&
			httpguts.HeaderValuesContainsToken(r.Header["Upgrade"], "websocket")
	}
	protocol := r.Header[":protocol"] // as net/http has it for HTTP/2
	return r.Method == http.MethodConnect &&
		(r.Proto == "websocket" || len(protocol) == 1 && protocol[0] == "websocket")
}

// protocols returns the subprotocols that the client offers. Several fields are one list (RFC 6455
// §11.3.4).
func protocols(r *http.Request) (offered []string) {
	for _, line := range r.Header[protocolHeader] {
		for protocol := range strings.SplitSeq(line, ",") {
			if protocol = strings.Trim(protocol, " \t"); protocol != "" {
				offered = append(offered, protocol)
			}
		}
	}
	return offered
}

// readProtocols returns the token in the subprotocols of a WebSocket.
func (s *Source) readProtocols(r *http.Request) (string, error) {
	if len(r.Header[protocolHeader]) == 0 || !opensWebSocket(r) {
		return "", nil
	}
	token, _, err := s.findProtocol(protocols(r))
	return token, err
}

// findProtocol returns the token in a list of subprotocols, and the others.
func (s *Source) findProtocol(offered []string) (token string, others []string, err error) {
	for i := 0; i < len(offered); i++ {
		name, encoded, inside := cutFold(offered[i], s.WebSocketProtocol)
		if !name {
			others = append(others, offered[i])
			continue
		}
		found := ""
		if inside {
			decoded, malformed := base64.RawURLEncoding.DecodeString(encoded)
			if found = string(decoded); malformed != nil || strings.ContainsFunc(found, notVisible) {
				err = refusal.New(refusal.MalformedCredentials, "%s is not followed by a token in base64url", s)
			}
		} else {
			others = append(others, offered[i])
			if i++; i < len(offered) {
				found = offered[i]
			}
		}
		switch {
		case err != nil:
		case token != "":
			err = refusal.New(refusal.SeveralTokens, "%s is there twice", s)
		case found == "":
			err = refusal.New(refusal.MalformedCredentials, "%s is not followed by a token", s)
		}
		token = found
	}
	if err != nil {
		token = ""
	}
	return token, others, err
}

// cutFold reports whether a subprotocol is the name, compared without case, or begins with it and
// a dot. Then it returns the rest.
func cutFold(protocol, name string) (ours bool, rest string, inside bool) {
	if strings.EqualFold(protocol, name) {
		return true, "", false
	}
	if len(protocol) > len(name) && protocol[len(name)] == '.' && strings.EqualFold(protocol[:len(name)], name) {
		return true, protocol[len(name)+1:], true
	}
	return false, "", false
}

func notVisible(r rune) bool { return r <= ' ' || r > '~' || r == ',' }

// stripProtocols removes the token, and keeps the other subprotocols: a browser expects the
// upstream to select one of them.
func (s *Source) stripProtocols(r *http.Request) {
	if len(r.Header[protocolHeader]) == 0 || !opensWebSocket(r) {
		return
	}
	token, others, err := s.findProtocol(protocols(r))
	if token == "" && err == nil {
		return
	}
	delete(r.Header, protocolHeader)
	if len(others) > 0 {
		r.Header[protocolHeader] = []string{strings.Join(others, ", ")}
	}
}
