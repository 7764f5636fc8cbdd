package introspection_test

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/credentials"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/introspection"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A token whose response is remembered.
func BenchmarkRemembered(b *testing.B) {
	i := sitetest.NewIntrospectionServer(b)
	i.Issue("opaque", nil)
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	module := &introspection.Introspection{
		Issuer: i.URL, Audience: []string{"https://api.example"}, ClientID: "api", ClientSecret: "secret",
	}
	if err := module.Provision(ctx); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = module.Cleanup() }()
	r := httptest.NewRequest("GET", "/", nil)
	r = r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{}))
	credential := credentials.Credential{Token: "opaque"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := module.Verify(nil, r, credential); err != nil {
			b.Fatal(err)
		}
	}
}
