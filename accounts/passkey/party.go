package passkey

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/go-webauthn/webauthn/protocol"
	"golang.org/x/net/publicsuffix"
)

// Party is the relying party (WebAuthn §4): the domain that the passkeys of a site are for, and the
// origins whose pages may use them.
type Party struct {
	// ID is the domain. A passkey works only for the domain for which it was made.
	ID string
	// Name is what authenticators show.
	Name string

	origins []origin
}

// origin is an origin of pages, or a pattern of origins.
type origin struct {
	scheme, host, port string
	below              string // one: the host is any with one label more; any: with at least none
}

const (
	oneBelow = "one"
	anyBelow = "any"
)

// Domains of this machine, on which browsers allow passkeys without TLS.
const thisMachine = "localhost"

// NewParty returns the party of a site: for a domain or, if that is empty, for the host of the issuer
// if that is a URL of the site, or else for the first host of the site in the config. It returns an
// error if no browser would accept passkeys for the domain there.
func NewParty(domain, name, issuer string, at place.Place) (*Party, error) {
	hosts := hostNames(at.Hosts)
	issuerURL := urlOfSite(issuer, hosts)
	chosen := domain != ""
	if !chosen {
		domain = defaultDomain(issuerURL, hosts)
	}
	if domain == "" {
		return nil, errors.New(
			"passkeys: the host of the site is not known; write the domain, as in: passkeys example.com",
		)
	}
	domain = strings.ToLower(domain)
	if net.ParseIP(strings.Trim(domain, "[]")) != nil {
		return nil, fmt.Errorf("passkeys: browsers have none for an IP address, %s; give the site a name", domain)
	}
	if err := protocol.ValidateRPID(domain); err != nil {
		return nil, fmt.Errorf("passkeys: %q is not a domain; write it as in: passkeys example.com", domain)
	}
	p := &Party{ID: domain, Name: name}
	if p.Name == "" {
		p.Name = domain
	}
	own := slices.DeleteFunc(slices.Clone(hosts), func(host string) bool {
		return !p.Covers(strings.TrimPrefix(host, "*."))
	})
	if len(hosts) > 0 && len(own) == 0 {
		return nil, fmt.Errorf(
			"passkeys: no host of this site (%s) is %s or below it; write the domain that they share, as in: "+
				"passkeys example.com", strings.Join(hosts, ", "), domain,
		)
	}
	suffix, _ := publicsuffix.PublicSuffix(domain)
	if chosen && suffix == domain && !slices.Contains(hosts, domain) && domain != thisMachine {
		return nil, fmt.Errorf(
			"passkeys: browsers accept none for %s, under which anybody can have a domain; write that of the site, "+
				"as in: passkeys example.%s", domain, domain,
		)
	}
	p.allow(own, issuerURL, at)
	return p, nil
}

// hostNames returns the hosts of a site in lower case, without placeholders.
func hostNames(hosts []string) (names []string) {
	for _, host := range hosts {
		if !strings.Contains(host, "{") {
			names = append(names, strings.ToLower(host))
		}
	}
	return names
}

// urlOfSite returns the URL of the issuer if it is one of the site, or nil.
func urlOfSite(issuer string, hosts []string) *url.URL {
	parsed, err := url.Parse(strings.ToLower(issuer))
	if err != nil || parsed.Hostname() == "" || parsed.Scheme != "https" && parsed.Scheme != "http" {
		return nil
	}
	ours := len(hosts) == 0 || slices.ContainsFunc(hosts, func(host string) bool {
		return origin{host: strings.TrimPrefix(host, "*."), below: belowOf(host)}.hasHost(parsed.Hostname())
	})
	if !ours {
		return nil
	}
	return parsed
}

func defaultDomain(issuer *url.URL, hosts []string) string {
	if issuer != nil {
		return issuer.Hostname()
	}
	for _, host := range hosts {
		if !strings.Contains(host, "*") {
			return host
		}
	}
	return ""
}

func belowOf(host string) string {
	if strings.HasPrefix(host, "*.") {
		return oneBelow
	}
	return ""
}

// allow allows the origins of hosts of the site, and that of the issuer.
func (p *Party) allow(hosts []string, issuer *url.URL, at place.Place) {
	if len(hosts) == 0 { // any host leads to the site, or they come from placeholders
		p.origins = append(p.origins, origin{"https", p.ID, "", anyBelow})
		if served, err := url.Parse(at.URLOf(p.ID)); err == nil && served.Scheme == "https" {
			p.origins = append(p.origins, origin{"https", p.ID, served.Port(), anyBelow})
		}
		if p.ID == thisMachine {
			hosts = []string{p.ID}
		}
	}
	for _, host := range hosts {
		below, name := belowOf(host), strings.TrimPrefix(host, "*.")
		p.origins = append(p.origins, origin{"https", name, "", below}) // also if a proxy in front has the TLS
		if served, err := url.Parse(at.URLOf(name)); err == nil && served.Hostname() == name {
			p.origins = append(p.origins, origin{served.Scheme, name, served.Port(), below})
		}
	}
	if issuer != nil && p.Covers(issuer.Hostname()) {
		p.origins = append(p.origins, origin{issuer.Scheme, issuer.Hostname(), issuer.Port(), ""})
	}
	p.origins = slices.DeleteFunc(p.origins, func(o origin) bool { return o.scheme != "https" && !isLocal(o.host) })
}

func isLocal(host string) bool {
	return host == thisMachine || strings.HasSuffix(host, "."+thisMachine)
}

func (o origin) hasHost(host string) bool {
	switch o.below {
	case oneBelow:
		_, rest, found := strings.Cut(host, ".")
		return found && rest == o.host
	case anyBelow:
		return host == o.host || strings.HasSuffix(host, "."+o.host)
	}
	return host == o.host
}

// Covers reports whether passkeys of the party can be used on pages of a host.
func (p *Party) Covers(host string) bool {
	host = strings.ToLower(host)
	return host == p.ID || strings.HasSuffix(host, "."+p.ID)
}

// Allows reports whether pages of an origin may use the passkeys. Scheme, host and port count.
func (p *Party) Allows(from string) bool {
	parsed, err := url.Parse(from)
	if err != nil || parsed.Scheme+"://"+parsed.Host != from {
		return false
	}
	port := parsed.Port()
	if parsed.Scheme == "https" && port == "443" || parsed.Scheme == "http" && port == "80" {
		port = ""
	}
	return slices.ContainsFunc(p.origins, func(o origin) bool {
		return o.scheme == parsed.Scheme && o.port == port && o.hasHost(strings.ToLower(parsed.Hostname()))
	})
}
