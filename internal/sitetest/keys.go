package sitetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	stdjson "encoding/json"
	"encoding/pem"
	"sync"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// Keys returns the test keys, which are created once per run: one of each kind, and a second RSA
// key that belongs to a stranger.
var Keys = sync.OnceValue(func() (keys struct {
	RSA, StrangerRSA   *rsa.PrivateKey
	P256, P384, P521   *ecdsa.PrivateKey
	Ed25519, strangeEd ed25519.PrivateKey
}) {
	var errs [7]error
	keys.RSA, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	keys.StrangerRSA, errs[1] = rsa.GenerateKey(rand.Reader, 2048)
	keys.P256, errs[2] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	keys.P384, errs[3] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	keys.P521, errs[4] = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, keys.Ed25519, errs[5] = ed25519.GenerateKey(rand.Reader)
	_, keys.strangeEd, errs[6] = ed25519.GenerateKey(rand.Reader)
	for _, err := range errs {
		if err != nil {
			panic(err)
		}
	}
	return keys
})

// PEM returns the public half of a key.
func PEM(t testing.TB, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// JWK returns a key as a JWK, with members added or changed.
func JWK(t testing.TB, key crypto.Signer, members JSON) JSON {
	t.Helper()
	parsed, err := jwk.FromRaw(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var object JSON
	if err := stdjson.Unmarshal([]byte(Marshal(t, parsed)), &object); err != nil {
		t.Fatal(err)
	}
	for name, value := range members {
		object[name] = value
	}
	return object
}
