package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// However the command of the scenarios is ended, neither a process nor a file of it stays.
func TestKilledFaultsLeaveNothing(t *testing.T) {
	program := filepath.Join(sitetest.TempDir(t), "bench")
	if output, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			folder := sitetest.TempDir(t)
			faults := exec.Command(program, "faults", "-short", "-run", "cache flood")
			faults.Env = append(os.Environ(), "TMPDIR="+folder)
			if err := faults.Start(); err != nil {
				t.Fatal(err)
			}
			sitetest.Within(t, time.Minute, "it has begun", func() bool { return len(running(t, folder)) > 1 })
			_ = faults.Process.Signal(signal)
			_ = faults.Wait()
			sitetest.Within(t, time.Minute, "nothing stays", func() bool {
				left, err := os.ReadDir(folder)
				return err == nil && len(left) == 0 && len(running(t, folder)) == 0
			})
		})
	}
}

// running returns the processes whose command line or environment has a text.
func running(t *testing.T, text string) (ids []string) {
	t.Helper()
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		caddytest.Missing(t, "/proc")
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range processes {
		for _, file := range []string{"cmdline", "environ"} {
			content, err := os.ReadFile(filepath.Join(process, file))
			if err == nil && strings.Contains(string(content), text) { // else it has ended, or is another user's
				ids = append(ids, filepath.Base(process))
				break
			}
		}
	}
	return ids
}
