package provider

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// introspect reports to an authenticated client whether a token is valid (RFC 7662). For an invalid
// token it returns nothing else.
func (p *Provider) introspect(w http.ResponseWriter, r *http.Request) error {
	values, err := form(r)
	if err != nil {
		return err
	}
	client, err := p.confidential(r, values)
	if err != nil {
		return err
	}
	if values.Get("token") == "" {
		return refuse("invalid_request", "token is missing")
	}
	described, err := p.describeToken(r.Context(), client, values.Get("token"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, described)
}

var inactive = map[string]any{"active": false}

func (p *Provider) describeToken(ctx context.Context, client *Client, presented string) (map[string]any, error) {
	if strings.Count(presented, ".") != 2 {
		return p.describeRefreshToken(ctx, client, presented)
	}
	token, err := p.live(ctx, presented)
	if err != nil {
		if _, refused := errors.AsType[*refusal.Error](err); refused || errors.Is(err, errNotFound) {
			return inactive, nil
		}
		return nil, err
	}
	if !mayIntrospect(client, token.Claims) {
		return inactive, nil
	}
	described := map[string]any{"active": true, "token_type": "Bearer"}
	for _, name := range []string{
		"scope", "client_id", "sub", "aud", "iss", "exp", "iat", "nbf", "jti", "roles", "permissions",
	} {
		if value, ok := token.Claims[name]; ok {
			if list, isList := value.(jwt.List); isList && list == nil { // else it is null in JSON
				value = jwt.List{}
			}
			described[name] = value
		}
	}
	scopes, _ := token.Claims["scope"].(string)
	if id, ok := token.Claims["gid"].(string); ok && (contains(scopes, "email") || contains(scopes, "profile")) {
		if g, err := load[grant](ctx, p.state, kindGrant, id); err == nil {
			if user, err := p.accounts.Store().User(ctx, g.UserID); err == nil {
				switch {
				case user.Username() != "" && contains(scopes, "profile"):
					described["username"] = user.Username()
				case user.Address() != "" && contains(scopes, "email"):
					described["username"] = user.Address()
				}
			}
		}
	}
	return described, nil
}

// mayIntrospect reports whether a client may introspect an access token: its own, one with
// its ID in aud, or any if it is an API that accepts them (RFC 7662 §4).
func mayIntrospect(client *Client, claims jwt.Claims) bool {
	return client.Introspect || claims["client_id"] == client.ID || isMeantFor(claims, client.ID)
}

// describeRefreshToken describes a client's own refresh token.
func (p *Provider) describeRefreshToken(ctx context.Context, client *Client, presented string) (map[string]any, error) {
	id, family := splitRefreshToken(presented)
	g, err := load[grant](ctx, p.state, kindGrant, id)
	if err == nil &&
		(g.ClientID != client.ID || g.Since != client.Since || g.FamilyHash != hashed(family) ||
			g.RefreshHash != hashed(presented)) {
		return inactive, nil
	}
	if err == nil {
		_, err = p.userOf(ctx, &g)
	}
	if errors.Is(err, errNotFound) {
		return inactive, nil
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"active": true, "client_id": g.ClientID, "sub": g.UserID,
		"scope": strings.Join(g.Scopes, " "), "iss": p.Issuer, "token_type": "refresh_token",
	}, nil
}

// revoke revokes a token (RFC 7009), and with a refresh token everything issued for its
// grant. An invalid token is not an error.
func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) error {
	values, err := form(r)
	if err != nil {
		return err
	}
	client, err := p.authenticate(r, values)
	if err != nil {
		return err
	}
	presented := values.Get("token")
	if presented == "" {
		return refuse("invalid_request", "token is missing")
	}
	if strings.Count(presented, ".") == 2 {
		err = p.revokeAccessToken(r.Context(), client, presented)
	} else {
		err = p.revokeRefreshToken(r.Context(), client, presented)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// errOthersToken is the error for a client that tries to revoke another client's token (RFC 7009
// §2.1).
var errOthersToken = refuse("invalid_request", "the token was given to another client")

func (p *Provider) revokeRefreshToken(ctx context.Context, client *Client, presented string) error {
	id, family := splitRefreshToken(presented)
	g, err := load[grant](ctx, p.state, kindGrant, id)
	switch {
	case errors.Is(err, errNotFound) || err == nil && g.FamilyHash != hashed(family):
		return nil
	case err != nil:
		return err
	case g.ClientID != client.ID:
		return errOthersToken
	}
	return p.revokeGrant(ctx, id) // by a token that was replaced, too
}

func (p *Provider) revokeAccessToken(ctx context.Context, client *Client, presented string) error {
	now := p.accounts.Now()
	token, err := p.tokens.Verify(ctx, presented, now)
	if err != nil {
		return nil
	}
	if token.Claims["client_id"] != client.ID {
		return errOthersToken
	}
	jti, _ := token.Claims["jti"].(string)
	err = p.state.create(ctx, kindRevoked, jti, "", struct{}{}, token.Expiry().Sub(now))
	if errors.Is(err, store.ErrRecordExists) {
		return nil
	}
	return err
}
