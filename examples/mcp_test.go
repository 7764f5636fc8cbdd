package examples_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// mcpExample is the example mcp-server, with the official SDK's server and a user.
type mcpExample struct {
	*sitetest.Site        // the provider
	folder, url, document string
}

func runMCPExample(t *testing.T) *mcpExample {
	t.Helper()
	folder := caddytest.NPM(t, "examples/mcp-server")
	ports := runExampleSites(t, "mcp-server", []string{"8080", "8081", "8082", "8443"})
	startNode(t, folder, "server.mjs", ports["8082"])
	e := &mcpExample{
		&sitetest.Site{T: t, URL: "http://localhost:" + ports["8080"]}, folder,
		"http://localhost:" + ports["8081"] + "/mcp", "https://localhost:" + ports["8443"] + "/client.json",
	}
	e.Visitor().SignUp("alice@example.com")
	return e
}

// The official SDK's client logs in without being registered, in a real browser.
func TestExampleMCPServer(t *testing.T) {
	e := runMCPExample(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	client := exec.CommandContext(ctx, "node", "client.mjs")
	client.Dir, client.Stderr = e.folder, os.Stderr
	client.Env = append(os.Environ(), "SERVER="+e.url, "DOCUMENT="+e.document)
	output, err := client.StdoutPipe()
	if err == nil {
		err = client.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	if !lines.Scan() {
		t.Fatal("the client prints no page")
	}
	page, found := strings.CutPrefix(lines.Text(), "Open ")
	asked, err := url.Parse(page)
	if !found || err != nil || asked.Query().Get("resource") != e.url || asked.Query().Get("scope") != "films" ||
		asked.Query().Get("client_id") != e.document {
		t.Fatalf("it prints %q", lines.Text())
	}
	chrome := chromiumtest.Start(t)
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(chrome, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	shows := func(text string) {
		t.Helper()
		sitetest.Within(t, 20*time.Second, "the page shows "+text, func() bool {
			body, err := chromedp.Run(chrome, chromedp.Text(chromedp.CSS("body")))
			return err == nil && strings.Contains(body, text)
		})
	}
	do("the page", chromedp.Navigate(page))
	shows("E-mail address")
	do(
		"log-in", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter),
	)
	shows("The Assistant (" + strings.Split(e.document, "/")[2] + ") would like to")
	shows("The Films: Look for films")
	chromiumtest.Picture(t, chrome, "mcp-consent")
	do("consent", chromedp.Click(chromedp.CSS(`button[value="allow"]`)))
	shows("You can close this window.")
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "Metropolis, for ") || len(lines.Text()) < 30 {
		t.Errorf("the tool says %q", lines.Text())
	}
	if err := client.Wait(); err != nil {
		t.Error(err)
	}
}

// The official Go SDK logs in the same way. Its token is for this server only.
func TestExampleMCPServerGoSDK(t *testing.T) {
	e := runMCPExample(t)
	chrome := e.Visitor()
	handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		ClientIDMetadataDocumentConfig: &auth.ClientIDMetadataDocumentConfig{URL: e.document},
		RedirectURL:                    "http://localhost:4711/callback",
		RequestRefreshToken:            true,
		AuthorizationCodeFetcher: func(_ context.Context, asked *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			back := chrome.GoOn(asked.URL)
			values := back.Query()
			if values.Get("code") == "" {
				return nil, fmt.Errorf("back at %s", back)
			}
			return &auth.AuthorizationResult{
				Code: values.Get("code"), State: values.Get("state"), Iss: values.Get("iss"),
			}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	session, err := mcp.NewClient(&mcp.Implementation{Name: "go", Version: "1"}, nil).Connect(
		t.Context(), &mcp.StreamableClientTransport{Endpoint: e.url, OAuthHandler: handler}, nil,
	)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	got, err := session.CallTool(t.Context(), &mcp.CallToolParams{
		Name: "find", Arguments: map[string]any{"title": "Metropolis"},
	})
	if err != nil || len(got.Content) != 1 {
		t.Fatalf("%v %v", got, err)
	}
	if text, ok := got.Content[0].(*mcp.TextContent); !ok || !strings.HasPrefix(text.Text, "Metropolis, for ") {
		t.Errorf("the tool says %v", got.Content[0])
	}
	source, err := handler.TokenSource(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, err := source.Token()
	if err != nil {
		t.Fatal(err)
	}
	claims := sitetest.ClaimsOf(t, token.AccessToken)
	scopes := strings.Fields(fmt.Sprint(claims["scope"])) // in any order
	slices.Sort(scopes)
	if claims["aud"] != e.url || !slices.Equal(scopes, []string{"films", "offline_access"}) || token.RefreshToken == "" {
		t.Errorf("the token has %v", claims)
	}
	if got := chrome.Do(
		http.MethodGet, "/oidc/userinfo", nil, "Authorization: Bearer "+token.AccessToken,
	); got.Status != 401 {
		t.Errorf("userinfo accepts it: %d %s", got.Status, got.Body)
	}
}
