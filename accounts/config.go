package accounts

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts/password"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/metadata"
	"github.com/caddy-jwt/caddy-jwt/internal/texts"
	"github.com/caddy-jwt/caddy-jwt/signing"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Defaults and limits of [Config].
const (
	DefaultPrefix          = "/auth"
	defaultAccountsIssuer  = "caddy-jwt-accounts"
	defaultTokenLifetime   = 15 * time.Minute
	defaultRefreshLifetime = 30 * 24 * time.Hour
	defaultTrustBrowsers   = 30 * 24 * time.Hour
	shortestTokenLifetime  = time.Second
	AccountScope           = "account" // in the `scope` of tokens that may use the account routes

	// SignupLoginWith is the value of Signup with which nobody signs up with a password.
	SignupLoginWith = "login_with"
)

var (
	signupModes       = []string{"open", "closed", SignupLoginWith}
	secondFactorModes = []string{"optional", "required"}
	identifiers       = []string{IdentifierEmail, IdentifierUsername, IdentifierAny}
)

// Config configures the users of the site: how they log in, and what their tokens contain.
// The `jwt` handler and the `jwt_accounts` handler of a site must have the same Config.
type Config struct {
	// Prefix is the path of the account routes. Default: `/auth`.
	Prefix string `json:"prefix,omitempty"`

	// StoreRaw is the [store.UserStore], a module in the namespace `jwt.stores`.
	// Default: `{"module": "file"}`, a file in Caddy's data directory.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=jwt.stores inline_key=module"`

	// Signup controls who can create accounts. `open`: anybody who can reach the site, with a password
	// or through `login_with`; conditions of `login_with`, such as `allow`, do not concern those with a
	// password. `login_with`: new users of `login_with`, and nobody with a password. `closed`: only
	// administrators, with `caddy jwt user add`. Default: `closed`.
	Signup string `json:"signup,omitempty"`

	// Identifier is by what users sign up and log in: `email`, by an e-mail address. `username`, by a
	// name: 1 to 64 letters, digits and signs, without spaces and `@`, whose case does not count.
	// `any`, by either; then users may also have both. Everybody can learn whether a name is taken,
	// but with VerifyEmail not whether an address is. Default: `email`.
	Identifier string `json:"identifier,omitempty"`

	// SignupLimit is the maximum number of sign-ups per hour and client IP address. For
	// IPv6 it applies to each /64, and ten times the limit to each /48. Default: successful
	// sign-ups are not limited; refused ones are limited to 30 per minute, unless
	// `throttle` is off.
	SignupLimit int `json:"signup_limit,omitempty"`

	// Routes maps the names of routes to other paths. The names are `login`, `signup`,
	// `refresh`, `logout`, `whoami`, `password` and `jwks`.
	Routes map[string]string `json:"routes,omitempty"`

	// Issuer is the `iss` claim of the tokens. Other services need it to verify the tokens.
	// Default: `caddy-jwt-accounts`.
	Issuer string `json:"issuer,omitempty"`

	// Audience is the `aud` claim of the tokens. Default: the issuer.
	Audience []string `json:"audience,omitempty"`

	// TokenLifetime is how long an access token is valid. Default: `15m`.
	TokenLifetime caddy.Duration `json:"token_lifetime,omitempty"`

	// RefreshLifetime is how long a session lasts after the log-in, regardless of its use.
	// Default: `30d`.
	RefreshLifetime caddy.Duration `json:"refresh_lifetime,omitempty"`

	// Secret signs the tokens with HS256. Anybody who has the secret can create tokens.
	// Default: an ES256 key that Caddy creates once and keeps in its storage.
	Secret *config.Secret `json:"secret,omitempty"`

	// SigningKey signs the tokens instead of Secret: a private key as PEM (PKCS#8, PKCS#1
	// or SEC 1) or JWK, or the path of its file.
	SigningKey string `json:"signing_key,omitempty"`

	// Algorithm is that of the key that Caddy creates, if neither `secret` nor `signing_key` is set:
	// `ES256`, `RS256` or `EdDSA`. Some libraries only accept RS256 unless told otherwise. After a
	// change, tokens of before are refused, but sessions go on with new ones. Default: `ES256`.
	Algorithm string `json:"algorithm,omitempty"`

	// TokenClaims adds claims to the tokens: from the name of a claim to the property of the user,
	// which is `sub`, `email`, `username` or one of the profile. Users set the properties in `profile`
	// themselves, so a rule about such a claim protects nothing. A property without a value, or
	// for which there is no room (1024 bytes for all of them), is left out. Default: none.
	TokenClaims map[string]string `json:"token_claims,omitempty"`

	// DefaultRoles are the roles of users who sign up. Default: none.
	DefaultRoles []string `json:"default_roles,omitempty"`

	// PasswordMinLength is the minimum length of a password in characters, from 8 to 64.
	// Default: `8`.
	PasswordMinLength int `json:"password_min_length,omitempty"`

	// Profile lists the names of additional properties that users set themselves, at sign-up
	// and later, such as `name`. So a rule about one of them protects nothing. A value has at most
	// 4096 bytes. Default: none.
	Profile []string `json:"profile,omitempty"`

	// ThrottleFailures is how many log-ins to an account can fail within ThrottleWindow.
	// After that, an occasional attempt is still allowed. In addition, an address that has
	// logged in to the account before gets as many attempts again, any other address gets 3
	// (all of these together 10 times ThrottleFailures), and only the correct password
	// succeeds. With `identifier any` the name and the address of a user are counted apart, each up to
	// half of these numbers: a common count would tell which address belongs to a name.
	// Each client can fail 30 times per minute. -1 switches off both limits: then
	// passwords can be guessed as fast as the server can hash them. Default: `10`.
	ThrottleFailures int `json:"throttle_failures,omitempty"`

	// ThrottleWindow is the time window for ThrottleFailures. Default: `15m`.
	ThrottleWindow caddy.Duration `json:"throttle_window,omitempty"`

	// HashQueue is how many passwords can wait to be hashed; a single client can have an
	// eighth of them. Further requests get 503. The queue is fair between kinds of
	// requests, networks and clients; a log-in from an address that has logged in to the
	// account before has priority. Default: `64`.
	HashQueue int `json:"hash_queue,omitempty"`

	// LoginWithRaw are the providers that users can log in with instead of a password:
	// modules in the namespace `jwt.logins`, in the order of their buttons. A user of a
	// provider is identified by the provider's `iss` and `sub`. Default: none.
	LoginWithRaw []json.RawMessage `json:"login_with,omitempty" caddy:"namespace=jwt.logins inline_key=module"`

	// MailRaw is what sends mails to users: a module in the namespace `jwt.mailers`. Default:
	// no mails are sent.
	MailRaw json.RawMessage `json:"mail,omitempty" caddy:"namespace=jwt.mailers inline_key=module"`

	// SecondFactor is whether users prove at a log-in also by a second factor: codes of an
	// authenticator app (TOTP, RFC 6238) or recovery codes. `optional`: users can set one up, and are
	// then asked for it. `required`: a log-in without one leads to setting it up. Default: there are
	// no second factors, and nobody is asked for one.
	SecondFactor string `json:"second_factor,omitempty"`

	// SecondFactorRoles limits `required` to users with one of these roles; for others it is optional.
	// Default: all users.
	SecondFactorRoles []string `json:"second_factor_roles,omitempty"`

	// TrustBrowsers is how long a user can choose not to be asked for the second factor again in a
	// browser. -1: never. Default: `30d`.
	TrustBrowsers caddy.Duration `json:"trust_browsers,omitempty"`

	// Passkeys lets users log in with passkeys (WebAuthn). Default: there are none.
	Passkeys *Passkeys `json:"passkeys,omitempty"`

	// VerifyEmail requires users who sign up to confirm their address with a code or a link in a
	// mail. Until then there is no account, and the answer does not reveal whether the address has
	// one already. Users who exist but have not confirmed theirs do so at their next log-in with a
	// password. Requires MailRaw. Default: `false`.
	VerifyEmail bool `json:"verify_email,omitempty"`

	// EmailLogin lets users log in with a code in a mail instead of a password. Requires MailRaw.
	// Default: `false`.
	EmailLogin bool `json:"email_login,omitempty"`

	// Invitations are the roles whose users can invite others by mail, at `/auth/invite`, also where
	// `signup` is closed. Who is invited gets `default_roles`. Requires MailRaw. Default: nobody can;
	// administrators invite with `caddy jwt user invite`.
	Invitations []string `json:"invitations,omitempty"`

	// KeyPrefix lets users make API keys of their own at `/auth/keys`, which begin with it. The
	// directive sets it if the site accepts `api_keys` in the store of the accounts. Default:
	// there is no such page.
	KeyPrefix string `json:"key_prefix,omitempty"`

	// Name is the name of the site on its pages and in its mails. Default: its host.
	Name string `json:"name,omitempty"`

	// Logo is the picture beside the name: a path of the site, which must be readable without a
	// token, or an https URL. Each visitor of the pages asks the server of the URL for it.
	// Default: none.
	Logo string `json:"logo,omitempty"`

	// Accent is the colour of buttons and links: six digits, as in `2457c5`, or a name of CSS, as
	// in `teal`. With a `#` it needs quotes, because that begins a comment. It is made darker, or
	// lighter in the dark theme, until texts of this colour can be read (WCAG 2.2, contrast
	// 4.5:1). Default: `2457c5`.
	Accent string `json:"accent,omitempty"`

	// Languages is a folder of files that translate the texts of pages, answers and mails: `sv.json` adds
	// Swedish, and `de.json` replaces texts of the German that is there. `caddy jwt texts` prints the
	// texts to translate. Default: English, German, French, Spanish, Italian, Portuguese, Dutch, Polish,
	// Japanese and Chinese.
	Languages string `json:"languages,omitempty"`

	// Explorer is `off` for no page that lists the routes, and calls them with a token that is typed
	// in. The page shows nothing that is not in the OpenAPI document, which everybody can read.
	// Default: the page is at `/explorer` below the prefix.
	Explorer string `json:"explorer,omitempty"`

	// Templates is a folder of files that replace the pages with the same name:
	// `login.html`, `signup.html`, `account.html`, `keys.html`, `confirm.html`, `address.html`,
	// `code.html`, `factor.html`, `factors.html`, `passkeys.html`, `reset.html`, `message.html`,
	// `refused.html`, `explorer.html`, `layout.html`, `parts.html`, `style.css`, `script.js` and
	// `explorer.js`. Its folder `mail` replaces the texts of mails. Default: none.
	Templates string `json:"templates,omitempty"`

	texts *texts.Catalogue // see Texts
}

