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
	always   bool            // whatever a handler behind says of caching, as for a token in the URL (RFC 6750 §2.3)
	byCookie bool            // the user came by a cookie, and is not anonymous
	vary     bool            // another cookie may have another answer
	renewed  *accounts.Grant // whose cookies the answer brings; nil for none
}

// marksFor says how to mark the answer to a request that is let through.
func marksFor(who caller) marks {
	byCookie, byQuery := who.byCookie(), who.credential.ByQuery()
	if !byCookie && !byQuery {
		return marks{}
	}
	return marks{always: byQuery || who.renewed != nil, byCookie: byCookie, vary: byCookie, renewed: who.renewed}
}

// serveMarked hands the request on, and has the answer marked for caches where that is
// needed.
func serveMarked(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, needed marks) error {
	if needed == (marks{}) {
		return next.ServeHTTP(w, r)
	}
	marking := &privateWriter{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, marks: needed, request: r}
	err := next.ServeHTTP(marking, r)
	marking.mark() // an answer that somebody else writes, such as that to an error
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
