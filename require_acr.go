package caddyjwt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
)

// checkACR returns an error if the rule about the authentication of the user is not valid.
func (q *Requirement) checkACR() error {
	within := time.Duration(q.Within)
	switch {
	case len(q.ACR) == 0 && within != 0:
		return errors.New("`within` is only for `require acr`")
	case within < 0 || within%time.Second != 0:
		return fmt.Errorf("`require acr … within %s`: it must be a number of whole seconds, as in 5m", within)
	case slices.ContainsFunc(q.ACR, func(value string) bool { return !jwt.IsScope(value) }):
		return errors.New("`require acr`: a value is one word of visible ASCII without quotes")
	}
	return nil
}

// metByACR returns nil if the user has authenticated as the rule requires, and recently enough.
func (q *Requirement) metByACR(claims jwt.Claims) error {
	acr, _ := claims["acr"].(string)
	// more than one factor meets a rule that asks for the password alone
	if !slices.Contains(q.ACR, acr) &&
		(acr != accounts.ClassMultiple || !slices.Contains(q.ACR, accounts.ClassPassword)) {
		return q.unmetByACR(fmt.Sprintf("requires one of %q in acr", q.ACR))
	}
	if q.Within == 0 {
		return nil
	}
	at, known := secondsOf(claims["auth_time"])
	if age := clock.Now().Sub(at); !known || age > time.Duration(q.Within) || age < -jwt.MaxLeeway {
		return q.unmetByACR(fmt.Sprintf("requires an auth_time within the last %s", time.Duration(q.Within)))
	}
	return nil
}

// unmetByACR returns the refusal of RFC 9470 §3.
func (q *Requirement) unmetByACR(detail string) error {
	return &refusal.Error{
		Reason: refusal.Authentication, ACR: q.ACR, MaxAge: time.Duration(q.Within), Detail: detail,
	}
}

// secondsOf returns a claim that is a time in seconds since 1970.
func secondsOf(value any) (at time.Time, known bool) {
	const latest = 1 << 40 // beyond it, a time cannot be computed with
	switch v := value.(type) {
	case int64:
		return time.Unix(v, 0), v > 0 && v < latest
	case float64:
		return time.Unix(int64(min(max(v, 0), latest)), 0), v > 0 && v < latest
	}
	return at, false
}

// readACR reads the values of `require acr`, and `within`.
func (p *parser) readACR(requirement *Requirement, args []string) error {
	const takes = "require acr takes values and, if you like, a duration, as in: require acr mfa within 5m"
	if n := len(args); n > 1 && args[n-2] == "within" {
		duration, err := caddy.ParseDuration(args[n-1])
		if err != nil || duration <= 0 {
			return p.Errf("%s, not %q", takes, args[n-1])
		}
		requirement.Within, args = caddy.Duration(duration), args[:n-2]
	}
	if len(args) == 0 || slices.Contains(args, "within") || strings.Join(args, "") == "" {
		return p.Errf(takes)
	}
	requirement.ACR = args
	return nil
}
