package caddyjwt_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/store"
)

// The audience is in the first claim of `audience_claim` that a token has.
func TestThreatAudienceClaim(t *testing.T) {
	of := func(claims sitetest.JSON) attack {
		return attack{fmt.Sprint(claims), "/api/", sitetest.HS256(t, claims)}
	}
	null := func(claim string) attack {
		return attack{claim + " null", "/api/", sitetest.SignRaw(
			t, "HS256", []byte(sitetest.Secret), `{"alg":"HS256"}`, `{"sub":"a","exp":9999999999,"client_id":"me","`+claim+`":null}`,
		)}
	}
	never := []attack{
		of(nil), of(sitetest.JSON{"client_id": "you"}), of(sitetest.JSON{"client_id": 7}),
		of(sitetest.JSON{"client_id": ""}), of(sitetest.JSON{"client_id": []any{}}), of(sitetest.JSON{"client_id": []any{"me", 7}}),
		of(sitetest.JSON{"client_id": sitetest.JSON{"me": "me"}}), of(sitetest.JSON{"azp": "me"}), of(sitetest.JSON{"Client_id": "me"}),
	}
	s := secretSite(t, "audience me\n audience_claim aud client_id")
	mustRefuse(t, s, []attack{
		of(sitetest.JSON{"client_id": "me"}), of(sitetest.JSON{"aud": "me"}), of(sitetest.JSON{"client_id": []string{"x", "me"}}),
		of(sitetest.JSON{"aud": []string{"x", "me"}, "client_id": "you"}),
	}, append(never,
		of(sitetest.JSON{"aud": "you", "client_id": "me"}), of(sitetest.JSON{"aud": []string{}, "client_id": "me"}),
		of(sitetest.JSON{"aud": 7, "client_id": "me"}), of(sitetest.JSON{"aud": "", "client_id": "me"}), null("aud"),
	))
	for _, want := range []string{
		`aud or client_id is missing; expected one of [\"me\"]`, `client_id is \"you\"; expected one of`,
		"client_id is neither a string nor a list of non-empty strings",
	} {
		if !strings.Contains(s.Log(), want) {
			t.Errorf("the log does not say %s", want)
		}
	}
	mustRefuse(t, secretSite(t, "audience me\n audience_claim client_id"), []attack{
		of(sitetest.JSON{"client_id": "me"}), of(sitetest.JSON{"client_id": "me", "aud": "you"}),
	}, append(never, of(sitetest.JSON{"aud": "me"}), of(sitetest.JSON{"aud": "me", "client_id": "you"})))
	mustRefuse(t, secretSite(t, "audience me\n audience_claim app.id"), []attack{
		of(sitetest.JSON{"app": sitetest.JSON{"id": "me"}}), of(sitetest.JSON{"app.id": "me"}),
	}, []attack{of(sitetest.JSON{"app": "me"}), of(sitetest.JSON{"aud": "me"})})
	mustRefuse(t, secretSite(t, "audience me"), []attack{of(sitetest.JSON{"aud": "me"})}, []attack{ // without it
		of(sitetest.JSON{"client_id": "me"}), of(sitetest.JSON{"azp": "me"}),
	})
	mustRefuse(t, secretSite(t, "resource https://me.example\n audience_claim resource"), []attack{
		of(sitetest.JSON{"resource": "https://me.example"}),
	}, []attack{of(sitetest.JSON{"aud": "https://me.example"}), of(sitetest.JSON{"resource": "https://you.example"})})
}

