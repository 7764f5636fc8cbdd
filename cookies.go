package caddyjwt

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// The cookies of a browser's session: its access token, and the refresh token
// that renews it. The prefix binds them to the host and to https (RFC 6265bis
// §4.1.3.2); on plain http to this machine, where browsers refuse it, they
// stand without.
const (
	hostPrefix    = "__Host-"
	sessionCookie = "session"
	refreshCookie = "refresh"
)

// plainLoopback reports whether the request came over plain http to this machine.
// Where it may have come by https to a proxy in front, it did not.
func plainLoopback(r *http.Request) bool {
	if r.TLS != nil {
		return false
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	here := host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
	return here && fromNearby(r) && !forwarded(r)
}

// fromNearby tells whether the client is this machine, or one in a network of
// its own, as Caddy in a container sees its host.
func fromNearby(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && (ip.IsLoopback() || ip.IsPrivate())
}

// forwarded reports whether a proxy sent the request, which browsers may well reach by
// https. Proxies say so in headers of their own; nginx does not unless told, and
// speaks HTTP/1.0, which no browser does. A page of the site itself that has come by
// https, or a session cookie that was set so, say it too.
func forwarded(r *http.Request) bool {
	if r.ProtoMajor == 1 && r.ProtoMinor == 0 {
		return true
	}
	for name, values := range r.Header {
		switch name {
		case "Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip", "Fly-Client-Ip", "X-Original-For", "X-Original-Proto", "X-Original-Host", "X-Url-Scheme", "X-Scheme", "Front-End-Https":
			return true
		case "Origin", "Referer":
			if strings.HasPrefix(values[0], "https:") && r.Header.Get("Sec-Fetch-Site") == "same-origin" {
				return true
			}
		}
		if strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Envoy-") {
			return true
		}
	}
	return len(cookieValues(r, hostPrefix+sessionCookie)) > 0 || len(cookieValues(r, hostPrefix+refreshCookie)) > 0
}

func cookieName(r *http.Request, name string) string {
	if plainLoopback(r) {
		return name
	}
	return hostPrefix + name
}

func setSessionCookies(w http.ResponseWriter, r *http.Request, given *grant) {
	setCookie(w, r, sessionCookie, given.accessToken, given.sessionEnds)
	setCookie(w, r, refreshCookie, given.refreshToken, given.sessionEnds)
}

func clearSessionCookies(w http.ResponseWriter, r *http.Request) {
	setCookie(w, r, sessionCookie, "", time.Unix(1, 0))
	setCookie(w, r, refreshCookie, "", time.Unix(1, 0))
}

func setCookie(w http.ResponseWriter, r *http.Request, name, value string, expires time.Time) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName(r, name), Value: value, Path: "/", Expires: expires,
		Secure: !plainLoopback(r), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// keepSession renews the session of a browser whose access token is of no more
// use, where session cookies are read.
func (h *Handler) keepSession(w http.ResponseWriter, r *http.Request, token *jwt.Token, source *TokenSource, failure *refusal.Error) (kept *jwt.Token, renewed *grant, refused *refusal.Error) {
	if token == nil && (source == nil || source.OfAccounts) && h.sources.haveSession() && renewable(failure) {
		var err error
		if renewed, err = h.service.renew(w, r); err != nil {
			return nil, nil, refusal.Of(err)
		}
		if renewed != nil {
			token, failure = h.verify(r, renewed.accessToken)
		}
	}
	return token, renewed, failure
}

// renewable tells whether another token might be accepted where this one was not,
// or none came: it has expired, or was made before keys or config changed.
func renewable(failure *refusal.Error) bool {
	if failure == nil { // an anonymous user, who may have a session
		return true
	}
	switch failure.Reason {
	case refusal.NoCredentials, refusal.Expired, refusal.UnknownKey, refusal.Signature, refusal.Algorithm, refusal.Issuer, refusal.Audience:
		return true
	}
	return false
}

// checkOrigin refuses what does more than read, carries a user's cookie, and comes
// from a page of another origin. A WebSocket does, though it begins with a GET.
func (h *Handler) checkOrigin(r *http.Request) *refusal.Error {
	if h.crossOrigin == nil {
		return nil
	}
	if r.Header.Get("Upgrade") != "" {
		r = r.Clone(r.Context())
		r.Method = http.MethodPost
	}
	if err := h.crossOrigin.Check(r); err != nil {
		return refusal.New(refusal.CrossOrigin, "%v; trusted_origins can allow it", err)
	}
	return nil
}

// sendToLogin answers a browser that shows a page and has no session, by
// sending it to the log-in page, from which it comes back.
func (s *accountService) sendToLogin(w http.ResponseWriter, r *http.Request, refusal *refusal.Error) bool {
	get := r.Method == http.MethodGet || r.Method == http.MethodHead
	if !get || refusal.Reason.Answer().Status != http.StatusUnauthorized || !answer.Prefers(r, "text/html", "application/json") || slices.ContainsFunc(r.Header["Authorization"], byProgram) {
		return false
	}
	original := *r.URL
	if first, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		original = *first.URL
	}
	if original.Path == answer.MountedAt(r)+s.config.path("login") {
		s.sayLoginHidden.Do(func() {
			s.log.Error("the log-in page cannot be reached, since something before it takes its path, such as rewrite or try_files; put that after jwt, in: route { jwt … try_files … }", zap.String("path", original.Path))
		})
		return false // it would lead to itself
	}
	answer.Refused(refusal.Reason)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Add("Vary", "Accept, Cookie")
	answer.SeeOther(w, answer.MountedAt(r)+s.config.path("login")+"?return_to="+url.QueryEscape(original.RequestURI()))
	return true
}

// byProgram tells whether an Authorization header is one that no browser sends by
// itself, as it does a password of Basic (RFC 7617).
func byProgram(authorization string) bool {
	scheme, _, _ := strings.Cut(authorization, " ")
	return !strings.EqualFold(scheme, "Basic")
}

// stripRefreshCookie keeps the refresh token from the handlers behind, which
// have no use for it.
func stripRefreshCookie(r *http.Request) {
	if len(r.Header["Cookie"]) == 0 {
		return
	}
	if name := cookieName(r, refreshCookie); len(cookieValues(r, name)) > 0 {
		stripCookie(r, name)
	}
}

// renew gives a browser new tokens, as long as its session lasts; else there are
// none. The request carries the access token from then on, for the handlers
// behind. An error means that it could not be done now.
func (s *accountService) renew(w http.ResponseWriter, r *http.Request) (*grant, error) {
	cookies := r.CookiesNamed(cookieName(r, refreshCookie))
	if len(cookies) != 1 {
		return nil, nil
	}
	given, err := s.refresh(r.Context(), cookies[0].Value, client(r))
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
	setSessionCookies(w, r, given)
	name := cookieName(r, sessionCookie)
	stripCookie(r, name)
	r.AddCookie(&http.Cookie{Name: name, Value: given.accessToken})
	return given, nil
}

// forgetLateCookie takes back the refresh token of a renewal whose answer a handler
// behind has held up for so long that another request may have replaced it: the
// browser would put the token, which is dead, in the place of a valid one.
func forgetLateCookie(header http.Header, r *http.Request, renewed *grant) {
	if renewed == nil || renewed.inTime() {
		return
	}
	ours := cookieName(r, refreshCookie) + "=" + renewed.refreshToken + ";"
	header["Set-Cookie"] = slices.DeleteFunc(header["Set-Cookie"], func(cookie string) bool { return strings.HasPrefix(cookie, ours) })
}
