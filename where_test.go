package caddyjwt_test

import (
	"strings"
	"testing"

	"github.com/caddy-jwt/caddy-jwt/internal/sitetest"
)

// An error while the config is loaded names its line, as errors of the parser do.
func TestProvisionErrorsNameTheLine(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	for name, c := range map[string]struct{ body, want string }{
		"an option": {
			"jwt {\n secret 0123456789abcdef0123456789abcdef\n leeway 10m\n}",
			"leeway is 10m0s; it must be from 0s to 5m0s (in JSON, a plain number is nanoseconds), at Caddyfile:16",
		},
		"the second of two": {"jwt {\n secret 0123456789abcdef0123456789abcdef\n secret short\n}", "at Caddyfile:16"},
		"the first of two":  {"jwt {\n secret short\n secret 0123456789abcdef0123456789abcdef\n}", "at Caddyfile:15"},
		"an issuer's option": {
			"jwt {\n issuer a {\n secret 0123456789abcdef0123456789abcdef\n }\n issuer b {\n secret short\n }\n}",
			"at Caddyfile:19",
		},
		"the second directive": {"jwt /a/* {\n secret 0123456789abcdef0123456789abcdef\n}\njwt /b/* {\n" +
			" public_key ./none.pem\n secret 0123456789abcdef0123456789abcdef\n}", "at Caddyfile:18"},
		"of accounts": {"jwt {\n accounts {\n issuer x\n password_min_length 3\n }\n}", "at Caddyfile:17"},
		"a claim header": {
			"jwt {\n secret 0123456789abcdef0123456789abcdef\n claim_header X-A sub\n claim_header Host sub\n}",
			"at Caddyfile:17",
		},
		"roles of accounts": {
			"jwt {\n accounts {\n issuer x\n default_roles \"a b\"\n }\n}",
			"accounts: default_roles: a role must be a single word without spaces and commas, at Caddyfile:17",
		},
		"in backticks": {
			"jwt {\n secret 0123456789abcdef0123456789abcdef\n from header\n from cookie \"a b\"\n}", "at Caddyfile:17",
		},
		"the second rule": {"jwt {\n secret 0123456789abcdef0123456789abcdef\n require role a\n" +
			" require role x of https://nowhere.example\n}", "at Caddyfile:17"},
		"before the issuer": {"jwt {\n secret short\n issuer https://a.example\n}", "at Caddyfile:15"},
		"used twice": {
			"jwt {\n secret 0123456789abcdef0123456789abcdef\n claim_header X-A sub\n claim_header X-A name\n}",
			"at Caddyfile:17",
		},
		"a value with the word twice": {
			"jwt {\n issuer https://twice.example {\n secret " + secret + "\n algorithms RS256\n }\n issuer b {\n" +
				" secret " + secret + "\n algorithms HS256\n }\n}", "at Caddyfile:17",
		},
		"the third secret, outside the block": {
			"jwt {\n issuer b {\n secret " + secret + "\n secret x" + secret + "\n }\n secret short\n}",
			"issuer b: the third secret: the secret has a length of 5",
		},
		"outside the block": {
			"jwt {\n issuer b {\n secret " + secret + "\n secret x" + secret + "\n }\n secret short\n}",
			"at Caddyfile:19",
		},
		"the only secret": {"jwt {\n secret short\n}", "jwt: secret: the secret has a length of 5"},
		"the second require": {
			"jwt {\n secret " + secret + "\n require role a\n require scope \"a b\"\n}",
			"the second require: a scope is",
		},
		"no option": {
			"jwt {\n accounts {\n secret 0123456789abcdef0123456789abcdef\n signing_key x\n }\n}", "at Caddyfile:",
		},
	} {
		if err := sitetest.ConfigError(t, c.body); !strings.Contains(err, c.want) {
			t.Errorf("%s: %s; expected %s", name, err, c.want)
		}
	}
}
