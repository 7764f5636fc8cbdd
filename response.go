package caddyjwt

import (
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-json-experiment/json"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// errorBody is the answer where the site has no handle_errors.
type errorBody struct {
	Error struct {
		StatusCode int    `json:"statusCode"`
		Name       string `json:"name"`
		Code       string `json:"code"`
		Message    string `json:"message"`

		Details []refusal.PropertyError `json:"details,omitempty"`
	} `json:"error"`
}

// responder answers refusals, for each handler of the package.
type responder struct {
	realm  string
	logger *zap.Logger
}

// refuse answers a refusal: headers of RFC 6750 §3, then the site's own
// handle_errors if one of its routes takes the error, else a JSON body.
func (h responder) refuse(w http.ResponseWriter, r *http.Request, err *refusal.Error) error {
	told := err.Reason.Answer()
	h.announce(w, r, err)
	handlerError := caddyhttp.Error(told.Status, err.Told())
	if takesError(r, handlerError) {
		return handlerError
	}
	return writeRefusal(w, err)
}

// writeRefusal answers with the JSON body.
func writeRefusal(w http.ResponseWriter, err *refusal.Error) error {
	told := err.Reason.Answer()
	var body errorBody
	body.Error.StatusCode, body.Error.Name = told.Status, told.Name
	body.Error.Code, body.Error.Message = told.Code, told.Description
	body.Error.Details = err.Properties
	return writeJSON(w, told.Status, body)
}

func writeJSON(w http.ResponseWriter, status int, value any) error {
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

// announce sets the challenge and the placeholders, counts and logs.
func (h responder) announce(w http.ResponseWriter, r *http.Request, err *refusal.Error) {
	told := err.Reason.Answer()
	refused[err.Reason].Inc()
	if entry := h.logger.Check(zapcore.DebugLevel, "request refused"); entry != nil {
		entry.Write(zap.String("reason", string(err.Reason)), zap.String("detail", err.Detail), zap.Int("status", told.Status))
	}
	if told.Challenge {
		w.Header().Add("WWW-Authenticate", challenge(h.realm, err))
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

// privateWriter marks the answers to requests that shared caches take for anybody's
// (RFC 9111 §3.5 knows of `Authorization` alone).
type privateWriter struct {
	*caddyhttp.ResponseWriterWrapper
	marks
	request *http.Request
	marked  bool
}

// marks are why an answer is marked.
type marks struct {
	always   bool   // whatever a handler behind says of caching, as for a token in the URL (RFC 6750 §2.3)
	byCookie bool   // the user came by a cookie, and is not anonymous
	vary     bool   // another cookie may have another answer
	renewed  *grant // whose cookies the answer brings; nil for none
}

// WriteHeader implements http.ResponseWriter.
func (w *privateWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.mark()
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

func (w *privateWriter) mark() {
	if w.marked {
		return
	}
	w.marked = true
	if w.renewed != nil {
		forgetLateCookie(w.Header(), w.request, w.renewed)
	}
	control, vary := listOf(w.Header(), "Cache-Control"), listOf(w.Header(), "Vary")
	has := func(directives ...string) bool {
		return slices.ContainsFunc(control, func(given string) bool {
			name, _, _ := strings.Cut(given, "=")
			return slices.Contains(directives, name)
		})
	}
	forAll := has("public", "s-maxage") // as a handler behind says, which knows whether it is the same for all
	switch isPrivate := has("private", "no-store"); {
	case w.always && !isPrivate:
		w.Header().Set("Cache-Control", "private")
	case w.byCookie && !isPrivate && !forAll:
		w.Header().Set("Cache-Control", strings.Join(append(control, "private"), ", "))
	}
	if w.vary && (w.always || !forAll) && !slices.Contains(vary, "cookie") && !slices.Contains(vary, "*") {
		w.Header().Add("Vary", "Cookie")
	}
}

// listOf are the elements of a header, in small letters.
func listOf(header http.Header, name string) (elements []string) {
	for _, line := range header[name] {
		for element := range strings.SplitSeq(line, ",") {
			if element = strings.ToLower(strings.Trim(element, " \t")); element != "" {
				elements = append(elements, element)
			}
		}
	}
	return elements
}

// Write implements http.ResponseWriter.
func (w *privateWriter) Write(body []byte) (int, error) {
	if !w.marked {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriterWrapper.Write(body)
}

// ReadFrom implements io.ReaderFrom.
func (w *privateWriter) ReadFrom(body io.Reader) (int64, error) {
	if !w.marked {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriterWrapper.ReadFrom(body)
}
