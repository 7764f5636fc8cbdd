package caddyjwt_test

import (
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
)

func TestMain(m *testing.M) { caddytest.Main(m) }
