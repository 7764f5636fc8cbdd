package provider

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// consent is what a user has allowed a client.
type consent struct {
	ClientID string   `json:"client_id"`
	Scopes   []string `json:"scopes"` // as of [Provider.access]
}

func consentID(userID string, client *Client) string {
	return hashed(userID + "\n" + client.ID + "\n" + client.Since)
}

// question identifies the question to a user, and the session.
func (a *authorizationRequest) question(login *web.Login) string {
	return hashed(strings.Join(append([]string{login.SessionID, a.client.Since}, a.consent...), "\n"))
}

// consented reports whether the user need not be asked for consent.
func (p *Provider) consented(
	ctx context.Context, a *authorizationRequest, login *web.Login, waiting interaction,
) (bool, error) {
	if waiting.Consented == a.question(login) {
		return true, nil
	}
	if a.prompt("consent") || a.client.Consent == "always" || a.toThisMachine() {
		return false, nil
	}
	if a.client.Consent == "never" {
		return true, nil
	}
	known, err := load[consent](ctx, p.state, kindConsent, consentID(login.User.ID, a.client))
	if errors.Is(err, errNotFound) {
		return false, nil
	}
	return err == nil &&
		!slices.ContainsFunc(a.consent, func(scope string) bool { return !slices.Contains(known.Scopes, scope) }), err
}

// toThisMachine reports whether the response goes to a program on the user's machine that
// cannot authenticate: any program there can open such a request in the browser and
// intercept the response (RFC 8252 §8.6). So the user always sees a page that names the
// client.
func (a *authorizationRequest) toThisMachine() bool {
	return (a.client.Public || a.responseType != "code") && onThisMachine(a.redirectURI)
}

// crossOrigin refuses requests from pages of other sites that carry a user's cookies.
var crossOrigin = http.NewCrossOriginProtection()

// consent shows the consent page and handles its form.
func (p *Provider) consent(w http.ResponseWriter, r *http.Request) error {
	values, err := pageValues(r)
	if err != nil {
		return err
	}
	id := values.Get("interaction")
	waiting, err := p.openInteraction(r.Context(), id)
	if err != nil {
		return shown(err)
	}
	request, err := p.parseRequest(r.Context(), waiting.Parameters)
	if err != nil {
		return p.refuseRequest(w, r, request, err)
	}
	login, err := p.accounts.Login(w, r)
	if err != nil && !nobody(err) {
		return err
	}
	if p.needsLogin(request, login, waiting.BeganAt) { // the session ended in the meantime
		seeOther(w, p.accounts.LoginURL(r, p.continueAt(again, id), request.loginHint))
		return nil
	}
	if waiting.Refused && r.Method != http.MethodPost {
		return shown(errFinished)
	}
	// or the page was shown to another user, or listed less
	if r.Method != http.MethodPost || values.Get("session") != request.question(login) {
		language := p.accounts.Language(r, waiting.Parameters.Get("ui_locales"))
		return p.pages.render(w, r, language, "consent", map[string]any{
			"Client": request.client.Name, "ClientHost": request.client.host, "Email": login.User.Email,
			"Scopes": p.describe(language, request.consent), "Interaction": id, "Action": p.basePath + "/oidc/consent",
			"Session": request.question(login), "OnThisMachine": request.toThisMachine(),
		}, http.StatusOK)
	}
	refused := values.Get("decision") != "allow"
	if waiting.Refused && !refused {
		return shown(errFinished)
	}
	if refused {
		if err := p.refuseInteraction(r.Context(), id); err != nil {
			return err
		}
		return p.refuseRequest(w, r, request, refuse("access_denied", "the user did not give consent"))
	}
	if err := p.remember(r.Context(), request, login); err != nil {
		return err
	}
	err = p.note(r.Context(), id, func(o *outcome) error {
		o.Consented = request.question(login)
		return nil
	})
	if err != nil {
		return err
	}
	seeOther(w, p.continueAt(again, id))
	return nil
}

// remember stores what the user allowed, in addition to earlier consent.
func (p *Provider) remember(ctx context.Context, a *authorizationRequest, login *web.Login) error {
	id := consentID(login.User.ID, a.client)
	err := p.state.create(ctx, kindConsent, id, login.User.ID, consent{a.client.ID, a.consent}, 0)
	if !errors.Is(err, store.ErrRecordExists) {
		return err
	}
	_, err = change(ctx, p.state, kindConsent, id, func(known *consent) error {
		for _, scope := range a.consent {
			if !slices.Contains(known.Scopes, scope) {
				known.Scopes = append(known.Scopes, scope)
			}
		}
		return nil
	})
	return err
}

// scopeTexts describe the scopes for users.
var scopeTexts = map[string]string{
	"openid":         "Know who you are",
	"profile":        "See your name and profile",
	"email":          "See your e-mail address",
	"phone":          "See your phone number",
	"address":        "See your postal address",
	"roles":          "See your roles",
	"permissions":    "See your permissions",
	"offline_access": "Stay connected when you are not here",
}
