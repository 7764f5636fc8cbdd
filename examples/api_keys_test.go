package examples_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/accountstest"
	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/upstream"
	"github.com/caddyserver/caddy/v2"
)

const (
	films = "https://films.internal" // the audience of the example api-keys
	stars = "https://stars.internal" // another service
)

// keysExample is the example api-keys.
type keysExample struct {
	*sitetest.Site
	accountstest.CommandLine
	port, issuer string
	key          apikeys.View
	signer       signing.Signer // which signs the tokens for the upstream
}

// runKeysExample runs the example, and makes a key by the command.
func runKeysExample(t *testing.T) *keysExample {
	t.Helper()
	ports := runExampleSites(t, "api-keys", []string{"8080", "8081"})
	e := &keysExample{
		Site:        &sitetest.Site{T: t, URL: "http://localhost:" + ports["8080"]},
		CommandLine: accountstest.CommandLine{TB: t}, port: ports["8081"],
	}
	e.issuer = e.URL + "/jwt"
	stored, err := signing.Load(t.Context(), caddy.ActiveContext().Storage(), upstream.Path(e.issuer, "RS256"))
	if err != nil {
		t.Fatal(err)
	}
	if e.signer, _, err = signing.ParsePrivateKey(stored.Keys[0].JWK); err != nil {
		t.Fatal(err)
	}
	e.key = e.made("--role", "robot", "--role", "reader")
	return e
}

// made makes a key, and waits until the site knows it.
func (e *keysExample) made(args ...string) (key apikeys.View) {
	t := e.T
	t.Helper()
	text := e.Must("", append([]string{
		"key", "add", "--json", "--subject", "billing", "--scope", "films.read", "--scope", "films.list",
	}, args...)...)
	if err := json.Unmarshal([]byte(text), &key); err != nil {
		t.Fatal(err, text)
	}
	sitetest.Eventually(t, "the site knows the key", func() bool { return e.Bearer("/", key.Key).Status != 401 })
	return key
}

// keysToken is a token, and what is said about it; nothing if it is valid.
type keysToken struct{ name, text, app, express, python string }

// tokens returns one that is valid, and those that differ from it in one thing.
func (e *keysExample) tokens() []keysToken {
	t := e.T
	own, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(algorithm string, key any, id string, changes sitetest.JSON) string {
		claims := sitetest.Claims(sitetest.JSON{
			"iss": e.issuer, "aud": films, "sub": "billing", "scope": "films.read films.list",
			"roles": []string{"robot", "reader"},
		})
		for name, value := range changes {
			claims[name] = value
		}
		return sitetest.Sign(t, algorithm, key, sitetest.JSON{"kid": id}, claims)
	}
	of := func(changes sitetest.JSON) string { return sign("RS256", e.signer.Key, e.signer.ID, changes) }
	public := []byte(sitetest.PEM(t, e.signer.Key.(crypto.Signer)))
	valid := of(nil)
	parts := strings.Split(valid, ".")
	return []keysToken{
		{name: "the same by Caddy's key", text: valid},
		{
			"expired", of(sitetest.JSON{"exp": time.Now().Unix() - 1}),
			"jwt expired", "jwt expired", "ExpiredSignatureError",
		},
		{
			"another audience", of(sitetest.JSON{"aud": stars}), "jwt audience invalid. expected: " + films,
			"jwt audience invalid. expected: " + films, "InvalidAudienceError",
		},
		{
			"another issuer", of(sitetest.JSON{"iss": "https://issuer.example"}),
			"jwt issuer invalid. expected: " + e.issuer, "jwt issuer invalid. expected: " + e.issuer,
			"InvalidIssuerError",
		},
		{
			"the client's key", sign("RS256", own, e.signer.ID, nil),
			"invalid signature", "invalid signature", "InvalidSignatureError",
		},
		{
			"the client's key with its ID", sign("RS256", own, "own", nil),
			"error in secret or public key callback: Unable to find a signing key that matches 'own'",
			"secret or public key must be provided", "PyJWKClientError",
		},
		{
			"the public key as a secret", sign("HS256", public, e.signer.ID, nil),
			"invalid algorithm", "secret or public key must be provided", "InvalidAlgorithmError",
		},
		{
			"changed", parts[0] + "." + strings.Split(of(sitetest.JSON{"sub": "admin"}), ".")[1] + "." + parts[2],
			"invalid signature", "invalid signature", "InvalidSignatureError",
		},
		{
			"unsigned", sitetest.Unsigned(
				t, sitetest.JSON{"alg": "none", "kid": e.signer.ID}, sitetest.ClaimsOf(t, valid),
			) + ".", "jwt signature is required", "invalid algorithm", "InvalidAlgorithmError",
		},
	}
}

