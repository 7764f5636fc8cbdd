package accounts

import (
	"github.com/caddy-jwt/caddy-jwt/internal/answer"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	accountEvents = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: answer.MetricsNamespace, Subsystem: answer.MetricsSubsystem, Name: "account_events_total",
		Help: "Log-ins, sign-ups, refreshes and log-outs by result: ok, refused, throttled, repeated (a refresh " +
			"token was sent again before its successor was used) or reused (after its successor was used). API " +
			"keys of users: made, rolled or revoked. Second factors: ok, refused or throttled (their codes), " +
			"asked (log-ins that need one), added or removed. Passkeys: ok, refused, throttled, cloned (refused, as " +
			"there seems to be a copy), added or removed.",
	}, []string{"event", "result"})
	storeUpDesc = prometheus.NewDesc("caddy_jwt_user_store_up",
		"1 if the last read of the user store of the accounts with this issuer succeeded, else 0. "+
			"The store is read every 0.4 seconds.", []string{"issuer"}, nil)
)

// accountResults are made before the first event, so that a scrape shows each
// from the start, and the first of a kind is seen to be one more.
var accountResults = map[string][]string{
	"signup": {"ok", "refused"}, "login": {"ok", "refused", "throttled"},
	"refresh": {"ok", "repeated", "refused", "reused"}, "logout": {"ok"},
	"api_key": {"made", "rolled", "revoked"},
	"factor":  {"ok", "refused", "throttled", "asked", "added", "removed"},
	"passkey": {"ok", "refused", "throttled", "cloned", "added", "removed"},
}

func init() {
	answer.AddMetrics(accountEvents, storeCollector{})
	for event, results := range accountResults {
		for _, result := range results {
			accountEvents.WithLabelValues(event, result)
		}
	}
}

// CountEvent counts a log-in, sign-up, refresh or log-out by its result.
func CountEvent(event, result string) { accountEvents.WithLabelValues(event, result).Inc() }

// storeCollector reports the user stores in use at the time of a scrape.
type storeCollector struct{}

// Describe implements prometheus.Collector.
func (storeCollector) Describe(out chan<- *prometheus.Desc) { out <- storeUpDesc }

// Collect implements prometheus.Collector. Of several stores of one issuer all
// must be up.
func (storeCollector) Collect(out chan<- prometheus.Metric) {
	up := make(map[string]float64)
	for _, service := range Running() {
		if _, known := up[service.Config.Issuer]; !known {
			up[service.Config.Issuer] = 1
		}
		if service.background.storeDown.Load() {
			up[service.Config.Issuer] = 0
		}
	}
	for issuer, value := range up {
		out <- prometheus.MustNewConstMetric(storeUpDesc, prometheus.GaugeValue, value, issuer)
	}
}

// Interface guards
var _ prometheus.Collector = storeCollector{}
