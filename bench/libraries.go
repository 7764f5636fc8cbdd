package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/coreos/go-oidc/v3/oidc"
	golangjwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v2/jwa"
	jwxjwt "github.com/lestrrat-go/jwx/v2/jwt"
)

const cachedName = "this package, with a Cache"

// libraries are used as their documentation recommends: keys and options are set once, then one
// call per token checks the signature, iss, aud and exp.
var libraries = []library{
	{"this package", "", ownVerifier},
	{cachedName, "", cachedVerifier},
	{"golang-jwt", "github.com/golang-jwt/jwt/v5", golangJWT},
	{"jwx jwt.Parse", "github.com/lestrrat-go/jwx/v2", jwx},
	{"go-oidc", "github.com/coreos/go-oidc/v3", goOIDC},
}

// public returns the key that verifies tokens: the public half, or the secret.
func (k *issuerKey) public() any {
	if private, ok := k.private.(crypto.Signer); ok {
		return private.Public()
	}
	return k.private
}

func newVerifier(key *issuerKey, issuer, audience string) (*jwt.Verifier, error) {
	keys, err := ownKeys(key)
	if err != nil {
		return nil, err
	}
	return jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{{
		Name: issuer, Keys: []jwt.KeySource{jwt.NewKeySet(keys...)},
		Algorithms: []string{key.algorithm.String()}, Audience: []string{audience},
	}}})
}

func ownKeys(key *issuerKey) ([]*jwt.Key, error) {
	if secret, ok := key.private.([]byte); ok {
		own, err := jwt.NewSecretKey(secret)
		return []*jwt.Key{own}, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.public())
	if err != nil {
		return nil, err
	}
	return jwt.ParsePublicKeys(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
}

func ownVerifier(key *issuerKey, issuer, audience string) (verifyToken, error) {
	verifier, err := newVerifier(key, issuer, audience)
	return func(token string) error {
		_, err := verifier.Verify(context.Background(), token, time.Now())
		return err
	}, err
}

func cachedVerifier(key *issuerKey, issuer, audience string) (verifyToken, error) {
	verifier, err := newVerifier(key, issuer, audience)
	cache := jwt.NewCache(jwt.DefaultCacheEntries)
	return func(token string) error {
		now := time.Now()
		if cache.Get(token, now) != nil {
			return nil
		}
		verified, err := verifier.Verify(context.Background(), token, now)
		if err == nil {
			cache.Put(token, verified)
		}
		return err
	}, err
}

func golangJWT(key *issuerKey, issuer, audience string) (verifyToken, error) {
	public := key.public()
	found := func(*golangjwt.Token) (any, error) { return public, nil }
	parser := golangjwt.NewParser(golangjwt.WithValidMethods([]string{key.algorithm.String()}),
		golangjwt.WithIssuer(issuer), golangjwt.WithAudience(audience), golangjwt.WithExpirationRequired())
	return func(token string) error {
		_, err := parser.ParseWithClaims(token, golangjwt.MapClaims{}, found)
		return err
	}, nil
}

func jwx(key *issuerKey, issuer, audience string) (verifyToken, error) {
	options := []jwxjwt.ParseOption{jwxjwt.WithKey(key.algorithm, key.public()),
		jwxjwt.WithIssuer(issuer), jwxjwt.WithAudience(audience), jwxjwt.WithRequiredClaim(jwxjwt.ExpirationKey)}
	return func(token string) error {
		_, err := jwxjwt.Parse([]byte(token), options...)
		return err
	}, nil
}

// goOIDC verifies ID tokens with public keys only, so it has no HMAC.
func goOIDC(key *issuerKey, issuer, audience string) (verifyToken, error) {
	if key.algorithm == jwa.HS256 {
		return nil, nil
	}
	verifier := oidc.NewVerifier(issuer, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key.public()}},
		&oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{key.algorithm.String()}})
	return func(token string) error {
		_, err := verifier.Verify(context.Background(), token)
		return err
	}, nil
}
