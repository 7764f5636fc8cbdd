package jwt_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

const (
	// It was signed with the secret below, and expires in 2100.
	token  = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.PIcZTQJYWzcTM8JDziazqwW1R7vAa0Zr0QaJxI_4W0Y"
	secret = "a secret of at least 32 bytes, as HS256 needs it"
)

// verifierFor accepts tokens that are signed with a key of the set.
func verifierFor(keys ...*jwt.Key) *jwt.Verifier {
	set, err := jwt.NewKeySet(keys...)
	if err != nil {
		panic(err)
	}
	verifier, err := jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{{Keys: []jwt.KeySource{set}, Algorithms: set.Algorithms()}}})
	if err != nil {
		panic(err)
	}
	return verifier
}

// A secret that the issuer has too.
func ExampleNewSecretKey() {
	key, err := jwt.NewSecretKey([]byte(secret))
	if err != nil {
		panic(err)
	}
	verifier := verifierFor(key)
	verified, err := verifier.Verify(context.Background(), token, time.Now())
	fmt.Println(verified.UserID, err)

	_, err = verifier.Verify(context.Background(), token, time.Date(2101, 1, 1, 0, 0, 0, 0, time.UTC))
	var refused *refusal.Error
	fmt.Println(errors.As(err, &refused), refused.Reason)
	// Output:
	// alice <nil>
	// true expired
}

// A public key in PEM.
func ExampleParsePublicKeys() {
	keys, err := jwt.ParsePublicKeys(`-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----`)
	if err != nil {
		panic(err)
	}
	_, err = verifierFor(keys...).Verify(context.Background(), token, time.Now())
	fmt.Println(keys[0].Algorithms(), err)
	// Output: [EdDSA] the token algorithm is not accepted: alg is "HS256"; accepted: EdDSA
}

// A key set behind a URL, and a middleware that lets in whoever has a token of its
// issuer.
func Example_middleware() {
	keys, err := jwks.Open(jwks.Settings{URL: "https://id.example.com/jwks.json"}, jwks.Options{})
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	verifier, err := jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{{
		Name: "https://id.example.com", Keys: []jwt.KeySource{keys}, Algorithms: []string{"RS256"}, Audience: []string{"https://api.example.com"},
	}}})
	if err != nil {
		panic(err)
	}
	protect := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if _, err := verifier.Verify(r.Context(), token, time.Now()); err != nil {
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, "unauthorized", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	_ = protect(http.NotFoundHandler())
	// Output:
}
