package caddyjwt

import (
	"errors"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	metricsNamespace = "caddy"
	metricsSubsystem = "jwt"
)

// The counters live as long as the process, over config reloads. Their labels
// have fixed values, or such as the config names; no request adds one.
var (
	decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "decisions_total",
		Help: "Requests by result, allowed or refused, and reason: a check that failed, or valid_token, optional, public or preflight.",
	}, []string{"result", "reason"})
	cacheLookups = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "cache_lookups_total",
		Help: "Look-ups in the cache of verified tokens by result, hit or miss.",
	}, []string{"result"})

	allowed      = decisions.WithLabelValues("allowed", "valid_token")
	anonymous    = decisions.WithLabelValues("allowed", "optional")
	publicPath   = decisions.WithLabelValues("allowed", "public")
	preflight    = decisions.WithLabelValues("allowed", "preflight")
	cacheHits    = cacheLookups.WithLabelValues("hit")
	cacheMisses  = cacheLookups.WithLabelValues("miss")
	keySetLabels = []string{"key_set"}

	accountEvents = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "account_events_total",
		Help: "Log-ins, sign-ups, refreshes and log-outs by result: ok, repeated of a refresh token that came again before its successor was used, refused, throttled, or reused of one whose successor was used.",
	}, []string{"event", "result"})
	hashesWaiting = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: metricsNamespace, Subsystem: metricsSubsystem, Name: "password_hashes",
		Help: "Passwords that are being hashed or wait for it.",
	}, func() float64 { return float64(hashing.begun()) })

	fetchesDesc = prometheus.NewDesc("caddy_jwt_key_set_fetches_total",
		"Fetches of a key set by result, ok or error.", append(keySetLabels, "result"), nil)
	ageDesc = prometheus.NewDesc("caddy_jwt_key_set_age_seconds",
		"Seconds since a key set was last loaded from its URL. Absent before the first time.", keySetLabels, nil)
	keysDesc = prometheus.NewDesc("caddy_jwt_key_set_keys",
		"Keys of a key set that are in use.", keySetLabels, nil)
	storeUpDesc = prometheus.NewDesc("caddy_jwt_user_store_up",
		"1 if the user store of the accounts with this issuer could be read when it was last asked, which is every 0.4 seconds; else 0.", []string{"issuer"}, nil)
)

// accountResults are made before the first event, so that a scrape shows each
// from the start, and the first of a kind is seen to be one more.
var accountResults = map[string][]string{
	"signup": {"ok", "refused"}, "login": {"ok", "refused", "throttled"}, "refresh": {"ok", "repeated", "refused", "reused"}, "logout": {"ok"},
}

func init() {
	for event, results := range accountResults {
		for _, result := range results {
			accountEvents.WithLabelValues(event, result)
		}
	}
}

func countEvent(event, result string) { accountEvents.WithLabelValues(event, result).Inc() }

// refused is made before the first refusal, so that a scrape shows every
// reason from the start.
var refused = func() map[refusal.Reason]prometheus.Counter {
	counters := make(map[refusal.Reason]prometheus.Counter)
	for _, reason := range refusal.All() {
		counters[reason] = decisions.WithLabelValues("refused", string(reason))
	}
	return counters
}()

// storeCollector reports the user stores in use at the time of a scrape.
type storeCollector struct{}

// Describe implements prometheus.Collector.
func (storeCollector) Describe(out chan<- *prometheus.Desc) { out <- storeUpDesc }

// Collect implements prometheus.Collector. Of several stores of one issuer all
// must be up.
func (storeCollector) Collect(out chan<- prometheus.Metric) {
	up := make(map[string]float64)
	accountServices.Range(func(_, value any) bool {
		service := value.(*accountService)
		if _, known := up[service.config.Issuer]; !known {
			up[service.config.Issuer] = 1
		}
		if service.storeDown.Load() {
			up[service.config.Issuer] = 0
		}
		return true
	})
	for issuer, value := range up {
		out <- prometheus.MustNewConstMetric(storeUpDesc, prometheus.GaugeValue, value, issuer)
	}
}

// registerMetrics adds the metrics to a config's registry, once for all its
// handlers.
func registerMetrics(registry *prometheus.Registry) error {
	for _, collector := range []prometheus.Collector{decisions, cacheLookups, accountEvents, hashesWaiting, keySetCollector{}, storeCollector{}} {
		if err := registry.Register(collector); err != nil {
			if _, twice := errors.AsType[prometheus.AlreadyRegisteredError](err); !twice {
				return err
			}
		}
	}
	return nil
}

// Interface guards
var (
	_ prometheus.Collector = storeCollector{}
)
