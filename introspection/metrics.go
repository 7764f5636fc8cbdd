package introspection

import (
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	lookups = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "introspection_lookups_total",
		Help: "Look-ups of remembered introspection responses by result, hit or miss.",
	}, []string{"result"})
	lookupHits   = lookups.WithLabelValues("hit")
	lookupMisses = lookups.WithLabelValues("miss")

	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "introspection_requests_total",
		Help: "Requests to introspection endpoints by result, active, inactive or error.",
	}, []string{"result"})
	requestsActive   = requests.WithLabelValues("active")
	requestsInactive = requests.WithLabelValues("inactive")
	requestErrors    = requests.WithLabelValues("error")
)

func init() { answer.AddMetrics(lookups, requests) }
