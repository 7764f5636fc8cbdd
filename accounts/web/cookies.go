package web

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// SetSessionCookies sets the tokens of a session as cookies.
func SetSessionCookies(w http.ResponseWriter, r *http.Request, grant *accounts.Grant) {
	credentials.SetCookie(w, r, credentials.SessionCookie, grant.AccessToken, grant.SessionEnds)
	credentials.SetCookie(w, r, credentials.RefreshCookie, grant.RefreshToken, grant.SessionEnds)
}

func clearSessionCookies(w http.ResponseWriter, r *http.Request) {
	credentials.SetCookie(w, r, credentials.SessionCookie, "", time.Unix(1, 0))
	credentials.SetCookie(w, r, credentials.RefreshCookie, "", time.Unix(1, 0))
}

// Renewable reports whether a new token may be accepted although this one was not, or there
// was none: it has expired, or was issued before keys or config changed.
func Renewable(failure *refusal.Error) bool {
	if failure == nil { // an anonymous user may have a session
		return true
	}
	switch failure.Reason {
	case refusal.NoCredentials, refusal.Expired, refusal.UnknownKey, refusal.Signature, refusal.Algorithm,
		refusal.Issuer, refusal.Audience:
		return true
	}
	return false
}

// LoginFor returns the URL of the log-in page for a refused request, which sends the browser
// back afterwards. It is empty unless the request is that of a browser that shows a page and
// has no session, or one that does not meet a rule about the authentication; then it is the page
// that asks for what is missing.
func (a *Shared) LoginFor(r *http.Request, failure *refusal.Error) string {
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !get || failure.Reason.Answer().Status != http.StatusUnauthorized ||
		!answer.Prefers(r, "text/html", "application/json") ||
		slices.ContainsFunc(r.Header["Authorization"], byProgram) {
		return ""
	}
	if failure.Reason == refusal.Authentication {
		return a.stepUpFor(r, failure)
	}
	original, login := originalURL(r), answer.MountedAt(r)+a.service.Config.Path("login")
	if original.Path == login { // it would redirect to itself
		a.sayLoginHidden.Do(func() {
			a.service.Log.Error("the log-in page cannot be reached, because another directive, "+
				"such as rewrite or try_files, handles its path first; "+
				"put that directive after jwt, in: route { jwt … try_files … }",
				help.See("login-page-hidden"), zap.String("path", login))
		})
		return ""
	}
	return login + "?return_to=" + url.QueryEscape(original.RequestURI())
}

// SendToLogin answers a refused request with a redirect to its log-in page.
func SendToLogin(w http.ResponseWriter, login string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Add("Vary", "Accept, Cookie")
	answer.SeeOther(w, login)
}

// sentToLogin sends a browser that is not logged in, as err says, to the log-in page, which leads back to
// the page of a route.
func (h *Handler) sentToLogin(w http.ResponseWriter, r *http.Request, route string, err error) bool {
	failure, ok := errors.AsType[*refusal.Error](err)
	if !ok || failure.Reason.Answer().Status != http.StatusUnauthorized {
		return false
	}
	h.answers.Decisions.Refused(failure.Reason)
	SendToLogin(w, h.shared.LoginURL(r, answer.MountedAt(r)+h.Path(route), ""))
	return true
}

// originalURL returns the URL that the browser requested, before directives such as rewrite.
func originalURL(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		return original.URL
	}
	return r.URL
}

// byProgram reports whether an Authorization header was set by a program: browsers only
// send Basic (RFC 7617) automatically.
func byProgram(authorization string) bool {
	scheme, _, _ := strings.Cut(authorization, " ")
	return !strings.EqualFold(scheme, "Basic")
}

// refreshTokenOf returns the refresh token of a browser; empty if there is none or several.
func refreshTokenOf(r *http.Request) string {
	cookies := r.CookiesNamed(credentials.CookieName(r, credentials.RefreshCookie))
	if len(cookies) != 1 {
		return ""
	}
	return cookies[0].Value
}

// Renew gives a browser new tokens if its session is still active; otherwise it returns
// nil. It also puts the new access token into the request for the next handlers. An error
// means that renewing is not possible now.
func (a *Shared) Renew(w http.ResponseWriter, r *http.Request) (*accounts.Grant, error) {
	refreshToken := refreshTokenOf(r)
	if refreshToken == "" {
		return nil, nil
	}
	grant, err := a.service.Sessions.Refresh(r.Context(), refreshToken, client(r))
	if err != nil {
		switch refusal.Of(err).Reason {
		case refusal.RefreshToken:
			clearSessionCookies(w, r)
			return nil, nil
		case refusal.Revoked: // the user is gone
			return nil, nil
		}
		return nil, err
	}
	SetSessionCookies(w, r, grant)
	name := credentials.CookieName(r, credentials.SessionCookie)
	credentials.StripCookie(r, name)
	r.AddCookie(&http.Cookie{Name: name, Value: grant.AccessToken})
	return grant, nil
}

// ForgetLateCookie removes the refresh token from a response that a handler delayed for so
// long that another request may have replaced the token. Otherwise the browser would
// replace a valid token with an invalid one.
func ForgetLateCookie(header http.Header, r *http.Request, renewed *accounts.Grant) {
	if renewed == nil || renewed.InTime() {
		return
	}
	ours := credentials.CookieName(r, credentials.RefreshCookie) + "=" + renewed.RefreshToken + ";"
	header["Set-Cookie"] = slices.DeleteFunc(header["Set-Cookie"], func(cookie string) bool {
		return strings.HasPrefix(cookie, ours)
	})
}
