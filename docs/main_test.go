// Package docs_test tests the documents in this folder.
package docs_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
)

// TestMain runs the tests in the top folder of the repository, as a reader of the documents does.
func TestMain(m *testing.M) { caddytest.MainIn(m, "..") }
