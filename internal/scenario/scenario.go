// Package scenario has what the tests named TestScenario… share: how long they run, and how they
// report what is promised and what was seen. `go run ./bench faults` shows these reports in its
// table.
package scenario

import (
	"encoding/json"
	"flag"
	"fmt"
	"testing"
	"time"
)

// Prefix is the start of each line of a test's output that contains a [Told].
const Prefix = "scenario: "

// Told is a report of a scenario: what is promised, or what was seen.
type Told struct {
	Promised string `json:"promised,omitempty"`
	Seen     string `json:"seen,omitempty"`
}

var (
	full = flag.Bool("full", false, "run the scenarios at full length")
	soak = flag.Duration("soak", 0, "how long the soak runs, as in 10m; 0 is a few seconds, and two minutes with -full")
)

// Full reports whether the scenarios run at full length, some minutes each.
func Full() bool { return *full }

// Length returns how long a scenario runs, or how often it repeats its work.
func Length[T any](short, long T) T {
	if *full {
		return long
	}
	return short
}

// Soak returns the length of the soak test.
func Soak() time.Duration {
	if *soak > 0 {
		return *soak
	}
	return Length(3*time.Second, 2*time.Minute)
}

// Promise reports what a scenario promises. It returns a function to report what was seen, which
// may be called several times.
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
