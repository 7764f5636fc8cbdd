//go:build linux

package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// terminal returns both ends of a pseudo terminal.
func terminal(t testing.TB) (hand, screen *os.File) {
	t.Helper()
	hand, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hand.Close() })
	number, err := unix.IoctlGetInt(int(hand.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(hand.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return hand, screen
}

// What destroys something asks on a terminal, and needs --yes without one.
func TestConfirmation(t *testing.T) {
	binary, dir := caddytest.Binary(t), sitetest.TempDir(t)
	store := filepath.Join(dir, "users.db")
	c := &accountstest.CommandLine{TB: t, Where: []string{"--store", store}}
	c.Must("correct horse battery", "user", "add", "--create", "alice@example.com")
	key := strings.Split(c.Must("", "key", "add", "--subject", "billing"), "_")[1][:12]
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf(
		"{\nstorage file_system %q\n}\n:8080 {\njwt /a/* {\naccounts {\nstore file %q\n}\n}\n}\n", dir+"/storage", store,
	)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(stdin *os.File, args ...string) (string, error) {
		command := exec.Command(binary, append([]string{"jwt"}, args...)...)
		command.Stdin = stdin
		output, err := command.CombinedOutput()
		return string(output), err
	}
	if output, err := run(nil, "client", "add", "--store", store, "--public", "--redirect-uri", "https://wiki.example/",
		"wiki"); err != nil {
		t.Fatal(output)
	}
	for _, test := range []struct{ name, asked, done string }{
		{"user factors reset alice@example.com", "remove the second factors of alice@example.com", "had no second factor"},
		{"user disconnect alice@example.com", "disconnect alice@example.com", "disconnected from 0"},
		{"user disable alice@example.com", "disable alice@example.com and end its sessions", "is disabled"},
		{"user delete alice@example.com", "delete alice@example.com, ", "is deleted"},
		{"key revoke " + key, "revoke the API key " + key + " of billing", "was revoked"},
		{"client delete wiki", "delete the client wiki", "is deleted"},
		{"keys rotate --withdraw", "withdraw all signing keys", "there is no key yet"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := append(strings.Fields(test.name), "--store", store)
			if strings.HasPrefix(test.name, "keys ") {
				args = append(strings.Fields(test.name), "--config", config)
			}
			output, err := run(nil, args...)
			if err == nil || !strings.Contains(output, "confirm with --yes") || !strings.Contains(output, test.asked) {
				t.Errorf("without a terminal: %v %s", err, output)
			}
			for _, typed := range []string{"no", "y", "yes"} {
				hand, screen := terminal(t)
				if _, err := hand.WriteString(typed + "\n"); err != nil {
					t.Fatal(err)
				}
				output, err := run(screen, args...)
				if !strings.Contains(output, "This will "+test.asked) {
					t.Errorf("%s: it is not asked: %v %s", typed, err, output)
				}
				if done := strings.Contains(output, test.done); done != (typed == "yes") {
					t.Errorf("%s: %v %s", typed, err, output)
				}
				if typed != "yes" && (err == nil || !strings.Contains(output, "nothing was changed")) {
					t.Errorf("%s: %v %s", typed, err, output)
				}
			}
		})
	}
}
