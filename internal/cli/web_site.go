package cli

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// webSite is a site of a config that is provisioned.
type webSite struct {
	place.Place                 // its server and its hosts
	route       caddyhttp.Route // of the site
}

// sitesOf returns the sites of a config.
func sitesOf(ctx caddy.Context) (sites []webSite) {
	loaded, err := ctx.App("http")
	app, ok := loaded.(*caddyhttp.App)
	if err != nil || !ok {
		return nil // the config has no sites
	}
	names := slices.Sorted(maps.Keys(app.Servers))
	for _, name := range names {
		for _, route := range place.Routes(app.Servers[name]) {
			at := place.Place{Server: app.Servers[name], Hosts: place.HostsOf(route.MatcherSets)}
			sites = append(sites, webSite{at, route})
		}
	}
	return sites
}

// has reports whether the site answers at the host and port of a URL.
func (s webSite) has(at *url.URL) bool {
	host := at.Hostname()
	if len(s.Hosts) == 0 && thismachine.Is(host) {
		return sameAddress(s.URLOf(host), at)
	}
	return s.hasHost(host) && sameAddress(s.URLOf(host), at)
}

func (s webSite) hasHost(host string) bool {
	return slices.ContainsFunc(s.Hosts, func(own string) bool { return strings.EqualFold(own, host) })
}

func sameAddress(own string, at *url.URL) bool {
	known, err := url.Parse(own)
	return err == nil && portOf(known) == portOf(at)
}

func portOf(at *url.URL) string {
	if port := at.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[at.Scheme]
}

// baseOf returns the URL of the site whose accounts have the issuer, as mails have it: that of the
// issuer if it is a site of the config, or else the first host of the site with the accounts.
func (c *siteConfig) baseOf(issuer string) (string, error) {
	cfg, err := c.parsed()
	if err != nil {
		return "", err
	}
	cfg.Logging = quiet()
	ctx, cancel, err := provisioned(cfg)
	if err != nil {
		return "", fmt.Errorf("the URL of the site is not known, because %s cannot be loaded; write --base "+
			"https://<host>: %w", c.file, err)
	}
	defer cancel()
	sites, served := sitesOf(ctx), ""
	at, err := url.Parse(issuer)
	ofSite := err == nil && at.Host != "" && (at.Scheme == "https" || at.Scheme == "http")
	for _, site := range sites {
		accounts := slices.ContainsFunc(place.HandlersOf(site.route), func(handler place.Handler) bool {
			return handler.Leads("jwt_accounts")
		})
		if ofSite && (accounts && len(site.Hosts) == 0 || site.hasHost(at.Hostname())) {
			return at.Scheme + "://" + at.Host, nil
		}
		for _, host := range site.Hosts {
			if accounts && served == "" && !strings.ContainsAny(host, "*{") {
				served = site.URLOf(host)
			}
		}
	}
	if served == "" {
		return "", fmt.Errorf("%s does not say by which host its accounts are reached; write --base https://<host>",
			c.file)
	}
	return served, nil
}
