package provider_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt" // the directive jwt
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	_ "github.com/caddy-jwt/caddy-jwt/oidc/login" // login_with
)

func TestMain(m *testing.M) { caddytest.Main(m) }
