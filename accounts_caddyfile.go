package caddyjwt

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// ParseAccounts reads an `accounts` block of another directive, at whose name
// the dispenser stands.
func ParseAccounts(d *caddyfile.Dispenser) (*Accounts, error) {
	p := parser{Dispenser: d, given: make(map[string]bool)}
	return p.accounts()
}

// accounts sets the accounts up from Caddyfile tokens. Syntax:
//
//	accounts [<prefix>] {
//	    store               file [<path>] | <module> [<args...>]
//	    signup              open|closed
//	    signup_limit        <accounts>
//	    login|signup|refresh|logout|whoami|password|jwks <path>
//	    issuer              <iss>
//	    audience            <aud...>
//	    token_lifetime      <duration>
//	    refresh_lifetime    <duration>
//	    secret              [base64|hex] <value>
//	    signing_key         <PEM, JWK, or path>
//	    default_roles       <role...>
//	    password_min_length <characters>
//	    profile             <name...>
//	    throttle            <failures> <window> | off
//	    hash_queue          <passwords>
//	    login_with          <name> { … }
//	    templates           <dir>
//	}
//
// `signup` may be specified twice: once to open or close it, once to move it.
// `login_with` may be repeated; its block is that of the module
// `jwt.logins.oidc`.
func (p *parser) accounts() (*Accounts, error) {
	a := new(Accounts)
	if p.NextArg() {
		a.Prefix = p.Val()
	}
	if p.NextArg() {
		return nil, p.Errf("accounts takes at most one path, as in: accounts /auth {")
	}
	inner := parser{Dispenser: p.Dispenser, given: make(map[string]bool)}
	for nesting := p.Nesting(); p.NextBlock(nesting); {
		if err := inner.accountsOption(p.Val(), a); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (p *parser) accountsOption(name string, a *Accounts) error {
	if slices.Contains(movableRoutes, name) {
		return p.accountsRoute(name, a)
	}
	switch name {
	case "store":
		return p.store(a)
	case "signup_limit":
		return p.count(name, "a number of accounts an hour", &a.SignupLimit)
	case "issuer":
		return p.word(name, "the value of the iss claim, as in: issuer https://example.com", &a.Issuer)
	case "audience":
		return p.words(name, "values of the aud claim", &a.Audience)
	case "token_lifetime":
		return p.duration(name, &a.TokenLifetime)
	case "refresh_lifetime":
		return p.duration(name, &a.RefreshLifetime)
	case "secret":
		if err := p.once(name); err != nil {
			return err
		}
		var of IssuerConfig
		err := p.secret(&of)
		if err == nil {
			a.Secret = of.Secrets[0]
		}
		return err
	case "signing_key":
		return p.word(name, "a private key as PEM or JWK, or the path of a file with one", &a.SigningKey)
	case "default_roles":
		return p.words(name, "roles", &a.DefaultRoles)
	case "password_min_length":
		return p.count(name, "a number of characters", &a.PasswordMinLength)
	case "profile":
		return p.words(name, "names of properties, as in: profile name phone", &a.Profile)
	case "throttle":
		return p.throttle(a)
	case "hash_queue":
		return p.count(name, "a number of passwords", &a.HashQueue)
	case "login_with":
		return p.loginWith(a)
	case "templates":
		return p.word(name, "a folder", &a.Templates)
	}
	return UnknownOption(p.Dispenser, "accounts", "it has store, signup, signup_limit, login, refresh, logout, whoami, password, jwks, issuer, audience, token_lifetime, refresh_lifetime, secret, signing_key, default_roles, password_min_length, profile, throttle, hash_queue, login_with and templates")
}

func (p *parser) accountsRoute(name string, a *Accounts) error {
	args := p.RemainingArgs()
	if len(args) == 1 && name == "signup" && (args[0] == "open" || args[0] == "closed") {
		a.Signup = args[0]
		return p.once("signup " + "open or closed")
	}
	if len(args) != 1 || !strings.HasPrefix(args[0], "/") && !strings.HasPrefix(args[0], "{") {
		if name == "signup" {
			return p.Errf("signup takes open, closed or a path, as in: signup /users/signup")
		}
		return p.Errf("%s takes a path, as in: %s /users/%s", name, name, name)
	}
	if a.Routes == nil {
		a.Routes = make(map[string]string)
	}
	a.Routes[name] = args[0]
	return p.once(name)
}

func (p *parser) store(a *Accounts) error {
	if err := p.once("store"); err != nil {
		return err
	}
	if !p.NextArg() {
		return p.Errf("store takes the kind of the store and its options, as in: store file /var/lib/users.db")
	}
	kind := p.Val()
	id := "jwt.stores." + kind
	if _, err := caddy.GetModule(id); err != nil {
		return p.Errf("store has no kind %q in this Caddy; file is always there", kind)
	}
	module, err := caddyfile.UnmarshalModule(p.Dispenser, id)
	if err != nil {
		return err
	}
	a.StoreRaw = caddyconfig.JSONModuleObject(module, "module", kind, nil)
	return nil
}

func (p *parser) loginWith(a *Accounts) error {
	const id = "jwt.logins.oidc"
	if _, err := caddy.GetModule(id); err != nil {
		return p.Errf("login_with is not in this Caddy; build it in: xcaddy build --with github.com/caddy-jwt/caddy-jwt --with github.com/caddy-jwt/caddy-jwt/oidc")
	}
	module, err := caddyfile.UnmarshalModule(p.Dispenser, id)
	if err != nil {
		return err
	}
	a.LoginWithRaw = append(a.LoginWithRaw, caddyconfig.JSONModuleObject(module, "module", "oidc", nil))
	return nil
}

func (p *parser) throttle(a *Accounts) error {
	if err := p.once("throttle"); err != nil {
		return err
	}
	args := p.RemainingArgs()
	if len(args) == 1 && args[0] == "off" {
		a.ThrottleFailures = -1
		return nil
	}
	const takes = "throttle takes a number of failed log-ins and a time, as in: throttle 10 15m, or off"
	if len(args) != 2 {
		return p.Errf(takes)
	}
	failures, err := strconv.Atoi(args[0])
	window, windowErr := caddy.ParseDuration(args[1])
	if err != nil || windowErr != nil || failures < 1 || window <= 0 {
		return p.Errf(takes)
	}
	a.ThrottleFailures, a.ThrottleWindow = failures, caddy.Duration(window)
	return nil
}

func (p *parser) count(name, takes string, into *int) error {
	var text string
	if err := p.word(name, takes, &text); err != nil {
		return err
	}
	number, err := strconv.Atoi(text)
	if err != nil || number < 1 {
		return p.Errf("%s takes %s, not %q%s", name, takes, text, placeholderHint(text))
	}
	*into = number
	return nil
}

// Matcher matches the account routes, so that a matcher of the directive never
// hides them.
func (a Accounts) Matcher() caddy.ModuleMap {
	setDefault(&a.Prefix, defaultAccountsPrefix)
	paths := []string{a.Prefix + "/*"}
	for _, moved := range a.Routes {
		paths = append(paths, moved)
	}
	slices.Sort(paths)
	text, _ := json.Marshal(paths) // strings always have JSON
	return caddy.ModuleMap{"path": text}
}
