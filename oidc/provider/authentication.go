package provider

import (
	"slices"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
)

// Values of acr: classes of authentication.
const (
	acrPassword = "urn:caddy-jwt:acr:password" // a log-in by password
	acrMultiple = accounts.ClassMultiple       // with a second factor
)

// acrSupported returns the values of acr that log-ins here can have.
func (p *Provider) acrSupported() []string {
	if p.accounts.HasSecondFactor() {
		return []string{acrPassword, acrMultiple}
	}
	return []string{acrPassword}
}

// askedACR returns the values of acr that a request asks for, in acr_values or for the ID token, and
// whether one of these is essential (OpenID Connect Core §5.5.1.1).
func (a *authorizationRequest) askedACR() (values []string, essential bool) {
	values = slices.Clone(a.acrValues)
	if asked := a.claims.IDToken["acr"]; asked != nil {
		for _, value := range append([]any{asked.Value}, asked.Values...) {
			if text, ok := value.(string); ok {
				values = append(values, text)
			}
		}
		essential = asked.Essential
	}
	return values, essential
}

// wantsFactor reports whether a request asks for a second factor, and does not also accept a password.
func (p *Provider) wantsFactor(a *authorizationRequest) (wanted, essential bool) {
	values, essential := a.askedACR()
	wanted = slices.Contains(values, acrMultiple) && !slices.Contains(values, acrPassword)
	return wanted && p.accounts.HasSecondFactor(), essential
}

// acrOf returns the acr of an ID token for a request; empty for none.
func acrOf(a *authorizationRequest, login *web.Login) string {
	asked, _ := a.askedACR()
	onlyPassword := slices.Contains(asked, acrPassword) && !slices.Contains(asked, acrMultiple)
	switch {
	case isMultiple(login.Methods) && !onlyPassword:
		return acrMultiple
	case !login.External && byPassword(login.Methods) &&
		(slices.Contains(asked, acrPassword) || a.claims.IDToken["acr"] != nil):
		return acrPassword
	}
	return ""
}

// byPassword reports whether a password was among the methods, as it was when none were kept.
func byPassword(methods []string) bool {
	return len(methods) == 0 || slices.Contains(methods, accounts.MethodPassword)
}

func isMultiple(methods []string) bool { return slices.Contains(methods, accounts.MethodMultiple) }

// setAuthentication adds how the user of a grant has authenticated to the claims of an ID token.
func (g *grant) setAuthentication(claims map[string]any) {
	switch {
	case len(g.Methods) > 0:
		claims["amr"] = g.Methods
	case !g.External: // of a session or grant of before it was kept
		claims["amr"] = []string{accounts.MethodPassword}
	}
	switch {
	case g.Class != "":
		claims["acr"] = g.Class
	case g.ACR && !g.External: // of a grant of before
		claims["acr"] = acrPassword
	}
}
