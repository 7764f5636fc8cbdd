package jwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"sync/atomic"

	"filippo.io/edwards25519"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	minRSABits    = 2048 // RFC 7518 §3.3
	maxRSABits    = 8192 // as in crypto/tls: a larger key only costs time
	maxKeyIDBytes = 256

	minSecretBytes = 32 // RFC 7518 §3.2, for HS256, the shortest

	// SecretBytesHint explains how to create a secret, for the error about a short one.
	SecretBytesHint = "`openssl rand -hex 64` makes a secret that is long enough for every HMAC algorithm"
)

// Key is a key that verifies signatures, together with the algorithms that it may be used
// with. Because the key has its own list of algorithms, a token cannot choose one that the
// key was not made for (RFC 8725 §3.1).
type Key struct {
	id        string
	verifiers map[string]jws.Verifier

	// of its certificate, as in a header (RFC 7515 §4.1.7 and §4.1.8); empty without one
	thumbprint1, thumbprint256 string

	// Material is the key: an *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey, or
	// the bytes of a secret.
	Material any
	// Withdrawn is set when the key leaves its set. Remembered tokens that were verified with
	// the key are then refused.
	Withdrawn atomic.Bool
}

// ID returns the key ID (RFC 7517 §4.5), empty if the key has none.
func (k *Key) ID() string { return k.id }

// Algorithms returns the JWS algorithms (RFC 7518 §3.1) that the key may verify, sorted.
func (k *Key) Algorithms() []string { return slices.Sorted(maps.Keys(k.verifiers)) }

// pkcs1Hashes are the hashes of RSASSA-PKCS1-v1_5 (RFC 7518 §3.3).
var pkcs1Hashes = map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512}

