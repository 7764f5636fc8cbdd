// Package answer sends refusals over HTTP, as a challenge, JSON or through the site's
// handle_errors, and counts decisions.
package answer

import (
	"cmp"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// DefaultRealm is the default realm of the challenge in WWW-Authenticate.
const DefaultRealm = "restricted"

// ErrorBody is the JSON body of a refusal, if the site has no handle_errors.
type ErrorBody struct {
	// Error has the status, the code of RFC 6750 §3.1, and a sentence.
	Error struct {
		StatusCode int    `json:"statusCode"`
		Name       string `json:"name"`
		Code       string `json:"code"`
		Message    string `json:"message"`
		// Challenge continues a log-in that needs a second factor.
		Challenge string `json:"challenge,omitempty"`

		Details []refusal.PropertyError `json:"details,omitempty"`
	} `json:"error"`
}

// Responder sends refusals.
type Responder struct {
	// Realm of the challenge (RFC 9110 §11.5).
	Realm string
	// ResourceMetadata is the URL of the metadata document of the resource, for challenges
	// (RFC 9728 §5.1); empty for none. Scope are the scopes that a client without a token
	// should ask for.
	ResourceMetadata, Scope string
	// Decisions count the refusals.
	Decisions *Decisions
	// Logger logs each refusal at debug level.
	Logger *zap.Logger
	// Log logs some refusals at info level instead; nil for none.
	Log *RefusalLog
	// Page answers a refusal of a request that prefers HTML to JSON, where the site has no
	// handle_errors for it; nil for JSON.
	Page func(w http.ResponseWriter, r *http.Request, err *refusal.Error) error
}

// Refuse sends a refusal: the headers of RFC 6750 §3, then the response of the site's
// handle_errors if it has a matching route, otherwise a page for a browser where there are
// pages, otherwise a JSON body.
func (h Responder) Refuse(w http.ResponseWriter, r *http.Request, err *refusal.Error) error {
	public := err.Reason.Answer()
	h.Announce(w, r, err)
	handlerError := caddyhttp.Error(public.Status, err.Public())
	if takesError(r, handlerError) {
		return handlerError
	}
	if h.Page != nil && Prefers(r, "text/html", "application/json") {
		return h.Page(w, r, err)
	}
	return WriteRefusal(w, err)
}

// WriteRefusal writes the JSON body of a refusal.
func WriteRefusal(w http.ResponseWriter, err *refusal.Error) error {
	return WriteJSON(w, err.Reason.Answer().Status, Body(err))
}

// Body returns the JSON body of a refusal.
func Body(err *refusal.Error) (body ErrorBody) {
	public := err.Reason.Answer()
	body.Error.StatusCode, body.Error.Name = public.Status, public.Name
	body.Error.Code, body.Error.Message = public.Code, public.Description
	body.Error.Details, body.Error.Challenge = err.Properties, err.Challenge
	return body
}

// WriteJSON writes a value as JSON. An error ends with a line break, as it is read in terminals.
func WriteJSON(w http.ResponseWriter, status int, value any) error {
	text, err := json.Marshal(value, json.Deterministic(true))
	if err != nil {
		return err
	}
	if status >= http.StatusBadRequest {
		text = append(text, '\n')
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, err = w.Write(text)
	return err
}

// Announce sets the challenge and the placeholders, and counts and logs the refusal.
func (h Responder) Announce(w http.ResponseWriter, r *http.Request, err *refusal.Error) {
	public := err.Reason.Answer()
	h.Decisions.Refused(err.Reason)
	fields := func() []zap.Field {
		return []zap.Field{
			zap.String("reason", string(err.Reason)),
			zap.String("detail", err.Detail), zap.Int("status", public.Status), help.See(string(err.Reason)),
		}
	}
	if h.Log == nil || !h.Log.log(h.Logger, r, fields()) {
		if entry := h.Logger.Check(zapcore.DebugLevel, "request refused"); entry != nil {
			entry.Write(fields()...)
		}
	}
	if public.Challenge {
		w.Header().Add("WWW-Authenticate", h.challenge(err))
		if h.ResourceMetadata != "" { // also for a client in a browser; a refusal has no secret
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.Header().Set("Access-Control-Expose-Headers", "WWW-Authenticate")
		}
	}
	if err.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(err.RetryAfter.Seconds()))))
	}
	replacer := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	replacer.Set("http.jwt.error", public.Code)
	replacer.Set("http.jwt.error_description", public.Description)
}

// challenge returns the WWW-Authenticate header of RFC 6750 §3. It has no error if the
// client sent no credentials (§3.1).
func (h Responder) challenge(err *refusal.Error) string {
	public, scope := err.Reason.Answer(), err.Scope
	var text strings.Builder
	text.WriteString(`Bearer realm="` + h.Realm + `"`)
	if h.ResourceMetadata != "" {
		text.WriteString(`, resource_metadata="` + h.ResourceMetadata + `"`)
		scope = cmp.Or(scope, h.Scope)
	}
	if err.Reason != refusal.NoCredentials {
		text.WriteString(`, error="` + public.Code + `", error_description="` + public.Description + `"`)
	}
	if len(err.ACR) > 0 { // RFC 9470 §3
		text.WriteString(`, acr_values="` + strings.Join(err.ACR, " ") + `"`)
	}
	if err.MaxAge > 0 {
		text.WriteString(`, max_age="` + strconv.Itoa(int(err.MaxAge.Seconds())) + `"`)
	}
	if scope != "" {
		text.WriteString(`, scope="` + scope + `"`)
	}
	return text.String()
}

// takesError reports whether the site has a handle_errors route for the error. The error
// routes of a server are those of all its sites, so it evaluates their matchers on the
// request that Caddy would pass to them.
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

// Prefers reports whether the request's Accept header prefers one media type to another
// (RFC 9110 §12.5.1): the type that comes first, because no relevant client sends weights
// for these types.
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
