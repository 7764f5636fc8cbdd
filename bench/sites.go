package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lestrrat-go/jwx/v2/jwa"
)

const haproxyUnprotected = "HAProxy, unprotected"

// buildCaddy builds Caddy with the plugin of this module into dir.
func buildCaddy(ctx context.Context, dir string) (path string, err error) {
	path = filepath.Join(dir, "caddy")
	out, err := exec.CommandContext(
		ctx, "go", "build", "-o", path, "github.com/caddy-jwt/caddy-jwt/cmd/caddy",
	).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building Caddy: %w\n%s", err, out)
	}
	return path, nil
}

// caddyServers returns Caddy without protection, with tokens that it has seen before, and with
// tokens seen for the first time. The last one uses `cache off`, so that each time is the first:
// new tokens for each request would take longer to sign than to verify.
func caddyServers(ctx context.Context, caddy, dir string, keys []*issuerKey) ([]*server, error) {
	site := func(name string, requests, refuses [][]byte, jwt ...string) *server {
		return &server{
			name: name, requests: requests, refuses: refuses,
			command: []string{caddy, "run", "--adapter", "caddyfile", "--config"},
			config:  func(port string) string { return caddyfile(port, dir, jwt) },
		}
	}
	var seen, first []*server
	for _, key := range keys {
		refuses := [][]byte{key.noToken, key.forged, key.expired}
		jwt := []string{"issuer " + issuer, "audience " + audience}
		if secret, ok := key.private.([]byte); ok {
			jwt = append(jwt, "secret base64 "+base64.StdEncoding.EncodeToString(secret))
		} else {
			jwt = append(jwt, "public_key "+key.path)
		}
		if key.algorithm == jwa.RS256 {
			seen = []*server{
				site("Caddy, unprotected", key.good[:1], nil),
				site("Caddy + jwt, a token already seen", key.good[:1], refuses, jwt...),
				site("Caddy + jwt, 10,000 tokens already seen", key.good, refuses, jwt...),
				site(
					"Caddy + jwt + upstream_token, a token already seen", key.good[:1], refuses,
					append(slices.Clip(jwt), "upstream_token {\n\t\t\tissuer https://api.example.com/jwt\n\t\t}")...,
				),
			}
		}
		first = append(first, site(
			fmt.Sprintf("Caddy + jwt, %s token first seen", key.algorithm),
			key.good, refuses, append(slices.Clip(jwt), "cache off")...,
		))
	}
	apiKey, err := apiKeyRequest(ctx, caddy, filepath.Join(dir, "keys.db"))
	if err != nil {
		return nil, err
	}
	seen = append(seen, site(
		"Caddy + jwt + api_keys, a key already seen", [][]byte{apiKey},
		[][]byte{keys[0].noToken, newRequest([]byte("key_x"))},
		"api_keys {\n\t\t\tstore file "+filepath.Join(dir, "keys.db")+"\n\t\t}",
	))
	return append(seen, first...), nil
}

// apiKeyRequest makes an API key in a new store, and returns a request with it.
func apiKeyRequest(ctx context.Context, caddy, file string) ([]byte, error) {
	add := exec.CommandContext(ctx, caddy, "jwt", "key", "add", "--store", file, "--create",
		"--subject", "billing", "--scope", "films.read")
	add.Stderr = os.Stderr
	out, err := add.Output()
	if err != nil {
		return nil, fmt.Errorf("making an API key: %w", err)
	}
	return newRequest(bytes.TrimSpace(out)), nil
}

// caddyfile returns a site with one small response. Its storage is separate from the user's.
func caddyfile(port, dir string, jwt []string) string {
	directive := ""
	if len(jwt) > 0 {
		directive = "\tjwt {\n\t\t" + strings.Join(jwt, "\n\t\t") + "\n\t}\n"
	}
	return `{
	admin off
	auto_https off
	persist_config off
	storage file_system ` + filepath.Join(dir, port) + `
}
http://:` + port + ` {
	bind 127.0.0.1
` + directive + `	respond "Hello, world!"
}
`
}

// haproxyServers returns the same for HAProxy, which does not remember tokens. Its jwt_verify only
// checks the signature, so rules check the claims that the jwt handler checks.
func haproxyServers(haproxy string, key *issuerKey) []*server {
	site := func(name string, requests, refuses [][]byte, rules ...string) *server {
		return &server{
			name: name, requests: requests, refuses: refuses,
			command: []string{haproxy, "-db", "-f"}, // in the foreground
			config:  func(port string) string { return haproxyConfig(port, rules) },
		}
	}
	signature := fmt.Sprintf(
		`http-request deny deny_status 401 unless { http_auth_bearer,jwt_verify("%s","%s") -m int 1 }`,
		key.algorithm, key.path,
	)
	return []*server{
		site(haproxyUnprotected, key.good[:1], nil),
		site("HAProxy + jwt_verify, signature alone", key.good, [][]byte{key.noToken, key.forged}, signature),
		site("HAProxy + jwt_verify, exp, iss and aud", key.good, [][]byte{key.noToken, key.forged, key.expired},
			signature,
			`http-request set-var(txn.bearer) http_auth_bearer`,
			`http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')`,
			`http-request set-var(txn.now) date()`,
			`http-request deny deny_status 401 unless { var(txn.exp),sub(txn.now) -m int gt 0 }`,
			`http-request deny deny_status 401 unless { var(txn.bearer),jwt_payload_query('$.iss') -m str `+issuer+` }`,
			`http-request deny deny_status 401 unless { var(txn.bearer),jwt_payload_query('$.aud[0]') -m str `+audience+
				` }`,
		),
	}
}

func haproxyConfig(port string, rules []string) string {
	return `defaults
	mode http
	timeout client 5m
frontend site
	bind 127.0.0.1:` + port + `
	` + strings.Join(
		append(rules, `http-request return status 200 content-type text/plain string "Hello, world!"`), "\n\t",
	) + `
`
}
