package login

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
)

// VerifyLogout implements accounts.ExternalLogin.
func (l *Login) VerifyLogout(ctx context.Context, raw string) (*accounts.ExternalLogout, error) {
	if _, err := l.metadata(ctx); err != nil { // so that the provider sends it again later
		return nil, err
	}
	if l.plain() {
		return nil, errors.New("the provider knows no OpenID Connect")
	}
	s := &signatures{keys: l.provider.keys}
	token, err := l.verifier(s).VerifyLogout(ctx, raw)
	if err != nil {
		return nil, withoutFault(s.failure(err))
	}
	claims, err := claimsOf(token)
	if err != nil {
		return nil, err
	}
	if err := l.checkIssuer(claims); err != nil {
		return nil, withoutFault(err)
	}
	events, _ := claims["events"].(jwt.Claims)
	if _, isObject := events[protocol.LogoutEvent].(jwt.Claims); !isObject {
		return nil, fmt.Errorf("events has no %s", protocol.LogoutEvent)
	}
	if _, has := claims["nonce"]; has {
		return nil, errors.New("it has a nonce")
	}
	now := time.Now()
	switch typ := headerType(raw); {
	case typ != "" && typ != "logout+jwt" && typ != "jwt": // of which the last says nothing (RFC 7519 §5.1)
		return nil, errors.New("typ is not logout+jwt")
	case claims["iat"] == nil || token.IssuedAt.After(now.Add(maxClockDifference)):
		return nil, errors.New("iat is missing, or in the future")
	case token.IssuedAt.Before(now.Add(-maxLogoutAge)) || token.Expiry.After(token.IssuedAt.Add(maxLogoutAge)):
		return nil, fmt.Errorf("iat and exp are more than %s apart, or iat is older than that", maxLogoutAge)
	}
	return &accounts.ExternalLogout{
		Issuer: token.Issuer, Subject: token.Subject, SessionID: token.SessionID,
		ID: token.TokenID, ExpiresAt: token.Expiry,
	}, nil
}

const (
	maxClockDifference = 5 * time.Minute
	// maxLogoutAge is the maximum lifetime of a logout token, and how long its use is
	// remembered. The recommendation is 2 minutes (OpenID Connect Back-Channel Logout 1.0
	// §4).
	maxLogoutAge = time.Hour
)

// headerType returns the typ of a token (RFC 7515 §4.1.9).
func headerType(token string) string {
	header, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(header)
	var values map[string]any
	if err != nil || json.Unmarshal(text, &values) != nil {
		return "?"
	}
	typ, given := values["typ"]
	name, isText := typ.(string)
	if given && !isText {
		return "?"
	}
	return strings.TrimPrefix(strings.ToLower(name), "application/")
}