// Passkeys configures passkeys.
type Passkeys struct {
	// Domain is the domain that passkeys are for (the RP ID): that of the site, or one above it that
	// several sites share. If it is changed, the passkeys that users have no longer work. Default: the
	// host of Issuer if that is a URL of the site, or else the first host of the site.
	Domain string `json:"domain,omitempty"`
}

// accountRoutes maps the names of the routes to their paths below the prefix.
var accountRoutes = map[string]string{
	"login": "/login", "signup": "/signup", "refresh": "/refresh",
	"logout": "/logout", "whoami": "/whoami", "password": "/password",
	"sessions": "/sessions", "jwks": "/jwks.json", "openapi": "/openapi.json",
	"explorer": "/explorer", "explorer script": "/explorer.js",
	"account": "/account", "reset": "/reset", "style": "/style.css", "script": "/script.js",
	"connect": "/connect", "identities": "/identities", "keys": "/keys",
	"export": "/export", "delete": "/delete",
	"verify": "/verify", "forgot": "/forgot", "code": "/code", "email": "/email", "email_confirm": "/email/confirm",
	"invite": "/invite",
}

// factorRoutes are the routes of second factors, which exist only with SecondFactor.
var factorRoutes = map[string]string{
	"factor": "/login/factor", "factors": "/factors", "totp": "/factors/totp",
	"totp confirm": "/factors/totp/confirm", "recovery": "/factors/recovery", "step up": "/factors/prove",
}

