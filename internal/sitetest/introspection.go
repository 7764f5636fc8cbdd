package sitetest

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// IntrospectionServer is an issuer of opaque tokens, with discovery, a key set and an
// introspection endpoint (RFC 7662) for one client, "api".
type IntrospectionServer struct {
	*httptest.Server
	T     testing.TB
	Asked atomic.Int64 // requests to the endpoint
	Found atomic.Int64 // requests for the discovery document

	mu      sync.Mutex
	answers map[string]JSON // by token; others are inactive
	respond http.HandlerFunc
	last    *http.Request
}

// NewIntrospectionServer runs an issuer.
func NewIntrospectionServer(t testing.TB) *IntrospectionServer {
	i := &IntrospectionServer{T: t, answers: make(map[string]JSON)}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.Found.Add(1)
		WriteJSON(t, w, 200, JSON{
			"issuer": i.URL, "jwks_uri": i.URL + "/keys", "introspection_endpoint": i.URL + "/introspect",
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		WriteJSON(t, w, 200, JSON{"keys": []any{JWK(t, Keys().RSA, JSON{"kid": "1", "use": "sig", "alg": "RS256"})}})
	})
	mux.HandleFunc("/introspect", func(w http.ResponseWriter, r *http.Request) {
		i.Asked.Add(1)
		mustNameItself(t, r)
		_ = r.ParseForm()
		i.mu.Lock()
		i.last = r
		respond := i.respond
		i.mu.Unlock()
		if respond != nil {
			respond(w, r)
			return
		}
		WriteJSON(t, w, 200, i.AnswerTo(r.PostFormValue("token")))
	})
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

// Issue makes a token active, with these members of the response more than the usual ones.
func (i *IntrospectionServer) Issue(token string, changes JSON) {
	answer := JSON{
		"active": true, "sub": "alice", "scope": "read", "client_id": "app", "token_type": "Bearer",
		"iss": i.URL, "aud": "https://api.example", "exp": time.Now().Add(time.Hour).Unix(),
	}
	for name, value := range changes {
		answer[name] = value
		if value == nil {
			delete(answer, name)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answers[token] = answer
}

// Revoke makes a token inactive.
func (i *IntrospectionServer) Revoke(token string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.answers, token)
}

// AnswerTo returns the response about a token.
func (i *IntrospectionServer) AnswerTo(token string) JSON {
	i.mu.Lock()
	defer i.mu.Unlock()
	if answer := i.answers[token]; answer != nil {
		return answer
	}
	return JSON{"active": false}
}

// Respond sets the handler of the endpoint; nil for the usual one.
func (i *IntrospectionServer) Respond(handler http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.respond = handler
}

// Last returns the last request to the endpoint, with its form.
func (i *IntrospectionServer) Last() *http.Request {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.last
}

// Sign returns a JWT signed by the issuer's key.
func (i *IntrospectionServer) Sign(typ string, claims JSON) string {
	return Sign(i.T, "RS256", Keys().RSA, JSON{"kid": "1", "typ": typ}, claims)
}
