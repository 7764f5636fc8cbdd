package authorizers

import (
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	asked = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "authorizer_requests_total",
		Help: "Requests to services of `require http` by result, allowed, refused or error.",
	}, []string{"result"})
	askedAllowed = asked.WithLabelValues("allowed")
	askedRefused = asked.WithLabelValues("refused")
	askedFailed  = asked.WithLabelValues("error")
)

func init() { answer.AddMetrics(asked) }
