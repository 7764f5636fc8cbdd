package jwks

// Algorithms are what a key set behind a URL may be used for. HMAC is
// not among them: a secret that a URL gives away is none.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
