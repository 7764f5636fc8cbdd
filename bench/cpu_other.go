//go:build !linux

package main

import (
	"fmt"
	"runtime"
	"time"
)

func cpuTime(int) (time.Duration, error) {
	return 0, fmt.Errorf("the CPU time of another process can only be read on Linux here, not on %s; "+
		"run the bench there, a container will do", runtime.GOOS)
}

func cpuModel() string { return "model unknown" }
