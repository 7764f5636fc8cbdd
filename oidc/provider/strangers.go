package provider

import (
	"net/http"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/web"
)

// strangersRequests are what strangers, who have proved nothing, may have kept in a
// minute by the address of the client. What one purpose has used up is there for the
// others.
const strangersRequests = 120

// strangersKept is what all of them together may have kept.
var strangersKept = 20_000 // a test sets another

// strangers bounds what is kept for strangers, for one purpose.
type strangers struct{ each, all *web.Throttle }

func (p *Provider) newStrangers(purpose string, lifetime time.Duration) strangers {
	return strangers{
		each: p.accounts.NewThrottle(purpose, strangersRequests, time.Minute),
		all:  p.accounts.NewThrottle(purpose+" of all clients", strangersKept, lifetime),
	}
}

// limitStrangers counts a request that keeps something, unless its client has proved who it
// is.
func (p *Provider) limitStrangers(r *http.Request, client *Client, of strangers) error {
	if !client.Public {
		return nil
	}
	now := p.accounts.Now()
	forgive, allowed := of.each.Try(r.Context(), web.ClientKey(r), now)
	if !allowed {
		return &oauthError{status: http.StatusTooManyRequests, code: "temporarily_unavailable", description: "too many requests; wait a minute", retryAfter: time.Minute}
	}
	if _, allowed := of.all.Try(r.Context(), "all", now); !allowed {
		forgive()
		return &oauthError{status: http.StatusServiceUnavailable, code: "temporarily_unavailable", description: "too many requests of all clients; try again in a few seconds", retryAfter: 5 * time.Second}
	}
	return nil
}

// A page of any site can have its visitors' browsers send requests, which come from
// the visitors' addresses. Browsers say so by Sec-Fetch-Site and Origin. Clients
// that are no browsers send neither.

// ofAnotherSite tells whether a page of another site has a browser send the request.
func ofAnotherSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site != "" && site != "same-origin" && site != "none"
}

// refusesPage tells whether a page of another site sends a request to an endpoint
// that is not for it.
func (p *Provider) refusesPage(r *http.Request, endpoint route) bool {
	if endpoint.isPage() || crossOrigin.Check(r) == nil {
		return false
	}
	return endpoint.cors == corsNone || !p.knowsOrigin(r.Context(), r.Header.Get("Origin"))
}

// opensPage tells whether a request is one of a user who is led there, rather than an
// image or a script of some page.
func opensPage(r *http.Request) bool {
	mode := r.Header.Get("Sec-Fetch-Mode")
	return (mode == "" || mode == "navigate") && slices.Contains([]string{"", "document", "iframe", "frame"}, r.Header.Get("Sec-Fetch-Dest"))
}

// inFrame tells whether a request is for a frame, which shows no page of the
// provider.
func inFrame(r *http.Request) bool {
	return slices.Contains([]string{"iframe", "frame"}, r.Header.Get("Sec-Fetch-Dest"))
}
