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
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/scenario"
)

// Process is a separate Caddy process that stores its data in its folder.
type Process struct {
	*Site
	Dir     string
	Config  string // path of the Caddyfile
	global  string
	command *exec.Cmd
	output  *Output
}

// Output is the output of a program. A test may read it while the program runs.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(text)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// StartAccounts runs Caddy with accounts in its folder.
func StartAccounts(t testing.TB, dir, address string, wrap ...string) *Process {
	t.Helper()
	return StartProcess(
		t, dir, address, AccountsBody(filepath.Join(dir, "users.db"), "throttle off\n hash_queue 1000"), wrap...,
	)
}

// StartProcess runs Caddy and waits until it responds. If wrap has words, they are the command
// that runs Caddy.
func StartProcess(t testing.TB, dir, address, body string, wrap ...string) *Process {
	t.Helper()
	p := NewProcess(t, dir, "", address, "", body)
	p.Start(wrap...)
	p.AwaitAnswer(func(int) bool { return true })
	return p
}

// NewProcess returns a Caddy that does not run yet. Processes in the same folder need different
// names and share their storage; global has additional global options.
func NewProcess(t testing.TB, dir, name, address, global, body string) *Process {
	t.Helper()
	p := &Process{
		Site: &Site{T: t, URL: "http://" + address, LogFile: filepath.Join(dir, "log"+name+".json")},
		Dir:  dir, Config: filepath.Join(dir, "Caddyfile"+name), global: global,
	}
	p.writeConfig(t, body)
	return p
}

// Start runs Caddy, also after Kill. If wrap has words, they are the command that runs Caddy.
func (p *Process) Start(wrap ...string) {
	p.T.Helper()
	words := append(wrap, caddytest.Binary(p.T), "run", "--config", p.Config)
	command := exec.Command(words[0], words[1:]...)
	p.command, p.output = command, new(Output)
	command.Stdout, command.Stderr = p.output, p.output
	scenario.Start(p.T, command)
	output := p.output
	p.T.Cleanup(func() {
		kill(command)
		if p.T.Failed() {
			p.T.Logf("Caddy at %s says:\n%s", p.URL, output)
		}
	})
}

// AwaitAnswer waits until the process responds with an acceptable status.
func (p *Process) AwaitAnswer(willDo func(status int) bool) {
	p.T.Helper()
	Eventually(p.T, "Caddy answers", func() bool {
		response, err := http.Get(p.URL + "/auth/jwks.json")
		if err == nil {
			_ = response.Body.Close()
		}
		return err == nil && willDo(response.StatusCode)
	})
}

// Command runs `caddy jwt …` with the config of the process.
func (p *Process) Command(args ...string) string {
	p.T.Helper()
	output, err := exec.Command(
		caddytest.Binary(p.T), append(append([]string{"jwt"}, args...), "--config", p.Config)...,
	).CombinedOutput()
	if err != nil {
		p.T.Fatalf("%q: %v\n%s", args, err, output)
	}
	return string(output)
}

// writeConfig writes the config file of the process.
func (p *Process) writeConfig(t testing.TB, body string) {
	t.Helper()
	text := GlobalOptions(filepath.Join(p.Dir, "storage"), p.LogFile, p.global) + p.URL + " {\n" + body + "\n}"
	if err := os.WriteFile(p.Config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Kill kills the process, as the kernel does when memory runs out.
func (p *Process) Kill() { kill(p.command) }

func kill(command *exec.Cmd) {
	if command.ProcessState != nil {
		return
	}
	_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL)
	_ = command.Wait()
}

// TrySignUp returns the status, or an error if the connection broke.
func (p *Process) TrySignUp(email string) (int, error) {
	response, err := http.Post(
		p.URL+"/auth/signup", "application/json",
		strings.NewReader(`{"email":"`+email+`","password":"`+GoodPassword+`"}`),
	)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// RefreshAt refreshes a session with JSON or, as a browser does, with a cookie.
func RefreshAt(url string, byCookie bool, token string) (got scenario.Answered) {
	request, _ := http.NewRequest(
		http.MethodPost, url+"/auth/refresh", strings.NewReader(`{"refreshToken":"`+token+`"}`),
	)
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

// Inject makes system calls on the store's files fail until the returned function is called.
func (p *Process) Inject(t *testing.T, calls, errno, file string) (mend func()) {
	t.Helper()
	args := []string{
		"-f", "-qq", "-o", "/dev/null", "-p", strconv.Itoa(p.command.Process.Pid),
		"-e", "inject=" + calls + ":error=" + errno,
	}
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

// Refreshing returns clients of the process that refresh constantly, half of them with cookies.
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

// Resident returns the resident memory of a process, in bytes.
func (p *Process) Resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		caddytest.Missing(t, "the /proc of Linux")
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kilobytes, err := strconv.ParseInt(
				strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64,
			)
			if err != nil {
				t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	t.Fatalf("no VmRSS in %s", text)
	return 0
}

// Metrics returns the process's metrics.
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

// Reload makes the process load another config.
func (p *Process) Reload(t *testing.T, body string, loaded func() bool) {
	t.Helper()
	p.writeConfig(t, body)
	if err := p.command.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the config is loaded", loaded)
}

var LoadClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
