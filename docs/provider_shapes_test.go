package docs_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

type (
	object = sitetest.JSON
	list   = []any
)

func providers(t *testing.T) map[string]provider {
	return map[string]provider{
		"auth0": auth0(t), "keycloak": keycloak(t), "entra-id": entraID(t), "google": google(t), "okta": okta(t),
		"cognito": cognito(t), "supabase": supabase(t), "firebase": firebase(t),
		"cloudflare-access": cloudflareAccess(t), "github-actions": githubActions(t), "gitlab-ci": gitLabCI(t),
		"kubernetes": kubernetes(t), "spiffe": spiffe(t), "loopback": loopBack(),
	}
}

// certificate returns a self-signed certificate of a key.
func certificate(t *testing.T, key crypto.Signer) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "provider.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certificatePEM(t *testing.T, key crypto.Signer) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, key)}))
}

// certified returns a JWK with its certificate and the hashes of that.
func certified(t *testing.T, key crypto.Signer, members object) object {
	der := certificate(t, key)
	sha1Sum, sha256Sum := sha1.Sum(der), sha256.Sum256(der)
	return sitetest.JWK(t, key, changed(object{
		"x5c": list{base64.StdEncoding.EncodeToString(der)}, "x5t": sitetest.Encode(string(sha1Sum[:])),
		"x5t#S256": sitetest.Encode(string(sha256Sum[:])),
	}, members))
}

// publicKey returns a JWK with the members that most providers set.
func publicKey(t *testing.T, key crypto.Signer, kid, algorithm string) object {
	return sitetest.JWK(t, key, object{"kid": kid, "use": "sig", "alg": algorithm})
}

func rs256(header, claims object) issued {
	return issued{algorithm: "RS256", key: sitetest.Keys().RSA, header: header, claims: claims}
}

// opaque is a text that is sent instead of a token.
func opaque(text string) issued { return issued{text: text} }

// strangerSigned is the token with a signature of somebody else.
func strangerSigned(k issued) pageRequest {
	return pageRequest{
		why: "signed by somebody else", token: k.signedBy("RS256", sitetest.Keys().StrangerRSA),
		reason: refusal.Signature,
	}
}

// otherClaims is a request that is refused because of these claims.
func otherClaims(k issued, why string, claims object, reason refusal.Reason) pageRequest {
	return pageRequest{why: why, token: k.with(claims), reason: reason}
}
