package web_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/chromiumtest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// passkeyBrowser is a browser with devices that have passkeys.
type passkeyBrowser struct {
	t   *testing.T
	ctx context.Context
	url string
}

func (b passkeyBrowser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func called[P, R any](b passkeyBrowser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.Call(b.ctx, command, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// device connects a device that verifies its user.
func (b passkeyBrowser) device(kind webauthn.AuthenticatorTransport) webauthn.AuthenticatorID {
	b.t.Helper()
	return called(b, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Ctap2version: webauthn.Ctap2versionCtap21, Transport: kind,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		},
	}).AuthenticatorID
}

// holds gives a device one passkey in the place of those that it has.
func (b passkeyBrowser) holds(device webauthn.AuthenticatorID, passkey *webauthn.Credential) {
	b.t.Helper()
	called(b, webauthn.ClearCredentials, webauthn.ClearCredentialsParams{AuthenticatorID: device})
	// webauthn.AddCredential always sends a member that this device refuses
	add := cdp.Command[map[string]any, cdp.Empty]{Method: webauthn.CommandAddCredential}
	called(b, add, map[string]any{"authenticatorId": device, "credential": map[string]any{
		"credentialId": passkey.CredentialID, "isResidentCredential": true, "rpId": passkey.RpID,
		"privateKey": passkey.PrivateKey, "userHandle": passkey.UserHandle, "signCount": passkey.SignCount,
	}})
}

func (b passkeyBrowser) open(path string) {
	b.t.Helper()
	b.do(path, chromedp.Navigate(b.url+path))
}

func (b passkeyBrowser) click(selector string) {
	b.t.Helper()
	b.do(selector, chromedp.Click(chromedp.CSS(selector)))
}

func (b passkeyBrowser) at(path string) {
	b.t.Helper()
	sitetest.Eventually(b.t, "the browser is at "+path, func() bool {
		location, err := chromedp.Run(b.ctx, chromedp.Location())
		parsed, parseErr := url.Parse(location)
		return err == nil && parseErr == nil && strings.EqualFold(parsed.RequestURI(), path)
	})
}

func (b passkeyBrowser) shows(text string) {
	b.t.Helper()
	sitetest.Eventually(b.t, "the page shows "+text, func() bool {
		body, err := chromedp.Run(b.ctx, chromedp.Text(chromedp.CSS("body")))
		return err == nil && strings.Contains(body, text)
	})
}

func (b passkeyBrowser) logOut() {
	b.t.Helper()
	b.open("/auth/account")
	b.click(`form[action="/auth/logout"] button`)
	b.at("/auth/login")
}

// proxyTo serves at an address what a site serves under another one.
func proxyTo(t *testing.T, address, site string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: site}) },
		ModifyResponse: func(r *http.Response) error {
			r.Header.Del("Content-Security-Policy") // it names the site's script
			return nil
		},
	}}}
	server.Start()
	t.Cleanup(server.Close)
}

const usePasskey = `form[data-passkey="get"] button`

