package sitetest

import (
	"encoding/json"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// Validate provisions the config, with a storage of its own so that no key
// set of another run is found.
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
