package jwt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// The default and the maximum leeway of this module's handlers. A [Verifier] has no leeway by
// default, and no maximum.
const (
	DefaultLeeway = 30 * time.Second
	MaxLeeway     = 5 * time.Minute
)

// KeySource finds the keys that may have signed a token.
type KeySource interface {
	// Find returns no keys if it has none for the token, and a *[refusal.Error] if it cannot
	// know. Each of the keys is tried. The algorithm was checked against the issuer's.
	Find(ctx context.Context, hint KeyHint) ([]*Key, error)
}

// Refetcher is a KeySource that may have to wait for its keys. Its Find does not wait.
type Refetcher interface {
	// FindAgain returns keys that Find did not, if the keys of Find did not verify the
	// signature. It may fetch keys, and wait for them until ctx ends. It returns a
	// *[refusal.Error] if it cannot know.
	FindAgain(ctx context.Context, hint KeyHint, tried []*Key) ([]*Key, error)
}

// Issuer is an issuer whose tokens are accepted, with its own keys.
type Issuer struct {
	// Name is the required value of the `iss` claim, compared exactly (RFC 7519 §4.1.1). If
	// Name is empty, `iss` is not checked, and there can be no other issuer.
	Name string
	// MultiTenant means that one segment of the path of Name is `*`, as in
	// https://id.example.com/*/v2.0, for the tenants of a provider that signs the tokens of all of
	// them with the same keys. `*` is any segment of letters, digits and - . _ ~, and `tid`, if a
	// token has it, must be equal to it. The exact name of another issuer has precedence, so its
	// tokens are only verified with its own keys.
	MultiTenant bool
	// Tenants are what the `*` can be. Default: any tenant.
	Tenants []string
	// Keys are searched in order for the key of a token.
	Keys []KeySource
	// Algorithms (RFC 7518 §3.1) that are accepted. Required. Each key only verifies those
	// that it was made for. EdDSA and Ed25519 (RFC 9864) are the same.
	Algorithms []string
	// Audience lists the accepted audiences: the `aud` claim must contain one of them (RFC
	// 7519 §4.1.3). Default: `aud` is not checked.
	Audience []string
	// AudienceClaims are the paths of the claims that may have the audience. The first one that
	// is present decides. Default: `aud`.
	AudienceClaims []string
	// TokenTypes are the accepted values of `typ` in the header, compared without case and
	// without "application/" (RFC 7515 §4.1.9), such as at+jwt of RFC 9068. If they are set, a
	// token without `typ` is refused. Default: omitted, JWT, at+jwt or JOSE, which says nothing
	// about the kind of token.
	TokenTypes []string

	// Revoked are sessions and subjects whose tokens are refused. Default: none.
	Revoked *Revocations
}

// VerifierConfig configures which tokens a [Verifier] accepts.
type VerifierConfig struct {
	// Issuers whose tokens are accepted. Required; each Name must be unique.
	Issuers []Issuer
	// Leeway is the clock difference allowed in exp, nbf and iat. Default: 0.
	Leeway time.Duration
	// AllowMissingExpiry accepts tokens without `exp`. Such a token cannot be revoked
	// except by replacing its key.
	AllowMissingExpiry bool
	// UserID lists the paths of the claims that may name the user. The first one that is
	// present and not empty is used. A token without any of them is rejected. Default:
	// `sub`.
	UserID []string
}

// Verifier verifies JWTs (RFC 7519) in the compact serialization of RFC 7515, by the rules
// of RFC 8725. It is independent of HTTP and safe for concurrent use.
type Verifier struct {
	issuers map[string]*Issuer
	tenants []*Issuer // with a `*` in their names
	anyone  *Issuer
	leeway  float64 // seconds
	config  VerifierConfig

	// lastHeader caches the last header, because an issuer signs most tokens with the same
	// one.
	lastHeader atomic.Pointer[readHeader]
}

