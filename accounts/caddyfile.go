package accounts

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() {
	config.RegisterBlock("accounts", new(Config).options())
}

// Parse parses an `accounts` block. The dispenser must be at its name. Syntax:
//
//	accounts [<prefix>] {
//	    store               file [<path>] | <module> [<args...>]
//	    signup              open|closed|login_with
//	    signup_limit        <accounts>
//	    identifier          email|username|any
//	    login|signup|refresh|logout|whoami|password|jwks <path>
//	    issuer              <iss>
//	    audience            <aud...>
//	    token_lifetime      <duration>
//	    refresh_lifetime    <duration>
//	    secret              [base64|hex] <value>
//	    signing_key         <PEM, JWK, or path>
//	    algorithm           ES256|RS256|EdDSA
//	    token_claims        <claim> <property> …
//	    default_roles       <role...>
//	    password_min_length <characters>
//	    profile             <name...>
//	    throttle            <failures> <window> | off
//	    hash_queue          <passwords>
//	    login_with          <name> { … }
//	    mail                <url> { … } | command … | webhook … | <module> [<args...>]
//	    name                <text>
//	    logo                <path or URL>
//	    accent              <colour>
//	    second_factor       optional | required [<role...>]
//	    trust_browsers      <duration> | off
//	    passkeys            [<domain>]
//	    verify_email
//	    email_login
//	    invitations         <role...>
//	    languages           <dir>
//	    explorer            off
//	    templates           <dir>
//	}
//
// `signup` may be specified twice: once to say who can sign up, once to set its path.
// `login_with` may be repeated; its block is described at the module `jwt.logins.oidc`. That of
// `mail` is described at the modules `jwt.mailers.smtp`, `command` and `webhook`.
func Parse(d *caddyfile.Dispenser) (*Config, error) {
	a := new(Config)
	if d.NextArg() {
		a.Prefix = d.Val()
	}
	if d.NextArg() {
		return nil, d.Errf("accounts takes at most one path, as in: accounts /auth {")
	}
	return a, config.ReadBlock(d, "accounts", a.options())
}

func (a *Config) options() []config.Option {
	options := []config.Option{{Name: "store", Read: a.readStore}}
	for _, route := range movableRoutes {
		options = append(options, config.Option{Name: route, Read: a.readRoute, Repeatable: route == "signup"})
	}
	return append(options, []config.Option{
		{Name: "signup_limit", Read: config.Count("a number of accounts per hour", &a.SignupLimit)},
		{Name: "identifier", Read: config.Word("email, username or any", &a.Identifier)},
		{Name: "issuer", Read: config.Word("the value of the iss claim, as in: issuer https://example.com", &a.Issuer)},
		{Name: "audience", Read: config.Words("values of the aud claim", &a.Audience)},
		{Name: "token_lifetime", Read: config.Duration(&a.TokenLifetime)},
		{Name: "refresh_lifetime", Read: config.Duration(&a.RefreshLifetime)},
		{Name: "secret", Read: func(b *config.Block, name string) (err error) {
			a.Secret, err = config.ParseSecret(b, name)
			return err
		}},
		{Name: "signing_key", Read: config.Word("a private key as PEM or JWK, or the path of its file", &a.SigningKey)},
		{Name: "algorithm", Read: config.Word("ES256, RS256 or EdDSA", &a.Algorithm)},
		{Name: "token_claims", Read: a.readTokenClaims, Repeatable: true},
		{Name: "default_roles", Read: config.Words("roles", &a.DefaultRoles)},
		{Name: "password_min_length", Read: config.Count("a number of characters", &a.PasswordMinLength)},
		{Name: "profile", Read: config.Words("names of properties, as in: profile name phone", &a.Profile)},
		{Name: "throttle", Read: a.readThrottle},
		{Name: "hash_queue", Read: config.Count("a number of passwords", &a.HashQueue)},
		{Name: "login_with", Read: a.readLoginWith, Repeatable: true},
		{Name: "mail", Read: a.readMail},
		{Name: "name", Read: config.Word("the name of the site, as in: name \"The Shop\"", &a.Name)},
		{Name: "logo", Read: config.Word("a path of the site or a URL, as in: logo /logo.svg", &a.Logo)},
		{Name: "accent", Read: config.Word("a colour, as in: accent 2457c5 (# begins a comment)", &a.Accent)},
		{Name: "second_factor", Read: a.readSecondFactor},
		{Name: "trust_browsers", Read: a.readTrustBrowsers},
		{Name: "passkeys", Read: a.readPasskeys},
		{Name: "verify_email", Read: config.Flag(&a.VerifyEmail)},
		{Name: "email_login", Read: config.Flag(&a.EmailLogin)},
		{Name: "invitations", Read: config.Words("roles", &a.Invitations)},
		{Name: "languages", Read: config.Word("a folder", &a.Languages)},
		{Name: "explorer", Read: config.Word("off", &a.Explorer)},
		{Name: "templates", Read: config.Word("a folder", &a.Templates)},
	}...)
}

