// Package jwt verifies JSON Web Tokens (RFC 7519) that are signed (RFC 7515), by the
// rules of RFC 8725. It needs neither Caddy nor a web server.
//
// A [Verifier] takes a token and a time, and returns the token's content or an error:
//
//	keys, err := jwt.ParsePublicKeys(pem)
//	set := jwt.NewKeySet(keys...)
//	verifier, err := jwt.NewVerifier(jwt.VerifierConfig{Issuers: []jwt.Issuer{{
//		Name:       "https://id.example.com",
//		Keys:       []jwt.KeySource{set},
//		Algorithms: []string{"ES256"},
//		Audience:   []string{"https://api.example.com"},
//	}}})
//	token, err := verifier.Verify(ctx, text, time.Now())
//	fmt.Println(token.UserID, token.Claims["email"])
//
// # Keys
//
// Keys come from the program alone: a secret by [NewSecretKey], public keys by
// [ParsePublicKeys] or [NewKey], or any [KeySource], such as a key set behind a URL by
// package jwks. Keys and URLs in a token (jwk, jku, x5c, x5u) are never used.
//
// # Errors
//
// Each error of [Verifier.Verify] is a [refusal.Error] that wraps its [refusal.Reason]:
//
//	if errors.Is(err, refusal.Expired) { … }
//
// Its text is for logs. It contains no part of the token except single names and values, which
// are quoted and truncated. [refusal.Answer] is what a client may see.
//
// # Tokens that were seen before
//
// A [Cache] remembers verified tokens, because most requests of a session send the same one. A
// remembered token is refused when it expires, when its key leaves a key set of package jwks,
// and when its session is in [Issuer.Revoked].
//
// # Comparison with other libraries
//
// The table shows the processor time to check one token: its signature, iss, aud and exp. It
// was measured with `go run ./bench verifiers` on a shared virtual machine with 2 cores (AMD
// EPYC, Go 1.26.8). The values are medians of 15 rounds in which the libraries take turns.
// "times ours" is the median of the ratios in a round.
//
//	algorithm   library                     µs   times ours   allocations
//	RS256       this package              36.1                         39
//	            golang-jwt v5.3.1         45.5         1.27           100
//	            jwx v2.1.7 jwt.Parse      77.5         2.18           284
//	            go-oidc v3.21.0           78.2         2.18           184
//	ES256       this package              67.8                         52
//	            golang-jwt                72.8         1.08           112
//	            jwx jwt.Parse            113.0         1.66           296
//	            go-oidc                  105.6         1.54           196
//	EdDSA       this package              50.0                         30
//	            golang-jwt                59.5         1.19            89
//	            jwx jwt.Parse             94.2         1.92           274
//	            go-oidc                   88.7         1.77           173
//	HS256       this package               7.2                         35
//	            golang-jwt                20.2         3.10            95
//	            jwx jwt.Parse             60.1         8.90           281
//	any         this package, a Cache  0.2–0.3                          0
//
// For RS256, ES256 and EdDSA, the signature takes most of the time, which no library can save.
// The last line was measured with 256 tokens in turn, which fit in the caches of a core; 10,000
// tokens take longer.
//
// The libraries do different work. This package reads all claims into a map. It reads the
// header only if it differs from the header of the token before. golang-jwt also reads the
// claims into a map. jwx makes a token with typed fields, and can also sign, encrypt and fetch
// keys. go-oidc reads the registered claims at once, and the others on demand. By default this
// package refuses the following tokens, although their signatures are valid:
//
//	the token has                golang-jwt   jwx        go-oidc
//	iat in the future            accepted     refused    accepted
//	a claim twice                accepted     accepted   accepted
//	no sub                       accepted     accepted   accepted
//	EXP beside exp               accepted     accepted   refused
//	text that is not UTF-8       accepted     accepted   accepted
//	bytes after the claims       refused      accepted   refused
//	alg twice                    accepted     accepted   refused
//	an unknown crit              accepted     accepted   refused
//	typ logout+jwt               accepted     accepted   accepted
//
// This package only reads signed tokens in the compact serialization. It does not sign, and it
// reads neither encrypted tokens nor the JSON serialization.
package jwt