// A person adds passkeys of two devices, logs in with each, by the field and by the button, and removes
// one. Copies, removed passkeys and imitated sites get nowhere.
func TestChromiumPasskeys(t *testing.T) {
	c := sitetest.SetClock(t)
	s := passkeySite(t, "passkeys")
	b := passkeyBrowser{t, chromiumtest.Start(t), s.URL}
	called(b, webauthn.Enable, webauthn.EnableParams{})
	phone := b.device(webauthn.AuthenticatorTransportInternal)
	b.open("/auth/signup")
	b.do("sign-up", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	b.at("/auth/account")
	b.click(`a[href="/auth/passkeys"]`)
	b.at("/auth/passkeys")
	chromiumtest.Picture(t, b.ctx, "passkeys-none")
	b.click(`form[data-passkey="create"] button`)
	b.shows("Your passkey was added")
	b.shows("Chrome on Linux")
	b.click(`form[data-passkey="create"] button`)
	b.shows("has a passkey for your account already")
	chromiumtest.Picture(t, b.ctx, "passkeys")

	// The field of the log-in page offers it; the device agrees at once.
	called(b, network.ClearBrowserCookies, cdp.Empty{})
	b.open("/secure/x?y=1")
	b.at("/secure/x?y=1")
	b.shows("amr=[hwk,user,mfa]")

	// From here on, only the button.
	called(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `PublicKeyCredential.isConditionalMediationAvailable = async () => false`,
	})
	b.logOut()
	chromiumtest.Picture(t, b.ctx, "login-passkey")
	b.click(usePasskey)
	b.at("/auth/account")

	// A second device.
	kept := called(b, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: phone}).Credentials
	called(b, webauthn.RemoveVirtualAuthenticator, webauthn.RemoveVirtualAuthenticatorParams{AuthenticatorID: phone})
	key := b.device(webauthn.AuthenticatorTransportUsb)
	b.open("/auth/passkeys")
	b.do("the second", chromedp.SetValue(chromedp.CSS("#name"), "Security key"))
	b.click(`form[data-passkey="create"] button`)
	b.shows("Security key")
	b.logOut()
	b.click(usePasskey)
	b.at("/auth/account")

	// A page that requires two factors asks for it again, later.
	c.Ahead.Add(301)
	b.open("/secure/x")
	b.at("/auth/factors/prove?return_to=%2fsecure%2fx")
	chromiumtest.Picture(t, b.ctx, "step-up-passkey")
	b.click(usePasskey)
	b.at("/secure/x")
	b.shows("amr=[hwk,user,mfa]")

	// An imitation of the site passes all on to it: at another port, and by another name.
	for _, host := range []string{"localhost", "127.0.0.1"} {
		imitation := strings.Replace(sitetest.FreeAddress(t), "127.0.0.1", host, 1)
		proxyTo(t, imitation, strings.TrimPrefix(s.URL, "http://"))
		b.do("an imitation", chromedp.Navigate("http://"+imitation+"/auth/login"))
		b.click(usePasskey)
		if host == "localhost" {
			b.shows("This passkey is not valid here")
		} else {
			b.shows("That did not work") // the browser refuses
		}
	}

	// A copy of the second, after the second was used.
	copied := called(b, webauthn.GetCredentials, webauthn.GetCredentialsParams{AuthenticatorID: key}).Credentials[0]
	b.logOut()
	b.click(usePasskey)
	b.at("/auth/account")
	b.logOut()
	b.holds(key, copied)
	b.click(usePasskey)
	b.shows("There seems to be a copy of this passkey")
	chromiumtest.Picture(t, b.ctx, "login-passkey-copied")

	// The first one again, which is then removed.
	b.holds(key, kept[0])
	b.click(usePasskey)
	b.at("/auth/account")
	b.open("/auth/passkeys")
	b.click("li summary")
	b.do("removing", chromedp.Click(chromedp.CSS(`li form:has([value="remove"]) button`)))
	b.shows("Your passkey was removed")
	b.logOut()
	b.click(usePasskey)
	b.shows("This passkey is not valid here")
}

// Two sites with the same users and a shared domain, over TLS: a passkey of one logs in at the other.
func TestChromiumPasskeyOfSeveralHosts(t *testing.T) {
	body := sitetest.AccountsBody(filepath.Join(sitetest.TempDir(t), "users.db"), "passkeys example.test")
	port := sitetest.ServeTLS(t, map[string]string{"app.example.test": body, "shop.example.test": body})
	b := passkeyBrowser{t, chromiumtest.Start(
		t, chromedp.Flag("host-resolver-rules", "MAP *.example.test 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors", true),
	), "https://app.example.test:" + port}
	called(b, webauthn.Enable, webauthn.EnableParams{})
	b.device(webauthn.AuthenticatorTransportInternal)
	b.open("/auth/signup")
	b.do("sign-up", chromedp.SendKeys(chromedp.CSS("#email"), "alice@example.com"),
		chromedp.SendKeys(chromedp.CSS("#password"), sitetest.GoodPassword+kb.Enter))
	b.at("/auth/account")
	b.open("/auth/passkeys")
	b.click(`form[data-passkey="create"] button`)
	b.shows("Your passkey was added")
	b.url = "https://shop.example.test:" + port
	b.open("/todos/list")
	b.at("/todos/list")
	b.shows("user=[")
}
