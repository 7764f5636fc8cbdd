// Package migration_test runs the Caddyfiles of the pages that need the plugin's second package: they give
// what the configs of the other programs gave.
package migration_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	_ "github.com/caddy-jwt/caddy-jwt/oidc" // login_with and oidc_provider
)

// TestMain runs the tests in the top folder of the repository, as a reader of the documents does.
func TestMain(m *testing.M) { caddytest.MainIn(m, "../..") }
