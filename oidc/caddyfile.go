package oidc

import (
	"strings"

	caddyjwt "github.com/caddy-jwt/caddy-jwt"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterDirective("oidc_provider", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("oidc_provider", httpcaddyfile.After, "try_files") // and so before jwt, whose tokens it needs none of
}

// parseDirective yields the routes of the provider and of its accounts.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next()
	provider := new(Provider)
	if err := provider.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if provider.Accounts == nil {
		provider.Accounts = new(caddyjwt.Accounts)
	}
	accounts := h.NewRoute(provider.Accounts.Matcher(), &caddyjwt.AccountsHandler{Accounts: *provider.Accounts})
	return append(accounts, h.NewRoute(nil, provider)...), nil
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
//	    }
//	    claims    <scope> <claim...>
//	    user_editable <property...>
//	    templates <dir>
//	}
//
// `client`, `claims`, `redirect_uri` and `post_logout_redirect_uri` may be
// repeated. A response type of several words stands in quotes.
func (p *Provider) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.Val() != "oidc_provider" {
		d.Next() // the directive's name
	}
	if d.NextArg() {
		return d.Errf("oidc_provider takes a block and no matcher: its paths are those of the issuer")
	}
	given := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := p.option(d, given); err != nil {
			return err
		}
	}
	if p.Issuer == "" {
		return d.Err("oidc_provider needs `issuer`, the URL of this site, as in: issuer https://id.example.com")
	}
	return nil
}

func (p *Provider) option(d *caddyfile.Dispenser, given map[string]bool) error {
	name := d.Val()
	if name != "client" && name != "claims" {
		if given[name] {
			return d.Errf("%s is specified twice", name)
		}
		given[name] = true
	}
	switch name {
	case "issuer":
		return word(d, "the URL of this site, as in: issuer https://id.example.com", &p.Issuer)
	case "user_editable":
		return words(d, "properties under profile of the accounts, as in: user_editable employer", &p.UserEditable)
	case "templates":
		return word(d, "a folder", &p.Templates)
	case "accounts":
		var err error
		p.Accounts, err = caddyjwt.ParseAccounts(d)
		return err
	case "claims":
		args := d.RemainingArgs()
		if len(args) < 2 {
			return d.Errf("claims takes a scope and the claims that it gives, as in: claims company employer department")
		}
		if p.Claims == nil {
			p.Claims = make(map[string][]string)
		}
		p.Claims[args[0]] = append(p.Claims[args[0]], args[1:]...)
		return nil
	case "client":
		client, err := parseClient(d)
		p.Clients = append(p.Clients, client)
		return err
	}
	return caddyjwt.UnknownOption(d, "oidc_provider", "it has issuer, accounts, client, claims, user_editable and templates")
}

func parseClient(d *caddyfile.Dispenser) (*Client, error) {
	client := new(Client)
	if err := word(d, "the client's ID and a block, as in: client my-app {", &client.ID); err != nil {
		return nil, err
	}
	given := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if given[name] && name != "redirect_uri" && name != "post_logout_redirect_uri" {
			return nil, d.Errf("%s is specified twice in client %s", name, client.ID)
		}
		given[name] = true
		if err := client.option(d, name); err != nil {
			return nil, err
		}
	}
	return client, nil
}

func (c *Client) option(d *caddyfile.Dispenser, name string) error {
	switch name {
	case "name":
		return word(d, "what users are told the client is called", &c.Name)
	case "secret":
		return word(d, "a secret or its hash, as in: secret {env.APP_SECRET}", &c.Secret)
	case "public":
		if d.NextArg() {
			return d.Errf("public takes no value, not %q", d.Val())
		}
		c.Public = true
		return nil
	case "introspect":
		if d.NextArg() {
			return d.Errf("introspect takes no value, not %q", d.Val())
		}
		c.Introspect = true
		return nil
	case "public_key":
		return word(d, "a public key as PEM, JWK or JWK set", &c.PublicKey)
	case "redirect_uri":
		return words(d, "URLs, as in: redirect_uri https://app.example.com/callback", &c.RedirectURIs)
	case "post_logout_redirect_uri":
		return words(d, "URLs, as in: post_logout_redirect_uri https://app.example.com/", &c.PostLogoutRedirectURIs)
	case "grant_types":
		return words(d, "grant types: "+strings.Join(grantTypes, ", "), &c.GrantTypes)
	case "response_types":
		return words(d, `response types, as in: response_types code "code id_token"`, &c.ResponseTypes)
	case "scopes":
		return words(d, "scopes, as in: scopes openid profile email", &c.Scopes)
	case "access_token_lifetime":
		return duration(d, &c.AccessTokenLifetime)
	case "refresh_token_lifetime":
		return duration(d, &c.RefreshTokenLifetime)
	case "id_token_lifetime":
		return duration(d, &c.IDTokenLifetime)
	case "consent":
		return word(d, "always, once or never", &c.Consent)
	case "backchannel_logout_uri":
		return word(d, "a URL", &c.BackchannelLogoutURI)
	}
	return caddyjwt.UnknownOption(d, "client", "it has name, secret, public, public_key, redirect_uri, post_logout_redirect_uri, grant_types, response_types, scopes, access_token_lifetime, refresh_token_lifetime, id_token_lifetime, consent, backchannel_logout_uri and introspect")
}

func word(d *caddyfile.Dispenser, takes string, into *string) error {
	name, args := d.Val(), d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return d.Errf("%s takes %s", name, takes)
	}
	*into = args[0]
	return nil
}

func words(d *caddyfile.Dispenser, takes string, into *[]string) error {
	name, args := d.Val(), d.RemainingArgs()
	if len(args) == 0 {
		return d.Errf("%s takes one or more %s", name, takes)
	}
	*into = append(*into, args...)
	return nil
}

func duration(d *caddyfile.Dispenser, into *caddy.Duration) error {
	const takes = "a duration, as in: 15m or 30d"
	name := d.Val()
	var text string
	if err := word(d, takes, &text); err != nil {
		return err
	}
	parsed, err := caddy.ParseDuration(text)
	if err != nil || parsed <= 0 {
		return d.Errf("%s takes %s, not %q", name, takes, text)
	}
	*into = caddy.Duration(parsed)
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Provider)(nil)
