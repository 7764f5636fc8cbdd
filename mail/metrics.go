package mail

import (
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	mails = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "mails_total",
		Help: "Mails by kind, what they are for, and result: queued, sent, deferred (an attempt failed, and there " +
			"will be another), refused (by the server, for ever), expired (before they could be sent), withheld " +
			"(there is no account to write to), limited (too many to one address or of one client) or dropped (the " +
			"queue was full).",
	}, []string{"kind", "result"})
	waiting = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "mails_waiting",
		Help: "Mails of the accounts with this issuer that wait to be sent, as this node knows.",
	}, []string{"issuer", "store"})
)

func init() { answer.AddMetrics(mails, waiting) }

// Count counts a mail by its result.
func Count(kind, result string) { mails.WithLabelValues(kind, result).Inc() }
