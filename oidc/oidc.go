// Package oidc brings both sides of OpenID Connect to Caddy when it is built in:
// oidc/provider, the OpenID Provider, and oidc/login, which logs users in by one elsewhere.
package oidc

import (
	_ "github.com/caddy-jwt/caddy-jwt/oidc/login"    // login_with
	_ "github.com/caddy-jwt/caddy-jwt/oidc/provider" // oidc_provider
)
