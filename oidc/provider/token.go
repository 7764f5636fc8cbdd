package provider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/google/uuid"
	"go.uber.org/zap"
)

func seconds(d time.Duration) string { return strconv.FormatInt(int64(d/time.Second), 10) }

// token is the token endpoint (RFC 6749 §3.2).
func (p *Provider) token(w http.ResponseWriter, r *http.Request) error {
	began := p.accounts.Now()
	values, err := form(r)
	if err != nil {
		return err
	}
	client, err := p.authenticate(r, values)
	if err != nil {
		return err
	}
	var granted *tokens
	grantType := values.Get("grant_type")
	switch {
	case grantType == "":
		return refuse("invalid_request", "grant_type is missing")
	case !slices.Contains(grantTypes, grantType) || grantType == grantImplicit:
		return refuse("unsupported_grant_type", "grant_type must be one of "+strings.Join(grantTypes[:4], ", "))
	case !slices.Contains(client.GrantTypes, grantType):
		return refuse("unauthorized_client", "the client is not registered for this grant_type")
	case grantType == grantCode:
		granted, err = p.byCode(r.Context(), client, values)
	case grantType == grantRefresh:
		granted, err = p.byRefreshToken(r.Context(), client, values, began)
	case grantType == grantCredentials:
		granted, err = p.byCredentials(r.Context(), client, values)
	case grantType == grantDevice:
		granted, err = p.byDevice(r.Context(), client, values)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Pragma", "no-cache") // OpenID Connect Core §3.1.3.3
	return writeJSON(w, http.StatusOK, granted)
}

// byCode issues tokens for an authorization code, once. A replay revokes them (RFC 6749
// §4.1.2); see giveOnce.
func (p *Provider) byCode(ctx context.Context, client *Client, values url.Values) (*tokens, error) {
	const wrong = "the code is unknown, has expired, was already used, or belongs to another client or redirect_uri"
	if err := required(values, "code"); err != nil {
		return nil, err
	}
	id := hashed(values.Get("code"))
	kept, err := load[code](ctx, p.state, kindCode, id)
	if errors.Is(err, errNotFound) {
		return nil, refuse("invalid_grant", wrong)
	}
	if err != nil {
		return nil, err
	}
	if kept.Grant.ClientID != client.ID { // the code was issued to another client
		return nil, refuse("invalid_grant", wrong)
	}
	if kept.RedirectURI != values.Get("redirect_uri") {
		return nil, refuse("invalid_grant", wrong)
	}
	if verifier := values.Get("code_verifier"); kept.Challenge == "" && verifier != "" ||
		kept.Challenge != "" && !verifies(verifier, kept.Challenge) {
		return nil, refuse("invalid_grant", "code_verifier does not match the code_challenge")
	}
	replayed := func() (*tokens, error) {
		p.log.Warn(
			"authorization code was used twice; its tokens are revoked", help.See("code-used-twice"),
			zap.String("client_id", client.ID),
		)
		if err := p.revokeGrant(ctx, kept.Grant.ID); err != nil {
			return nil, err
		}
		return nil, refuse("invalid_grant", wrong)
	}
	if kept.GivenBy != "" {
		return replayed()
	}
	if !p.accounts.Now().Before(kept.ExpiresAt) {
		return nil, refuse("invalid_grant", wrong)
	}
	target, err := p.target(kept.Grant.Resources, values["resource"])
	if err != nil {
		return nil, err
	}
	granted, err := p.giveOnce(ctx, oneUse{
		client: client, grant: &kept.Grant, target: target,
		code: values.Get("code"), family: kept.Family, kept: kept.Hybrid,
		mark: func(ctx context.Context, f func(*string) error) error {
			_, err := change(ctx, p.state, kindCode, id, func(c *code) error { return f(&c.GivenBy) })
			return err
		},
	})
	if errors.Is(err, errGiven) {
		return replayed()
	}
	return granted, err
}

// required returns an error if a parameter is missing (RFC 6749 §5.2).
func required(values url.Values, name string) error {
	if values.Get(name) == "" {
		return refuse("invalid_request", name+" is missing")
	}
	return nil
}

// byRefreshToken rotates a refresh token. If the successor of the token was already used,
// it ends the grant, because both the owner and a thief have the token (RFC 9700 §4.14.2).
func (p *Provider) byRefreshToken(
	ctx context.Context, client *Client, values url.Values, began time.Time,
) (*tokens, error) {
	const wrong = "the refresh token is unknown, has expired, was already used, or belongs to another client"
	if err := required(values, "refresh_token"); err != nil {
		return nil, err
	}
	presented := values.Get("refresh_token")
	id, family := splitRefreshToken(presented)
	g, err := load[grant](ctx, p.state, kindGrant, id)
	if errors.Is(err, errNotFound) ||
		err == nil && (g.ClientID != client.ID || g.Since != client.Since || g.FamilyHash != hashed(family)) {
		p.accounts.Refreshed("refused")
		return nil, refuse("invalid_grant", wrong)
	}
	if err != nil {
		return nil, err
	}
	user, err := p.userFor(ctx, client, &g)
	if err == nil {
		err = p.mayContinue(ctx, &g, user)
	}
	if errors.Is(err, errNotFound) {
		return nil, refuse("invalid_grant", "the user is no longer logged in, or may not use the client")
	}
	if err != nil {
		return nil, err
	}
	scopes, err := narrowed(&g, stillAllowed(client, g.Scopes), values.Get("scope"))
	if err != nil {
		return nil, err
	}
	target, err := p.target(g.Resources, values["resource"])
	if err != nil {
		return nil, err
	}
	use, err := p.accounts.UseRefreshToken(ctx, accounts.RefreshUse{
		Token: presented, Family: id + "~" + family + "~", HashOf: hashed, Began: began,
	})
	if err != nil {
		return nil, err
	}
	g, successor, result, err := p.rotate(ctx, id, use)
	switch {
	case errors.Is(err, accounts.ErrRefreshReused):
		if err := p.revokeGrant(ctx, id); err != nil {
			return nil, err
		}
		p.accounts.Refreshed("reused")
		p.log.Warn(
			"refresh token was used twice; its grant is revoked", help.See("refresh-token-used-twice"),
			zap.String("client_id", client.ID),
		)
		return nil, refuse("invalid_grant", wrong)
	case errors.Is(err, errNotFound):
		return nil, refuse("invalid_grant", wrong)
	case err != nil:
		return nil, err
	}
	line := g.line()
	p.limit(&g.Claims, client)
	g.Scopes, g.Nonce = scopes, "" // OpenID Connect Core §12.2
	tokens, err := p.give(ctx, client, &g, user, target, successor)
	if err == nil {
		err = use.InTime(line)
	}
	if err == nil {
		p.accounts.Refreshed(result)
	}
	return tokens, err
}

// mayContinue refuses to refresh a grant of a user of whom the site requires a second factor by now,
// if none was proved: in the session or, for a grant that outlives it, when the grant was given.
func (p *Provider) mayContinue(ctx context.Context, g *grant, user store.User) error {
	if g.Trusted || !p.accounts.RequiresFactor(user) {
		return nil
	}
	methods := g.Methods
	if !g.has("offline_access") {
		session, err := p.accounts.Session(ctx, g.UserID, g.SessionID)
		if err != nil {
			return err
		}
		methods = session.Methods
	}
	proved, err := p.accounts.HasProved(ctx, user, g.SessionID, methods)
	if err == nil && !proved {
		err = refuse("invalid_grant", "the site requires a second factor of the user by now, who must log in again")
	}
	return err
}

// rotate replaces the refresh token of a grant. It returns the successor, the grant as
// stored then, and whether it is the same successor again. It returns
// [accounts.ErrRefreshReused] for a reused token.
func (p *Provider) rotate(
	ctx context.Context, id string, use *accounts.RefreshUse,
) (g grant, successor, result string, err error) {
	g, err = change(ctx, p.state, kindGrant, id, func(kept *grant) error {
		line := kept.line()
		next, token, err := use.Rotate(line)
		if err != nil {
			return err
		}
		if successor, result = token, "ok"; next.PreviousHash == line.PreviousHash {
			result = "repeated"
		}
		if next == line {
			return errSameLine
		}
		kept.setLine(next)
		return nil
	})
	if errors.Is(err, errSameLine) { // g is unchanged
		err = nil
	}
	return g, successor, result, err
}

// errSameLine means that the same refresh token is returned again and nothing must be
// written.
var errSameLine = errors.New("nothing changes")

// stillAllowed returns the scopes that the client is still allowed.
func stillAllowed(client *Client, scopes []string) []string {
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
		return !slices.Contains(client.Scopes, scope)
	})
}

