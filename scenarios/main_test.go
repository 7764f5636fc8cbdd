// Package scenarios has tests of whole programs under failures of production, such as a kill, a
// full disk, a clock that jumps, a flood.
package scenarios_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
)

func TestMain(m *testing.M) { caddytest.Main(m) }
