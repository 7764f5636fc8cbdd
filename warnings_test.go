package caddyjwt_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// If a config is valid but surely not intended, loading it logs a warning.
func TestSuspiciousConfigs(t *testing.T) {
	secret := `secret "` + sitetest.Secret + `"`
	key := "public_key " + `"` + strings.ReplaceAll(sitetest.PEM(t, sitetest.Keys().P256), "\n", " ") + `"`
	issuer := func(name string) string {
		return "issuer " + name + " {\n" + key + "\n audience https://api.example\n}\n"
	}
	store := "store file " + filepath.Join(sitetest.TempDir(t), "users.db")
	jwt := func(options string) string { return "jwt {\n" + secret + "\n" + options + "\n}\n respond ok" }
	for name, c := range map[string]struct{ body, warning, control string }{
		"path without *": {
			"jwt /api {\n" + secret + "\n}\n respond ok", "/api/* stays open",
			"jwt /api/* {\n" + secret + "\n}\n respond ok",
		},
		"API keys without an address": {
			"jwt {\n api_keys\n accounts {\n" + store + "\n}\n require claim email_verified true\n}\n respond ok",
			"require expression `!has(claims.iss) || claims.email_verified == true`",
			"jwt {\n api_keys\n accounts {\n" + store + "\n}\n require expression `!has(claims.iss) || " +
				"claims.email_verified == true`\n}\n respond ok",
		},
		"API keys of some addresses": {
			"jwt {\n api_keys\n accounts {\n" + store + "\n}\n require claim email a@a.example b@a.example\n}\n respond ok",
			"`!has(claims.iss) || claims.email in ['a@a.example', 'b@a.example']`",
			"jwt {\n accounts {\n" + store + "\n}\n require claim email a@a.example\n}\n respond ok",
		},
		"paths without *": {
			"@p path /api /admin\n jwt @p {\n" + secret + "\n}\n respond ok", "/admin/* stays open",
			"@p path /api /api/* /page.html\n jwt @p {\n" + secret + "\n}\n respond ok",
		},
		"root of the user": {
			"root * /srv/{http.auth.user.id}\n jwt {\n" + secret + "\n}\n file_server",
			"root uses {http.auth.user.…}, but Caddy runs it before jwt",
			"route {\n jwt {\n" + secret + "\n}\n root * /srv/{http.auth.user.id}\n file_server\n}",
		},
		"rewrite to the user": {
			"rewrite * /t/{http.auth.user.id}{uri}\n jwt {\n" + secret + "\n}\n respond ok",
			"rewrite uses {http.auth.user.…}",
			"root * /srv/static\n jwt {\n" + secret + "\n}\n file_server {\n root /srv/{http.auth.user.id}\n}",
		},
		"a variable of the user": {
			"vars who {http.auth.user.id}\n jwt {\n" + secret + "\n}\n respond ok",
			"vars uses {http.auth.user.…}",
			"map {http.auth.user.id} {who} {\n alice a\n default b\n}\n log_append who {http.auth.user.id}\n jwt {\n" +
				secret + "\n}\n respond {who}",
		},
		"a header of the user": {
			"header X-User {http.auth.user.id}\n jwt {\n" + secret + "\n}\n respond ok",
			"header (unless it is deferred, as in: header >X-User …) uses {http.auth.user.…}",
			"header >X-User {http.auth.user.id}\n jwt {\n" + secret + "\n}\n respond ok",
		},
		"a redirection of the user": {
			"redir /me /users/{http.auth.user.id}\n jwt {\n" + secret + "\n}\n respond ok",
			"redir or respond uses {http.auth.user.…}",
			"redir /me /users/\n jwt {\n" + secret + "\n}\n respond /users/* {http.auth.user.id}",
		},
		"a matcher of the user": {
			"@a vars {http.auth.user.role} admin\n rewrite @a /admin{uri}\n jwt {\n" + secret + "\n}\n respond ok",
			"the matcher vars uses {http.auth.user.…}",
			"@a vars {http.auth.user.role} admin\n jwt {\n" + secret + "\n}\n respond @a ok",
		},
		"a handler of the user in an outer block": {
			"root * /srv/{http.auth.user.id}\n handle /a/* {\n jwt {\n" + secret + "\n}\n}",
			"root uses {http.auth.user.…}",
			"handle /a/* {\n route {\n jwt {\n" + secret + "\n}\n root * /srv/{http.auth.user.id}\n file_server\n}\n}",
		},
		"another block has jwt": {
			"handle /api/* {\n jwt {\n" + secret + "\n}\n respond hi\n}\n handle {\n jwt {\n" + secret +
				"\n}\n root * /srv/{http.auth.user.id}\n file_server\n}",
			"root uses {http.auth.user.…}",
			"handle /api/* {\n basic_auth {\n bob $2a$14$x\n}\n root * /srv/{http.auth.user.id}\n file_server\n}\n" +
				" handle {\n jwt {\n" + secret + "\n}\n respond hi\n}",
		},
		"jwt for other paths": {
			"jwt /api/* {\n" + secret + "\n}\n handle {\n jwt {\n" + secret + "\n}\n root * /srv/{http.auth.user.id}\n" +
				" file_server\n}",
			"root uses {http.auth.user.…}",
			"route {\n basic_auth {\n bob $2a$14$x\n}\n root * /srv/{http.auth.user.id}\n jwt {\n" + secret +
				"\n}\n file_server\n}",
		},
		"the output of a map": {
			"map {http.auth.user.id} {who} {\n alice a\n default b\n}\n root * /srv/{who}\n jwt {\n" + secret +
				"\n}\n file_server",
			"root uses {http.auth.user.…}",
			"map {http.auth.user.id} {who} {\n alice a\n default b\n}\n root * /srv\n jwt {\n" + secret +
				"\n}\n respond {who}",
		},
		"a negated matcher of the user": {
			"@n not vars {http.auth.user.role} admin\n redir @n /denied\n jwt {\n" + secret + "\n}\n respond ok",
			"the matcher vars uses {http.auth.user.…}",
			"@n not vars {http.auth.user.role} admin\n jwt {\n" + secret + "\n}\n respond @n denied 403",
		},
		"try_files before accounts": {
			"root * /srv\n try_files {path} /index.html\n jwt {\n accounts {\n" + store + "\n}\n}\n file_server",
			"accounts: try_files or rewrite changes the path of requests for /auth/login",
			"root * /srv\n route {\n jwt {\n accounts {\n" + store + "\n}\n}\n try_files {path} /index.html\n file_server\n}",
		},
		"rewrite before accounts": {
			"rewrite * /index.php?{query}\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok",
			"accounts: try_files or rewrite changes the path of requests for /auth/login",
			"@app not path /auth/*\n rewrite @app /index.php?{query}\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok",
		},
		"try_files before a key set": {
			"try_files {path} /index.html\n jwt {\n" + secret + "\n upstream_token\n}\n respond ok",
			"upstream_token: try_files or rewrite changes the path of requests for /jwt/.well-known/jwks.json",
			"route {\n jwt {\n" + secret + "\n upstream_token\n}\n try_files {path} /index.html\n respond ok\n}",
		},
		"try_files before the metadata of a resource": {
			"try_files {path} /index.html\n jwt {\n" + issuer("https://a.example") + " resource https://api.example/mcp\n}\n respond ok",
			"resource: try_files or rewrite changes the path",
			"uri strip_suffix /\n jwt {\n" + issuer("https://a.example") + " resource https://api.example/mcp\n}\n respond ok",
		},
		"two directives": {
			"jwt /api {\n" + secret + "\n}\n jwt /other/* {\n" + secret + "\n}\n respond ok",
			"/api/* stays open", "jwt /api {\n" + secret + "\n}\n jwt /api/* {\n" + secret + "\n}\n respond ok",
		},
		"no audience": {
			"jwt {\n issuer https://issuer.example {\n" + key + "\n}\n}\n respond ok",
			"audience is not set", "jwt {\n" + issuer("https://issuer.example") + "}\n respond ok",
		},
		"comma in a scope": {
			jwt("require scope read,write"), "require scope read write", jwt("require scope read write"),
		},
		"comma in any scope": {
			jwt("require any scope read,write"), "require any scope read write", jwt("require any scope read write"),
		},
		"comma in a role": {
			jwt("require role admin,editor"), "require role admin editor", jwt("require role admin editor"),
		},
		"blank in a role": {jwt(`require role "admin editor"`), "require role admin editor", jwt("require role admin")},
		"first_source with a query first": {
			jwt("first_source\n from query t\n from header"), "write `from query` last",
			jwt("first_source\n from header\n from query t"),
		},
		"comma in a path": {jwt("public /a,/b"), "public /a /b", jwt("public /a /b")},
		"blank in a path": {jwt(`public "/a /b"`), "public /a /b", jwt("public /a /b")},
		"a claim as a role": {
			jwt("require role realm_access.roles admin"),
			"require claim realm_access.roles admin", jwt("require role v1.editor"),
		},
		"roles of two issuers": {
			"jwt {\n" + issuer("https://a.example") + issuer("https://b.example") +
				"require role admin\n}\n respond ok",
			"require role <role> of <issuer>",
			"jwt {\n" + issuer("https://a.example") + issuer("https://b.example") +
				"require role admin of https://a.example\n}\n respond ok",
		},
		"claims of two issuers": {
			"jwt {\n" + issuer("https://a.example") + issuer("https://b.example") +
				"require claim group x\n}\n respond ok",
			"bind each rule to one",
			"jwt {\n" + issuer("https://a.example") + issuer("https://b.example") +
				"require claim group x of https://a.example\n}\n respond ok",
		},
		"headers of two": {"jwt {\n" + issuer("https://a.example") + "accounts {\n" +
			store + "\n}\nclaim_header X-User sub\n}\n respond ok", "claim_header X-Issuer iss",
			"jwt {\n" + issuer("https://a.example") + "accounts {\n" +
				store + "\n}\nclaim_header X-User sub\n claim_header X-Issuer iss\n}\n respond ok"},
		"a template": {
			"jwt {\n" + issuer("https://login.microsoftonline.com/common/v2.0") + "}\n respond ok",
			"is a template", "jwt {\n" + issuer(
				"https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
			) + "}\n respond ok",
		},
		"roles of all tenants": {
			"jwt {\n" + issuer("https://id.example/*") + "require role admin\n}\n respond ok",
			"require role <role> of <issuer>",
			"jwt {\n" + issuer("https://id.example/*") + "require role admin of https://id.example/a\n}\n respond ok",
		},
		"a resource of unknown tenants": {
			"jwt {\n" + issuer("https://id.example/*") + "resource http://localhost/mcp\n}\n respond ok",
			"list its tenants",
			"jwt {\n" + issuer("https://id.example/*") + "tenants a\n resource http://localhost/mcp\n}\n respond ok",
		},
		"comma in role_claim": {
			jwt("role_claim groups,roles"), "role_claim groups roles", jwt("role_claim groups roles"),
		},
		"comma in scope_claim": {jwt("scope_claim a,b"), "scope_claim a b", jwt("scope_claim a b")},
		"comma in token_type":  {jwt("token_type JWT,JOSE"), "token_type JWT JOSE", jwt("token_type JWT JOSE")},
		"acr that no log-in has": {
			"jwt {\n require acr mfa\n accounts {\n" + store + "\n}\n}\n respond ok", "no log-in of the accounts can meet it",
			"jwt {\n require acr mfa\n accounts {\n second_factor optional\n" + store + "\n}\n}\n respond ok",
		},
		"comma in audience_claim": {
			jwt("audience a\n audience_claim aud,azp"), "audience_claim aud azp",
			jwt("audience a\n audience_claim aud azp"),
		},
		"accounts out of reach": {
			"handle /app/* {\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok\n}",
			"requests for /auth/login do not reach this handler",
			"handle /app/* {\n jwt {\n accounts /app/auth {\n" + store + "\n}\n}\n respond ok\n}",
		},
		"accounts out of a regexp": {
			"@app path_regexp ^/app/\n handle @app {\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok\n}",
			"requests for /auth/login do not reach this handler",
			"@app path_regexp ^/(app|auth)/\n handle @app {\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok\n}",
		},
		"accounts that are left out": {
			"@app not path /auth/*\n handle @app {\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok\n}",
			"requests for /auth/login do not reach this handler",
			"@app not path /other/*\n handle @app {\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok\n}",
		},
		"a path without * below handle_path": {
			"handle_path /x/* {\n jwt /api {\n" + secret + "\n}\n respond ok\n}", "/api/* stays open",
			"handle_path /x/* {\n jwt /api/* {\n" + secret + "\n}\n respond ok\n}",
		},
		"comma in user_id":  {jwt("user_id sub,oid"), "user_id sub oid", jwt("user_id sub oid")},
		"comma in audience": {jwt("audience a,b"), "audience a b", jwt("audience a b")},
		"comma in claims": {
			jwt("upstream_token {\n audience x\n claims a,b\n}"), "claims a b",
			jwt("upstream_token {\n audience x\n claims a b\n}"),
		},
		"a block without *": {
			"handle /admin {\n jwt {\n" + secret + "\n}\n respond ok\n}", "/admin/* stays open",
			"handle /admin/* {\n jwt {\n" + secret + "\n}\n respond ok\n}",
		},
		"resource out of reach": {
			"jwt /mcp/* {\n" + issuer("https://a.example") + "resource http://localhost/mcp\n}\n respond ok",
			"write the matcher as in: jwt /mcp*",
			"jwt /mcp* {\n" + issuer("https://a.example") + "resource http://localhost/mcp\n}\n respond ok",
		},
		"accounts below handle_path": {
			"handle /app/* {\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok\n}",
			"requests for /auth/login do not reach this handler",
			"handle_path /app/* {\n jwt {\n accounts {\n" + store + "\n}\n}\n respond ok\n}",
		},
	} {
		if text := warningsOf(sitetest.Serve(t, c.body)); strings.Count(text, c.warning) != 1 {
			t.Errorf("%s: no warning, or several, with %q: %s", name, c.warning, text)
		}
		if text := warningsOf(sitetest.Serve(t, c.control)); text != "" {
			t.Errorf("control: %s: %s", name, text)
		}
	}
}

