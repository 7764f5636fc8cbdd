package web

import (
	"net/http"
	"time"

	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/outage"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"go.uber.org/zap"
)

// warn logs suspicious settings of the accounts of a site.
func (h *Handler) warn(at place.Place) {
	if login := h.Path("login"); len(at.Outside(login)) > 0 && !othersWithin(at) {
		h.answers.Logger.Warn(h.where.Append(
			"accounts: requests for "+login+" do not reach this handler, because a path matcher around jwt does not "+
				"match them; put jwt at the top of the site, or give the accounts a prefix that the matcher matches"),
			help.See("accounts-not-reached"), zap.Strings("matcher", at.Outside(login)),
		)
	}
	if login := h.Path("login"); at.Rewritten(login) {
		h.answers.Logger.Warn(h.where.Append(
			"accounts: try_files or rewrite changes the path of requests for "+login+" before they reach the "+
				"accounts, because Caddy runs them before jwt; put both into a `route` block, in which the order is "+
				"as written: first jwt, then try_files",
		), help.See("rewrite-before-jwt"))
	}
	if h.SecondFactor != "" && h.HasRoute("forgot") && !h.VerifyEmail {
		h.answers.Logger.Warn(h.where.Append(
			"accounts: second_factor with mail, but without verify_email: whoever reads the mail of a user whose "+
				"address is not verified gets past the second factor, because its first proof ends what others may "+
				"have set up; write verify_email"),
			help.See("factor-without-verified-addresses"),
		)
	}
	if h.Identifier == accounts.IdentifierUsername && len(h.MailRaw) > 0 {
		h.answers.Logger.Warn(h.where.Append(
			"accounts: mail with identifier username: users who sign up have no e-mail address, so no mail can be "+
				"sent to them; write identifier any, or remove mail"), help.See("mail-without-addresses"),
		)
	}
	switch h.Signup {
	case "open":
		h.answers.Logger.Info(
			"accounts: signup is open, so anybody can create an account on this site; "+
				"to prevent that, write: signup closed",
			zap.String("issuer", h.Issuer),
		)
	case accounts.SignupLoginWith:
		h.answers.Logger.Info(
			"accounts: signup is login_with, so whoever a login_with lets in gets an account, and nobody signs up "+
				"with a password",
			zap.String("issuer", h.Issuer),
		)
	default:
		h.answers.Logger.Info(
			"accounts: signup is closed, so accounts can only be created with `caddy jwt user add`; "+
				"to let anybody create one, write: signup open",
			zap.String("issuer", h.Issuer),
		)
	}
}

// othersWithin reports whether the site has the same accounts in another place, which may
// be reachable.
func othersWithin(at place.Place) bool {
	found := 0
	for _, route := range place.Routes(at.Server) {
		for _, raw := range route.HandlersRaw { // not provisioned yet
			found += strings.Count(string(raw), `"jwt_accounts"`)
		}
	}
	return found > 1 || accounts.ClaimsOf(at.Server) > 1
}

// plainNoted has the hosts over which somebody wanted to log in by plain http.
var plainNoted outage.Notes

// notePlain logs, once a day for each host, that somebody wants to log in over plain http: browsers drop
// the cookies then, and the log-in page comes again and again.
func (h *Handler) notePlain(r *http.Request) {
	if !plainNoted.IsNew(r.Host, h.service.Now(), 24*time.Hour) {
		return
	}
	h.service.Log.Warn("a browser shows the log-in page over plain http, so it will drop the session's cookies; "+
		"serve the site by https, or let the proxy in front of it set X-Forwarded-Proto",
		help.See("login-over-http"), zap.String("host", r.Host))
}
