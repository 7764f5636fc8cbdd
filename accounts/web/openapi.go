package web

import (
	"maps"
	"net/http"
	"strconv"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/store"
)

type object = map[string]any

// openAPI describes the JSON routes in OpenAPI 3.1, for an explorer.
func (h *Handler) openAPI(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Access-Control-Allow-Origin", "*") // it contains no user's data
	document := h.openAPIDocument()
	if mount := answer.MountedAt(r); mount != "" {
		document["servers"] = []object{{"url": mount}}
	}
	return answer.WriteJSON(w, http.StatusOK, document)
}

func (h *Handler) openAPIDocument() object {
	text := object{"type": "string"}
	email, password := object{"type": "string", "format": "email"}, object{
		"type": "string", "minLength": h.PasswordMinLength, "maxLength": password.MaxBytes,
	}
	credentials := h.identified(object{"password": text}, false, "password")
	user := schema(
		object{
			"id": text, "email": email, "roles": object{"type": "array", "items": text},
			"emailVerified": object{"type": "boolean"},
		},
		"id", "email", "roles",
	)
	if h.Identifier != accounts.IdentifierEmail {
		user["properties"].(object)["username"] = text
		user["required"] = []string{"id", "roles"}
	}
	signup, profile := object{"password": password}, object{}
	for _, name := range h.Profile {
		signup[name], profile[name] = object{}, object{}
		user["properties"].(object)[name] = object{}
	}
	tokens := schema(
		object{
			"token": text, "tokenType": text,
			"expiresIn": object{"type": "integer", "description": "seconds"}, "refreshToken": text,
		},
		"token", "tokenType", "expiresIn", "refreshToken",
	)
	session := schema(object{
		"id": text, "device": text, "client": text, "address": text, "createdAt": text,
		"usedAt": text, "expiresAt": text, "current": object{"type": "boolean"},
	}, "id")
	identity := schema(
		object{"id": text, "provider": text, "issuer": text, "subject": text, "email": text, "connectedAt": text},
		"id", "provider",
	)
	bearer := []object{{"bearer": []string{}}}
	paths := object{
		h.Path("login"): object{
			"post": operation("Log in", nil, credentials, answers("200", tokens, 401, 422, 429, 503)),
		},
		h.Path("refresh"): object{"post": operation(
			"Get a new access token and a new refresh token", nil,
			schema(object{"refreshToken": text}, "refreshToken"), answers("200", tokens, 401, 422, 503),
		)},
		h.Path("logout"): object{"post": operation("End the session", bearer, nil, answers("204", nil, 401, 503))},
		h.Path("whoami"): object{
			"get": operation("The user of the token", bearer, nil, answers("200", user, 401, 503)),
			"patch": operation(
				"Change properties of the profile; null removes one", bearer, schema(profile),
				answers("200", user, 401, 422, 503),
			),
			"delete": operation(
				"Delete the account; without a password, the log-in must be at most 5 minutes ago", bearer,
				schema(object{"password": text}), answers("204", nil, 401, 403, 422, 429, 503),
			),
		},
		h.Path("export"): object{
			"get": operation(
				"All that is kept about the user", bearer, nil, answers("200", object{"type": "object"}, 401, 503),
			),
		},
		h.Path("password"): object{"post": operation(
			"Change the password", bearer,
			schema(object{"currentPassword": text, "newPassword": password}, "currentPassword", "newPassword"),
			answers("204", nil, 401, 422, 429, 503),
		)},
		h.Path("reset"): object{"post": operation(
			"Set a password with the token from a reset link", nil,
			schema(object{"token": text, "newPassword": password}, "token", "newPassword"),
			answers("204", nil, 401, 422, 503),
		)},
		h.Path("sessions"): object{
			"get": operation(
				"The user's sessions", bearer, nil, answers("200", object{"type": "array", "items": session}, 401, 503),
			),
			"delete": operation("End all sessions but this one", bearer, nil, answers("204", nil, 401, 503)),
		},
		h.Path("sessions") + "/{id}": object{
			"delete":     operation("End a session", bearer, nil, answers("204", nil, 401, 404, 503)),
			"parameters": []object{{"name": "id", "in": "path", "required": true, "schema": text}},
		},
		h.Path("identities"): object{"get": operation(
			"Identities at other providers that can log in to the account", bearer,
			nil, answers("200", object{"type": "array", "items": identity}, 401, 503),
		)},
		h.Path("identities") + "/{id}": object{"delete": operation(
			"Disconnect an identity; requires the password unless the log-in was at most 5 minutes ago", bearer,
			schema(object{"currentPassword": text}), answers("204", nil, 401, 403, 404, 409, 422, 429, 503),
		), "parameters": []object{
			{"name": "id", "in": "path", "required": true, "schema": text},
		}},
		h.Path("jwks"): object{"get": operation(
			"The public keys that verify the tokens", nil, nil, answers("200", object{"type": "object"}),
		)},
	}
	if h.Signup == "open" {
		paths[h.Path("signup")] = object{"post": operation(
			"Create an account", nil, h.identified(signup, true, "password"), answers("201", user, 409, 422, 429, 503),
		)}
	}
	if h.HasRoute("forgot") {
		h.describeMailed(paths, bearer, h.identified(signup, true, "password"), user, tokens)
	}
	if h.KeyPrefix != "" {
		h.describeKeys(paths, bearer)
	}
	if h.SecondFactor != "" {
		h.describeFactors(paths, bearer, tokens)
	}
	if h.Passkeys != nil {
		h.describePasskeys(paths, bearer, tokens)
	}
	if h.SecondFactor != "" {
		h.describeChallenges(paths)
	}
	maps.Copy(paths, h.service.Links.Paths())
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": "Accounts", "version": "1"},
		"paths":   paths,
		"components": object{
			"securitySchemes": object{
				"bearer": object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
				"client": object{"type": "http", "scheme": "basic"}, // of an OpenID Provider
			},
		},
	}
}

