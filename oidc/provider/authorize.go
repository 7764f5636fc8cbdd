package provider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
)

// authorize is the authorization endpoint: it reads the request, decides on the next step, and
// responds.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) error {
	id, waiting, request, err := p.readRequest(r)
	if err != nil {
		return p.refuseRequest(w, r, request, err)
	}
	login, err := p.accounts.Login(w, r)
	if err == nil || nobody(err) {
		var next step
		if next, err = p.decide(r, id, waiting, request, login); err == nil {
			return p.answerRequest(w, r, request, next)
		}
	}
	// no user is looking at a page
	if failure, ok := errors.AsType[*oauthError](err); ok && !failure.page || !ok && request.prompt("none") {
		return p.refuseRequest(w, r, request, err)
	}
	return err
}

// step is the next step for an authorization request. Exactly one of its fields is set.
type step struct {
	location string            // a page of this site, such as the log-in or the consent page
	answer   map[string]string // the parameters for the client
}

// decide returns the next step for a valid request: the log-in page, the consent page, or
// the response for the client. An error is for the client, unless it is [shown].
func (p *Provider) decide(
	r *http.Request, id string, waiting interaction, request *authorizationRequest, login *web.Login,
) (next step, err error) {
	if id != "" && r.URL.Query().Has("cancel") {
		if login != nil { // otherwise nothing is stored, because anybody can open such URLs
			if err := p.refuseInteraction(r.Context(), id); err != nil {
				return next, err
			}
		}
		return next, refuse("access_denied", "the user canceled the log-in")
	}
	if waiting.Refused {
		return next, shown(errFinished)
	}
	if login == nil && r.Method == http.MethodPost { // from a page of the client, which does not send the cookie
		id, err = p.wait(r, id, waiting)
		return step{location: p.continueAt("authorize", id)}, err
	}
	if p.needsLogin(request, login, waiting.BeganAt) {
		// another user has just logged in
		if request.prompt("none") || login != nil && !login.At.Before(waiting.BeganAt.Truncate(time.Millisecond)) {
			return next, refuse("login_required", "no user is logged in, or the log-in does not meet the request")
		}
		if id, err = p.waitForUser(r, id, waiting); err != nil {
			return next, err
		}
		return step{location: p.accounts.LoginURL(r, p.continueAt("authorize", id), request.loginHint)}, nil
	}
	if acr := request.claims.IDToken["acr"]; login.External && acr != nil && acr.Essential {
		return next, refuse(
			"unmet_authentication_requirements", "the user logged in through another provider, not with a password",
		)
	}
	agreed, err := p.consented(r.Context(), request, login, waiting)
	if err != nil {
		return next, err
	}
	if !agreed {
		if request.prompt("none") {
			return next, refuse("consent_required", "the user must give consent first")
		}
		id, err = p.waitForUser(r, id, waiting)
		return step{location: p.continueAt("consent", id)}, err
	}
	if id != "" {
		err := p.note(r.Context(), id, func(o *outcome) error { return o.answer(login.User.ID, p.accounts.Now()) })
		if err != nil {
			return next, shown(err)
		}
	}
	if next.answer, err = p.grantRequest(r.Context(), request, login); err != nil {
		err = p.public(err) // the client can try again
	}
	return next, err
}

// continueAt returns the URL of an endpoint that continues a waiting request.
func (p *Provider) continueAt(endpoint, id string) string {
	return p.basePath + "/oidc/" + endpoint + "?interaction=" + id
}

// waitForUser is like wait, for a page that the user must see.
func (p *Provider) waitForUser(r *http.Request, id string, waiting interaction) (string, error) {
	if inFrame(r) {
		return "", errInFrame
	}
	return p.wait(r, id, waiting)
}

var errInFrame = refuse(
	"interaction_required", "the user must see a page of the provider, which cannot be shown in a frame",
)

// wait returns the text that continues a request after the log-in or consent.
func (p *Provider) wait(r *http.Request, id string, waiting interaction) (string, error) {
	if id != "" {
		return id, nil
	}
	waiting.Parameters = known(waiting.Parameters)
	id, err := p.sealInteraction(r.Context(), waiting)
	return id, shown(err)
}

// needsLogin reports whether the user must log in, even if there is a session (OpenID
// Connect Core §3.1.2.3).
func (p *Provider) needsLogin(a *authorizationRequest, login *web.Login, beganAt time.Time) bool {
	switch {
	case login == nil:
		return true
	case a.wantsLogin() && login.At.Before(beganAt.Truncate(time.Millisecond)):
		return true
	case a.maxAge != nil && p.accounts.Now().Sub(login.At) > *a.maxAge &&
		login.At.Before(beganAt.Truncate(time.Millisecond)):
		return true
	}
	return a.hintedSubject != "" && a.hintedSubject != login.User.ID
}

// leadsTo returns the purpose of a log-in for a waiting request.
func (p *Provider) leadsTo(returnTo string) (lead accounts.Lead) {
	u, err := url.Parse(returnTo)
	if err != nil || u.Path != p.basePath+"/oidc/authorize" {
		return lead
	}
	ctx, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	waiting, err := p.openInteraction(ctx, u.Query().Get("interaction"))
	if err != nil {
		return lead
	}
	request, err := p.parseRequest(ctx, waiting.Parameters)
	if err != nil || request == nil {
		return lead
	}
	lead = accounts.Lead{Cancel: returnTo + "&cancel=", MaxAge: request.maxAge}
	if request.wantsLogin() {
		lead.MaxAge = new(time.Duration)
	}
	return lead
}
