package caddyjwt

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/accounts/web"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// privateWriter marks responses that shared caches would otherwise store for everybody. RFC
// 9111 §3.5 only protects requests with `Authorization`.
type privateWriter struct {
	*caddyhttp.ResponseWriterWrapper
	marks
	request *http.Request
	marked  bool
}

// marks are the reasons for marking a response.
type marks struct {
	always   bool            // regardless of a handler's Cache-Control, as for a token in the URL (RFC 6750 §2.3)
	byCookie bool            // the user was identified by a cookie
	vary     bool            // the response may depend on the cookie
	renewed  *accounts.Grant // the tokens in the response's cookies; nil for none
}

// marksFor returns how to mark the response to an allowed request.
func marksFor(who *caller) marks {
	byCookie, byQuery := who.renewed != nil || who.credential.InCookie(), who.credential.ByQuery()
	if !byCookie && !byQuery {
		return marks{}
	}
	return marks{always: byQuery || who.renewed != nil, byCookie: byCookie, vary: byCookie, renewed: who.renewed}
}

// serveMarked calls the next handler and marks the response for caches if necessary.
func serveMarked(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, needed marks) error {
	if needed == (marks{}) {
		return next.ServeHTTP(w, r)
	}
	marking := &privateWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, marks: needed, request: r,
	}
	err := next.ServeHTTP(marking, r)
	marking.mark() // for a response written elsewhere, such as an error
	return err
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
		web.ForgetLateCookie(w.Header(), w.request, w.renewed)
	}
	control, vary := listOf(w.Header(), "Cache-Control"), listOf(w.Header(), "Vary")
	has := func(directives ...string) bool {
		return slices.ContainsFunc(control, func(element string) bool {
			name, _, _ := strings.Cut(element, "=")
			return slices.Contains(directives, name)
		})
	}
	forAll := has("public", "s-maxage") // the handler declares that the response is the same for everybody
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

// listOf returns the elements of a header in lower case.
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
