package caddyjwt_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// certificate returns a self-signed certificate of the key.
func certificate(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// keySetSite is protected by the key set of a provider. The query keeps away what an earlier one with
// the same port has left in the storage.
func keySetSite(t testing.TB, p *sitetest.IdentityProvider, options string) *sitetest.Site {
	t.Helper()
	return sitetest.Serve(t, strings.Replace(sitetest.JWKSBody(p, options), "/jwks {", "/jwks?"+p.ID+" {", 1))
}

// manyP256 returns keys with the members, by default with the key ID K.
func manyP256(t testing.TB, number int, members func(i int) sitetest.JSON) (set []sitetest.JSON) {
	t.Helper()
	for i := range number {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		of := sitetest.JSON{"kid": "K"}
		if members != nil {
			of = members(i)
		}
		set = append(set, sitetest.JWK(t, key, of))
	}
	return set
}

// Key sets as providers publish them. Each good one also has tokens that it must not verify.
func TestKeySetsInTheWild(t *testing.T) {
	keys := sitetest.Keys()
	rs := func(key any, header sitetest.JSON) string {
		return sitetest.Sign(t, "RS256", key, header, sitetest.Claims(nil))
	}
	jwk := func(key crypto.Signer, members sitetest.JSON) sitetest.JSON { return sitetest.JWK(t, key, members) }
	set := func(keys ...sitetest.JSON) string { return sitetest.Marshal(t, sitetest.JSON{"keys": keys}) }
	k := sitetest.JSON{"kid": "K"}
	der := certificate(t, keys.RSA)
	sum1, sum256 := sha1.Sum(der), sha256.Sum256(der)
	x5t, x5t256 := base64.RawURLEncoding.EncodeToString(sum1[:]), base64.RawURLEncoding.EncodeToString(sum256[:])

	for _, c := range []struct {
		name, document string
		good, bad      []string
		log            string // a warning that is expected
	}{
		{
			name: "one key under one kid for two algorithms",
			document: set(
				jwk(keys.RSA, sitetest.JSON{"kid": "K", "alg": "RS256"}),
				jwk(keys.RSA, sitetest.JSON{"kid": "K", "alg": "RS512"}),
			),
			good: []string{rs(keys.RSA, k), sitetest.Sign(t, "RS512", keys.RSA, k, sitetest.Claims(nil))},
			bad:  []string{rs(keys.StrangerRSA, k), sitetest.Sign(t, "RS384", keys.RSA, k, sitetest.Claims(nil))},
		},
		{
			name:     "keys of two types under one kid",
			document: set(jwk(keys.RSA, k), jwk(keys.P256, k)),
			good:     []string{rs(keys.RSA, k), sitetest.Sign(t, "ES256", keys.P256, k, sitetest.Claims(nil))},
			bad:      []string{rs(keys.StrangerRSA, k)},
		},
		{
			name:     "the same key twice",
			document: set(jwk(keys.RSA, k), jwk(keys.RSA, k)),
			good:     []string{rs(keys.RSA, k)},
			bad:      []string{rs(keys.StrangerRSA, k)},
		},
		{
			name:     "two keys that one kid and algorithm may mean",
			document: set(jwk(keys.RSA, k), jwk(keys.StrangerRSA, k)),
			good:     []string{rs(keys.RSA, k), rs(keys.StrangerRSA, k)},
			bad:      []string{sitetest.Sign(t, "ES256", keys.P256, k, sitetest.Claims(nil))},
		},
		{
			name:     "a token without kid, two keys with one",
			document: set(jwk(keys.StrangerRSA, sitetest.JSON{"kid": "a"}), jwk(keys.RSA, sitetest.JSON{"kid": "b"})),
			good:     []string{rs(keys.RSA, nil), rs(keys.StrangerRSA, nil)},
			bad: []string{
				sitetest.Sign(t, "ES256", keys.P256, nil, sitetest.Claims(nil)), rs(keys.RSA, sitetest.JSON{"kid": "c"}),
			},
		},
		{
			name: "x5t and x5t#S256 of a certificate in the set",
			document: set(
				jwk(keys.RSA, sitetest.JSON{"kid": "a", "x5c": []string{base64.StdEncoding.EncodeToString(der)}}),
				jwk(keys.StrangerRSA, sitetest.JSON{"kid": "b", "x5t": "anything"}),
			),
			good: []string{
				rs(keys.RSA, sitetest.JSON{"x5t": x5t}), rs(keys.RSA, sitetest.JSON{"x5t#S256": x5t256}),
				rs(keys.StrangerRSA, sitetest.JSON{"x5t": "anything"}),
				rs(keys.RSA, sitetest.JSON{"x5t": "unknown"}), rs(keys.RSA, sitetest.JSON{"x5t": 5}),
			},
			bad: []string{
				rs(keys.StrangerRSA, sitetest.JSON{"x5t": x5t}), rs(keys.StrangerRSA, sitetest.JSON{"x5t#S256": x5t256}),
				rs(keys.RSA, sitetest.JSON{"x5t": "anything"}), rs(keys.RSA, sitetest.JSON{"kid": "b", "x5t": x5t}),
			},
		},
		{
			name: "Ed25519 of RFC 9864 and EdDSA",
			document: set(
				jwk(keys.Ed25519, sitetest.JSON{"kid": "K", "alg": "Ed25519"}),
			),
			good: []string{
				sitetest.Sign(t, "Ed25519", keys.Ed25519, k, sitetest.Claims(nil)),
				sitetest.Sign(t, "EdDSA", keys.Ed25519, k, sitetest.Claims(nil)),
			},
			bad: []string{
				strings.Replace(sitetest.Sign(t, "Ed25519", keys.Ed25519, k, sitetest.Claims(nil)), ".", ".e", 1),
				sitetest.Sign(t, "Ed25519", keys.Ed25519, sitetest.JSON{"kid": "K", "alg": "Ed448"}, sitetest.Claims(nil)),
			},
		},
		{
			name: "use of SPIFFE",
			document: set(
				jwk(keys.RSA, sitetest.JSON{"kid": "K", "use": "jwt-svid"}),
				jwk(keys.P256, sitetest.JSON{"kid": "x", "use": "x509-svid"}),
			),
			good: []string{rs(keys.RSA, k)},
			bad:  []string{sitetest.Sign(t, "ES256", keys.P256, sitetest.JSON{"kid": "x"}, sitetest.Claims(nil))},
		},
		{
			name: "keys for encryption beside one for signatures",
			document: set(
				jwk(keys.RSA, sitetest.JSON{"kid": "K", "use": "sig"}),
				jwk(keys.StrangerRSA, sitetest.JSON{"kid": "e", "use": "enc", "alg": "RSA-OAEP"}),
				jwk(keys.StrangerRSA, sitetest.JSON{"kid": "f", "key_ops": []string{"wrapKey"}}),
				jwk(keys.StrangerRSA, sitetest.JSON{"kid": "g", "alg": "RSA-OAEP-256"}),
				sitetest.JSON{"kty": "AKP", "kid": "h", "use": "enc"},
			),
			good: []string{rs(keys.RSA, k)},
			bad: []string{
				rs(keys.StrangerRSA, sitetest.JSON{"kid": "e"}), rs(keys.StrangerRSA, sitetest.JSON{"kid": "f"}),
				rs(keys.StrangerRSA, sitetest.JSON{"kid": "g"}),
			},
		},
		{
			name:     "a type that is not known",
			document: set(jwk(keys.RSA, k), sitetest.JSON{"kty": "AKP", "kid": "q", "alg": "ML-DSA-65", "pub": "AQ"}),
			good:     []string{rs(keys.RSA, k)},
			log:      `its kty \"AKP\" is not known here`,
		},
		{
			name: "an equal key many times, and keys of another type under the ID",
			document: set(append(slices.Repeat([]sitetest.JSON{jwk(keys.StrangerRSA, k)}, 70),
				append(manyP256(t, 70, nil), jwk(keys.RSA, k), jwk(keys.P384, k))...)...),
			good: []string{rs(keys.RSA, k), sitetest.Sign(t, "ES384", keys.P384, k, sitetest.Claims(nil))},
			bad:  []string{sitetest.Sign(t, "ES256", keys.P256, k, sitetest.Claims(nil))},
		},
		{
			name: "many keys that a certificate tells apart",
			document: set(append(manyP256(t, 70, func(i int) sitetest.JSON { return sitetest.JSON{"x5t": fmt.Sprint(i)} }),
				jwk(keys.P256, sitetest.JSON{"x5t": "70"}))...),
			good: []string{sitetest.Sign(t, "ES256", keys.P256, sitetest.JSON{"x5t": "70"}, sitetest.Claims(nil))},
			bad:  []string{sitetest.Sign(t, "ES256", keys.P256, sitetest.JSON{"x5t": "69"}, sitetest.Claims(nil))},
		},
		{
			name: "a key for key agreement",
			document: set(jwk(keys.RSA, k), sitetest.JSON{
				"kty": "OKP", "crv": "X25519", "kid": "x", "x": sitetest.Encode(strings.Repeat("x", 32)),
			}),
			good: []string{rs(keys.RSA, k)},
		},
		{
			name:     "a byte order mark",
			document: "\ufeff" + set(jwk(keys.RSA, k)),
			good:     []string{rs(keys.RSA, k)},
		},
		{
			name:     "a single JWK",
			document: sitetest.Marshal(t, jwk(keys.RSA, k)),
			good:     []string{rs(keys.RSA, k)},
			bad:      []string{rs(keys.StrangerRSA, k)},
		},
		{
			name: "certificates by key ID",
			document: sitetest.Marshal(t, sitetest.JSON{
				"K": certificatePEM(der), "L": certificatePEM(certificate(t, keys.StrangerRSA)),
			}),
			good: []string{rs(keys.RSA, k), rs(keys.StrangerRSA, sitetest.JSON{"kid": "L"})},
			bad:  []string{rs(keys.StrangerRSA, k), rs(keys.RSA, sitetest.JSON{"kid": "M"})},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sitetest.NewIdentityProvider(t)
			p.SetAnswer(200, c.document)
			s := keySetSite(t, p, "")
			for i, token := range c.good {
				s.MustAnswer(200, s.Bearer("/api/", token), fmt.Sprint("good token ", i))
			}
			for i, token := range c.bad {
				s.MustAnswer(401, s.Bearer("/api/", token), fmt.Sprint("bad token ", i))
			}
			log := s.Log()
			warned := strings.Contains(log, "some keys of the key set are not usable")
			if warned != (c.log != "") || !strings.Contains(log, c.log) {
				t.Errorf("the log should warn of %q:\n%s", c.log, log)
			}
		})
	}
}

