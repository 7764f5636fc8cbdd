package accounts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddyserver/caddy/v2"
)

// ExternalLogin is a way to log in at somebody else's provider: a Caddy module
// in the namespace `jwt.logins`, named by the member `login_with` of the
// accounts config. The accounts keep what is under way, bind it to the browser,
// and know whose account it is; the module speaks the provider's protocol.
//
// All methods are safe for concurrent use. An error that is an [*Error] is what
// the user is told; any other means that the provider's answer is not good. No
// error has a token or a secret in its text.
type ExternalLogin interface {
	// Describe says what the site is to know of it.
	Describe() ExternalLoginInfo
	// Begin returns where the browser is sent, and what Finish needs when it
	// comes back to redirectURL with this state. Unless maxAge is nil, the
	// provider is to ask for the password if it did so longer ago, always if it
	// is 0, and to say when it did. [ReasonProviderUnavailable].
	Begin(ctx context.Context, redirectURL, state string, maxAge *time.Duration) (location string, kept []byte, err error)
	// Finish says who has logged in, by the query that the browser came back
	// with and what Begin kept for it. The state is checked already. Errors of
	// the provider are in the query too. [ReasonLoginDenied],
	// [ReasonProviderUnavailable].
	Finish(ctx context.Context, answer url.Values, redirectURL string, kept []byte) (*ExternalIdentity, error)
	// VerifyLogout verifies a token by which the provider says that somebody
	// has logged out there (OpenID Connect Back-Channel Logout 1.0 §2.6), but
	// for its reuse. [ReasonProviderUnavailable].
	VerifyLogout(ctx context.Context, token string) (*ExternalLogout, error)
}

// ExternalLoginInfo is what the site is to know of an [ExternalLogin].
type ExternalLoginInfo struct {
	// Name stands in paths: small letters, digits, - and _.
	Name string
	// Label is what its button says.
	Label string
	// Profile are the properties that a new user gets from claims: the name of
	// the claim to that of the property.
	Profile map[string]string
}

// ExternalIdentity is who has logged in at a provider. Issuer and Subject
// together say who it is, and nothing else does: addresses change hands.
type ExternalIdentity struct {
	Issuer, Subject string
	// Email of the user, empty if the provider does not say it. EmailVerified
	// tells whether the provider vouches for it.
	Email         string
	EmailVerified bool
	// SessionID is the provider's name of its session; may be empty.
	SessionID string
	// AuthTime is when the provider last asked for the password; zero if it does
	// not say so.
	AuthTime time.Time
	// Claims is a JSON object of all that the provider says of the user.
	Claims []byte
}

// ExternalLogout is what a verified log-out token says. Either of Subject and
// SessionID may be empty.
type ExternalLogout struct {
	Issuer, Subject, SessionID string
	// ID is unique to the token, which is good once until ExpiresAt.
	ID        string
	ExpiresAt time.Time
}

// ExternalRoutes are the paths, below the prefix, that have the name of a
// log-in below them.
var ExternalRoutes = map[string]string{"external": "/login/", "callback": "/callback/", "backchannel": "/backchannel/"}

// LoginProvider is a log-in of the config, ready for use.
type LoginProvider struct {
	ExternalLogin
	ExternalLoginInfo
}

var externalName = regexp.MustCompile(`^[a-z0-9_-]{1,64}$`)

// LoadLogins loads the modules of `login_with`.
func LoadLogins(ctx caddy.Context, config *Config) ([]LoginProvider, error) {
	if len(config.LoginWithRaw) == 0 {
		return nil, nil
	}
	raw := slices.Clone(config.LoginWithRaw)
	loaded, err := ctx.LoadModule(config, "LoginWithRaw")
	config.LoginWithRaw = raw // LoadModule clears it, and it tells sites apart
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
			return nil, fmt.Errorf("the name %q is not valid; it is part of URL paths, so it may only contain lower-case letters, digits, - and _, as in google", info.Name)
		}
		if FindLogin(logins, info.Name) != nil {
			return nil, fmt.Errorf("the name %s is used twice; give each provider its own", info.Name)
		}
		for _, claim := range slices.Sorted(maps.Keys(info.Profile)) {
			if property := info.Profile[claim]; !slices.Contains(config.Profile, property) {
				return nil, fmt.Errorf("%s: map_claim %s %s: users have no property %s; add it to the accounts block, as in: profile %s", info.Name, claim, property, property, property)
			}
		}
		logins = append(logins, LoginProvider{login, info})
	}
	return logins, nil
}

func FindLogin(logins []LoginProvider, name string) *LoginProvider {
	i := slices.IndexFunc(logins, func(l LoginProvider) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return &logins[i]
}

// RefuseLogin is what a user is told of an error of an ExternalLogin.
func RefuseLogin(err error) *refusal.Error {
	if refusal, ok := errors.AsType[*refusal.Error](err); ok {
		return refusal
	}
	return refusal.New(refusal.LoginRefused, "%v", err)
}

const PendingLifetime = 10 * time.Minute
const KindPending = "external log-in"

// PendingKept is how many log-ins of strangers may be kept within PendingLifetime,
// wherever they come from.
var PendingKept = 20_000 // a test sets another
