package provider_test

import (
	"net/url"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// A redirect URI on the user's machine that is registered without a port matches any port; all
// others are compared character by character.
func TestThreatRedirectURIOfAnotherPort(t *testing.T) {
	s := serve(t, "client local {\n secret "+appSecret+"\n redirect_uri http://localhost/callback "+
		"http://[::1]/callback http://127.0.0.1:4712/callback https://localhost/callback http://app.localhost/callback\n}", "")
	chrome := s.browser()
	for redirect, allowed := range map[string]bool{
		"http://localhost/callback": true, "http://localhost:1/callback": true, "http://localhost:65535/callback": true,
		"http://[::1]:1/callback": true, "http://127.0.0.1:4712/callback": true, "https://localhost/callback": true,
		"http://app.localhost/callback": true,

		"http://127.0.0.1:4713/callback": false, "http://127.0.0.1/callback": false, "http://localhost:/callback": false,
		"https://localhost:1/callback": false, "http://app.localhost:1/callback": false, "http://localhost:1/callback?x": false,
		"http://localhost:1/callback/": false, "http://x@localhost:1/callback": false, "http://localhost:1@evil.example/callback": false,
		"http://localhost.evil.example:1/callback": false, "http://LOCALHOST:1/callback": false, "HTTP://localhost:1/callback": false,
		"http://localhost:1/%63allback": false, "http://[::1%25eth0]:1/callback": false, "http://localhost:1": false,
	} {
		got := chrome.Post("/oidc/par", url.Values{
			"redirect_uri": {redirect}, "response_type": {"code"}, "scope": {"openid"},
		}, sitetest.Basic("local", appSecret))
		if (got.Status == 201) != allowed {
			t.Errorf("%s: %d %s", redirect, got.Status, got.Body)
		}
	}
}