// Documents that are no key set are named in the log.
func TestWhatIsNoKeySet(t *testing.T) {
	keys := sitetest.Keys()
	for name, c := range map[string]struct{ document, want string }{
		"a list of keys": {
			sitetest.Marshal(t, []any{sitetest.JWK(t, keys.RSA, nil)}), "not an object with the member `keys`",
		},
		"an error in JSON":  {`{"error":"not_found"}`, "not an object with the member `keys`"},
		"keys is an object": {`{"keys":{"a":{}}}`, "its member `keys` is not a list"},
		"an empty set":      {`{"keys":[]}`, "the JWK set has no keys"},
		"a discovery document": {
			`{"issuer":"x","jwks_uri":"https://id.example/k"}`, "is a discovery document, not a key set",
		},
		"a page":                   {"<html>log in</html>", "returned text/html"},
		"only keys for encryption": {`{"keys":[{"kty":"RSA","use":"enc"}]}`, "all for encryption or certificates"},
	} {
		t.Run(name, func(t *testing.T) {
			p := sitetest.NewIdentityProvider(t)
			p.SetAnswer(200, c.document)
			s := keySetSite(t, p, "")
			s.MustAnswer(503, s.Bearer("/api/", sitetest.SignRS(t, keys.RSA, "a")), name)
			if !strings.Contains(s.Log(), c.want) {
				t.Errorf("the log does not say %q:\n%s", c.want, s.Log())
			}
		})
	}
}