// warningsOf returns the warnings of this package's handlers.
func warningsOf(s *sitetest.Site) (warnings string) {
	for line := range strings.Lines(s.Log()) {
		if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, `"logger":"http.handlers.jwt`) {
			warnings += line
		}
	}
	return warnings
}

// `caddy validate` shows the same warnings as a start.
func TestValidateShowsWarnings(t *testing.T) {
	login := func(issuer string) string {
		return "jwt {\n accounts {\n store file /nowhere/users.db\n login_with other {\n issuer " + issuer +
			"\n client_id x\n}\n}\n}"
	}
	for name, c := range map[string]struct{ body, warning string }{
		"a path without *":            {"jwt /api {\n secret \"" + sitetest.Secret + "\"\n}", "/api/* stays open"},
		"a path without *, its place": {"jwt /api {\n secret \"" + sitetest.Secret + "\"\n}", "/Caddyfile:5"},
		"control: a path with *":      {"jwt /api/* {\n secret \"" + sitetest.Secret + "\"\n}", ""},
		"a relative store in /": {
			"jwt {\n accounts {\n store file users.db\n}\n}",
			"store file users.db is relative to the working directory, which is / here",
		},
		"control: a whole path":      {"jwt {\n accounts {\n store file /nowhere/users.db\n}\n}", ""},
		"login_with GitHub":          {login("https://github.com"), "has no OpenID discovery document"},
		"control: login_with GitLab": {login("https://gitlab.com"), ""},
	} {
		config := filepath.Join(sitetest.TempDir(t), "Caddyfile")
		text := "{\n storage file_system " + sitetest.TempDir(t) + "\n}\n:1 {\n" + c.body + "\n}\n"
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.Command(caddytest.Binary(t), "validate", "--config", config, "--adapter", "caddyfile")
		command.Dir = "/"
		output, err := command.CombinedOutput()
		warns := regexp.MustCompile(`"level":"warn"[^\n]*"logger":"[^"]*jwt`).Match(output)
		if err != nil || warns != (c.warning != "") || !strings.Contains(string(output), c.warning) {
			t.Errorf("%s: %v: %s", name, err, output)
		}
	}
}

