package accounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
)

// ExternalLogin is a way to log in at another provider: a Caddy module in the namespace
// `jwt.logins`, configured by the member `login_with` of the accounts config. The accounts
// store the state of a log-in, bind it to the browser, and find the account; the module
// implements the provider's protocol.
//
// All methods are safe for concurrent use. If an error is a [*refusal.Error], it is shown to the
// user; any other error means that the provider's response is not valid. Errors never
// contain tokens or secrets.
type ExternalLogin interface {
	// Describe returns the settings that the site needs.
	Describe() ExternalLoginInfo
	// Begin returns the URL to send the browser to, and the state that Finish needs when
	// the browser returns to redirectURL. Unless maxAge is nil, the provider must ask for
	// the password if the last time is longer ago (always if it is 0), and must return the
	// time. Error: [refusal.ProviderUnavailable].
	Begin(
		ctx context.Context, redirectURL, state string, maxAge *time.Duration,
	) (location string, kept []byte, err error)
	// Finish returns the user, from the query of the redirect and the state from Begin. The
	// caller has checked the OAuth state parameter. The query may contain an error of the
	// provider. Errors: [refusal.LoginDenied], [refusal.ProviderUnavailable].
	Finish(ctx context.Context, answer url.Values, redirectURL string, kept []byte) (*ExternalIdentity, error)
	// VerifyLogout verifies a logout token of the provider (OpenID Connect Back-Channel
	// Logout 1.0 §2.6), except for its reuse. Error: [refusal.ProviderUnavailable].
	VerifyLogout(ctx context.Context, token string) (*ExternalLogout, error)
}

// ExternalLoginInfo is what the site needs to know about an [ExternalLogin].
type ExternalLoginInfo struct {
	// Name is part of URL paths: lower-case letters, digits, - and _.
	Name string
	// Label is the text of its button.
	Label string
	// Profile maps claims to the properties that a new user gets from them.
	Profile map[string]string
	// Auto reports whether a browser is sent straight there, instead of to the log-in page.
	Auto bool
}

// ExternalIdentity is a user of a provider. Only Issuer and Subject together identify the
// user, because e-mail addresses can change owners.
type ExternalIdentity struct {
	// Issuer and Subject identify the user.
	Issuer, Subject string
	// Email of the user, empty if unknown. EmailVerified reports whether the provider has
	// verified it.
	Email         string
	EmailVerified bool
	// EmailInvalid reports that the provider sent an address that is not a text; then Email is empty.
	EmailInvalid bool
	// EmailTrusted reports that it only counts as verified because the config says so.
	EmailTrusted bool
	// Roles are those that the provider gives the user; nil if it gives none to anybody. At each
	// log-in they replace those that it gave before.
	Roles []string
	// SessionID is the provider's session ID; may be empty.
	SessionID string
	// AuthTime is when the user last entered the password at the provider; zero if unknown.
	AuthTime time.Time
	// Claims is a JSON object with all claims of the user.
	Claims []byte
}

// ExternalLogout is the content of a verified logout token. Subject or SessionID may be
// empty.
type ExternalLogout struct {
	// Issuer is the provider; Subject and SessionID say who has logged out.
	Issuer, Subject, SessionID string
	// ID is unique to the token, which is valid once until ExpiresAt.
	ID        string
	ExpiresAt time.Time
}

// ExternalRoutes maps routes to their paths below the prefix, which are followed by the
// name of a log-in.
var ExternalRoutes = map[string]string{"external": "/login/", "callback": "/callback/", "backchannel": "/backchannel/"}

// LoginProvider is a configured log-in.
type LoginProvider struct {
	ExternalLogin
	ExternalLoginInfo
}

var externalName = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// LoadLogins loads the modules of `login_with`.
func LoadLogins(ctx caddy.Context, settings *Config) ([]LoginProvider, error) {
	if len(settings.LoginWithRaw) == 0 {
		return nil, nil
	}
	if err := config.CheckModules("jwt.logins", settings.LoginWithRaw...); err != nil {
		return nil, err
	}
	raw := slices.Clone(settings.LoginWithRaw)
	loaded, err := ctx.LoadModule(settings, "LoginWithRaw")
	settings.LoginWithRaw = raw // LoadModule clears it, but it is part of the site's identity
	if err != nil {
		return nil, err
	}
	var logins []LoginProvider
	for _, module := range loaded.([]any) {
		login, ok := module.(ExternalLogin)
		if !ok {
			return nil, fmt.Errorf("%T is not an ExternalLogin", module)
		}
		info := login.Describe()
		if !externalName.MatchString(info.Name) {
			return nil, fmt.Errorf("the name %q is not valid; it is part of URL paths, so it may only contain "+
				"lower-case letters, digits, - and _, as in google", info.Name)
		}
		if settings.SecondFactor != "" && info.Name == strings.TrimPrefix(factorRoutes["factor"], "/login/") {
			return nil, fmt.Errorf(
				"the name %s is a path of second_factor, %s; give the provider another one",
				info.Name, settings.Path("factor"),
			)
		}
		if settings.Passkeys != nil && info.Name == strings.TrimPrefix(passkeyRoutes["passkey login"], "/login/") {
			return nil, fmt.Errorf(
				"the name %s is a path of passkeys, %s; give the provider another one",
				info.Name, settings.Path("passkey login"),
			)
		}
		if FindLogin(logins, info.Name) != nil {
			return nil, fmt.Errorf("the name %s is used twice; give each provider its own", info.Name)
		}
		for _, claim := range slices.Sorted(maps.Keys(info.Profile)) {
			if property := info.Profile[claim]; !slices.Contains(settings.Profile, property) {
				return nil, fmt.Errorf(
					"%s: map_claim %s %s: users have no property %s; add it to the accounts block, as in: profile %s",
					info.Name, claim, property, property, property,
				)
			}
		}
		if i := slices.IndexFunc(logins, func(l LoginProvider) bool { return l.Auto }); info.Auto && i >= 0 {
			return nil, fmt.Errorf("%s and %s both have auto_login; a browser can only be sent to one of them",
				logins[i].Name, info.Name)
		}
		logins = append(logins, LoginProvider{login, info})
	}
	return logins, nil
}

// FindLogin returns the log-in with the name, or nil.
func FindLogin(logins []LoginProvider, name string) *LoginProvider {
	i := slices.IndexFunc(logins, func(l LoginProvider) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return &logins[i]
}

// RefuseLogin converts an error of an ExternalLogin to a refusal.
func RefuseLogin(err error) *refusal.Error {
	if refusal, ok := errors.AsType[*refusal.Error](err); ok {
		return refusal
	}
	return refusal.New(refusal.LoginRefused, "%v", err)
}

// PendingLifetime is how long a user may take to log in at a provider.
const PendingLifetime = 10 * time.Minute

// KindPending is the kind of the records of log-ins at providers that are under way.
const KindPending = "external log-in"

// PendingKept is the maximum number of log-ins without a session that are stored within
// PendingLifetime, for all clients together.
var PendingKept = 20_000 // a test sets another
