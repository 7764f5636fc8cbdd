package caddyjwt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// adaptEnvironment has the variables for the placeholders in the files. JWT_UNSET must be neither
// here nor in the environment of the test.
var adaptEnvironment = map[string]string{
	"JWT_ISSUER":        "https://tenant.example/",
	"JWT_AUDIENCE":      "https://api.example",
	"JWT_ALGORITHM":     "ES256",
	"JWT_ROLE":          "admin",
	"JWT_LEEWAY":        "1m",
	"JWT_SECRET":        "a-secret-from-the-environment-that-has-51-bytes-in-it",
	"JWT_SECRET_BASE64": "Zm9ydHktZWlnaHQgYnl0ZXMsIGVuY29kZWQgYXMgdGhleSBhcmUgbWFkZSE=",
	"JWT_KEY_PATH":      "testdata/keys/p256.pub.pem",
	"JWT_KEYS":          "keys",
}

// TestAdapt runs the files of testdata/adapt as [sitetest.AdaptFiles] does.
func TestAdapt(t *testing.T) {
	for name, value := range adaptEnvironment {
		t.Setenv(name, value)
	}
	pem, err := os.ReadFile("testdata/keys/rsa2048.pub.pem")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("JWT_PUBLIC_KEY", strings.ReplaceAll(string(pem), "\n", `\n`)) // as .env files have it

	t.Setenv("JWT_USERS", filepath.Join(sitetest.TempDir(t), "users.db"))
	t.Setenv("XDG_DATA_HOME", sitetest.TempDir(t)) // where the accounts are by default
	sitetest.AdaptFiles(t)
}

// A JSON config may have null instead of an object, or a misspelt value. That is an error, and must
// not crash the server.
func TestWrongJSON(t *testing.T) {
	for handler, want := range map[string]string{
		`{"handler":"jwt","issuers":[null]}`:                               "one entry is null",
		`{"handler":"jwt","issuers":[{"secrets":[null]}]}`:                 "secret is null",
		`{"handler":"jwt","issuers":[{"jwks":{}}],"from":[null]}`:          "one entry is null",
		`{"handler":"jwt","issuers":[{"jwks":{}}],"require":[null]}`:       "one entry is null",
		`{"handler":"jwt","issuers":[{"jwks":{}}],"claim_headers":[null]}`: "one entry is null",
		`{"handler":"jwt_guard","headers":[null]}`:                         "one entry is null",
		`{"handler":"jwt_accounts","login_with":[null]}`:                   "login_with",
		`{"handler":"jwt_accounts","login_with":[{"module":"odic"}]}`:      `unknown login "odic"; did you mean oidc? Supported: `,
		`{"handler":"jwt_accounts","login_with":[{"module":"oidc"}]}`: "this Caddy is built " +
			"without login_with; build one with it: xcaddy",
		`{"handler":"jwt_accounts","store":{"module":"postgre"}}`:                              `unknown store "postgre"; did you mean postgres? Supported: `,
		`{"handler":"jwt_accounts","signup":"opne"}`:                                           `signup: unknown value "opne"; did you mean open? Supported: open, closed, login_with`,
		`{"handler":"jwt_accounts","routes":{"logn":"/x"}}`:                                    `unknown route "logn"; did you mean login? Supported: `,
		`{"handler":"authentication","providers":{"jwt_bearer":{"issuers":[null]}}}`:           "one entry is null",
		`{"handler":"authentication","providers":{"jwt_bearer":{"issuers":[],"from":[null]}}}`: "one entry is null",
	} {
		err := sitetest.Validate(t, []byte(
			`{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[{"handle":[`+
				handler+`]}]}}}}}`,
		))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s says %v, expected %q", handler, err, want)
		}
	}
}

// The path of a route may come from a placeholder.
func TestMovedRouteByPlaceholder(t *testing.T) {
	t.Setenv("LOGIN_PATH", "/let/me/in")
	s := sitetest.AccountsSite(t, "login {env.LOGIN_PATH}")
	alice := sitetest.JSON{"email": "alice@example.com", "password": sitetest.GoodPassword}
	s.MustAnswer(201, s.Post("/auth/signup", alice), "sign-up")
	s.MustAnswer(200, s.Post("/let/me/in", alice), "log-in")
}
