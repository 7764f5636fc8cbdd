package caddyjwt_test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

var (
	consoleBlock = regexp.MustCompile("(?ms)^```console\n(.*?)^```$")
	runCommand   = regexp.MustCompile(`caddy run `)
)

// needsPorts checks that the ports of the demo are free, which they are not while somebody tries it.
func needsPorts(t *testing.T) {
	t.Helper()
	for _, port := range []string{"8080", "8081"} {
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			caddytest.Missing(t, "port "+port+", which the README uses")
		}
		_ = listener.Close()
	}
}

// TestReadme runs the console blocks of the README, and of the first steps that go on from it, in
// one shell, and compares their output. A command that runs Caddy keeps running until the end.
func TestReadme(t *testing.T) {
	caddytest.Needs(t, "bash", "curl")
	needsPorts(t)
	var text []byte
	for _, page := range []string{"README.md", "docs/first-steps.md"} {
		more, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, more...)
	}
	var commands, expected []string
	for _, block := range consoleBlock.FindAllSubmatch(text, -1) {
		for line := range strings.Lines(string(block[1])) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				commands, expected = append(commands, strings.TrimSpace(command)), append(expected, "")
			} else {
				expected[len(expected)-1] += line
			}
		}
	}
	const mark = "\x1e\n"
	var script strings.Builder
	for _, command := range commands {
		switch {
		case runCommand.MatchString(command):
			startCaddy(t, command)
		case strings.HasPrefix(command, "go test "): // this is one
		default:
			script.WriteString(command)
		}
		script.WriteString("\nprintf '\\036\\n'\n")
	}
	shell := exec.Command("bash", "-c", script.String())
	printed, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	for i, got := range strings.SplitN(string(printed), mark, len(commands)+1)[:len(commands)] {
		if want := sitetest.Printed(expected[i]); !want.MatchString(strings.TrimSpace(strings.ReplaceAll(got, "\r", ""))) {
			t.Errorf("$ %s\nprints:\n%s\nexpected:\n%s", commands[i], got, expected[i])
		}
	}
}

// The demo does not change the user's files. If its ports are in use, it says so.
func TestDemoKeepsToItself(t *testing.T) {
	needsPorts(t)
	const soReusePort = 0xf // of Linux, which package syscall lacks
	home := sitetest.TempDir(t)
	environment := append(
		os.Environ(), "HOME="+home, "XDG_DATA_HOME=", "XDG_CONFIG_HOME=", "TMPDIR="+sitetest.TempDir(t),
	)
	for _, taken := range []string{"127.0.0.1:8080", "127.0.0.1:8081", "0.0.0.0:8080"} {
		config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { // as Caddy listens
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1)
			})
		}}
		listener, err := config.Listen(t.Context(), "tcp", taken)
		if err != nil {
			t.Fatal(err)
		}
		command := exec.CommandContext(t.Context(), caddytest.Binary(t), "run", "--config", "examples/Caddyfile")
		command.Env = environment
		output, err := command.CombinedOutput()
		_ = listener.Close()
		_, port, _ := net.SplitHostPort(taken)
		if err == nil || !strings.Contains(string(output), "another program is already listening on 127.0.0.1:"+port) {
			t.Errorf("%s is taken: %v: %s", taken, err, output)
		}
	}
	running := exec.Command(caddytest.Binary(t), "run", "--config", "examples/Caddyfile")
	running.Env = environment
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	sitetest.Eventually(t, "control: the demo answers", func() bool {
		response, err := http.Get("http://127.0.0.1:8080/auth/login")
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil
	})
	_ = running.Process.Signal(syscall.SIGTERM)
	_ = running.Wait()
	err := filepath.WalkDir(home, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && entry.Name() != "instance.uuid" { // every Caddy has one
			t.Errorf("left in the user's folder: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// startCaddy runs the command until the test ends, and returns when its site responds.
func startCaddy(t *testing.T, command string) {
	t.Helper()
	var output bytes.Buffer
	caddy := exec.Command("bash", "-c", "exec "+command)
	caddy.Env = append(
		os.Environ(), "XDG_DATA_HOME="+sitetest.TempDir(t),
		"XDG_CONFIG_HOME="+sitetest.TempDir(t), "TMPDIR="+sitetest.TempDir(t),
	)
	caddy.Stdout, caddy.Stderr = &output, &output
	caddy.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // `go run` has a child
	if err := caddy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-caddy.Process.Pid, syscall.SIGTERM)
		_ = caddy.Wait()
		if t.Failed() {
			t.Logf("%s", output.Bytes())
		}
	})
	sitetest.Within(t, 15*time.Minute, command+" answers", func() bool { // it compiles Caddy first
		response, err := http.Get("http://localhost:8080/")
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil
	})
}
