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
			"there seems to be a copy), added or removed. store is where the users are.",
	}, []string{"event", "result", "store"})
	storeUpDesc = prometheus.NewDesc("caddy_jwt_user_store_up",
		"1 if the last read of the user store of the accounts with this issuer succeeded, else 0. "+
			"The store is read every 0.4 seconds.", []string{"issuer", "store"}, nil)
)

// accountResults are the results of each event.
var accountResults = map[string][]string{
	"signup": {"ok", "refused"}, "login": {"ok", "refused", "throttled"},
	"refresh": {"ok", "repeated", "refused", "reused"}, "logout": {"ok"},
	"api_key": {"made", "rolled", "revoked"},
	"factor":  {"ok", "refused", "throttled", "asked", "added", "removed"},
	"passkey": {"ok", "refused", "throttled", "cloned", "added", "removed"},
}

func init() {
	answer.AddMetrics(accountEvents, storeCollector{})
}

// countFromZero makes the counters of a site, so that a scrape shows each before its first event.
func (s *site) countFromZero() {
	for event, results := range accountResults {
		for _, result := range results {
			accountEvents.WithLabelValues(event, result, s.where)
		}
	}
}

// CountEvent counts a log-in, sign-up, refresh or log-out by its result.
func (s *site) CountEvent(event, result string) {
	accountEvents.WithLabelValues(event, result, s.where).Inc()
}

// storeCollector reports the user stores in use at the time of a scrape.
type storeCollector struct{}

// Describe implements prometheus.Collector.
func (storeCollector) Describe(out chan<- *prometheus.Desc) { out <- storeUpDesc }

// Collect implements prometheus.Collector. While a config is replaced, accounts can be open twice: then
// both must be up.
func (storeCollector) Collect(out chan<- prometheus.Metric) {
	type accountsIn struct{ issuer, store string }
	up := make(map[accountsIn]float64)
	for _, service := range Running() {
		of := accountsIn{service.Config.Issuer, service.where}
		if _, known := up[of]; !known {
			up[of] = 1
		}
		if service.background.storeDown.Load() {
			up[of] = 0
		}
	}
	for of, value := range up {
		out <- prometheus.MustNewConstMetric(storeUpDesc, prometheus.GaugeValue, value, of.issuer, of.store)
	}
}

// Interface guards
var _ prometheus.Collector = storeCollector{}
