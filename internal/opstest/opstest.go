// Package opstest runs the commands of docs/operations.md on a simulated machine. The tests of
// docs and of postgres each cover a part of the page. It is separate because it uses Caddy only
// through its commands.
package opstest

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	page       = "docs/operations.md"
	startLimit = 60 * time.Second
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// Sections returns the blocks of commands on the page, by their heading. root is the folder of
// the module.
func Sections(t testing.TB, root string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string][]string)
	for _, part := range strings.Split(string(text), "\n## ")[1:] {
		heading, body, _ := strings.Cut(part, "\n")
		for _, block := range shellBlock.FindAllStringSubmatch(body, -1) {
			sections[heading] = append(sections[heading], block[1])
		}
	}
	return sections
}

// Host is a machine with one Caddy, which `systemctl` starts and stops. The paths of the page are
// in its folder.
type Host struct {
	// URL is the URL of its site. Dir is its folder: the config is etc/Caddyfile in it, the data
	// is in data/caddy.
	URL, Dir string

	t        testing.TB
	sections map[string][]string
	environ  []string
	paths    *strings.Replacer

	mu     sync.Mutex
	caddy  *exec.Cmd
	output bytes.Buffer
}

// NewHost returns a machine on which Caddy does not run yet. binary is the path of Caddy, root
// the folder of the module, and environ has additional environment variables.
func NewHost(t testing.TB, binary, root string, environ ...string) *Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "caddy-jwt-host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	h := &Host{
		URL: "http://" + listener.Addr().String(), Dir: dir, t: t, sections: Sections(t, root),
		paths: strings.NewReplacer(
			"/var/lib/caddy/.local/share", dir+"/data", "/etc/caddy", dir+"/etc", "/var/backups/caddy", dir+"/backups",
		),
	}
	systemctl := httptest.NewServer(http.HandlerFunc(h.systemctl))
	t.Cleanup(func() {
		systemctl.Close()
		h.stop()
		if t.Failed() {
			t.Logf("Caddy says:\n%s", &h.output)
		}
	})
	for _, made := range []string{"bin", "etc", "backups", "data"} {
		if err := os.Mkdir(filepath.Join(dir, made), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script := "#!/bin/sh\nexec curl -sS --fail-with-body " + systemctl.URL + `/"$1"` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "bin", "systemctl"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "bin", "caddy")); err != nil {
		t.Fatal(err)
	}
	h.environ = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "HOME="+dir,
		"XDG_DATA_HOME="+filepath.Join(dir, "data"), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"))
	h.environ = append(h.environ, environ...)
	return h
}

// Write writes the Caddyfile of the machine: global options and the body of its site.
func (h *Host) Write(name, global, site string) {
	h.t.Helper()
	text := fmt.Sprintf("{\nadmin off\nauto_https off\npersist_config off\n%s\n}\n%s {\n%s\n}\n", global, h.URL, site)
	if err := os.WriteFile(filepath.Join(h.Dir, "etc", name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// Type runs the blocks of a section in a shell, or only the numbered ones, and returns their
// output.
func (h *Host) Type(section string, blocks ...int) string {
	h.t.Helper()
	all := h.sections[section]
	if len(all) == 0 {
		h.t.Fatalf("%s has no section %q with commands", page, section)
	}
	if len(blocks) == 0 {
		for i := range all {
			blocks = append(blocks, i)
		}
	}
	var printed strings.Builder
	for _, i := range blocks {
		printed.WriteString(h.Shell(all[i]))
	}
	return printed.String()
}

// Shell runs commands, each of which must succeed.
func (h *Host) Shell(commands string) string {
	h.t.Helper()
	return h.Answer("", commands)
}

// Answer is like Shell, with what is typed at the prompts of the commands.
func (h *Host) Answer(typed, commands string) string {
	h.t.Helper()
	shell := exec.Command("bash", "-euc", h.paths.Replace(commands))
	shell.Env, shell.Dir, shell.Stdin = h.environ, h.Dir, strings.NewReader(typed)
	printed, err := shell.CombinedOutput()
	if err != nil {
		h.t.Fatalf("%v\n%s\n%s", err, commands, printed)
	}
	return string(printed)
}

// Path returns where a path of the page is on this machine.
func (h *Host) Path(path string) string { return h.paths.Replace(path) }

func (h *Host) systemctl(w http.ResponseWriter, r *http.Request) {
	verb := strings.TrimPrefix(r.URL.Path, "/")
	if verb == "stop" || verb == "restart" {
		h.stop()
	}
	if verb == "start" || verb == "restart" {
		if err := h.start(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

func (h *Host) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.caddy == nil {
		return
	}
	_ = h.caddy.Process.Signal(syscall.SIGTERM)
	_ = h.caddy.Wait()
	h.caddy = nil
}

// start returns when the site responds.
func (h *Host) start() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.caddy = exec.Command(
		filepath.Join(h.Dir, "bin", "caddy"), "run", "--config", filepath.Join(h.Dir, "etc", "Caddyfile"),
	)
	h.caddy.Env, h.caddy.Stdout, h.caddy.Stderr = h.environ, &h.output, &h.output
	if err := h.caddy.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(startLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		response, err := http.Get(h.URL + "/auth/jwks.json")
		if err == nil {
			_ = response.Body.Close()
			return nil
		}
	}
	return fmt.Errorf("it does not answer within %s", startLimit)
}
