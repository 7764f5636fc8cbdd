package web

import (
	"net/url"
	"slices"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// warnOfMailHost warns when the config starts, and all sites are known, if the links in mails lead to
// a host that none of them has.
func (h *Handler) warnOfMailHost(ctx caddy.Context, at place.Place) {
	base, err := url.Parse(h.base)
	if err != nil || base.Host == "" || len(h.MailRaw) == 0 || at.Server == nil || len(at.Hosts) == 0 ||
		haveHost(at.Hosts, base.Hostname()) {
		return
	}
	config.AtStart(ctx, func() error {
		loaded, err := ctx.App("http")
		app, ok := loaded.(*caddyhttp.App)
		if err != nil || !ok || slices.ContainsFunc(serversOf(app), func(s *caddyhttp.Server) bool {
			return servesHost(s, base.Hostname())
		}) {
			return nil
		}
		h.answers.Logger.Warn(h.where.Append(
			"accounts: links in mails lead to "+h.base+", the host of the issuer, but no site of this config has that "+
				"host; write "+base.Hostname()+" before the { of the site, too, or the URL of the site as the issuer, "+
				"as in: issuer "+at.URLOf(at.Hosts[0])), help.See("mail-links-lead-elsewhere"),
		)
		return nil
	})
}

func serversOf(app *caddyhttp.App) (all []*caddyhttp.Server) {
	for _, server := range app.Servers {
		all = append(all, server)
	}
	return all
}

// servesHost reports whether a server has a site with the host, or one for all hosts.
func servesHost(server *caddyhttp.Server, host string) bool {
	return slices.ContainsFunc(place.Routes(server), func(route caddyhttp.Route) bool {
		hosts := place.HostsOf(route.MatcherSets)
		if len(hosts) > 0 {
			return haveHost(hosts, host)
		}
		return slices.ContainsFunc(route.Handlers, func(handler caddyhttp.MiddlewareHandler) bool {
			_, redirects := handler.(*caddyhttp.StaticResponse) // to https, which Caddy adds
			return !redirects
		})
	})
}

// haveHost reports whether one of the hosts of a site is, or may be, a host.
func haveHost(hosts []string, host string) bool {
	return slices.ContainsFunc(hosts, func(own string) bool {
		_, parent, _ := strings.Cut(strings.ToLower(host), ".")
		return strings.EqualFold(own, host) || strings.EqualFold(own, "*."+parent) || strings.Contains(own, "{")
	})
}
