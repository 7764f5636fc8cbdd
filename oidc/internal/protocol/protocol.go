// Package protocol has what an OpenID Provider and its relying parties share.
package protocol

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// TokenClaims are the claims that describe a token or a log-in. The provider sets them;
// they are never properties of a user.
var TokenClaims = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", // RFC 7519
	// OpenID Connect
	"auth_time", "nonce", "acr", "amr", "azp", "sid", "at_hash", "c_hash",
	"s_hash", "events", "sub_jwk", "_claim_names", "_claim_sources",
	// RFC 7800, 8693, 9068, 7662, 8417, 9396
	"cnf", "act", "may_act", "scope", "scp", "client_id", "gid",
	"active", "token_type", "typ", "toe", "txn", "authorization_details",
}

// Among reports whether a name is in a list, ignoring case, because many clients ignore it.
func Among(names []string, name string) bool {
	return slices.ContainsFunc(names, func(other string) bool { return strings.EqualFold(name, other) })
}

// CheckScope returns an error if a scope is not a valid scope-token (RFC 6749 §3.3). Custom
// scopes of clients need not have claims.
func CheckScope(scope string) error {
	if scope == "" ||
		strings.ContainsFunc(scope, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
		return fmt.Errorf("scopes: %q is not a valid scope", scope)
	}
	return nil
}

// SecureURL reports whether a URL is https, or http to this machine.
func SecureURL(u *url.URL) bool {
	host := u.Hostname()
	ip := net.ParseIP(host)
	return u.Scheme == "https" ||
		u.Scheme == "http" &&
			(host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback())
}

// HalfHash returns the value of at_hash or c_hash in an ID token that is signed with the algorithm
// (OpenID Connect Core §3.1.3.6).
func HalfHash(algorithm, text string) string {
	hash := sha256.New()
	switch {
	case strings.HasSuffix(algorithm, "384"):
		hash = sha512.New384()
	case strings.HasSuffix(algorithm, "512"), algorithm == "EdDSA", algorithm == "Ed25519":
		hash = sha512.New()
	}
	hash.Write([]byte(text))
	sum := hash.Sum(nil)
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}

// LogoutEvent is the event of a logout token (OpenID Connect Back-Channel Logout 1.0 §2.4).
const LogoutEvent = "http://schemas.openid.net/event/backchannel-logout"