// The scopes and roles are in the first claim that has any.
func TestScopeAndRoleClaims(t *testing.T) {
	list := func(values ...any) []any { return values }
	nested := sitetest.JSON{"realm_access": sitetest.JSON{"roles": list("x", "read")}}
	for _, c := range []struct {
		options string
		claims  sitetest.JSON
		status  int
	}{
		{"require scope read", sitetest.JSON{"scope": "read"}, 200},
		{"require scope read", sitetest.JSON{"scp": list("read")}, 200},
		{"require scope read", sitetest.JSON{"scope": "", "scp": list("read")}, 200},
		{"require scope read", sitetest.JSON{"scope": " ", "scp": "read"}, 200},
		{"require scope read", sitetest.JSON{"scope": list(), "scp": "read"}, 200},
		{"require scope read", sitetest.JSON{"scope": list(list()), "scp": "read"}, 200},
		{"require scope read", sitetest.JSON{"scope": "write", "scp": "read"}, 403},
		{"require scope read", sitetest.JSON{"scope": "read,write"}, 403}, // a comma is part of a scope
		{"require scope read", sitetest.JSON{"permissions": list("read")}, 403},
		{"require scope read", nil, 403},
		{"scope_claim permissions\n require scope read", sitetest.JSON{"permissions": list("read")}, 200},
		{"scope_claim permissions\n require any scope x read", sitetest.JSON{"permissions": "read y"}, 200},
		{"scope_claim permissions\n require scope read", sitetest.JSON{"scope": "read", "scp": "read"}, 403},
		{"scope_claim permissions\n require scope read", sitetest.JSON{"permissions": "read,write"}, 403},
		{"scope_claim scope permissions\n require scope read", sitetest.JSON{"permissions": list("read")}, 200},
		{
			"scope_claim scope permissions\n require scope read",
			sitetest.JSON{"scope": "openid", "permissions": list("read")}, 403,
		},
		{"scope_claim realm_access.roles\n require scope read", nested, 200},

		{"require role read", sitetest.JSON{"roles": list("read")}, 200},
		{"require role read", sitetest.JSON{"roles": "read"}, 200},
		{"require role read", sitetest.JSON{"roles": "read write"}, 403}, // a string is one role
		{"require role read", nested, 403},
		{"role_claim realm_access.roles\n require role read", nested, 200},
		{"role_claim realm_access.roles\n require role read", sitetest.JSON{"roles": list("read")}, 403},
		{"role_claim realm_access.roles\n require role read", sitetest.JSON{"realm_access": "read"}, 403},
		{"role_claim groups realm_access.roles\n require role read", nested, 200},
		{
			"role_claim groups roles\n require role read",
			sitetest.JSON{"groups": list("x"), "roles": list("read")}, 403,
		},
		{
			"role_claim groups roles\n require role read",
			sitetest.JSON{"groups": list(), "roles": list("read")}, 200,
		},
		{
			"role_claim https://app.example/roles\n require role read",
			sitetest.JSON{"https://app.example/roles": list("read")}, 200,
		},
		{
			"role_claim groups\n require role read of https://issuer.example\n issuer https://issuer.example",
			sitetest.JSON{"groups": list("read")}, 200,
		},
	} {
		s := secretSite(t, c.options)
		s.MustAnswer(c.status, s.Bearer("/api/", sitetest.HS256(t, c.claims)), fmt.Sprint(c.options, " ", c.claims))
	}
}

// The roles and scopes of accounts and API keys are where the site puts them, whatever claims the
// issuers of other tokens use.
func TestGrantsOfTheSiteItself(t *testing.T) {
	dir := sitetest.TempDir(t)
	s := &apiKeySite{Site: sitetest.Serve(t, `
		jwt {
			issuer https://issuer.example {
				secret "`+sitetest.Secret+`"
			}
			accounts {
				store file `+filepath.Join(dir, "users.db")+`
				signup open
			}
			api_keys {
				store file `+filepath.Join(dir, "keys.db")+`
			}
			scope_claim permissions
			role_claim realm_access.roles
			require role admin
		}
		jwt /scope {
			api_keys {
				store file `+filepath.Join(dir, "keys.db")+`
			}
			scope_claim permissions
			require scope read
		}
		respond ok`)}
	s.CommandLine = accountstest.CommandLine{TB: t, Where: []string{"--store", filepath.Join(dir, "keys.db")}}
	user := sitetest.JSON{"realm_access": sitetest.JSON{"roles": []string{"admin"}}}
	s.MustAnswer(200, s.Bearer("/", sitetest.HS256(t, user)), "the claim of the issuer")
	s.MustAnswer(403, s.Bearer("/", sitetest.HS256(t, sitetest.JSON{"roles": []string{"admin"}})), "another claim")

	s.MustAnswer(403, s.Bearer("/", s.SignedUp("alice@example.com").Token), "a user without the role")
	accountstest.ChangeUser(t, "alice@example.com", func(u *store.User) { u.Roles = []string{"admin"} })
	s.MustAnswer(200, s.Bearer("/", s.LoggedIn("alice@example.com").Token), "a user with the role")

	key := s.made("--subject", "robot", "--role", "admin", "--scope", "read")
	s.MustAnswer(200, s.Bearer("/", key.Key), "a key with the role")
	s.MustAnswer(200, s.Bearer("/scope", key.Key), "a key with the role and the scope")
	other := s.made("--subject", "robot", "--role", "user")
	s.MustAnswer(403, s.Bearer("/", other.Key), "a key with another role")
}
