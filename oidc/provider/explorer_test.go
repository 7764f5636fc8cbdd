package provider_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/chromedp"
)

// The explorer of the accounts lists the operations of the provider, too, and calls them: those of a client
// by its secret, and those of a user by a token.
func TestExplorerOfProvider(t *testing.T) {
	s := serveApp(t, "grant_types authorization_code client_credentials\n scopes openid email read:todos", "")
	b := s.browser()
	b.SignUp("alice@example.com")
	users, _ := b.redeem("app", b.code("app", url.Values{"scope": {"openid email"}})).JSON(t)["access_token"].(string)
	ctx := chromiumtest.Start(t)
	page := chromiumtest.Page{T: t, Context: ctx}
	if err := chromedp.Do(ctx, chromedp.Navigate(s.URL+"/auth/explorer")); err != nil {
		t.Fatal(err)
	}
	must := func(answer, want string) {
		t.Helper()
		if !strings.Contains(answer, want) {
			t.Errorf("%s, expected %s", answer, want)
		}
	}
	const app = "app:" + appSecret
	must(page.Explore("GET", "/.well-known/openid-configuration", "", ""), `"issuer": "`+s.URL)
	must(page.Explore("GET", "/oidc/jwks.json", "", ""), `"keys"`)
	own := `{"grant_type":"client_credentials","scope":"read:todos"}`
	must(page.Explore("POST", "/oidc/token", app, own), `"access_token"`)
	must(page.Explore("POST", "/oidc/token", "app:another secret", own), "invalid_client")
	must(page.Explore("POST", "/oidc/introspect", app, `{"token":"`+users+`"}`), `"active": true`)
	must(page.Explore("POST", "/oidc/par", app, `{"response_type":"code","redirect_uri":"`+appCallback+
		`","scope":"openid","code_challenge":"`+sitetest.Challenge(verifier)+`","code_challenge_method":"S256"}`), `"request_uri"`)
	must(page.Explore("GET", "/oidc/userinfo", "", ""), "401")
	page.Text(`(() => {
		document.getElementById("token").value = "` + users + `";
		document.getElementById("authorize").requestSubmit();
		return "";
	})()`)
	must(page.Explore("GET", "/oidc/userinfo", "", ""), `"email": "alice@example.com"`)
	must(page.Explore("GET", "/auth/whoami", "", ""), "401") // the clients' tokens are no log-in
	must(page.Explore("POST", "/oidc/revoke", app, `{"token":"`+users+`"}`), "200")
	must(page.Explore("GET", "/oidc/userinfo", "", ""), "401")
}
