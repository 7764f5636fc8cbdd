package caddyjwt

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/internal/place"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// These warnings are for options that are valid but probably not intended. They are logged
// when the config is loaded, also by `caddy validate`, and say what to write instead.

// warn logs suspicious options and positions of the handler.
func (h *Handler) warn(at place.Place) {
	for _, warning := range slices.Concat(
		h.issuerWarnings(), h.sourceWarnings(), h.ruleWarnings(), h.listWarnings(), h.resourceWarnings(at),
		matcherWarnings(at), shadowWarnings(at), earlyWarnings(at), rewriteWarnings(h.documents(), at),
	) {
		h.answers.Logger.Warn(h.where.Append(warning.text), help.See(warning.entry))
	}
}

// warning is what is probably not intended, with its entry in docs/troubleshooting.md.
type warning struct{ entry, text string }

// warningOf returns a warning with a formatted text.
func warningOf(entry, format string, args ...any) warning {
	return warning{entry, fmt.Sprintf(format, args...)}
}

// resourceWarnings reports a matcher such as /mcp/*, which does not match the resource /mcp, and
// issuers that clients cannot find.
func (h *Handler) resourceWarnings(at place.Place) (warnings []warning) {
	u, err := url.Parse(h.Resource)
	if h.Resource == "" || err != nil {
		return nil
	}
	for _, issuer := range h.Issuers {
		if issuer.multiTenant() && len(issuer.Tenants) == 0 {
			warnings = append(warnings, warningOf(
				"resource-without-issuer",
				"resource %s: its metadata cannot name the issuer %s, so clients "+
					"do not find it; list its tenants: tenants <value...>", h.Resource, issuer.Issuer))
		}
	}
	if len(at.Outside(max(u.Path, "/"))) == 0 {
		return warnings
	}
	return append(warnings, warningOf("resource-not-protected",
		"resource %s: requests for %s do not reach this handler, because its matcher does not match them, "+
			"so they need no token; write the matcher as in: jwt %s*",
		h.Resource, u.Path, strings.TrimSuffix(u.Path, "/"),
	))
}

func (h *Handler) issuerWarnings() (warnings []warning) {
	for _, issuer := range h.Issuers {
		if issuer.Issuer == "" {
			continue
		}
		if len(issuer.Audience) == 0 {
			warnings = append(warnings, warningOf(
				"no-audience",
				"issuer %s: audience is not set, so tokens that it issued for "+
					"other services are accepted here too; write: audience <the aud of your tokens>", issuer.Issuer))
		}
		if isTemplate(issuer.Issuer) {
			warnings = append(warnings, warningOf(
				"issuer-template",
				"issuer %s is a template for many tenants, and no token has it as its iss; write the issuer of your "+
					"tenant, which is the iss of its tokens, or `*` in the place of the tenant, and the URL of the "+
					"key set: jwks <url>",
				issuer.Issuer,
			))
		}
	}
	issuers := len(h.Issuers)
	if h.Accounts != nil || h.hasTenants() {
		issuers++
	}
	if issuers < 2 {
		return warnings
	}
	if slices.ContainsFunc(h.Require, func(q *Requirement) bool {
		return q.Issuer == "" && (len(q.Role) > 0 || q.Claim != "")
	}) {
		warnings = append(warnings, warning{
			"rules-of-all-issuers", "the same rules apply to roles and claims of all issuers, so each issuer can " +
				"make anybody an administrator of this site; bind each rule to one issuer: " +
				"require role <role> of <issuer>",
		})
	}
	if len(h.ClaimHeaders) > 0 &&
		!slices.ContainsFunc(h.ClaimHeaders, func(header *ClaimHeader) bool {
			return header.Claim == "iss" || header.Claim == allClaims
		}) {
		warnings = append(warnings, warning{
			"users-of-several-issuers", "claim_header does not show which of the issuers a user comes from, " +
				"and two issuers may use the same user ID; add: claim_header X-Issuer iss",
		})
	}
	return warnings
}

// sourceWarnings reports a query before another source, if the first one decides.
func (h *Handler) sourceWarnings() (warnings []warning) {
	for i, source := range h.From {
		if h.FirstSource && source.Query != "" && i < len(h.From)-1 {
			warnings = append(warnings, warningOf(
				"query-first",
				"first_source: whoever writes a link chooses the token in %s, which comes before the user's own; "+
					"write `from query` last", source,
			))
		}
	}
	return warnings
}

// isTemplate reports whether an issuer is a template: it has a part in braces, or is one of
// Microsoft's issuers for several tenants.
func isTemplate(issuer string) bool {
	u, err := url.Parse(issuer)
	if err != nil || strings.ContainsAny(issuer, "{}<>") {
		return true
	}
	tenant, _, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	return (strings.HasPrefix(u.Host, "login.microsoftonline.") || u.Host == "sts.windows.net") &&
		slices.Contains([]string{"common", "organizations", "consumers"}, tenant)
}

