package web

import (
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
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

// RefusedPage answers a refusal to a browser: what is wrong, who is logged in, and how long to wait.
func (a *Shared) RefusedPage(w http.ResponseWriter, r *http.Request, err *refusal.Error) error {
	status := err.Reason.Answer().Status
	data := pageData{
		Title: refusedTitles[status], Text: err.Reason.Answer().Description, User: a.visitor(r),
		Wait: wait(err.RetryAfter),
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
	switch {
	case data.Title == "":
		data.Title = http.StatusText(status)
	case status == http.StatusUnauthorized && data.User.Email != "": // see `require acr`
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
		user.Email, _ = token.Claims["email"].(string)
	}
	return user
}

// refusedText returns the text of a refusal for the page of a form, with how long to wait.
func refusedText(failure *refusal.Error) string {
	text := failure.Reason.Answer().Description
	if until := wait(failure.RetryAfter); until != "" {
		text += " You can try again in " + until + "."
	}
	return text
}

// wait returns how long to wait, in words; empty for not at all.
func wait(d time.Duration) string {
	switch seconds := int64(math.Ceil(d.Seconds())); {
	case seconds <= 0:
		return ""
	case seconds == 1:
		return "1 second"
	case seconds < 120:
		return fmt.Sprintf("%d seconds", seconds)
	}
	return fmt.Sprintf("%d minutes", int64(math.Ceil(d.Minutes())))
}