// identified returns the schema of a body that says who somebody is, by what users log in by. withBoth
// means that with an address there may be a name.
func (h *Handler) identified(properties object, withBoth bool, required ...string) object {
	byEmail, byName := maps.Clone(properties), maps.Clone(properties)
	byEmail["email"] = object{"type": "string", "format": "email"}
	byName["username"] = object{
		"type": "string", "minLength": 1, "maxLength": store.MaxUsername,
		"description": "a user name, which has no spaces and no @, and whose case does not count",
	}
	if withBoth && h.Identifier == accounts.IdentifierAny {
		byEmail["username"] = byName["username"]
	}
	email := schema(byEmail, append([]string{"email"}, required...)...)
	name := schema(byName, append([]string{"username"}, required...)...)
	switch h.Identifier {
	case accounts.IdentifierUsername:
		return name
	case accounts.IdentifierAny:
		return object{"oneOf": []object{email, name}}
	}
	return email
}

// describeKeys adds the routes of API keys.
func (h *Handler) describeKeys(paths object, bearer []object) {
	text, texts := object{"type": "string"}, object{"type": "array", "items": object{"type": "string"}}
	key := schema(object{
		"id": text, "key": text, "subject": text, "name": text, "scope": texts, "roles": texts,
		"ownRoles": object{"type": "boolean"}, "metadata": object{"type": "object"}, "networks": texts, "rate": text,
		"createdAt": text, "expiresAt": text, "usedAt": text, "previousUntil": text,
	}, "id", "subject", "createdAt")
	made := schema(object{
		"name": text, "roles": texts, "scope": texts, "expires": text, "currentPassword": text,
	}, "name")
	paths[h.Path("keys")] = object{
		"get": operation(
			"The user's API keys", bearer, nil, answers("200", object{"type": "array", "items": key}, 401, 503),
		),
		"post": operation(
			"Make an API key, which is returned only here; requires the password unless the log-in was at most 5 "+
				"minutes ago", bearer, made, answers("201", key, 401, 403, 409, 422, 429, 503),
		),
	}
	paths[h.Path("keys")+"/{id}"] = object{
		"post": operation(
			"Give an API key a new secret; the old one works for the grace period", bearer,
			schema(object{"grace": text, "currentPassword": text}),
			answers("200", key, 401, 403, 404, 409, 422, 429, 503),
		),
		"delete":     operation("Revoke an API key", bearer, nil, answers("204", nil, 401, 404, 503)),
		"parameters": []object{{"name": "id", "in": "path", "required": true, "schema": text}},
	}
}

