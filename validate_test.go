package caddyjwt_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// filesBelow returns all paths below a folder, with their modes.
func filesBelow(t testing.TB, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // a temporary file that was just removed
			return nil
		}
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			fmt.Fprintln(&all, path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// Validating a config creates nothing; starting it creates everything at once.
func TestValidateMakesNothing(t *testing.T) {
	dir := sitetest.TempDir(t)
	for _, name := range []string{"home", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var asked atomic.Int64
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(
			`{"keys":[` + sitetest.Marshal(t, sitetest.JWK(t, sitetest.Keys().P256, sitetest.JSON{"kid": "1"})) + `]}`,
		))
	}))
	defer keys.Close()
	config := filepath.Join(dir, "work", "Caddyfile")
	text := fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	storage file_system data
}
http://%s {
	jwt /a/* {
		issuer https://id.example.com {
			jwks %s {
				allow_http
			}
		}
	}
	jwt /b/* {
		accounts {
			store file users.db
			signup open
		}
	}
	respond ok
}
http://%s {
	oidc_provider {
		issuer http://%[3]s
		accounts {
			store file other/provider.db
			issuer other
		}
		client app {
			public
			redirect_uri https://app.example.com/callback
		}
	}
	respond ok
}
`, sitetest.FreeAddress(t), keys.URL, sitetest.FreeAddress(t))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) *exec.Cmd {
		command := exec.Command(caddytest.Binary(t), args...)
		command.Dir = filepath.Join(dir, "work")
		command.Env = append(os.Environ(), "HOME="+filepath.Join(dir, "home"), "XDG_DATA_HOME=", "XDG_CONFIG_HOME=")
		return command
	}
	before := filesBelow(t, dir)
	for _, args := range [][]string{
		{"validate", "--config", config}, {"adapt", "--config", config}, {"adapt", "--config", config, "--validate"},
	} {
		output, err := run(args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v %s", args, err, output)
		}
		if after := filesBelow(t, dir); after != before {
			t.Errorf("%q leaves\n%s\nwhere there was\n%s", args, after, before)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("keys were fetched %d times", asked.Load())
	}
	// Control: a config that starts creates keys and stores before the first request.
	server := run("run", "--config", config)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
	}()
	sitetest.Eventually(t, "a config that runs makes them", func() bool {
		now := filesBelow(t, dir)
		return strings.Contains(now, "users.db ") && strings.Contains(now, "provider.db ") &&
			strings.Count(now, "signing_keys/") >= 4 && strings.Contains(now, "key_sets/")
	})
}

// If a config cannot create its files when it starts, it is refused with an error that says why.
func TestStartFailsWithoutKeys(t *testing.T) {
	dir := sitetest.TempDir(t)
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil { // a file, where a folder must be
		t.Fatal(err)
	}
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\n admin off\n auto_https off\n persist_config off\n storage file_system data/x\n}\n"+
		"http://%s {\n jwt {\n accounts {\n store file users.db\n }\n }\n}\n", sitetest.FreeAddress(t))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(caddytest.Binary(t), "run", "--config", config)
	command.Dir = dir
	output, err := command.CombinedOutput()
	if err == nil || !strings.Contains(string(output), "signing keys in Caddy's storage") {
		t.Errorf("%v %s", err, output)
	}
}
