package answer

import (
	"errors"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/prometheus/client_golang/prometheus"
)

// MetricsNamespace and MetricsSubsystem are the prefix of each metric.
const (
	MetricsNamespace = "caddy"
	MetricsSubsystem = "jwt"
)

// The counters live as long as the process, across config reloads. Their label values are
// fixed or come from the config, never from a request.
var decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: MetricsNamespace, Subsystem: MetricsSubsystem, Name: "decisions_total",
	Help: "Requests by result, allowed or refused, and reason: a check that failed, or valid_token, optional, " +
		"public or preflight.",
}, []string{"result", "reason"})

// Allowed returns the counter of requests that were allowed for a reason.
func Allowed(reason string) prometheus.Counter {
	return decisions.WithLabelValues("allowed", reason)
}

// refusals is initialized before the first refusal, so that a scrape shows every reason
// from the start.
var refusals = func() map[refusal.Reason]prometheus.Counter {
	counters := make(map[refusal.Reason]prometheus.Counter)
	for _, reason := range refusal.All() {
		counters[reason] = decisions.WithLabelValues("refused", string(reason))
	}
	return counters
}()

// Refused counts a request that was refused.
func Refused(reason refusal.Reason) { refusals[reason].Inc() }

var collectors = []prometheus.Collector{decisions}

// AddMetrics adds metrics of another package. Call it from an init function.
func AddMetrics(more ...prometheus.Collector) { collectors = append(collectors, more...) }

// CountResults adds a counter with the label result. Its name has no prefix.
func CountResults(name, help string) *prometheus.CounterVec {
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: MetricsNamespace, Subsystem: MetricsSubsystem, Name: name, Help: help,
	}, []string{"result"})
	AddMetrics(counter)
	return counter
}

// RegisterMetrics registers the metrics in a config's registry, once for all its handlers.
func RegisterMetrics(registry *prometheus.Registry) error {
	for _, collector := range collectors {
		if err := registry.Register(collector); err != nil {
			if _, twice := errors.AsType[prometheus.AlreadyRegisteredError](err); !twice {
				return err
			}
		}
	}
	return nil
}