// A LoopBack app gets a token for an API key, which never reaches it, and refuses all other tokens.
func TestExampleAPIKeys(t *testing.T) {
	folder := caddytest.NPM(t, "examples/api-keys")
	clock := sitetest.SetClock(t)
	e := runKeysExample(t)
	startNode(t, folder, "app.mjs", e.port, "ISSUER="+e.issuer)
	app := &sitetest.Site{T: t, URL: "http://localhost:" + e.port}

	got := e.Bearer("/whoAmI", e.key.Key)
	e.MustAnswer(200, got, "a key")
	user := got.JSON(t)
	if want := `{"roles":["robot","reader"],"scope":"films.read films.list","sub":"billing"}`; sitetest.Marshal(
		t, sitetest.JSON{"sub": user["sub"], "scope": user["scope"], "roles": user["roles"]},
	) != want {
		t.Errorf("the user: %s\nwant: %s", got.Body, want)
	}
	if secret := strings.Split(e.key.Key, "_")[2]; strings.Contains(got.Body, secret) {
		t.Errorf("the key reaches the app: %s", got.Body)
	}
	authorization, _ := user["headers"].(sitetest.JSON)["authorization"].(string)
	token, found := strings.CutPrefix(authorization, "Bearer ")
	if !found {
		t.Fatalf("the app gets %s", got.Body)
	}
	claims := sitetest.ClaimsOf(t, token)
	if lifetime := claims["exp"].(float64) - claims["iat"].(float64); lifetime != 300 || claims["iss"] != e.issuer ||
		claims["aud"] != films || claims["client_id"] != e.key.ID {
		t.Errorf("the token: %v", claims)
	}
	app.MustAnswer(200, app.Bearer("/whoAmI", token), "the token, at the app")
	e.refuses(e.Bearer("/whoAmI", token), 401, "invalid_token", "the token, at Caddy")

	for name, c := range map[string]struct {
		sent   string
		status int
		code   string // of Caddy
		app    string // what the app says, without Caddy
	}{
		"nothing":       {"", 401, "credentials_required", "Authorization header is missing"},
		"no token":      {"Basic eDp5", 401, "credentials_required", "Authorization header is not of type Bearer"},
		"the key":       {"Bearer " + e.key.Key, 200, "", "jwt malformed"},
		"a wrong key":   {"Bearer " + wrong(e.key.Key), 401, "invalid_token", "jwt malformed"},
		"a cut key":     {"Bearer " + e.key.Key[:40], 401, "invalid_token", "jwt malformed"},
		"too many keys": {"Bearer a b", 400, "invalid_request", "Authorization header must be: Bearer <token>"},
	} {
		var headers []string
		if c.sent != "" {
			headers = []string{"Authorization: " + c.sent}
		}
		if got := e.Get("/whoAmI", headers...); c.code == "" {
			e.MustAnswer(c.status, got, name)
		} else {
			e.refuses(got, c.status, c.code, name)
		}
		mustSay(t, app.Get("/whoAmI", headers...), c.app, name)
	}
	for _, token := range e.tokens() {
		e.refuses(e.Bearer("/whoAmI", token.text), 401, "invalid_token", token.name)
		if token.app == "" {
			app.MustAnswer(200, app.Bearer("/whoAmI", token.text), token.name)
		} else {
			mustSay(t, app.Bearer("/whoAmI", token.text), token.app, token.name)
		}
	}

	brief := e.made("--expires", "1h").Key
	e.MustAnswer(200, e.Bearer("/whoAmI", brief), "a key before it expires")
	clock.Ahead.Store(2 * 3600)
	e.refuses(e.Bearer("/whoAmI", brief), 401, "invalid_token", "an expired key")
	e.MustAnswer(200, e.Bearer("/whoAmI", e.key.Key), "the other key")
}

