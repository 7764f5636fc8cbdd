package apikeys

import "github.com/prometheus/client_golang/prometheus"

var liveKeys = prometheus.NewDesc("caddy_jwt_api_keys",
	"Live API keys in memory, of all stores together.", nil, nil)

// ringCollector reports the keys at the time of a scrape.
type ringCollector struct{}

// Describe implements prometheus.Collector.
func (ringCollector) Describe(out chan<- *prometheus.Desc) { out <- liveKeys }

// Collect implements prometheus.Collector.
func (ringCollector) Collect(out chan<- prometheus.Metric) {
	keys := 0
	rings.Range(func(_, ring any) bool {
		keys += ring.(*Ring).Size()
		return true
	})
	out <- prometheus.MustNewConstMetric(liveKeys, prometheus.GaugeValue, float64(keys))
}

// Interface guards
var _ prometheus.Collector = ringCollector{}
