package caddyjwt

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(ResourceMetadata))
}

// resourceMetadataPath is the path of the metadata document of a resource, before the path of
// the resource (RFC 9728 §3.1).
const resourceMetadataPath = "/.well-known/oauth-protected-resource"

// parseResource checks the identifier of a resource (RFC 9728 §1.2).
func parseResource(resource string) (*url.URL, error) {
	u, err := url.Parse(resource)
	if err != nil || u.Host == "" || u.Fragment != "" || u.RawQuery != "" || u.User != nil ||
		u.Scheme != "https" && (u.Scheme != "http" || !thismachine.Is(u.Hostname())) {
		return nil, fmt.Errorf("resource %q: it must be the URL of the API as clients write it: https, "+
			"or http on this machine, without a query, as in: resource https://api.example.com/mcp", resource)
	}
	return u, nil
}

// provisionResource sets what the identifier of the resource decides: the audience of
// issuers that have none, and the challenge.
func (h *Handler) provisionResource() error {
	if h.Resource == "" {
		return nil
	}
	u, err := parseResource(h.Resource)
	if err != nil {
		return err
	}
	for _, issuer := range h.Issuers {
		if len(issuer.Audience) == 0 {
			issuer.Audience = []string{h.Resource}
		}
	}
	h.answers.ResourceMetadata = u.Scheme + "://" + u.Host + resourceMetadataPath +
		strings.TrimSuffix(u.EscapedPath(), "/")
	h.answers.Scope = strings.Join(requiredScopes(h.Require), " ")
	return nil
}

// requiredScopes returns the scopes that a client should ask for.
func requiredScopes(rules []*Requirement) (scopes []string) {
	for _, rule := range rules {
		wanted := rule.Scope
		if len(rule.AnyScope) > 0 {
			wanted = rule.AnyScope[:1]
		}
		for _, scope := range wanted {
			if !slices.Contains(scopes, scope) {
				scopes = append(scopes, scope)
			}
		}
	}
	return scopes
}

// ResourceMetadata serves the metadata document of an OAuth resource to everybody (RFC 9728
// §3), so that a client finds out where to get a token: both below the path of the resource
// and without it. The directive adds it automatically for `resource`.
type ResourceMetadata struct {
	// Resource is the identifier of the resource, a URL.
	Resource string `json:"resource,omitempty"`

	// AuthorizationServers are the issuers whose tokens are accepted.
	AuthorizationServers []string `json:"authorization_servers,omitempty"`

	// Scopes are the scopes that a client can ask for.
	Scopes []string `json:"scopes_supported,omitempty"`

	path string
}

// CaddyModule returns the Caddy module information.
func (*ResourceMetadata) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.jwt_resource",
		New: func() caddy.Module { return new(ResourceMetadata) },
	}
}

// metadataOf returns the handler of the document for a jwt handler.
func metadataOf(h *Handler) *ResourceMetadata {
	m := &ResourceMetadata{Resource: h.Resource}
	for _, issuer := range h.Issuers {
		if issuer.Issuer != "" {
			m.AuthorizationServers = append(m.AuthorizationServers, issuer.names()...)
		}
	}
	for _, rule := range h.Require {
		m.Scopes = append(m.Scopes, slices.Concat(rule.Scope, rule.AnyScope)...)
	}
	slices.Sort(m.Scopes)
	m.Scopes = slices.Compact(m.Scopes)
	return m
}

// matcher returns the matcher of the document's paths, or nil if the resource has a
// placeholder.
func (m *ResourceMetadata) matcher() caddy.ModuleMap {
	u, err := url.Parse(m.Resource)
	if err != nil || strings.ContainsAny(m.Resource, "{}*") {
		return nil
	}
	paths := caddyhttp.MatchPath{resourceMetadataPath}
	if path := strings.TrimSuffix(u.Path, "/"); path != "" {
		paths = append(paths, resourceMetadataPath+path)
	}
	return caddy.ModuleMap{"path": caddyconfig.JSON(paths, nil)}
}

// Provision checks the resource.
func (m *ResourceMetadata) Provision(caddy.Context) error {
	where := config.WhereIs(m)
	return where.Locate(m.provision())
}

func (m *ResourceMetadata) provision() error {
	err := errors.Join(
		config.Resolve("resource", &m.Resource), config.ResolveList("issuer", m.AuthorizationServers),
		config.ResolveList("require scope", m.Scopes),
	)
	if err != nil {
		return err
	}
	m.AuthorizationServers = slices.DeleteFunc(m.AuthorizationServers, func(issuer string) bool {
		return strings.Contains(issuer, "*") // by a placeholder: it is many issuers
	})
	u, err := parseResource(m.Resource)
	if err != nil {
		return err
	}
	m.path = strings.TrimSuffix(u.Path, "/")
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (m *ResourceMetadata) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	path, ours := strings.CutPrefix(r.URL.Path, resourceMetadataPath)
	if !ours || path != "" && path != m.path && path != m.path+"/" {
		return next.ServeHTTP(w, r)
	}
	if answer.Open(w, r) {
		return nil
	}
	document := map[string]any{"resource": m.Resource, "bearer_methods_supported": []string{"header"}}
	if len(m.AuthorizationServers) > 0 {
		document["authorization_servers"] = m.AuthorizationServers
	}
	if len(m.Scopes) > 0 {
		document["scopes_supported"] = m.Scopes
	}
	return answer.WriteJSON(w, http.StatusOK, document)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*ResourceMetadata)(nil)
	_ caddyhttp.MiddlewareHandler = (*ResourceMetadata)(nil)
)
