// Package refusal has the one table of what each failure answers: a status, an error code,
// a challenge, and a sentence that may be shown.
package refusal

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Reason names the check that refused a request. It is the `reason` of the
// debug log lines, and that of refusals in `caddy_jwt_decisions_total`, so its
// values are few, fixed, and never taken from a request.
type Reason string

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
	UserID               Reason = "user_id"
	Scope                Reason = "scope"
	Role                 Reason = "role"
	Claim                Reason = "claim"
	Expression           Reason = "expression"
	Revoked              Reason = "revoked"
	CrossOrigin          Reason = "cross_origin"
	Path                 Reason = "path"

	// These are of the account routes.
	Body             Reason = "body"
	BodyTooLarge     Reason = "body_too_large"
	MediaType        Reason = "media_type"
	Method           Reason = "method"
	NoSuchRoute      Reason = "no_such_route"
	NoSignup         Reason = "no_signup"
	Properties       Reason = "properties"
	WrongCredentials Reason = "wrong_credentials"
	EmailTaken       Reason = "email_taken"
	RefreshToken     Reason = "refresh_token"
	OneTimeToken     Reason = "one_time_token"
	Throttled        Reason = "throttled"
	HashQueueFull    Reason = "hash_queue_full"
	StoreUnavailable Reason = "store_unavailable"
	StoreFull        Reason = "store_full"

	// These are of log-ins at other providers.
	LoginState          Reason = "login_state"
	LoginsFull          Reason = "logins_full"
	LoginDenied         Reason = "login_denied"
	LoginRefused        Reason = "login_refused"
	LoginNotFresh       Reason = "login_not_fresh"
	ProviderUnavailable Reason = "provider_unavailable"
	AccountExists       Reason = "account_exists"
	IdentityTaken       Reason = "identity_taken"
	EmailUnverified     Reason = "email_unverified"
	SignupClosed        Reason = "signup_closed"
	Disabled            Reason = "disabled"
	LogoutToken         Reason = "logout_token"
	NotConfirmed        Reason = "not_confirmed"
	LastLogin           Reason = "last_login"
)

// Error is a refusal: every error that [Verifier.Verify] returns is one.
type Error struct {
	// Reason is the check that failed.
	Reason Reason
	// Detail is for logs: what was expected and what came. What came from the
	// token is quoted and cut short in it, and it never holds the token.
	Detail string
	// Scope is the scope that a [Scope] refusal asks for (RFC 6750 §3).
	Scope string
	// RetryAfter says when another try may succeed. It is told as a
	// Retry-After header in whole seconds, 0 for none.
	RetryAfter time.Duration
	// Properties are those of a [Properties] refusal.
	Properties []PropertyError
}

// PropertyError says what is wrong with a property of a JSON body or a field
// of a form.
type PropertyError struct {
	// Path of the property, as a JSON Pointer (RFC 6901).
	Path string `json:"path"`
	// Code is the rule of JSON Schema that is not met, such as required.
	Code string `json:"code"`
	// Message says what is wrong, to be read after the property's name.
	Message string `json:"message"`
	// Info has the rule's parameters.
	Info map[string]any `json:"info"`
}

// Error says which check failed, and the detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Reason.Answer().Description
	}
	return e.Reason.Answer().Description + ": " + e.Detail
}

// Property is the refusal of one property of a request's body: what is wrong with it,
// under a code for programs.
func Property(path, code string, err error) *Error {
	return &Error{Reason: Properties, Properties: []PropertyError{{Path: "/" + path, Code: code, Message: err.Error(), Info: map[string]any{}}}}
}

