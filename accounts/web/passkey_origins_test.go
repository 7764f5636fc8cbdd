package web_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// Which pages can use the passkeys of a site, by its hosts and the option. PORT is that of the site.
func TestThreatPasskeyOrigins(t *testing.T) {
	for name, of := range map[string]struct {
		hosts   string // of the site
		options string
		host    string // of the requests
		domain  string
		allowed string // origins
		refused string
	}{
		"one host": {
			hosts: "http://example.com:PORT", options: "passkeys", host: "example.com", domain: "example.com",
			allowed: "https://example.com", // a proxy in front has the TLS
			refused: "http://example.com http://example.com:PORT https://example.com:PORT https://www.example.com " +
				"https://example.com.evil.example https://evilexample.com https://example.com/ https://example.com@evil.example " +
				"HTTPS://example.com null",
		},
		"the issuer": {
			hosts:   "http://www.example.com:PORT http://example.com:PORT",
			options: "passkeys\nissuer https://example.com:8443/users", host: "www.example.com", domain: "example.com",
			allowed: "https://www.example.com https://example.com https://example.com:8443",
			refused: "https://www.example.com:8443 https://shop.example.com",
		},
		"an issuer elsewhere": {
			hosts: "http://www.example.com:PORT", options: "passkeys\nissuer https://login.example.com",
			host: "www.example.com", domain: "www.example.com",
			allowed: "https://www.example.com", refused: "https://login.example.com https://example.com",
		},
		"several hosts": {
			hosts:   "http://app.example.com:PORT http://*.shop.example.com:PORT http://example.org:PORT",
			options: "passkeys example.com", host: "app.example.com", domain: "example.com",
			allowed: "https://app.example.com https://a.shop.example.com",
			refused: "https://example.com https://shop.example.com https://a.b.shop.example.com https://www.example.com " +
				"https://example.org",
		},
		"any host": {
			hosts: "http://:PORT", options: "passkeys example.com", host: "www.example.com", domain: "example.com",
			allowed: "https://example.com https://a.b.example.com",
			refused: "https://example.org https://evilexample.com http://example.com https://example.com:8443",
		},
		"a host of a placeholder": {
			hosts: "http://{env.PASSKEY_HOST}:PORT", options: "passkeys example.com", host: "www.example.com",
			domain: "example.com", allowed: "https://www.example.com", refused: "https://example.org",
		},
		"a host that a request makes up": {
			hosts: "http://:PORT", options: "passkeys\nissuer https://example.com", host: "evil.example",
			domain: "example.com", allowed: "https://example.com", refused: "https://evil.example http://evil.example:PORT",
		},
		"this machine": {
			hosts: "http://localhost:PORT", options: "passkeys", host: "localhost", domain: "localhost",
			allowed: "http://localhost:PORT https://localhost",
			refused: "http://localhost http://localhost:1 http://127.0.0.1:PORT http://a.localhost:PORT",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PASSKEY_HOST", "www.example.com")
			port := sitetest.FreePort(t)
			withPort := func(text string) string { return strings.ReplaceAll(text, "PORT", port) }
			dir := sitetest.TempDir(t)
			s := &sitetest.Site{T: t, URL: "http://127.0.0.1:" + port}
			sitetest.LoadText(t, sitetest.GlobalOptions(dir, filepath.Join(dir, "log.json"), "")+
				strings.ReplaceAll(withPort(of.hosts), " ", ", ")+" {\njwt {\naccounts {\nstore file "+
				filepath.Join(dir, "users.db")+"\nsignup open\nthrottle off\n"+of.options+"\n}\n}\n}\n")
			host := "Host: " + of.host + ":" + port
			post := func(path string, body any, more ...string) sitetest.Reply {
				return s.Post(path, body, append(more, host)...)
			}
			token := func() string {
				s.MustAnswer(201, post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "sign-up")
				return post("/auth/login", sitetest.CredentialsOf("alice@example.com")).Tokens(t).Token
			}()
			first, _, _ := strings.Cut(of.allowed, " ")
			p := accountstest.NewPasskey(t)
			options := accountstest.Options(t, post("/auth/passkeys/options", sitetest.JSON{}, bearer(token)))
			s.MustAnswer(201, post("/auth/passkeys", sitetest.JSON{
				"name": "x", "credential": p.Make(withPort(first), options),
			}, bearer(token)), "adding")
			if p.Party != of.domain {
				t.Errorf("it is for %s", p.Party)
			}
			for _, origins := range []struct {
				list   string
				status int
			}{{of.allowed, 200}, {of.refused, 401}} {
				for origin := range strings.FieldsSeq(withPort(origins.list)) {
					got := post("/auth/login/passkey/options", sitetest.JSON{})
					used := p.Use(origin, accountstest.Options(t, got))
					s.MustAnswer(origins.status, post("/auth/login/passkey", sitetest.JSON{
						"challenge": got.JSON(t)["challenge"], "credential": used,
					}), origin)
				}
			}
			page := s.Send(http.MethodGet, "/auth/login", "", host, "Accept: text/html")
			within := of.host == of.domain || strings.HasSuffix(of.host, "."+of.domain)
			if strings.Contains(page.Body, "data-passkey") != within {
				t.Errorf("the log-in page at %s: %s", of.host, page.Body)
			}
		})
	}
	sitetest.StopAfter(t)
}
