package provider

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"go.uber.org/zap"
)

const maxBodyBytes = 64 << 10

// oauthError is an error for a client or a user: RFC 6749 §5.2 and its extensions.
type oauthError struct {
	// status of the response; 0 means 400.
	status int
	// code is the error code of the RFC.
	code string
	// description says what is wrong and what would be right. It never contains a token or
	// a secret.
	description string
	// challenge is a WWW-Authenticate header, empty for none.
	challenge string
	// page reports whether a user sees the response, not a client.
	page       bool
	retryAfter time.Duration
}

// Descriptions for users, who can do something about them.
const (
	textFinished   = "this log-in has expired or is already complete; go back to the application where you started"
	textDeviceGone = "the code has expired or was already used; start again on your device"
	textWrongCode  = "The code is wrong, or has expired. Look at your device again."
	textManyCodes  = "Too many wrong codes. Wait a few minutes."
	textStoreDown  = "the user store is temporarily unavailable"
)

// forUsers has the descriptions that are shown in the user's language. The others are for those who
// run the client, and stay in English.
var forUsers = map[string]bool{
	textFinished: true, textDeviceGone: true, textWrongCode: true, textManyCodes: true, textStoreDown: true,
}

func (e *oauthError) Error() string { return e.code + ": " + e.description }

func refuse(code, description string) *oauthError {
	return &oauthError{code: code, description: description}
}

// fail responds to an error: a client gets JSON, a user gets a page.
func (p *Provider) fail(w http.ResponseWriter, r *http.Request, err error) error {
	failure := p.public(err)
	p.log.Debug(
		"request refused", zap.String("path", r.URL.Path),
		zap.String("error", failure.code), zap.String("description", failure.description),
	)
	status := cmp.Or(failure.status, http.StatusBadRequest) // other requests may share the error, so it stays as it is
	if failure.challenge != "" {
		w.Header().Set("WWW-Authenticate", failure.challenge)
	}
	if failure.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(failure.retryAfter/time.Second)))
	}
	if failure.page {
		language := p.accounts.Language(r, "")
		return p.pages.render(
			w, r, language, "error", map[string]any{
				"Code": failure.code, "Description": language.Text(failure.description),
				"ForUsers": forUsers[failure.description],
			}, status,
		)
	}
	return writeJSON(w, status, map[string]any{
		"error": failure.code, "error_description": inASCII(failure.description),
	})
}

// public returns the error for the client or user. An error of the store or the accounts
// becomes one that says that the service is temporarily unavailable.
func (p *Provider) public(err error) *oauthError {
	if failure, ok := errors.AsType[*oauthError](err); ok {
		return failure
	}
	return p.notNow(err)
}

// inASCII converts a description to the characters that RFC 6749 §5.2 allows.
func inASCII(description string) string {
	return ofChallenge(strings.ReplaceAll(description, "§", "section "))
}

// notNow converts a failure of the store or the accounts to an error for the client.
func (p *Provider) notNow(err error) *oauthError {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &oauthError{
			status: http.StatusRequestEntityTooLarge, code: "invalid_request",
			description: "the body has more than " + strconv.FormatInt(tooLarge.Limit, 10) + " bytes",
		}
	}
	p.accounts.StoreFailed(err)
	return &oauthError{
		status: http.StatusServiceUnavailable, code: "temporarily_unavailable",
		description: textStoreDown, retryAfter: time.Second,
	}
}

func writeJSON(w http.ResponseWriter, status int, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if status >= http.StatusBadRequest {
		text = append(text, '\n') // as it is read in terminals
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(text)
	return err
}

// nobody reports whether an error of the accounts means that no user is logged in.
func nobody(err error) bool {
	failure, ok := errors.AsType[*refusal.Error](err)
	return ok && failure.Reason != refusal.StoreUnavailable && failure.Reason != refusal.StoreFull
}

// ofChallenge makes a text safe for a quoted string of a header.
func ofChallenge(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '\''
		}
		return r
	}, text)
}
