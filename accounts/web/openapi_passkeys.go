package web

import "github.com/caddy-jwt/caddy-jwt/accounts/passkey"

// describePasskeys adds the routes of passkeys.
func (h *Handler) describePasskeys(paths object, bearer []object, tokens object) {
	text, anything := object{"type": "string"}, object{"type": "object"}
	credential := object{"type": "object", "description": "the answer of the browser, by its toJSON (WebAuthn)"}
	name := object{"type": "string", "minLength": 1, "maxLength": passkey.MaxName}
	yes := object{"type": "boolean"}
	key := schema(object{
		"id": text, "name": text, "addedAt": text, "usedAt": object{"type": []string{"string", "null"}},
		"synced": yes, "domain": text, "usable": yes, "aaguid": text,
	}, "id", "name", "addedAt")
	options := schema(object{"publicKey": anything}, "publicKey")
	paths[h.Path("passkeys")] = object{
		"get": operation(
			"The user's passkeys", bearer, nil, answers("200", object{"type": "array", "items": key}, 401, 503),
		),
		"post": operation(
			"Add a passkey that a browser has made by the options", bearer,
			schema(object{"name": name, "credential": credential}, "name", "credential"),
			answers("201", key, 401, 409, 422, 503),
		),
	}
	paths[h.Path("passkey options")] = object{"post": withoutBody(operation(
		"Options to make a passkey; requires the password unless the log-in was at most 5 minutes ago", bearer,
		schema(object{"password": text}), answers("200", options, 401, 403, 409, 422, 429, 503),
	))}
	paths[h.Path("passkeys")+"/{id}"] = object{
		"patch": operation(
			"Rename a passkey", bearer, schema(object{"name": name}, "name"), answers("200", key, 401, 404, 422, 503),
		),
		"delete": withoutBody(operation(
			"Remove a passkey; requires the password unless the log-in was at most 5 minutes ago", bearer,
			schema(object{"password": text}), answers("204", nil, 401, 403, 404, 409, 422, 429, 503),
		)),
		"parameters": []object{{"name": "id", "in": "path", "required": true, "schema": text}},
	}
	paths[h.Path("passkey login options")] = object{"post": withoutBody(operation(
		"Options to log in with any passkey or, with the challenge of a log-in that was answered 401, to complete it",
		nil, schema(object{"challenge": text}),
		answers("200", schema(
			object{"challenge": text, "publicKey": anything}, "challenge", "publicKey",
		), 401, 409, 422, 503),
	))}
	paths[h.Path("passkey login")] = object{"post": operation(
		"Log in with a passkey, and the challenge of its options", nil,
		schema(object{"challenge": text, "credential": credential}, "challenge", "credential"),
		answers("200", tokens, 401, 403, 422, 429, 503),
	)}
	paths[h.Path("step up options")] = object{"post": operation(
		"Options to prove two factors again with a passkey", bearer, nil, answers("200", options, 401, 409, 503),
	)}
	orCode := func(proved string, others ...string) object {
		one := func(proof string, of object) object {
			properties := object{proof: of}
			for _, other := range others {
				properties[other] = text
			}
			return schema(properties, append(others, proof)...)
		}
		if proved == "" {
			return one("credential", credential)
		}
		return object{"oneOf": []object{one(proved, text), one("credential", credential)}}
	}
	code := ""
	if h.SecondFactor != "" {
		code = "code"
		complete := paths[h.Path("factor")].(object)["post"].(object)
		complete["requestBody"] = operation("", nil, orCode(code, "challenge"), nil)["requestBody"]
	}
	paths[h.Path("step up")] = object{"post": operation(
		"Prove the second factor again; tokens that are refreshed from then on have acr mfa", bearer, orCode(code),
		answers("204", nil, 401, 409, 422, 429, 503),
	)}
}
