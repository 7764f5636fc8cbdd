package provider

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// runExample runs an example as it stands, but for its ports, and returns them
// by those in the file.
func runExample(t *testing.T, name string, ports ...string) map[string]string {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", t.TempDir()) // where accounts are by default
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", name, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if _, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"}); err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	body, instead := string(text), make(map[string]string)
	for _, port := range ports {
		instead[port] = strings.TrimPrefix(sitetest.FreeLocalhost(t), "localhost:")
		body = strings.ReplaceAll(body, ":"+port, ":"+instead[port])
	}
	run(t, filepath.Join(t.TempDir(), "log.json"), body)
	return instead
}

func TestExampleOIDCProvider(t *testing.T) {
	t.Setenv("SHOP_SECRET", appSecret)
	ports := runExample(t, "oidc-provider", "8080", "8081", "8082", "8083")
	s := &site{t: t, url: "http://localhost:" + ports["8080"]}
	chrome := s.browser()
	if got := chrome.get("/"); got.body != "An OpenID Provider." {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := chrome.get("/.well-known/openid-configuration").json(t); got["issuer"] != s.url {
		t.Errorf("discovery %v", got)
	}
	chrome.do(http.MethodPost, "/auth/signup", url.Values{"email": {"alice@example.com"}, "password": {goodPassword}, "name": {"Alice"}}).to(t)
	callback := "http://localhost:" + ports["8081"] + "/callback"
	back := chrome.goOn(s.url + "/oidc/authorize?" + url.Values{"client_id": {"shop"}, "redirect_uri": {callback}, "response_type": {"code"}, "scope": {"openid orders"}}.Encode())
	tokens := chrome.post("/oidc/token", url.Values{"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {callback}}, basic("shop", appSecret)).json(t)
	access, _ := tokens["access_token"].(string)
	api := "http://localhost:" + ports["8083"] + "/"
	sitetest.Eventually(t, "the API has the keys", func() bool {
		return chrome.do(http.MethodGet, api, nil, "Authorization: Bearer "+access).status == 200
	})
	if got := chrome.get(api); got.status != 401 {
		t.Errorf("without a token: %d", got.status)
	}
}

func TestExampleLoginWith(t *testing.T) {
	t.Setenv("USERS", t.TempDir())
	t.Setenv("CLIENT_SECRET", appSecret)
	ports := runExample(t, "login-with", "8080", "8081")
	provider, here := &site{t: t, url: "http://localhost:" + ports["8080"]}, &site{t: t, url: "http://127.0.0.1:" + ports["8081"]}
	there := provider.browser()
	chrome := &browser{site: here, client: there.client}
	there.do(http.MethodPost, "/auth/signup", url.Values{"email": {"alice@example.com"}, "password": {goodPassword}, "name": {"Alice"}}).to(t)
	if got := chrome.get("/"); got.status != 200 {
		t.Errorf("public: %d", got.status)
	}
	login := chrome.get("/private").to(t).String()
	if page := chrome.get(login); !strings.Contains(page.body, `href="/auth/login/company?return_to=%2fprivate">My Company</a>`) {
		t.Fatalf("log-in page: %s", page.body)
	}
	back := chrome.get(there.goOn(chrome.get("/auth/login/company?return_to=/private").to(t).String()).String())
	if to := back.to(t).String(); to != "/private" {
		t.Errorf("it returns to %s", to)
	}
	if got := chrome.get("/private"); got.body != "Hello, alice@example.com" {
		t.Errorf("%d %s", got.status, got.body)
	}
	there.post("/auth/logout", url.Values{})
	sitetest.Eventually(t, "the log-out at the provider ends the session", func() bool { return chrome.get("/private").status == 303 })
}
