// Package docs_test has the tests of what is written here.
package docs_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
)

// TestMain runs the tests at the top of the repository, where a user reads this.
func TestMain(m *testing.M) { caddytest.MainIn(m, "..") }
