package caddyjwt

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
)

// resident is the memory of a process that is in RAM, in bytes.
func (p *process) resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		caddytest.Missing(t, "the /proc of Linux")
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatalf("no VmRSS in %s", text)
	return 0
}

// metrics are those that a process tells of itself.
func (p *process) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for line := range strings.Lines(p.Get("/metrics").Body) {
		name, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if number, err := strconv.ParseFloat(value, 64); found && err == nil {
			values[name] = number
		}
	}
	for _, name := range []string{"go_goroutines", "go_memstats_heap_inuse_bytes", "process_open_fds"} {
		if values[name] == 0 {
			t.Fatalf("no %s in the metrics", name)
		}
	}
	return values
}
