package provider_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/lestrrat-go/jwx/v2/jwk"
)

// runClient runs a client in Node.js, and acts as its browser: it visits each printed URL, and
// sends back where it led.
func runClient(
	t *testing.T, folder string, visit func(address string) string,
	script string, environment []string, arguments ...string,
) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "node", append([]string{script}, arguments...)...)
	command.Dir = folder
	command.Env = append(os.Environ(), environment...)
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	command.Stderr = &complaints
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	done := false
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if done = lines.Text() == "done"; done {
			break
		}
		fmt.Fprintln(stdin, visit(lines.Text()))
	}
	if err := command.Wait(); err != nil || !done {
		t.Fatalf("%s: %v\n%s", script, err, complaints.String())
	}
}

func TestOpenIDClient(t *testing.T) {
	folder := caddytest.NPM(t, "testdata/clients")
	s := serveClients(t)
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	visit := func(address string) string {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if u.Path == "/oidc/device" {
			if got := chrome.Decide("/oidc/device", chrome.Get(address), "allow"); got.Status != 200 {
				t.Errorf("device: %d %s", got.Status, got.Body)
			}
			return address
		}
		return chrome.GoOn(address).String()
	}
	runClient(t, folder, visit, "openid-client.mjs", nil, s.URL, "app", appSecret, appCallback)
}

func TestOAuth4WebAPI(t *testing.T) {
	folder := caddytest.NPM(t, "testdata/clients")
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string)
	for name, key := range map[string]any{"private": private, "public": &private.PublicKey} {
		parsed, err := jwk.FromRaw(key)
		if err == nil {
			err = parsed.Set(jwk.KeyIDKey, "of the client")
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(parsed)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	s := serve(t, fmt.Sprintf(clientsOfTests, "")+"\nclient keyed {\n public_key `"+texts["public"]+"`\n redirect_uri "+
		appCallback+"\n consent never\n}\n", "")
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	runClient(
		t, folder, func(address string) string { return chrome.GoOn(address).String() },
		"oauth4webapi.mjs", []string{"KEY=" + texts["private"]}, s.URL, appCallback,
	)
}

// oidc-client-ts in a real browser: log-in with a consent page, silent renewal in a frame, which is
// refused, and log-out.
func TestOIDCClientTSInChromium(t *testing.T) {
	folder := caddytest.NPM(t, "testdata/clients")
	app := sitetest.FreeLocalhost(t)
	root := t.TempDir()
	for _, file := range []string{
		"spa/index.html", "spa/app.js", "node_modules/oidc-client-ts/dist/browser/oidc-client-ts.min.js",
	} {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(root, filepath.Base(file)), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, "client browser {\n name \"A page\"\n public\n grant_types authorization_code\n redirect_uri http://"+
		app+"/callback http://"+app+"/silent\n post_logout_redirect_uri http://"+app+"/bye\n}\n",
		"}\nhttp://"+app+" {\n root "+root+"\n try_files {path} /index.html\n file_server")
	s.browser().SignUp("alice@example.com")
	ctx := chromiumtest.Start(t)
	do := func(what string, actions ...chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, actions...); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	shows := func(text string) {
		t.Helper()
		var body string
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			var err error
			if body, err = chromedp.Run(ctx, chromedp.Text(chromedp.CSS("body"))); err == nil &&
				strings.Contains(body, text) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatalf("the page does not show %q but %q", text, body)
	}
	do("the application", chromedp.Navigate("http://"+app+"/?issuer="+url.QueryEscape(s.URL)))
	shows("nobody")
	do("log-in", chromedp.Click(chromedp.CSS("#login")))
	shows("E-mail address")
	do(
		"password", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter),
	)
	shows("A page would like to")
	chromiumtest.Picture(t, ctx, "consent")
	do("consent", chromedp.Click(chromedp.CSS(`button[value="allow"]`)))
	shows("user alice@example.com")
	do("silent renewal, which a public client on this machine may not have", chromedp.Click(chromedp.CSS("#renew")))
	shows("error: the user must give consent first")
	do("log-out", chromedp.Click(chromedp.CSS("#logout")))
	shows("bye")
	do("log-in again", chromedp.Navigate("http://"+app+"/"))
	shows("nobody")
	do("log-in", chromedp.Click(chromedp.CSS("#login")))
	shows("E-mail address")
}