// If sign-up is open, a warning says that anyone can create an account. By default it is closed,
// and a message says how to open it.
func TestSignupIsClosedByDefault(t *testing.T) {
	site := func(options string) *sitetest.Site {
		return sitetest.Serve(t, "jwt {\n accounts {\n store file "+filepath.Join(sitetest.TempDir(t), "users.db")+"\n"+
			options+"\n}\n}\n respond ok")
	}
	closed := site("")
	got := closed.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com"))
	if got.Status != http.StatusNotFound || !strings.Contains(got.Body, "signup open") ||
		strings.Contains(closed.Log(), "anybody can create an account") {
		t.Errorf("by default: %d %s", got.Status, got.Body)
	}
	if page := closed.Get("/auth/login", "Accept: text/html"); strings.Contains(page.Body, "/auth/signup") {
		t.Errorf("the log-in page leads to the sign-up: %s", page.Body)
	}
	sitetest.Eventually(t, "the log says how to begin", func() bool {
		return strings.Contains(closed.Log(), "caddy jwt user add --store")
	})
	open := site("signup open")
	open.MustAnswer(201, open.Post("/auth/signup", sitetest.CredentialsOf("alice@example.com")), "control: open")
	if !strings.Contains(open.Log(), "anybody can create an account") {
		t.Errorf("the log does not say that sign-up is open: %s", open.Log())
	}
}

