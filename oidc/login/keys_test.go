package login_test

import (
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
)

// A provider may sign with every key that the handler `jwt` would accept from it. Here they
// share one key ID.
func TestLoginByKeysInTheWild(t *testing.T) {
	keys := sitetest.Keys()
	p := sitetest.NewOpenIDProvider(t)
	s := loginSite(t, "signup_limit 100\n"+p.Option("fake", ""))
	sharing := []any{
		sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"kid": "k", "use": "enc", "alg": "RSA-OAEP"}),
		sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"kid": "k", "alg": "PS384"}),
		sitetest.JWK(t, keys.P384, sitetest.JSON{"kid": "k"}),
		sitetest.JSON{"kty": "AKP", "kid": "k", "alg": "ML-DSA-65", "pub": "AQ"},
		sitetest.JWK(t, keys.Ed25519, sitetest.JSON{"kid": "k", "alg": "Ed25519"}),
		sitetest.JWK(t, keys.P256, sitetest.JSON{"kid": "k"}),
	}
	for name, c := range map[string]struct {
		algorithm string
		key       any
		header    sitetest.JSON
		refused   bool
	}{
		"Ed25519": {
			algorithm: "Ed25519", key: keys.Ed25519, header: sitetest.JSON{"kid": "k"},
		},
		"a kid for several algorithms": {
			algorithm: "ES256", key: keys.P256, header: sitetest.JSON{"kid": "k"},
		},
		"no kid": {
			algorithm: "ES256", key: keys.P256, header: nil,
		},
		"the kid of another key": {
			algorithm: "ES256", key: keys.P256, header: sitetest.JSON{"kid": "1"},
			refused: true,
		},
		"a secret": {
			algorithm: "HS256", key: []byte(sitetest.SymmetricKey), header: sitetest.JSON{"kid": "2"},
			refused: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.T = t
			p.Lie(sitetest.Lies{
				Subject: name, Email: sitetest.Encode(name) + "@example.com", MoreKeys: sharing,
				Claims: func(claims sitetest.JSON) {
					claims["at_hash"] = protocol.HalfHash(c.algorithm, "an-access-token")
				},
				Sign: func(claims sitetest.JSON) string {
					return sitetest.Sign(t, c.algorithm, c.key, c.header, claims)
				},
			})
			chrome := s.Visitor()
			answer := chrome.LogInBy("fake")
			if !c.refused {
				chrome.MustBeIn(answer)
			} else if answer.Status < 400 {
				t.Error(answer.Brief())
			}
		})
	}
}
