//go:build unix

package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// asNobody is the built program, run by a user without rights, in a folder that this user can open.
type asNobody struct {
	dir, binary string
	uid, gid    int
}

func newNobody(t *testing.T) *asNobody {
	t.Helper()
	if os.Geteuid() != 0 {
		caddytest.Missing(t, "root, to run a program as another user")
	}
	account, err := user.Lookup("nobody")
	if err != nil {
		caddytest.Missing(t, "a user nobody")
	}
	n := &asNobody{dir: sitetest.TempDir(t)}
	n.uid, _ = strconv.Atoi(account.Uid)
	n.gid, _ = strconv.Atoi(account.Gid)
	n.binary = filepath.Join(n.dir, "caddy")
	from, err := os.Open(caddytest.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(n.binary, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errorsOf(err, to.Close(), os.Chmod(n.dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return n
}

// folder makes a folder of a user, or of root.
func (n *asNobody) folder(t *testing.T, name string, mode os.FileMode, own bool) string {
	t.Helper()
	path := filepath.Join(n.dir, name)
	if err := errorsOf(os.MkdirAll(path, mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	if own {
		if err := os.Chown(path, n.uid, n.gid); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func (n *asNobody) command(args ...string) *exec.Cmd {
	command := exec.Command(n.binary, args...)
	command.Dir = n.dir
	command.Env = append(os.Environ(), "HOME="+n.dir, "XDG_DATA_HOME=", "XDG_CONFIG_HOME=")
	command.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(n.uid), Gid: uint32(n.gid)},
	}
	return command
}

func (n *asNobody) doctor(config string) string {
	output, _ := n.command("jwt", "doctor", "--config", config).Output() // it fails if there are faults
	return string(output)
}

// start runs Caddy until it has started or not, and returns what it logs.
func (n *asNobody) start(t *testing.T, config string) (log string) {
	t.Helper()
	file, err := os.Create(filepath.Join(sitetest.TempDir(t), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	command := n.command("run", "--config", config)
	command.Stdout, command.Stderr = file, file
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = command.Process.Kill(), command.Wait() }()
	sitetest.Eventually(t, "Caddy starts or not", func() bool {
		text, _ := os.ReadFile(file.Name())
		log = string(text)
		return strings.Contains(log, "serving initial configuration") || strings.Contains(log, "loading initial config")
	})
	return log
}

// doctor says of a storage and a store that do not exist yet whether this user can create them, and
// creates nothing. Caddy itself says the same.
func TestDoctorLooksWhetherFilesCanBeCreated(t *testing.T) {
	n := newNobody(t)
	own, others := n.folder(t, "own", 0o700, true), n.folder(t, "others", 0o755, false)
	closed := n.folder(t, "closed", 0o700, false)
	read := n.folder(t, "read", 0o500, true)
	for name, c := range map[string]struct {
		storage, store string
		want           [2]string // beginnings of what is said about the storage and the store
		blocked        string    // the folder
	}{
		"control": {own + "/storage", own + "/data/users.db", [2]string{"ok ", "warning "}, ""},
		"a storage in a folder of root": {
			others + "/storage", own + "/data/users.db", [2]string{"fault ", "warning "}, others,
		},
		"a store in a folder of root": {own + "/storage", others + "/users.db", [2]string{"ok ", "fault "}, others},
		"a store far below a folder of root": {
			own + "/storage", others + "/a/b/users.db", [2]string{"ok ", "fault "}, others,
		},
		"a store in a folder that is closed": {own + "/storage", closed + "/users.db", [2]string{"ok ", "fault "}, closed},
		"a storage in a folder of its own that is read-only": {
			read + "/storage", own + "/data/users.db", [2]string{"fault ", "warning "}, read,
		},
		"a store below a file": {own + "/storage", n.binary + "/users.db", [2]string{"ok ", "fault "}, n.binary},
	} {
		t.Run(name, func(t *testing.T) {
			config := filepath.Join(n.dir, "Caddyfile")
			text := fmt.Sprintf("{\nadmin off\nstorage file_system %q\n}\nhttp://%s {\njwt {\naccounts {\nstore file %q\n}\n}\n}\n",
				c.storage, sitetest.FreeAddress(t), c.store)
			if err := errorsOf(os.WriteFile(config, []byte(text), 0o644), os.Chmod(config, 0o644)); err != nil {
				t.Fatal(err)
			}
			before := filesIn(t, n.dir)
			said := n.doctor(config)
			for i, what := range []string{" Caddy's storage, " + c.storage + ": ", " user store " + c.store + ": "} {
				line := regexp.MustCompile(`(?m)^\w+ +` + regexp.QuoteMeta(strings.TrimSpace(what)) + `.*$`).FindString(said)
				if !strings.HasPrefix(line, c.want[i]) {
					t.Errorf("expected %q: %s", c.want[i]+what, said)
				}
				if strings.HasPrefix(line, "fault") {
					accountstest.Has(t, line, c.blocked)
				}
				if strings.HasPrefix(line, "fault") && c.blocked != n.binary && c.blocked != closed {
					accountstest.Has(t, line, "the user nobody cannot write to the folder "+c.blocked, "sudo install -d")
				}
			}
			if after := filesIn(t, n.dir); after != before {
				t.Errorf("files before: %s, after: %s", before, after)
			}
			if strings.HasPrefix(c.want[1], "fault") && c.blocked != closed {
				started := n.start(t, config)
				if strings.Contains(started, ".new:") || !strings.Contains(started, c.blocked) {
					t.Errorf("Caddy says: %s", started)
				}
			}
		})
	}
}

// A storage that cannot be read is not the proof that a missing store existed before.
func TestStoreTellsUnreadableStorageFromMissingFile(t *testing.T) {
	n := newNobody(t)
	own := n.folder(t, "own", 0o700, true)
	n.folder(t, "storage", 0o755, false)
	keys := n.folder(t, "storage/jwt", 0o700, false)
	config := filepath.Join(n.dir, "Caddyfile")
	text := fmt.Sprintf("{\nadmin off\nstorage file_system %q\n}\nhttp://%s {\njwt {\naccounts {\nstore file %q\n}\n}\n}\n",
		filepath.Dir(keys), sitetest.FreeAddress(t), own+"/users.db")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	started := n.start(t, config)
	if strings.Contains(started, "it existed before: keys") || !strings.Contains(started, "Caddy's storage cannot be read") {
		t.Errorf("Caddy says: %s", started)
	}
	accountstest.Has(t, n.doctor(config), "fault    Caddy's storage", "sudo chown -R nobody ")
}

// A config that cannot be read is a fault in both forms.
func TestDoctorOnConfigThatCannotBeRead(t *testing.T) {
	dir := sitetest.TempDir(t)
	for name, c := range map[string]struct {
		text string
		want string // of the line; empty for no fault
	}{
		"control":      {"{\nstorage file_system " + dir + "/storage\n}\n:1 {\nrespond ok\n}\n", ""},
		"wrong syntax": {":1 {\njwt {\n", "unexpected EOF"},
		"unknown word": {":1 {\njwtt\n}\n", "unrecognized directive"},
		"wrong JSON":   {"{\"apps\":{\"http\":{\"servers\":3}}}", "servers"},
		"missing":      {"", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			config := filepath.Join(sitetest.TempDir(t), "Caddyfile")
			if c.text != "" {
				if err := os.WriteFile(config, []byte(c.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var code [2]int
			var said [2]string
			for i, more := range [][]string{nil, {"--json"}} {
				command := exec.Command(caddytest.Binary(t), append([]string{"jwt", "doctor", "--config", config}, more...)...)
				output, _ := command.Output()
				code[i], said[i] = command.ProcessState.ExitCode(), string(output)
			}
			line, _, _ := strings.Cut(said[1], "\n")
			var finding struct{ Level, What, Text string }
			if err := json.Unmarshal([]byte(line), &finding); err != nil || finding.What != "config "+config {
				t.Errorf("%v: %s", err, said[1])
			}
			if c.want == "" {
				if code != [2]int{} || finding.Level != "ok" {
					t.Errorf("%v: %s", code, said)
				}
				return
			}
			if code != [2]int{1, 1} || finding.Level != "fault" || !strings.Contains(finding.Text, c.want) ||
				!strings.HasPrefix(said[0], "fault    config "+config+": ") || !strings.Contains(said[0], c.want) {
				t.Errorf("%v: %s", code, said)
			}
		})
	}
}

// Before Caddy runs, what it serves itself is no fault. Elsewhere it is, with what to do, and nothing
// that is written for users of the site.
func TestDoctorBeforeTheFirstStart(t *testing.T) {
	own, other := sitetest.FreeLocalhost(t), sitetest.FreeLocalhost(t)
	const asks = "does Caddy run with this config?"
	for name, c := range map[string]struct{ site, want, text string }{
		"keys of this config":   {"jwt /a {\nissuer http://SERVER\naudience a\n}", "warning  keys of http://SERVER", asks},
		"keys by URL":           {"jwt /a {\nissuer x\naudience a\njwks http://SERVER/k\n}", "warning  keys of http://SERVER/k", asks},
		"provider of its own":   {"jwt /b {\naccounts {\nstore file DIR/users.db\nlogin_with home {\nissuer http://SERVER\nclient_id a\nclient_secret b\n}\n}\n}", "warning  login_with home", asks},
		"upstream_token":        {"jwt /c {\nsecret `" + sitetest.Secret + "`\nupstream_token {\nissuer http://SERVER/jwt\n}\n}", "warning  upstream_token of http://SERVER/jwt", asks},
		"keys of another site":  {"jwt /a {\nissuer http://OTHER\naudience a\n}", "fault    keys of http://OTHER", "may this machine connect to it"},
		"provider of elsewhere": {"jwt /b {\naccounts {\nstore file DIR/users.db\nlogin_with home {\nissuer http://OTHER\nclient_id a\nclient_secret b\n}\n}\n}", "fault    login_with home", "may this machine connect to it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sitetest.TempDir(t)
			replace := strings.NewReplacer("SERVER", own, "OTHER", other, "DIR", dir).Replace
			config := filepath.Join(dir, "Caddyfile")
			text := "{\nstorage file_system " + dir + "/storage\n}\nhttp://" + own + " {\n" + replace(c.site) + "\n}\n"
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			output, _ := exec.Command(caddytest.Binary(t), "jwt", "doctor", "--config", config).Output()
			found := false
			for line := range strings.Lines(string(output)) {
				found = found || strings.HasPrefix(line, replace(c.want)) && strings.Contains(line, c.text)
			}
			if !found || strings.Contains(string(output), "Try again") || strings.Contains(string(output), "another way") ||
				strings.Contains(string(output), "temporarily") {
				t.Errorf("expected %q, %q:\n%s", replace(c.want), c.text, output)
			}
		})
	}
}

// A port in use is no fault of a config that is only looked at, such as while it runs.
func TestExclusiveClaimsPortsOnlyToRun(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dir := sitetest.TempDir(t)
	config := filepath.Join(dir, "Caddyfile")
	text := "{\nadmin off\nstorage file_system " + dir + "/storage\nservers {\nlistener_wrappers {\nexclusive\n}\n}\n}\n" +
		"http://" + listener.Addr().String() + " {\nbind 127.0.0.1\njwt {\nsecret `" + sitetest.Secret + "`\n}\n}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"validate":         "Valid configuration",
		"adapt --validate": `"listener_wrappers"`,
		"jwt doctor":       "ok       config " + config,
		"run":              "another program is already listening on " + listener.Addr().String(),
	} {
		output, err := exec.Command(caddytest.Binary(t), append(strings.Fields(line), "--config", config)...).CombinedOutput()
		if (err != nil) != (line == "run") || !strings.Contains(string(output), want) {
			t.Errorf("%s: %v %s", line, err, output)
		}
	}
}