// A key that joins others under their key ID, or without one, withdraws none of them.
func TestAddedKeysWithdrawNone(t *testing.T) {
	keys := sitetest.Keys()
	for name, members := range map[string]sitetest.JSON{
		"another algorithm": {"kid": "a", "alg": "PS256"},
		"all algorithms":    {"kid": "a"},
	} {
		t.Run(name, func(t *testing.T) {
			old := sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "a", "alg": "RS256"})
			p := sitetest.NewIdentityProvider(t, old)
			s := keySetSite(t, p, "cooldown 100ms")
			token := sitetest.SignRS(t, keys.RSA, "a")
			s.MustAnswer(200, s.Bearer("/api/", token), "control")
			p.SetKeys(
				sitetest.JWK(t, keys.RSA, members), sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"kid": "b"}),
				sitetest.JWK(t, keys.P256, members), old,
			)
			s.MustAnswer(200, s.Bearer("/api/", sitetest.SignRS(t, keys.StrangerRSA, "b")), "the set was fetched")
			s.MustAnswer(200, s.Bearer("/api/", token), "the remembered token")
			s.MustAnswer(200, s.Bearer("/api/", sitetest.Sign(
				t, "RS256", keys.RSA, sitetest.JSON{"kid": "a"}, sitetest.Claims(sitetest.JSON{"sub": "new"}),
			)), "a new token of the old key")
		})
	}
	t.Run("many without an ID", func(t *testing.T) {
		p := sitetest.NewIdentityProvider(t)
		set := []sitetest.JSON{sitetest.JWK(t, keys.RSA, nil)}
		p.SetKeys(append(set, manyP256(t, 100, func(int) sitetest.JSON { return nil })...)...)
		s := keySetSite(t, p, "")
		s.MustAnswer(
			200, s.Bearer("/api/", sitetest.Sign(t, "RS256", keys.RSA, nil, sitetest.Claims(nil))), "the first key",
		)
	})
}