func (h *Handler) ruleWarnings() (warnings []warning) {
	for _, q := range h.Require {
		for _, kind := range []struct {
			name   string
			values []string
		}{{"scope", q.Scope}, {"any scope", q.AnyScope}, {"role", q.Role}} {
			warnings = append(warnings, separatorWarnings("require "+kind.name, kind.values)...)
		}
		if len(q.Role) > 1 && strings.Contains(q.Role[0], ".") {
			warnings = append(warnings, warningOf("claim-as-role",
				"require role %s accepts the role %s or any other of the list; "+
					"if it is meant as the name of a claim, write: require claim %[1]s",
				strings.Join(q.Role, " "), q.Role[0],
			))
		}
		if h.onlyAccounts() && h.Accounts.SecondFactor == "" && len(q.ACR) > 0 &&
			!slices.Contains(q.ACR, accounts.ClassPassword) {
			warnings = append(warnings, h.acrWarning(q.ACR))
		}
		if h.usersMakeKeys() && q.Issuer == "" && (q.Claim == "email" || q.Claim == "email_verified") {
			rule := "claims." + q.Claim + " in ['" + strings.Join(q.Values, "', '") + "']"
			if slices.Equal(q.Values, []string{"true"}) {
				rule = "claims." + q.Claim + " == true"
			}
			warnings = append(warnings, warningOf("keys-without-email",
				"require claim %s: it refuses all API keys, those of users too, which do not have this claim; to "+
					"accept them, write: require expression `!has(claims.iss) || %s`", q.Claim, rule))
		}
	}
	return warnings
}

// acrWarning is for a rule that requires more than a password of accounts without a second factor.
func (h *Handler) acrWarning(values []string) warning {
	rule := strings.Join(values, " ")
	if h.Accounts.Passkeys != nil {
		return warningOf("acr-by-password",
			"require acr %s: who knows the password of a user can add a passkey, and then meets it; write in "+
				"accounts: second_factor optional", rule)
	}
	return warningOf("acr-never-met",
		"require acr %s: no log-in of the accounts can meet it, because they have no second factor; write in "+
			"accounts: second_factor optional", rule)
}

// onlyAccounts reports whether all tokens are those of the accounts.
func (h *Handler) onlyAccounts() bool {
	return h.Accounts != nil && len(h.Issuers) == 0 && len(h.CredentialsRaw) == 0
}

// usersMakeKeys reports whether users of the accounts can make API keys that are accepted here.
func (h *Handler) usersMakeKeys() bool { return h.Accounts != nil && h.Accounts.KeyPrefix != "" }

func (h *Handler) listWarnings() (warnings []warning) {
	warnings = append(separatorWarnings("public", h.Public), separatorWarnings("user_id", h.UserID)...)
	warnings = append(warnings, separatorWarnings("scope_claim", h.ScopeClaim)...)
	warnings = append(warnings, separatorWarnings("role_claim", h.RoleClaim)...)
	for _, issuer := range h.Issuers {
		warnings = append(warnings, separatorWarnings("audience", issuer.Audience)...)
		warnings = append(warnings, separatorWarnings("audience_claim", issuer.AudienceClaim)...)
		warnings = append(warnings, separatorWarnings("token_type", issuer.TokenType)...)
	}
	if h.UpstreamToken != nil {
		warnings = append(warnings, separatorWarnings("upstream_token: audience", h.UpstreamToken.Audience)...)
		warnings = append(warnings, separatorWarnings("upstream_token: claims", h.UpstreamToken.Claims)...)
	}
	return warnings
}

// separatorWarnings returns warnings about lists written as a single word.
func separatorWarnings(option string, values []string) (warnings []warning) {
	for _, value := range values {
		if words := strings.FieldsFunc(value, isSeparator); len(words) != 1 || words[0] != value {
			warnings = append(warnings, warningOf("commas-in-list",
				"%s %q is a single value with commas or spaces in it; "+
					"to set several values, separate them by spaces, without quotes: %s %s",
				option, value, option, strings.Join(words, " "),
			))
		}
	}
	return warnings
}

func isSeparator(r rune) bool { return r == ',' || r == ' ' || r == '\t' }

// matcherWarnings returns warnings about the path matchers of `jwt`.
func matcherWarnings(at place.Place) (warnings []warning) {
	for _, paths := range at.PathsAround() {
		warnings = append(warnings, separatorWarnings("jwt", paths)...)
		for _, path := range paths {
			below := strings.TrimSuffix(path, "/") + "/*"
			if strings.Contains(path, "*") || isFile(path) || slices.Contains(paths, below) ||
				slices.ContainsFunc(at.Siblings, matchesPath(below)) {
				continue
			}
			warnings = append(warnings, warningOf(
				"matcher-without-star",
				"jwt %s protects only %[1]s, and %s stays open; "+
					"write both in a named matcher: @protected path %[1]s %s", path, below, below))
		}
	}
	return warnings
}

// isFile reports whether a path ends in a file name, so that nothing is below it.
func isFile(path string) bool {
	extension := strings.TrimPrefix(filepath.Ext(path), ".")
	return extension != "" && unicode.IsLetter(rune(extension[0]))
}

// matchesPath returns a function that reports whether a route has the pattern.
func matchesPath(pattern string) func(caddyhttp.Route) bool {
	return func(route caddyhttp.Route) bool {
		return place.Way{route.MatcherSets}.Has(func(matcher any) bool {
			paths, ok := matcher.(*caddyhttp.MatchPath)
			return ok && slices.Contains(*paths, pattern)
		})
	}
}