// If a site had two accounts, one would be ignored.
func TestThreatTwoAccountsOnASite(t *testing.T) {
	folder := sitetest.TempDir(t)
	accounts := func(options string) string {
		return "accounts {\n store file " + filepath.Join(folder, "users.db") + "\n" + options + "\n}"
	}
	for name, body := range map[string]string{
		"two matchers": "jwt /a/* {\n" + accounts("signup open") + "\n}\n jwt /b/* {\n" +
			accounts("signup closed") + "\n}",
		"two blocks": "handle /a/* {\n jwt {\n" + accounts("signup open") + "\n}\n}\n handle {\n jwt {\n" +
			accounts("") + "\n}\n}",
		"another store": "jwt /a/* {\n" + accounts("") + "\n}\n jwt /b/* {\n accounts {\n store file " +
			filepath.Join(folder, "others.db") + "\n}\n}",
		"a prefix": "jwt /a/* {\n" + accounts("") + "\n}\n jwt /b/* {\n accounts /b {\n store file " +
			filepath.Join(folder, "users.db") + "\n}\n}",
	} {
		if text := sitetest.ConfigError(t, body); !strings.Contains(
			text, "this site has two accounts blocks with different ",
		) {
			t.Errorf("%s: %s", name, text)
		}
	}
	same := "jwt /a/* {\n" + accounts("signup closed") + "\n}\n handle /b/* {\n jwt {\n require role admin\n" +
		accounts("") + "\n}\n}"
	sitetest.Serve(t, same).MustAnswer(
		200, sitetest.Serve(t, same).Get("/auth/login"), "control: the same, of which one has a default written out",
	)
	// control: two sites
	sitetest.ServeSeveral(t, "jwt {\n"+accounts("signup open")+"\n}", "jwt {\n"+accounts("signup closed")+"\n}")
}

