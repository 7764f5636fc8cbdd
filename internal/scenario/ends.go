package scenario

import (
	"io"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// Start starts a command in a process group of its own, which is killed when the test
// has ended, as [Ends] does.
func Start(t testing.TB, command *exec.Cmd) {
	t.Helper()
	if command.SysProcAttr == nil {
		command.SysProcAttr = new(syscall.SysProcAttr)
	} else { // it may be that of other commands too
		own := *command.SysProcAttr
		command.SysProcAttr = &own
	}
	command.SysProcAttr.Setpgid = true
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	// Another process may have the ID by then, so its words are compared.
	longest := slices.MaxFunc(command.Args, func(a, b string) int { return len(a) - len(b) })
	Ends(t, `grep -qsaFe "$2" "/proc/$1/cmdline" && kill -9 -"$1"`, strconv.Itoa(command.Process.Pid), longest)
}

// Ends has a shell script run when the test has ended, however it does: also when its
// process is killed. What a scenario starts outside its process ends by that. The
// script finds the arguments as $1 and so on.
func Ends(t testing.TB, script string, args ...string) {
	t.Helper()
	end, err := Watch(script, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
}

// Watch is Ends for what is no test: the script runs when end is called, or when this
// process has ended.
func Watch(script string, args ...string) (end func(), err error) {
	// The other end of the pipe is this process's alone, so it closes with it.
	watcher := exec.Command(
		"sh", append([]string{"-c", "trap '' INT TERM HUP; cat >/dev/null; " + script, "sh"}, args...)...,
	)
	var held io.Closer
	if held, err = watcher.StdinPipe(); err != nil {
		return nil, err
	}
	if err := watcher.Start(); err != nil {
		return nil, err
	}
	return func() {
		_ = held.Close()
		_ = watcher.Wait()
	}, nil
}
