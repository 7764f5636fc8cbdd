package jwt

import (
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// ed25519Name is the name of RFC 9864 §2.2 for what RFC 8037 §3.1 calls EdDSA. jwx knows only the
// older one, so the newer is registered in it.
const ed25519Name jwa.SignatureAlgorithm = "Ed25519"

// edwardsAlgorithms are the names of the algorithm of Ed25519 keys, the more widely known first.
var edwardsAlgorithms = []string{jwa.EdDSA.String(), ed25519Name.String()}

func init() {
	jws.RegisterVerifier(ed25519Name, jws.VerifierFactoryFn(func() (jws.Verifier, error) {
		return jws.NewVerifier(jwa.EdDSA)
	}))
	jws.RegisterSigner(ed25519Name, jws.SignerFactoryFn(func() (jws.Signer, error) {
		signer, err := jws.NewSigner(jwa.EdDSA)
		return ed25519Signer{signer}, err
	}))
}

type ed25519Signer struct{ jws.Signer }

// Algorithm implements jws.Signer: it becomes the `alg` of the header.
func (ed25519Signer) Algorithm() jwa.SignatureAlgorithm { return ed25519Name }
