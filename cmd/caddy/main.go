// Command caddy is Caddy with its standard modules and this plugin: what
// `xcaddy build --with github.com/caddy-jwt/caddy-jwt/oidc --with
// github.com/caddy-jwt/caddy-jwt/postgres` would generate.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddy-jwt/caddy-jwt"
	_ "github.com/caddy-jwt/caddy-jwt/oidc"
	_ "github.com/caddy-jwt/caddy-jwt/postgres"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() {
	caddycmd.Main()
}
