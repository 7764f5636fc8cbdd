// Package discovery finds the metadata document of an issuer: that of OpenID Connect Discovery
// 1.0 or, where there is none, that of RFC 8414.
package discovery

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// URL returns the URL of the OpenID document of an issuer (OpenID Connect Discovery 1.0 §4).
func URL(issuer string) string {
	return strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
}

// urls returns where the document of an issuer may be.
func urls(issuer string) []string {
	const path = "/.well-known/oauth-authorization-server"
	u, err := url.Parse(issuer)
	if err != nil {
		return []string{URL(issuer)}
	}
	return slices.Compact([]string{
		URL(issuer),
		u.Scheme + "://" + u.Host + path + strings.TrimSuffix(u.EscapedPath(), "/"), // RFC 8414 §3.1
		strings.TrimSuffix(issuer, "/") + path,                                      // as Okta and Keycloak have it
	})
}

// StatusError is the answer of a server that has another status than 200.
type StatusError struct {
	From   string // the URL, without its secrets
	Code   int
	Status string
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s answered %s, expected 200", e.From, e.Status)
}

// LackError is the error of a document that does not have what is looked for.
type LackError string

// Error implements error.
func (e LackError) Error() string { return string(e) }

// Find calls look with the URLs where the document of an issuer may be, until it succeeds. It only
// goes on if there is no document at a URL, or if that lacks what is looked for, such as the page of
// an app in its place, but not if the server is down: then another document would only hide the
// outage. The error has those of all attempts.
func Find(issuer string, look func(from string) error) error {
	var failed error
	for _, from := range urls(issuer) {
		err := look(from)
		switch {
		case err == nil:
			return nil
		case failed == nil:
			failed = err
		default:
			failed = fmt.Errorf("%w; %w", failed, err)
		}
		if !absent(err) {
			return failed
		}
	}
	return failed
}

func absent(err error) bool {
	if _, lacks := errors.AsType[LackError](err); lacks {
		return true
	}
	status, ok := errors.AsType[*StatusError](err)
	if !ok {
		return false
	}
	switch status.Code {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusNotAcceptable, http.StatusGone, http.StatusNotImplemented: // as servers answer for unknown paths
		return true
	}
	return false
}

// CheckIssuer returns an error unless the issuer in a document equals the one that it was looked
// up for (OpenID Connect Discovery 1.0 §4.3, RFC 8414 §3.3). keysURL is the `jwks_uri` of the
// document.
func CheckIssuer(found, issuer, keysURL string) error {
	before, rest, isTemplate := strings.Cut(found, "{")
	_, after, closed := strings.Cut(rest, "}")
	switch {
	case found == issuer:
		return nil
	case isTemplate && closed:
		return fmt.Errorf("%q is shared by many tenants, whose issuers look like %s; write the issuer of your "+
			"tenant, which is the iss of its tokens, or for all tenants: issuer %s { jwks %s }",
			issuer, refusal.Quoted(found), refusal.Visible(before+"*"+after), refusal.Visible(withoutQuery(keysURL)))
	}
	return fmt.Errorf("its issuer is %s, not %q; write the issuer in the config exactly like this, "+
		"with or without the slash at the end", refusal.Quoted(found), issuer)
}

// withoutQuery returns a URL without what may be secret in it.
func withoutQuery(text string) string {
	u, err := url.Parse(text)
	if err != nil || text == "" {
		return "<url>"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
