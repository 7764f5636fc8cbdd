package provider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
)

const (
	codeLifetime = time.Minute
	// codeMemory is how long a code is remembered, so that its replay revokes its tokens
	// (RFC 6749 §4.1.2).
	codeMemory = time.Hour
)

// grant is the access that a user gave a client. Tokens are issued for it until it ends.
type grant struct {
	ID        string        `json:"id"`
	ClientID  string        `json:"client_id"`
	UserID    string        `json:"user_id"`
	SessionID string        `json:"session_id"`
	Scopes    []string      `json:"scopes"`
	Resources []string      `json:"resources,omitempty"` // for which access tokens are; empty for the issuer
	AuthTime  int64         `json:"auth_time,omitempty"` // 0 if unknown
	External  bool          `json:"external,omitempty"`  // the user logged in through another provider
	Nonce     string        `json:"nonce,omitempty"`
	Claims    claimsRequest `json:"claims,omitzero"`
	Methods   []string      `json:"methods,omitempty"` // RFC 8176
	Class     string        `json:"class,omitempty"`   // the acr of ID tokens; empty for none
	ACR       bool          `json:"acr,omitempty"`     // of before Class: it is that of a password
	Trusted   bool          `json:"trusted,omitempty"` // a trusted browser was not asked for a second factor
	// Since is when the client was added, and Password the mark of the user's password. A
	// grant is invalid for a later client with the same ID, and an offline grant after a
	// change of the password.
	Since    string `json:"since,omitempty"`
	Password string `json:"password,omitempty"`
	// FamilyHash is the hash of the shared part of the refresh tokens. RefreshHash is the
	// hash of the valid token, or of the code before the first refresh token. It replaced
	// PreviousHash at RotatedAt, in milliseconds.
	FamilyHash   string `json:"family_hash,omitempty"`
	RefreshHash  string `json:"refresh_hash,omitempty"`
	PreviousHash string `json:"previous_hash,omitempty"`
	RotatedAt    int64  `json:"rotated_at,omitempty"`
}

// line returns the state of the grant's refresh tokens.
func (g *grant) line() accounts.RefreshLine {
	return accounts.RefreshLine{
		Hash: g.RefreshHash, PreviousHash: g.PreviousHash, RotatedAt: time.UnixMilli(g.RotatedAt),
	}
}

func (g *grant) setLine(line accounts.RefreshLine) {
	g.RefreshHash, g.PreviousHash, g.RotatedAt = line.Hash, line.PreviousHash, line.RotatedAt.UnixMilli()
}

// beginLine makes the refresh tokens of a grant follow a code, and returns their shared
// part.
func (g *grant) beginLine(codeHash string) (family string) {
	family = store.RandomToken(32)
	g.FamilyHash, g.RefreshHash = hashed(family), codeHash
	return family
}

// splitRefreshToken returns two parts of a refresh token: the grant's ID, and a part that
// all refresh tokens of the grant share. The third part is unique. Only somebody who had a
// token knows the second part, so nobody else can fake a reuse.
func splitRefreshToken(token string) (grantID, family string) {
	grantID, rest, _ := strings.Cut(token, "~")
	family, _, _ = strings.Cut(rest, "~")
	return grantID, family
}

func (g *grant) has(scope string) bool { return slices.Contains(g.Scopes, scope) }

// code is an authorization code, stored under its hash.
type code struct {
	Grant       grant     `json:"grant"`
	RedirectURI string    `json:"redirect_uri"`
	Challenge   string    `json:"challenge,omitempty"`
	ExpiresAt   time.Time `json:"expires_at"`
	// Hybrid reports whether tokens were issued together with it: its grant is already
	// stored.
	Hybrid bool `json:"hybrid,omitempty"`
	// Family is the shared part of the grant's refresh tokens. Knowing it does not help to
	// guess a token.
	Family string `json:"family"`
	// GivenBy is the request that exchanged the code; empty if none did.
	GivenBy string `json:"given_by,omitempty"`
}

// tokens are the tokens for a client.
type tokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	RefreshToken string `json:"refresh_token,omitempty"`
	IDToken      string `json:"id_token,omitempty"`
	Scope        string `json:"scope,omitempty"`
}

