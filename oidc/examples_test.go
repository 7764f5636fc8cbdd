package oidc

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// runExample runs examples/<name>/Caddyfile with the hosts that stand in it at
// free addresses, and returns them.
func runExample(t *testing.T, name string, hosts ...string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../examples", name, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if _, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"}); err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	body, dir := string(text), t.TempDir()
	t.Setenv("XDG_DATA_HOME", dir)
	var replaced []string
	for _, host := range hosts {
		replaced = append(replaced, freeAddress(t))
		body = strings.ReplaceAll(body, host, replaced[len(replaced)-1])
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("{\n admin off\n auto_https off\n storage file_system "+dir+"\n log {\n output file "+filepath.Join(dir, "log.json")+"\n}\n}\n"+body), map[string]any{"filename": "Caddyfile"})
	if err == nil {
		err = caddy.Load(config, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caddy.Stop() })
	return replaced
}

func TestExampleOIDCProvider(t *testing.T) {
	hosts := runExample(t, "oidc-provider", "localhost:8080", "localhost:8083")
	s := &site{t: t, url: "http://" + hosts[0]}
	chrome := s.browser()
	chrome.signUp("alice@example.com")
	request := func(client, redirect, scope string) string {
		return s.url + "/oidc/authorize?" + url.Values{"client_id": {client}, "redirect_uri": {redirect}, "response_type": {"code"}, "scope": {scope}, "code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"}}.Encode()
	}
	const redirect = "http://localhost:8081/callback"
	back := chrome.goOn(request("shop", redirect, "openid orders"))
	got := chrome.post("/oidc/token", url.Values{"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {redirect}, "code_verifier": {verifier}}, basic("shop", "only-for-trying-this-out"))
	if got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	access := got.json(t)["access_token"].(string)
	eventually(t, "the API takes the token", func() bool {
		got = chrome.do(http.MethodGet, "http://"+hosts[1]+"/", nil, "Authorization: Bearer "+access)
		return got.status == 200 && strings.HasPrefix(got.body, "orders of ")
	})
	if got := chrome.do(http.MethodGet, "http://"+hosts[1]+"/", nil); got.status != 401 {
		t.Errorf("without a token: %d", got.status)
	}
	if back := chrome.get(request("app", "http://127.0.0.1:4711/callback", "openid")).to(t); back.Query().Get("code") == "" {
		t.Errorf("the public client: %s", back)
	}
}
