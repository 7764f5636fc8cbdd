// Package refusal has the table of responses to failures: for each, a status, an error code,
// a challenge and a description that may be shown to users.
package refusal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Reason names the check that refused a request. It is the `reason` in debug log lines and,
// for refusals, in `caddy_jwt_decisions_total`. Its values are few and fixed, and are never
// taken from a request.
type Reason string

// DocsURL is where the documents are.
const DocsURL = "https://github.com/caddy-jwt/caddy-jwt/blob/main/docs/"

// HelpURL is where the entries of docs/troubleshooting.md are, which explain reasons and warnings.
const HelpURL = DocsURL + "troubleshooting.md#"

// Help returns the URL of the entry about the reason.
func (r Reason) Help() string { return HelpURL + string(r) }

// Error is the name of the reason. It makes a reason an error, so that errors.Is(err,
// refusal.Expired) reports whether a token was refused because it has expired.
func (r Reason) Error() string { return string(r) }

// The reasons for which a request is refused.
const (
	NoCredentials        Reason = "no_credentials"
	MalformedCredentials Reason = "malformed_credentials"
	SeveralTokens        Reason = "several_tokens"
	TokenTooLarge        Reason = "token_too_large"
	MalformedToken       Reason = "malformed_token"
	Header               Reason = "header"
	TokenType            Reason = "token_type"
	Claims               Reason = "claims"
	Issuer               Reason = "issuer"
	Algorithm            Reason = "algorithm"
	UnknownKey           Reason = "unknown_key"
	KeysStale            Reason = "keys_stale"
	KeysUnavailable      Reason = "keys_unavailable"
	Signature            Reason = "signature"
	MissingExpiry        Reason = "missing_expiry"
	Expired              Reason = "expired"
	NotYetValid          Reason = "not_yet_valid"
	Audience             Reason = "audience"
	Bound                Reason = "bound"
	UserID               Reason = "user_id"
	Credential           Reason = "credential"
	Inactive             Reason = "inactive"
	StorageDown          Reason = "storage_unavailable"
	IntrospectionDown    Reason = "introspection_unavailable"
	APIKey               Reason = "api_key"
	Network              Reason = "network"
	RateLimit            Reason = "rate_limit"
	Scope                Reason = "scope"
	Role                 Reason = "role"
	Claim                Reason = "claim"
	Expression           Reason = "expression"
	Authorizer           Reason = "authorizer"
	AuthorizerDown       Reason = "authorizer_unavailable"
	Revoked              Reason = "revoked"
	Authentication       Reason = "authentication"
	CrossOrigin          Reason = "cross_origin"
	Path                 Reason = "path"

	// Reasons of the account routes.
	Body             Reason = "body"
	BodyTooLarge     Reason = "body_too_large"
	MediaType        Reason = "media_type"
	Method           Reason = "method"
	NoSuchRoute      Reason = "no_such_route"
	NoSignup         Reason = "no_signup"
	Properties       Reason = "properties"
	WrongCredentials Reason = "wrong_credentials"
	EmailTaken       Reason = "email_taken"
	UsernameTaken    Reason = "username_taken"
	RefreshToken     Reason = "refresh_token"
	OneTimeToken     Reason = "one_time_token"
	MailedCode       Reason = "mailed_code"
	OtherBrowser     Reason = "other_browser"
	EmailNotVerified Reason = "email_not_verified"
	Throttled        Reason = "throttled"
	HashQueueFull    Reason = "hash_queue_full"
	StoreUnavailable Reason = "store_unavailable"
	StoreFull        Reason = "store_full"

	// Reasons of log-ins at other providers.
	LoginState          Reason = "login_state"
	LoginsFull          Reason = "logins_full"
	LoginDenied         Reason = "login_denied"
	LoginRefused        Reason = "login_refused"
	LoginNotFresh       Reason = "login_not_fresh"
	ProviderUnavailable Reason = "provider_unavailable"
	// ProviderMisconfigured means that a provider was reached, but no log-in by it can succeed.
	ProviderMisconfigured Reason = "provider_misconfigured"
	LoginNotAllowed       Reason = "login_not_allowed"
	EmailMissing          Reason = "email_missing"
	EmailInvalid          Reason = "email_invalid"
	AccountExists         Reason = "account_exists"
	IdentityTaken         Reason = "identity_taken"
	EmailUnverified       Reason = "email_unverified"
	SignupClosed          Reason = "signup_closed"
	Disabled              Reason = "disabled"
	LogoutToken           Reason = "logout_token"
	NotConfirmed          Reason = "not_confirmed"
	LastLogin             Reason = "last_login"

	// Reasons of second factors.
	FactorRequired    Reason = "second_factor_required"
	EnrolmentRequired Reason = "enrolment_required"
	ChallengeExpired  Reason = "challenge_expired"
	WrongCode         Reason = "wrong_code"
	CodeUsed          Reason = "code_used"
	FactorExists      Reason = "factor_exists"
	NoFactor          Reason = "no_factor"
	NoEnrolment       Reason = "no_enrolment"
	FactorNotProved   Reason = "factor_not_proved"
	FactorCodeNeeded  Reason = "factor_code_needed"
	FactorUnreadable  Reason = "factor_unreadable"

	// Reasons of passkeys.
	Passkey           Reason = "passkey"
	PasskeyExpired    Reason = "passkey_expired"
	PasskeyUnverified Reason = "passkey_unverified"
	PasskeyCloned     Reason = "passkey_cloned"
	PasskeyExists     Reason = "passkey_exists"
	TooManyPasskeys   Reason = "too_many_passkeys"
	NoPasskey         Reason = "no_passkey"
	PasskeyNeeded     Reason = "passkey_needed"

	// Reasons of the routes of API keys.
	TooManyKeys Reason = "too_many_keys"
	KeyChanged  Reason = "key_changed"
	KeyNotOwn   Reason = "key_not_own"
)