// The header of claim_header comes first; otherwise clients could send the header that the upstream
// reads.
func TestThreatClaimHeaderTurnedRound(t *testing.T) {
	for _, c := range []string{
		"sub X-User-Id", "email X-Forwarded-Email", "name remote-user",
		"roles Remote-Groups", "email From", "email Email", "sub User",
	} {
		if text := sitetest.ConfigError(
			t, "jwt {\n secret \""+sitetest.Secret+"\"\n claim_header "+c+"\n}",
		); !strings.Contains(text, "claim_header takes the header first") {
			t.Errorf("%s: %s", c, text)
		}
	}
	sitetest.Serve(t, "jwt {\n secret \""+sitetest.Secret+"\"\n claim_header X-User-Id sub\n"+
		" claim_header Email email\n claim_header X-Tenant https://example.com/tenant-id\n"+
		" claim_header X-Groups cognito:groups\n claim_header X-Role x-hasura-role\n}")
}

// Only tokens of the issuer satisfy a rule that is bound to it.
func TestThreatRulesOfAnIssuer(t *testing.T) {
	s := sitetest.Serve(t, fmt.Sprintf(`
		jwt {
			issuer https://a.example {
				public_key %q
				audience api
			}
			issuer https://b.example {
				public_key %q
				audience api
			}
			require role admin of https://a.example
		}
		jwt /scope {
			issuer https://b.example {
				public_key %[2]q
				audience api
			}
			issuer https://a.example {
				public_key %[1]q
				audience api
			}
			require scope write of https://a.example
		}
		respond ok`, strings.ReplaceAll(sitetest.PEM(t, sitetest.Keys().P256), "\n", " "),
		strings.ReplaceAll(sitetest.PEM(t, sitetest.Keys().P384), "\n", " ")))
	by := func(issuer string) sitetest.JSON {
		return sitetest.Claims(sitetest.JSON{"iss": issuer, "aud": "api", "roles": []string{"admin"}, "scope": "write"})
	}
	ofA := sitetest.Sign(t, "ES256", sitetest.Keys().P256, nil, by("https://a.example"))
	ofB := sitetest.Sign(t, "ES384", sitetest.Keys().P384, nil, by("https://b.example"))
	for _, path := range []string{"/", "/scope"} {
		s.MustAnswer(200, s.Bearer(path, ofA), "control: the issuer: "+path)
		s.MustAnswer(403, s.Bearer(path, ofB), "another issuer: "+path)
	}
	if text := sitetest.ConfigError(
		t, "jwt {\n secret \""+sitetest.Secret+"\"\n require role admin of https://a.example\n}",
	); !strings.Contains(text, "unknown issuer") {
		t.Errorf("an unknown issuer: %s", text)
	}
}

