package web

import (
	"maps"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/password"
)

// describeMailed adds the routes of mailed codes.
func (h *Handler) describeMailed(paths object, bearer []object, signup, user, tokens object) {
	text, email := object{"type": "string"}, object{"type": "string", "format": "email"}
	newPassword := object{"type": "string", "minLength": h.PasswordMinLength, "maxLength": password.MaxBytes}
	mailed := schema(object{"status": object{"const": "check_mail"}}, "status")
	byMail := func(summary string, body object) object {
		return object{"post": operation(summary, nil, body, answers("202", mailed, 422, 429, 503))}
	}
	byEmail := schema(object{"email": email}, "email")
	paths[h.Path("forgot")] = byMail("Mail a code and a link for a new password, if there is such an account", byEmail)
	paths[h.Path("reset")] = object{"post": operation(
		"Set a password with the token of a link, or with an address and the code that was mailed there", nil,
		object{"oneOf": []object{
			schema(object{"token": text, "newPassword": newPassword}, "token", "newPassword"),
			schema(object{"email": email, "code": text, "newPassword": newPassword}, "email", "code", "newPassword"),
		}},
		answers("204", nil, 401, 422, 429, 503),
	)}
	change := byMail("Mail a code to a new address of the user; requires the password unless the log-in was at most 5 "+
		"minutes ago", schema(object{"email": email, "password": text}, "email"))
	change["post"].(object)["security"] = bearer
	change["post"].(object)["responses"] = answers("202", mailed, 401, 403, 422, 429, 503)
	paths[h.Path("email")] = change
	paths[h.Path("email_confirm")] = object{"post": operation(
		"Change the address of the user with the code", bearer, schema(object{"code": text}, "code"),
		answers("204", nil, 401, 409, 422, 429, 503),
	)}
	if h.HasRoute("invite") {
		invite := byMail("Invite somebody by mail; requires a role of the user", byEmail)
		invite["post"].(object)["security"] = bearer
		invite["post"].(object)["responses"] = answers("202", mailed, 401, 403, 422, 429, 503)
		paths[h.Path("invite")] = invite
	}
	if h.VerifyEmail {
		if h.Signup == "open" {
			paths[h.Path("signup")] = byMail(
				"Mail a code and a link that create an account, or say that there is one", signup,
			)
			if h.Identifier == accounts.IdentifierAny {
				described := paths[h.Path("signup")].(object)["post"].(object)["responses"].(object)
				maps.Copy(described, answers("201", user, 409)) // for a user name without an address
			}
		}
		paths[h.Path("verify")] = object{"post": operation(
			"Confirm an address with the code that was mailed there, and log in", nil,
			schema(object{"email": email, "code": text, "password": text}, "email", "code"),
			answers("200", tokens, 401, 403, 409, 422, 429, 503),
		)}
		login := paths[h.Path("login")].(object)["post"].(object)
		login["responses"].(object)["403"] = object{"description": "The address is not confirmed yet"}
	}
	if h.EmailLogin {
		paths[h.Path("code")] = byMail("Mail a code to log in with, if there is such an account", byEmail)
		login := paths[h.Path("login")].(object)["post"].(object)
		login["requestBody"] = object{"required": true, "content": object{"application/json": object{
			"schema": object{"oneOf": []object{
				h.identified(object{"password": text}, false, "password"),
				schema(object{"email": email, "code": text}, "email", "code"),
			}},
		}}}
	}
}
