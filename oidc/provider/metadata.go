package provider

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/signing"
)

// metadata returns the discovery document (OpenID Connect Discovery 1.0 §3, RFC 8414 §2).
func (p *Provider) metadata(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Cache-Control", "public, max-age=300")
	document := map[string]any{
		"issuer":                                    p.Issuer,
		"authorization_endpoint":                    p.at("/oidc/authorize"),
		"token_endpoint":                            p.at("/oidc/token"),
		"userinfo_endpoint":                         p.at("/oidc/userinfo"),
		"jwks_uri":                                  p.at("/oidc/jwks.json"),
		"introspection_endpoint":                    p.at("/oidc/introspect"),
		"revocation_endpoint":                       p.at("/oidc/revoke"),
		"end_session_endpoint":                      p.at("/oidc/logout"),
		"device_authorization_endpoint":             p.at("/oidc/device_authorization"),
		"pushed_authorization_request_endpoint":     p.at("/oidc/par"),
		"scopes_supported":                          p.announcedScopes(),
		"response_types_supported":                  responseTypes,
		"response_modes_supported":                  []string{"query", "fragment", "form_post"},
		"grant_types_supported":                     grantTypes,
		"acr_values_supported":                      p.acrSupported(),
		"subject_types_supported":                   []string{"public"},
		"id_token_signing_alg_values_supported":     []string{"RS256"},
		"access_token_signing_alg_values_supported": []string{p.AccessTokenAlgorithm}, // of no standard
		"prompt_values_supported":                   []string{"none", "login", "consent", "select_account"},

		"token_endpoint_auth_methods_supported":                    clientAuthMethods,
		"token_endpoint_auth_signing_alg_values_supported":         assertionAlgorithms,
		"introspection_endpoint_auth_methods_supported":            confidentialAuthMethods,
		"introspection_endpoint_auth_signing_alg_values_supported": assertionAlgorithms,
		"revocation_endpoint_auth_methods_supported":               clientAuthMethods,
		"revocation_endpoint_auth_signing_alg_values_supported":    assertionAlgorithms,

		"ui_locales_supported":                           p.accounts.Languages(),
		"claim_types_supported":                          []string{"normal"},
		"claims_supported":                               p.claimNames(),
		"claims_parameter_supported":                     true,
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false,
		"code_challenge_methods_supported":               []string{"S256"},
		"authorization_response_iss_parameter_supported": true,
		"backchannel_logout_supported":                   true,
		"backchannel_logout_session_supported":           true,
	}
	if len(p.apis) > 0 { // RFC 9728 §4
		document["protected_resources"] = slices.Sorted(maps.Keys(p.apis))
	}
	if p.clients.documents != nil {
		document["client_id_metadata_document_supported"] = true
	}
	return writeJSON(w, http.StatusOK, document)
}

// jwks returns the JWK set that verifies ID tokens, logout tokens and access tokens.
func (p *Provider) jwks(w http.ResponseWriter, r *http.Request) error {
	var all struct {
		Keys []json.RawMessage `json:"keys"`
	}
	for _, keys := range []*signing.Keys{p.idKeys, p.fastKeys} {
		_ = keys.Reload(r.Context(), signing.ReloadInterval) // as in sign
		var one struct {
			Keys []json.RawMessage `json:"keys"`
		}
		if err := json.Unmarshal(keys.JWKS(), &one); err != nil {
			return err
		}
		all.Keys = append(all.Keys, one.Keys...)
	}
	w.Header().Set("Cache-Control", "public, max-age=10") // less than the lead of a new key
	return writeJSON(w, http.StatusOK, all)
}