// wrong returns a key with another secret and the right checksum.
func wrong(key string) string {
	parts := strings.Split(key, "_")
	return apikeys.Text(parts[0], parts[1], strings.Repeat("x", len(parts[2])))
}

// refuses checks that Caddy refuses, and not the app.
func (e *keysExample) refuses(got sitetest.Reply, status int, code, name string) {
	e.T.Helper()
	if got.Status != status || got.ErrorBody(e.T).Error.Code != code || got.Header.Get("WWW-Authenticate") == "" {
		e.T.Errorf("%s: %d %s, expected %d %s", name, got.Status, got.Body, status, code)
	}
}

// mustSay checks that the app refuses.
func mustSay(t *testing.T, got sitetest.Reply, message, name string) {
	t.Helper()
	if got.Status != 401 || got.ErrorBody(t).Error.Message != message || got.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("%s: the app says %d %s, expected %s", name, got.Status, got.Body, message)
	}
}

// express-jwt verifies the tokens with nothing but the issuer and the audience.
func TestExampleAPIKeysExpressJWT(t *testing.T) {
	folder := caddytest.NPM(t, "examples/testdata/verifiers")
	e := runKeysExample(t)
	e.verify(func(k keysToken) string { return k.express }, "node", folder+"/express-jwt.mjs")
}

// So does PyJWT.
func TestExampleAPIKeysPyJWT(t *testing.T) {
	const python = "/usr/bin/python3" // for which Debian's packages are
	if err := exec.Command(python, "-Ic", "import jwt, cryptography").Run(); err != nil {
		caddytest.Missing(t, "python3-jwt and python3-cryptography")
	}
	e := runKeysExample(t)
	e.verify(func(k keysToken) string { return k.python }, python, "examples/testdata/verifiers/pyjwt.py")
}

// verify lets a program verify all tokens, for the audience of the example and for another one.
func (e *keysExample) verify(want func(keysToken) string, program ...string) {
	t := e.T
	t.Helper()
	tokens := append(e.tokens(), keysToken{name: "the one for the key", text: e.received()})
	var input strings.Builder
	for _, token := range tokens {
		input.WriteString(token.text + "\n")
	}
	for _, audience := range []string{films, stars} {
		command := exec.Command(program[0], append(program[1:], e.issuer, audience)...)
		command.Env = append(os.Environ(), "NO_PROXY=localhost")
		command.Stdin, command.Stderr = strings.NewReader(input.String()), os.Stderr
		output, err := command.Output()
		answers := strings.Split(strings.TrimSpace(string(output)), "\n")
		if err != nil || len(answers) != len(tokens) {
			t.Fatalf("%v: %s", err, output)
		}
		for i, token := range tokens {
			valid := want(token) == ""
			if audience == stars {
				valid = token.name == "another audience"
			}
			if valid != strings.HasPrefix(answers[i], "{") || audience == films && !valid && answers[i] != want(token) {
				t.Errorf("%s, for %s: %s, expected %q", token.name, audience, answers[i], want(token))
			}
		}
	}
}

// received returns the token that an upstream gets for the key.
func (e *keysExample) received() string {
	t := e.T
	t.Helper()
	listener, err := net.Listen("tcp", "localhost:"+e.port)
	if err != nil {
		t.Fatal(err)
	}
	echo := &httptest.Server{Listener: listener, Config: &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Header.Get("Authorization"))
		}),
	}}
	echo.Start()
	defer echo.Close()
	got := e.Bearer("/", e.key.Key)
	e.MustAnswer(200, got, "a key")
	return strings.TrimPrefix(got.Body, "Bearer ")
}
