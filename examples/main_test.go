// Package examples_test tests the examples in this folder.
package examples_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	_ "github.com/caddy-jwt/caddy-jwt/oidc" // oidc_provider and login_with
)

// TestMain runs the tests in the top folder of the repository, as a user runs the examples.
func TestMain(m *testing.M) { caddytest.MainIn(m, "..") }
