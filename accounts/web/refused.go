package web

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// refusedTitles are the titles of pages for refusals, by status.
var refusedTitles = map[int]string{
	http.StatusBadRequest:         "This request is not valid",
	http.StatusUnauthorized:       "Please log in",
	http.StatusForbidden:          "You have no access to this page",
	http.StatusNotFound:           "There is no such page",
	http.StatusMethodNotAllowed:   "This page cannot do that",
	http.StatusTooManyRequests:    "Too many attempts",
	http.StatusServiceUnavailable: "Not available at the moment",
}

// refusedTitle returns the title of a page for a refusal.
func refusedTitle(status int) string {
	switch title := refusedTitles[status]; {
	case title != "":
		return title
	case status >= 500:
		return refusedTitles[http.StatusServiceUnavailable]
	}
	return refusedTitles[http.StatusBadRequest]
}

// refusedText returns what a page says about a refusal. Where the description is for programs, it is
// something that people can act on.
func refusedText(public refusal.Answer) string {
	switch {
	case !public.Challenge:
		return public.Description
	case public.Status == http.StatusUnauthorized:
		return "Your log-in is not valid here, or has ended. Please log in again."
	case public.Status == http.StatusForbidden:
		return "You are not allowed to do this."
	}
	return "Your browser has sent something that this site does not understand."
}

// RefusedPage answers a refusal to a browser: what is wrong, who is logged in, and how long to wait.
func (a *Shared) RefusedPage(w http.ResponseWriter, r *http.Request, err *refusal.Error) error {
	status := err.Reason.Answer().Status
	data := pageData{
		Title: refusedTitle(status), Text: refusedText(err.Reason.Answer()), User: a.visitor(r),
		Wait: wait(a.pages.language(r), err.RetryAfter),
	}
	switch err.Reason {
	case refusal.NoCredentials:
		data.Text = "You have to log in to see this page."
	case refusal.Authentication:
		data.Text = "This page requires that you have just logged in, or have proved who you are by a second factor."
		if to := a.stepUpFor(r, err); to != "" {
			data.Next = &pageLink{"Go on", to}
		}
	}
	if status == http.StatusUnauthorized && data.User.Email != "" { // see `require acr`
		data.Title = "This log-in is not enough"
	}
	if original := originalURL(r); r.Method == http.MethodGet {
		data.ReturnTo = answer.SafeReturnPath(original.RequestURI(), "")
	}
	return a.pages.render(w, r, "refused", data, status)
}

// visitor returns the user of a browser's session, from its token alone: the store may be the reason
// for the refusal.
func (a *Shared) visitor(r *http.Request) (user pageUser) {
	credential := credentials.AccountSources.Read(r)
	if credential.Err != nil || credential.Token == "" {
		return user
	}
	token, err := a.service.Verifier.Verify(r.Context(), credential.Token, a.service.Now())
	if err == nil && SessionOf(token) != "" {
		user.ID = token.UserID
		email, _ := token.Claims["email"].(string)
		name, _ := token.Claims["preferred_username"].(string)
		user.Email = cmp.Or(email, name)
	}
	return user
}

// wrongCredentials describes the refusal of a log-in, by what users of the site log in by.
func (p *pages) wrongCredentials() string {
	if p.defaults.Identifier != accounts.IdentifierEmail {
		return "Invalid name or password."
	}
	return refusal.WrongCredentials.Answer().Description
}

// formText returns the text of a refusal for the page of a form, with how long to wait.
func formText(language *texts.Language, failure *refusal.Error) string {
	text := language.Text(failure.Reason.Answer().Description)
	if until := wait(language, failure.RetryAfter); until != "" {
		text += " " + language.Text("You can try again in %s.", until)
	}
	return text
}

// writeRefusal writes the JSON body of a refusal, in the language of the client. What is also in the
// challenge stays in English.
func (p *pages) writeRefusal(w http.ResponseWriter, r *http.Request, err *refusal.Error) error {
	language, body := p.language(r), answer.Body(err)
	if err.Reason.Answer().Challenge {
		language = p.texts.English()
	}
	if err.Reason == refusal.WrongCredentials {
		body.Error.Message = p.wrongCredentials()
	}
	body.Error.Message = language.Text(body.Error.Message)
	body.Error.Details = slices.Clone(body.Error.Details)
	for i, detail := range body.Error.Details {
		body.Error.Details[i].Message = language.ErrorText(detail.Cause)
	}
	in(w, language)
	return answer.WriteJSON(w, body.Error.StatusCode, body)
}
