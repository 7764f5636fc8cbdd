package provider

import (
	"net/http"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
)

// strangersRequests is how many unauthenticated requests with stored data are allowed per
// minute and client address, for each purpose separately.
const strangersRequests = 120

// strangersKept is the limit for all clients together.
var strangersKept = 20_000 // a test sets another

// strangers limits the data that is stored for unauthenticated clients, for one purpose.
type strangers struct{ each, all *web.Throttle }

func (p *Provider) newStrangers(purpose string, lifetime time.Duration) strangers {
	return strangers{
		each: p.accounts.NewThrottle(purpose, strangersRequests, time.Minute),
		all:  p.accounts.NewThrottle(purpose+" of all clients", strangersKept, lifetime),
	}
}

// limitStrangers counts a request that stores data, unless its client has authenticated.
func (p *Provider) limitStrangers(r *http.Request, client *Client, of strangers) error {
	if !client.Public {
		return nil
	}
	now := p.accounts.Now()
	forgive, allowed := of.each.Try(r.Context(), web.ClientKey(r), now)
	if !allowed {
		return &oauthError{
			status: http.StatusTooManyRequests, code: "temporarily_unavailable",
			description: "too many requests; wait a minute", retryAfter: time.Minute,
		}
	}
	if _, allowed := of.all.Try(r.Context(), "all", now); !allowed {
		forgive()
		return &oauthError{
			status: http.StatusServiceUnavailable, code: "temporarily_unavailable",
			description: "too many requests of all clients; try again in a few seconds", retryAfter: 5 * time.Second,
		}
	}
	return nil
}

// A page of any site can make browsers send requests, which come from the addresses of its
// visitors. Browsers mark them with Sec-Fetch-Site and Origin. Other clients send neither.

// ofAnotherSite reports whether a page of another site made a browser send the request.
func ofAnotherSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "same-origin" && site != "none"
}

// refusesPage reports whether a page of another site sent a request to an endpoint that
// pages must not use.
func (p *Provider) refusesPage(r *http.Request, endpoint route) bool {
	if endpoint.isPage() || crossOrigin.Check(r) == nil {
		return false
	}
	return endpoint.cors == corsNone || !p.knowsOrigin(r.Context(), r.Header.Get("Origin"))
}

// opensPage reports whether a browser opens the URL as a page, not as an image or script of
// another page.
func opensPage(r *http.Request) bool {
	mode := r.Header.Get("Sec-Fetch-Mode")
	return (mode == "" || mode == "navigate") &&
		slices.Contains([]string{"", "document", "iframe", "frame"}, r.Header.Get("Sec-Fetch-Dest"))
}

// inFrame reports whether the request is for a frame, in which the provider shows no pages.
func inFrame(r *http.Request) bool {
	return slices.Contains([]string{"iframe", "frame"}, r.Header.Get("Sec-Fetch-Dest"))
}