// passkeyRoutes are the routes of passkeys, which exist only with Passkeys.
var passkeyRoutes = map[string]string{
	"passkeys": "/passkeys", "passkey options": "/passkeys/options", "passkey login": "/login/passkey",
	"passkey login options": "/login/passkey/options",
	"step up":               factorRoutes["step up"], "step up options": "/factors/prove/options",
}

// routes returns the paths of the routes that the config has, below the prefix.
func (a *Config) routes() map[string]string {
	all := maps.Clone(accountRoutes)
	if a.SecondFactor != "" {
		maps.Copy(all, factorRoutes)
	}
	if a.Passkeys != nil {
		maps.Copy(all, passkeyRoutes)
	}
	maps.DeleteFunc(all, func(route, _ string) bool { return !a.HasRoute(route) })
	return all
}

// fixed reports whether a route of this package is below /login, as those of login_with are.
func fixed(route string) bool { return cmp.Or(factorRoutes[route], passkeyRoutes[route]) != "" }

// HasRoute reports whether the config has a route: some exist only with an option.
func (a *Config) HasRoute(route string) bool {
	switch route {
	case "explorer", "explorer script":
		return a.Explorer == ""
	case "verify":
		return a.VerifyEmail
	case "code":
		return a.EmailLogin
	case "invite":
		return len(a.Invitations) > 0
	case "forgot", "email", "email_confirm":
		return len(a.MailRaw) > 0 && a.Identifier != IdentifierUsername
	}
	return true
}

