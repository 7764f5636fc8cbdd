package login

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"golang.org/x/oauth2"
)

// githubUser sets the address to the primary one, if it is verified: the one in the profile is any
// that the user likes to show. Organizations are looked up if they are needed.
func githubUser(ctx context.Context, l *Login, tokens *oauth2.Token, claims jwt.Claims) error {
	delete(claims, "email")
	var addresses []struct {
		Email             string
		Primary, Verified bool
	}
	if err := l.fetch(ctx, tokens, l.UserinfoEndpoint+"/emails", &addresses); err != nil {
		return err
	}
	for _, address := range addresses {
		if address.Primary && address.Verified {
			claims["email"], claims["email_verified"] = address.Email, true
		}
	}
	if !l.uses(organizationsClaim) {
		return nil
	}
	var organizations []struct{ Login string }
	if err := l.fetch(ctx, tokens, l.UserinfoEndpoint+"/orgs?per_page=100", &organizations); err != nil {
		return err
	}
	names := make(jwt.List, len(organizations))
	for i, organization := range organizations {
		names[i] = organization.Login
	}
	claims[organizationsClaim] = names
	return nil
}

// discordUser looks up the servers of the user if they are needed.
func discordUser(ctx context.Context, l *Login, tokens *oauth2.Token, claims jwt.Claims) error {
	if !l.uses(organizationsClaim) {
		return nil
	}
	var guilds []struct{ ID string }
	if err := l.fetch(ctx, tokens, l.UserinfoEndpoint+"/guilds", &guilds); err != nil {
		return err
	}
	names := make(jwt.List, len(guilds))
	for i, guild := range guilds {
		names[i] = guild.ID
	}
	claims[organizationsClaim] = names
	return nil
}

// needScopes adds the scopes without which what the config needs cannot be looked up.
func (l *Login) needScopes() {
	scope := map[string]string{"github": "read:org", "discord": "guilds"}[l.Preset]
	if scope != "" && l.uses(organizationsClaim) && !slices.Contains(l.Scopes, scope) {
		l.Scopes = append(l.Scopes, scope)
	}
}

// facebookProof adds to a request of Facebook's API that it comes from the app itself
// (`appsecret_proof`), not from somebody who has stolen the access token.
func facebookProof(at *url.URL, accessToken, secret string) {
	if strings.HasSuffix(at.Path, "/me") {
		query := at.Query()
		query.Set("appsecret_proof", hexHMAC(secret, accessToken))
		at.RawQuery = query.Encode()
	}
}
