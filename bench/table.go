package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// minRounds is the least number of values whose range holds the median with
// 95 % confidence: 1 - 2/2⁶ is 97 %.
const minRounds = 6

// printTable prints what each server spent, as the median of its rounds. A
// ratio is the median of the ratios to an unprotected server in the same
// round: what disturbs the machine for a while disturbs both.
func printTable(out io.Writer, servers []*server) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprint(table, "\tCPU µs/request\tratio to Caddy\t95% confidence")
	isHAProxy := func(s *server) bool { return s.name == haproxyUnprotected }
	if slices.ContainsFunc(servers, isHAProxy) {
		fmt.Fprint(table, "\tratio to HAProxy\t95% confidence")
	}
	fmt.Fprintln(table)
	unprotected := servers[:1]
	for _, s := range servers {
		if isHAProxy(s) { // its rows are compared with it as well
			unprotected = []*server{servers[0], s}
		}
		middle, _, _ := median(s.spent)
		fmt.Fprintf(table, "%s\t%.1f", s.name, middle)
		for _, other := range unprotected {
			middle, low, high := median(s.ratios(other))
			fmt.Fprintf(table, "\t%.3f\t%.3f to %.3f", middle, low, high)
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

// ratios are those to the CPU times of another server, round by round.
func (s *server) ratios(other *server) []float64 {
	ratios := make([]float64, len(s.spent))
	for round := range ratios {
		ratios[round] = s.spent[round] / other.spent[round]
	}
	return ratios
}

// median comes with its 95 % confidence interval by order statistics, which
// supposes no distribution of the values.
func median(values []float64) (middle, low, high float64) {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	outside := int((float64(n) - 1.96*math.Sqrt(float64(n))) / 2) // values beyond each end of it
	return (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[outside], sorted[n-1-outside]
}