// NewVerifier returns a Verifier, or an error if the configuration is not valid.
func NewVerifier(config VerifierConfig) (*Verifier, error) {
	v := &Verifier{issuers: make(map[string]*Issuer), leeway: config.Leeway.Seconds(), config: config}
	if len(config.UserID) == 0 {
		v.config.UserID = defaultUserID
	}
	for i := range config.Issuers {
		issuer := &config.Issuers[i]
		if err := issuer.CheckName(); err != nil {
			return nil, fmt.Errorf("issuer %q: %w", issuer.Name, err)
		}
		switch {
		case len(issuer.Keys) == 0 || len(issuer.Algorithms) == 0:
			return nil, fmt.Errorf("issuer %q has no keys or no algorithms", issuer.Name)
		case issuer.Name == "" && len(config.Issuers) > 1:
			return nil, errors.New("there are several issuers (accounts count as one), and one of them has no name; " +
				"each needs a name, because the iss of a token selects its issuer")
		case issuer.Name == "":
			v.anyone = issuer
		case v.issuers[issuer.Name] != nil:
			return nil, fmt.Errorf("issuer %q is specified twice", issuer.Name)
		case issuer.MultiTenant:
			for _, other := range v.tenants {
				if overlap(issuer, other) {
					return nil, fmt.Errorf("issuers %q and %q can be the same iss, so it would not select the keys; "+
						"list different `tenants` for them, or write one of them without `*`", other.Name, issuer.Name)
				}
			}
			v.tenants = append(v.tenants, issuer)
		default:
			v.issuers[issuer.Name] = issuer
		}
	}
	if len(config.Issuers) == 0 {
		return nil, errors.New("no issuer, so every token would be rejected")
	}
	return v, nil
}

// Verify checks a token at the time now. It returns its content, or a *[refusal.Error] that
// names the failed check. It blocks only while keys are fetched, and not after ctx is done.
func (v *Verifier) Verify(ctx context.Context, token string, now time.Time) (*Token, error) {
	issuer, claims, key, err := v.authenticate(ctx, token, func(typ string, issuer *Issuer) error {
		return checkType(typ, issuer.TokenTypes)
	})
	if err != nil {
		return nil, err
	}
	return v.check(issuer, claims, key, now)
}

// VerifyLogout verifies a logout token (OpenID Connect Back-Channel Logout 1.0 §2.6) by the
// keys, the name and the audience of its issuer. It returns its claims, whose `events`, `sid`
// and `sub` the caller must check, or a *[refusal.Error].
func (v *Verifier) VerifyLogout(ctx context.Context, token string, now time.Time) (Claims, error) {
	issuer, claims, _, err := v.authenticate(ctx, token, func(typ string, _ *Issuer) error {
		switch mediaType(typ) {
		case "", "jwt", "logout+jwt": // §2.4
			return nil
		}
		return refusal.New(refusal.TokenType, "typ is %s; expected logout+jwt", refusal.Quoted(typ))
	})
	if err != nil {
		return nil, err
	}
	if _, _, err := v.checkTimes(claims, now); err != nil {
		return nil, err
	}
	return claims, checkAudience(claims, nil, issuer.Audience)
}

// authenticate returns the claims of a token that an issuer has signed.
func (v *Verifier) authenticate(
	ctx context.Context, token string, checkType func(typ string, issuer *Issuer) error,
) (issuer *Issuer, claims Claims, key *Key, err error) {
	scratch := scratches.Get().(*[]byte)
	defer scratches.Put(scratch)
	parts, err := splitCompact(token, scratch)
	if err != nil {
		return nil, nil, nil, err
	}
	header, err := v.header(parts.header)
	if err != nil {
		return nil, nil, nil, err
	}
	claims, err = ParseClaims(parts.payload)
	if err != nil {
		return nil, nil, nil, refusal.New(refusal.Claims, "payload: %v", err)
	}
	if err := checkNames(claims, registeredClaims); err != nil {
		return nil, nil, nil, refusal.New(refusal.Claims, "payload: %v", err)
	}
	issuer, err = v.issuer(claims)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := issuer.checkAlgorithm(header); err != nil {
		return nil, nil, nil, err
	}
	if err := checkType(header.Type, issuer); err != nil {
		return nil, nil, nil, err
	}
	key, err = verifySignature(ctx, issuer, header, parts)
	if err != nil {
		return nil, nil, nil, err
	}
	return issuer, claims, key, nil
}

