package accountstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Flags of authenticator data (WebAuthn §6.1).
const (
	UserPresent    = 1 << 0
	UserVerified   = 1 << 2
	BackupEligible = 1 << 3
	BackupState    = 1 << 4
	attested       = 1 << 6
)

// Passkey is a passkey in software, apart from the library that the accounts use.
type Passkey struct {
	t      testing.TB
	key    *ecdsa.PrivateKey
	ID     []byte
	Party  string // RP ID
	Handle []byte // user handle
	Count  uint32 // of signatures; it grows with each use unless it is 0
	Flags  byte
}

// PasskeyAnswer is what a browser and a passkey answer. Tests of threats change it.
type PasskeyAnswer struct {
	Type, Challenge, Origin string
	CrossOrigin             bool
	Party                   string
	Flags                   byte
	Count                   uint32
	Handle                  []byte
	Algorithm               int8 // COSE, of a new one
	Tampered                bool // a bit of the signature is another one
}

// NewPasskey returns a passkey that does not exist anywhere yet. It verifies its user.
func NewPasskey(t testing.TB) *Passkey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id := make([]byte, 32)
	_, _ = rand.Read(id)
	return &Passkey{t: t, key: key, ID: id, Flags: UserPresent | UserVerified}
}

// Copy is a clone of the passkey.
func (p *Passkey) Copy() *Passkey { other := *p; return &other }

func text(bytes []byte) string { return base64.RawURLEncoding.EncodeToString(bytes) }

func (p *Passkey) bytes(text any) []byte {
	p.t.Helper()
	decoded, err := base64.RawURLEncoding.DecodeString(text.(string))
	if err != nil {
		p.t.Fatal(err)
	}
	return decoded
}

func (p *Passkey) answer(kind, origin string, options map[string]any, change []func(*PasskeyAnswer)) PasskeyAnswer {
	p.t.Helper()
	if p.Count > 0 {
		p.Count++
	}
	a := PasskeyAnswer{
		Type: kind, Challenge: options["challenge"].(string), Origin: origin, Party: p.Party, Flags: p.Flags,
		Count: p.Count, Handle: p.Handle, Algorithm: -7,
	}
	for _, f := range change {
		f(&a)
	}
	return a
}

func (p *Passkey) clientData(a PasskeyAnswer) []byte {
	return []byte(sitetest.Marshal(p.t, sitetest.JSON{
		"type": a.Type, "challenge": a.Challenge, "origin": a.Origin, "crossOrigin": a.CrossOrigin,
	}))
}

func authenticatorData(a PasskeyAnswer, flags byte) []byte {
	party := sha256.Sum256([]byte(a.Party))
	return binary.BigEndian.AppendUint32(append(party[:], a.Flags|flags), a.Count)
}

// Make answers PublicKeyCredentialCreationOptionsJSON.
func (p *Passkey) Make(origin string, options map[string]any, change ...func(*PasskeyAnswer)) sitetest.JSON {
	p.t.Helper()
	p.Party = options["rp"].(map[string]any)["id"].(string)
	p.Handle = p.bytes(options["user"].(map[string]any)["id"])
	a := p.answer("webauthn.create", origin, options, change)
	point, err := p.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		p.t.Fatal(err)
	}
	cose := slices.Concat( // RFC 9053 §7.1.1
		[]byte{0xa5, 1, 2, 3, cborInt(a.Algorithm), 0x20, 1, 0x21, 0x58, 32}, point[1:33],
		[]byte{0x22, 0x58, 32}, point[33:],
	)
	data := slices.Concat(
		authenticatorData(a, attested), make([]byte, 16), []byte{0, byte(len(p.ID))}, p.ID, cose,
	)
	object := slices.Concat( // {"fmt": "none", "attStmt": {}, "authData": …}
		[]byte("\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58"), []byte{byte(len(data))}, data,
	)
	return sitetest.JSON{
		"id": text(p.ID), "rawId": text(p.ID), "type": "public-key", "clientExtensionResults": sitetest.JSON{},
		"response": sitetest.JSON{
			"clientDataJSON": text(p.clientData(a)), "attestationObject": text(object),
			"transports": []string{"internal"},
		},
	}
}

func cborInt(n int8) byte {
	if n < 0 {
		return 0x20 | byte(-1-n)
	}
	return byte(n)
}

// Use answers PublicKeyCredentialRequestOptionsJSON.
func (p *Passkey) Use(origin string, options map[string]any, change ...func(*PasskeyAnswer)) sitetest.JSON {
	p.t.Helper()
	a := p.answer("webauthn.get", origin, options, change)
	client, data := p.clientData(a), authenticatorData(a, 0)
	sum := sha256.Sum256(client)
	signed := sha256.Sum256(append(slices.Clone(data), sum[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, p.key, signed[:])
	if err != nil {
		p.t.Fatal(err)
	}
	if a.Tampered {
		signature[len(signature)-1] ^= 1
	}
	response := sitetest.JSON{
		"clientDataJSON": text(client), "authenticatorData": text(data), "signature": text(signature),
	}
	if len(a.Handle) > 0 {
		response["userHandle"] = text(a.Handle)
	}
	return sitetest.JSON{
		"id": text(p.ID), "rawId": text(p.ID), "type": "public-key", "clientExtensionResults": sitetest.JSON{},
		"response": response,
	}
}

// Options returns the options in an answer.
func Options(t testing.TB, reply sitetest.Reply) map[string]any {
	t.Helper()
	options, ok := reply.JSON(t)["publicKey"].(map[string]any)
	if reply.Status != 200 || !ok {
		t.Fatalf("the options: %d %s", reply.Status, reply.Body)
	}
	return options
}

// WithPasskey adds a passkey to the account of a fresh session, and returns it and its ID.
func WithPasskey(s *sitetest.Site, token string, change ...func(*Passkey)) (*Passkey, string) {
	s.T.Helper()
	own, p := "Authorization: Bearer "+token, NewPasskey(s.T)
	for _, f := range change {
		f(p)
	}
	options := Options(s.T, s.Send("POST", "/auth/passkeys/options", "", own))
	made := s.Post("/auth/passkeys", sitetest.JSON{"name": "Phone", "credential": p.Make(s.URL, options)}, own)
	s.MustAnswer(201, made, "adding a passkey")
	return p, made.JSON(s.T)["id"].(string)
}