// Error is a refusal. Every error that Verifier.Verify of package jwt returns is an *Error.
type Error struct {
	// Reason is the check that failed.
	Reason Reason
	// Detail is for logs: the expected and the actual value. Values from the token are
	// quoted and truncated; it never contains the token itself.
	Detail string
	// Scope is the scope that a [Scope] refusal requires (RFC 6750 §3).
	Scope string
	// Challenge continues a log-in for which a [FactorRequired] or [EnrolmentRequired] refusal asks
	// for more. It is secret.
	Challenge string
	// ACR lists the values of `acr` of which an [Authentication] refusal requires one, and MaxAge is
	// how long ago the user may have authenticated; 0 for any time (RFC 9470 §3).
	ACR    []string
	MaxAge time.Duration
	// RetryAfter is how long to wait before the next attempt. It is sent as a Retry-After
	// header in whole seconds; 0 sends none.
	RetryAfter time.Duration
	// Properties are the invalid properties, for a [Properties] refusal.
	Properties []PropertyError
}

// PropertyError describes an invalid property of a JSON body or field of a form.
type PropertyError struct {
	// Path of the property, as a JSON Pointer (RFC 6901).
	Path string `json:"path"`
	// Code is the JSON Schema rule that is violated, such as required.
	Code string `json:"code"`
	// Message describes the error; it reads on from the property's name.
	Message string `json:"message"`
	// Info has the parameters of the rule.
	Info map[string]any `json:"info"`
	// Cause is the error of which Message is the text in English, so that it can be translated.
	Cause error `json:"-"`
}

// Unwrap returns the reason, for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Reason }

// Error says which check failed, and the detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Reason.Answer().Description
	}
	return strings.TrimSuffix(e.Reason.Answer().Description, ".") + ": " + e.Detail
}

// Property returns the refusal of a single property of a request's body, with an error code
// for programs.
func Property(path, code string, err error) *Error {
	return &Error{Reason: Properties, Properties: []PropertyError{
		{Path: "/" + path, Code: code, Message: err.Error(), Info: map[string]any{}, Cause: err},
	}}
}

