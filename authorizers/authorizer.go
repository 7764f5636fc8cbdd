// Package authorizers decides about requests by something other than claims: `require <name>`
// uses the Caddy module jwt.authorizers.<name>. The module `http` asks an HTTP service.
package authorizers

import (
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// Authorizer decides whether a user may send a request. It is a Caddy module in the namespace
// `jwt.authorizers`, and is safe for concurrent use.
type Authorizer interface {
	// Authorize returns nil if the user may send the request. It is called at each request that
	// has a user, after the credential was verified. An *[refusal.Error] refuses the request
	// as it says, any other error with 403. It must not change the request, nor read its body.
	//
	// A request whose path could be read in different ways does not get here.
	Authorize(r *http.Request, user *jwt.Token) error
}