// A key keeps its place among remembered tokens when its certificate changes, but tokens name the
// new certificate.
func TestCertificatesChange(t *testing.T) {
	keys := sitetest.Keys()
	set := func(one, other string) []sitetest.JSON {
		return []sitetest.JSON{
			sitetest.JWK(t, keys.RSA, sitetest.JSON{"x5t": one}), sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"x5t": other}),
		}
	}
	token := func(key any, x5t, sub string) string {
		return sitetest.Sign(t, "RS256", key, sitetest.JSON{"x5t": x5t}, sitetest.Claims(sitetest.JSON{"sub": sub}))
	}
	p := sitetest.NewIdentityProvider(t, set("a", "b")...)
	s := keySetSite(t, p, "refresh 100ms")
	first := token(keys.RSA, "a", "first")
	s.MustAnswer(200, s.Bearer("/api/", first), "control")
	s.MustAnswer(401, s.Bearer("/api/", token(keys.RSA, "b", "early")), "control of the other certificate")
	p.SetKeys(set("b", "a")...)
	sitetest.Eventually(t, "the certificates are exchanged", func() bool {
		return s.Bearer("/api/", token(keys.RSA, "b", "later")).Status == 200
	})
	s.MustAnswer(401, s.Bearer("/api/", token(keys.RSA, "a", "late")), "the certificate that it had")
	s.MustAnswer(200, s.Bearer("/api/", first), "the remembered token")
}