// narrowed returns the scopes of a refresh: the granted scopes, as far as the client is still
// allowed them, or some of them (RFC 6749 §6).
func narrowed(g *grant, granted []string, text string) ([]string, error) {
	asked := strings.Fields(text)
	slices.Sort(asked)
	asked = slices.Compact(asked)
	if len(asked) == 0 {
		asked = granted
	}
	if len(asked) == 0 && len(g.Scopes) > 0 { // a grant for an API may have none
		return nil, refuse("invalid_scope", "the client is no longer allowed any of the granted scopes")
	}
	for _, scope := range asked {
		if !slices.Contains(granted, scope) {
			return nil, refuse("invalid_scope", "scope contains a scope that was not granted")
		}
	}
	return asked, nil
}

// machineSuffix distinguishes the `sub` of a client's own tokens from users (RFC 9068 §5):
// user IDs never end with it.
const machineSuffix = "@clients"

// byCredentials issues a token to the client itself (RFC 6749 §4.4).
func (p *Provider) byCredentials(ctx context.Context, client *Client, values url.Values) (*tokens, error) {
	target, err := p.parseResources(values["resource"])
	if err != nil {
		return nil, err
	}
	scopes := strings.Fields(values.Get("scope"))
	if len(scopes) == 0 {
		scopes = p.defaultScopes(client, target)
	}
	for _, scope := range scopes {
		if !slices.Contains(client.Scopes, scope) || scope == "openid" || scope == "offline_access" {
			return nil, refuse(
				"invalid_scope", "scope contains a scope that the client is not allowed, or that requires a user",
			)
		}
	}
	if len(p.scopesAt(scopes, target)) < len(scopes) {
		return nil, refuse("invalid_scope", "scope contains a scope of none of the resources")
	}
	now, lifetime := p.accounts.Now(), time.Duration(client.AccessTokenLifetime)
	token, err := p.sign(ctx, p.accessKeys(), "at+jwt", map[string]any{
		"iss": p.Issuer, "aud": p.audience(target), "sub": client.ID + machineSuffix, "client_id": client.ID,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(lifetime).Unix(),
		"jti": uuid.NewString(), "scope": strings.Join(scopes, " "),
	})
	return &tokens{
		AccessToken: token, TokenType: "Bearer",
		ExpiresIn: int64(lifetime / time.Second), Scope: strings.Join(scopes, " "),
	}, err
}

// live verifies an access token and checks that it was not revoked.
func (p *Provider) live(ctx context.Context, accessToken string) (*jwt.Token, error) {
	token, err := p.tokens.Verify(ctx, accessToken, p.accounts.Now())
	if err != nil {
		return nil, err
	}
	jti, _ := token.Claims["jti"].(string)
	switch _, err := load[struct{}](ctx, p.state, kindRevoked, jti); {
	case err == nil:
		return nil, errNotFound
	case !errors.Is(err, errNotFound):
		return nil, err
	}
	if id, ofUser := token.Claims["gid"].(string); ofUser {
		g, err := load[grant](ctx, p.state, kindGrant, id)
		if err != nil {
			return nil, err
		}
		if _, err = p.userOf(ctx, &g); err == nil {
			_, err = p.clientOf(ctx, &g)
		}
		return token, err
	}
	id, _ := token.Claims["client_id"].(string)
	client, err := p.clients.find(ctx, id)
	if err == nil && client.Since != "" {
		since, parseErr := time.Parse(time.RFC3339Nano, client.Since)
		if issued, _ := token.Claims["iat"].(int64); parseErr == nil && issued < since.Unix() {
			err = errNotFound // of another client with the same ID
		}
	}
	return token, err
}
