package jwt_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// verifierFor returns a verifier that accepts tokens signed with a key of the set.
func verifierFor(keys ...*jwt.Key) *jwt.Verifier {
	set := jwt.NewKeySet(keys...)
	verifier, err := jwt.NewVerifier(jwt.VerifierConfig{
		Issuers: []jwt.Issuer{{Keys: []jwt.KeySource{set}, Algorithms: set.Algorithms()}},
	})
	if err != nil {
		panic(err)
	}
	return verifier
}

func secretVerifier() *jwt.Verifier {
	key, err := jwt.NewSecretKey([]byte(secret))
	if err != nil {
		panic(err)
	}
	return verifierFor(key)
}

// The issuer has the same secret.
func ExampleNewSecretKey() {
	key, err := jwt.NewSecretKey([]byte(secret))
	if err != nil {
		panic(err)
	}
	set := jwt.NewKeySet(key)
	verifier, err := jwt.NewVerifier(jwt.VerifierConfig{
		Issuers: []jwt.Issuer{{Keys: []jwt.KeySource{set}, Algorithms: []string{"HS256"}}},
	})
	if err != nil {
		panic(err)
	}
	verified, err := verifier.Verify(context.Background(), token, time.Now())
	if err != nil {
		panic(err)
	}
	fmt.Println(verified.UserID, verified.Expiry().UTC())
	// Output: alice 2100-01-01 00:00:00 +0000 UTC
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
	// Output: [Ed25519 EdDSA] the token algorithm is not accepted: alg is "HS256"; accepted: Ed25519, EdDSA
}

// The error says why a token was refused.
func ExampleVerifier_Verify_refused() {
	in2101 := time.Date(2101, 1, 1, 0, 0, 0, 0, time.UTC)
	_, err := secretVerifier().Verify(context.Background(), token, in2101)
	if errors.Is(err, refusal.Expired) {
		fmt.Println("Log in again.")
	}
	var refused *refusal.Error
	if errors.As(err, &refused) {
		fmt.Println("for the log:", refused.Reason, "-", refused.Detail)
		fmt.Println("for the client:", refused.Reason.Answer().Status, refused.Reason.Answer().Code)
	}
	// Output:
	// Log in again.
	// for the log: expired - exp was 31536000 s ago; the leeway is 0 s
	// for the client: 401 invalid_token
}

// Remembered tokens are not verified again.
func ExampleCache() {
	verifier, cache := secretVerifier(), jwt.NewCache(jwt.DefaultCacheEntries)
	verify := func(text string, now time.Time) (*jwt.Token, error) {
		if known := cache.Get(text, now); known != nil {
			return known, nil
		}
		verified, err := verifier.Verify(context.Background(), text, now)
		if err == nil {
			cache.Put(text, verified)
		}
		return verified, err
	}
	for range 2 {
		verified, err := verify(token, time.Now())
		fmt.Println(verified.UserID, err)
	}
	// Output:
	// alice <nil>
	// alice <nil>
}

// A middleware that requires a token of an issuer whose key set is behind a URL.
func Example_middleware() {
	keys, err := jwks.Open(jwks.Settings{URL: "https://id.example.com/jwks.json"}, jwks.Options{})
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	verifier, err := jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{{
		Name: "https://id.example.com", Keys: []jwt.KeySource{keys},
		Algorithms: []string{"RS256"}, Audience: []string{"https://api.example.com"},
	}}})
	if err != nil {
		panic(err)
	}
	protect := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if _, err := verifier.Verify(r.Context(), token, time.Now()); err != nil {
				refused := refusal.Of(err).Reason.Answer() // 401, or 503 while there are no keys yet
				w.Header().Set("WWW-Authenticate", "Bearer")
				http.Error(w, refused.Description, refused.Status)
				return
			}
			next.ServeHTTP(w, r)
		})
	}

	answer := httptest.NewRecorder()
	protect(http.NotFoundHandler()).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/todos", nil))
	fmt.Println(answer.Code, answer.Body)
	// Output: 401 the token is not a signed JWT in compact form
}
