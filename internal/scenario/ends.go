package scenario

import (
	"io"
	"os/exec"
	"testing"
)

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
	watcher := exec.Command("sh", append([]string{"-c", "trap '' INT TERM HUP; cat >/dev/null; " + script, "sh"}, args...)...)
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
