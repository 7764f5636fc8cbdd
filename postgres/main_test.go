package postgres_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
)

func TestMain(m *testing.M) { caddytest.Main(m) }
