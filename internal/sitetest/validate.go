package sitetest

import (
	"encoding/json"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// Validate provisions the config. It uses a new storage, so that it finds no key set of another
// run.
func Validate(t testing.TB, adapted []byte) error {
	t.Helper()
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	config.StorageRaw = caddyconfig.JSONModuleObject(
		map[string]string{"root": TempDir(t)}, "module", "file_system", nil,
	)
	return caddy.Validate(&config)
}
