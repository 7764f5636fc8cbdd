package login

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"golang.org/x/oauth2"
)

// preset is what is known about a provider. Options override it.
type preset struct {
	label  string
	issuer string // of OpenID Connect; otherwise, it names the provider in stored identities
	scopes []string

	// endpoints of a provider that knows no OpenID Connect, below the issuer or absolute
	authorization, token, userinfo string

	idClaim, emailClaim string
	// verified is the claim that is true if the address is verified. Default: email_verified.
	verified string
	// proven reports that the address is always verified where there is one.
	proven bool

	authMethod   string
	responseMode string
	withoutNonce bool
	anyTenant    bool // the issuer in ID tokens depends on the tenant

	// without are claims that the provider never sends, with what to write instead of conditions on them.
	without map[string]string

	// complete adds claims that take further requests, or changes those that mean something else.
	complete func(ctx context.Context, l *Login, tokens *oauth2.Token, claims jwt.Claims) error
}

// presets are the providers that need no more than client_id and client_secret. Each follows the
// documentation of its provider for developers, at the addresses in docs/login-with.md.
var presets = map[string]preset{
	"apple": {
		label: "Apple", issuer: "https://appleid.apple.com", scopes: []string{"name", "email"},
		authMethod: postMethod, responseMode: formPost, without: noGroups, complete: appleUser,
	},
	"discord": {
		label: "Discord", issuer: "https://discord.com", scopes: []string{"identify", "email"},
		authorization: "/oauth2/authorize", token: "/api/oauth2/token", userinfo: "/api/users/@me",
		idClaim: "id", verified: "verified", complete: discordUser,
		without: map[string]string{groupsClaim: "its servers are organizations: allow organization <ID of a server>"},
	},
	"facebook": {
		label: "Facebook", issuer: "https://www.facebook.com", scopes: []string{"email", "public_profile"},
		authorization: "/v23.0/dialog/oauth", token: "https://graph.facebook.com/v23.0/oauth/access_token",
		userinfo: "https://graph.facebook.com/v23.0/me?fields=id,name,email",
		idClaim:  "id", authMethod: postMethod, without: noGroups,
	},
	"github": {
		label: "GitHub", issuer: "https://github.com", scopes: []string{"user:email"},
		authorization: "/login/oauth/authorize", token: "/login/oauth/access_token",
		userinfo: "https://api.github.com/user", idClaim: "id", authMethod: postMethod, complete: githubUser,
		without: map[string]string{groupsClaim: "it has organizations: allow organization <name>"},
	},
	"gitlab": {
		label: "GitLab", issuer: "https://gitlab.com",
		without: map[string]string{organizationsClaim: "it has groups: allow group <path>"},
	},
	"google": {label: "Google", issuer: "https://accounts.google.com", without: noGroups},
	"linkedin": {
		label: "LinkedIn", issuer: "https://www.linkedin.com/oauth", authMethod: postMethod, withoutNonce: true,
		without: noGroups,
	},
	"microsoft": {
		label: "Microsoft", issuer: "https://login.microsoftonline.com", anyTenant: true, complete: microsoftUser,
	},
	"x": {
		label: "X", issuer: "https://x.com", scopes: []string{"users.read", "tweet.read", "users.email"},
		authorization: "/i/oauth2/authorize", token: "https://api.x.com/2/oauth2/token",
		userinfo: "https://api.x.com/2/users/me?user.fields=confirmed_email,name,profile_image_url,username",
		idClaim:  "data.id", emailClaim: "data.confirmed_email", proven: true,
		without: noGroups,
	},
}

// noGroups is for providers that know neither groups nor organizations.
var noGroups = map[string]string{
	groupsClaim: "use allow domain, or give roles here", organizationsClaim: "use allow domain, or give roles here",
}

const (
	basicMethod = "client_secret_basic"
	postMethod  = "client_secret_post"
	noMethod    = "none"
	formPost    = "form_post"
)

// presetNames are the presets in order.
func presetNames() []string { return slices.Sorted(maps.Keys(presets)) }

// fill sets what the config leaves to the preset.
func (l *Login) fill() {
	p := &l.preset
	*p = presets[l.Preset]
	own := l.Issuer != "" && l.Issuer != p.issuer
	if own && l.Preset != "github" && l.Preset != "gitlab" || l.UserinfoEndpoint != "" {
		p.without = nil // who knows what that one sends?
	}
	if l.Label == "" {
		l.Label = p.label
	}
	if l.Label == "" {
		l.Label = l.Name
	}
	issuer := strings.TrimSuffix(l.Issuer, "/")
	if l.Issuer == "" {
		l.Issuer, issuer = p.issuer, p.issuer
	}
	for at, path := range map[*string]string{
		&l.AuthorizationEndpoint: p.authorization, &l.TokenEndpoint: p.token, &l.UserinfoEndpoint: p.userinfo,
	} {
		switch _, rest, absolute := strings.Cut(path, "://"); {
		case *at != "" || path == "":
		case !absolute:
			*at = issuer + path
		case own && l.Preset == "github": // an instance of one's own has its API below a path
			*at = issuer + "/api/v3" + rest[strings.Index(rest, "/"):]
		case own:
			*at = issuer + rest[strings.Index(rest, "/"):]
		default:
			*at = path
		}
	}
	if l.plain() && l.Issuer == "" {
		l.Issuer = l.UserinfoEndpoint
	}
	if len(l.Scopes) == 0 {
		l.Scopes = slices.Clone(p.scopes)
	}
	if len(l.Scopes) == 0 && !l.plain() {
		l.Scopes = []string{"email", "profile"}
	}
	l.AuthMethod, l.ResponseMode = either(l.AuthMethod, p.authMethod), either(l.ResponseMode, p.responseMode)
	l.IDClaim = either(either(l.IDClaim, p.idClaim), "sub")
	l.EmailClaim = either(either(l.EmailClaim, p.emailClaim), "email")
	l.WithoutNonce = l.WithoutNonce || p.withoutNonce
	if p.anyTenant && len(l.Tenants) == 0 {
		l.Tenants = []string{anyTenant}
	}
}

// either returns the first text that is not empty.
func either(text, fallback string) string {
	if text != "" {
		return text
	}
	return fallback
}

// plain reports whether the provider is one of OAuth 2.0 without OpenID Connect.
func (l *Login) plain() bool {
	return l.AuthorizationEndpoint != "" || l.TokenEndpoint != "" || l.UserinfoEndpoint != ""
}
