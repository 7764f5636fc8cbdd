package caddyjwt_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwe"
)

// The tests in this file cover the classes of attack on a verifier of JWTs, each against a real
// Caddy. Each has a positive control: a request that differs only in the attack and is accepted.

// keySite is protected with one key of each kind, each under its own path, so that a test can
// choose one.
func keySite(t testing.TB) *sitetest.Site {
	t.Helper()
	keys := sitetest.Keys()
	body := ""
	for name, key := range map[string]crypto.Signer{
		"rsa": keys.RSA, "p256": keys.P256, "p384": keys.P384, "p521": keys.P521, "ed25519": keys.Ed25519,
	} {
		body += fmt.Sprintf(
			"jwt /%s {\n issuer https://issuer.example\n public_key `%s`\n}\n", name, sitetest.PEM(t, key),
		)
	}
	return sitetest.Serve(t, body+`
		jwt /secret {
			issuer https://issuer.example
			secret "`+sitetest.Secret+`"
		}
		respond ok`)
}

type attack struct {
	name  string
	path  string
	token string
}

// mustRefuse sends the control, which must pass, and then each attack; the response must be a 401
// with invalid_token.
func mustRefuse(t *testing.T, s *sitetest.Site, controls, attacks []attack) {
	t.Helper()
	for _, control := range controls {
		s.MustAnswer(200, s.Bearer(control.path, control.token), "control: "+control.name)
	}
	for _, a := range attacks {
		got := s.Bearer(a.path, a.token)
		s.MustAnswer(401, got, a.name)
		if challenge := got.Header.Get("WWW-Authenticate"); got.Status == 401 &&
			!strings.Contains(challenge, `error="invalid_token"`) {
			t.Errorf("%s: challenge %q", a.name, challenge)
		}
	}
}

