// Package scenario is what the tests named TestScenario… have in common: how
// long they run, and how they tell what was promised and what was seen, which
// `go run ./bench faults` puts into its table.
package scenario

import (
	"encoding/json"
	"flag"
	"fmt"
	"testing"
	"time"
)

// Prefix begins each line of a test's output that holds a [Told].
const Prefix = "scenario: "

// Told is one thing that a scenario tells: what is promised, or what was seen.
type Told struct {
	Promised string `json:"promised,omitempty"`
	Seen     string `json:"seen,omitempty"`
}

var (
	full = flag.Bool("full", false, "run the scenarios at full length")
	soak = flag.Duration("soak", 0, "how long the soak runs, as in 10m; 0 is a few seconds, and two minutes with -full")
)

// Full tells whether the scenarios run at full length, some minutes each.
func Full() bool { return *full }

// Length is how long a scenario runs, or how often it does a thing.
func Length[T any](short, long T) T {
	if *full {
		return long
	}
	return short
}

// Soak is how long the soak runs.
func Soak() time.Duration {
	if *soak > 0 {
		return *soak
	}
	return Length(3*time.Second, 2*time.Minute)
}

// Promise tells what a scenario promises. It returns a function for what is
// seen, which may be called several times.
func Promise(t *testing.T, promised string) (seen func(format string, args ...any)) {
	t.Helper()
	tell(t, Told{Promised: promised})
	return func(format string, args ...any) {
		t.Helper()
		tell(t, Told{Seen: fmt.Sprintf(format, args...)})
	}
}

func tell(t *testing.T, told Told) {
	t.Helper()
	text, err := json.Marshal(told)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(t.Output(), "%s%s\n", Prefix, text)
}
