package login

import (
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"golang.org/x/oauth2"
)

// addUserinfo fetches required claims that are missing in the ID token.
func (l *Login) addUserinfo(ctx context.Context, known *metadata, tokens *oauth2.Token, claims map[string]any) error {
	expected := append(slices.Collect(maps.Keys(l.MapClaim)), "email")
	isThere := func(path string) bool {
		name, _, _ := strings.Cut(path, ".")
		return claims[path] != nil || claims[name] != nil
	}
	if known.provider.UserInfoEndpoint() == "" ||
		!slices.ContainsFunc(expected, func(path string) bool { return !isThere(path) }) {
		return nil
	}
	text, isSigned, err := l.userinfo(ctx, known, tokens)
	if err != nil && claims["email"] != nil {
		return nil // the user is known; properties are optional
	}
	if err != nil {
		return unavailable(errors.New("userinfo cannot be read"))
	}
	more, err := exactClaims(text)
	if err != nil {
		return errors.New("userinfo is not a JSON object")
	}
	if isSigned || more["iss"] != nil || more["aud"] != nil {
		// any JWT that the provider's key has signed would do otherwise
		if more["iss"] != l.Issuer || !isFor(more["aud"], l.ClientID) {
			return errors.New("userinfo is from another issuer, or for another client")
		}
	}
	if more["sub"] != claims["sub"] { // OpenID Connect Core §5.3.2
		return errors.New("userinfo and the ID token are for different users")
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

// userinfo asks the userinfo endpoint (OpenID Connect Core §5.3). The response may be a JWT.
func (l *Login) userinfo(
	ctx context.Context, known *metadata, tokens *oauth2.Token,
) (claims []byte, isSigned bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, known.provider.UserInfoEndpoint(), nil)
	if err != nil {
		return nil, false, err
	}
	tokens.SetAuthHeader(request)
	response, err := l.provider.client.Do(request)
	if err != nil {
		return nil, false, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || kind != "application/jwt" {
		return text, false, err
	}
	s := &signatures{keys: l.provider.keys}
	claims, err = s.VerifySignature(ctx, strings.TrimSpace(string(text)))
	return claims, true, err
}

// isFor reports whether an audience contains a client.
func isFor(audience any, clientID string) bool {
	list, _ := audience.([]any)
	return audience == clientID || slices.Contains(list, any(clientID))
}