// describeFactors adds the routes of second factors.
func (h *Handler) describeFactors(paths object, bearer []object, tokens object) {
	text, texts := object{"type": "string"}, object{"type": "array", "items": object{"type": "string"}}
	codes := schema(object{"recoveryCodes": texts}, "recoveryCodes")
	complete := maps.Clone(tokens["properties"].(object))
	complete["recoveryCodes"] = texts
	confirmed := object{"oneOf": []object{
		codes, schema(complete, append([]string{"recoveryCodes"}, tokens["required"].([]string)...)...),
	}}
	entered := maps.Clone(tokens)
	entered["properties"] = maps.Clone(tokens["properties"].(object))
	entered["properties"].(object)["recoveryCodesLeft"] = object{
		"type": "integer", "description": "after a recovery code was used",
	}
	browser := schema(object{
		"id": text, "client": text, "address": text, "trustedAt": text, "expiresAt": text,
		"current": object{"type": "boolean"},
	}, "id")
	paths[h.Path("factor")] = object{"post": operation(
		"Complete a log-in that was answered 401 with a challenge: by the code of the authenticator app, or a "+
			"recovery code", nil,
		schema(object{"challenge": text, "code": text}, "challenge", "code"),
		answers("200", entered, 401, 422, 429, 503),
	)}
	paths[h.Path("factors")] = object{"get": operation(
		"The user's second factors", bearer, nil, answers("200", schema(object{
			"totp":              object{"type": []string{"object", "null"}, "properties": object{"addedAt": text}},
			"recoveryCodesLeft": object{"type": "integer"}, "required": object{"type": "boolean"},
			"trustedBrowsers": object{"type": "array", "items": browser},
		}, "totp", "recoveryCodesLeft", "required", "trustedBrowsers"), 401, 503),
	)}
	paths[h.Path("totp")] = object{
		"post": operation(
			"Begin to set up an authenticator app; requires the password unless the log-in was at most 5 minutes ago, "+
				"or the challenge of a log-in that requires an app", orNothing(bearer),
			schema(object{"password": text, "challenge": text}),
			answers("200", schema(object{"secret": text, "uri": text}, "secret", "uri"), 401, 403, 409, 422, 429, 503),
		),
		"delete": operation(
			"Remove the authenticator app, the recovery codes and the trust in browsers; requires a code or, if the "+
				"session has proved the factor, the password",
			bearer, schema(object{"password": text, "code": text}), answers("204", nil, 401, 403, 409, 422, 429, 503),
		),
	}
	paths[h.Path("totp confirm")] = object{"post": operation(
		"Set up the authenticator app with its first code; returns the recovery codes and, with a challenge, tokens",
		orNothing(bearer), schema(object{"code": text, "challenge": text}, "code"),
		answers("200", confirmed, 401, 409, 422, 503),
	)}
	paths[h.Path("recovery")] = object{"post": operation(
		"Replace the recovery codes; requires a code or, if the session has proved the factor, the password", bearer,
		schema(object{"password": text, "code": text}), answers("200", codes, 401, 403, 409, 422, 429, 503),
	)}
	paths[h.Path("step up")] = object{"post": operation(
		"Prove the second factor again; tokens that are refreshed from then on have acr mfa", bearer,
		schema(object{"code": text}, "code"), answers("204", nil, 401, 409, 422, 429, 503),
	)}
	paths[h.Path("factors")+"/browsers/{id}"] = object{
		"delete":     operation("End the trust in a browser", bearer, nil, answers("204", nil, 401, 404, 503)),
		"parameters": []object{{"name": "id", "in": "path", "required": true, "schema": text}},
	}
}

// orNothing returns the security of a route that a challenge opens, too.
func orNothing(bearer []object) []object { return append([]object{{}}, bearer...) }

// describeChallenges describes the answer of routes that log in, if a second factor is needed.
func (h *Handler) describeChallenges(paths object) {
	text := object{"type": "string"}
	body := schema(object{"error": schema(object{
		"statusCode": object{"type": "integer"}, "name": text, "message": text,
		"code": object{"type": "string", "description": "second_factor_required: send the challenge with the proof; " +
			"second_factor_enrolment_required: send it to set up an authenticator app; or another reason"},
		"challenge": object{"type": "string", "description": "only with these two codes"},
	}, "statusCode", "name", "code", "message")}, "error")
	for _, route := range []string{"login", "verify", "passkey login"} {
		if described, there := paths[h.Path(route)].(object); there {
			described["post"].(object)["responses"].(object)["401"] = object{
				"description": http.StatusText(http.StatusUnauthorized),
				"content":     object{"application/json": object{"schema": body}},
			}
		}
	}
}

// withoutBody marks the body of an operation as one that may be omitted.
func withoutBody(operation object) object {
	operation["requestBody"].(object)["required"] = false
	return operation
}

func schema(properties object, required ...string) object {
	return object{
		"type": "object", "properties": properties,
		"required": append([]string{}, required...), "additionalProperties": false,
	}
}

func operation(summary string, security []object, body object, responses object) object {
	o := object{"summary": summary, "responses": responses}
	if security != nil {
		o["security"] = security
	}
	if body != nil {
		o["requestBody"] = object{"required": true, "content": object{"application/json": object{"schema": body}}}
	}
	return o
}

// answers describes the response on success and the responses to refusals.
func answers(status string, body object, refused ...int) object {
	codes := map[string]int{"200": 200, "201": 201, "202": 202, "204": 204}
	success := object{"description": http.StatusText(codes[status])}
	if body != nil {
		success["content"] = object{"application/json": object{"schema": body}}
	}
	all := object{status: success}
	for _, code := range refused {
		all[strconv.Itoa(code)] = object{"description": http.StatusText(code)}
	}
	return all
}
