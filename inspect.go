package caddyjwt

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
)

// Judge returns what the handler would do with a token, for `caddy jwt inspect`, and
// whether it would accept it. The verdict lists rules that require a request.
func (h *Handler) Judge(ctx context.Context, token string, now time.Time) (verdict string, accepted bool) {
	if h.accounts != nil {
		if err := h.accounts.LearnRevocations(ctx, now); err != nil {
			return "cannot check the token: " + err.Error(), false
		}
	}
	if h.tokens.verifier == nil {
		return "refused: this handler accepts no JWTs, but API keys or other credentials", false
	}
	verified, err := h.tokens.verifier.Verify(ctx, token, now)
	if err != nil {
		return refusedBy(err), false
	}
	verdict = "accepted"
	for _, rule := range h.Require {
		if len(rule.placeholders) > 0 {
			verdict += ", if the request meets: " + rule.Expression
			continue
		}
		if rule.authorizer != nil {
			verdict += ", if the authorizer of the rule allows the request"
			continue
		}
		if err := rule.met(&http.Request{URL: new(url.URL)}, verified); err != nil {
			return refusedBy(err), false
		}
	}
	return verdict, true
}

func refusedBy(err error) string {
	reason := refusal.Of(err).Reason
	return fmt.Sprintf("refused by the check %q: %v; see %s", reason, err, reason.Help())
}
