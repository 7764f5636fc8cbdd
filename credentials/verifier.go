package credentials

import (
	"errors"
	"net/http"

	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// Verifier verifies credentials of one kind other than the JWTs of the configured issuers,
// such as API keys. It is a Caddy module in the namespace `jwt.credentials`, and is safe for
// concurrent use.
type Verifier interface {
	// Verify returns the user of a credential; see [jwt.NewToken]. Rules, placeholders, claim
	// headers and tokens for the upstream use its claims like those of a JWT. Rules are
	// evaluated after each call, so Verify may remember a verified credential.
	//
	// [ErrOtherKind] means that the credential is not of this kind; then the next verifier
	// tries it, and the verifier of JWTs last. Tell the kind from the form of the credential,
	// because Verify is called with all of them. Any other error refuses the request: an
	// *[refusal.Error] as it says, any other with 401. Verify may set header fields of the
	// response, but must not write it.
	Verify(w http.ResponseWriter, r *http.Request, credential Credential) (*jwt.Token, error)
}

// ErrOtherKind means that a [Verifier] is not for a credential.
var ErrOtherKind = errors.New("the credential is of another kind")

// Lister is an optional interface of a [Verifier] whose credentials have places of their own.
type Lister interface {
	// Sources returns these places. Only this verifier gets what is there. The result does
	// not change after the verifier is provisioned.
	Sources() Sources
}
