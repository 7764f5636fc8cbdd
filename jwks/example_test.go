package jwks_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// It is signed with the key below, and expires in 2100.
const token = "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkMjU1MTkiLCJ0eXAiOiJKV1QifQ.eyJhdWQiOiJodHRwczovL2FwaS5leGFtcGxlLmNvbSIsImV4cCI6NDEwMjQ0NDgwMCwiaWF0IjoxNzAwMDAwMDAwLCJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUuY29tIiwic3ViIjoiYWxpY2UifQ.UCDQyslua1X2oqTTKLm0JbzI3nZg1KYybyPs8pULEs4LBN6GWNLw5_oFOh-sYRQbFw5uBKW3k4TENu6y8v3bDg"

// The key set is behind a URL, here of a provider on this machine.
func ExampleOpen() {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(
			w,
			`{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": "5M6uCCS8tIFMmKp0JJlhfl9fTfVs_V7IoB3UdeWc_iA"}]}`,
		)
	}))
	defer provider.Close()

	keys, err := jwks.Open(jwks.Settings{URL: provider.URL + "/jwks.json"}, jwks.Options{})
	if err != nil {
		panic(err)
	}
	defer keys.Close()
	keys.Start() // fetches now, and again ahead of need
	verifier, err := jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{{
		Name: "https://id.example.com", Keys: []jwt.KeySource{keys},
		Algorithms: jwks.Algorithms, Audience: []string{"https://api.example.com"},
	}}})
	if err != nil {
		panic(err)
	}
	verified, err := verifier.Verify(context.Background(), token, time.Now())
	if err != nil {
		panic(err)
	}
	fmt.Println(verified.UserID, verified.Claims["iss"])
	// Output: alice https://id.example.com
}
