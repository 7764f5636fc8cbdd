package provider

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var update = flag.Bool("update", false, "rewrite the generated parts of testdata")

// TestAdapt runs the files of testdata/adapt as the test of that name of the
// root package does: a Caddyfile, ten dashes, then its JSON or text from its
// error.
func TestAdapt(t *testing.T) {
	for name, value := range map[string]string{"JWT_ISSUER": "https://tenant.example/", "JWT_CLIENT_ID": "site", "JWT_CLIENT_SECRET": "the-secret-of-the-site"} {
		t.Setenv(name, value)
	}
	t.Setenv("JWT_USERS", filepath.Join(t.TempDir(), "users.db"))
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no adapt tests: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) { testAdapt(t, file) })
	}
}

func testAdapt(t *testing.T, file string) {
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	input, expected, _ := strings.Cut(string(content), "\n----------\n")
	expected = strings.TrimSpace(expected)
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input+"\n"), nil)
	if err == nil {
		err = validate(t, adapted)
	}
	if !strings.HasPrefix(expected, "{") && !(*update && expected == "") {
		if err == nil || expected == "" || !strings.Contains(err.Error(), expected) {
			t.Errorf("got the error:\n%v\nexpected in it:\n%s", err, expected)
		}
		return
	}
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, adapted, "", "\t"); err != nil {
		t.Fatal(err)
	}
	switch {
	case pretty.String() == expected:
	case !*update:
		t.Errorf("adapted to other JSON than the file has; -update rewrites it, and git diff shows what changed:\n%s", pretty.String())
	default:
		if err := os.WriteFile(file, []byte(input+"\n----------\n"+pretty.String()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// validate provisions the config, as `caddy validate` does.
func validate(t *testing.T, adapted []byte) error {
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	config.StorageRaw = caddyconfig.JSONModuleObject(map[string]string{"root": t.TempDir()}, "module", "file_system", nil)
	return caddy.Validate(&config)
}
