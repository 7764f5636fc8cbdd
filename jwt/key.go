package jwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"filippo.io/edwards25519"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const (
	minRSABits    = 2048 // RFC 7518 §3.3
	maxRSABits    = 8192 // as crypto/tls: a larger one only burns time
	maxKeyIDBytes = 256
	// MaxKeysWithoutID is how many keys of a set may have no key ID: each costs a
	// token without one, and a refresh, a comparison.
	MaxKeysWithoutID = 64
	minSecretBytes   = 32 // RFC 7518 §3.2, for HS256, the shortest
	SecretBytesHint  = "`openssl rand -hex 64` makes a secret that is long enough for every HMAC algorithm"
)

// Key is a key that verifies signatures, and the algorithms it may do so
// with. A key knows its own algorithms, so a token can never choose one that
// its key was not made for (RFC 8725 §3.1).
type Key struct {
	id        string
	Material  any
	verifiers map[string]jws.Verifier
	// Withdrawn is set when the key leaves its set. It ends the tokens that
	// were verified with the key and are remembered.
	Withdrawn atomic.Bool
}

// ID is the key ID (RFC 7517 §4.5), empty if the key has none.
func (k *Key) ID() string { return k.id }

// Algorithms are the JWS algorithms (RFC 7518 §3.1) the key may verify, sorted.
func (k *Key) Algorithms() []string { return slices.Sorted(maps.Keys(k.verifiers)) }

