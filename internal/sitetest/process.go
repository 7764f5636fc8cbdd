package sitetest

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
)

// Process is a Caddy of its own, with what it stores in its folder.
type Process struct {
	*Site
	Dir     string
	command *exec.Cmd
	output  *bytes.Buffer
}

// StartAccounts runs Caddy with accounts in its folder.
func StartAccounts(t testing.TB, dir, address string, wrap ...string) *Process {
	t.Helper()
	return StartProcess(t, dir, address, AccountsBody(filepath.Join(dir, "users.db"), "throttle off\n hash_queue 1000"), wrap...)
}

// StartProcess runs Caddy by the words of wrap, if any, and waits until it
// answers.
func StartProcess(t testing.TB, dir, address, body string, wrap ...string) *Process {
	t.Helper()
	binary := caddytest.Binary(t)
	p := &Process{Site: &Site{T: t, URL: "http://" + address, LogFile: filepath.Join(dir, "log.json")}, Dir: dir, output: new(bytes.Buffer)}
	words := append(wrap, binary, "run", "--config", p.writeConfig(t, body))
	p.command = exec.Command(words[0], words[1:]...)
	p.command.Stdout, p.command.Stderr = p.output, p.output
	scenario.Start(t, p.command)
	t.Cleanup(p.Kill)
	Eventually(t, "Caddy answers", func() bool {
		response, err := http.Get(p.URL + "/auth/jwks.json")
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil
	})
	return p
}

// writeConfig writes the file from which the process has its config.
func (p *Process) writeConfig(t testing.TB, body string) (path string) {
	t.Helper()
	text := GlobalOptions(filepath.Join(p.Dir, "storage"), p.LogFile, "") + p.URL + " {\n" + body + "\n}"
	path = filepath.Join(p.Dir, "Caddyfile")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Kill ends the process as the kernel does when it is out of memory.
func (p *Process) Kill() {
	if p.command.ProcessState != nil {
		return
	}
	_ = syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL)
	_ = p.command.Wait()
}

// TrySignUp returns the status, or an error if the connection broke.
func (p *Process) TrySignUp(email string) (int, error) {
	response, err := http.Post(p.URL+"/auth/signup", "application/json", strings.NewReader(`{"email":"`+email+`","password":"`+GoodPassword+`"}`))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// RefreshAt refreshes by JSON or, as a browser does, by cookie.
func RefreshAt(url string, byCookie bool, token string) (got scenario.Answered) {
	request, _ := http.NewRequest(http.MethodPost, url+"/auth/refresh", strings.NewReader(`{"refreshToken":"`+token+`"}`))
	request.Header.Set("Content-Type", "application/json")
	if byCookie {
		request, _ = http.NewRequest(http.MethodGet, url+"/todos/", nil)
		request.AddCookie(&http.Cookie{Name: "refresh", Value: token})
	}
	response, err := LoadClient.Do(request)
	if err != nil {
		return got
	}
	defer response.Body.Close()
	var given Tokens
	text, err := io.ReadAll(response.Body)
	if err == nil && !byCookie && response.StatusCode == http.StatusOK {
		err = stdjson.Unmarshal(text, &given)
	}
	if err != nil {
		return got
	}
	for _, cookie := range response.Cookies() {
		switch cookie.Name {
		case "session":
			given.Token = cookie.Value
		case "refresh":
			given.RefreshToken = cookie.Value
		}
	}
	return scenario.Answered{Status: response.StatusCode, AccessToken: given.Token, RefreshToken: given.RefreshToken}
}

// Inject has system calls on the store's files fail, until the function that it
// returns is called.
func (p *Process) Inject(t *testing.T, calls, errno, file string) (mend func()) {
	t.Helper()
	args := []string{"-f", "-qq", "-o", "/dev/null", "-p", strconv.Itoa(p.command.Process.Pid), "-e", "inject=" + calls + ":error=" + errno}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		args = append(args, "-P", file+suffix)
	}
	tracer := exec.Command("strace", args...)
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		_ = tracer.Process.Signal(syscall.SIGINT)
		_ = tracer.Wait()
	}
}

// Refreshing are clients of the process that refresh all the time, half of them by
// cookies.
func (p *Process) Refreshing(number int) *scenario.Refreshing {
	var first []scenario.Answered
	for range number {
		got := p.LoggedIn("alice@example.com")
		first = append(first, scenario.Answered{AccessToken: got.Token, RefreshToken: got.RefreshToken})
	}
	url := p.URL
	return scenario.Refresh(first, 5*time.Millisecond, func(client int, token string) scenario.Answered {
		return RefreshAt(url, client%2 == 1, token)
	})
}

// Resident is the memory of a process that is in RAM, in bytes.
func (p *Process) Resident(t *testing.T) int64 {
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

// Metrics are those that a process tells of itself.
func (p *Process) Metrics(t *testing.T) map[string]float64 {
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

// Reload has the process load another config.
func (p *Process) Reload(t *testing.T, body string, loaded func() bool) {
	t.Helper()
	p.writeConfig(t, body)
	if err := p.command.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the config is loaded", loaded)
}

var LoadClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