func (a *Config) readRoute(b *config.Block, name string) error {
	args := b.RemainingArgs()
	if len(args) == 1 && name == "signup" && slices.Contains(signupModes, args[0]) {
		a.Signup = args[0]
		return b.Once("signup open, closed or login_with")
	}
	if len(args) != 1 || !strings.HasPrefix(args[0], "/") && !strings.HasPrefix(args[0], "{") {
		if name == "signup" {
			return b.Errf(
				"signup takes open, closed or a path, as in: signup /users/signup, or login_with%s",
				config.Meant(strings.Join(args, " "), signupModes...),
			)
		}
		return b.Errf("%s takes a path, as in: %s /users/%s", name, name, name)
	}
	if a.Routes == nil {
		a.Routes = make(map[string]string)
	}
	if name == "signup" && a.Routes[name] != "" {
		return b.Errf("the path of signup is specified twice; it may be specified only once")
	}
	a.Routes[name] = args[0]
	return nil
}

func (a *Config) readStore(b *config.Block, _ string) (err error) {
	const takes = "store takes the kind of the store and its options, as in: store file /var/lib/users.db"
	a.StoreRaw, err = config.ReadModule(b, "jwt.stores", takes)
	return err
}

func (a *Config) readLoginWith(b *config.Block, _ string) error {
	if err := config.CheckModule("jwt.logins", "oidc"); err != nil {
		return b.WrapErr(err)
	}
	module, err := caddyfile.UnmarshalModule(b.Dispenser, "jwt.logins.oidc")
	if err != nil {
		return err
	}
	a.LoginWithRaw = append(a.LoginWithRaw, caddyconfig.JSONModuleObject(module, "module", "oidc", nil))
	return nil
}

func (a *Config) readThrottle(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) == 1 && args[0] == "off" {
		a.ThrottleFailures = -1
		return nil
	}
	const takes = "throttle takes a number of failed log-ins and a duration, as in: throttle 10 15m, or off"
	if len(args) != 2 {
		return b.Errf("%s%s", takes, config.Meant(strings.Join(args, " "), "off"))
	}
	failures, err := strconv.Atoi(args[0])
	window, windowErr := caddy.ParseDuration(args[1])
	if err != nil || windowErr != nil || failures < 1 || window <= 0 {
		return b.Errf(takes)
	}
	a.ThrottleFailures, a.ThrottleWindow = failures, caddy.Duration(window)
	return nil
}

func (a *Config) readSecondFactor(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) == 0 || args[0] == "" {
		return b.Errf("second_factor takes optional, or required and roles, as in: second_factor required admin")
	}
	if !slices.Contains(secondFactorModes, args[0]) && !strings.HasPrefix(args[0], "{") {
		return b.Errf(
			"second_factor takes optional or required, not %q%s", args[0], config.Meant(args[0], secondFactorModes...),
		)
	}
	a.SecondFactor, a.SecondFactorRoles = args[0], args[1:]
	return nil
}

func (a *Config) readPasskeys(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) > 1 || len(args) == 1 && strings.ContainsAny(args[0], ":/*") && !strings.HasPrefix(args[0], "{") {
		return b.Errf("passkeys takes the domain that they are for, or nothing, as in: passkeys example.com")
	}
	a.Passkeys = new(Passkeys)
	if len(args) == 1 {
		a.Passkeys.Domain = args[0]
	}
	return nil
}

func (a *Config) readTrustBrowsers(b *config.Block, name string) error {
	var text string
	if err := config.Word("a duration, as in: trust_browsers 30d, or off", &text)(b, name); err != nil {
		return err
	}
	if text == "off" {
		a.TrustBrowsers = -1
		return nil
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil || duration <= 0 {
		return b.Errf(
			"trust_browsers takes a duration, as in: trust_browsers 30d, or off, not %q%s", text,
			config.PlaceholderHint(text),
		)
	}
	a.TrustBrowsers = caddy.Duration(duration)
	return nil
}

// Matcher matches the account routes. The account handler uses it instead of the
// directive's matcher, so that the routes are always reachable.
func (a Config) Matcher() caddy.ModuleMap {
	config.SetDefault(&a.Prefix, DefaultPrefix)
	paths := []string{a.Prefix + "/*"}
	for _, path := range a.documentPaths() {
		if !strings.HasPrefix(path, a.Prefix+"/") {
			paths = append(paths, path)
		}
	}
	for _, moved := range a.Routes {
		paths = append(paths, moved)
	}
	slices.Sort(paths)
	text, _ := json.Marshal(paths) // marshaling strings cannot fail
	return caddy.ModuleMap{"path": text}
}
