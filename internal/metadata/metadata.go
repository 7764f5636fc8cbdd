// Package metadata serves what a service needs to verify the tokens of an issuer: its key
// set and its discovery document.
package metadata

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
)

// Paths of the documents below an issuer (OpenID Connect Discovery 1.0 §4).
const (
	JWKSPath      = "/.well-known/jwks.json"
	DiscoveryPath = "/.well-known/openid-configuration"
)

// Issuer is an issuer of tokens.
type Issuer interface {
	// Name is the `iss` of the tokens.
	Name() string
	// JWKS is the JWK set that verifies them (RFC 7517 §5).
	JWKS() []byte
	// JWKSURI is the URL of the JWK set.
	JWKSURI() string
	// Algorithms are those of the keys (RFC 7518 §3.1).
	Algorithms() []string
}

// Serve answers a request for one of the documents: the key set if the path ends in
// JWKSPath, otherwise the discovery document.
func Serve(w http.ResponseWriter, r *http.Request, issuer Issuer) error {
	if answer.Open(w, r) {
		return nil
	}
	if strings.HasSuffix(r.URL.Path, JWKSPath) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, err := w.Write(issuer.JWKS())
		return err
	}
	return answer.WriteJSON(w, http.StatusOK, map[string]any{
		"issuer": issuer.Name(), "jwks_uri": issuer.JWKSURI(),
		"id_token_signing_alg_values_supported": issuer.Algorithms(),
		"subject_types_supported":               []string{"public"},
		"response_types_supported":              []string{}, // there is no endpoint to request tokens
	})
}

// PathOf returns the path of an issuer, if it is a URL at a host.
func PathOf(issuer, host string) (path string, ok bool) {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || !strings.EqualFold(u.Host, host) {
		return "", false
	}
	return strings.TrimSuffix(u.Path, "/"), true
}
