package introspection

import "github.com/caddy-jwt/caddy-jwt/internal/answer"

var (
	lookups = answer.CountResults("introspection_lookups_total",
		"Look-ups of remembered introspection responses by result, hit or miss.")
	lookupHits   = lookups.WithLabelValues("hit")
	lookupMisses = lookups.WithLabelValues("miss")

	requests = answer.CountResults("introspection_requests_total",
		"Requests to introspection endpoints by result, active, inactive or error.")
	requestsActive   = requests.WithLabelValues("active")
	requestsInactive = requests.WithLabelValues("inactive")
	requestErrors    = requests.WithLabelValues("error")
)
