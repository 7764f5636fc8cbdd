package caddyjwt_test

import (
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// log_refused logs refusals at info level, a limited number, and never the token.
func TestLogRefused(t *testing.T) {
	body := func(option string) string {
		return "jwt {\nissuer https://issuer.example\naudience a\nsecret \"" + sitetest.Secret + "\"\n" + option +
			"\n}\nrespond ok"
	}
	claims := sitetest.JSON{"iss": "https://issuer.example", "aud": "a"}
	token := sitetest.HS256(t, sitetest.JSON{"iss": "https://issuer.example", "aud": "a", "exp": 1})
	for option, logged := range map[string]int{"log_refused": 60, "": 0} {
		s := sitetest.Serve(t, body(option))
		for range 65 {
			s.MustAnswer(401, s.Bearer("/", token), "an expired token")
		}
		s.MustAnswer(200, s.Bearer("/", sitetest.HS256(t, claims)), "control: a token that is valid")
		var lines []string
		for line := range strings.Lines(s.Log()) {
			if strings.Contains(line, `"level":"info"`) && strings.Contains(line, "request refused") {
				lines = append(lines, line)
			}
		}
		if len(lines) != logged {
			t.Errorf("with %q, refusals in the log: %d", option, len(lines))
		}
		for _, line := range lines {
			for _, want := range []string{
				`"reason":"expired"`, `"status":401`, `"client_ip":"127.0.0.1"`, `"issuer":"https://issuer.example"`, `"help":"`,
			} {
				if !strings.Contains(line, want) {
					t.Errorf("no %s in %s", want, line)
				}
			}
			if strings.Contains(line, token[:40]) || strings.Contains(line, strings.Split(token, ".")[2]) {
				t.Errorf("the token is in the log: %s", line)
			}
		}
	}
}