// VerifySignature returns the payload of a token that is signed with a key of the source and one
// of the algorithms, which it also returns, or a *[refusal.Error]. It checks nothing else, neither
// the type of the token nor any claim. Use [Verifier.Verify] for access tokens.
func VerifySignature(
	ctx context.Context, token string, keys KeySource, algorithms []string,
) (payload []byte, algorithm string, err error) {
	parts, err := splitCompact(token, new([]byte))
	if err != nil {
		return nil, "", err
	}
	header, err := decodeHeader(parts.header)
	if err != nil {
		return nil, "", err
	}
	issuer := &Issuer{Keys: []KeySource{keys}, Algorithms: algorithms}
	if err := issuer.checkAlgorithm(&header); err != nil {
		return nil, "", err
	}
	if _, err := verifySignature(ctx, issuer, &header, parts); err != nil {
		return nil, "", err
	}
	return parts.payload, header.Algorithm, nil
}

func (i *Issuer) checkAlgorithm(header *joseHeader) error {
	if slices.Contains(i.Algorithms, header.Algorithm) || slices.Contains(edwardsAlgorithms, header.Algorithm) &&
		slices.ContainsFunc(edwardsAlgorithms, func(name string) bool { return slices.Contains(i.Algorithms, name) }) {
		return nil
	}
	return refusal.New(
		refusal.Algorithm, "alg is %s; accepted: %s",
		refusal.Quoted(header.Algorithm), strings.Join(i.Algorithms, ", "),
	)
}

// check applies the rules for claims, which do not depend on how they were authenticated.
func (v *Verifier) check(issuer *Issuer, claims Claims, key *Key, now time.Time) (*Token, error) {
	var err error
	verified := &Token{Claims: claims, key: key, issuer: issuer}
	if err := issuer.checkTenant(claims); err != nil {
		return nil, err
	}
	if verified.begins, verified.expiry, err = v.checkTimes(claims, now); err != nil {
		return nil, err
	}
	if err := checkAudience(claims, issuer.AudienceClaims, issuer.Audience); err != nil {
		return nil, err
	}
	if claims["cnf"] != nil { // RFC 9449 §7.2, RFC 8705 §3: a thief must not be able to use it
		return nil, refusal.New(refusal.Bound, "cnf is set, so a bearer token does not prove who sends it; "+
			"let the issuer issue tokens without DPoP and certificates for this site")
	}
	if verified.UserID, err = v.userID(claims); err != nil {
		return nil, err
	}
	verified.boxedID = verified.UserID
	if issuer.Revoked != nil {
		verified.session.of(claims, issuer.Revoked)
		if verified.session.ended() {
			return nil, refusal.New(
				refusal.Revoked, "sid is %s, sub %s",
				refusal.Quoted(verified.session.sessionID), refusal.Quoted(verified.session.subject),
			)
		}
	}
	return verified, nil
}

