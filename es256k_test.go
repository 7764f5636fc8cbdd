//go:build jwx_es256k

package caddyjwt_test

import (
	"crypto/rand"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func TestES256K(t *testing.T) {
	key, err := secp256k1.GeneratePrivateKeyFromRand(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private := key.ToECDSA()
	p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, private, sitetest.JSON{"kid": "k"}))
	s := sitetest.JWKSSite(t, p, "")
	s.MustAnswer(
		200, s.Bearer("/api/", sitetest.Sign(t, "ES256K", private, sitetest.JSON{"kid": "k"}, sitetest.Claims(nil))),
		"control",
	)
	s.MustAnswer(401, s.Bearer(
		"/api/",
		sitetest.Sign(t, "ES256K", private, sitetest.JSON{"kid": "k"}, sitetest.Claims(sitetest.JSON{"exp": 1})),
	), "expired")
	s.MustAnswer(401, s.Bearer(
		"/api/", sitetest.Sign(t, "ES256", sitetest.Keys().P256, sitetest.JSON{"kid": "k"}, sitetest.Claims(nil)),
	), "a key of another curve")
}