// movableRoutes are the routes whose paths can be configured.
var movableRoutes = []string{"login", "signup", "refresh", "logout", "whoami", "password", "jwks"}

// Path returns the path of a route.
func (a *Config) Path(route string) string {
	if moved := a.Routes[route]; moved != "" {
		return moved
	}
	return a.Prefix + cmp.Or(accountRoutes[route], factorRoutes[route], passkeyRoutes[route])
}

// Resolve sets defaults and replaces placeholders. It returns an error if a value is not
// valid.
func (a *Config) Resolve() error {
	err := errors.Join(
		config.Resolve("prefix", &a.Prefix), config.Resolve("issuer", &a.Issuer),
		config.Resolve("templates", &a.Templates), config.Resolve("languages", &a.Languages),
		config.Resolve("key_prefix", &a.KeyPrefix),
		config.Resolve("name", &a.Name), config.Resolve("logo", &a.Logo), config.Resolve("accent", &a.Accent),
		config.Resolve("algorithm", &a.Algorithm), config.Resolve("identifier", &a.Identifier),
		config.Resolve("second_factor", &a.SecondFactor), config.ResolveList("second_factor", a.SecondFactorRoles),
		config.ResolveList("audience", a.Audience),
		config.ResolveList("default_roles", a.DefaultRoles), config.ResolveList("invitations", a.Invitations),
		config.ResolveList("profile", a.Profile),
	)
	for route, path := range a.Routes {
		err = errors.Join(err, config.Resolve(route, &path))
		a.Routes[route] = path
	}
	if value := a.Routes["signup"]; a.Signup == "" && slices.Contains(signupModes, value) { // from a placeholder
		a.Signup = value
		delete(a.Routes, "signup")
	}
	if err != nil {
		return err
	}
	config.SetDefault(&a.Prefix, DefaultPrefix)
	config.SetDefault(&a.Signup, "closed")
	config.SetDefault(&a.Identifier, IdentifierEmail)
	config.SetDefault(&a.Issuer, defaultAccountsIssuer)
	config.SetDefault(&a.TokenLifetime, caddy.Duration(defaultTokenLifetime))
	config.SetDefault(&a.RefreshLifetime, caddy.Duration(defaultRefreshLifetime))
	config.SetDefault(&a.PasswordMinLength, password.DefaultMinLength)
	config.SetDefault(&a.ThrottleFailures, DefaultThrottleFailures)
	config.SetDefault(&a.ThrottleWindow, caddy.Duration(defaultThrottleWindow))
	config.SetDefault(&a.HashQueue, password.DefaultQueue)
	if a.SecondFactor != "" {
		config.SetDefault(&a.TrustBrowsers, caddy.Duration(defaultTrustBrowsers))
	}
	if a.Passkeys != nil {
		if err := config.Resolve("passkeys", &a.Passkeys.Domain); err != nil {
			return err
		}
	}
	if len(a.Audience) == 0 {
		a.Audience = []string{a.Issuer}
	}
	if len(a.StoreRaw) == 0 {
		a.StoreRaw = json.RawMessage(`{"module":"file"}`)
	}
	if a.texts, err = texts.Open(a.Languages, a.Templates); err != nil {
		return err
	}
	return a.check()
}