// grantRequest issues what the request requires: a code, tokens, or both.
func (p *Provider) grantRequest(
	ctx context.Context, a *authorizationRequest, login *web.Login,
) (map[string]string, error) {
	g := grant{
		ID: uuid.NewString(), ClientID: a.client.ID, UserID: login.User.ID, SessionID: login.SessionID,
		Scopes: a.scopes, Resources: a.resources, AuthTime: authTime(login), External: login.External,
		Since: a.client.Since, Password: p.accounts.PasswordMark(login.User), Nonce: a.nonce,
		Claims: a.claims, Methods: login.Methods, Class: acrOf(a, login),
	}
	var err error
	if g.Trusted, err = p.accounts.ByTrustedBrowser(ctx, login); err != nil {
		return nil, err
	}
	if err := p.keepClient(ctx, a.client, &g); err != nil {
		return nil, err
	}
	answer := make(map[string]string)
	if a.has("code") {
		answer["code"] = store.RandomToken(32)
		family := g.beginLine(hashed(answer["code"]))
		kept := code{
			Grant: g, Family: family, RedirectURI: a.redirectURI, Challenge: a.challenge,
			ExpiresAt: p.accounts.Now().Add(codeLifetime), Hybrid: a.responseType != "code",
		}
		if err := p.state.create(ctx, kindCode, hashed(answer["code"]), login.User.ID, kept, codeMemory); err != nil {
			return nil, err
		}
	}
	if a.responseType != "code" {
		if err := p.keepGrant(ctx, a.client, &g); err != nil {
			return nil, err
		}
	}
	if a.has("token") {
		access, lifetime, err := p.accessToken(ctx, a.client, &g, login.User, g.Resources)
		if err != nil {
			return nil, err
		}
		answer["access_token"], answer["token_type"], answer["expires_in"] = access, "Bearer", seconds(lifetime)
		answer["scope"] = strings.Join(g.Scopes, " ")
	}
	if a.has("id_token") {
		var err error
		// Without an access token, the client cannot call userinfo (OpenID Connect Core
		// §5.4).
		answer["id_token"], err = p.idToken(
			ctx, a.client, &g, login.User, answer["access_token"], answer["code"], a.responseType == "id_token",
		)
		return answer, err
	}
	return answer, nil
}

func authTime(login *web.Login) int64 {
	if login.At.IsZero() {
		return 0
	}
	return login.At.Unix()
}

// keepGrant stores a grant, so that it can be revoked. It belongs to the session, and
// outlives it only with offline_access.
func (p *Provider) keepGrant(ctx context.Context, client *Client, g *grant) error {
	lifetime := time.Duration(max(client.RefreshTokenLifetime, client.AccessTokenLifetime))
	owner := g.SessionID
	if g.has("offline_access") {
		owner = g.UserID // it is deleted with the user
	}
	return p.state.create(ctx, kindGrant, g.ID, owner, g, lifetime)
}

var errTakenBack = refuse("invalid_grant", "the consent of the user was withdrawn")

// accessToken returns an access token for the target resources according to RFC 9068.
func (p *Provider) accessToken(
	ctx context.Context, client *Client, g *grant, user store.User, target []string,
) (token string, lifetime time.Duration, err error) {
	now := p.accounts.Now()
	lifetime = time.Duration(client.AccessTokenLifetime)
	claims := map[string]any{
		"iss": p.Issuer, "aud": p.audience(target), "sub": g.UserID, "client_id": client.ID,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(),
		"jti": uuid.NewString(), "gid": g.ID, "scope": strings.Join(p.scopesAt(g.Scopes, target), " "),
	}
	if g.AuthTime != 0 {
		claims["auth_time"] = g.AuthTime
	}
	if isMultiple(g.Methods) { // for APIs that require it (RFC 9470)
		claims["acr"], claims["amr"] = acrMultiple, g.Methods
	}
	for _, name := range []string{"roles", "permissions"} { // claims that services use for decisions
		if value, ok := claimOf(user, name); ok &&
			slices.ContainsFunc(g.Scopes, func(scope string) bool { return slices.Contains(p.Claims[scope], name) }) {
			claims[name] = value
		}
	}
	token, err = p.sign(ctx, p.accessKeys(), "at+jwt", claims)
	return token, lifetime, err
}