// CheckClaims checks claims that were authenticated otherwise than by a signature, such as by
// an introspection endpoint (RFC 7662 §2.2), like those of a JWT. It only uses the name, the
// tenants, the audience and the revocations of the issuer. An absent `iss` is accepted, unless the
// issuer is multi-tenant. Of the issuers in the config, it only uses the names: a tenant cannot have one
// of them.
func CheckClaims(config VerifierConfig, issuer *Issuer, claims Claims, now time.Time) (*Token, error) {
	if err := checkNames(claims, registeredClaims); err != nil {
		return nil, refusal.New(refusal.Claims, "%v", err)
	}
	if iss, present := claims["iss"]; issuer.Name != "" && (present || issuer.MultiTenant) {
		name, _ := iss.(string)
		if !issuer.Matches(name) || slices.ContainsFunc(config.Issuers, func(other Issuer) bool {
			return other.Name == name && name != issuer.Name
		}) {
			return nil, refusal.New(refusal.Issuer, "iss is %s, not %q", refusal.Quoted(ClaimText(iss)), issuer.Name)
		}
	}
	if len(config.UserID) == 0 {
		config.UserID = defaultUserID
	}
	v := Verifier{leeway: config.Leeway.Seconds(), config: config}
	return v.check(issuer, claims, noKey, now)
}

var defaultUserID = []string{"sub"}

var registeredClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "events", "cnf"}

func (v *Verifier) issuer(claims Claims) (*Issuer, error) {
	value, present := claims["iss"]
	name, isString := value.(string)
	if present && !isString {
		return nil, refusal.New(refusal.Issuer, "iss is not a string")
	}
	if v.anyone != nil {
		return v.anyone, nil
	}
	if issuer := v.issuers[name]; issuer != nil {
		return issuer, nil
	}
	for _, issuer := range v.tenants {
		if issuer.Matches(name) {
			return issuer, nil
		}
	}
	if !present {
		return nil, refusal.New(refusal.Issuer, "iss is missing")
	}
	return nil, refusal.New(refusal.Issuer, "iss is %s, which is not an accepted issuer", refusal.Quoted(name))
}

func verifySignature(ctx context.Context, issuer *Issuer, header *joseHeader, parts compact) (*Key, error) {
	tried := 0
	verifying := func(keys []*Key) *Key {
		for _, key := range keys {
			tried++
			if key.verify(header.Algorithm, parts.signingInput, parts.signature) == nil {
				return key
			}
		}
		return nil
	}
	for _, source := range issuer.Keys {
		keys, err := source.Find(ctx, header.hint)
		if err != nil {
			return nil, err
		}
		if key := verifying(keys); key != nil {
			return key, nil
		}
		if again, ok := source.(Refetcher); ok {
			others, err := again.FindAgain(ctx, header.hint, keys)
			if err != nil {
				return nil, err
			}
			if key := verifying(others); key != nil {
				return key, nil
			}
		}
	}
	return nil, noKeyVerifies(issuer, header, tried)
}

// noKeyVerifies is the refusal of a token that none of the tried keys has signed.
func noKeyVerifies(issuer *Issuer, header *joseHeader, tried int) *refusal.Error {
	switch kid := refusal.Quoted(header.KeyID); {
	case tried == 0:
		return refusal.New(
			refusal.UnknownKey, "issuer %q has no %s key for kid %s", issuer.Name, header.Algorithm, kid,
		)
	case header.KeyID == "" && tried > 1:
		return refusal.New(
			refusal.Signature, "none of the %d %s keys of issuer %q that were tried verifies it; it has no kid",
			tried, header.Algorithm, issuer.Name,
		)
	default:
		return refusal.New(
			refusal.Signature, "no %s key of issuer %q verifies it; kid is %s", header.Algorithm, issuer.Name, kid,
		)
	}
}

