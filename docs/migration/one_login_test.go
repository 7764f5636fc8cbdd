package migration_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// One log-in for several sites: a second site asks for no password, a user without the role gets into
// none, and a log-out at the provider ends both sessions.
func TestOneLogin(t *testing.T) {
	t.Setenv("WIKI_SECRET", secret)
	t.Setenv("PHOTOS_SECRET", secret)
	folder, upstream := sitetest.TempDir(t), sitetest.NewUpstream(t)
	// Browsers do not separate cookies by port.
	id := &sitetest.Site{T: t, URL: "http://localhost:" + sitetest.FreePort(t)}
	wiki := &sitetest.Site{T: t, URL: "http://127.0.0.1:" + sitetest.FreePort(t)}
	photos := &sitetest.Site{T: t, URL: "http://127.0.0.2:" + sitetest.FreePort(t)}
	users(t, filepath.Join(folder, "people.db"), map[string][]string{
		"alice@example.com": {"family"}, "eve@example.com": nil,
	})
	config := replaced(t, blocks(t, "docs/one-login.md")[0],
		"https://id.example.com", id.URL, "https://wiki.example.com", wiki.URL,
		"https://photos.example.com", photos.URL, "\nwiki.example.com {", "\n"+wiki.URL+" {",
		"\nphotos.example.com {", "\n"+photos.URL+" {",
		"localhost:3001", upstream, "localhost:3002", upstream, "/var/lib/caddy", folder,
	)
	config = id.URL + strings.TrimPrefix(config, "id.example.com")
	sitetest.RunSites(t, filepath.Join(folder, "log.json"), config)

	chrome := id.Visitor()
	enter := func(site *sitetest.Site, v *sitetest.Visitor) sitetest.Reply {
		at := v.At(site)
		begin := at.Get(at.Get("/notes").To(t).String()).To(t).String() // auto_login
		back := at.Get(v.GoOn(at.Get(begin).To(t).String()).String())
		return at.Get(back.To(t).String())
	}
	for _, site := range []*sitetest.Site{wiki, photos} {
		got := enter(site, chrome)
		if got.Status != 200 || !strings.Contains(got.Body, "Remote-Email: alice@example.com") ||
			!strings.Contains(got.Body, "Remote-Groups: family") {
			t.Errorf("%s: %d %s", site.URL, got.Status, got.Body)
		}
	}
	// At the second site nothing was typed: without a session at the provider, its page would come.
	if got := id.Visitor().Get("/oidc/authorize?" + url.Values{
		"client_id": {"photos"}, "redirect_uri": {photos.URL + "/auth/callback/example"}, "response_type": {"code"},
		"scope": {"openid"}, "prompt": {"none"},
	}.Encode()).To(t).Query().Get("error"); got != "login_required" {
		t.Errorf("a stranger at the provider: %s", got)
	}

	stranger := &sitetest.Visitor{Site: id, Client: sitetest.Browser(t), Email: "eve@example.com"}
	if got := enter(wiki, stranger); got.Status != http.StatusForbidden {
		t.Errorf("a user without the role: %d %s", got.Status, got.Brief())
	}

	chrome.Post("/auth/logout", url.Values{})
	for _, site := range []*sitetest.Site{wiki, photos} {
		sitetest.Eventually(t, "the log-out at the provider ends the session", func() bool {
			return chrome.At(site).Get("/notes").Status == http.StatusSeeOther
		})
	}
}
