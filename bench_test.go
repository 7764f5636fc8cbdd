package caddyjwt

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// provisioned returns a handler with these options, without a server.
func provisioned(t testing.TB, options string) *Handler {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", sitetest.TempDir(t))
	base, err := caddy.ProvisionContext(&caddy.Config{
		StorageRaw: caddyconfig.JSONModuleObject(
			map[string]string{"root": sitetest.TempDir(t)}, "module", "file_system", nil,
		),
		Logging: &caddy.Logging{
			Logs: map[string]*caddy.CustomLog{caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{Level: "ERROR"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(base)
	t.Cleanup(cancel)
	h := new(Handler)
	err = h.UnmarshalCaddyfile(caddyfile.NewTestDispenser("jwt {\n" + options + "\n}"))
	if err == nil {
		err = h.Provision(ctx)
	}
	if err == nil {
		err = h.Validate()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Cleanup() })
	return h
}

// request returns a request as Caddy passes it to a handler.
func preparedRequest(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/api/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("User-Agent", "bench")
	r.Header.Set("Accept", "*/*")
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, nil)
}

var empty = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// typicalClaims are of the size that identity providers send.
func typicalClaims(id int) sitetest.JSON {
	return sitetest.Claims(sitetest.JSON{
		"sub": fmt.Sprintf("auth0|%024d", id),
		"aud": []string{"https://api.example.com", "https://issuer.example/userinfo"}, "iat": time.Now().Unix(),
		"azp": "my_client_id_0123456789", "scope": "openid profile read:todos write:todos",
		"roles": []string{"admin", "editor"}, "email": "alice@example.com",
	})
}

// A handler with a token that it has seen before, in front of an empty handler: the limit is
// 1.5 µs. Each call gets a new request; its creation is not measured.
func BenchmarkAlreadySeen(b *testing.B) {
	const secret = `secret "` + sitetest.Secret + `"`
	for _, c := range []struct {
		name    string
		options string
		tokens  int
	}{
		{"tokens=1", secret, 1}, {"tokens=10000", secret, 10_000},
		{"tokens=1,upstream_token", secret + "\nupstream_token {\n issuer https://api.example.com/jwt\n}", 1},
		{
			"tokens=1,accounts",
			"accounts {\n signup open\n issuer https://issuer.example\n audience https://api.example.com\n " + secret +
				"\n store file " + filepath.Join(sitetest.TempDir(b), "users.db") + "\n}",
			1,
		},
	} {
		b.Run(c.name, func(b *testing.B) {
			h, tokens := provisioned(b, c.options), c.tokens
			raw := make([]string, tokens)
			for i := range raw {
				raw[i] = sitetest.Sign(
					b, "HS256", []byte(sitetest.Secret), sitetest.JSON{"typ": "at+jwt"}, typicalClaims(i),
				)
				serveOne(b, h, preparedRequest(raw[i]))
			}
			w := httptest.NewRecorder()
			serve := func(r *http.Request) {
				if err := h.ServeHTTP(w, r, empty); err != nil {
					b.Fatal(err)
				}
			}
			var spent time.Duration
			b.ResetTimer()
			const batch = 32 // few, because a real request is served while it is in the cores' caches
			requests := make([]*http.Request, batch)
			for done := 0; done < b.N; done += batch {
				for i := range requests {
					requests[i] = preparedRequest(raw[(done+i)*7919%tokens])
				}
				start := time.Now()
				for _, r := range requests {
					serve(r)
				}
				spent += time.Since(start)
			}
			n := float64((b.N + batch - 1) / batch * batch)
			b.ReportMetric(float64(spent.Nanoseconds())/n, "handler-ns/op")
			b.ReportMetric(
				allocations(func() *http.Request { return preparedRequest(raw[0]) }, serve), "handler-allocs/op",
			)
			b.ReportMetric(0, "ns/op")
		})
	}
}

// allocations returns the allocations to serve a request, without those to create it.
func allocations(request func() *http.Request, serve func(*http.Request)) float64 {
	const rounds = 1000
	all := testing.AllocsPerRun(rounds, func() { serve(request()) })
	return all - testing.AllocsPerRun(rounds, func() { request() })
}

func serveOne(b *testing.B, h *Handler, r *http.Request) {
	b.Helper()
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, r, empty); err != nil || w.Code != 200 {
		b.Fatal(err, w.Code, w.Body)
	}
}

// A token seen for the first time, compared with the standard library's verification of its
// signature.
func BenchmarkFirstSight(b *testing.B) {
	keys := sitetest.Keys()
	for _, c := range []struct {
		algorithm string
		key       any
		option    string
		raw       func(input, signature []byte) bool
	}{
		{"RS256", keys.RSA, "public_key `" + sitetest.PEM(b, keys.RSA) + "`", func(input, signature []byte) bool {
			hash := sha256.Sum256(input)
			return rsa.VerifyPKCS1v15(&keys.RSA.PublicKey, crypto.SHA256, hash[:], signature) == nil
		}},
		{"ES256", keys.P256, "public_key `" + sitetest.PEM(b, keys.P256) + "`", func(input, signature []byte) bool {
			hash := sha256.Sum256(input)
			return ecdsa.Verify(
				&keys.P256.PublicKey, hash[:], new(big.Int).SetBytes(signature[:32]),
				new(big.Int).SetBytes(signature[32:]),
			)
		}},
		{
			"EdDSA", keys.Ed25519, "public_key `" + sitetest.PEM(b, keys.Ed25519) + "`",
			func(input, signature []byte) bool {
				return ed25519.Verify(keys.Ed25519.Public().(ed25519.PublicKey), input, signature)
			},
		},
		{"HS256", []byte(sitetest.Secret), `secret "` + sitetest.Secret + `"`, func(input, signature []byte) bool {
			mac := hmac.New(sha256.New, []byte(sitetest.Secret))
			mac.Write(input)
			return hmac.Equal(mac.Sum(nil), signature)
		}},
	} {
		b.Run(c.algorithm, func(b *testing.B) {
			h := provisioned(b, c.option+"\n cache off\n issuer https://issuer.example")
			token := sitetest.Sign(b, c.algorithm, c.key, sitetest.JSON{"kid": "key-2026-01"}, typicalClaims(1))
			input, signature := rawParts(b, token)
			r := preparedRequest(token)
			sitetest.Ratio(b, func() {
				if !c.raw(input, signature) {
					b.Fatal("raw verification fails")
				}
			}, func() {
				if _, refusal := h.tokens.verify(r.Context(), token); refusal != nil {
					b.Fatal(refusal)
				}
			})
		})
		b.Run(c.algorithm+"/refused", func(b *testing.B) {
			h := provisioned(b, c.option)
			token := sitetest.Sign(b, c.algorithm, c.key, sitetest.JSON{"kid": "key-2026-01"}, typicalClaims(1))
			signed, _, _ := splitSignature(token)
			other := sitetest.Sign(b, c.algorithm, c.key, sitetest.JSON{"kid": "key-2026-01"}, typicalClaims(2))
			_, wrong, _ := splitSignature(other)
			input, signature := rawParts(b, signed+"."+wrong)
			r := preparedRequest(token)
			sitetest.Ratio(b, func() {
				if c.raw(input, signature) {
					b.Fatal("raw verification succeeds")
				}
			}, func() {
				if _, refusal := h.tokens.verify(r.Context(), signed+"."+wrong); refusal == nil {
					b.Fatal("accepted")
				}
			})
		})
	}
}

func splitSignature(token string) (input, signature string, ok bool) {
	for i := len(token) - 1; i >= 0; i-- {
		if token[i] == '.' {
			return token[:i], token[i+1:], true
		}
	}
	return "", "", false
}

// The cost of a request does not grow with the number of issuers or keys: it compares the last of
// many with a single one.
func BenchmarkFlat(b *testing.B) {
	keys := sitetest.Keys()
	one := sitetest.Sign(b, "ES256", keys.P256, sitetest.JSON{"kid": "0"}, typicalClaims(1))
	verifier := func(issuers, keysEach int) *jwt.Verifier {
		var config jwt.VerifierConfig
		for i := range issuers {
			var all []*jwt.Key
			for id := range keysEach {
				key, err := jwt.NewKey(fmt.Sprint(id), &keys.P256.PublicKey)
				if err != nil {
					b.Fatal(err)
				}
				all = append(all, key)
			}
			set := jwt.NewKeySet(all...)
			name := "https://issuer.example"
			if i > 0 {
				name += fmt.Sprint(i)
			}
			config.Issuers = append(config.Issuers, jwt.Issuer{
				Name: name, Keys: []jwt.KeySource{set}, Algorithms: []string{"ES256"},
			})
		}
		v, err := jwt.NewVerifier(config)
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
	// each key ID is that of a key for each type
	shared := func() *jwt.Verifier {
		var all []*jwt.Key
		for i := range 1000 {
			public := []crypto.Signer{keys.RSA, keys.P384, keys.Ed25519, keys.P256}[i%4].Public()
			key, err := jwt.NewKey(fmt.Sprint(i/4), public)
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, key)
		}
		v, err := jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{{
			Name: "https://issuer.example", Keys: []jwt.KeySource{jwt.NewKeySet(all...)}, Algorithms: []string{"ES256"},
		}}})
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
	lone := verifier(1, 1)
	verify := func(v *jwt.Verifier) func() {
		return func() {
			if _, err := v.Verify(context.Background(), one, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("issuers=64", func(b *testing.B) { sitetest.Ratio(b, verify(lone), verify(verifier(64, 1))) })
	b.Run("keys=1000", func(b *testing.B) { sitetest.Ratio(b, verify(lone), verify(verifier(1, 1000))) })
	b.Run("keys=1000,shared", func(b *testing.B) { sitetest.Ratio(b, verify(lone), verify(shared())) })
}

// The memory for 10,000 tokens in the cache, including their text.
func BenchmarkCacheMemory(b *testing.B) {
	for b.Loop() {
		h := provisioned(b, `secret "`+sitetest.Secret+`"`)
		raw := make([]string, jwt.DefaultCacheEntries)
		for i := range raw {
			raw[i] = sitetest.Sign(b, "HS256", []byte(sitetest.Secret), nil, typicalClaims(i))
		}
		r := preparedRequest("")
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, token := range raw {
			// a copy, as each request brings its own
			if _, refusal := h.tokens.verify(r.Context(), string([]byte(token))); refusal != nil {
				b.Fatal(refusal)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB/10000-tokens")
		b.ReportMetric(float64(len(raw[0])), "token-bytes")
		runtime.KeepAlive(h)
		runtime.KeepAlive(raw)
	}
}

// rawParts returns the signed part of a token and its signature.
func rawParts(b *testing.B, token string) (input, signature []byte) {
	b.Helper()
	signed, encoded, _ := splitSignature(token)
	signature, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		b.Fatal(err)
	}
	return []byte(signed), signature
}

// For an ordinary path, the guard reads each byte once.
func BenchmarkPathGuard(b *testing.B) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: b.Context()})
	defer cancel()
	guard := &Guard{MatcherSetsRaw: caddyhttp.RawMatcherSets{{"path": []byte(`["/api/*"]`)}}}
	if err := guard.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	for _, target := range []string{
		"/api/v1.2/projects/42/files/report.final.pdf",
		"/api/v4/projects/group%2Fname", "/api/caf%C3%A9", "/api/x/%2e%2e/y",
	} {
		b.Run(target[1:], func(b *testing.B) {
			r := caddyhttp.PrepareRequest(
				httptest.NewRequest(http.MethodGet, target, nil), caddy.NewReplacer(), nil, nil,
			)
			w := httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				if err := guard.ServeHTTP(w, r, empty); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
