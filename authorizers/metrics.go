package authorizers

import "github.com/caddy-jwt/caddy-jwt/internal/answer"

var (
	asked = answer.CountResults("authorizer_requests_total",
		"Requests to services of `require http` by result, allowed, refused or error.")
	askedAllowed = asked.WithLabelValues("allowed")
	askedRefused = asked.WithLabelValues("refused")
	askedFailed  = asked.WithLabelValues("error")
)
