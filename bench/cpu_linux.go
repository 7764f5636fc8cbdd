package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// cpuTime returns the CPU time of a process, user and system, of all its threads. It reads the
// clock of the process (clock_getcpuclockid(3)), which counts in nanoseconds and includes threads
// that have ended. By contrast, /proc/<pid>/stat counts in steps of 10 ms, a few percent of a
// round, and /proc/<pid>/task/*/schedstat omits threads that have ended.
func cpuTime(pid int) (time.Duration, error) {
	clock := ^int32(pid)<<3 | 2 // CPUCLOCK_SCHED of the whole process, linux/posix-timers_types.h
	var spent syscall.Timespec
	if _, _, errno := syscall.Syscall(
		syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&spent)), 0,
	); errno != 0 {
		return 0, fmt.Errorf("reading the CPU clock of process %d: %w", pid, errno)
	}
	return time.Duration(spent.Nano()), nil
}

// cpuModel returns the model name of the processor; ARM processors have none.
func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "model unknown"
}
