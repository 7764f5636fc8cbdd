package caddyjwt_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

var update = flag.Bool("update", false, "rewrite the generated parts of testdata and docs")

const separator = "\n----------\n"

// adaptEnvironment is what the placeholders of the files read. JWT_UNSET is
// not here, nor may it be in the environment of the test.
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

// TestAdapt runs the files of testdata/adapt: a Caddyfile, a line of ten
// dashes, then the JSON it adapts to, or text from the error that it causes.
// A config that adapts is also provisioned, as `caddy validate` does, because
// keys and ranges are checked there.
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

	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no adapt tests: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".caddyfiletest")
		t.Run(name, func(t *testing.T) { testAdapt(t, file) })
	}
}

func testAdapt(t *testing.T, file string) {
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	input, expected, found := strings.Cut(string(content), separator)
	if !found {
		t.Fatal("the file has no line of ten dashes")
	}
	input, expected = input+"\n", strings.TrimSpace(expected)
	adapted, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), nil)
	if err == nil {
		err = sitetest.Validate(t, adapted)
	}
	if !strings.HasPrefix(expected, "{") && !(*update && expected == "") {
		switch {
		case err == nil:
			t.Errorf("no error; expected:\n%s", expected)
		case expected == "" || !strings.Contains(err.Error(), expected):
			t.Errorf("got the error:\n%v\nexpected in it:\n%s", err, expected)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range warnings { // such as that `caddy fmt` would change the file
		t.Error(warning)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, adapted, "", "\t"); err != nil {
		t.Fatal(err)
	}
	if pretty.String() == expected {
		return
	}
	if !*update {
		t.Fatalf("adapted to other JSON than the file has; -update rewrites it, and git diff shows what changed:\n%s", pretty.String())
	}
	if err := os.WriteFile(file, []byte(input[:len(input)-1]+separator+pretty.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A config in JSON may hold null where an object belongs, or a misspelt value: that is an
// error, and ends no server.
func TestWrongJSON(t *testing.T) {
	for handler, want := range map[string]string{
		`{"handler":"jwt","issuers":[null]}`:                                                   "one entry is null",
		`{"handler":"jwt","issuers":[{"secrets":[null]}]}`:                                     "secret 0 is null",
		`{"handler":"jwt","issuers":[{"jwks":{}}],"from":[null]}`:                              "one entry is null",
		`{"handler":"jwt","issuers":[{"jwks":{}}],"require":[null]}`:                           "one entry is null",
		`{"handler":"jwt","issuers":[{"jwks":{}}],"claim_headers":[null]}`:                     "one entry is null",
		`{"handler":"jwt_guard","headers":[null]}`:                                             "one entry is null",
		`{"handler":"jwt_accounts","login_with":[null]}`:                                       "login_with",
		`{"handler":"jwt_accounts","login_with":[{"module":"odic"}]}`:                          `unknown login "odic"; did you mean oidc? Supported: `,
		`{"handler":"jwt_accounts","login_with":[{"module":"oidc"}]}`:                          "this Caddy is built without login_with; build one with it: xcaddy",
		`{"handler":"jwt_accounts","store":{"module":"postgre"}}`:                              `unknown store "postgre"; did you mean postgres? Supported: `,
		`{"handler":"jwt_accounts","signup":"opne"}`:                                           `signup: unknown value "opne"; did you mean open? Supported: open, closed`,
		`{"handler":"jwt_accounts","routes":{"logn":"/x"}}`:                                    `unknown route "logn"; did you mean login? Supported: `,
		`{"handler":"authentication","providers":{"jwt_bearer":{"issuers":[null]}}}`:           "one entry is null",
		`{"handler":"authentication","providers":{"jwt_bearer":{"issuers":[],"from":[null]}}}`: "one entry is null",
	} {
		err := sitetest.Validate(t, []byte(`{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[{"handle":[`+handler+`]}]}}}}}`))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s says %v, expected %q", handler, err, want)
		}
	}
}

// The path of a route is whatever its placeholder holds.
func TestMovedRouteByPlaceholder(t *testing.T) {
	t.Setenv("LOGIN_PATH", "/let/me/in")
	s := sitetest.AccountsSite(t, "login {env.LOGIN_PATH}")
	alice := sitetest.JSON{"email": "alice@example.com", "password": sitetest.GoodPassword}
	s.MustAnswer(201, s.Post("/auth/signup", alice), "sign-up")
	s.MustAnswer(200, s.Post("/let/me/in", alice), "log-in")
}
