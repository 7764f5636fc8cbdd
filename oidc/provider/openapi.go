package provider

type object = map[string]any

// openAPIPaths returns the operations for programs, for the OpenAPI document of the accounts. What users
// do in a browser is in the metadata.
func (p *Provider) openAPIPaths() object {
	client, bearer := []object{{"client": []string{}}}, []object{{"bearer": []string{}}}
	return object{
		p.basePath + "/.well-known/openid-configuration": object{
			"get": described("The metadata of the provider", nil),
		},
		p.basePath + "/oidc/jwks.json": object{"get": described("The keys that verify the tokens", nil)},
		p.basePath + "/oidc/token": object{"post": described(
			"Get tokens: by a code, a refresh token, a device code, or for the client itself", client,
			"grant_type", "code", "redirect_uri", "code_verifier", "refresh_token", "device_code", "scope", "resource",
		)},
		p.basePath + "/oidc/userinfo":   object{"get": described("The claims about the user of a token", bearer)},
		p.basePath + "/oidc/introspect": object{"post": described("Whether a token is active", client, "token")},
		p.basePath + "/oidc/revoke":     object{"post": described("Revoke a token", client, "token")},
		p.basePath + "/oidc/device_authorization": object{"post": described(
			"Begin a log-in on another device", client, "scope", "resource",
		)},
		p.basePath + "/oidc/par": object{"post": described(
			"Send an authorization request ahead", client, "response_type", "redirect_uri", "scope", "state", "nonce",
			"code_challenge", "code_challenge_method",
		)},
	}
}

// described returns an operation that takes a form; the first field is required.
func described(summary string, security []object, fields ...string) object {
	operation := object{"summary": summary, "responses": object{"200": object{"description": "OK"}}}
	if security != nil {
		operation["security"] = security
		operation["responses"].(object)["401"] = object{"description": "Unauthorized"}
	}
	if len(fields) == 0 {
		return operation
	}
	properties := make(object)
	for _, field := range fields {
		properties[field] = object{"type": "string"}
	}
	operation["responses"].(object)["400"] = object{"description": "Bad Request"}
	operation["requestBody"] = object{"required": true, "content": object{
		"application/x-www-form-urlencoded": object{"schema": object{
			"type": "object", "properties": properties, "required": fields[:1],
		}},
	}}
	return operation
}