// New returns a refusal with a formatted detail.
func New(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// Quoted makes a value from a token safe for a log line.
func Quoted(s string) string {
	const longest = 64
	if len(s) > longest {
		return fmt.Sprintf("%q and more, %d bytes in all", s[:longest], len(s))
	}
	return fmt.Sprintf("%q", s)
}

// Answer is the response to a refusal.
type Answer struct {
	// Status is the HTTP status.
	Status int
	// Name is the error name in the JSON body.
	Name string
	// Code is the error code in the JSON body and in `{http.jwt.error}`. With a challenge
	// it is also the error of RFC 6750 §3.1, unless the client sent no credentials: then
	// that section requires a challenge without an error.
	Code string
	// Challenge reports whether the response has a WWW-Authenticate header.
	Challenge bool
	// Description describes the failed check. With a challenge it is a phrase, sent as
	// error_description in the characters that RFC 6750 §3 allows; otherwise it is a
	// sentence that pages show. It never contains data of the token or the configuration.
	Description string
}

// All returns all reasons, sorted.
func All() []Reason { return slices.Sorted(maps.Keys(refusals)) }

// Answer returns the response for the reason.
func (r Reason) Answer() Answer { return refusals[r] }

// refusals is the table of responses.
var refusals = map[Reason]Answer{
	NoCredentials: {401, "UnauthorizedError", "credentials_required", true, "no bearer token was sent"},

	MalformedCredentials: {
		400, "BadRequestError", "invalid_request", true,
		"the credentials must be a scheme and a token, as in Authorization: Bearer xx.yy.zz",
	},
	SeveralTokens: {400, "BadRequestError", "invalid_request", true, "more than one token was sent"},

	TokenTooLarge:  {401, "UnauthorizedError", "invalid_token", true, "the token is too large"},
	MalformedToken: {401, "UnauthorizedError", "invalid_token", true, "the token is not a signed JWT in compact form"},
	Header:         {401, "UnauthorizedError", "invalid_token", true, "the token header is not valid"},
	TokenType:      {401, "UnauthorizedError", "invalid_token", true, "the token is not an access token"},
	Claims:         {401, "UnauthorizedError", "invalid_token", true, "the token claims are not valid"},
	Issuer:         {401, "UnauthorizedError", "invalid_token", true, "the token issuer is not accepted"},
	Algorithm:      {401, "UnauthorizedError", "invalid_token", true, "the token algorithm is not accepted"},
	UnknownKey:     {401, "UnauthorizedError", "invalid_token", true, "the token was signed with an unknown key"},
	KeysStale:      {401, "UnauthorizedError", "invalid_token", true, "the keys of the token issuer are out of date"},
	Signature:      {401, "UnauthorizedError", "invalid_token", true, "the token signature is not valid"},
	MissingExpiry:  {401, "UnauthorizedError", "invalid_token", true, "the token has no expiry"},
	Expired:        {401, "UnauthorizedError", "invalid_token", true, "the token has expired"},
	NotYetValid:    {401, "UnauthorizedError", "invalid_token", true, "the token is not valid yet"},
	Audience:       {401, "UnauthorizedError", "invalid_token", true, "the token is meant for another audience"},
	Bound: {
		401, "UnauthorizedError", "invalid_token", true,
		"the token is bound to a key of the client and is not a bearer token",
	},
	UserID:     {401, "UnauthorizedError", "invalid_token", true, "the token names no user"},
	Credential: {401, "UnauthorizedError", "invalid_token", true, "the credential is not valid"},
	APIKey:     {401, "UnauthorizedError", "invalid_token", true, "the API key is not valid"},
	Network: {
		403, "ForbiddenError", "forbidden", false, "This API key must not be used from your network address.",
	},
	RateLimit: {
		429, "TooManyRequestsError", "too_many_requests", false, "Too many requests with this API key. Wait a while.",
	},

	Path: {
		400, "BadRequestError", "invalid_request", false,
		"The path is ambiguous. Send it without dot segments, encoded slashes, backslashes and parameters.",
	},

	Scope:      {403, "ForbiddenError", "insufficient_scope", true, "the token lacks a required scope"},
	Role:       {403, "ForbiddenError", "forbidden", false, "You do not have a role that is required here."},
	Claim:      {403, "ForbiddenError", "forbidden", false, "Your token does not have a claim that is required here."},
	Expression: {403, "ForbiddenError", "forbidden", false, "You are not allowed to do this."},

	Authorizer: {403, "ForbiddenError", "forbidden", false, "You are not allowed to do this."},
	AuthorizerDown: {
		503, "ServiceUnavailableError", "authorizer_unavailable", false,
		"Your request cannot be decided about right now. Try again in a few seconds.",
	},

	Revoked: {401, "UnauthorizedError", "invalid_token", true, "the session of the token has ended"},
	Authentication: {
		401, "UnauthorizedError", "insufficient_user_authentication", true,
		"a stronger or more recent authentication of the user is required",
	},
	CrossOrigin: {403, "ForbiddenError", "cross_origin", false, "A page of another site must not send this request."},

	Body:         {400, "BadRequestError", "invalid_body", false, "The body must be a JSON object with unique names."},
	BodyTooLarge: {413, "PayloadTooLargeError", "body_too_large", false, "The body is too large."},
	MediaType: {
		415, "UnsupportedMediaTypeError", "unsupported_media_type", false, "The Content-Type must be application/json.",
	},
	Method:      {405, "MethodNotAllowedError", "method_not_allowed", false, "This method is not allowed here."},
	NoSuchRoute: {404, "NotFoundError", "not_found", false, "There is no page at this address."},
	NoSignup: {
		404, "NotFoundError", "not_found", false,
		"Sign-up is closed on this site. Its administrator can open it with: signup open",
	},
	Properties: {
		422, "UnprocessableEntityError", "VALIDATION_FAILED", false,
		"The request body is invalid. See error object `details` property for more info.",
	},
	WrongCredentials: {401, "UnauthorizedError", "invalid_credentials", false, "Invalid email or password."},
	EmailTaken:       {409, "ConflictError", "email_taken", false, "Email value is already taken"},
	UsernameTaken: {
		409, "ConflictError", "username_taken", false,
		"This user name is taken. Choose another one. If you have just chosen it yourself, log in.",
	},
	RefreshToken: {401, "UnauthorizedError", "invalid_refresh_token", false, "The refresh token is not valid."},
	OneTimeToken: {401, "UnauthorizedError", "invalid_link", false, "This link has expired or was already used. " +
		"If you have just used it to set a password, log in with that password."},
	MailedCode: {401, "UnauthorizedError", "invalid_code", false, "This code is wrong, has expired or was already " +
		"used. The last mail has the code that counts; after several wrong codes, ask for a new one."},
	OtherBrowser: {403, "ForbiddenError", "password_required", false, "You asked for this in another browser. " +
		"Enter the password that you chose there, too."},
	EmailNotVerified: {403, "ForbiddenError", "email_not_verified", false, "Confirm your e-mail address first. " +
		"A mail with a code is on its way to you."},
	Throttled: {
		429, "TooManyRequestsError", "too_many_requests", false, "Too many attempts. Wait a while and try again.",
	},
	HashQueueFull: {503, "ServiceUnavailableError", "busy", false, "The server is busy. Try again in a few seconds."},
	StoreUnavailable: {
		503, "ServiceUnavailableError", "store_unavailable", false,
		"The accounts are temporarily unavailable. Try again later.",
	},
	StoreFull: {507, "InsufficientStorageError", "store_full", false, "The server has no space left for accounts."},

	LoginState: {
		400, "BadRequestError", "login_state", false,
		"This log-in has expired, is already complete, or was started in another browser. Please log in again.",
	},
	LoginsFull: {503, "ServiceUnavailableError", "busy", false, "Too many people are logging in through a " +
		"provider right now. Try again in a few seconds, or log in another way."},
	LoginDenied: {
		401, "UnauthorizedError", "login_denied", false,
		"The provider did not log you in, or you did not allow it to share your identity with this site.",
	},
	LoginNotFresh: {401, "UnauthorizedError", "login_not_fresh", false, "This site requires a fresh log-in, " +
		"but the provider did not ask for your password. Log out there first, or log in with your password here."},
	LoginRefused: {
		401, "UnauthorizedError", "login_refused", false,
		"The provider's response is not valid, so you were not logged in.",
	},
	ProviderMisconfigured: {502, "BadGatewayError", "provider_misconfigured", false, "Logging in through this " +
		"provider does not work, and trying again will not help. " +
		"Log in another way, or tell whoever runs this site."},
	LoginNotAllowed: {403, "ForbiddenError", "login_not_allowed", false, "Your account at the provider may not be " +
		"used to log in here. Log in there with another account, or ask whoever runs this site."},
	EmailMissing: {403, "ForbiddenError", "email_missing", false, "The provider did not tell this site an e-mail " +
		"address of yours, so no account was created. Add one there and allow it to be shared, or log in another way."},
	EmailInvalid: {403, "ForbiddenError", "email_invalid", false, "The e-mail address that the provider told this " +
		"site is not valid, so no account was created. Correct it there, or log in another way."},
	ProviderUnavailable: {
		503, "ServiceUnavailableError", "provider_unavailable", false,
		"The provider is temporarily unavailable. Try again later, or log in another way.",
	},
	AccountExists: {409, "ConflictError", "account_exists", false, "An account with this e-mail address already " +
		"exists. Log in to it with its password now; you can then connect the two. " +
		"If it has no password, log in the way you did before, and connect the provider on your account page."},
	IdentityTaken: {
		409, "ConflictError", "identity_taken", false,
		"Your account at the provider is already connected to another account here.",
	},
	EmailUnverified: {403, "ForbiddenError", "email_unverified", false, "The provider has not verified your e-mail " +
		"address, so no account was created. " +
		"Verify the address there, or log in with a password and connect the provider on your account page."},
	SignupClosed: {
		403, "ForbiddenError", "signup_closed", false, "You do not have an account here, and sign-up is closed.",
	},
	Disabled: {403, "ForbiddenError", "disabled", false, "This account is disabled."},
	NotConfirmed: {
		403, "ForbiddenError", "confirmation_required", false,
		"You logged in more than 5 minutes ago. Enter your current password, or log in again first.",
	},
	LastLogin: {409, "ConflictError", "last_login", false, "This is your only way to log in. Set a password first; " +
		"the operators of this site can send you a link for that."},
	FactorRequired: {
		401, "UnauthorizedError", "second_factor_required", false,
		"Enter the code of your authenticator app as well, or a recovery code.",
	},
	EnrolmentRequired: {
		401, "UnauthorizedError", "second_factor_enrolment_required", false,
		"This site requires a second step at each log-in. Set up an authenticator app first.",
	},
	ChallengeExpired: {
		401, "UnauthorizedError", "challenge_expired", false,
		"This log-in has expired or is already complete. Log in again.",
	},
	WrongCode: {
		401, "UnauthorizedError", "invalid_code", false,
		"This code is wrong. If your authenticator app shows it, check the clock of that device.",
	},
	CodeUsed: {
		401, "UnauthorizedError", "code_used", false,
		"This code was already used. Wait for the next one, which your app shows within 30 seconds.",
	},
	FactorExists: {
		409, "ConflictError", "factor_exists", false,
		"An authenticator app is set up already. To use another one, remove it first.",
	},
	NoFactor: {409, "ConflictError", "no_factor", false, "No authenticator app is set up."},
	NoEnrolment: {
		409, "ConflictError", "no_enrolment", false,
		"The setup of the authenticator app was not started or has expired. Start it again.",
	},
	FactorNotProved: {
		403, "ForbiddenError", "confirmation_required", false,
		"Enter your current password, a code of your authenticator app or a recovery code.",
	},
	FactorCodeNeeded: {
		403, "ForbiddenError", "confirmation_required", false,
		"Enter the code of your authenticator app as well, or a recovery code.",
	},
	PasskeyNeeded: {
		403, "ForbiddenError", "confirmation_required", false,
		"Use one of your passkeys first, to confirm that it is you.",
	},
	FactorUnreadable: {
		503, "ServiceUnavailableError", "second_factor_unavailable", false,
		"Codes of your authenticator app cannot be checked. Use a recovery code, or ask the operators of this site.",
	},
	Passkey: {
		401, "UnauthorizedError", "invalid_passkey", false,
		"This passkey is not valid here, or was removed. Log in another way.",
	},
	PasskeyExpired: {
		401, "UnauthorizedError", "passkey_expired", false,
		"This took longer than 5 minutes, or was done before. Try again.",
	},
	PasskeyUnverified: {
		401, "UnauthorizedError", "passkey_unverified", false,
		"Your device did not check that it is you. Use a passkey with a fingerprint, a face or a PIN.",
	},
	PasskeyCloned: {
		401, "UnauthorizedError", "passkey_cloned", false,
		"There seems to be a copy of this passkey, so it was refused. Log in another way and remove it.",
	},
	PasskeyExists: {
		409, "ConflictError", "passkey_exists", false, "This passkey is already there.",
	},
	TooManyPasskeys: {
		409, "ConflictError", "too_many_passkeys", false,
		"You have as many passkeys as you can have. Remove one first.",
	},
	NoPasskey: {409, "ConflictError", "no_passkey", false, "You have no passkey for this site."},
	TooManyKeys: {
		409, "ConflictError", "too_many_keys", false, "You have as many API keys as you can have. Revoke one first.",
	},
	KeyNotOwn: {
		403, "ForbiddenError", "key_not_own", false, "An administrator made this API key. You can only revoke it.",
	},
	KeyChanged: {
		409, "ConflictError", "key_changed", false, "This API key has expired, or somebody else has just changed it.",
	},
	LogoutToken: {
		400, "BadRequestError", "invalid_request", false, "The logout token is not valid or was already used.",
	},

	Inactive: {401, "UnauthorizedError", "invalid_token", true, "the token is not active"},
	StorageDown: {
		503, "ServiceUnavailableError", "storage_unavailable", false,
		"The storage of this server is temporarily unavailable. Try again later.",
	},
	IntrospectionDown: {
		503, "ServiceUnavailableError", "introspection_unavailable", false,
		"The issuer cannot be asked about the token right now. Try again in a few seconds.",
	},
	KeysUnavailable: {
		503, "ServiceUnavailableError", "keys_unavailable", false, "The keys of the token issuer are not loaded yet.",
	},
}

// Of returns an error as a refusal.
func Of(err error) *Error {
	refusal, ok := errors.AsType[*Error](err)
	if !ok { // every error of the verifier, the sources and the rules is a refusal
		return New(MalformedToken, "%v", err)
	}
	return refusal
}

// Public returns the error for a site's handle_errors ({http.error.message}), without the
// detail, which is only for the operator.
func (e *Error) Public() error { return &Error{Reason: e.Reason} }