// The names EdDSA and Ed25519 (RFC 9864) are of one algorithm, also in a list of algorithms.
func TestNamesOfEd25519(t *testing.T) {
	keys := sitetest.Keys()
	for _, listed := range []string{"EdDSA", "Ed25519"} {
		s := sitetest.Serve(t, "jwt {\n public_key `"+sitetest.PEM(t, keys.Ed25519)+"`\n algorithms "+listed+"\n}\n respond ok")
		for _, algorithm := range []string{"EdDSA", "Ed25519"} {
			s.MustAnswer(200, s.Bearer("/", sitetest.Sign(t, algorithm, keys.Ed25519, nil, sitetest.Claims(nil))), algorithm)
		}
		s.MustAnswer(401, s.Bearer("/", sitetest.Sign(t, "ES256", keys.P256, nil, sitetest.Claims(nil))), "ES256")
	}
	s := sitetest.Serve(t, "jwt {\n public_key `"+sitetest.PEM(t, keys.P256)+"`\n public_key `"+
		sitetest.PEM(t, keys.Ed25519)+"`\n algorithms ES256\n}\n respond ok")
	s.MustAnswer(401, s.Bearer("/", sitetest.Sign(t, "Ed25519", keys.Ed25519, nil, sitetest.Claims(nil))), "not listed")
}

// An issuer may replace a key under its key ID. A token of the new key is accepted at once, and
// forged tokens cause one fetch in each cooldown.
func TestKeyReplacedUnderItsID(t *testing.T) {
	keys := sitetest.Keys()
	for name, id := range map[string]string{"with an ID": "a", "without": ""} {
		t.Run(name, func(t *testing.T) {
			members := sitetest.JSON{}
			if id != "" {
				members["kid"] = id
			}
			token := func(key any, sub string) string {
				return sitetest.Sign(t, "RS256", key, members, sitetest.Claims(sitetest.JSON{"sub": sub}))
			}
			p := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, members))
			s := keySetSite(t, p, "cooldown 1h")
			old := token(keys.RSA, "old")
			s.MustAnswer(200, s.Bearer("/api/", old), "control")
			p.SetKeys(sitetest.JWK(t, keys.StrangerRSA, members))
			before := p.Fetches.Load()
			s.MustAnswer(200, s.Bearer("/api/", token(keys.StrangerRSA, "new")), "the new key")
			s.MustAnswer(401, s.Bearer("/api/", old), "the remembered token of the old key")
			for i := range 20 {
				s.MustAnswer(401, s.Bearer("/api/", token(keys.RSA, fmt.Sprint(i))), "the old key")
			}
			if got := p.Fetches.Load() - before; got != 1 {
				t.Errorf("%d fetches, expected 1", got)
			}
		})
	}
}

// A token of an algorithm that no public key has neither asks the URL nor waits for it.
func TestHMACNeverAsksAKeySet(t *testing.T) {
	for name, respond := range map[string]http.HandlerFunc{
		"hangs":  func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"empty":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) },
		"refuse": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
	} {
		t.Run(name, func(t *testing.T) {
			p := sitetest.NewIdentityProvider(t)
			p.SetHandler(respond)
			s := sitetest.Serve(t, "jwt {\n issuer https://issuer.example {\n  jwks "+p.URL+"/jwks {\n   timeout 1h\n  }\n"+
				"  secret `"+sitetest.Secret+"`\n }\n}\n respond ok")
			s.MustAnswer(200, s.Bearer("/", sitetest.HS256(t, nil)), "control")
			if name == "hangs" {
				sitetest.Eventually(t, "the first fetch", func() bool { return p.Fetches.Load() == 1 })
			} else {
				s.MustAnswer(503, s.Bearer("/", sitetest.SignRS(t, sitetest.Keys().RSA, "a")), "an algorithm of public keys")
			}
			other := []byte(strings.Repeat("x", 64))
			for _, algorithm := range []string{"HS256", "HS384", "HS512"} {
				s.MustAnswer(401, s.Bearer("/", sitetest.Sign(t, algorithm, other, nil, sitetest.Claims(nil))), algorithm)
			}
			s.MustAnswer(401, s.Bearer("/", sitetest.Unsigned(t, sitetest.JSON{"alg": "X"}, sitetest.Claims(nil))), "X")
			if got := p.Fetches.Load(); name == "hangs" && got != 1 {
				t.Errorf("%d fetches", got)
			}
		})
	}
}
