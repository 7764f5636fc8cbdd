package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// minRounds is the smallest number of values whose range contains the median with 95 %
// confidence: 1 - 2/2⁶ is 97 %.
const minRounds = 6

// printTable prints the CPU time of each server, as the median of its rounds. A ratio is the
// median of the ratios to an unprotected server in the same round, because a disturbance of the
// machine affects both.
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
			middle, low, high := median(ratios(s.spent, other.spent))
			fmt.Fprintf(table, "\t%.3f\t%.3f to %.3f", middle, low, high)
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

// ratios returns the ratios of two servers' times in the same round.
func ratios(spent, other []float64) []float64 {
	found := make([]float64, len(spent))
	for round := range found {
		found[round] = spent[round] / other[round]
	}
	return found
}

// median returns the median with its 95 % confidence interval by order statistics, which assumes
// no distribution of the values.
func median(values []float64) (middle, low, high float64) {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	outside := int((float64(n) - 1.96*math.Sqrt(float64(n))) / 2) // values beyond each end of it
	return (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[outside], sorted[n-1-outside]
}
