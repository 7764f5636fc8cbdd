package jwks

// Algorithms are the algorithms that a key set behind a URL may be used for. HMAC is not
// among them, because a secret that is published at a URL is not secret.
var Algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
}
