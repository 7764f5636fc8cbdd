package provider

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
)

// API is a service that accepts access tokens of the provider. A client requests a token for
// it with the parameter `resource` (RFC 8707); such a token has its URL as `aud`, and no API
// with another URL accepts it.
type API struct {
	// URL identifies the API: an absolute URI without a fragment. It is compared character
	// by character with `resource`, so write it exactly as clients do, with or without a
	// slash at the end. Required.
	URL string `json:"url,omitempty"`

	// Name is the name that users see when they are asked for consent. Default: the URL.
	Name string `json:"name,omitempty"`

	// Scopes maps the scopes of the API to what they allow, in words for users, as in `See
	// your orders`; an empty text names the scope. A token for the API has only scopes from
	// this list and those of OpenID Connect; a client also needs them in its own `scopes`.
	// Default: none.
	Scopes map[string]string `json:"scopes,omitempty"`
}

func (a *API) options() []config.Option {
	return []config.Option{
		{Name: "name", Read: config.Word(`the name of the API that users see, as in: name "The Orders"`, &a.Name)},
		{Name: "scopes", Repeatable: true, Read: a.readScopes},
	}
}

// readScopes parses scopes in a line, or in a block with a text for each.
func (a *API) readScopes(b *config.Block, _ string) error {
	const takes = "scopes takes scopes, as in: scopes orders:read orders:write; or a block with a scope and " +
		`its text on each line, as in: orders:read "See your orders"`
	inLine := b.RemainingArgs()
	for _, scope := range inLine {
		if err := a.addScope(b, scope, ""); err != nil {
			return err
		}
	}
	inBlock := false
	for nesting := b.Nesting(); b.NextBlock(nesting); inBlock = true {
		scope, text := b.Val(), b.RemainingArgs()
		if len(text) > 1 {
			return b.Errf("scopes: put the text of %s in quotes, as in: %s \"See your orders\"", scope, scope)
		}
		if err := a.addScope(b, scope, append(text, "")[0]); err != nil {
			return err
		}
	}
	if len(inLine) == 0 && !inBlock || len(inLine) > 0 && inBlock {
		return b.Errf("%s", takes)
	}
	return nil
}

func (a *API) addScope(b *config.Block, scope, text string) error {
	if _, twice := a.Scopes[scope]; twice {
		return b.Errf("scopes: %s is specified twice in api %s", scope, a.URL)
	}
	if a.Scopes == nil {
		a.Scopes = make(map[string]string)
	}
	a.Scopes[scope] = text
	return nil
}

// resolveAPIs resolves placeholders, sets defaults and checks the APIs.
func (p *Provider) resolveAPIs() error {
	p.apis = make(map[string]*API)
	for _, api := range p.APIs {
		if api == nil {
			return errors.New("apis is a list of objects, but one entry is null")
		}
		written := api.URL
		if err := api.resolve(p); err != nil {
			return fmt.Errorf("api %s: %w", written, err)
		}
		if p.apis[api.URL] != nil {
			return fmt.Errorf("api %s is specified twice", written)
		}
		p.apis[api.URL] = api
	}
	return nil
}

func (a *API) resolve(p *Provider) error {
	if err := config.Resolve("url", &a.URL); err != nil {
		return err
	}
	if a.Name != "" {
		if err := config.Resolve("name", &a.Name); err != nil {
			return err
		}
	}
	setDefault(&a.Name, a.URL)
	if !isResource(a.URL) {
		return errors.New("it must be an absolute URI without a fragment, as clients write it, " +
			"as in: api https://api.example.com/orders")
	}
	if a.URL == p.Issuer {
		return errors.New("it is the issuer, which is always known as the resource of userinfo; " +
			"choose a URL of its own, such as that of the API's path")
	}
	for scope := range a.Scopes {
		if err := protocol.CheckScope(scope); err != nil {
			return err
		}
		if scope == "account" || p.isOpenIDScope(scope) {
			return fmt.Errorf("scopes: %s is a scope of the users' own data; choose another name", scope)
		}
	}
	return nil
}

// isResource reports whether a text is an absolute URI without a fragment (RFC 8707 §2).
func isResource(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.IsAbs() && (u.Host != "" || u.Opaque != "") && u.User == nil &&
		!strings.ContainsAny(text, "# ")
}
