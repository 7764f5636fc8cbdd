package signing

import (
	"bytes"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// Signer is a private key or a secret that signs tokens.
type Signer struct {
	// Key is the key in the form that jwx signs with.
	Key any
	// ID is the `kid` of the header; empty for none.
	ID string
	// Algorithm is the algorithm (RFC 7518 §3.1).
	Algorithm string
	from      time.Time // when it starts to sign; zero for always
}

// ParsePrivateKey parses a private key, a PEM or a JWK, and returns the algorithms that it
// can sign with. Errors never contain the key.
func ParsePrivateKey(text []byte) (Signer, []string, error) {
	isPEM := bytes.Contains(text, []byte("-----BEGIN"))
	var err error
	if isPEM {
		var block pem.Block
		block, err = jwt.DecodePEM(string(text))
		text = pem.EncodeToMemory(&block)
	}
	var parsed jwk.Key
	if err == nil {
		parsed, err = jwk.ParseKey(bytes.TrimSpace(text), jwk.WithPEM(isPEM))
	}
	if err != nil {
		return Signer{}, nil, errors.New("it is neither one PEM (PKCS#8, PKCS#1, SEC 1; not encrypted) nor a JWK")
	}
	s := Signer{ID: parsed.KeyID()}
	if err := parsed.Raw(&s.Key); err != nil {
		return s, nil, errors.New("its parameters are not a valid key")
	}
	private, ok := s.Key.(crypto.Signer)
	if !ok {
		return s, nil, errors.New("it is not a private key")
	}
	algorithms, err := jwt.AlgorithmsFor(private.Public())
	if own := parsed.Algorithm().String(); err == nil && own != "" {
		switch {
		case !slices.Contains(algorithms, own):
			err = fmt.Errorf("its alg, %s, does not match its type", own)
		case own == "Ed25519": // EdDSA is another name of it
			algorithms = []string{own, "EdDSA"}
		case own != "EdDSA":
			algorithms = []string{own}
		}
	}
	return s, algorithms, err
}
