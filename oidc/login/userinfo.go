package login

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"golang.org/x/oauth2"
)

// addUserinfo fetches required claims that are missing in the ID token.
func (l *Login) addUserinfo(ctx context.Context, known *metadata, tokens *oauth2.Token, claims jwt.Claims) error {
	lacks := func(path string) bool {
		name, _, _ := strings.Cut(path, ".")
		return claims[path] == nil && claims[name] == nil
	}
	needed := slices.ContainsFunc(l.neededClaims(), lacks)
	if known.userinfo == "" ||
		!needed && !slices.ContainsFunc(slices.Collect(maps.Keys(l.MapClaim)), lacks) {
		return nil
	}
	text, isSigned, err := l.userinfo(ctx, known, tokens)
	if err != nil && !needed {
		return nil // the user is known; properties are optional
	}
	if err != nil {
		return err
	}
	more, err := jwt.ParseClaims(text)
	if err != nil {
		return misconfigured(faultUserinfo, "userinfo: %v", err)
	}
	if isSigned || more["iss"] != nil || more["aud"] != nil {
		// any JWT that the provider's key has signed would do otherwise
		if more["iss"] != claims["iss"] || !isFor(more["aud"], l.ClientID) {
			return faulty(faultUserinfo, "userinfo is from another issuer, or for another client")
		}
	}
	if _, isText := more["sub"].(string); !isText {
		return misconfigured(faultUserinfo, "sub of userinfo is missing, or not a text")
	}
	if more["sub"] != claims["sub"] { // OpenID Connect Core §5.3.2
		return faulty(faultUserinfo, "userinfo and the ID token are for different users")
	}
	if claims["email"] == nil { // the address and whether it is verified belong together
		claims["email"], claims["email_verified"] = more["email"], more["email_verified"]
	}
	for name, value := range more {
		// which only the ID token says
		if name != "email" && name != "email_verified" && claims[name] == nil &&
			!protocol.Among(protocol.TokenClaims, name) {
			claims[name] = value
		}
	}
	return nil
}

// neededClaims are the claims without which a log-in may fail.
func (l *Login) neededClaims() []string {
	needed := []string{l.EmailClaim}
	for _, from := range l.RolesFrom {
		needed = append(needed, from.Claim)
	}
	for _, condition := range l.Allow {
		if condition.Kind != "domain" {
			needed = append(needed, condition.claim())
		}
	}
	return needed
}

// userinfo asks the userinfo endpoint (OpenID Connect Core §5.3). The response may be a JWT.
func (l *Login) userinfo(
	ctx context.Context, known *metadata, tokens *oauth2.Token,
) (claims []byte, isSigned bool, err error) {
	text, err := l.ask(ctx, tokens, known.userinfo)
	if err != nil || bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return text, false, err
	}
	s := &signatures{keys: l.provider.keys}
	claims, err = s.VerifySignature(ctx, strings.TrimSpace(string(text)))
	if err != nil {
		err = s.failure(err)
	}
	return claims, true, err
}

// isFor reports whether an audience contains a client.
func isFor(audience any, clientID string) bool {
	list, _ := audience.(jwt.List)
	return audience == clientID || slices.Contains(list, any(clientID))
}