// pkcs1Hashes are those of RSASSA-PKCS1-v1_5 (RFC 7518 §3.3).
var pkcs1Hashes = map[string]crypto.Hash{"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512}

// pssHashes are those of RSASSA-PSS (RFC 7518 §3.5).
var pssHashes = map[string]crypto.Hash{"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512}

// verify verifies a signature. RSA goes to the standard library directly: it is
// most in use, and that saves a sixth of what is not arithmetic; and the salt of
// PSS must be as long as the hash, which jwx does not check.
func (k *Key) verify(algorithm string, signingInput, signature []byte) error {
	verifier, ok := k.verifiers[algorithm]
	if !ok { // a KeySource of somebody else's may find any key
		return errors.New("the key is not of the token's algorithm")
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
		return rsa.VerifyPSS(public, hash, digest.Sum(nil), signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return verifier.Verify(signingInput, signature, k.Material)
}

func (k *Key) equal(other *Key) bool {
	if k.id != other.id || !slices.Equal(k.Algorithms(), other.Algorithms()) {
		return false
	}
	public, ok := k.Material.(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(other.Material)
}

func NewKey(id string, material any, algorithms []string) (*Key, error) {
	if len(id) > maxKeyIDBytes {
		return nil, fmt.Errorf("its key ID has %d bytes, more than %d", len(id), maxKeyIDBytes)
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

// NewSecretKey returns a key for the HMAC algorithms that the secret is long
// enough for: HS256 from 32 bytes, HS384 from 48, HS512 from 64 (RFC 7518
// §3.2). A shorter secret is an error, and so is a PEM or JWK text, which is
// public or belongs under `public_key`.
func NewSecretKey(secret []byte) (*Key, error) {
	if LooksLikeKey(secret) {
		return nil, errors.New("the secret is a PEM, DER, SSH or JWK key; a public key belongs under `public_key`, and as a secret anybody could sign with it")
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
		return nil, fmt.Errorf("the secret has %d bytes; HS256 needs at least 32, HS384 48, HS512 64: %s", len(secret), SecretBytesHint)
	}
	return NewKey("", bytes.Clone(secret), algorithms)
}

func LooksLikeKey(secret []byte) bool {
	text := bytes.TrimSpace(secret)
	if bytes.Contains(text, []byte("-----BEGIN")) || bytes.HasPrefix(text, []byte("ssh-")) ||
		bytes.HasPrefix(text, []byte("{")) && bytes.Contains(text, []byte(`"kty"`)) {
		return true
	}
	der, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		der = secret
	}
	for _, kind := range []string{"PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE"} {
		if _, err := parseDER(kind, der); err == nil {
			return true
		}
	}
	return false
}

// ParsePublicKeys reads a public key as people have it: PEM (SPKI, PKCS#1 or
// a certificate, whose validity is not checked), its lines indented, joined by
// blanks or by "\n" spelled out; the same without its BEGIN and END lines; a
// JWK (RFC 7517 §4) or a JWK set (§5). Only a set yields several keys.
func ParsePublicKeys(text string) ([]*Key, error) {
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(text, "{"):
		return parseJWKText([]byte(text))
	case strings.Contains(text, "-----BEGIN"):
		return parsePEM(text)
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil || len(der) == 0 {
		return nil, errors.New("neither PEM (-----BEGIN PUBLIC KEY-----) nor a JWK ({\"kty\": …}) nor base64 of a public key")
	}
	return parseDER("PUBLIC KEY", der)
}

func parseJWKText(text []byte) ([]*Key, error) {
	var set struct {
		Keys jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, JSONError(err)
	}
	if set.Keys == nil {
		key, err := ParseJWK(text)
		return []*Key{key}, err
	}
	keys, unused, err := ParseKeySet(text)
	if err == nil && len(unused) > 0 {
		err = unused[0]
	}
	return keys, err
}

var pemBlock = regexp.MustCompile(`(?s)-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END ([A-Z0-9 ]+)-----`)

func parsePEM(text string) ([]*Key, error) {
	block, err := DecodePEM(text)
	if strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return nil, errors.New("it is a private key; give only the public part (`openssl pkey -in key.pem -pubout`) and keep the private one away from this server")
	}
	if err != nil {
		return nil, err
	}
	return parseDER(block.Type, block.Bytes)
}

// DecodePEM returns the one block of a PEM, with its type also where its content
// cannot be read. It is laxer than encoding/pem in white space alone: a key in an
// environment variable or an indented Caddyfile has seldom kept its lines. The
// curve that openssl writes before a key stands in the key as well.
func DecodePEM(text string) (block pem.Block, err error) {
	blocks := slices.DeleteFunc(pemBlock.FindAllStringSubmatch(text, -1), func(block []string) bool { return block[1] == "EC PARAMETERS" })
	if len(blocks) != 1 {
		return block, fmt.Errorf("it holds %d whole PEM blocks, not one; of a certificate chain give only the leaf", len(blocks))
	}
	block.Type = blocks[0][1]
	body := strings.Join(strings.Fields(strings.ReplaceAll(blocks[0][2], `\n`, "\n")), "")
	if block.Bytes, err = base64.StdEncoding.DecodeString(body); err != nil {
		err = fmt.Errorf("the %s block is not base64", block.Type)
	}
	return block, err
}

func parseDER(kind string, der []byte) ([]*Key, error) {
	var material any
	var err error
	switch kind {
	case "PUBLIC KEY":
		material, err = x509.ParsePKIXPublicKey(der)
	case "RSA PUBLIC KEY":
		material, err = x509.ParsePKCS1PublicKey(der)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(der); err == nil {
			material = certificate.PublicKey
		}
	default:
		return nil, fmt.Errorf("a %s block is no public key; PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE is", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("the %s does not parse: %w", strings.ToLower(kind), err)
	}
	algorithms, err := AlgorithmsFor(material)
	if err != nil {
		return nil, err
	}
	key, err := NewKey("", material, algorithms)
	return []*Key{key}, err
}

// ParseJWK reads one public JWK and refuses what must not verify tokens: a
// private or symmetric key, a weak one, one whose `use`, `key_ops` or `alg`
// forbid it (RFC 7517 §4.2 to §4.4).
func ParseJWK(text []byte) (*Key, error) {
	parsed, err := jwk.ParseKey(text)
	if err != nil {
		return nil, errors.New("it does not parse as a JWK")
	}
	switch parsed.(type) {
	case jwk.SymmetricKey:
		return nil, errors.New("it is symmetric (kty oct), and a secret does not belong in a public key set; give it as `secret`")
	case jwk.RSAPrivateKey, jwk.ECDSAPrivateKey, jwk.OKPPrivateKey:
		return nil, errors.New("it is a private key; give only its public part")
	}
	if use := parsed.KeyUsage(); use != "" && use != string(jwk.ForSignature) {
		return nil, fmt.Errorf("its use is %s, not sig", refusal.Quoted(use))
	}
	if operations := parsed.KeyOps(); len(operations) > 0 && !slices.Contains(operations, jwk.KeyOpVerify) {
		return nil, errors.New("its key_ops lack verify")
	}
	var material any
	if err := parsed.Raw(&material); err != nil {
		return nil, errors.New("its numbers do not make a key")
	}
	algorithms, err := AlgorithmsFor(material)
	if err != nil {
		return nil, err
	}
	if own := parsed.Algorithm().String(); own != "" {
		if !slices.Contains(algorithms, own) {
			return nil, fmt.Errorf("its alg is %s, and its type allows %s", refusal.Quoted(own), strings.Join(algorithms, ", "))
		}
		algorithms = []string{own}
	}
	return NewKey(parsed.KeyID(), material, algorithms)
}

// ParseKeySet reads a JWK set (RFC 7517 §5). Keys that must not be used are
// left out, each with the error that says why; so are all keys that share a
// key ID, since nothing tells which of them is meant.
func ParseKeySet(text []byte) (keys []*Key, unused []error, err error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// What is wrong within one key costs that key, which is read strictly below.
	err = json.Unmarshal(text, &set, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err == nil {
		err = uniqueMembers(text)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("not a JWK set: %w", JSONError(err))
	}
	holders := make(map[string]int)
	for i, member := range set.Keys {
		key, err := ParseJWK(member)
		if err != nil {
			unused = append(unused, fmt.Errorf("key %d%s: %w", i, memberID(member), err))
			continue
		}
		holders[key.id]++
		keys = append(keys, key)
	}
	for _, id := range slices.Sorted(maps.Keys(holders)) {
		if number := holders[id]; id != "" && number > 1 {
			unused = append(unused, fmt.Errorf("key ID %s is shared by %d keys", refusal.Quoted(id), number))
		}
	}
	if number := holders[""]; number > MaxKeysWithoutID {
		unused = append(unused, fmt.Errorf("%d keys have no key ID, more than %d: which of them a token needs can only be tried", number, MaxKeysWithoutID))
	}
	keys = slices.DeleteFunc(keys, func(k *Key) bool {
		return k.id != "" && holders[k.id] > 1 || k.id == "" && holders[""] > MaxKeysWithoutID
	})
	if len(set.Keys) == 0 {
		return nil, nil, errors.New("the JWK set has no keys")
	}
	if len(keys) == 0 {
		return nil, unused, fmt.Errorf("no usable key among the %d of the JWK set: %w", len(set.Keys), errors.Join(unused...))
	}
	return keys, unused, nil
}

// uniqueMembers refuses an object two of whose own members have one name.
func uniqueMembers(text []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	_, err := d.ReadToken()
	seen := make(map[string]bool)
	for err == nil && d.PeekKind() != '}' {
		var name jsontext.Token
		if name, err = d.ReadToken(); err != nil {
			break
		}
		if seen[name.String()] {
			return &jsontext.SyntacticError{ByteOffset: d.InputOffset(), Err: jsontext.ErrDuplicateName}
		}
		seen[name.String()] = true
		err = d.SkipValue()
	}
	return err
}

func memberID(member []byte) string {
	var named struct {
		ID string `json:"kid"`
	}
	if err := json.Unmarshal(member, &named); err != nil || named.ID == "" {
		return ""
	}
	return " (kid " + refusal.Quoted(named.ID) + ")"
}

// AlgorithmsFor names the algorithms that a public key may verify, or says
// why it must not verify anything.
func AlgorithmsFor(material any) ([]string, error) {
	switch public := material.(type) {
	case *rsa.PublicKey:
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, checkRSA(public)
	case *ecdsa.PublicKey:
		return ecdsaAlgorithms(public)
	case ed25519.PublicKey:
		return []string{"EdDSA"}, checkEd25519(public)
	}
	return nil, fmt.Errorf("a %T verifies no signature; RSA, EC and Ed25519 keys do", material)
}

func ecdsaAlgorithms(public *ecdsa.PublicKey) ([]string, error) {
	curve := public.Curve.Params().Name
	algorithm := map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[curve]
	if curve == "secp256k1" { // known only to a build with the tag jwx_es256k
		return []string{"ES256K"}, nil
	}
	if algorithm == "" {
		return nil, fmt.Errorf("its curve %s has no JWS algorithm; P-256, P-384 and P-521 have", curve)
	}
	if _, err := public.ECDH(); err != nil {
		return nil, fmt.Errorf("its point is not on its curve %s", curve)
	}
	return []string{algorithm}, nil
}

// checkEd25519 refuses a key of small order, under which anybody can sign: eight
// times its point is the neutral one (RFC 8032 §5.1.7, RFC 7748 §6.1).
func checkEd25519(public ed25519.PublicKey) error {
	if len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("it is an Ed25519 key of %d bytes; one has %d", len(public), ed25519.PublicKeySize)
	}
	point, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		return errors.New("its point is not on the curve Ed25519")
	}
	if new(edwards25519.Point).MultByCofactor(point).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return errors.New("its Ed25519 point is of small order, so anybody could sign")
	}
	return nil
}

func checkRSA(public *rsa.PublicKey) error {
	switch bits := public.N.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return fmt.Errorf("it is an RSA key of %d bits; %d to %d are accepted", bits, minRSABits, maxRSABits)
	case public.E < 3 || public.E%2 == 0:
		return fmt.Errorf("its RSA exponent is %d; it must be odd and at least 3", public.E)
	case hasROCA(public.N):
		return errors.New("it was made by a chip with the ROCA weakness (CVE-2017-15361) and can be factored")
	}
	return nil
}

// hasROCA tests a modulus for the fingerprint of Nemec, Sys, Svenda, Klinec
// and Matyas, "The Return of Coppersmith's Attack" (CCS 2017), §2.1: modulo
// each of these small primes it is a power of 65537. A good key passes for
// one with a chance of about 2⁻²⁸.
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

// KeySet is a set of keys that does not change.
type KeySet struct {
	Keys  []*Key
	ByID  map[string]*Key
	byAlg map[string][]*Key // Keys that verify an algorithm
	noID  map[string][]*Key // of these, the ones without a key ID
}

// NewKeySet returns a set of the keys. A key ID may stand only once.
func NewKeySet(keys ...*Key) (*KeySet, error) {
	s := &KeySet{Keys: keys, ByID: make(map[string]*Key), byAlg: make(map[string][]*Key), noID: make(map[string][]*Key)}
	for _, key := range keys {
		if key.id != "" {
			if s.ByID[key.id] != nil {
				return nil, fmt.Errorf("two keys have the key ID %q", key.id)
			}
			s.ByID[key.id] = key
		}
		for algorithm := range key.verifiers {
			s.byAlg[algorithm] = append(s.byAlg[algorithm], key)
			if key.id == "" {
				s.noID[algorithm] = append(s.noID[algorithm], key)
			}
		}
	}
	return s, nil
}

// Match returns the keys that may have signed a token with this algorithm and
// key ID: the one of that ID or, since PEM keys and secrets have none, those
// without one; for a token without key ID, every key of that algorithm.
func (s *KeySet) Match(algorithm, id string) []*Key {
	if id == "" {
		return s.byAlg[algorithm]
	}
	if key := s.ByID[id]; key != nil {
		if key.verifiers[algorithm] == nil {
			return nil
		}
		return []*Key{key}
	}
	return s.noID[algorithm]
}

// Same returns the key of the set that equals the given one.
func (s *KeySet) Same(key *Key) *Key {
	if known := s.ByID[key.id]; known != nil && known.equal(key) {
		return known
	}
	if key.id == "" {
		for _, known := range s.Keys {
			if known.equal(key) {
				return known
			}
		}
	}
	return nil
}

// Algorithms are all that the keys of the set verify.
func (s *KeySet) Algorithms() []string { return slices.Sorted(maps.Keys(s.byAlg)) }
