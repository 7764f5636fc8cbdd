package web

import (
	"strings"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"go.uber.org/zap"
)

// warn logs what is suspicious in the accounts of a site.
func (h *Handler) warn(at place.Place) {
	if login := h.Path("login"); len(at.Outside(login)) > 0 && !othersWithin(at) {
		h.answers.Logger.Warn("accounts: no request for "+login+" gets here, since a path matcher around jwt does not match it; put jwt at the top of the site, or give the accounts a prefix that the matcher matches", zap.Strings("matcher", at.Outside(login)))
	}
	if h.Signup == "open" {
		h.answers.Logger.Info("accounts: signup is open, so anybody can make an account on this site; signup closed ends that", zap.String("issuer", h.Issuer))
	} else {
		h.answers.Logger.Info("accounts: signup is closed, so only `caddy jwt user add` makes accounts; signup open lets anybody make one", zap.String("issuer", h.Issuer))
	}
}

// othersWithin reports whether the site has these accounts in another place too, which
// may be in reach.
func othersWithin(at place.Place) bool {
	found := 0
	for _, route := range place.Routes(at.Server) {
		for _, raw := range route.HandlersRaw { // what is not provisioned yet
			found += strings.Count(string(raw), `"jwt_accounts"`)
		}
	}
	return found > 1 || accounts.ClaimsOf(at.Server) > 1
}