// checkTimes checks exp, nbf and iat (RFC 7519 §4.1.4 to §4.1.6). It returns when the token
// becomes valid and when it expires, in seconds since 1970, leeway included.
func (v *Verifier) checkTimes(claims Claims, now time.Time) (begins, expiry float64, err error) {
	at := seconds(now)
	exp, present := claims["exp"]
	switch date, ok := numericDate(exp); {
	case !present && !v.config.AllowMissingExpiry:
		return 0, 0, refusal.New(refusal.MissingExpiry, "exp is missing")
	case !present:
	case !ok:
		return 0, 0, refusal.New(refusal.Claims, "exp is not a finite number")
	case date > lastSecond:
		return 0, 0, notSeconds("exp", date)
	case date+v.leeway <= at:
		return 0, 0, refusal.New(refusal.Expired, "exp was %.0f s ago; the leeway is %.0f s", at-date, v.leeway)
	default:
		expiry = date + v.leeway
	}
	for _, name := range []string{"nbf", "iat"} {
		value, present := claims[name]
		if !present {
			continue
		}
		switch date, ok := numericDate(value); {
		case !ok:
			return 0, 0, refusal.New(refusal.Claims, "%s is not a finite number", name)
		case date > lastSecond:
			return 0, 0, notSeconds(name, date)
		case date-v.leeway > at:
			return 0, 0, refusal.New(
				refusal.NotYetValid, "%s is %.0f s in the future; the leeway is %.0f s", name, date-at, v.leeway,
			)
		default:
			begins = max(begins, date-v.leeway)
		}
	}
	return begins, expiry, nil
}

func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }

// notSeconds is the refusal of a date after the year 9999, which is a mistake: as an `exp` it
// would never end, and a token that expired long ago would be accepted.
func notSeconds(name string, date float64) *refusal.Error {
	what := "in milliseconds"
	if date > 1000*lastSecond {
		what = "after the year 9999"
	}
	return refusal.New(refusal.Claims, "%s is %s; it must be in seconds (RFC 7519 §2)", name, what)
}

var defaultAudienceClaims = []string{"aud"}

// checkAudience checks the first of the claims that is present, by default `aud`.
func checkAudience(claims Claims, paths, accepted []string) error {
	if len(paths) == 0 {
		if value, present := claims["aud"]; present {
			return meantFor("aud", value, accepted)
		}
		paths = defaultAudienceClaims // for the error
	}
	for _, path := range paths {
		if value, present := claims.Lookup(path); present {
			return meantFor(path, value, accepted)
		}
	}
	if len(accepted) > 0 {
		return refusal.New(
			refusal.Audience, "%s is missing; expected one of %q", strings.Join(paths, " or "), accepted,
		)
	}
	return nil
}

func meantFor(name string, value any, accepted []string) error {
	list, isList := value.(List)
	if !isList {
		list = List{value}
	}
	meant := len(accepted) == 0
	for _, element := range list {
		audience, ok := element.(string)
		if !ok || audience == "" {
			return refusal.New(refusal.Audience, "%s is neither a string nor a list of non-empty strings", name)
		}
		meant = meant || slices.Contains(accepted, audience)
	}
	switch {
	case len(list) == 0:
		return refusal.New(refusal.Audience, "%s is empty", name)
	case !meant:
		return refusal.New(
			refusal.Audience, "%s is %s; expected one of %q", name, refusal.Quoted(list.String()), accepted,
		)
	}
	return nil
}

var errSubject = refusal.New(refusal.Claims, "sub is not a string")

// userID returns the name of the user. `sub` must be a string (RFC 7519 §4.1.2), or may be a
// number if it does not name the user. userID also rejects tokens with `events`, which marks a
// security event token or logout token (RFC 8417 §2.2).
func (v *Verifier) userID(claims Claims) (string, error) {
	sub, present := claims["sub"]
	_, isText := sub.(string)
	if present && !isText {
		if _, isNumber := numericDate(sub); !isNumber {
			return "", errSubject
		}
	}
	if _, present := claims["events"]; present {
		return "", refusal.New(
			refusal.TokenType, "it has the claim events, so it is a security event token or a logout token",
		)
	}
	for _, path := range v.config.UserID {
		if path == "sub" && present && !isText {
			return "", errSubject
		}
		value, _ := claims.Lookup(path)
		switch value.(type) {
		case nil, bool, List, Claims:
			continue
		}
		if id := ClaimText(value); id != "" {
			return id, nil
		}
	}
	return "", refusal.New(refusal.UserID, "none of the claims %q is a number or a non-empty string", v.config.UserID)
}
