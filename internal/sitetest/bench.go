package sitetest

import (
	"testing"
	"time"
)

// Ratio runs two functions in turn, in many short rounds, and reports the ratio of their times.
// Both are measured in one run, because machines are noisy.
func Ratio(b *testing.B, limit, ours func()) {
	b.Helper()
	const rounds = 50
	var limitTime, oursTime time.Duration
	per := max(1, b.N/rounds)
	b.ResetTimer()
	for done := 0; done < b.N; done += per {
		start := time.Now()
		for range per {
			limit()
		}
		limitTime += time.Since(start)
		start = time.Now()
		for range per {
			ours()
		}
		oursTime += time.Since(start)
	}
	n := float64((b.N + per - 1) / per * per)
	b.ReportMetric(float64(limitTime.Nanoseconds())/n, "limit-ns/op")
	b.ReportMetric(float64(oursTime.Nanoseconds())/n, "ours-ns/op")
	b.ReportMetric(float64(oursTime)/float64(limitTime), "ratio")
	b.ReportMetric(float64(oursTime-limitTime)/n, "extra-ns/op")
	b.ReportMetric(0, "ns/op")
}
