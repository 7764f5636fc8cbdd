package scenario

import (
	"io"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// Start starts a command in a new process group, which is killed when the test has ended, as in
// [Ends].
func Start(t testing.TB, command *exec.Cmd) {
	t.Helper()
	if command.SysProcAttr == nil {
		command.SysProcAttr = new(syscall.SysProcAttr)
	} else { // other commands may share it
		own := *command.SysProcAttr
		command.SysProcAttr = &own
	}
	command.SysProcAttr.Setpgid = true
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	// Another process may have the ID by then, so the script compares its command line.
	longest := slices.MaxFunc(command.Args, func(a, b string) int { return len(a) - len(b) })
	Ends(t, `grep -qsaFe "$2" "/proc/$1/cmdline" && kill -9 -"$1"`, strconv.Itoa(command.Process.Pid), longest)
}

// Ends runs a shell script when the test has ended, even if its process was killed. So it can
// end what a scenario starts outside its process. The script gets the arguments as $1 and so on.
func Ends(t testing.TB, script string, args ...string) {
	t.Helper()
	end, err := Watch(script, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(end)
}

// Watch is like Ends without a test: the script runs when end is called, or when this process
// has ended.
func Watch(script string, args ...string) (end func(), err error) {
	// Only this process has the other end of the pipe, so it closes when the process ends.
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
