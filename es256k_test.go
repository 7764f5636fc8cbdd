//go:build jwx_es256k

package caddyjwt

import (
	"crypto/rand"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func TestES256K(t *testing.T) {
	key, err := secp256k1.GeneratePrivateKeyFromRand(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private := key.ToECDSA()
	p := newIdentityProvider(t, publicJWK(t, private, claimsMap{"kid": "k"}))
	s := jwksSite(t, p, "")
	s.mustAnswer(200, s.bearer("/api/", sign(t, "ES256K", private, claimsMap{"kid": "k"}, goodClaims(nil))), "control")
	s.mustAnswer(401, s.bearer("/api/", sign(t, "ES256K", private, claimsMap{"kid": "k"}, goodClaims(claimsMap{"exp": 1}))), "expired")
	s.mustAnswer(401, s.bearer("/api/", sign(t, "ES256", testKeys().p256, claimsMap{"kid": "k"}, goodClaims(nil))), "a key of another curve")
}
