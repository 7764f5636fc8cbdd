// Package examples_test has the tests of what is written here.
package examples_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	_ "github.com/caddy-jwt/caddy-jwt/oidc" // oidc_provider and login_with
)

// TestMain runs the tests at the top of the repository, where a user reads this.
func TestMain(m *testing.M) { caddytest.MainIn(m, "..") }