// Errors never contain a part of a secret, however its lines were broken.
func TestThreatBrokenSecretsInErrors(t *testing.T) {
	const first, second = "u3uZ1yq6q0o4fVnYvEJrj3m0m0pJYzK2Qk1h8w9s7d5f4g3h2j1k0l9m8n7b6v5c", "PwiUmmZCjssktECq3eZkKw=="
	t.Setenv("TWO_LINES", first+"\n"+second)
	for name, body := range map[string]string{
		"pasted":           "jwt {\n secret " + first + "\n" + second + "\n}",
		"pasted, base64":   "jwt {\n secret base64 " + first + "\n" + second + "\n}",
		"pasted, hex":      "jwt {\n secret hex " + first + "\ndeadbeef0123456789deadbeef012345\n}",
		"in an issuer":     "jwt {\n issuer https://a.example {\n secret " + first + "\n" + second + "\n}\n}",
		"in accounts":      "jwt {\n accounts {\n secret " + first + "\n" + second + "\n}\n}",
		"quoted":           "jwt {\n secret \"" + first + "\n" + second + "\"\n}",
		"environment":      "jwt {\n secret {env.TWO_LINES}\n}",
		"environment, b64": "jwt {\n secret base64 {env.TWO_LINES}\n}",
		"accounts, by env.": "jwt {\n accounts {\n store file " + filepath.Join(sitetest.TempDir(t), "users.db") +
			"\n secret {env.TWO_LINES}\n}\n}",
	} {
		text := sitetest.ConfigError(t, body)
		if strings.Contains(text, first[:8]) || strings.Contains(text, second[:8]) ||
			strings.Contains(text, "deadbeef") || !strings.Contains(text, "openssl rand -hex 64") {
			t.Errorf("%s: %s", name, text)
		}
	}
	sitetest.Serve(t, "jwt {\n secret "+first+"\n}") // control
	if text := sitetest.ConfigError(
		t, "jwt {\n secret "+first+"\n audiance x\n}",
	); !strings.Contains(text, `no option "audiance"`) {
		t.Errorf("control: a word that is no secret: %s", text)
	}
}

