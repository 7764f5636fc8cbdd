// Package answer answers a refusal over HTTP: challenge, JSON or the handle_errors of the
// site; and counts what was decided.
package answer

import (
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// DefaultRealm of the challenge in WWW-Authenticate.
const DefaultRealm = "restricted"

// ErrorBody is the answer where the site has no handle_errors.
type ErrorBody struct {
	Error struct {
		StatusCode int    `json:"statusCode"`
		Name       string `json:"name"`
		Code       string `json:"code"`
		Message    string `json:"message"`

		Details []refusal.PropertyError `json:"details,omitempty"`
	} `json:"error"`
}

// Responder answers refusals.
type Responder struct {
	// Realm of the challenge (RFC 9110 §11.5).
	Realm string
	// Logger has a line for each refusal, at debug level.
	Logger *zap.Logger
}

// Refuse answers a refusal: headers of RFC 6750 §3, then the site's own
// handle_errors if one of its routes takes the error, else a JSON body.
func (h Responder) Refuse(w http.ResponseWriter, r *http.Request, err *refusal.Error) error {
	told := err.Reason.Answer()
	h.Announce(w, r, err)
	handlerError := caddyhttp.Error(told.Status, err.Told())
	if takesError(r, handlerError) {
		return handlerError
	}
	return WriteRefusal(w, err)
}

// WriteRefusal answers with the JSON body.
func WriteRefusal(w http.ResponseWriter, err *refusal.Error) error {
	told := err.Reason.Answer()
	var body ErrorBody
	body.Error.StatusCode, body.Error.Name = told.Status, told.Name
	body.Error.Code, body.Error.Message = told.Code, told.Description
	body.Error.Details = err.Properties
	return WriteJSON(w, told.Status, body)
}

// WriteJSON answers with a value as JSON.
func WriteJSON(w http.ResponseWriter, status int, value any) error {
	text, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, err = w.Write(text)
	return err
}

// Announce sets the challenge and the placeholders, counts and logs.
func (h Responder) Announce(w http.ResponseWriter, r *http.Request, err *refusal.Error) {
	told := err.Reason.Answer()
	Refused(err.Reason)
	if entry := h.Logger.Check(zapcore.DebugLevel, "request refused"); entry != nil {
		entry.Write(zap.String("reason", string(err.Reason)), zap.String("detail", err.Detail), zap.Int("status", told.Status))
	}
	if told.Challenge {
		w.Header().Add("WWW-Authenticate", challenge(h.Realm, err))
	}
	if err.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(err.RetryAfter.Seconds()))))
	}
	replacer := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	replacer.Set("http.jwt.error", told.Code)
	replacer.Set("http.jwt.error_description", told.Description)
}

// challenge is the WWW-Authenticate header of RFC 6750 §3. It names no error
// to a client that sent no credentials (§3.1).
func challenge(realm string, err *refusal.Error) string {
	told := err.Reason.Answer()
	var text strings.Builder
	text.WriteString(`Bearer realm="` + realm + `"`)
	if err.Reason == refusal.NoCredentials {
		return text.String()
	}
	text.WriteString(`, error="` + told.Code + `", error_description="` + told.Description + `"`)
	if err.Scope != "" {
		text.WriteString(`, scope="` + err.Scope + `"`)
	}
	return text.String()
}

// takesError tells whether the site has a handle_errors route for the error.
// The server's error routes are those of all its sites, so their matchers are
// asked, on the request as Caddy shows it to them.
func takesError(r *http.Request, err error) bool {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server == nil || server.Errors == nil {
		return false
	}
	trial := server.Errors.WithError(r, err)
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		trial.Method, trial.RequestURI = original.Method, original.RequestURI
		trial.URL = new(url.URL)
		*trial.URL = *original.URL
	}
	return anyHandles(server.Errors.Routes, trial)
}

func anyHandles(routes caddyhttp.RouteList, r *http.Request) bool {
	for _, route := range routes {
		if matches, err := route.MatcherSets.AnyMatchWithError(r); err != nil || !matches {
			continue
		}
		for _, handler := range route.Handlers {
			if sub, ok := handler.(*caddyhttp.Subroute); !ok || anyHandles(sub.Routes, r) {
				return true
			}
		}
	}
	return false
}

// Prefers tells whether the request's Accept header prefers a media type to
// another (RFC 9110 §12.5.1): it comes first, as no browser or client that
// matters here sends weights for these.
func Prefers(r *http.Request, kind, over string) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		accepted, _, _ := mime.ParseMediaType(part)
		switch accepted {
		case kind:
			return true
		case over:
			return false
		}
	}
	return false
}
