package provider

import (
	"testing"

	"github.com/caddy-jwt/caddy-jwt/jwt"
)

// A client may introspect tokens if it is their audience.
func TestIntrospectionByAudience(t *testing.T) {
	if mayIntrospect(&Client{ID: "x"}, jwt.Claims{"aud": jwt.List{"y", "z"}}) ||
		!mayIntrospect(&Client{ID: "x"}, jwt.Claims{"aud": jwt.List{"y", "x"}}) ||
		!mayIntrospect(&Client{ID: "x"}, jwt.Claims{"aud": "x"}) {
		t.Error("whose audience it is")
	}
}