func New(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// Quoted makes a value from a token fit for a log line.
func Quoted(s string) string {
	const longest = 64
	if len(s) > longest {
		return fmt.Sprintf("%q and %d more bytes", s[:longest], len(s)-longest)
	}
	return fmt.Sprintf("%q", s)
}

// Answer is what a client is told.
type Answer struct {
	// Status of the answer.
	Status int
	// Name of the error in the JSON body.
	Name string
	// Code of the error in the JSON body and in `{http.jwt.error}`; with a
	// challenge it is also the error of RFC 6750 §3.1, except where the client
	// sent no credentials, for which that section asks for none.
	Code string
	// Challenge tells whether a WWW-Authenticate header goes with it.
	Challenge bool
	// Description says which check failed, in the characters that RFC 6750 §3
	// allows. It holds nothing of the token or the configuration.
	Description string
}

// All are those of the table, in order.
func All() []Reason { return slices.Sorted(maps.Keys(refusals)) }

// Answer is what the table has for the reason.
func (r Reason) Answer() Answer { return refusals[r] }

// refusals is the one table of what each failure answers.
var refusals = map[Reason]Answer{
	NoCredentials: {401, "UnauthorizedError", "credentials_required", true, "no bearer token was sent"},

	MalformedCredentials: {400, "BadRequestError", "invalid_request", true, "the credentials must be one scheme and one token, as in Authorization: Bearer xx.yy.zz"},
	SeveralTokens:        {400, "BadRequestError", "invalid_request", true, "more than one token was sent"},

	TokenTooLarge:  {401, "UnauthorizedError", "invalid_token", true, "the token is too large"},
	MalformedToken: {401, "UnauthorizedError", "invalid_token", true, "the token is not a signed JWT in compact form"},
	Header:         {401, "UnauthorizedError", "invalid_token", true, "the token header is not valid"},
	TokenType:      {401, "UnauthorizedError", "invalid_token", true, "the token is of another type than an access token"},
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
	UserID:         {401, "UnauthorizedError", "invalid_token", true, "the token names no user"},

	Path: {400, "BadRequestError", "invalid_request", false, "the path can be read in more than one way; send it without dot segments, encoded slashes, backslashes and parameters"},

	Scope:      {403, "ForbiddenError", "insufficient_scope", true, "the token lacks a scope that is needed here"},
	Role:       {403, "ForbiddenError", "forbidden", false, "the user lacks a role that is needed here"},
	Claim:      {403, "ForbiddenError", "forbidden", false, "the user lacks a claim that is needed here"},
	Expression: {403, "ForbiddenError", "forbidden", false, "the user is not allowed here"},

	Revoked:     {401, "UnauthorizedError", "invalid_token", true, "the session of the token has ended"},
	CrossOrigin: {403, "ForbiddenError", "cross_origin", false, "a page of another site may not do this"},

	Body:             {400, "BadRequestError", "invalid_body", false, "the body is not a JSON object whose names are unique"},
	BodyTooLarge:     {413, "PayloadTooLargeError", "body_too_large", false, "the body is too large"},
	MediaType:        {415, "UnsupportedMediaTypeError", "unsupported_media_type", false, "the Content-Type must be application/json"},
	Method:           {405, "MethodNotAllowedError", "method_not_allowed", false, "this route takes another method"},
	NoSuchRoute:      {404, "NotFoundError", "not_found", false, "there is nothing here"},
	NoSignup:         {404, "NotFoundError", "not_found", false, "sign-up is closed here; the site's administrator can open it by: signup open"},
	Properties:       {422, "UnprocessableEntityError", "VALIDATION_FAILED", false, "The request body is invalid. See error object `details` property for more info."},
	WrongCredentials: {401, "UnauthorizedError", "invalid_credentials", false, "Invalid email or password."},
	EmailTaken:       {409, "ConflictError", "email_taken", false, "Email value is already taken"},
	RefreshToken:     {401, "UnauthorizedError", "invalid_refresh_token", false, "the refresh token is not valid"},
	OneTimeToken:     {401, "UnauthorizedError", "invalid_link", false, "the link was used before or has expired; if you have just set a password by it, log in with that one"},
	Throttled:        {429, "TooManyRequestsError", "too_many_requests", false, "too many tries; wait before the next one"},
	HashQueueFull:    {503, "ServiceUnavailableError", "busy", false, "too many passwords are being checked; try again soon"},
	StoreUnavailable: {503, "ServiceUnavailableError", "store_unavailable", false, "the accounts cannot be read or changed now"},
	StoreFull:        {507, "InsufficientStorageError", "store_full", false, "there is no room left for accounts"},

	LoginState:          {400, "BadRequestError", "login_state", false, "this log-in was not begun in this browser, has expired, or was finished already; please begin it again"},
	LoginsFull:          {503, "ServiceUnavailableError", "busy", false, "too many people are logging in by a provider; try again soon, or log in another way"},
	LoginDenied:         {401, "UnauthorizedError", "login_denied", false, "the provider did not log you in, or you did not allow it to tell this site who you are"},
	LoginNotFresh:       {401, "UnauthorizedError", "login_not_fresh", false, "the provider did not ask you for your password again, which is wanted here; log out there first, or log in by password"},
	LoginRefused:        {401, "UnauthorizedError", "login_refused", false, "the answer of the provider is not valid, so nobody was logged in"},
	ProviderUnavailable: {503, "ServiceUnavailableError", "provider_unavailable", false, "the provider cannot be reached now; try again soon, or log in another way"},
	AccountExists:       {409, "ConflictError", "account_exists", false, "There is an account with this e-mail address already. Log in to it with its password now, and you are asked whether the two are to be connected. If it has no password, log in as you did before, and connect the provider on the account page."},
	IdentityTaken:       {409, "ConflictError", "identity_taken", false, "this user of the provider is connected with another account already"},
	EmailUnverified:     {403, "ForbiddenError", "email_unverified", false, "the provider does not vouch for an e-mail address of yours, so no account was made; verify it there, or log in with a password and connect the provider on your account page"},
	SignupClosed:        {403, "ForbiddenError", "signup_closed", false, "you have no account here, and accounts are not open to everybody"},
	Disabled:            {403, "ForbiddenError", "disabled", false, "the account is disabled"},
	NotConfirmed:        {403, "ForbiddenError", "confirmation_required", false, "your log-in is longer ago than 5 minutes; give your current password, or log in again first"},
	LastLogin:           {409, "ConflictError", "last_login", false, "there would be no way left to log in; set a password first, by a link from whoever runs this site"},
	LogoutToken:         {400, "BadRequestError", "invalid_request", false, "the logout token is not valid, or was used before"},

	KeysUnavailable: {503, "ServiceUnavailableError", "keys_unavailable", false, "the keys of the token issuer could not be loaded yet"},
}

func Of(err error) *Error {
	refusal, ok := errors.AsType[*Error](err)
	if !ok { // every error of the verifier, the sources and the rules is one
		return New(MalformedToken, "%v", err)
	}
	return refusal
}

// Told is the error as a site's handle_errors sees it in
// {http.error.message}: without the detail, which is for the operator.
func (e *Error) Told() error { return &Error{Reason: e.Reason} }
