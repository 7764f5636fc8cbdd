package migration_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/caddytest"
	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// expressJWT lets express-jwt and jwks-rsa verify tokens as before the move. It returns what each is to them:
// the claims as JSON, or the message of the error.
func expressJWT(t *testing.T, issuer, audience string, tokens ...string) []string {
	t.Helper()
	folder := caddytest.NPM(t, "examples/testdata/verifiers")
	command := exec.Command("node", folder+"/express-jwt.mjs", issuer, audience)
	command.Env = append(os.Environ(), "NO_PROXY=127.0.0.1")
	command.Stdin, command.Stderr = strings.NewReader(strings.Join(tokens, "\n")+"\n"), os.Stderr
	output, err := command.Output()
	answers := strings.Split(strings.TrimSpace(string(output)), "\n")
	if err != nil || len(answers) != len(tokens) {
		t.Fatalf("%v: %s", err, output)
	}
	return answers
}

// auth0 serves the key set of the page's issuer.
func auth0(t *testing.T) (url string) {
	t.Helper()
	set := sitetest.Marshal(t, sitetest.JSON{"keys": []sitetest.JSON{
		sitetest.JWK(t, sitetest.Keys().RSA, sitetest.JSON{"kid": "1", "alg": "RS256", "use": "sig"}),
	}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(set))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

var userinfo = regexp.MustCompile(`(?m)^X-Userinfo: (.*)\r$`)

// Caddy accepts and refuses what express-jwt did, but for what the page says, and the app has the same claims.
func TestExpressJWT(t *testing.T) {
	const api = "https://api.example.com"
	tenant := auth0(t)
	page := blocks(t, "docs/migration/express-jwt.md")
	s := runAfter(t, replaced(t, page[0], "api.example.com {", "app.example.com {", "https://tenant.auth0.com", tenant))

	now := time.Now().Unix()
	keys := sitetest.Keys()
	type change = sitetest.JSON
	token := func(algorithm string, key any, changes change) string {
		claims := change{
			"iss": tenant + "/", "aud": []string{api}, "sub": "auth0|1", "iat": now - 60, "exp": now + 3600,
			"permissions": []string{"read:films"},
		}
		for name, value := range changes {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		return sitetest.Sign(t, algorithm, key, change{"kid": "1", "typ": "JWT"}, claims)
	}
	tests := []struct {
		name, token   string
		before, after bool // accepted
	}{
		{"a valid token", token("RS256", keys.RSA, nil), true, true},
		{"another audience", token("RS256", keys.RSA, change{"aud": "https://other.example.com"}), false, false},
		{"another issuer", token("RS256", keys.RSA, change{"iss": "https://evil.example/"}), false, false},
		{"expired", token("RS256", keys.RSA, change{"exp": now - 60}), false, false},
		{"not valid yet", token("RS256", keys.RSA, change{"nbf": now + 60}), false, false},
		{"another key", token("RS256", keys.StrangerRSA, nil), false, false},
		{"another algorithm", token("RS512", keys.RSA, nil), false, false},
		{"a shared secret", token("HS256", []byte(sitetest.Secret), nil), false, false},
		{"no token", "no-token", false, false},
		{"expired for 10 seconds", token("RS256", keys.RSA, change{"exp": now - 10}), false, true},
		{"no exp", token("RS256", keys.RSA, change{"exp": nil}), true, false},
	}
	var tokens []string
	for _, c := range tests {
		tokens = append(tokens, c.token)
	}
	before := expressJWT(t, tenant+"/", api, tokens...)
	for i, c := range tests {
		got := s.Do(http.MethodGet, "/api/films", "Authorization: Bearer "+c.token, "X-Userinfo: e30=")
		header := userinfo.FindStringSubmatch(got.Body)
		if accepted := strings.HasPrefix(before[i], "{"); accepted != c.before {
			t.Errorf("%s: express-jwt says %s", c.name, before[i])
		}
		if (got.Status == 200) != c.after || got.Status != 200 && got.Status != 401 {
			t.Errorf("%s: %d %s", c.name, got.Status, got.Body)
		}
		if !c.before || !c.after {
			continue
		}
		if header == nil {
			t.Fatalf("%s: no claims: %s", c.name, got.Body)
		}
		claims, err := base64.StdEncoding.DecodeString(header[1])
		var was, is any
		if err != nil || json.Unmarshal([]byte(before[i]), &was) != nil || json.Unmarshal(claims, &is) != nil ||
			sitetest.Marshal(t, was) != sitetest.Marshal(t, is) {
			t.Errorf("%s: req.auth was %s and is %s, %v", c.name, before[i], claims, err)
		}
	}
	s.MustAnswer(401, s.Get("/api/films"), "nothing")
	if got := s.Get("/api/health", "X-Userinfo: e30="); got.Status != 200 || strings.Contains(got.Body, "X-Userinfo") {
		t.Errorf("a path of unless: %d %s", got.Status, got.Body)
	}
}

// express-jwt verifies the token of the site in the place of that of the issuer.
func TestExpressJWTGoesOn(t *testing.T) {
	tenant := auth0(t)
	page := blocks(t, "docs/migration/express-jwt.md")
	s := runAfter(t, replaced(t, page[1], "api.example.com {", "app.example.com {", "https://tenant.auth0.com", tenant))
	now := time.Now().Unix()
	sent := sitetest.Sign(t, "RS256", sitetest.Keys().RSA, sitetest.JSON{"kid": "1"}, sitetest.JSON{
		"iss": tenant + "/", "aud": "https://api.example.com", "sub": "auth0|1", "iat": now - 60, "exp": now + 3600,
		"permissions": []string{"read:films"},
	})
	got := s.Bearer("/api/films", sent)
	s.MustAnswer(200, got, "a valid token")
	_, received, _ := strings.Cut(got.Body, "Authorization: Bearer ")
	received, _, _ = strings.Cut(received, "\r\n")
	answers := expressJWT(t, s.URL+"/jwt", "https://films.internal", received, sent)
	if !strings.Contains(answers[0], `"sub":"auth0|1"`) || !strings.Contains(answers[0], `"permissions":["read:films"]`) {
		t.Errorf("the token of the site: %s", answers[0])
	}
	if strings.HasPrefix(answers[1], "{") {
		t.Errorf("the token of the issuer is still accepted: %s", answers[1])
	}
}
