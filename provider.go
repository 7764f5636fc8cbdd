package caddyjwt

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
)

func init() {
	caddy.RegisterModule(new(Provider))
}

// Provider is the handler as a provider of Caddy's `authentication` handler, next to others
// such as `http_basic`; any of them can allow a request. It can only be configured in JSON.
// Every refusal is a 401, because Caddy's handler returns no other status. It has the challenge of
// one of the providers, and Caddy does not say of which.
type Provider struct {
	Handler
}

// CaddyModule returns the Caddy module information.
func (*Provider) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.authentication.providers.jwt_bearer",
		New: func() caddy.Module { return new(Provider) },
	}
}

// Validate also refuses options that only work in a handler. If another provider allows the
// request, this provider does not see it.
func (p *Provider) Validate() error {
	if p.Public != nil || p.Optional || p.AllowPreflight || p.ClaimHeaders != nil || p.StripToken ||
		p.CloseAtExpiry || p.UpstreamToken != nil || p.Accounts != nil {
		return errors.New("public, optional, allow_preflight, claim_headers, strip_token, close_at_expiry, " +
			"upstream_token and accounts only work in the `jwt` handler; remove them from the authentication provider")
	}
	return p.Handler.Validate()
}

// Authenticate implements caddyauth.Authenticator. It returns an error only for a technical
// problem: keys that were never loaded, or an issuer that cannot be asked.
func (p *Provider) Authenticate(w http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	var user caddyauth.User
	who := p.identify(w, r, p.credentialOf(r), nil)
	if failure := p.decide(r, &who, nil).refusal; failure != nil {
		attach(r, nil, nil) // another provider may allow the request
		p.answers.Announce(w, r, failure)
		if failure.Reason.Answer().Status == http.StatusServiceUnavailable {
			return user, false, failure.Public()
		}
		return user, false, nil
	}
	p.allowed.token.Inc()
	user.ID = who.token.UserID
	return user, true, nil
}

// Interface guards
var (
	_ caddy.Provisioner       = (*Provider)(nil)
	_ caddy.Validator         = (*Provider)(nil)
	_ caddy.CleanerUpper      = (*Provider)(nil)
	_ caddyauth.Authenticator = (*Provider)(nil)
)
