package provider_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// The provider's pages are in the language that the browser accepts, or in one that the client asks for
// by ui_locales.
func TestLanguages(t *testing.T) {
	s := serveClients(t)
	accept := []string{"Accept: text/html", "Accept-Language: de"}
	chrome := s.browser()
	chrome.SignUp("alice@example.com")
	has := func(page sitetest.Reply, language string, wanted ...string) {
		t.Helper()
		if page.Header.Get("Content-Language") != language || page.Header.Get("Vary") != "Accept-Language" {
			t.Errorf("headers %v", page.Header)
		}
		for _, text := range append(wanted, `<html lang="`+language+`" dir="ltr">`) {
			if !strings.Contains(page.Body, text) {
				t.Errorf("no %q in %s", text, page.Body)
			}
		}
	}
	asked := chrome.Get(s.authorizeURL("app", url.Values{"prompt": {"consent"}, "scope": {"openid email"}})).To(t)
	has(
		chrome.Do("GET", asked.String(), nil, accept...), "de", "möchte wissen, wer Sie sind – ",
		"Sie sind als <strong>alice@example.com</strong> angemeldet.", "</strong> möchte:", "<li>Wissen, wer Sie sind</li>",
		"<li>Ihre E-Mail-Adresse sehen</li>", ">Erlauben</button>",
	)
	has(
		chrome.Do("GET", "/oidc/device?user_code=BBBB-BBBB", nil, accept...), "de", "Fehler: Gerät verbinden",
		"Der Code ist falsch oder abgelaufen.",
	)
	has(chrome.Do("GET", "/oidc/logout", nil, accept...), "de", "Abmelden?", "endet Ihre Sitzung hier")
	has(chrome.Do("GET", "/oidc/applications", nil, accept...), "de", "Sie haben keiner Anwendung erlaubt")
	// for those who run the client, so in English
	has(
		chrome.Do("GET", "/oidc/authorize?client_id=none", nil, accept...), "de", "Das funktioniert nicht",
		`<p lang="en">there is no client with this client_id</p>`,
	)

	wish := url.Values{"prompt": {"consent"}, "scope": {"openid"}, "ui_locales": {"se fr-CA de"}}
	asked = chrome.Get(s.authorizeURL("app", wish)).To(t)
	has(chrome.Do("GET", asked.String(), nil, accept...), "fr", "souhaite savoir qui vous êtes")
	login := s.browser().Get(s.authorizeURL("app", wish)).To(t)
	has(
		s.browser().Do("GET", login.String(), nil, accept...), "fr", "<h1>Se connecter</h1>",
		"pour continuer vers <strong>",
	)
	has(s.browser().Post("/auth/login", url.Values{
		"email": {"alice@example.com"}, "password": {"wrong password"}, "return_to": login.Query()["return_to"],
	}, accept...), "fr", "Adresse e-mail ou mot de passe incorrect.")
	has(s.browser().Do("GET", "/auth/login", nil, accept...), "de", "<h1>Anmelden</h1>") // control
	for _, bad := range []string{"", "x", "*", "../de", strings.Repeat("x ", 500)} {
		to := s.browser().Get(s.authorizeURL("app", url.Values{"ui_locales": {bad}})).To(t)
		has(s.browser().Do("GET", to.String(), nil, accept...), "de", "<h1>Anmelden</h1>")
	}
	var metadata struct {
		Supported []string `json:"ui_locales_supported"`
	}
	if err := json.Unmarshal([]byte(s.Get("/.well-known/openid-configuration").Body), &metadata); err != nil ||
		len(metadata.Supported) != 10 || !slices.Contains(metadata.Supported, "ja") {
		t.Errorf("%v %+v", err, metadata)
	}
	// OAuth answers stay in English.
	got := s.Form(chrome.Client, "/oidc/token", url.Values{"grant_type": {"none"}}, accept...)
	if !strings.Contains(got.Body, `"error_description":"`) || got.Header.Get("Content-Language") != "" {
		t.Errorf("%s %v", got.Body, got.Header)
	}
}
