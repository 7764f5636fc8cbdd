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
	asked, err := p.readRequest(r)
	if err != nil {
		return p.refuseRequest(w, r, asked.request, err)
	}
	login, err := p.accounts.Login(w, r)
	if err == nil || nobody(err) {
		var next step
		if next, err = p.decide(r.Context(), asked, login); err == nil {
			return p.answerRequest(w, r, asked.request, next)
		}
	}
	// With prompt=none, no user is looking at a page.
	if failure, ok := errors.AsType[*oauthError](err); ok && !failure.page || !ok && asked.request.prompt("none") {
		return p.refuseRequest(w, r, asked.request, err)
	}
	return err
}

// step is the next step for an authorization request: a page of this site, or the response for
// the client.
type step struct {
	page   page
	id     string            // of the request that waits for the page
	answer map[string]string // the parameters for the client
}

// page is a page on which a request waits for its user.
type page string

const (
	loginPage   page = "login"
	factorPage  page = "factor" // of the accounts, which asks for a second factor
	consentPage page = "consent"
	again       page = "authorize" // the endpoint itself, as a GET
)

// decide returns the next step for a valid request. An error is for the client, unless it is
// [shown].
func (p *Provider) decide(ctx context.Context, asked asked, login *web.Login) (next step, err error) {
	request, waiting := asked.request, asked.waiting
	if asked.canceled {
		if login != nil { // otherwise nothing is stored, because anybody can open such URLs
			if err := p.refuseInteraction(ctx, asked.id); err != nil {
				return next, err
			}
		}
		return next, refuse("access_denied", "the user canceled the log-in")
	}
	if waiting.Refused {
		return next, shown(errFinished)
	}
	if login == nil && asked.posted { // from a page of the client, which does not send the cookie
		return p.waitAt(ctx, again, asked)
	}
	if p.needsLogin(request, login, waiting.BeganAt) {
		// Another user may have just logged in.
		if request.prompt("none") || login != nil && !login.At.Before(waiting.BeganAt.Truncate(time.Millisecond)) {
			return next, refuse("login_required", "no user is logged in, or the log-in does not meet the request")
		}
		return p.waitAt(ctx, loginPage, asked)
	}
	if wanted, essential := p.wantsFactor(request); wanted && !isMultiple(login.Methods) {
		switch {
		case !request.prompt("none"):
			return p.waitAt(ctx, factorPage, asked)
		case essential:
			return next, refuse("interaction_required", "the user must first prove a second factor")
		}
	}
	if !request.client.mayUse(login.User) {
		return next, refuse("access_denied", "the user has none of the roles that may use the client")
	}
	if acr := request.claims.IDToken["acr"]; acr != nil && acr.Essential && login.External &&
		!isMultiple(login.Methods) {
		return next, refuse(
			"unmet_authentication_requirements",
			"the user logged in through another provider, not with a password",
		)
	}
	agreed, err := p.consented(ctx, request, login, waiting)
	if err != nil {
		return next, err
	}
	if !agreed {
		if request.prompt("none") {
			return next, refuse("consent_required", "the user must give consent first")
		}
		return p.waitAt(ctx, consentPage, asked)
	}
	if asked.id != "" {
		err := p.note(ctx, asked.id, func(o *outcome) error { return o.answer(login.User.ID, p.accounts.Now()) })
		if err != nil {
			return next, shown(err)
		}
	}
	if next.answer, err = p.grantRequest(ctx, request, login); err != nil {
		err = p.public(err) // the client can try again
	}
	return next, err
}

// waitAt returns the step to a page, on which the request waits for its user.
func (p *Provider) waitAt(ctx context.Context, at page, asked asked) (step, error) {
	if at != again && asked.framed {
		return step{}, errInFrame
	}
	if asked.id != "" {
		return step{page: at, id: asked.id}, nil
	}
	asked.waiting.Parameters = known(asked.waiting.Parameters)
	id, err := p.sealInteraction(ctx, asked.waiting)
	return step{page: at, id: id}, shown(err)
}

// continueAt returns the URL of a page that continues a waiting request.
func (p *Provider) continueAt(at page, id string) string {
	return p.basePath + "/oidc/" + string(at) + "?interaction=" + id
}

var errInFrame = refuse(
	"interaction_required", "the user must see a page of the provider, which cannot be shown in a frame",
)

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
	lead = accounts.Lead{Client: request.client.shownName(), Cancel: returnTo + "&cancel=", MaxAge: request.maxAge}
	lead.Languages = waiting.Parameters.Get("ui_locales")
	if request.wantsLogin() {
		lead.MaxAge = new(time.Duration)
	}
	return lead
}
