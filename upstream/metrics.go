package upstream

import "github.com/caddy-jwt/caddy-jwt/internal/answer"

var (
	tokens = answer.CountResults("upstream_tokens_total",
		"Tokens for the upstream by result: signed, or failed for want of a key. A token that is sent again is not "+
			"counted.")
	tokensSigned = tokens.WithLabelValues("signed")
	tokensFailed = tokens.WithLabelValues("failed")
)