// An https issuer never leads Caddy to a server over plain http, on this machine or another.
func TestThreatKeysOnThisMachine(t *testing.T) {
	var asked atomic.Int64
	internal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }))
	t.Cleanup(internal.Close)
	var keysAt atomic.Value
	provider := httptest.NewUnstartedServer(nil)
	provider.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/jwks" {
			fmt.Fprint(w, sitetest.Marshal(t, sitetest.JSON{
				"keys": []any{sitetest.JWK(t, sitetest.Keys().P256, sitetest.JSON{"kid": "1"})},
			}))
			return
		}
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, provider.URL, keysAt.Load())
	})
	provider.StartTLS()
	t.Cleanup(provider.Close)
	ca := filepath.Join(sitetest.TempDir(t), "ca.pem")
	if err := os.WriteFile(
		ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: provider.Certificate().Raw}), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	load := func() *sitetest.Site {
		return sitetest.Serve(t, "jwt {\n issuer "+provider.URL+" {\n jwks {\n trusted_ca_certs "+ca+
			"\n cooldown 100ms\n}\n audience api\n}\n}\n respond ok")
	}
	token := sitetest.Sign(
		t, "ES256", sitetest.Keys().P256, sitetest.JSON{"kid": "1"},
		sitetest.Claims(sitetest.JSON{"iss": provider.URL, "aud": "api"}),
	)
	keysAt.Store(internal.URL + "/internal?x=1")
	s := load()
	sitetest.Eventually(t, "the refusal is logged", func() bool {
		return strings.Contains(s.Log(), "is plain http, but the issuer is https")
	})
	s.MustAnswer(503, s.Bearer("/", token), "keys on this machine")
	if asked.Load() > 0 {
		t.Error("the server on this machine was asked")
	}
	keysAt.Store(provider.URL + "/jwks")
	s = load()
	sitetest.Eventually(t, "control: keys of the issuer", func() bool { return s.Bearer("/", token).Status == 200 })
}

// So is a placeholder before `jwt` in a named route, once for each.
func TestSuspiciousNamedRoutes(t *testing.T) {
	s := &sitetest.Site{
		T: t, URL: "http://" + sitetest.FreeAddress(t), LogFile: filepath.Join(sitetest.TempDir(t), "log.json"),
	}
	jwt := "jwt {\n secret `" + sitetest.Secret + "`\n}\n"
	sitetest.RunSites(t, s.LogFile,
		"&(good) {\n route {\n "+jwt+" root * /srv/{http.auth.user.id}\n}\n}\n"+
			"&(early) {\n route {\n root * /srv/{http.auth.user.id}\n "+jwt+"}\n}\n"+
			s.URL+" {\n route /good/* {\n invoke good\n}\n route /early/* {\n invoke early\n}\n}")
	if n := strings.Count(s.Log(), "#placeholder-before-jwt"); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// Where passkeys are only another way to log in, who knows a password can meet a rule for two factors.
func TestACRByPassword(t *testing.T) {
	for option, warned := range map[string]bool{"": true, "second_factor optional": false} {
		s := sitetest.ServeLocalhost(t, "jwt {\n require acr mfa\n accounts {\n passkeys\n "+option+"\n store file "+
			filepath.Join(sitetest.TempDir(t), "users.db")+"\n}\n}")
		if got := strings.Contains(s.Log(), "can add a passkey, and then meets it"); got != warned {
			t.Errorf("%q: warned %t", option, got)
		}
	}
}
