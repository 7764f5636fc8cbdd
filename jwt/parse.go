package jwt

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// LooksLikeKey reports whether a secret is in fact a public or private key.
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

// ParsePublicKeys parses a public key in any usual form: PEM (SPKI, PKCS#1 or a
// certificate, whose validity is not checked), with lines that may be indented, joined by
// spaces or by a literal "\n"; the same without its BEGIN and END lines; a JWK (RFC 7517
// §4) or a JWK set (§5). A set and several PEM keys, other than a chain of certificates, yield
// several keys.
func ParsePublicKeys(text string) ([]*Key, error) {
	text = strings.TrimSpace(strings.TrimPrefix(text, byteOrderMark))
	switch {
	case strings.HasPrefix(text, "{"), strings.HasPrefix(text, "["):
		return parseJWKText([]byte(text))
	case strings.Contains(text, "-----BEGIN"):
		return parsePEM(text)
	}
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil || len(der) == 0 {
		return nil, errors.New(
			"neither PEM (-----BEGIN PUBLIC KEY-----) nor a JWK ({\"kty\": …}) nor base64 of a public key",
		)
	}
	key, err := parseDER("PUBLIC KEY", der)
	if err != nil {
		return nil, err
	}
	return []*Key{key}, nil
}

func parseJWKText(text []byte) ([]*Key, error) {
	var single struct {
		Type jsontext.Value `json:"kty"`
	}
	if err := json.Unmarshal(text, &single); err != nil && text[0] == '{' {
		return nil, JSONError(err)
	}
	if single.Type != nil {
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

func parsePEM(text string) (keys []*Key, err error) {
	blocks := pemBlocks(text)
	certificates := 0
	for _, encoded := range blocks {
		block, err := encoded.decode()
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, errors.New("it is a private key; use only the public part " +
				"(`openssl pkey -in key.pem -pubout`) and keep the private key away from this server")
		}
		if block.Type == "CERTIFICATE" {
			certificates++
		}
		if err != nil {
			return nil, err
		}
		key, err := parseDER(block.Type, block.Bytes)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if begun := strings.Count(text, "-----BEGIN") - strings.Count(text, "-----BEGIN EC PARAM"); begun != len(blocks) {
		return nil, fmt.Errorf(
			"of its %d PEM blocks, only %d are complete, from BEGIN to END", begun, len(blocks),
		)
	}
	if certificates > 1 { // the key of a CA must not verify tokens
		return nil, fmt.Errorf(
			"it has %d certificates, not one; of a certificate chain, use only the leaf certificate", certificates,
		)
	}
	return keys, nil
}

// pemText is a PEM block that is not decoded.
type pemText struct{ kind, body string }

// pemBlocks returns the blocks of a PEM. The EC parameters that openssl writes before a key
// are omitted: the key itself names the curve.
func pemBlocks(text string) (blocks []pemText) {
	for _, found := range pemBlock.FindAllStringSubmatch(text, -1) {
		if found[1] != "EC PARAMETERS" {
			blocks = append(blocks, pemText{found[1], found[2]})
		}
	}
	return blocks
}

// decode returns the block, with its type even if its content is malformed.
func (t pemText) decode() (block pem.Block, err error) {
	block.Type = t.kind
	body := strings.Join(strings.Fields(strings.ReplaceAll(t.body, `\n`, "\n")), "")
	if block.Bytes, err = base64.StdEncoding.DecodeString(body); err != nil {
		err = fmt.Errorf("the %s block is not base64", block.Type)
	}
	return block, err
}

// DecodePEM returns the single block of a PEM, with its type even if its content is
// malformed. It differs from encoding/pem only in accepting any white space, because keys
// in environment variables or indented Caddyfiles often lose their line breaks.
func DecodePEM(text string) (block pem.Block, err error) {
	blocks := pemBlocks(text)
	if len(blocks) != 1 {
		return block, fmt.Errorf(
			"it contains %d complete PEM blocks, not one; of a certificate chain, use only the leaf certificate",
			len(blocks),
		)
	}
	return blocks[0].decode()
}

func parseDER(kind string, der []byte) (*Key, error) {
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
		return nil, fmt.Errorf("a %s block is not a public key; use PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("the %s is malformed: %w", strings.ToLower(kind), err)
	}
	key, err := NewKey("", material)
	if err != nil {
		return nil, err
	}
	if kind == "CERTIFICATE" {
		key.nameCertificate(der)
	}
	return key, nil
}

// errOtherUse means that a key is not for signatures, as many sets have some beside the others.
var (
	errOtherUse      = errors.New("it is not for signatures of tokens")
	errForEncryption = fmt.Errorf("it is for encryption: %w", errOtherUse)
)

// ParseJWK parses a single public JWK. It rejects a private, symmetric or weak key, and a
// key whose `use`, `key_ops` or `alg` do not allow verification (RFC 7517 §4.2 to §4.4).
func ParseJWK(text []byte) (*Key, error) {
	parsed, err := jwk.ParseKey(text)
	if err != nil {
		return nil, malformedJWK(text)
	}
	switch parsed.(type) {
	case jwk.SymmetricKey:
		return nil, errors.New(
			"it is symmetric (kty oct), and a secret does not belong in a public key set; set it with `secret`",
		)
	case jwk.RSAPrivateKey, jwk.ECDSAPrivateKey, jwk.OKPPrivateKey:
		return nil, errors.New("it is a private key; use only its public part")
	}
	if err := checkUse(parsed); err != nil {
		return nil, err
	}
	var material any
	if of, ok := parsed.(jwk.OKPPublicKey); ok && of.Crv() == jwa.X25519 {
		return nil, fmt.Errorf("its curve is X25519: %w", errForEncryption)
	}
	if err := parsed.Raw(&material); err != nil {
		return nil, errors.New("its parameters are not a valid key")
	}
	algorithms, err := AlgorithmsFor(material)
	if err != nil {
		return nil, err
	}
	if own := parsed.Algorithm().String(); own != "" {
		if !slices.Contains(algorithms, own) {
			return nil, fmt.Errorf(
				"its alg is %s, but its type only allows %s", refusal.Quoted(own), strings.Join(algorithms, ", "),
			)
		}
		if !slices.Contains(edwardsAlgorithms, own) { // which are one algorithm
			algorithms = []string{own}
		}
	}
	key, err := newKey(parsed.KeyID(), material, algorithms)
	if err != nil {
		return nil, err
	}
	key.thumbprint1, key.thumbprint256 = parsed.X509CertThumbprint(), parsed.X509CertThumbprintS256()
	if chain := parsed.X509CertChain(); chain != nil && chain.Len() > 0 {
		leaf, _ := chain.Get(0)
		if der, err := base64.StdEncoding.DecodeString(string(leaf)); err == nil {
			key.nameCertificate(der)
		}
	}
	return key, nil
}

// nameCertificate sets the thumbprints that a token may have of the key's certificate.
func (k *Key) nameCertificate(der []byte) {
	sum1, sum256 := sha1.Sum(der), sha256.Sum256(der) // SHA-1 only selects a key: RFC 7515 §4.1.7
	k.thumbprint1 = cmp.Or(k.thumbprint1, base64.RawURLEncoding.EncodeToString(sum1[:]))
	k.thumbprint256 = cmp.Or(k.thumbprint256, base64.RawURLEncoding.EncodeToString(sum256[:]))
}

// malformedJWK says why a JWK cannot be parsed.
func malformedJWK(text []byte) error {
	var members map[string]jsontext.Value
	if json.Unmarshal(text, &members) != nil {
		return errors.New("it is not a valid JWK")
	}
	texts := make(map[string]string)
	for _, name := range []string{"kty", "use", "alg", "kid", "x5t", "x5t#S256"} {
		if value, there := members[name]; there {
			var word *string
			if json.Unmarshal(value, &word) != nil {
				return fmt.Errorf("its %s is not a string", name)
			}
			if word != nil {
				texts[name] = *word
			}
		}
	}
	for _, name := range []string{"key_ops", "x5c"} {
		var list []string
		if value, there := members[name]; there && json.Unmarshal(value, &list) != nil {
			return fmt.Errorf("its %s is not a list of strings", name)
		}
	}
	switch kind := texts["kty"]; {
	case texts["use"] == "enc":
		return errForEncryption
	case kind == "":
		return errors.New("it is not a JWK: kty is missing")
	case !slices.Contains([]string{"RSA", "EC", "OKP", "oct"}, kind):
		return fmt.Errorf("its kty %s is not known here; RSA, EC and OKP are", refusal.Quoted(kind))
	}
	return errors.New("it is not a valid JWK")
}

// checkUse returns an error if the key is not for verifying signatures.
func checkUse(key jwk.Key) error {
	switch use := key.KeyUsage(); use {
	case "", string(jwk.ForSignature), "jwt-svid": // SPIFFE JWT-SVID §4.1
	case string(jwk.ForEncryption):
		return fmt.Errorf("its use is \"enc\", not sig: %w", errForEncryption)
	case "x509-svid": // beside jwt-svid in a SPIFFE bundle
		return fmt.Errorf("its use is \"x509-svid\", for certificates: %w", errOtherUse)
	default:
		return fmt.Errorf("its use is %s, not sig", refusal.Quoted(use))
	}
	if operations := key.KeyOps(); len(operations) > 0 && !slices.Contains(operations, jwk.KeyOpVerify) {
		if !slices.Contains(operations, jwk.KeyOpSign) {
			return fmt.Errorf("its key_ops do not include verify: %w", errForEncryption)
		}
		return errors.New("its key_ops do not include verify")
	}
	if _, ok := key.Algorithm().(jwa.KeyEncryptionAlgorithm); ok {
		return fmt.Errorf("its alg is %s: %w", refusal.Quoted(key.Algorithm().String()), errForEncryption)
	}
	return nil
}

// ParseKeySet parses a JWK set (RFC 7517 §5), a single JWK, or an object of PEM certificates
// by key ID, as Google also publishes its keys. Keys that must not be used are omitted, and
// unused has an error with the reason for each but those for encryption or certificates, which
// many providers have beside the others. Keys can share a key ID.
func ParseKeySet(text []byte) (keys []*Key, unused []error, err error) {
	text = bytes.TrimPrefix(text, []byte(byteOrderMark))
	var members map[string]jsontext.Value
	// An error within one key only affects that key, which is parsed strictly below.
	err = json.Unmarshal(text, &members, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err == nil {
		err = uniqueMembers(text)
	}
	if err != nil {
		err = JSONError(err)
		if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
			err = errNoKeysMember
		}
		return nil, nil, fmt.Errorf("not a JWK set: %w", err)
	}
	list, err := keysOf(text, members)
	if err != nil {
		return nil, nil, fmt.Errorf("not a JWK set: %w", err)
	}
	others := 0
	for i, member := range list {
		key, err := member.parse()
		if errors.Is(err, errOtherUse) {
			others++
			continue
		}
		if err != nil {
			unused = append(unused, fmt.Errorf("key %d%s: %w", i, member.label(), err))
			continue
		}
		keys = append(keys, key)
	}
	switch {
	case len(list) == 0:
		return nil, nil, errors.New("the JWK set has no keys")
	case others == len(list):
		return nil, nil, errors.New(
			"the keys of the JWK set are all for encryption or certificates, none for signatures",
		)
	case len(keys) == 0:
		return nil, unused, fmt.Errorf("no key of the JWK set is usable: %w", errors.Join(unused...))
	}
	return keys, unused, nil
}

// byteOrderMark may begin a JSON text (RFC 8259 §8.1).
const byteOrderMark = "\ufeff"

var errNoKeysMember = errors.New("it is JSON, but not an object with the member `keys` (RFC 7517 §5)")

// setMember is a key of a set: a JWK, or a PEM with its key ID.
type setMember struct {
	jwk     jsontext.Value
	id, pem string
}

// keysOf returns the keys of a set.
func keysOf(text []byte, members map[string]jsontext.Value) (list []setMember, err error) {
	if keys, ok := members["keys"]; ok {
		var jwks []jsontext.Value
		err := json.Unmarshal(keys, &jwks, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		if err != nil {
			return nil, errors.New("its member `keys` is not a list")
		}
		for _, member := range jwks {
			list = append(list, setMember{jwk: member})
		}
		return list, nil
	}
	if _, ok := members["kty"]; ok {
		return []setMember{{jwk: text}}, nil
	}
	if _, ok := members["jwks_uri"]; ok {
		return nil, errors.New("it is a discovery document; the key set is at its jwks_uri")
	}
	for _, id := range slices.Sorted(maps.Keys(members)) {
		var pem string
		if json.Unmarshal(members[id], &pem) != nil || !strings.Contains(pem, "-----BEGIN") {
			return nil, errNoKeysMember
		}
		list = append(list, setMember{id: id, pem: pem})
	}
	if list == nil {
		return nil, errNoKeysMember
	}
	return list, nil
}

func (m setMember) parse() (*Key, error) {
	if m.pem == "" {
		return ParseJWK(m.jwk)
	}
	keys, err := parsePEM(m.pem)
	switch {
	case err != nil:
		return nil, err
	case len(keys) != 1:
		return nil, fmt.Errorf("it has %d keys, not one", len(keys))
	case len(m.id) > maxKeyIDBytes:
		return nil, longKeyID(m.id)
	}
	keys[0].id = m.id
	return keys[0], nil
}

// label names the key in an error, if it has a key ID.
func (m setMember) label() string {
	named := struct {
		ID string `json:"kid"`
	}{m.id}
	if err := json.Unmarshal(m.jwk, &named); m.pem == "" && err != nil || named.ID == "" {
		return ""
	}
	return " (kid " + refusal.Quoted(named.ID) + ")"
}

// uniqueMembers returns an error if an object has two members of the same name at its top
// level.
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
