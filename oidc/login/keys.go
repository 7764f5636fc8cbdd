package login

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/jwks"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	gooidc "github.com/coreos/go-oidc/v3/oidc"
)

// signatures verifies what a provider has signed by the keys that the handler `jwt` would use
// for it. Of go-oidc, only its checks of claims are used: its key sets know fewer keys, and are
// fetched for each token that they do not verify. It is for one token.
type signatures struct {
	keys      *jwks.KeySet
	algorithm string // of the token
	err       error  // why it was not verified
}

// VerifySignature implements gooidc.KeySet.
func (s *signatures) VerifySignature(ctx context.Context, token string) (payload []byte, err error) {
	payload, s.algorithm, s.err = jwt.VerifySignature(ctx, token, s.keys, jwks.Algorithms)
	return payload, s.err
}

// verifier returns a verifier of an ID token or logout token. Its issuer is checked by
// [Login.checkIssuer].
func (l *Login) verifier(s *signatures) *gooidc.IDTokenVerifier {
	return gooidc.NewVerifier(l.Issuer, s, &gooidc.Config{
		ClientID: l.ClientID, SupportedSigningAlgs: jwks.Algorithms, SkipIssuerCheck: true,
	})
}

// failure is the error about a token that err says is not valid. Keys that cannot be fetched are
// an outage, or a fault of the provider's.
func (s *signatures) failure(err error) error {
	if refused, ok := errors.AsType[*refusal.Error](s.err); ok {
		switch refused.Reason {
		case refusal.TokenTooLarge:
			return faulty(faultTooLarge, "%s", refused.Detail)
		case refusal.UnknownKey:
			return faulty(faultKey, "%s: %s", s.keys.Name(), strings.TrimPrefix(refused.Detail, `issuer "" `))
		case refusal.KeysUnavailable, refusal.KeysStale:
			if failed := s.keys.Failure(); failed != nil && !jwks.IsOutage(failed) {
				return misconfigured(faultKeys, "%.500s", failed)
			}
			return unavailable(fmt.Errorf("fetching its keys failed: %s", refused.Detail))
		}
		return faulty(faultToken, "signature: %s", refused.Detail)
	}
	return faulty(faultToken, "%.300s", err)
}

// matches reports whether at_hash of the token is that of an access token.
func (s *signatures) matches(hash, accessToken string) bool {
	return hash == protocol.HalfHash(s.algorithm, accessToken)
}
