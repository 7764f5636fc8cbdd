package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	issuer   = "https://issuer.example/"
	audience = "https://api.example.com"

	// manyTokens is the number of tokens that the jwt handler remembers by default.
	manyTokens = 10_000
)

// issuerKey is a key of the issuer, with the requests that send its tokens.
type issuerKey struct {
	algorithm jwa.SignatureAlgorithm
	private   any
	path      string // path of the public key in PEM, empty for HMAC

	good    [][]byte // manyTokens different ones
	noToken []byte
	forged  []byte // the claims of one token with the signature of another
	expired []byte
}

// newIssuerKeys creates keys of the usual sizes, and writes the public ones to dir for the servers.
func newIssuerKeys(dir string) ([]*issuerKey, error) {
	keys, err := usualKeys()
	if err != nil {
		return nil, err
	}
	for _, key := range keys {
		if err := key.signTokens(); err != nil {
			return nil, err
		}
		private, ok := key.private.(crypto.Signer)
		if !ok {
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(private.Public())
		if err != nil {
			return nil, err
		}
		key.path = filepath.Join(dir, key.algorithm.String()+".pem")
		text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		if err := os.WriteFile(key.path, text, 0o600); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// usualKeys returns keys of the usual sizes, without tokens.
func usualKeys() ([]*issuerKey, error) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	return []*issuerKey{
		{algorithm: jwa.RS256, private: rsaKey},
		{algorithm: jwa.ES256, private: ecKey},
		{algorithm: jwa.EdDSA, private: edKey},
		{algorithm: jwa.HS256, private: secret},
	}, nil
}

// signTokens signs on all cores, because ten thousand RSA signatures take seconds.
func (k *issuerKey) signTokens() error {
	tomorrow := time.Now().Add(24 * time.Hour)
	tokens := make([][]byte, manyTokens)
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for id := worker; id < len(tokens) && errs[worker] == nil; id += workers {
				tokens[id], errs[worker] = k.token(id, tomorrow)
			}
		})
	}
	wg.Wait()
	expired, err := k.token(0, time.Now().Add(-24*time.Hour))
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	for _, token := range tokens {
		k.good = append(k.good, newRequest(token))
	}
	claims, signature := tokens[0], tokens[1]
	claims = claims[:bytes.LastIndexByte(claims, '.')]
	signature = signature[bytes.LastIndexByte(signature, '.'):]
	k.forged = newRequest(slices.Concat(claims, signature))
	k.noToken, k.expired = newRequest(nil), newRequest(expired)
	return nil
}

// token signs claims such as identity providers send. The ID makes it
// different from others.
func (k *issuerKey) token(id int, expiry time.Time) ([]byte, error) {
	payload, err := json.Marshal(map[string]any{
		"iss":   issuer,
		"sub":   fmt.Sprintf("auth0|%024d", id),
		"aud":   []string{audience, "https://issuer.example/userinfo"},
		"exp":   expiry.Unix(),
		"iat":   time.Now().Unix(),
		"jti":   fmt.Sprintf("%032x", id),
		"azp":   "my_client_id_0123456789",
		"scope": "openid profile read:todos write:todos",
		"roles": []string{"admin", "editor"},
		"email": "alice@example.com",
	})
	if err != nil {
		return nil, err
	}
	header := jws.NewHeaders()
	if err := header.Set(jws.TypeKey, "JWT"); err != nil {
		return nil, err
	}
	if err := header.Set(jws.KeyIDKey, "key-2026-01"); err != nil {
		return nil, err
	}
	return jws.Sign(payload, jws.WithKey(k.algorithm, k.private, jws.WithProtectedHeaders(header)))
}
