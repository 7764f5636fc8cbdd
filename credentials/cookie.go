package credentials

import (
	"net"
	"net/http"
	"strings"
	"time"
)

// The cookies of a browser's session: its access token, and the refresh token that renews
// it. The prefix `__Host-` binds them to the host and to https (RFC 6265bis §4.1.3.2). On
// plain http to this machine, browsers refuse the prefix, so it is omitted.
const (
	HostPrefix    = "__Host-"
	SessionCookie = "session"
	RefreshCookie = "refresh"
	// TrustedCookie is that of a browser that is not asked for a second factor.
	TrustedCookie = "trusted_browser"
)

// PlainLoopback reports whether the request came over plain http to this machine, and
// surely not over https to a proxy in front.
func PlainLoopback(r *http.Request) bool {
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

// PlainElsewhere reports whether a browser shows a page over plain http of another machine, so that it
// drops the cookies: not if a proxy in front may use https, which the browser says by Sec-Fetch-Site
// (only sent to where https or this machine is; Fetch Metadata §2).
func PlainElsewhere(r *http.Request) bool {
	return r.TLS == nil && !PlainLoopback(r) && !forwarded(r) && r.Header.Get("Sec-Fetch-Site") == ""
}

// fromNearby reports whether the client is on this machine or in a private network, such as
// the host of a container.
func fromNearby(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && (ip.IsLoopback() || ip.IsPrivate())
}

// forwarded reports whether a proxy sent the request, so that browsers may use https.
// Proxies set their own headers. nginx does not by default, but uses HTTP/1.0, which no
// browser does. A page of the site that was loaded over https, or a session cookie with the
// prefix, are signs too.
func forwarded(r *http.Request) bool {
	if r.ProtoMajor == 1 && r.ProtoMinor == 0 {
		return true
	}
	for name, values := range r.Header {
		switch name {
		case "Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip",
			"Cf-Connecting-Ip", "Fastly-Client-Ip", "Fly-Client-Ip", "X-Original-For", "X-Original-Proto",
			"X-Original-Host", "X-Url-Scheme", "X-Scheme", "Front-End-Https":
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
	return len(CookieValues(r, HostPrefix+SessionCookie)) > 0 || len(CookieValues(r, HostPrefix+RefreshCookie)) > 0
}

// CookieName returns the name of a cookie for the request, with its prefix.
func CookieName(r *http.Request, name string) string {
	if PlainLoopback(r) {
		return name
	}
	return HostPrefix + name
}

// SetCookie sets a cookie of the session; an empty value with a time in the past removes
// it.
func SetCookie(w http.ResponseWriter, r *http.Request, name, value string, expires time.Time) {
	http.SetCookie(w, &http.Cookie{
		Name: CookieName(r, name), Value: value, Path: "/", Expires: expires,
		Secure: !PlainLoopback(r), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// StripRefreshCookie removes the refresh token of the accounts and the token of a trusted browser,
// which the next handlers do not need.
func StripRefreshCookie(r *http.Request) {
	if len(r.Header["Cookie"]) == 0 {
		return
	}
	for _, cookie := range []string{RefreshCookie, TrustedCookie} {
		if name := CookieName(r, cookie); len(CookieValues(r, name)) > 0 {
			StripCookie(r, name)
		}
	}
}
