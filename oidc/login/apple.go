package login

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"golang.org/x/oauth2"
)

// appleSecretLifetime is how long a client secret for Apple is valid; at most 6 months.
const appleSecretLifetime = 5 * time.Minute

// readSecret sets how the client secret is made: it is the one in the config, or for Apple a JWT
// that the key signs.
func (l *Login) readSecret() error {
	l.secret = func() (string, error) { return l.ClientSecret, nil }
	if l.Preset != "apple" {
		if l.TeamID+l.KeyID+l.PrivateKey != "" {
			return errors.New("team_id, key_id and private_key are options of preset apple")
		}
		if l.Preset != "" && l.ClientSecret == "" && l.AuthMethod != noMethod {
			return fmt.Errorf("client_secret is missing; set the secret that %s gave this site with its client_id, "+
				"as in: client_secret {env.CLIENT_SECRET}; a public client has none, and needs: auth_method none",
				l.preset.label)
		}
		return nil
	}
	if l.TeamID == "" || l.KeyID == "" || l.PrivateKey == "" || l.ClientSecret != "" {
		return errors.New(
			"preset apple takes team_id, key_id and private_key instead of client_secret, as in: " +
				"private_key /etc/caddy/AuthKey_ABC123DEFG.p8",
		)
	}
	text := l.PrivateKey
	if !strings.Contains(text, "-----BEGIN") {
		text = "{file." + text + "}"
	}
	if err := config.Resolve("private_key", &text); err != nil {
		return fmt.Errorf("private_key: %s cannot be read, or is empty", l.PrivateKey)
	}
	signer, algorithms, err := signing.ParsePrivateKey([]byte(text))
	if err != nil {
		return fmt.Errorf("private_key: %w", err)
	}
	if algorithms[0] != "ES256" {
		return fmt.Errorf("private_key: it is a key for %s; Apple's are for ES256", algorithms[0])
	}
	signer.Algorithm, signer.ID = algorithms[0], l.KeyID
	l.secret = func() (string, error) {
		now := time.Now()
		return signer.Sign("", map[string]any{
			"iss": l.TeamID, "sub": l.ClientID, "aud": l.Issuer,
			"iat": now.Unix(), "exp": now.Add(appleSecretLifetime).Unix(),
		})
	}
	return nil
}

// appleUser adds the name that the browser brings with the first log-in. Nobody has signed it, so it
// is only good for a new user's profile.
func appleUser(ctx context.Context, _ *Login, _ *oauth2.Token, claims jwt.Claims) error {
	text, _ := ctx.Value(broughtUser{}).(string)
	brought, err := jwt.ParseClaims([]byte(text))
	if err != nil {
		return nil
	}
	var names []string
	for claim, part := range map[string]string{"given_name": "firstName", "family_name": "lastName"} {
		if name, _ := brought.Lookup("name." + part); name != nil && claims[claim] == nil {
			claims[claim] = name
		}
	}
	for _, claim := range []string{"given_name", "family_name"} {
		if name, _ := claims[claim].(string); name != "" {
			names = append(names, name)
		}
	}
	if claims["name"] == nil && len(names) > 0 {
		claims["name"] = strings.Join(names, " ")
	}
	return nil
}

// broughtUser is the key of the parameter `user` of the response in a context.
type broughtUser struct{}

func hexHMAC(key, text string) string {
	sum := hmac.New(sha256.New, []byte(key))
	sum.Write([]byte(text))
	return hex.EncodeToString(sum.Sum(nil))
}
