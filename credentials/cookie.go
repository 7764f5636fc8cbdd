package credentials

import (
	"net"
	"net/http"
	"strings"
	"time"
)

// The cookies of a browser's session: its access token, and the refresh token
// that renews it. The prefix binds them to the host and to https (RFC 6265bis
// §4.1.3.2); on plain http to this machine, where browsers refuse it, they
// stand without.
const (
	HostPrefix    = "__Host-"
	SessionCookie = "session"
	RefreshCookie = "refresh"
)

// PlainLoopback reports whether the request came over plain http to this machine.
// Where it may have come by https to a proxy in front, it did not.
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
	return len(CookieValues(r, HostPrefix+SessionCookie)) > 0 || len(CookieValues(r, HostPrefix+RefreshCookie)) > 0
}

func CookieName(r *http.Request, name string) string {
	if PlainLoopback(r) {
		return name
	}
	return HostPrefix + name
}

func SetCookie(w http.ResponseWriter, r *http.Request, name, value string, expires time.Time) {
	http.SetCookie(w, &http.Cookie{
		Name: CookieName(r, name), Value: value, Path: "/", Expires: expires,
		Secure: !PlainLoopback(r), HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}
