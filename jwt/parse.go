package jwt

import (
	"bytes"
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
// §4) or a JWK set (§5). Only a set yields several keys.
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
		return nil, errors.New(
			"neither PEM (-----BEGIN PUBLIC KEY-----) nor a JWK ({\"kty\": …}) nor base64 of a public key",
		)
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
		return nil, errors.New("it is a private key; use only the public part (`openssl pkey -in key.pem -pubout`) " +
			"and keep the private key away from this server")
	}
	if err != nil {
		return nil, err
	}
	return parseDER(block.Type, block.Bytes)
}

// DecodePEM returns the single block of a PEM, with its type even if its content is
// malformed. It differs from encoding/pem only in accepting any white space, because keys
// in environment variables or indented Caddyfiles often lose their line breaks. The EC
// parameters that openssl writes before a key are ignored: the key itself names the curve.
func DecodePEM(text string) (block pem.Block, err error) {
	blocks := slices.DeleteFunc(pemBlock.FindAllStringSubmatch(text, -1), func(block []string) bool {
		return block[1] == "EC PARAMETERS"
	})
	if len(blocks) != 1 {
		return block, fmt.Errorf(
			"it contains %d complete PEM blocks, not one; of a certificate chain, use only the leaf certificate",
			len(blocks),
		)
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
		return nil, fmt.Errorf("a %s block is not a public key; use PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("the %s is malformed: %w", strings.ToLower(kind), err)
	}
	key, err := NewKey("", material)
	if err != nil {
		return nil, err
	}
	return []*Key{key}, nil
}

// ParseJWK parses a single public JWK. It rejects a private, symmetric or weak key, and a
// key whose `use`, `key_ops` or `alg` do not allow verification (RFC 7517 §4.2 to §4.4).
func ParseJWK(text []byte) (*Key, error) {
	parsed, err := jwk.ParseKey(text)
	if err != nil {
		return nil, errors.New("it is not a valid JWK")
	}
	switch parsed.(type) {
	case jwk.SymmetricKey:
		return nil, errors.New(
			"it is symmetric (kty oct), and a secret does not belong in a public key set; set it with `secret`",
		)
	case jwk.RSAPrivateKey, jwk.ECDSAPrivateKey, jwk.OKPPrivateKey:
		return nil, errors.New("it is a private key; use only its public part")
	}
	if use := parsed.KeyUsage(); use != "" && use != string(jwk.ForSignature) {
		return nil, fmt.Errorf("its use is %s, not sig", refusal.Quoted(use))
	}
	if operations := parsed.KeyOps(); len(operations) > 0 && !slices.Contains(operations, jwk.KeyOpVerify) {
		return nil, errors.New("its key_ops do not include verify")
	}
	var material any
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
		algorithms = []string{own}
	}
	return newKey(parsed.KeyID(), material, algorithms)
}

// ParseKeySet parses a JWK set (RFC 7517 §5). Keys that must not be used are omitted, and
// unused has an error with the reason for each. If several keys share a key ID, all of them
// are omitted, because a token cannot select one of them.
func ParseKeySet(text []byte) (keys []*Key, unused []error, err error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// An error within one key only affects that key, which is parsed strictly below.
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
	if number := holders[""]; number > maxKeysWithoutID {
		unused = append(unused, fmt.Errorf(
			"%d keys have no key ID, more than %d; each of them would have to be tried for every token",
			number, maxKeysWithoutID,
		))
	}
	keys = slices.DeleteFunc(keys, func(k *Key) bool {
		return k.id != "" && holders[k.id] > 1 || k.id == "" && holders[""] > maxKeysWithoutID
	})
	if len(set.Keys) == 0 {
		return nil, nil, errors.New("the JWK set has no keys")
	}
	if len(keys) == 0 {
		return nil, unused, fmt.Errorf("no key of the JWK set is usable: %w", errors.Join(unused...))
	}
	return keys, unused, nil
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

func memberID(member []byte) string {
	var named struct {
		ID string `json:"kid"`
	}
	if err := json.Unmarshal(member, &named); err != nil || named.ID == "" {
		return ""
	}
	return " (kid " + refusal.Quoted(named.ID) + ")"
}