func TestThreatAlgNone(t *testing.T) {
	s := keySite(t)
	payload := sitetest.Marshal(t, sitetest.Claims(nil))
	attacks := []attack{
		{"alg missing", "/secret", sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"typ":"JWT"}`, payload)},
		{
			"alg duplicated", "/secret",
			sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256","alg":"HS256"}`, payload),
		},
		{"alg null", "/secret", sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":null}`, payload)},
		{"alg a list", "/secret", sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":["HS256"]}`, payload)},
		{
			"alg in lower case", "/secret",
			sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"hs256"}`, payload),
		},
	}
	for _, alg := range []string{"none", "nOnE", "None", "NONE", ""} {
		for _, path := range []string{"/secret", "/rsa"} {
			header := sitetest.Encode(`{"alg":"` + alg + `"}`)
			attacks = append(attacks,
				attack{"alg " + alg + " without signature", path, header + "." + sitetest.Encode(payload) + "."},
				attack{"alg " + alg + " with a signature", path, header + "." + sitetest.Encode(payload) + "." +
					sitetest.Encode("x")})
		}
	}
	mustRefuse(t, s, []attack{
		{"HS256", "/secret", sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, payload)},
	}, attacks)
}

func TestThreatAlgorithmConfusion(t *testing.T) {
	s := keySite(t)
	keys := sitetest.Keys()
	control := attack{"RS256", "/rsa", sitetest.Sign(t, "RS256", keys.RSA, nil, sitetest.Claims(nil))}
	var attacks []attack
	for name, secret := range map[string]string{
		"PEM":                   sitetest.PEM(t, keys.RSA),
		"PEM without line end":  strings.TrimSpace(sitetest.PEM(t, keys.RSA)),
		"modulus":               string(keys.RSA.N.Bytes()),
		"JWK":                   sitetest.Marshal(t, sitetest.JWK(t, keys.RSA, nil)),
		"PEM of the EC key":     sitetest.PEM(t, keys.P256),
		"Ed25519 key, 32 bytes": string(keys.Ed25519[32:]),
	} {
		attacks = append(attacks, attack{
			"HS256 with the public key as secret: " + name, "/rsa",
			sitetest.Sign(t, "HS256", []byte(secret), nil, sitetest.Claims(nil)),
		})
	}
	mustRefuse(t, s, []attack{control}, attacks)
	for _, secret := range []string{
		sitetest.PEM(t, keys.RSA), "  \n" + sitetest.PEM(t, keys.P256),
		sitetest.Marshal(t, sitetest.JWK(t, keys.RSA, nil)),
	} {
		if got := sitetest.ConfigError(t, "jwt {\n secret `"+secret+"`\n}"); !strings.Contains(
			got, "set a public key with `public_key`",
		) {
			t.Errorf("a public key as secret: %s", got)
		}
	}
	if got := sitetest.ConfigError(
		t, "jwt {\n secret base64 "+base64.StdEncoding.EncodeToString([]byte(sitetest.PEM(t, keys.RSA)))+"\n}",
	); !strings.Contains(got, "set a public key with `public_key`") {
		t.Errorf("a public key in base64 as secret: %s", got)
	}
}

func TestThreatKeyInHeader(t *testing.T) {
	keys := sitetest.Keys()
	trap := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.StrangerRSA, sitetest.JSON{"kid": "k"}))
	s := keySite(t)
	certificate := base64.StdEncoding.EncodeToString([]byte("not looked at"))
	var attacks []attack
	for name, value := range map[string]any{
		"jwk": sitetest.JWK(t, keys.StrangerRSA, nil), "jku": trap.URL + "/jwks",
		"x5u": trap.URL + "/jwks", "x5c": []string{certificate},
	} {
		header := sitetest.JSON{name: value, "kid": "k"}
		attacks = append(attacks, attack{
			name, "/rsa", sitetest.Sign(t, "RS256", keys.StrangerRSA, header, sitetest.Claims(nil)),
		})
		s.MustAnswer(
			200, s.Bearer("/rsa", sitetest.Sign(t, "RS256", keys.RSA, header, sitetest.Claims(nil))),
			"control: a good signature with "+name+" beside",
		)
	}
	mustRefuse(
		t, s, []attack{{"plain", "/rsa", sitetest.Sign(t, "RS256", keys.RSA, nil, sitetest.Claims(nil))}}, attacks,
	)
	if got := trap.Connections.Load(); got != 0 {
		t.Errorf("%d connections to the URL in the header", got)
	}
}

func TestThreatKeyID(t *testing.T) {
	keys := sitetest.Keys()
	provider := sitetest.NewIdentityProvider(t, sitetest.JWK(t, keys.RSA, sitetest.JSON{"kid": "good"}))
	s := sitetest.Serve(t, "jwt {\n issuer https://issuer.example\n jwks "+provider.URL+"/jwks\n}\n respond ok")
	control := attack{
		"good", "/", sitetest.Sign(t, "RS256", keys.RSA, sitetest.JSON{"kid": "good"}, sitetest.Claims(nil)),
	}
	var attacks []attack
	for name, id := range map[string]string{
		"path": "../../../../dev/null", "SQL": "x' UNION SELECT 'key",
		"NUL": "good\x00", "NUL alone": "\x00", "command": "good|id",
		"line ends": "good\n{\"level\":\"info\"}", "257 bytes": strings.Repeat("k", 257),
		"10 KB": strings.Repeat("k", 10_000), "other case": "Good",
	} {
		attacks = append(attacks, attack{
			"kid with " + name, "/",
			sitetest.Sign(t, "RS256", keys.RSA, sitetest.JSON{"kid": id}, sitetest.Claims(nil)),
		})
	}
	attacks = append(attacks, attack{
		"kid that is a number", "/",
		sitetest.SignRaw(t, "RS256", keys.RSA, `{"alg":"RS256","kid":1}`, sitetest.Marshal(t, sitetest.Claims(nil))),
	})
	mustRefuse(t, s, []attack{control}, attacks)
	if got := s.Bearer(
		"/",
		sitetest.Sign(t, "RS256", keys.RSA, sitetest.JSON{"kid": strings.Repeat("k", 1<<20)}, sitetest.Claims(nil)),
	); got.Status < 400 {
		t.Errorf("kid of 1 MB: status %d", got.Status)
	}
	for line := range strings.Lines(s.Log()) {
		if !strings.HasPrefix(line, "{") || strings.Contains(line, strings.Repeat("k", 65)) {
			t.Errorf("a kid is in the log as it came: %.200s", line)
		}
	}
	// A key without an ID is used for any kid, so only the key's length matters.
	keyed := func(bytes int) string {
		return sitetest.Sign(
			t, "ES256", keys.P256, sitetest.JSON{"kid": strings.Repeat("k", bytes)}, sitetest.Claims(nil),
		)
	}
	mustRefuse(t, keySite(t), []attack{{"kid of 256 bytes", "/p256", keyed(256)}}, []attack{
		{"kid of 257 bytes", "/p256", keyed(257)},
	})
}

func TestThreatPsychicSignature(t *testing.T) {
	s := keySite(t)
	keys := sitetest.Keys()
	input := sitetest.Encode(`{"alg":"ES256"}`) + "." + sitetest.Encode(sitetest.Marshal(t, sitetest.Claims(nil)))
	order := keys.P256.Params().N.Bytes()
	zero, one := make([]byte, 32), append(make([]byte, 31), 1)
	var attacks []attack
	for name, halves := range map[string][2][]byte{
		"0, 0": {zero, zero}, "n, n": {order, order}, "0, n": {zero, order},
		"n, 0": {order, zero}, "0, 1": {zero, one}, "1, 0": {one, zero}, "1, n": {one, order},
	} {
		attacks = append(attacks, attack{
			"r, s = " + name, "/p256", input + "." + sitetest.Encode(string(halves[0])+string(halves[1])),
		})
	}
	good := sitetest.Signature(t, "ES256", keys.P256, input)
	attacks = append(attacks,
		attack{"one byte more", "/p256", input + "." + sitetest.Encode(string(good)+"\x00")},
		attack{"one byte less", "/p256", input + "." + sitetest.Encode(string(good[:63]))},
		attack{"ASN.1", "/p256", input + "." + sitetest.Encode(mustSignASN1(t, keys.P256, input))})
	mustRefuse(t, s, []attack{{"a real one", "/p256", input + "." + sitetest.Encode(string(good))}}, attacks)
}

func mustSignASN1(t *testing.T, key crypto.Signer, input string) string {
	t.Helper()
	hash := crypto.SHA256.New()
	hash.Write([]byte(input))
	signature, err := key.Sign(rand.Reader, hash.Sum(nil), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return string(signature)
}

func TestThreatKeyTypeOrCurve(t *testing.T) {
	s := keySite(t)
	keys := sitetest.Keys()
	own := map[string]struct {
		key        any
		algorithms []string
	}{
		"/rsa":     {keys.RSA, []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}},
		"/p256":    {keys.P256, []string{"ES256"}},
		"/p384":    {keys.P384, []string{"ES384"}},
		"/p521":    {keys.P521, []string{"ES512"}},
		"/ed25519": {keys.Ed25519, []string{"EdDSA"}},
		"/secret":  {[]byte(sitetest.Secret), []string{"HS256", "HS384", "HS512"}},
	}
	var controls, attacks []attack
	for path, of := range own {
		for _, algorithm := range of.algorithms {
			token := sitetest.Sign(t, algorithm, of.key, nil, sitetest.Claims(nil))
			controls = append(controls, attack{algorithm, path, token})
			parts := strings.Split(token, ".")
			for other := range own {
				if other != path {
					attacks = append(attacks, attack{algorithm + " to the key of " + other, other, token})
				}
				for _, claimed := range own[other].algorithms {
					if claimed != algorithm {
						attacks = append(attacks, attack{
							algorithm + " that calls itself " + claimed, path,
							sitetest.Encode(`{"alg":"`+claimed+`"}`) + "." + parts[1] + "." + parts[2],
						})
					}
				}
			}
		}
	}
	attacks = append(attacks, attack{
		"ES256 with a P-384 key", "/p384", sitetest.Sign(t, "ES256", keys.P384, nil, sitetest.Claims(nil)),
	})
	mustRefuse(t, s, controls, attacks)
}

func TestThreatWeakSecret(t *testing.T) {
	for algorithm, least := range map[string]int{"HS256": 32, "HS384": 48, "HS512": 64} {
		secret := strings.Repeat("s", least)
		site := "jwt {\n algorithms " + algorithm + "\n secret %s\n}\nrespond ok"
		s := sitetest.Serve(t, fmt.Sprintf(site, secret))
		s.MustAnswer(
			200, s.Bearer("/", sitetest.Sign(t, algorithm, []byte(secret), nil, sitetest.Claims(nil))),
			"control: "+algorithm,
		)
		if got := sitetest.ConfigError(t, fmt.Sprintf(site, secret[1:])); !strings.Contains(got, "secret") ||
			!strings.Contains(got, fmt.Sprint(least)) || strings.Contains(got, secret[1:]) {
			t.Errorf("%s with %d bytes: %s", algorithm, least-1, got)
		}
	}
}

// rocaModulus passes for one of the weak chips: it is a power of 65537 (the
// zeroth) modulo every small prime.
func rocaModulus() *big.Int {
	product := big.NewInt(1)
	for p := int64(3); p <= 167; p += 2 {
		if big.NewInt(p).ProbablyPrime(10) {
			product.Mul(product, big.NewInt(p))
		}
	}
	n := new(big.Int).Lsh(big.NewInt(1), 2047)
	n.Sub(n, new(big.Int).Mod(n, product)).Add(n, product).Add(n, big.NewInt(1))
	if n.Bit(0) == 0 {
		n.Add(n, product)
	}
	return n
}

func TestThreatWeakOrOddKeysInSet(t *testing.T) {
	keys := sitetest.Keys()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	base64URL := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	as := func(id string, members sitetest.JSON) sitetest.JSON {
		members["kid"] = id
		return sitetest.JWK(t, keys.RSA, members)
	}
	provider := sitetest.NewIdentityProvider(t,
		sitetest.JWK(t, small, sitetest.JSON{"kid": "rsa1024"}),
		as("e1", sitetest.JSON{"e": "AQ"}),
		as("e2", sitetest.JSON{"e": "Ag"}),
		as("e4", sitetest.JSON{"e": "BA"}),
		as("rsa9000", sitetest.JSON{"n": base64URL(new(big.Int).SetBit(keys.RSA.N, 9000, 1))}),
		sitetest.JWK(t, keys.Ed25519, sitetest.JSON{"kid": "ed31", "x": sitetest.Encode(strings.Repeat("x", 31))}),
		sitetest.JWK(t, keys.Ed25519, sitetest.JSON{
			"kid": "small-order", "x": sitetest.Encode("\x01" + strings.Repeat("\x00", 31)),
		}),
		as("roca", sitetest.JSON{"n": base64URL(rocaModulus())}),
		as("double", sitetest.JSON{}), sitetest.JWK(t, keys.P256, sitetest.JSON{"kid": "double"}),
		sitetest.JSON{"kty": "oct", "k": sitetest.Encode(sitetest.Secret), "kid": "symmetric"},
		as("enc", sitetest.JSON{"use": "enc"}), as("tls", sitetest.JSON{"use": "tls"}),
		as("sign-only", sitetest.JSON{"key_ops": []string{"sign"}}),
		as("ps", sitetest.JSON{"alg": "PS256"}),
		as("oaep", sitetest.JSON{"alg": "RSA-OAEP"}),
		as("none", sitetest.JSON{"alg": "none"}),
		as(strings.Repeat("k", 300), sitetest.JSON{}),
		sitetest.JSON{"kty": "new", "kid": "unknown-type"},
		sitetest.JSON{"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ", "kid": "off-curve"},
		as("verify-only", sitetest.JSON{"key_ops": []string{"verify"}}),
		as("good", sitetest.JSON{"use": "sig", "alg": "RS256"}),
		sitetest.JWK(t, keys.Ed25519, sitetest.JSON{"kid": "ed"}),
	)
	s := sitetest.Serve(t, "jwt {\n issuer https://issuer.example\n jwks "+provider.URL+"/jwks\n}\n respond ok")
	token := func(algorithm string, key any, id string) string {
		return sitetest.Sign(t, algorithm, key, sitetest.JSON{"kid": id}, sitetest.Claims(nil))
	}
	attacks := []attack{
		{"RSA-1024", "/", token("RS256", small, "rsa1024")},
		{"kid of two keys, a third", "/", token("RS256", keys.StrangerRSA, "double")},
		{"kid of two keys, another algorithm", "/", token("ES384", keys.P384, "double")},
		{"symmetric", "/", token("HS256", []byte(sitetest.Secret), "symmetric")},
		{"RS256 by a key for PS256", "/", token("RS256", keys.RSA, "ps")},
		{"PS256 by a key for RS256", "/", token("PS256", keys.RSA, "good")},
		{"long kid", "/", token("RS256", keys.RSA, strings.Repeat("k", 300))},
		{"Ed25519 key of 31 bytes", "/", token("EdDSA", keys.Ed25519, "ed31")},
	}
	forged := sitetest.Encode(`{"alg":"EdDSA","kid":"small-order"}`) + "." +
		sitetest.Encode(sitetest.Marshal(t, sitetest.Claims(nil)))
	attacks = append(attacks, attack{
		"forged under a key of small order", "/", forged + "." + sitetest.Encode("\x01"+strings.Repeat("\x00", 63)),
	})
	for _, id := range []string{
		"e1", "e2", "e4", "rsa9000", "roca", "enc", "sign-only", "oaep", "none", "off-curve", "unknown-type",
	} {
		attacks = append(attacks, attack{id, "/", token("RS256", keys.RSA, id)})
	}
	mustRefuse(t, s, []attack{
		{"good", "/", token("RS256", keys.RSA, "good")},
		{"ps", "/", token("PS256", keys.RSA, "ps")},
		{"kid of two keys, first", "/", token("RS256", keys.RSA, "double")},
		{"kid of two keys, second", "/", token("ES256", keys.P256, "double")},
		{"verify-only", "/", token("RS256", keys.RSA, "verify-only")},
		{"ed", "/", token("EdDSA", keys.Ed25519, "ed")},
	}, attacks)
	log := s.Log()
	for _, why := range []string{
		"1024 bits", "exponent is 1", "exponent is 2", "exponent is 4", "RSA key of 9001 bits",
		"Ed25519 key of 31 bytes", "small order", "ROCA", "symmetric",
		"use is", "key_ops do not include verify", "alg is", "unknown-type", "off-curve",
	} {
		if !strings.Contains(log, why) {
			t.Errorf("the log does not say why a key is not used: %q", why)
		}
	}
}

func TestThreatDuplicateAndFoldedNames(t *testing.T) {
	s := secretSite(t, "")
	future, past := "9999999999", "1"
	token := func(header, payload string) string {
		return sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), header, payload)
	}
	payload := func(members string) string { return token(`{"alg":"HS256"}`, `{"sub":"alice",`+members+`}`) }
	mustRefuse(t, s, []attack{{"plain", "/api/", payload(`"exp":` + future)}}, []attack{
		{"exp twice, past first", "/api/", payload(`"exp":` + past + `,"exp":` + future)},
		{"exp twice, future first", "/api/", payload(`"exp":` + future + `,"exp":` + past)},
		{"sub twice", "/api/", payload(`"exp":` + future + `,"sub":"admin"`)},
		{"a name twice by escape", "/api/", payload(`"exp":` + future + `,"\u0073ub":"admin"`)},
		{"a nested name twice", "/api/", payload(`"exp":` + future + `,"a":{"b":1,"b":2}`)},
		{"EXP instead", "/api/", payload(`"EXP":` + future)},
		{"Exp beside a past exp", "/api/", payload(`"Exp":` + future + `,"exp":` + past)},
		{"ſub, which folds to sub", "/api/", payload(`"exp":` + future + `,"ſub":"admin"`)},
		{"SUB beside", "/api/", payload(`"exp":` + future + `,"SUB":"admin"`)},
		{"ALG instead", "/api/", token(`{"ALG":"HS256"}`, `{"sub":"alice","exp":`+future+`}`)},
		{"ALG beside", "/api/", token(`{"alg":"HS256","Alg":"none"}`, `{"sub":"alice","exp":`+future+`}`)},
		{"kid twice", "/api/", token(`{"alg":"HS256","kid":"a","kid":"b"}`, `{"sub":"alice","exp":`+future+`}`)},
		{"invalid UTF-8 in sub", "/api/", token(`{"alg":"HS256"}`, "{\"sub\":\"alice\xff\",\"exp\":"+future+`}`)},
		{"half a surrogate pair", "/api/", payload(`"exp":` + future + `,"a":"\ud800"`)},
		{"bytes after the payload", "/api/", token(`{"alg":"HS256"}`, `{"sub":"alice","exp":`+future+`} {}`)},
		{"bytes after the header", "/api/", token(`{"alg":"HS256"}x`, `{"sub":"alice","exp":`+future+`}`)},
		{"payload a list", "/api/", token(`{"alg":"HS256"}`, `[{"sub":"alice","exp":`+future+`}]`)},
		{"payload a string", "/api/", token(`{"alg":"HS256"}`, `"alice"`)},
		{"payload with a comment", "/api/", token(`{"alg":"HS256"}`, `{"sub":"alice",/**/"exp":`+future+`}`)},
	})
}

func TestThreatOtherSerialisations(t *testing.T) {
	s := secretSite(t, "from header X-Raw")
	good := sitetest.HS256(t, nil)
	parts := strings.Split(good, ".")
	json := fmt.Sprintf(`{"payload":"%s","protected":"%s","signature":"%s"}`, parts[1], parts[0], parts[2])
	encrypted := func(algorithm jwa.KeyEncryptionAlgorithm, key any, options ...jwe.EncryptOption) string {
		text, err := jwe.Encrypt(
			[]byte(sitetest.Marshal(t, sitetest.Claims(nil))), append(options, jwe.WithKey(algorithm, key))...,
		)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	s.MustAnswer(200, s.Get("/api/", "X-Raw: "+good), "control")
	for name, token := range map[string]string{
		"JWS JSON":              json,
		"polyglot":              `{"` + good + `":1}`,
		"polyglot, JSON first":  json + "." + parts[1] + "." + parts[2],
		"two parts":             parts[0] + "." + parts[1],
		"four parts":            good + "." + parts[2],
		"empty parts":           "..",
		"detached payload":      parts[0] + ".." + parts[2],
		"JWE with a shared key": encrypted(jwa.DIRECT, []byte(sitetest.Secret)[:32]),
		"JWE by PBES2":          encrypted(jwa.PBES2_HS256_A128KW, []byte(sitetest.Secret)),
		"JWE that is a bomb":    encrypted(jwa.DIRECT, []byte(sitetest.Secret)[:32], jwe.WithCompress(jwa.Deflate)),
	} {
		if got := s.Get("/api/", "X-Raw: "+token); got.Status != 401 && got.Status != 400 {
			t.Errorf("%s: status %d", name, got.Status)
		}
	}
}

// untouchedKeys fails the test if a key is requested.
type untouchedKeys struct{ t *testing.T }

func (k untouchedKeys) Find(context.Context, jwt.KeyHint) ([]*jwt.Key, error) {
	k.t.Error("a key was looked for")
	return nil, nil
}

// fixedKeys always returns the same keys, as a careless program might.
type fixedKeys []*jwt.Key

func (k fixedKeys) Find(context.Context, jwt.KeyHint) ([]*jwt.Key, error) { return k, nil }

// If a program's own source returns a key for another algorithm, it does not verify the token.
func TestThreatKeyOfAnotherAlgorithm(t *testing.T) {
	for name, text := range map[string]string{
		"EC key":  `{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`,
		"OKP key": `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
	} {
		key, err := jwt.ParseJWK([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		v, err := jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{
			{Keys: []jwt.KeySource{fixedKeys{key}}, Algorithms: []string{"HS256", "RS256", "ES384"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, algorithm := range []string{"HS256", "RS256", "ES384"} {
			_, err := v.Verify(t.Context(), sitetest.Encode(`{"alg":"`+algorithm+`"}`)+"."+
				sitetest.Encode(`{"sub":"alice","exp":4102444800}`)+"."+strings.Repeat("A", 86), time.Now())
			if failure, ok := errors.AsType[*refusal.Error](err); !ok || failure.Reason != refusal.Signature {
				t.Errorf("%s, %s: %v", name, algorithm, err)
			}
		}
	}
}

// Keys without a key ID, or with the same one, must all be tried, so of too many of them only the
// first are tried.
func TestThreatManyKeysOfOneID(t *testing.T) {
	set := func(without int) string {
		keys := []string{
			`{"kid":"named","kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		}
		for range without {
			public, _, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, `{"kty":"OKP","crv":"Ed25519","x":"`+base64.RawURLEncoding.EncodeToString(public)+`"}`)
		}
		return `{"keys":[` + strings.Join(keys, ",") + `]}`
	}
	for id, text := range map[string]string{
		"": set(1000), "shared": strings.ReplaceAll(set(1000), `{"kty"`, `{"kid":"shared","kty"`),
	} {
		keys, _, err := jwt.ParseKeySet([]byte(text))
		if err != nil || len(keys) != 1001 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		keySet := jwt.NewKeySet(keys...)
		for _, hint := range []jwt.KeyHint{
			{Algorithm: "EdDSA"}, {Algorithm: "EdDSA", ID: id}, {Algorithm: "EdDSA", Thumbprint1: "x"},
		} {
			if tried := len(keySet.Match(hint)); tried != 64 {
				t.Errorf("%+v: %d keys are tried", hint, tried)
			}
		}
		if tried := len(keySet.Match(jwt.KeyHint{Algorithm: "EdDSA", ID: "named"})); tried != 1 {
			t.Errorf("control: %d keys are tried", tried)
		}
	}
}

// Text that is not a JWS, or is too large, is refused before a key is looked up and before it is
// parsed completely.
func TestThreatEncryptedAndHugeTokens(t *testing.T) {
	v, err := jwt.NewVerifier(jwt.VerifierConfig{
		Issuers: []jwt.Issuer{{Keys: []jwt.KeySource{untouchedKeys{t}}, Algorithms: []string{"HS256"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	count := sitetest.Encode(`{"alg":"PBES2-HS512+A256KW","enc":"A256GCM","p2c":2147483647,"p2s":"AAAA"}`)
	for name, c := range map[string]struct {
		token  string
		reason refusal.Reason
	}{
		"JWE with a PBES2 count of 2³¹": {count + ".a.b.c.d", refusal.MalformedToken},
		"JWE bomb": {
			sitetest.Encode(`{"alg":"dir","enc":"A256GCM","zip":"DEF"}`) + ".." + strings.Repeat("A", 10_000) + ".c.d",
			refusal.MalformedToken,
		},
		"10⁶ dots":             {strings.Repeat(".", 1_000_000), refusal.TokenTooLarge},
		"one byte over 16 KiB": {strings.Repeat("a", jwt.MaxTokenBytes+1), refusal.TokenTooLarge},
		"kid of 1 MB": {
			sitetest.Encode(`{"alg":"HS256","kid":"`+strings.Repeat("k", 1<<20)+`"}`) + ".e30.AA",
			refusal.TokenTooLarge,
		},
	} {
		_, err := v.Verify(t.Context(), c.token, time.Now())
		if refusal, ok := err.(*refusal.Error); !ok || refusal.Reason != c.reason {
			t.Errorf("%s: %v, expected %s", name, err, c.reason)
		}
	}
	s := secretSite(t, "")
	s.MustAnswer(
		200, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"pad": strings.Repeat("p", 11_900)})),
		"control: just under 16 KiB",
	)
	s.MustAnswer(
		401, s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{"pad": strings.Repeat("p", 12_300)})),
		"just over 16 KiB",
	)
	s.MustAnswer(401, s.Bearer("/api/", strings.Repeat(".", 20_000)), "20,000 dots")
}

func TestThreatBase64Malleability(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			from query t
		}
		respond ok`)
	header, payload := `{"alg":"HS256"}`, sitetest.Marshal(t, sitetest.Claims(sitetest.JSON{"p": "x"}))
	for len(payload)%3 != 1 { // so that the last character has unused bits
		payload = strings.Replace(payload, `"x`, `"xx`, 1)
	}
	raw := func(header, payload string) string {
		input := header + "." + payload
		return input + "." + sitetest.Encode(string(sitetest.Signature(t, "HS256", []byte(sitetest.Secret), input)))
	}
	good := raw(sitetest.Encode(header), sitetest.Encode(payload))
	spare := []byte(sitetest.Encode(payload))
	spare[len(spare)-1]++
	signed := strings.Split(good, ".")
	lastSpare := []byte(signed[2])
	lastSpare[len(lastSpare)-1]++
	s.MustAnswer(200, s.Get("/?t="+good), "control")
	for name, token := range map[string]string{
		"padded payload": raw(sitetest.Encode(header), sitetest.Encode(payload)+"=="),
		"padded payload, percent": strings.ReplaceAll(
			raw(sitetest.Encode(header), sitetest.Encode(payload)+"=="), "=", "%3D",
		),
		"padded signature":        good + "%3D",
		"line end in the payload": strings.Replace(good, ".", ".%0A", 1),
		"line end at the end":     good + "%0A",
		"carriage return":         strings.Replace(good, ".", "%0D.", 1),
		"blank":                   good + "%20",
		"standard alphabet": raw(sitetest.Encode(header), strings.NewReplacer("-", "+", "_", "/").
			Replace(sitetest.Encode(`{"sub":"?>?>~~~","exp":9999999999}`))),
		"spare bits in the payload":   raw(sitetest.Encode(header), string(spare)),
		"spare bits in the signature": signed[0] + "." + signed[1] + "." + string(lastSpare),
		"NUL":                         good + "%00",
	} {
		if got := s.Get("/?t=" + strings.ReplaceAll(token, "+", "%2B")); got.Status == 200 {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestThreatCritAndB64(t *testing.T) {
	s := secretSite(t, "")
	token := func(members string) string {
		return sitetest.SignRaw(
			t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"`+members+`}`,
			sitetest.Marshal(t, sitetest.Claims(nil)),
		)
	}
	unencoded := func() string {
		header, payload := sitetest.Encode(`{"alg":"HS256","b64":false,"crit":["b64"]}`), sitetest.Encode(
			sitetest.Marshal(t, sitetest.Claims(nil)),
		)
		return header + "." + payload + "." + sitetest.Encode(string(sitetest.Signature(
			t, "HS256", []byte(sitetest.Secret), header+"."+sitetest.Marshal(t, sitetest.Claims(nil)),
		)))
	}()
	mustRefuse(t, s, []attack{{"an unknown parameter that is not critical", "/api/", token(`,"ext":1`)}}, []attack{
		{"crit unknown", "/api/", token(`,"crit":["ext"],"ext":1`)},
		{"crit empty", "/api/", token(`,"crit":[]`)},
		{"crit null", "/api/", token(`,"crit":null`)},
		{"crit twice", "/api/", token(`,"crit":["exp"],"crit":["exp"]`)},
		{"crit with a name twice", "/api/", token(`,"crit":["b64","b64"],"b64":true`)},
		{"crit of a registered name", "/api/", token(`,"crit":["alg"]`)},
		{"Crit", "/api/", token(`,"Crit":["ext"]`)},
		{"b64 false", "/api/", token(`,"b64":false`)},
		{"b64 false and critical", "/api/", token(`,"b64":false,"crit":["b64"]`)},
		{"b64 false, signed so", "/api/", unencoded},
	})
}

func TestThreatAudience(t *testing.T) {
	for _, option := range []string{"", "audience me other"} {
		s := secretSite(t, option)
		var attacks []attack
		for _, aud := range []any{
			7, true, "", []string{}, []string{""}, []any{"me", 7}, []any{[]string{"me"}}, sitetest.JSON{"me": "me"},
		} {
			attacks = append(attacks, attack{
				fmt.Sprintf("aud %v", aud), "/api/", sitetest.HS256(t, sitetest.JSON{"aud": aud}),
			})
		}
		attacks = append(attacks, attack{
			"aud null", "/api/", sitetest.SignRaw(
				t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, `{"sub":"a","exp":9999999999,"aud":null}`,
			),
		})
		controls := []attack{
			{"aud me", "/api/", sitetest.HS256(t, sitetest.JSON{"aud": "me"})},
			{"aud list", "/api/", sitetest.HS256(t, sitetest.JSON{"aud": []string{"you", "me"}})},
		}
		if option != "" {
			attacks = append(
				attacks, attack{"aud missing", "/api/", sitetest.HS256(t, nil)},
				attack{"aud another", "/api/", sitetest.HS256(t, sitetest.JSON{"aud": "you"})},
				attack{"aud in other case", "/api/", sitetest.HS256(t, sitetest.JSON{"aud": "Me"})}, attack{
					"aud longer", "/api/", sitetest.HS256(t, sitetest.JSON{"aud": "me2"}),
				},
			)
		}
		mustRefuse(t, s, controls, attacks)
	}
}

func TestThreatIssuer(t *testing.T) {
	s := keySite(t)
	control := attack{"iss", "/secret", sitetest.HS256(t, nil)}
	var attacks []attack
	for _, iss := range []any{
		[]string{"https://issuer.example"}, []string{"https://attacker.example", "https://issuer.example"},
		"https://issuer.example/", "https://ISSUER.example",
		"https://issuer.example.attacker.example", "", 7, sitetest.JSON{}, nil,
	} {
		attacks = append(attacks, attack{
			fmt.Sprintf("iss %v", iss), "/secret", sitetest.HS256(t, sitetest.JSON{"iss": iss}),
		})
	}
	mustRefuse(t, s, []attack{control}, attacks)

	// Keys are not shared: each issuer's keys are valid only for its own name.
	keys := sitetest.Keys()
	s = sitetest.Serve(t, fmt.Sprintf(
		"jwt {\n issuer https://a.example {\n public_key `%s`\n }\n issuer https://b.example {\n public_key `%s`\n"+
			" }\n}\n respond ok",
		sitetest.PEM(t, keys.RSA), sitetest.PEM(t, keys.StrangerRSA),
	))
	token := func(key any, iss any) string {
		return sitetest.Sign(t, "RS256", key, nil, sitetest.Claims(sitetest.JSON{"iss": iss}))
	}
	mustRefuse(t, s, []attack{
		{"a", "/", token(keys.RSA, "https://a.example")}, {"b", "/", token(keys.StrangerRSA, "https://b.example")},
	}, []attack{
		{"a's name with b's key", "/", token(keys.StrangerRSA, "https://a.example")},
		{"b's name with a's key", "/", token(keys.RSA, "https://b.example")},
		{"both names", "/", token(keys.RSA, []string{"https://a.example", "https://b.example"})},
	})
	s = secretSite(t, "") // no issuer in the config: iss is not compared, its type is
	mustRefuse(t, s, []attack{{"any iss", "/api/", sitetest.HS256(t, sitetest.JSON{"iss": "whoever"})}}, []attack{
		{"iss a list", "/api/", sitetest.HS256(t, sitetest.JSON{"iss": []string{"whoever"}})},
	})
}

func TestThreatSubject(t *testing.T) {
	token := func(sub string) string {
		return sitetest.SignRaw(
			t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, `{"uid":"alice","exp":9999999999`+sub+`}`,
		)
	}
	aText, none := attack{"sub a string", "/api/", token(`,"sub":"a"`)}, attack{"no sub", "/api/", token("")}
	aNumber := slices.Clip([]attack{
		{"sub a number", "/api/", token(`,"sub":1`)},
		{"sub a long number", "/api/", token(`,"sub":98765432109876543210`)},
	})
	never := []attack{
		{"sub a list", "/api/", token(`,"sub":["a"]`)}, {"sub null", "/api/", token(`,"sub":null`)},
		{"sub true", "/api/", token(`,"sub":true`)}, {"sub an object", "/api/", token(`,"sub":{"a":1}`)},
	}
	for _, c := range []struct {
		option         string
		passes, others []attack
	}{
		{"user_id uid", append(aNumber, aText, none), nil},
		{"user_id uid sub", append(aNumber, aText, none), nil},
		{"user_id sub uid", []attack{aText, none}, aNumber}, // sub would name the user
		{"user_id absent sub", []attack{aText}, append(aNumber, none)},
		{"", []attack{aText}, append(aNumber, none)},
	} {
		mustRefuse(t, secretSite(t, c.option), c.passes, slices.Concat(c.others, never))
	}
	s := secretSite(t, "user_id uid\n require claim sub 1") // rules read it as text
	s.MustAnswer(200, s.Bearer("/api/", token(`,"sub":1`)), "the subject of the rule")
	s.MustAnswer(403, s.Bearer("/api/", token(`,"sub":2`)), "another subject")
}

func TestThreatExpiry(t *testing.T) {
	token := func(exp string) string {
		return sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, `{"sub":"alice"`+exp+`}`)
	}
	now := time.Now().Unix()
	future, past := fmt.Sprint(now+3600), fmt.Sprint(now-31)
	controls := []attack{
		{"whole", "/api/", token(`,"exp":` + future)},
		{"float", "/api/", token(`,"exp":` + future + `.5`)},
		{"exponent", "/api/", token(`,"exp":9.9e9`)},
		{"the last second of the year 9999", "/api/", token(`,"exp":253402300799`)},
		{"within the leeway of 30 s", "/api/", token(`,"exp":` + fmt.Sprint(now-20))},
	}
	attacks := []attack{
		{"past", "/api/", token(`,"exp":` + past)},
		{"past float", "/api/", token(`,"exp":` + past + `.5`)},
		{"negative", "/api/", token(`,"exp":-1`)},
		{"negative and large", "/api/", token(`,"exp":-9223372036854775809`)},
		{"-1e300", "/api/", token(`,"exp":-1e300`)},
		{"0", "/api/", token(`,"exp":0`)},
		{"1e300", "/api/", token(`,"exp":1e300`)}, // an issuer that means a date does not write these
		{"2⁶³", "/api/", token(`,"exp":9223372036854775808`)},
		{"the year 10000", "/api/", token(`,"exp":253402300800`)},
		{"milliseconds", "/api/", token(`,"exp":` + future + `000`)},
		{"milliseconds, expired", "/api/", token(`,"exp":` + past + `000`)},
		{"nanoseconds", "/api/", token(`,"exp":` + future + `000000000`)},
		{"nbf milliseconds", "/api/", token(`,"exp":` + future + `,"nbf":` + past + `000`)},
		{"iat milliseconds", "/api/", token(`,"exp":` + future + `,"iat":` + past + `000`)},
		{"infinite", "/api/", token(`,"exp":1e400`)},
		{"string", "/api/", token(`,"exp":"` + future + `"`)},
		{"null", "/api/", token(`,"exp":null`)},
		{"true", "/api/", token(`,"exp":true`)},
		{"list", "/api/", token(`,"exp":[` + future + `]`)},
		{"NaN", "/api/", token(`,"exp":NaN`)},
		{"nbf ahead", "/api/", token(`,"exp":` + future + `,"nbf":` + fmt.Sprint(now+60))},
		{"nbf string", "/api/", token(`,"exp":` + future + `,"nbf":"0"`)},
		{"iat ahead", "/api/", token(`,"exp":` + future + `,"iat":` + fmt.Sprint(now+60))},
		{"iat null", "/api/", token(`,"exp":` + future + `,"iat":null`)},
	}
	absent := attack{"absent", "/api/", token("")}
	mustRefuse(t, secretSite(t, ""), controls, append(attacks, absent))
	mustRefuse(t, secretSite(t, "allow_missing_exp"), append(controls, absent), attacks)
}

func TestThreatOtherTokenTypes(t *testing.T) {
	typed := func(typ any, claims sitetest.JSON) string {
		return sitetest.Sign(t, "HS256", []byte(sitetest.Secret), sitetest.JSON{"typ": typ}, sitetest.Claims(claims))
	}
	events := sitetest.JSON{
		"events": sitetest.JSON{"http://schemas.openid.net/event/backchannel-logout": sitetest.JSON{}},
	}
	controls := []attack{
		{"JWT", "/api/", typed("JWT", nil)}, {"jwt", "/api/", typed("jwt", nil)},
		{"at+jwt", "/api/", typed("at+jwt", nil)}, {"application/at+jwt", "/api/", typed("application/at+JWT", nil)},
		{"JOSE", "/api/", typed("JOSE", nil)},
		{"absent", "/api/", sitetest.SignRaw(
			t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, sitetest.Marshal(t, sitetest.Claims(nil)),
		)},
	}
	var attacks []attack
	for _, typ := range []any{
		"logout+jwt", "Logout+JWT", "application/logout+jwt", "dpop+jwt",
		"secevent+jwt", "oauth-authz-req+jwt", "JOSE+JSON", 7, []string{"JWT"},
	} {
		attacks = append(attacks, attack{fmt.Sprintf("typ %v", typ), "/api/", typed(typ, nil)})
	}
	mustRefuse(t, secretSite(t, ""), controls, append(attacks, attack{
		"a log-out token of no type", "/api/", typed("JWT", events),
	}))
	idToken := attack{"an ID token", "/api/", typed("JWT", sitetest.JSON{"nonce": "n", "at_hash": "h"})}
	strict := append(attacks, controls[0], controls[4], controls[5], idToken)
	mustRefuse(t, secretSite(t, "token_type at+jwt"), controls[2:4], strict)
	mustRefuse(t, secretSite(t, "token_type JWT application/JOSE"), []attack{controls[0], controls[1], controls[4]},
		append(attacks, controls[2], controls[5]))
}

// A token whose content is said to be another token is not read as claims (RFC 7519 §5.2).
func TestThreatNestedToken(t *testing.T) {
	of := func(cty any) attack {
		return attack{fmt.Sprintf("cty %v", cty), "/api/", sitetest.Sign(
			t, "HS256", []byte(sitetest.Secret), sitetest.JSON{"cty": cty}, sitetest.Claims(nil),
		)}
	}
	inner := attack{"a token in a token", "/api/", sitetest.SignRaw(
		t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256","cty":"JWT"}`, sitetest.HS256(t, nil),
	)}
	s := secretSite(t, "")
	mustRefuse(t, s, []attack{of("json"), of("application/json"), of("")}, []attack{
		of("JWT"), of("jwt"), of("application/jwt"), of("JWT "), of("application/JWT; charset=utf-8"), of(7), of([]string{"JWT"}), inner,
		{"CTY", "/api/", sitetest.Sign(
			t, "HS256", []byte(sitetest.Secret), sitetest.JSON{"CTY": "JWT"}, sitetest.Claims(nil),
		)},
	})
	if want := `cty is \"JWT\", so it contains another JWT instead of claims`; !strings.Contains(s.Log(), want) {
		t.Errorf("the log does not say %s", want)
	}
}

// The reason for a date in another unit says so.
func TestDatesInMilliseconds(t *testing.T) {
	s := secretSite(t, "")
	now := time.Now().Unix()
	for claim, value := range map[string]any{"exp": now*1000 + 3.6e6, "nbf": now * 1000, "iat": now * 1000} {
		got := s.Bearer("/api/", sitetest.HS256(t, sitetest.JSON{claim: value}))
		s.MustAnswer(401, got, claim)
		want := claim + " is in milliseconds; it must be in seconds (RFC 7519 §2)"
		if !strings.Contains(s.Log(), want) {
			t.Errorf("the log does not say %q:\n%s", want, s.Log())
		}
	}
}

func TestThreatSeveralTokens(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			from header
			from cookie session
			from query access_token
		}
		respond ok`)
	token, other := sitetest.HS256(t, nil), sitetest.HS256(t, sitetest.JSON{"sub": "bob"})
	header, cookie, query := "Authorization: Bearer "+token, "Cookie: session="+token, "/?access_token="+token
	for _, got := range []sitetest.Reply{s.Get("/", header), s.Get("/", cookie), s.Get(query)} {
		s.MustAnswer(200, got, "control")
	}
	for name, got := range map[string]sitetest.Reply{
		"two headers":            s.Get("/", header, "Authorization: Bearer "+other),
		"the same header twice":  s.Get("/", header, header),
		"header with a list":     s.Get("/", "Authorization: Bearer "+token+", Bearer "+other),
		"another scheme beside":  s.Get("/", header, "Authorization: Basic YTpi"),
		"two schemes in one":     s.Get("/", "Authorization: Basic YTpi, Bearer "+token),
		"header and cookie":      s.Get("/", header, "Cookie: session="+other),
		"header and query":       s.Get("/?access_token="+other, header),
		"cookie and query":       s.Get("/?access_token="+other, cookie),
		"the same, and another":  s.Get("/?access_token="+other, header, cookie),
		"the same cookie twice":  s.Get("/", cookie+"; session="+token),
		"two cookies":            s.Get("/", "Cookie: session="+token+"; session="+other),
		"two cookie headers":     s.Get("/", cookie, "Cookie: session="+other),
		"two query parameters":   s.Get(query + "&access_token=" + other),
		"bad header, good query": s.Get(query, "Authorization: Bearer x"),
	} {
		if got.Status != 400 || !strings.Contains(got.Header.Get("WWW-Authenticate"), `error="invalid_request"`) {
			t.Errorf("%s: status %d, challenge %q", name, got.Status, got.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestThreatTokenInQuery(t *testing.T) {
	token := sitetest.HS256(t, nil)
	s := secretSite(t, "")
	s.MustAnswer(401, s.Get("/api/?access_token="+token), "a query is not looked at unless it is configured")
	missing := sitetest.Serve(t, "jwt {\n secret \""+sitetest.Secret+
		"\"\n from query access_token\n}\n file_server /files/* {\n root "+sitetest.TempDir(t)+"\n}").Get(
		"/files/none?access_token=" + token,
	)
	if missing.Status != 404 || missing.Header.Get("Cache-Control") != "private" {
		t.Errorf("an error behind it: %d %v", missing.Status, missing.Header)
	}
	s = sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			from query access_token
		}
		reverse_proxy `+sitetest.NewUpstream(t))
	for path, want := range map[string]string{"/": "private", "/public": "private", "/no-store": "no-store"} {
		got := s.Get(path + "?access_token=" + token)
		s.MustAnswer(200, got, "control")
		if control := got.Header.Values("Cache-Control"); len(control) != 1 || control[0] != want {
			t.Errorf("%s: Cache-Control %q, expected %q", path, control, want)
		}
	}
}

func TestThreatIdentityHeaderSpoofing(t *testing.T) {
	upstream := sitetest.NewUpstream(t)
	s := sitetest.Serve(t, `servers {
			expected_underscore_headers X_User X_Mail
		}
----------
		jwt {
			secret "`+sitetest.Secret+`"
			optional
			public /public
			allow_preflight
			claim_header X-User sub
			claim_header X-Mail email
		}
		reverse_proxy `+upstream)
	spoofed := []string{
		"X-User: admin", "X_User: admin", "x-user: admin", "X.User: admin",
		"X-Mail: admin@example.com", "x_mail: admin@example.com", "X-Mail_: kept",
	}
	token := "Authorization: Bearer " + sitetest.HS256(t, nil)
	for name, got := range map[string]sitetest.Reply{
		"with a token": s.Get("/", append(spoofed, token)...),
		"anonymous":    s.Get("/", spoofed...),
		"public":       s.Get("/public", append(spoofed, token)...),
		"preflight": s.Do(
			"OPTIONS", "/", append(spoofed, "Origin: https://a.example", "Access-Control-Request-Method: GET")...,
		),
		"connection header": s.Get("/", append(spoofed, token, "Connection: X-User")...),
	} {
		s.MustAnswer(200, got, name)
		if strings.Contains(strings.ToLower(got.Body), "admin") {
			t.Errorf("%s: the upstream saw a spoofed header:\n%s", name, got.Body)
		}
		if user := strings.Contains(got.Body, "X-User: alice"); user != (name == "with a token" ||
			name == "connection header") {
			t.Errorf("%s: X-User from the token: %v\n%s", name, user, got.Body)
		}
	}
}

// The upstream trusts a claim header in any request. So a client's copy is also removed if the
// matcher of the directive does not match.
func TestThreatIdentityHeaderBesideTheMatcher(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt /a/* {
			secret "`+sitetest.Secret+`"
			claim_header X-User sub
		}
		jwt /b/* {
			secret "`+sitetest.Secret+`"
			claim_header X-User sub
			claim_header X-Mail email
		}
		reverse_proxy `+sitetest.NewUpstream(t))
	spoofed := []string{
		"X-User: admin", "X_User: admin", "X-Mail: admin@example.com",
		"Authorization: Bearer " + sitetest.HS256(t, sitetest.JSON{"email": "alice@example.com"}),
	}
	for path, want := range map[string][2]bool{"/other": {false, false}, "/a/": {true, false}, "/b/": {true, true}} {
		got := s.Get(path, spoofed...)
		s.MustAnswer(200, got, path)
		if strings.Contains(got.Body, "admin") || strings.Contains(got.Body, "X-User: alice") != want[0] ||
			strings.Contains(got.Body, "X-Mail: alice@example.com") != want[1] {
			t.Errorf("%s: the upstream saw\n%s", path, got.Body)
		}
	}
}

// If a path was rewritten or copied to a variable, the original path is checked.
func TestThreatOwnerRuleByOtherPlaceholders(t *testing.T) {
	for name, rule := range map[string]string{
		"original path": "require expression claims.sub == {http.request.orig_uri.path.1}",
		"variable":      "require expression claims.sub == {vars.owner}",
		"map":           "require expression claims.sub == {owner.of}",
	} {
		s := sitetest.Serve(t, `
			vars owner {path.1}
			map {http.request.orig_uri.path.1} {owner.of} {
				default {http.request.orig_uri.path.1}
			}
			rewrite /todos/* /app
			jwt {
				secret "`+sitetest.Secret+`"
				`+rule+`
			}
			respond ok`)
		s.MustAnswer(200, s.Bearer("/todos/alice/1", sitetest.HS256(t, nil)), name+": control")
		s.MustAnswer(403, s.Bearer("/todos/bob/1", sitetest.HS256(t, nil)), name+": another user's")
		for _, path := range []string{
			"/todos/alice/../bob", "/todos/alice/%2e%2e/bob", "/todos//alice/1", "/todos/alice/..;/bob",
		} {
			s.MustAnswer(403, s.Bearer(path, sitetest.HS256(t, nil)), name+": "+path)
		}
	}
}

// An unknown value makes a rule fail, even if the rule says "is not".
func TestThreatUnknownPlaceholderInRule(t *testing.T) {
	for rule, status := range map[string]int{
		"claims.sub != {http.request.method}":        200,
		"claims.sub != {http.request.cookie.none}":   200,
		"claims.sub != {http.request.header.X-None}": 200,
		"claims.sub != {http.request.uri.pth.1}":     403,
		"claims.sub != {nonsense.thing}":             403,
	} {
		s := sitetest.Serve(t, "jwt {\n secret \""+sitetest.Secret+"\"\n require expression `"+rule+"`\n}\n respond ok")
		s.MustAnswer(status, s.Bearer("/", sitetest.HS256(t, nil)), rule)
	}
}

// A malformed token is not treated like a missing one.
func TestThreatMalformedTokenIsNotNone(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			optional
			strip_token
			from cookie tok
			from query access_token
		}
		respond "user=[{http.auth.user.id}]"`)
	good := sitetest.HS256(t, nil)
	s.MustAnswer(200, s.Get("/"), "control: none")
	s.MustAnswer(200, s.Get("/", "Cookie: other=a\\b; tok="+good), "control: a good one")
	for cookie, status := range map[string]int{
		`tok=bad\token`: 401, "tok=" + good + `; tok=evil\x`: 400,
		"tok=; tok=" + good: 400, "tok=" + good + "; tok=": 400,
	} {
		s.MustAnswer(status, s.Get("/", "Cookie: "+cookie), cookie[:10])
	}
	for query, status := range map[string]int{
		"access_token=bad.bad.bad;x=1": 401, "access_token=bad%zz": 401,
		"access_token=" + good + "&access_token=evil;a": 400,
	} {
		s.MustAnswer(status, s.Get("/?"+query), query[:16])
	}
}

// Errors do not contain secrets that are set in the wrong option. Logs and metrics do not contain
// secrets in the URL of a key set.
func TestThreatSecretsInErrors(t *testing.T) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(sitetest.Keys().P256)
	if err != nil {
		t.Fatal(err)
	}
	const secret = "my-very-secret-hmac-value-0123456789abcdef"
	for _, body := range []string{
		`public_key "` + secret + `"`, `public_key "` + base64.StdEncoding.EncodeToString(pkcs8) + `"`,
		`jwks "` + secret + `"`, `public_key "https://x.example/` + secret + `"`,
	} {
		text, err := sitetest.AdaptCaddyfile(
			t, "jwt {\n issuer https://issuer.example {\n"+body+"\n}\n}", "127.0.0.1:1",
			sitetest.TempDir(t), filepath.Join(sitetest.TempDir(t), "log"),
		)
		if err != nil {
			t.Fatal(err)
		}
		config := new(caddy.Config)
		if err := caddy.StrictUnmarshalJSON(text, config); err != nil {
			t.Fatal(err)
		}
		err = caddy.Validate(config)
		if err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "MIG") {
			t.Errorf("error %v", err)
		}
	}
	p := sitetest.NewIdentityProvider(t)
	p.SetAnswer(500, "")
	address := strings.Replace(p.URL, "http://", "http://user:hunter2@", 1) + "/jwks?apikey=hunter3"
	s := sitetest.Serve(
		t, "jwt /api/* {\n issuer https://issuer.example\n jwks "+address+"\n}\n metrics /metrics\n respond /api/* ok",
	)
	s.MustAnswer(503, s.Bearer("/api/", sitetest.SignRS(t, sitetest.Keys().RSA, "a")), "no keys")
	for what, text := range map[string]string{"log": s.Log(), "metrics": s.Get("/metrics").Body} {
		if !strings.Contains(text, p.URL+"/jwks") || strings.Contains(text, "hunter") {
			t.Errorf("%s:\n%s", what, text)
		}
	}
}

// The salt of PSS is as long as the hash (RFC 7518 §3.5).
func TestThreatPSSSaltLength(t *testing.T) {
	s := keySite(t)
	key := sitetest.Keys().RSA
	input := sitetest.Encode(`{"alg":"PS256"}`) + "." + sitetest.Encode(sitetest.Marshal(t, sitetest.Claims(nil)))
	digest := sha256.Sum256([]byte(input))
	for length, status := range map[int]int{32: 200, 1: 401, 20: 401, 64: 401} {
		signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: length})
		if err != nil {
			t.Fatal(err)
		}
		s.MustAnswer(
			status, s.Bearer("/rsa", input+"."+sitetest.Encode(string(signature))),
			fmt.Sprintf("salt of %d bytes", length),
		)
	}
}

func TestThreatSkipPathBypass(t *testing.T) {
	s := sitetest.Serve(t, `
		jwt {
			secret "`+sitetest.Secret+`"
			public /public/* /health *.css /*/free
		}
		respond "{http.request.uri.path}"`)
	for _, path := range []string{
		"/public/x", "/health", "/PUBLIC/x", "/public//x", "/public/a;b=1/x", "/%70ublic/x", "/a/b.css", "/x/free",
	} {
		s.MustAnswer(200, s.Get(path), "control: "+path)
	}
	for _, path := range []string{
		"/admin", "/", "//public/x", "/admin/../public/x", "/publicx", "/public", "/public/../admin",
		"/public/%2e%2e/admin", "/public/.%2e/admin", "/public/..%2fadmin", "/public/x/../../admin",
		"//public/../admin", "/public//../../admin", "/public/..;/admin", "/public/..%3b/admin",
		"/public/..;x=1/admin", `/public/..\admin`, "/public/..%5cadmin", `/public\..\admin`,
		"/health/", "/health/x", "/health%2f..%2fadmin", "/healthx", "/health;x",
		"/public/.;/../admin", "/public/;/../x", "/public/..;a/./x", "/admin?/public/x",
		"/admin#/public/x", "/admin%00/public/", "/%2e/admin", "/admin;/public/x", "/./admin",
		"/admin;x.css", "/admin;.css", "/admin%3b.css", "/admin%00.css", "/admin%23.css", "/admin%3f.css",
		"/admin%0a.css", "/admin;/free", "/public/%252e%252e/admin", "/public/%252E./admin",
	} {
		got := s.Get(path)
		if got.Status == 200 {
			t.Errorf("%s is public: %q", path, got.Body)
		}
	}
	for _, header := range []string{
		"X-Forwarded-Uri", "X-Original-Url", "X-Rewrite-Url",
		"X-Forwarded-Path", "X-Original-Uri", "X-Forwarded-Prefix",
	} {
		s.MustAnswer(401, s.Get("/admin", header+": /public/x"), header)
	}
	s.MustAnswer(401, s.Get("/admin", "X-Http-Method-Override: OPTIONS"), "method override")
}

// No limit here depends on the client's address, but a rule may read it: it is Caddy's client_ip,
// which trusts a header only if it comes from a trusted proxy.
func TestThreatClientIP(t *testing.T) {
	rule := `require expression "{http.vars.client_ip} == '203.0.113.7'"`
	spoof := []string{
		"Authorization: Bearer " + sitetest.HS256(t, nil), "X-Forwarded-For: 203.0.113.7",
		"X-Real-Ip: 203.0.113.7", "Forwarded: for=203.0.113.7",
	}
	s := secretSite(t, rule)
	s.MustAnswer(403, s.Get("/api/", spoof...), "a header of anybody")
	s = sitetest.Serve(t, `servers {
			trusted_proxies static 127.0.0.1/32
		}
----------
		jwt {
			secret "`+sitetest.Secret+`"
			`+rule+`
		}
		respond ok`)
	s.MustAnswer(200, s.Get("/", spoof...), "control: a header of a trusted proxy")
}

// Handlers with a token each pass the headers of both users on. But a handler that has a header of an
// earlier one replaces its user: then no header of the earlier user is left, and the placeholders are
// always those of the last one.
func TestThreatClaimHeadersOfTwoUsers(t *testing.T) {
	site := func(inner string) *sitetest.Site {
		return sitetest.Serve(t, `route {
		jwt {
			secret "`+sitetest.Secret+`"
			claim_header X-Email email
			claim_header X-Role role
		}
		jwt /a/* {
			secret "`+sitetest.Secret+`"
			from cookie t
			`+inner+`
		}
		respond "email={http.request.header.X-Email} role={http.request.header.X-Role} `+
			`user={http.request.header.X-User} id={http.auth.user.id}"
	}
	handle_errors {
		respond "email={http.request.header.X-Email} role={http.request.header.X-Role} `+
			`user={http.request.header.X-User} id={http.auth.user.id}"
	}`)
	}
	alice := "Authorization: Bearer " + sitetest.HS256(
		t, sitetest.JSON{"sub": "alice", "email": "alice@example.com", "role": "admin"},
	)
	const own, shared = "claim_header X-User sub", "claim_header X-User sub\nclaim_header X_Role role"
	for _, test := range []struct{ inner, path, cookie, want string }{
		{own, "/b", "", "email=alice@example.com role=admin user= id=alice"},
		{own, "/a/b", "alice", "email=alice@example.com role=admin user=alice id=alice"},
		{own, "/a/b", "bob", "email=alice@example.com role=admin user=bob id=bob"},
		{own, "/a/b", "alice of another issuer", "email=alice@example.com role=admin user=alice id=alice"},
		{own + "\noptional", "/a/b", "", "email=alice@example.com role=admin user= id="},
		{own + "\npublic /a/*", "/a/b", "bob", "email=alice@example.com role=admin user= id="},
		{own, "/a/b", "", "email= role= user= id="},                                // 401
		{own + "\nrequire role admin", "/a/b", "bob", "email= role= user= id=bob"}, // 403
		{shared, "/b", "", "email=alice@example.com role=admin user= id=alice"},
		{shared, "/a/b", "alice", "email=alice@example.com role= user=alice id=alice"},
		{shared, "/a/b", "bob", "email= role= user=bob id=bob"},
		{shared, "/a/b", "alice of another issuer", "email= role= user=alice id=alice"},
		{shared + "\noptional", "/a/b", "", "email= role= user= id="},
		{shared + "\npublic /a/*", "/a/b", "bob", "email= role= user= id="},
	} {
		s := site(test.inner)
		name, issuer, _ := strings.Cut(test.cookie, " of ")
		headers := []string{alice, "X-User: admin", "X_user: admin"}
		if claims := (sitetest.JSON{"sub": name}); name != "" {
			if issuer != "" {
				claims["iss"] = "https://other.example"
			}
			headers = append(headers, "Cookie: t="+sitetest.HS256(t, claims))
		}
		if test.path == "/b" { // there, the client's own header is for nobody
			headers = headers[:1]
		}
		if got := s.Get(test.path, headers...); got.Body != test.want {
			t.Errorf("%s, %s, cookie of %q: %s, expected %s", test.inner, test.path, test.cookie, got.Body, test.want)
		}
	}
}
