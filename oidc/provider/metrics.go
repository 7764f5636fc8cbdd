package provider

import (
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	documents = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "client_documents_total",
		Help: "Loads of client ID metadata documents by result: loaded, refused (the document is not usable) or " +
			"unreachable.",
	}, []string{"result"})
	documentsLoaded      = documents.WithLabelValues("loaded")
	documentsRefused     = documents.WithLabelValues("refused")
	documentsUnreachable = documents.WithLabelValues("unreachable")
)

func init() { answer.AddMetrics(documents) }
