// Package login logs users in through another provider, of OpenID Connect or OAuth 2.0: the option
// `login_with`, the Caddy module jwt.logins.oidc.
package login

import (
	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
)

func init() {
	caddy.RegisterModule(new(Login))
	config.RegisterBlock("login_with", new(Login).options())
}

// Login lets users log in through another provider: by the authorization code flow of OpenID
// Connect Core 1.0 §3.1 or, if the provider knows no OpenID Connect, that of OAuth 2.0 (RFC 6749
// §4.1); with PKCE (RFC 7636, S256), `nonce`, and `iss` in the response (RFC 9207). Discovery runs
// when it is first needed, and again after a failure, so an outage of the provider does not affect
// anything else. A user is always recognized by the ID at the provider, never by the address.
type Login struct {
	// Name of the log-in. It is part of its paths below the prefix of the accounts:
	// `/login/<name>` starts the log-in, `/callback/<name>` is its redirect URI, and
	// `/backchannel/<name>` receives the provider's logout tokens. Required.
	Name string `json:"name,omitempty"`

	// Label is the text of the button. Default: the name, or that of the preset.
	Label string `json:"label,omitempty"`

	// Preset is a provider that needs no more than `client_id` and `client_secret`: `apple`,
	// `discord`, `facebook`, `github`, `gitlab`, `google`, `linkedin`, `microsoft` or `x`. Other
	// options override what it sets. Default in a Caddyfile: the name, if neither `issuer` nor
	// endpoints are set.
	Preset string `json:"preset,omitempty"`

	// Issuer is the `iss` of the provider: https, http to this machine or, with `allow_http`, any
	// http. With `preset github` or `gitlab` it is the URL of an instance of your own. With
	// endpoints, it only names the provider in stored identities: two providers whose users have
	// different IDs must have different ones; default: `userinfo_endpoint`. Otherwise required.
	Issuer string `json:"issuer,omitempty"`

	// AuthorizationEndpoint is where a provider that knows OAuth 2.0, but not OpenID Connect, logs
	// users in. Such a provider needs all three endpoints. Default: that of the provider's
	// discovery document, or of the preset.
	AuthorizationEndpoint string `json:"authorization_endpoint,omitempty"`

	// TokenEndpoint is where such a provider exchanges the code. Default: that of the
	// discovery document, or of the preset.
	TokenEndpoint string `json:"token_endpoint,omitempty"`

	// UserinfoEndpoint is where such a provider tells about the user, with the ID in `id_claim`.
	// Default: that of the discovery document, or of the preset.
	UserinfoEndpoint string `json:"userinfo_endpoint,omitempty"`

	// Tenants are the tenants of `preset microsoft` whose users may log in: IDs such as
	// `8eaef023-2b34-4da1-9baa-8bc8c9d6a490`, `organizations` for any organization,
	// `consumers` for personal accounts, or `common` for both. Default: `common`.
	Tenants []string `json:"tenants,omitempty"`

	// ClientID is the ID of this site at the provider. Required.
	ClientID string `json:"client_id,omitempty"`

	// ClientSecret is the secret of this site at the provider. Default: none, for a public
	// client; presets need one unless `auth_method` is `none`.
	ClientSecret string `json:"client_secret,omitempty"`

	// AuthMethod is how the token endpoint gets the secret: `client_secret_basic` (in the
	// header), `client_secret_post` (in the form), or `none`. Default: `client_secret_basic`,
	// unless the provider says that it does not take it.
	AuthMethod string `json:"auth_method,omitempty"`

	// TeamID is the ID of the team at Apple. With it, `key_id` and `private_key`, the client secret
	// of `preset apple` is made, which is a JWT. Required for it.
	TeamID string `json:"team_id,omitempty"`

	// KeyID is the ID of the key at Apple. Required for `preset apple`.
	KeyID string `json:"key_id,omitempty"`

	// PrivateKey is the file with the key (`.p8`), or its PEM. Required for `preset apple`.
	PrivateKey string `json:"private_key,omitempty"`

	// Scopes are requested from the provider; `openid` is always included where it is OpenID
	// Connect. Default: `openid email profile`, or those of the preset.
	Scopes []string `json:"scopes,omitempty"`

	// MapClaim maps claims of the provider to properties of a new user, which must be
	// listed in `profile` of the accounts. Write a claim within another one with a dot.
	// Default: none.
	MapClaim map[string]string `json:"map_claim,omitempty"`

	// IDClaim is the claim with the ID of the user, of a provider that knows no OpenID Connect.
	// It must be one that never changes and is never given to another user, so no name and no
	// address, which is refused. Default: `sub`.
	IDClaim string `json:"id_claim,omitempty"`

	// EmailClaim is the claim with the address, if it is not `email`. Only `email` can be marked
	// as verified, so another one also needs `trust_email`. Default: `email`.
	EmailClaim string `json:"email_claim,omitempty"`

	// TrustEmail accepts the provider's e-mail addresses even if they are not marked as
	// verified. Anybody who can choose any address there can then prevent its owner from
	// creating an account here, and can impersonate the owner if a rule or an application
	// uses the address. Default: `email_verified` must be true.
	TrustEmail bool `json:"trust_email,omitempty"`

	// RolesFrom gives users roles by their claims, at each log-in: a role that the claims no
	// longer give is taken away, and roles that were given here are kept. Default: none.
	RolesFrom []RolesFrom `json:"roles_from,omitempty"`

	// Allow lists what users must have to log in; each of the conditions must hold. It is checked
	// at each log-in; sessions that exist go on. Default: every user of the provider may.
	Allow []Condition `json:"allow,omitempty"`

	// AuthorizationParameters are added to the authorization request, such as `prompt
	// select_account`. Default: none.
	AuthorizationParameters map[string]string `json:"authorization_parameters,omitempty"`

	// ResponseMode is `form_post` for a provider that must answer by a form (OAuth 2.0 Form Post
	// Response Mode). Default: `query`.
	ResponseMode string `json:"response_mode,omitempty"`

	// WithoutPKCE sends no `code_challenge` and no `code_verifier`, for a provider that refuses
	// them. Then a code that somebody stole or injected is only detected by the nonce; and not at
	// all without OpenID Connect.
	WithoutPKCE bool `json:"without_pkce,omitempty"`

	// WithoutNonce accepts ID tokens without nonce, for a provider that leaves it out. Then an ID
	// token of another log-in is only detected by PKCE. A wrong nonce is refused all the same.
	WithoutNonce bool `json:"without_nonce,omitempty"`

	// AllowHTTP accepts plain http to other machines. Anybody in between can then log in as
	// anybody, and learns the secret.
	AllowHTTP bool `json:"allow_http,omitempty"`

	// TrustedCACerts are PEM files with the certificates of the CAs that are trusted for the
	// provider. Default: the CAs of the system.
	TrustedCACerts []string `json:"trusted_ca_certs,omitempty"`

	// AutoLogin sends a browser that must log in straight to the provider; the log-in page is
	// only shown after log-out and after a failure. At most one provider of a site can have it.
	AutoLogin bool `json:"auto_login,omitempty"`

	// RedirectURI is the redirect URI that is registered at the provider, if it differs
	// from the URL of the request because a proxy changes the host or path. It must end in
	// `/callback/<name>`. Default: derived from the request.
	RedirectURI string `json:"redirect_uri,omitempty"`

	preset   preset
	provider *provider
	secret   func() (string, error) // the client secret
	log      *zap.Logger
	said     outage.Notes // faults
}

