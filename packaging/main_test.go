// Package packaging_test tests the files of this folder, and the Dockerfile.
package packaging_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	_ "github.com/caddy-jwt/caddy-jwt/postgres" // store postgres
)

// TestMain runs the tests in the top folder of the repository.
func TestMain(m *testing.M) { caddytest.MainIn(m, "..") }