// Texts returns the texts of pages, answers and mails, after [Config.Resolve].
func (a *Config) Texts() *texts.Catalogue { return a.texts }

func (a *Config) check() error {
	for route, path := range a.Routes {
		if !slices.Contains(movableRoutes, route) {
			return config.Unknown("route", route, movableRoutes)
		}
		if err := CheckRoutePath(path); err != nil && route == "signup" {
			return fmt.Errorf("signup must be open, closed or a path: %w", err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", route, err)
		}
	}
	paths := make(map[string]string)
	for route := range a.routes() {
		if other, taken := paths[strings.ToLower(a.Path(route))]; taken {
			return fmt.Errorf("%s and %s have the same path, %s", min(route, other), max(route, other), a.Path(route))
		}
		paths[strings.ToLower(a.Path(route))] = route
		for _, below := range a.externalPaths() {
			if !fixed(route) && strings.HasPrefix(strings.ToLower(a.Path(route)), below) {
				return fmt.Errorf(
					"%s: %s is below %s, which is reserved for login_with; choose another path",
					route, a.Path(route), below,
				)
			}
		}
	}
	if err := CheckRoutePath(a.Prefix); err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	if err := a.checkIdentifier(); err != nil {
		return err
	}
	switch {
	case !slices.Contains(signupModes, a.Signup):
		return fmt.Errorf("signup: %w", config.Unknown("value", a.Signup, signupModes))
	case a.Signup == SignupLoginWith && len(a.LoginWithRaw) == 0:
		return errors.New("signup login_with lets in new users of login_with, but there is none; add login_with, " +
			"or write signup open or signup closed")
	case time.Duration(a.TokenLifetime) < shortestTokenLifetime:
		return fmt.Errorf(
			"token_lifetime is %s; it must be at least %s", time.Duration(a.TokenLifetime), shortestTokenLifetime,
		)
	case a.RefreshLifetime < a.TokenLifetime:
		return fmt.Errorf(
			"refresh_lifetime is %s, shorter than token_lifetime, %s",
			time.Duration(a.RefreshLifetime), time.Duration(a.TokenLifetime),
		)
	case a.PasswordMinLength < password.DefaultMinLength || a.PasswordMinLength > 64:
		return fmt.Errorf(
			"password_min_length is %d; it must be from %d to 64", a.PasswordMinLength, password.DefaultMinLength,
		)
	case a.Secret != nil && a.SigningKey != "":
		return errors.New("secret and signing_key are both set; set only one of them")
	case a.Explorer != "" && a.Explorer != "off":
		return fmt.Errorf("explorer: %w", config.Unknown("value", a.Explorer, []string{"off"}))
	case a.Algorithm != "" && !slices.Contains(ownAlgorithms, a.Algorithm):
		return fmt.Errorf("algorithm: %w", config.Unknown("algorithm", a.Algorithm, ownAlgorithms))
	case a.Algorithm != "" && (a.Secret != nil || a.SigningKey != ""):
		return errors.New("algorithm is that of the key that Caddy creates, but secret or signing_key is set, " +
			"which determines it; remove one of them")
	case a.ThrottleWindow < 0 || a.ThrottleFailures < -1 || a.HashQueue < 0 || a.SignupLimit < 0:
		return errors.New("throttle, hash_queue and signup_limit must not be negative")
	case slices.ContainsFunc(a.Profile, func(name string) bool {
		return name == "" || slices.Contains([]string{"id", "email", "password", "roles"}, name)
	}):
		return errors.New("profile must not contain id, email, password or roles; these are not profile properties")
	case a.Identifier != IdentifierEmail && slices.ContainsFunc(a.Profile, isLoginName):
		return fmt.Errorf("profile must not contain %s, which with identifier %s is the name by which a user "+
			"logs in; remove it from profile", a.Profile[slices.IndexFunc(a.Profile, isLoginName)], a.Identifier)
	case slices.ContainsFunc(a.Profile, func(name string) bool { return strings.ContainsAny(name, ", \t") }):
		return fmt.Errorf("profile: separate values by spaces: profile %s",
			strings.Join(strings.Fields(strings.ReplaceAll(strings.Join(a.Profile, " "), ",", " ")), " "))
	case len(a.MailRaw) == 0 && a.VerifyEmail:
		return errors.New("verify_email needs mail; add it, as in: " + exampleMail)
	case len(a.MailRaw) == 0 && a.EmailLogin:
		return errors.New("email_login needs mail; add it, as in: " + exampleMail)
	case len(a.MailRaw) == 0 && len(a.Invitations) > 0:
		return errors.New("invitations need mail; add it, as in: " + exampleMail)
	case a.VerifyEmail && slices.Contains(a.Profile, "email_verified"):
		return errors.New("profile must not contain email_verified, which verify_email sets")
	case slices.ContainsFunc(a.Profile, func(name string) bool { return slices.Contains(notByUsers, name) }):
		return fmt.Errorf("profile must not contain %s: users cannot say that themselves, or forms of the pages use "+
			"the name", strings.Join(notByUsers, ", "))
	case slices.Contains(a.Audience, ""):
		return errors.New("audience has an empty value; remove it")
	}
	if err := a.checkSecondFactor(); err != nil {
		return err
	}
	if err := a.checkTokenClaims(); err != nil {
		return err
	}
	if err := store.CheckRoles(a.DefaultRoles); err != nil {
		return fmt.Errorf("default_roles: %w", err)
	}
	if err := store.CheckRoles(a.Invitations); err != nil {
		return fmt.Errorf("invitations: %w", err)
	}
	return a.checkLooks()
}

func (a *Config) checkSecondFactor() error {
	switch {
	case a.SecondFactor == "" && (len(a.SecondFactorRoles) > 0 || a.TrustBrowsers != 0):
		return errors.New("second_factor is not set; write: second_factor optional, or required")
	case a.SecondFactor != "" && !slices.Contains(secondFactorModes, a.SecondFactor):
		return fmt.Errorf("second_factor: %w", config.Unknown("value", a.SecondFactor, secondFactorModes))
	case a.SecondFactor == "optional" && len(a.SecondFactorRoles) > 0:
		return fmt.Errorf(
			"second_factor optional takes no roles; write: second_factor required %s",
			strings.Join(a.SecondFactorRoles, " "),
		)
	case a.TrustBrowsers < -1 || a.TrustBrowsers > 0 && time.Duration(a.TrustBrowsers) < time.Minute:
		return fmt.Errorf(
			"trust_browsers is %s; it must be at least 1m, or off", time.Duration(a.TrustBrowsers),
		)
	}
	if err := store.CheckRoles(a.SecondFactorRoles); err != nil {
		return fmt.Errorf("second_factor: %w", err)
	}
	return nil
}

const exampleMail = "mail smtp://user:{env.SMTP_PASSWORD}@mail.example.com { from no-reply@example.com }"

// CheckRoutePath returns an error if a path cannot be the path of a route.
func CheckRoutePath(path string) error {
	if !strings.HasPrefix(path, "/") || path == "/" || caddyhttp.CleanPath(path, true) != path ||
		strings.HasSuffix(path, "/") || strings.ContainsAny(path, "*?#%\\ ") {
		return fmt.Errorf("%q is not a valid path for a route; write it as in /auth or /users/login", path)
	}
	return nil
}

// externalPaths returns the paths, in lower case, below which login_with has its routes.
func (a *Config) externalPaths() map[string]string {
	paths := make(map[string]string)
	if len(a.LoginWithRaw) > 0 {
		for route, path := range ExternalRoutes {
			paths[route] = strings.ToLower(a.Prefix + path)
		}
	}
	return paths
}

// documentPaths returns the paths of the documents for services that verify the tokens: below
// the prefix and, if the issuer is a URL, below its path.
func (a *Config) documentPaths() (paths []string) {
	below := []string{a.Prefix}
	if issuer, err := url.Parse(a.Issuer); err == nil && issuer.Host != "" {
		below = append(below, strings.TrimSuffix(issuer.Path, "/"))
	}
	for _, prefix := range below {
		paths = append(paths, prefix+metadata.JWKSPath, prefix+metadata.DiscoveryPath)
	}
	return paths
}

// notByUsers are the names that a property of the profile cannot have.
var notByUsers = []string{
	"emailVerified", "token", "code", "decision", "return_to", "trust", "newPassword",
	"currentPassword",
}

// isLoginName reports whether a claim or property is the name by which users log in, if they have one.
func isLoginName(name string) bool { return name == "username" || name == "preferred_username" }

// routeID matches IDs that are allowed in paths.
var routeID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// routeNames returns a function that finds the route of a path, and the session ID or
// log-in name in the path. Like Caddy's path matcher, it ignores case.
func (a *Config) routeNames() func(path string) (name, id string) {
	names, below := make(map[string]string), a.externalPaths()
	below["session"] = strings.ToLower(a.Path("sessions")) + "/"
	below["key"] = strings.ToLower(a.Path("keys")) + "/"
	below["identity"] = strings.ToLower(a.Path("identities")) + "/"
	if a.SecondFactor != "" {
		below["browser"] = strings.ToLower(a.Path("factors")) + "/browsers/"
	}
	if a.Passkeys != nil {
		below["passkey"] = strings.ToLower(a.Path("passkeys")) + "/"
	}
	for _, path := range a.documentPaths() {
		names[strings.ToLower(path)] = "documents"
	}
	for route := range a.routes() {
		names[strings.ToLower(a.Path(route))] = route
	}
	if home := strings.ToLower(a.Prefix); names[home] == "" {
		names[home], names[home+"/"] = "home", "home"
	}
	return func(path string) (string, string) {
		lower := strings.ToLower(path)
		if name := names[lower]; name != "" {
			return name, ""
		}
		// a modified link still contains its token
		if name := names[strings.TrimSuffix(lower, "/")]; slices.Contains([]string{"reset", "verify", "code"}, name) {
			return name, ""
		}
		for route, prefix := range below {
			if strings.HasPrefix(lower, prefix) && routeID.MatchString(path[len(prefix):]) {
				return route, path[len(prefix):]
			}
		}
		return "", ""
	}
}

// ownKeys returns the name of the accounts' keys, and their algorithm.
func (a *Config) ownKeys() (name, algorithm string) {
	if a.Algorithm == "" || a.Algorithm == defaultAlgorithm {
		return a.KeyScope(), defaultAlgorithm
	}
	return a.KeyScope() + "\naccounts\n" + a.Algorithm, a.Algorithm
}

// OwnKeysPath returns where the accounts' keys are in Caddy's storage.
func (a *Config) OwnKeysPath() string {
	name, _ := a.ownKeys()
	return signing.Path(name)
}

// FurtherAlgorithms are the algorithms of OpenKeys.
var FurtherAlgorithms = []string{"ES256", "RS256"}

// FurtherKeys returns the name of additional keys, different from that of the accounts'
// keys.
func (a *Config) FurtherKeys(algorithm string) string { return a.KeyScope() + "\n" + algorithm }

// fingerprint returns a value that is equal for equal configs with equal keys. If a file or
// variable has another key at a reload, the fingerprint differs.
func (a *Config) fingerprint(fixed *signing.Signer) (string, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	sum.Write(text)
	switch {
	case fixed == nil:
	case a.Secret != nil:
		sum.Write(fixed.Key.([]byte))
	default:
		print, err := signing.Thumbprint(fixed.Key)
		if err != nil {
			return "", err
		}
		sum.Write([]byte(fixed.ID + "\n" + print))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// fixedKey returns the key in the config, or nil.
func (a *Config) fixedKey() (*signing.Signer, error) {
	switch {
	case a.Secret != nil:
		key, err := a.Secret.Key()
		if err != nil {
			return nil, fmt.Errorf("secret: %w", err)
		}
		return &signing.Signer{Key: key.Material, Algorithm: "HS256"}, nil
	case a.SigningKey != "":
		key, err := loadSigningKey(a.SigningKey)
		if err != nil {
			return nil, fmt.Errorf("signing_key: %w", err)
		}
		return &key, nil
	}
	return nil, nil
}

// KeyScope identifies sites whose tokens are interchangeable: sites with the same issuer
// and the same users.
func (a *Config) KeyScope() string { return a.Issuer + "\n" + string(a.StoreRaw) }
