package provider

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// Resource indicators (RFC 8707): with the parameter `resource` a client says for which APIs
// it wants an access token. Such a token has these APIs as its audience, and no other scopes
// than theirs, so that none of them can use it at another. The issuer itself is a resource
// too: its tokens are for userinfo, as are those of requests without a resource.

// parseResources returns the resources of a request, each once. They are compared letter by
// letter with the config.
func (p *Provider) parseResources(values []string) (resources []string, err error) {
	for _, resource := range values {
		switch {
		case resource == "" || slices.Contains(resources, resource): // RFC 6749 §3.1
			continue
		case !isResource(resource):
			return nil, refuse("invalid_target", "resource must be an absolute URI without a fragment (RFC 8707 §2)")
		case !p.hasResource(resource):
			return nil, refuse(
				"invalid_target", "resource is not an API of this provider, character by character",
			)
		}
		resources = append(resources, resource)
	}
	return resources, nil
}

func (p *Provider) hasResource(resource string) bool {
	return resource == p.Issuer || p.apis[resource] != nil
}

// target returns the resources of an access token: those that the token request names, or all
// of the grant (RFC 8707 §2.2).
func (p *Provider) target(granted, values []string) ([]string, error) {
	asked, err := p.parseResources(values)
	if err != nil {
		return nil, err
	}
	for _, resource := range asked {
		if !slices.Contains(granted, resource) {
			return nil, refuse("invalid_target", "resource was not granted by the authorization request")
		}
	}
	if len(asked) > 0 {
		return asked, nil
	}
	left := slices.DeleteFunc(slices.Clone(granted), func(resource string) bool { return !p.hasResource(resource) })
	if len(granted) > 0 && len(left) == 0 { // otherwise the token would be for the issuer
		return nil, refuse("invalid_target", "this provider no longer has any of the granted resources")
	}
	return left, nil
}

// audience returns the `aud` of an access token.
func (p *Provider) audience(target []string) any {
	switch len(target) {
	case 0:
		return p.Issuer
	case 1:
		return target[0]
	}
	return target
}

// isMeantFor reports whether a token's `aud` contains an audience.
func isMeantFor(claims jwt.Claims, audience string) bool {
	list, _ := claims["aud"].(jwt.List)
	return claims["aud"] == audience || slices.Contains(list, any(audience))
}

// isOpenIDScope reports whether a scope is about the user, and so belongs to no API.
func (p *Provider) isOpenIDScope(scope string) bool {
	return scope == "openid" || scope == "offline_access" || p.Claims[scope] != nil
}

// scopesAt returns the scopes that mean something at the resources of a token.
func (p *Provider) scopesAt(scopes, target []string) []string {
	if len(target) == 0 || slices.Contains(target, p.Issuer) {
		return scopes
	}
	return slices.DeleteFunc(slices.Clone(scopes), func(scope string) bool {
		return !p.isOpenIDScope(scope) && !slices.ContainsFunc(target, func(resource string) bool {
			return p.apis[resource].has(scope)
		})
	})
}

func (a *API) has(scope string) bool {
	if a == nil {
		return false
	}
	_, found := a.Scopes[scope]
	return found
}

// defaultScopes returns the scopes of a request that names APIs but no scopes (RFC 6749 §3.3).
func (p *Provider) defaultScopes(client *Client, resources []string) (scopes []string) {
	for _, resource := range resources {
		if api := p.apis[resource]; api != nil {
			scopes = append(scopes, slices.Sorted(maps.Keys(api.Scopes))...)
		}
	}
	slices.Sort(scopes)
	return stillAllowed(client, slices.Compact(scopes))
}

// access returns what a user is asked to allow: scopes, each of an API followed by a space and
// the API, because one scope may mean different things at two APIs. An API of which no scope
// is requested stands alone after the space.
func (p *Provider) access(scopes, resources []string) (access []string) {
	atAPI := make(map[string]bool)
	for _, scope := range scopes {
		alone := true
		for _, resource := range resources {
			if p.apis[resource].has(scope) {
				access = append(access, scope+" "+resource)
				atAPI[resource], alone = true, false
			}
		}
		if alone {
			access = append(access, scope)
		}
	}
	for _, resource := range resources {
		if p.apis[resource] != nil && !atAPI[resource] {
			access = append(access, " "+resource)
		}
	}
	return access
}

// describe returns what access returned, in words.
func (p *Provider) describe(language *texts.Language, access []string) (described []string) {
	for _, one := range access {
		scope, resource, _ := strings.Cut(one, " ")
		api, name := p.apis[resource], resource
		if api != nil {
			name = api.Name
		}
		text := language.Text(scopeTexts[scope])
		switch {
		case scope == "" && resource != "":
			described = append(described, language.Text("Use %s for you", name))
			continue
		case resource == "":
			name = ""
			if api = p.apiWith(scope); api != nil && text == "" {
				name, text = api.Name, api.Scopes[scope]
			}
		case api.has(scope):
			text = api.Scopes[scope]
		}
		if text == "" {
			text = language.Text("Use “%s” for you", scope)
		}
		if name != "" {
			text = name + ": " + text
		}
		described = append(described, text)
	}
	return described
}

// apiWith returns the first API that has a scope, for its text, or nil.
func (p *Provider) apiWith(scope string) *API {
	for _, api := range p.APIs {
		if api.has(scope) {
			return api
		}
	}
	return nil
}
