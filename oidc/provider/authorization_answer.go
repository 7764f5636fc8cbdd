package provider

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// answerRequest takes the next step of a request.
func (p *Provider) answerRequest(
	w http.ResponseWriter, r *http.Request, request *authorizationRequest, next step,
) error {
	switch next.page {
	case loginPage:
		seeOther(w, p.accounts.LoginURL(r, p.continueAt(again, next.id), request.loginHint))
		return nil
	case factorPage:
		seeOther(w, p.accounts.StepUpURL(r, p.continueAt(again, next.id)))
		return nil
	case consentPage, again:
		seeOther(w, p.continueAt(next.page, next.id))
		return nil
	}
	return p.respond(w, r, request, next.answer)
}

// refuseRequest sends an error to the client, or shows it if the client is unknown.
func (p *Provider) refuseRequest(
	w http.ResponseWriter, r *http.Request, request *authorizationRequest, err error,
) error {
	failure := p.public(err)
	if request == nil || request.redirectURI == "" {
		return shown(failure)
	}
	return p.respond(w, r, request, map[string]string{
		"error": failure.code, "error_description": inASCII(failure.description),
	})
}

// respond redirects the user to the client (OAuth 2.0 Multiple Response Type Encoding
// Practices, OAuth 2.0 Form Post Response Mode).
func (p *Provider) respond(
	w http.ResponseWriter, r *http.Request, request *authorizationRequest, answer map[string]string,
) error {
	if request.state != "" {
		answer["state"] = request.state
	}
	answer["iss"] = p.Issuer // RFC 9207
	w.Header().Set("Referrer-Policy", "no-referrer")
	if request.mode == "form_post" {
		return p.pages.formPost(w, request.redirectURI, answer)
	}
	values := make(url.Values)
	for name, value := range answer {
		values.Set(name, value)
	}
	if request.mode == "fragment" {
		seeOther(w, request.redirectURI+"#"+values.Encode())
		return nil
	}
	separator := "?"
	if strings.Contains(request.redirectURI, "?") {
		separator = "&"
	}
	seeOther(w, request.redirectURI+separator+values.Encode())
	return nil
}

// seeOther redirects so that a POST is not repeated (RFC 9700 §4.12).
func seeOther(w http.ResponseWriter, location string) {
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusSeeOther)
}

// shown marks an error to be shown to the user, because there is no URL to send it to.
func shown(err error) error {
	if failure, ok := errors.AsType[*oauthError](err); ok {
		page := *failure
		page.page = true
		return &page
	}
	return err
}
