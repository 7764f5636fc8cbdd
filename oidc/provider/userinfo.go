package provider

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// userinfo returns the claims of the user of an access token (OpenID Connect Core §5.3).
func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) error {
	presented, err := p.bearer(r)
	if err != nil {
		return err
	}
	token, err := p.live(r.Context(), presented)
	if err != nil {
		if _, refused := errors.AsType[*refusal.Error](err); !refused && !errors.Is(err, errNotFound) {
			return err
		}
		return p.challenged(
			http.StatusUnauthorized, "invalid_token", "the access token is not valid, has expired or was revoked", "",
		)
	}
	if !isMeantFor(token.Claims, p.Issuer) { // an API that got it could read the user's data
		return p.challenged(
			http.StatusUnauthorized, "invalid_token", "the access token is for an API, but userinfo needs one "+
				"without a resource or with the resource "+p.Issuer, "",
		)
	}
	id, _ := token.Claims["gid"].(string)
	scopes, _ := token.Claims["scope"].(string)
	if id == "" {
		return p.challenged(
			http.StatusForbidden, "insufficient_scope",
			"the access token belongs to the client itself, not to a user", "openid",
		)
	}
	if !contains(scopes, "openid") {
		return p.challenged(
			http.StatusForbidden, "insufficient_scope", "the access token lacks the scope openid", "openid",
		)
	}
	g, err := load[grant](r.Context(), p.state, kindGrant, id)
	if err != nil {
		return err
	}
	user, err := p.accounts.Store().User(r.Context(), g.UserID)
	if err != nil {
		return err
	}
	client, err := p.clientOf(r.Context(), &g)
	if err != nil {
		return err
	}
	if !client.mayUse(user) {
		return p.challenged(
			http.StatusUnauthorized, "invalid_token", "the user has none of the roles that may use the client", "",
		)
	}
	p.limit(&g.Claims, client)
	claims := client.renamed(p.userClaims(user, stillAllowed(client, strings.Fields(scopes)), g.Claims.UserInfo))
	claims["sub"] = user.ID
	return writeJSON(w, http.StatusOK, claims)
}

func contains(scopes, scope string) bool {
	return strings.Contains(" "+scopes+" ", " "+scope+" ")
}

// bearer returns the access token of a request, from the header or the form (RFC 6750 §2),
// never from the URL.
func (p *Provider) bearer(r *http.Request) (string, error) {
	headers := r.Header["Authorization"]
	fromForm := ""
	if r.Method == http.MethodPost &&
		strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		values, err := form(r)
		if err != nil {
			return "", err
		}
		fromForm = values.Get("access_token")
	}
	if len(headers) > 1 || len(headers) == 1 && fromForm != "" {
		return "", p.challenged(
			http.StatusBadRequest, "invalid_request", "the access token is sent in several places", "",
		)
	}
	if fromForm != "" {
		return fromForm, nil
	}
	if len(headers) == 1 {
		scheme, token, _ := strings.Cut(headers[0], " ")
		if strings.EqualFold(scheme, "Bearer") && strings.TrimSpace(token) != "" {
			return strings.TrimSpace(token), nil
		}
	}
	return "", &oauthError{
		status: http.StatusUnauthorized, code: "invalid_request",
		description: "an access token is required, as in Authorization: Bearer <token>",
		challenge:   `Bearer realm="` + ofChallenge(p.Issuer) + `"`,
	}
}

// challenged is an error with the challenge of RFC 6750 §3.
func (p *Provider) challenged(status int, code, description, scope string) error {
	challenge := `Bearer realm="` + ofChallenge(p.Issuer) + `", error="` + code + `", error_description="` +
		ofChallenge(description) + `"`
	if scope != "" {
		challenge += `, scope="` + scope + `"`
	}
	return &oauthError{status: status, code: code, description: description, challenge: challenge}
}
