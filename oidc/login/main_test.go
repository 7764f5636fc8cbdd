package login_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	_ "github.com/caddy-jwt/caddy-jwt/oidc/login"
	_ "github.com/caddy-jwt/caddy-jwt/oidc/provider" // oidc_provider
)

func TestMain(m *testing.M) { caddytest.Main(m) }
