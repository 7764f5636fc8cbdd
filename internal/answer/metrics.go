package answer

import (
	"errors"
	"sync"

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
	Help: "Requests by result, allowed or refused, reason, which is a check that failed, or valid_token, optional, " +
		"public or preflight, and site: its first host in the config, or else the address on which it listens.",
}, []string{"result", "reason", "site"})

// Decisions count what is decided about the requests of a site.
type Decisions struct {
	site    string
	refused map[refusal.Reason]prometheus.Counter
}

var ofSites sync.Map // *Decisions by the site

// DecisionsOf returns the counters of a site of the config. They exist from then on, so that a scrape
// shows every reason before the first refusal.
func DecisionsOf(site string) *Decisions {
	if known, ok := ofSites.Load(site); ok {
		return known.(*Decisions)
	}
	d := &Decisions{site, make(map[refusal.Reason]prometheus.Counter)}
	for _, reason := range refusal.All() {
		d.refused[reason] = decisions.WithLabelValues("refused", string(reason), site)
	}
	known, _ := ofSites.LoadOrStore(site, d)
	return known.(*Decisions)
}

// Allowed returns the counter of requests that were allowed for a reason.
func (d *Decisions) Allowed(reason string) prometheus.Counter {
	return decisions.WithLabelValues("allowed", reason, d.site)
}

// Refused counts a request that was refused.
func (d *Decisions) Refused(reason refusal.Reason) { d.refused[reason].Inc() }

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