// pssHashes are the hashes of RSASSA-PSS (RFC 7518 §3.5).
var pssHashes = map[string]crypto.Hash{"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512}

// verify checks a signature. RSA, the most common algorithm, uses the standard library
// directly, which saves a sixth of the overhead. It also requires the PSS salt to be as
// long as the hash, which jwx does not check.
func (k *Key) verify(algorithm string, signingInput, signature []byte) error {
	verifier, ok := k.verifiers[algorithm]
	if !ok { // a foreign KeySource may return any key
		return errors.New("the key is not for the token's algorithm")
	}
	if public, ok := k.Material.(*rsa.PublicKey); ok {
		hash, pkcs1 := pkcs1Hashes[algorithm]
		if !pkcs1 {
			hash = pssHashes[algorithm]
		}
		digest := hash.New()
		digest.Write(signingInput)
		if pkcs1 {
			return rsa.VerifyPKCS1v15(public, hash, digest.Sum(nil), signature)
		}
		return rsa.VerifyPSS(public, hash, digest.Sum(nil), signature, &rsa.PSSOptions{
			SaltLength: rsa.PSSSaltLengthEqualsHash,
		})
	}
	return verifier.Verify(signingInput, signature, k.Material)
}

func (k *Key) equal(other *Key) bool {
	if k.id != other.id || !slices.Equal(k.Algorithms(), other.Algorithms()) {
		return false
	}
	if public, ok := k.Material.(interface{ Equal(crypto.PublicKey) bool }); ok {
		return public.Equal(other.Material)
	}
	secret, ok := k.Material.([]byte)
	same, alsoSecret := other.Material.([]byte)
	return ok && alsoSecret && subtle.ConstantTimeCompare(secret, same) == 1
}

// NewKey returns a public key, of the types in crypto/rsa, crypto/ecdsa and
// crypto/ed25519, for the algorithms that its kind and size allow. A weak key is an
// error. The key ID may be empty.
func NewKey(id string, public crypto.PublicKey) (*Key, error) {
	algorithms, err := AlgorithmsFor(public)
	if err != nil {
		return nil, err
	}
	return newKey(id, public, algorithms)
}

func longKeyID(id string) error {
	return fmt.Errorf("its key ID has %d bytes; at most %d are accepted", len(id), maxKeyIDBytes)
}

// newKey does not check that the material is valid for the algorithms.
func newKey(id string, material any, algorithms []string) (*Key, error) {
	if len(id) > maxKeyIDBytes {
		return nil, longKeyID(id)
	}
	k := &Key{id: id, Material: material, verifiers: make(map[string]jws.Verifier)}
	for _, algorithm := range algorithms {
		verifier, err := jws.NewVerifier(jwa.SignatureAlgorithm(algorithm))
		if err != nil {
			return nil, err
		}
		k.verifiers[algorithm] = verifier
	}
	return k, nil
}

// NewSecretKey returns a key for the HMAC algorithms that the secret is long enough for:
// HS256 from 32 bytes, HS384 from 48, HS512 from 64 (RFC 7518 §3.2). It returns an error
// for a shorter secret, and for a PEM or JWK text, which is public or belongs under
// `public_key`.
func NewSecretKey(secret []byte) (*Key, error) {
	if LooksLikeKey(secret) {
		return nil, errors.New("the secret is a PEM, DER, SSH or JWK key; " +
			"set a public key with `public_key`, because anybody could sign tokens if it were the secret")
	}
	var algorithms []string
	for _, a := range []struct {
		name  string
		bytes int
	}{{"HS256", minSecretBytes}, {"HS384", 48}, {"HS512", 64}} {
		if len(secret) >= a.bytes {
			algorithms = append(algorithms, a.name)
		}
	}
	if algorithms == nil {
		return nil, fmt.Errorf(
			"the secret has a length of %d; HS256 requires at least 32 bytes, HS384 48, HS512 64: %s",
			len(secret), SecretBytesHint,
		)
	}
	return newKey("", bytes.Clone(secret), algorithms)
}

// AlgorithmsFor returns the algorithms that a public key may verify, or an error with the
// reason why the key must not be used.
func AlgorithmsFor(material any) ([]string, error) {
	switch public := material.(type) {
	case *rsa.PublicKey:
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, checkRSA(public)
	case *ecdsa.PublicKey:
		return ecdsaAlgorithms(public)
	case ed25519.PublicKey:
		return slices.Clone(edwardsAlgorithms), checkEd25519(public)
	}
	return nil, fmt.Errorf("a %T cannot verify signatures; RSA, EC and Ed25519 keys can", material)
}

func ecdsaAlgorithms(public *ecdsa.PublicKey) ([]string, error) {
	curve := public.Curve.Params().Name
	algorithm := map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[curve]
	if curve == "secp256k1" { // known only to a build with the tag jwx_es256k
		return []string{"ES256K"}, nil
	}
	if algorithm == "" {
		return nil, fmt.Errorf("its curve %s has no JWS algorithm; use P-256, P-384 or P-521", curve)
	}
	if _, err := public.ECDH(); err != nil {
		return nil, fmt.Errorf("its point is not on its curve %s", curve)
	}
	return []string{algorithm}, nil
}

// checkEd25519 rejects a key of small order, for which anybody can forge signatures: eight
// times its point is the neutral element (RFC 8032 §5.1.7, RFC 7748 §6.1).
func checkEd25519(public ed25519.PublicKey) error {
	if len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("it is an Ed25519 key of %d bytes; it must have %d", len(public), ed25519.PublicKeySize)
	}
	point, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		return errors.New("its point is not on the curve Ed25519")
	}
	if new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return errors.New("its Ed25519 point has small order, so anybody could forge signatures")
	}
	return nil
}

func checkRSA(public *rsa.PublicKey) error {
	switch bits := public.N.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return fmt.Errorf("it is an RSA key of %d bits; it must have %d to %d", bits, minRSABits, maxRSABits)
	case public.E < 3 || public.E%2 == 0:
		return fmt.Errorf("its RSA exponent is %d; it must be odd and at least 3", public.E)
	case hasROCA(public.N):
		return errors.New("it was generated by a chip with the ROCA weakness (CVE-2017-15361) and can be factored")
	}
	return nil
}

// hasROCA tests a modulus for the fingerprint of Nemec, Sys, Svenda, Klinec and Matyas,
// "The Return of Coppersmith's Attack" (CCS 2017), §2.1: modulo each of these small primes
// it is a power of 65537. The probability of a false positive is about 2⁻²⁸.
func hasROCA(modulus *big.Int) bool {
	for _, prime := range []int64{11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157} {
		rest := new(big.Int).Mod(modulus, big.NewInt(prime)).Int64()
		power := int64(1)
		for power != rest {
			if power = power * 65537 % prime; power == 1 {
				return false
			}
		}
	}
	return true
}
