package mail_test

import (
	"testing"

	_ "github.com/caddy-jwt/caddy-jwt"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func TestMain(m *testing.M) { caddytest.Main(m) }
