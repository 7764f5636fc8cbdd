package web

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddyserver/caddy/v2"
)

// sitesOfConfig are the sites of a config, by the users that they share.
type sitesOfConfig struct {
	mu    sync.Mutex
	known map[string][]entryRules // by the store
}

// entryRules is how users of a site come in.
type entryRules struct {
	site    string
	issuer  string
	options [][2]string // names, and how they are written
}

type sitesOfConfigKey struct{}

// rulesOf returns how users of a site come in.
func (h *Handler) rulesOf(at place.Place) entryRules {
	written := func(is bool, text string) string {
		if !is {
			return ""
		}
		return strings.TrimSpace(text)
	}
	site := "a site without a host"
	if len(at.Hosts) > 0 {
		site = at.URLOf(strings.Join(at.Hosts, ", "))
	}
	domain := ""
	if h.party != nil {
		domain = h.party.ID
	}
	return entryRules{site, h.Issuer, [][2]string{
		{"identifier", written(h.Identifier != accounts.IdentifierEmail, "identifier "+h.Identifier)},
		{"second_factor", written(
			h.SecondFactor != "", "second_factor "+h.SecondFactor+" "+strings.Join(h.SecondFactorRoles, " "),
		)},
		{"verify_email", written(h.VerifyEmail, "verify_email")},
		{"email_login", written(h.EmailLogin, "email_login")},
		{"passkeys", written(h.party != nil, "passkeys "+domain)},
	}}
}

// warnOfOtherRules warns once if another site of the config lets the same users in by other rules: its
// tokens are valid here, too, so a user, or somebody who has a password, can choose the easier way.
func (h *Handler) warnOfOtherRules(ctx caddy.Context, at place.Place) {
	none := &sitesOfConfig{known: make(map[string][]entryRules)}
	sites, rules := config.Shared(ctx, sitesOfConfigKey{}, none).(*sitesOfConfig), h.rulesOf(at)
	sites.mu.Lock()
	defer sites.mu.Unlock()
	known := sites.known[string(h.StoreRaw)]
	if slices.ContainsFunc(known, func(other entryRules) bool {
		return other.issuer == rules.issuer && slices.Equal(other.options, rules.options)
	}) {
		return // compared already
	}
	sites.known[string(h.StoreRaw)] = append(known, rules)
	if len(known) == 0 {
		return
	}
	var differ []string
	for i, option := range rules.options {
		// With another issuer, users log in again, but they have the same factors.
		if known[0].issuer != rules.issuer && option[0] != "second_factor" && option[0] != "passkeys" {
			continue
		}
		if theirs := known[0].options[i][1]; theirs != option[1] {
			differ = append(differ, fmt.Sprintf(
				"%s has %s, %s has %s", known[0].site, orNo(option[0], theirs), rules.site, orNo(option[0], option[1]),
			))
		}
	}
	if len(differ) == 0 {
		return
	}
	h.answers.Logger.Warn(h.where.Append(
		"accounts: two sites have the same users, so a factor that is added at one counts at the other, and with the "+
			"same issuer tokens, too; but users come in by different rules: "+strings.Join(differ, "; ")+"; write the "+
			"same options for both, once, as a snippet that both import, or give the sites different stores"),
		help.See("sites-with-other-rules"),
	)
}

func orNo(option, written string) string {
	if written == "" {
		return "no " + option
	}
	return "`" + written + "`"
}
