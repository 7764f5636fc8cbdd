package jwt_test

import (
	"context"
	stdjson "encoding/json"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
)

// The fuzz targets check two things for every input: there is no panic, and no token is accepted
// that go-jose, a second library, refuses. Their seeds are in testdata/fuzz, and run with every
// `go test`.

var fuzzNow = time.Unix(1_800_000_000, 0)

func fuzzVerifier(f *testing.F) *jwt.Verifier {
	f.Helper()
	key, err := jwt.NewSecretKey([]byte(sitetest.Secret))
	if err != nil {
		f.Fatal(err)
	}
	set := jwt.NewKeySet(key)
	v, err := jwt.NewVerifier(jwt.VerifierConfig{
		Issuers: []jwt.Issuer{{Keys: []jwt.KeySource{set}, Algorithms: set.Algorithms()}},
	})
	if err != nil {
		f.Fatal(err)
	}
	return v
}

// mustAgree verifies the token here and, if it is accepted, with go-jose.
func mustAgree(t *testing.T, v *jwt.Verifier, token string) {
	t.Helper()
	verified, err := v.Verify(context.Background(), token, fuzzNow)
	if err != nil {
		if _, ok := err.(*refusal.Error); !ok {
			t.Fatalf("an error that is no *Error: %v", err)
		}
		return
	}
	parsed, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512})
	if err != nil {
		t.Fatalf("go-jose does not parse what was accepted: %v\n%s", err, token)
	}
	var claims map[string]any
	if err := parsed.Claims([]byte(sitetest.Secret), &claims); err != nil {
		t.Fatalf("go-jose refuses what was accepted: %v\n%s", err, token)
	}
	if len(claims) != len(verified.Claims) {
		t.Fatalf("go-jose sees %d claims, not %d", len(claims), len(verified.Claims))
	}
	if id, _ := claims["sub"].(string); id != verified.UserID {
		t.Fatalf("go-jose sees sub %q, not %q", id, verified.UserID)
	}
	for _, name := range []string{"exp", "nbf", "iat"} {
		if date, _ := claims[name].(float64); math.Abs(date) > 1<<53 {
			return // go-jose keeps whole seconds in an int64, which overflows
		}
	}
	var registered josejwt.Claims
	if err := parsed.Claims([]byte(sitetest.Secret), &registered); err != nil {
		t.Fatalf("go-jose refuses what was accepted: %v\n%s", err, token)
	}
	if err := registered.ValidateWithLeeway(josejwt.Expected{Time: fuzzNow}, time.Second); err != nil {
		t.Fatalf("go-jose refuses what was accepted: %v\n%s", err, token)
	}
}

func FuzzCompact(f *testing.F) {
	v := fuzzVerifier(f)
	f.Fuzz(func(t *testing.T, token string) { mustAgree(t, v, token) })
}

// Any header, with a valid signature.
func FuzzHeader(f *testing.F) {
	v := fuzzVerifier(f)
	payload := `{"sub":"alice","exp":1900000000}`
	f.Fuzz(func(t *testing.T, header string) {
		var parameters map[string]stdjson.RawMessage
		if err := stdjson.Unmarshal([]byte(header), &parameters); err == nil {
			// This package ignores these, but go-jose parses them.
			for _, name := range []string{
				"jwk", "x5c", "x5t", "x5t#S256", "jku", "x5u", "nonce", "cty",
				"enc", "zip", "epk", "apu", "apv", "p2s", "p2c", "iv", "tag",
			} {
				for given := range parameters {
					if strings.EqualFold(given, name) {
						return
					}
				}
			}
		}
		mustAgree(t, v, sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), header, payload))
	})
}

// Any payload, with a valid signature.
func FuzzClaims(f *testing.F) {
	v := fuzzVerifier(f)
	f.Fuzz(func(t *testing.T, payload string) {
		mustAgree(t, v, sitetest.SignRaw(t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, payload))
		claims, err := jwt.ParseClaims([]byte(payload))
		if err != nil {
			return
		}
		if again, err := jwt.ParseClaims([]byte(claims.String())); err != nil || again.String() != claims.String() {
			t.Fatalf("the claims do not come back from their text: %v\n%s\n%s", err, claims, again)
		}
		for name, value := range claims {
			if found, ok := claims.Lookup(name); !ok || jwt.ClaimText(found) != jwt.ClaimText(value) {
				t.Fatalf("claim %q is not found by its name", name)
			}
		}
	})
}

// What two multi-tenant issuers accept is one tenant each, and never of both.
func FuzzTenants(f *testing.F) {
	key, err := jwt.NewSecretKey([]byte(sitetest.Secret))
	if err != nil {
		f.Fatal(err)
	}
	set := jwt.NewKeySet(key)
	form := regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)
	f.Fuzz(func(t *testing.T, one, other, tenants, iss string) {
		issuers := []jwt.Issuer{
			{Name: one, MultiTenant: true, Keys: []jwt.KeySource{set}, Algorithms: set.Algorithms()},
			{
				Name: other, MultiTenant: true, Keys: []jwt.KeySource{set}, Algorithms: set.Algorithms(),
				Tenants: strings.Fields(tenants),
			},
		}
		if _, err := jwt.NewVerifier(jwt.VerifierConfig{Issuers: issuers}); err != nil {
			return
		}
		matches := 0
		for _, issuer := range issuers {
			if !issuer.Matches(iss) {
				continue
			}
			matches++
			names, parts := strings.Split(issuer.Name, "/"), strings.Split(iss, "/")
			if len(names) != len(parts) {
				t.Fatalf("%q matches %q", issuer.Name, iss)
			}
			for i, name := range names {
				if name != parts[i] && (name != "*" || i < 3 || !form.MatchString(parts[i]) || parts[i] == "..") {
					t.Fatalf("%q matches %q", issuer.Name, iss)
				}
			}
		}
		if matches > 1 {
			t.Fatalf("%q is of %q and of %q", iss, one, other)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		keys, _, err := jwt.ParseKeySet([]byte(text))
		if err != nil {
			return
		}
		var members struct{ Keys []stdjson.RawMessage }
		if stdjson.Unmarshal([]byte(text), &members) == nil && members.Keys == nil {
			return // a single JWK or an object of certificates, which go-jose does not take for a set
		}
		var set jose.JSONWebKeySet
		if err := stdjson.Unmarshal([]byte(text), &set); err != nil {
			if len(members.Keys) > len(keys) {
				return // for one invalid key, go-jose refuses the whole set; this package omits the key
			}
			t.Fatalf("go-jose refuses the set: %v", err)
		}
		for _, key := range keys {
			if key.ID() == "" {
				continue
			}
			found := set.Key(key.ID())
			if !slices.ContainsFunc(found, func(k jose.JSONWebKey) bool { return k.Valid() && k.IsPublic() }) {
				t.Fatalf("go-jose finds %d keys %q, and no valid public one", len(found), key.ID())
			}
		}
	})
}
