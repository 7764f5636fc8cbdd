package upstream

import (
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	tokens = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "upstream_tokens_total",
		Help: "Tokens for the upstream by result: signed, or failed for want of a key. A token that is sent again " +
			"is not counted.",
	}, []string{"result"})
	tokensSigned = tokens.WithLabelValues("signed")
	tokensFailed = tokens.WithLabelValues("failed")
)

func init() { answer.AddMetrics(tokens) }