// RolesFrom gives roles by a claim: a text, a list of texts, or an object. Of an object the names count,
// as in the roles of Zitadel, but not those whose value is false or null.
type RolesFrom struct {
	// Claim whose values decide. Write a claim within another one with a dot. Of an object the names
	// count, but not those whose value is false or null. Required.
	Claim string `json:"claim,omitempty"`
	// Roles are the roles for each value. Default: each value is a role itself, so whoever
	// names groups at the provider gives any role here.
	Roles map[string][]string `json:"roles,omitempty"`
}

// Condition is what a user must have to log in.
type Condition struct {
	// Kind is `domain` (of the verified address, and of `hd` at Google), `group` (in the claim
	// `groups`), `organization` (in the claim `organizations`, which the presets `github` and
	// `discord` look up), or `claim`. Required.
	Kind string `json:"kind,omitempty"`
	// Claim is the name of the claim if Kind is `claim`. Of a claim that is an object the names count,
	// but not those whose value is false or null.
	Claim string `json:"claim,omitempty"`
	// Values of which the user must have one. Required.
	Values []string `json:"values,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Login) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "jwt.logins.oidc",
		New: func() caddy.Module { return new(Login) },
	}
}

// Describe implements accounts.ExternalLogin.
func (l *Login) Describe() accounts.ExternalLoginInfo {
	return accounts.ExternalLoginInfo{Name: l.Name, Label: l.Label, Profile: l.MapClaim, Auto: l.AutoLogin}
}

// Interface guards
var (
	_ caddy.Provisioner      = (*Login)(nil)
	_ caddy.CleanerUpper     = (*Login)(nil)
	_ caddyfile.Unmarshaler  = (*Login)(nil)
	_ accounts.ExternalLogin = (*Login)(nil)
)
