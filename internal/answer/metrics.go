package answer

import (
	"errors"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/prometheus/client_golang/prometheus"
)

// MetricsNamespace and MetricsSubsystem begin the name of each metric.
const (
	MetricsNamespace = "caddy"
	MetricsSubsystem = "jwt"
)

// The counters live as long as the process, over config reloads. Their labels
// have fixed values, or such as the config names; no request adds one.
var decisions = prometheus.NewCounterVec(prometheus.CounterOpts{
	Namespace: MetricsNamespace, Subsystem: MetricsSubsystem, Name: "decisions_total",
	Help: "Requests by result, allowed or refused, and reason: a check that failed, or valid_token, optional, public or preflight.",
}, []string{"result", "reason"})

// Allowed returns the counter of requests that were let through for a reason.
func Allowed(reason string) prometheus.Counter {
	return decisions.WithLabelValues("allowed", reason)
}

// refusals is made before the first refusal, so that a scrape shows every
// reason from the start.
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

// AddMetrics has metrics of another package registered with these. It is called by
// their init functions.
func AddMetrics(more ...prometheus.Collector) { collectors = append(collectors, more...) }

// RegisterMetrics adds the metrics to a config's registry, once for all its
// handlers.
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
