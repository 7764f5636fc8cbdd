package provider

import (
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	config.RegisterBlock("oidc_provider", new(Provider).options())
	config.RegisterBlock("client", new(Client).options())
	config.RegisterBlock("api", new(API).options())
	httpcaddyfile.RegisterDirective("oidc_provider", parseDirective)
	// and therefore before jwt, since it needs no token
	httpcaddyfile.RegisterDirectiveOrder("oidc_provider", httpcaddyfile.After, "try_files")
}

// parseDirective returns the routes of the provider and of its accounts.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next()
	provider := new(Provider)
	if err := provider.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if provider.Accounts == nil {
		provider.Accounts = new(accounts.Config)
	}
	config.Remember(h.Dispenser, provider)
	return append(web.Routes(h, *provider.Accounts), h.NewRoute(nil, provider)...), nil
}

// UnmarshalCaddyfile sets up the provider from Caddyfile tokens. Syntax:
//
//	oidc_provider {
//	    issuer    <url>
//	    accounts  [<prefix>] { … }
//	    client <id> {
//	        name                     <text>
//	        secret                   <secret or its hash>
//	        public
//	        public_key               <PEM, JWK or JWK set>
//	        redirect_uri             <uri...>
//	        post_logout_redirect_uri <uri...>
//	        grant_types              <type...>
//	        response_types           <type...>
//	        scopes                   <scope...>
//	        access_token_lifetime    <duration>
//	        refresh_token_lifetime   <duration>
//	        id_token_lifetime        <duration>
//	        consent                  always|once|never
//	        backchannel_logout_uri   <uri>
//	        introspect
//	        roles                    <role...>
//	        id_token_claims
//	        rename_claim             <name> <claim>
//	        undotted_scheme
//	    }
//	    api <url> {
//	        name   <text>
//	        scopes <scope...>
//	        scopes {
//	            <scope> [<text>]
//	        }
//	    }
//	    client_documents <host...>|*
//	    claims    <scope> <claim...>
//	    user_editable <property...>
//	    access_token_algorithm ES256|RS256
//	    templates <dir>
//	}
//
// `client`, `api`, `scopes` of an API, `client_documents`, `claims`, `redirect_uri`,
// `post_logout_redirect_uri` and `rename_claim` may be repeated. Put a response type of several words in quotes.
func (p *Provider) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.Val() != "oidc_provider" {
		d.Next() // the directive's name
	}
	if d.NextArg() {
		return d.Errf("oidc_provider takes a block and no matcher; the issuer determines its paths")
	}
	if err := config.ReadBlock(d, "oidc_provider", p.options()); err != nil {
		return err
	}
	if p.Issuer == "" {
		return d.Err("oidc_provider requires `issuer`, the URL of this site, as in: issuer https://id.example.com")
	}
	return nil
}

func (p *Provider) options() []config.Option {
	return []config.Option{
		{Name: "issuer", Read: config.Word("the URL of this site, as in: issuer https://id.example.com", &p.Issuer)},
		{Name: "accounts", Read: func(b *config.Block, _ string) (err error) {
			p.Accounts, err = accounts.Parse(b.Dispenser)
			return err
		}},
		{Name: "client", Repeatable: true, Read: func(b *config.Block, name string) error {
			client := new(Client)
			if err := config.Word(
				"the client's ID and a block, as in: client my-app {", &client.ID,
			)(b, name); err != nil {
				return err
			}
			p.Clients = append(p.Clients, client)
			return config.ReadBlock(b.Dispenser, "client "+client.ID, client.options())
		}},
		{Name: "api", Repeatable: true, Read: func(b *config.Block, name string) error {
			api := new(API)
			if err := config.Word(
				"the URL of the API and a block, as in: api https://api.example.com/orders {", &api.URL,
			)(b, name); err != nil {
				return err
			}
			p.APIs = append(p.APIs, api)
			return config.ReadBlock(b.Dispenser, "api "+api.URL, api.options())
		}},
		{Name: "client_documents", Repeatable: true, Read: config.Words(
			"hosts, as in: client_documents claude.ai vscode.dev", &p.ClientDocuments,
		)},
		{Name: "claims", Repeatable: true, Read: p.readClaims},
		{
			Name: "user_editable",
			Read: config.Words("profile properties of the accounts, as in: user_editable employer", &p.UserEditable),
		},
		{Name: "access_token_algorithm", Read: config.Word("ES256 or RS256", &p.AccessTokenAlgorithm)},
		{Name: "templates", Read: config.Word("a folder", &p.Templates)},
	}
}

func (p *Provider) readClaims(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) < 2 {
		return b.Errf("claims takes a scope and the claims that it grants, as in: claims company employer department")
	}
	if p.Claims == nil {
		p.Claims = make(map[string][]string)
	}
	p.Claims[args[0]] = append(p.Claims[args[0]], args[1:]...)
	return nil
}

func (c *Client) options() []config.Option {
	return []config.Option{
		{Name: "name", Read: config.Word("the name of the client that users see", &c.Name)},
		{Name: "secret", Read: config.Word("a secret or its hash, as in: secret {env.APP_SECRET}", &c.Secret)},
		{Name: "public", Read: config.Flag(&c.Public)},
		{Name: "public_key", Read: config.Word("a public key as PEM, JWK or JWK set", &c.PublicKey)},
		{Name: "redirect_uri", Repeatable: true,
			Read: config.Words("URLs, as in: redirect_uri https://app.example.com/callback", &c.RedirectURIs)},
		{Name: "post_logout_redirect_uri", Repeatable: true,
			Read: config.Words(
				"URLs, as in: post_logout_redirect_uri https://app.example.com/", &c.PostLogoutRedirectURIs,
			)},
		{Name: "grant_types", Read: config.Words("grant types: "+strings.Join(grantTypes, ", "), &c.GrantTypes)},
		{
			Name: "response_types",
			Read: config.Words(`response types, as in: response_types code "code id_token"`, &c.ResponseTypes),
		},
		{Name: "scopes", Read: config.Words("scopes, as in: scopes openid profile email", &c.Scopes)},
		{Name: "access_token_lifetime", Read: config.Duration(&c.AccessTokenLifetime)},
		{Name: "refresh_token_lifetime", Read: config.Duration(&c.RefreshTokenLifetime)},
		{Name: "id_token_lifetime", Read: config.Duration(&c.IDTokenLifetime)},
		{Name: "consent", Read: config.Word("always, once or never", &c.Consent)},
		{Name: "backchannel_logout_uri", Read: config.Word("a URL", &c.BackchannelLogoutURI)},
		{Name: "introspect", Read: config.Flag(&c.Introspect)},
		{Name: "roles", Read: config.Words("roles, as in: roles staff", &c.Roles)},
		{Name: "id_token_claims", Read: config.Flag(&c.IDTokenClaims)},
		{Name: "rename_claim", Repeatable: true, Read: c.readRenameClaim},
		{Name: "undotted_scheme", Read: config.Flag(&c.UndottedScheme)},
	}
}

func (c *Client) readRenameClaim(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) != 2 {
		return b.Errf("rename_claim takes the name for the client and the claim here, as in: rename_claim groups roles")
	}
	if c.RenameClaims == nil {
		c.RenameClaims = make(map[string]string)
	}
	if c.RenameClaims[args[0]] != "" {
		return b.Errf("rename_claim %s is specified twice", args[0])
	}
	c.RenameClaims[args[0]] = args[1]
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Provider)(nil)
