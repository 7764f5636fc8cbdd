package caddyjwt

import (
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	cacheLookups = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "cache_lookups_total",
		Help: "Look-ups in the cache of verified tokens by result, hit or miss.",
	}, []string{"result"})
	cacheHits   = cacheLookups.WithLabelValues("hit")
	cacheMisses = cacheLookups.WithLabelValues("miss")
)

func init() { answer.AddMetrics(cacheLookups) }