// idToken returns an ID token (OpenID Connect Core §2).
func (p *Provider) idToken(
	ctx context.Context, client *Client, g *grant, user store.User, accessToken, code string, withUser bool,
) (string, error) {
	now := p.accounts.Now()
	claims := map[string]any{
		"iss": p.Issuer, "sub": g.UserID, "aud": client.ID, "iat": now.Unix(),
		"exp": now.Add(time.Duration(client.IDTokenLifetime)).Unix(),
		"sid": g.SessionID,
	}
	if g.AuthTime != 0 {
		claims["auth_time"] = g.AuthTime
	}
	if g.Nonce != "" {
		claims["nonce"] = g.Nonce
	}
	g.setAuthentication(claims)
	if accessToken != "" {
		claims["at_hash"] = protocol.HalfHash("RS256", accessToken)
	}
	if code != "" {
		claims["c_hash"] = protocol.HalfHash("RS256", code)
	}
	var scopes []string
	if withUser || client.IDTokenClaims {
		scopes = g.Scopes
	}
	for name, value := range client.renamed(p.userClaims(user, scopes, g.Claims.IDToken)) {
		if _, taken := claims[name]; !taken {
			claims[name] = value
		}
	}
	return p.sign(ctx, p.idKeys, "JWT", claims)
}

// sign signs a token with the current key, which a command or another node may have
// changed.
func (p *Provider) sign(ctx context.Context, keys *signing.Keys, typ string, claims map[string]any) (string, error) {
	_ = keys.Reload(ctx, signing.ReloadInterval) // if it fails, it is logged and the keys in memory are used
	return keys.Sign(typ, claims)
}

func isChallenge(challenge string) bool {
	sum, err := base64.RawURLEncoding.Strict().DecodeString(challenge)
	return err == nil && len(sum) == sha256.Size && !strings.ContainsAny(challenge, "\r\n") // which the decoder skips
}

// verifies reports whether a code_verifier matches the challenge (RFC 7636 §4.6).
func verifies(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}

// give issues the tokens of a grant, with a refresh token if the client may have one.
func (p *Provider) give(
	ctx context.Context, client *Client, g *grant, user store.User, target []string, refreshToken string,
) (*tokens, error) {
	access, lifetime, err := p.accessToken(ctx, client, g, user, target)
	if err != nil {
		return nil, err
	}
	granted := &tokens{
		AccessToken: access, TokenType: "Bearer", ExpiresIn: int64(lifetime / time.Second),
		RefreshToken: refreshToken, Scope: strings.Join(p.scopesAt(g.Scopes, target), " "),
	}
	if g.has("openid") {
		granted.IDToken, err = p.idToken(ctx, client, g, user, access, "", false)
	}
	return granted, err
}

// userOf returns the user of a grant if the grant is still valid: the user exists and is
// enabled, and the session is active unless the grant outlives it.
func (p *Provider) userOf(ctx context.Context, g *grant) (store.User, error) {
	user, err := p.accounts.Store().User(ctx, g.UserID)
	if err == nil && user.Disabled {
		err = errNotFound
	}
	switch {
	case err != nil:
	case !g.has("offline_access"):
		_, err = p.accounts.Session(ctx, g.UserID, g.SessionID)
	default:
		var same bool
		if same, err = p.accounts.SamePassword(ctx, user, g.Password); err == nil && !same {
			err = errNotFound
		}
	}
	return user, err
}

// mayUse reports whether a user may log in to a client, by its roles.
func (c *Client) mayUse(user store.User) bool {
	return len(c.Roles) == 0 || slices.ContainsFunc(user.Roles, func(role string) bool {
		return slices.Contains(c.Roles, role)
	})
}

// userFor returns the user of a grant of the client, as userOf, if the user may still use it.
func (p *Provider) userFor(ctx context.Context, client *Client, g *grant) (store.User, error) {
	user, err := p.userOf(ctx, g)
	if err == nil && !client.mayUse(user) {
		err = errNotFound
	}
	return user, err
}

// clientOf returns the client of a grant, if it is still the same client.
func (p *Provider) clientOf(ctx context.Context, g *grant) (*Client, error) {
	client, err := p.clients.find(ctx, g.ClientID)
	if failure, ok := errors.AsType[*oauthError](err); ok && failure.code == "invalid_client" {
		err = errNotFound // its document is no longer accepted
	}
	if err == nil && client.Since != g.Since {
		err = errNotFound
	}
	return client, err
}

// revokeGrant revokes a grant and everything issued for it.
func (p *Provider) revokeGrant(ctx context.Context, id string) error {
	return p.state.remove(ctx, kindGrant, id)
}
