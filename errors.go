package caddyjwt

import (
	"fmt"
	"time"
)

// Reason names the check that refused a request. It is the `reason` of the
// debug log lines, and that of refusals in `caddy_jwt_decisions_total`, so its
// values are few, fixed, and never taken from a request.
type Reason string

// The reasons for which a request is refused.
const (
	ReasonNoCredentials        Reason = "no_credentials"
	ReasonMalformedCredentials Reason = "malformed_credentials"
	ReasonSeveralTokens        Reason = "several_tokens"
	ReasonTokenTooLarge        Reason = "token_too_large"
	ReasonMalformedToken       Reason = "malformed_token"
	ReasonHeader               Reason = "header"
	ReasonTokenType            Reason = "token_type"
	ReasonClaims               Reason = "claims"
	ReasonIssuer               Reason = "issuer"
	ReasonAlgorithm            Reason = "algorithm"
	ReasonUnknownKey           Reason = "unknown_key"
	ReasonKeysStale            Reason = "keys_stale"
	ReasonKeysUnavailable      Reason = "keys_unavailable"
	ReasonSignature            Reason = "signature"
	ReasonMissingExpiry        Reason = "missing_expiry"
	ReasonExpired              Reason = "expired"
	ReasonNotYetValid          Reason = "not_yet_valid"
	ReasonAudience             Reason = "audience"
	ReasonUserID               Reason = "user_id"
	ReasonScope                Reason = "scope"
	ReasonRole                 Reason = "role"
	ReasonClaim                Reason = "claim"
	ReasonExpression           Reason = "expression"
	ReasonRevoked              Reason = "revoked"
	ReasonCrossOrigin          Reason = "cross_origin"
	ReasonPath                 Reason = "path"

	// These are of the account routes.
	ReasonBody             Reason = "body"
	ReasonBodyTooLarge     Reason = "body_too_large"
	ReasonMediaType        Reason = "media_type"
	ReasonMethod           Reason = "method"
	ReasonNoSuchRoute      Reason = "no_such_route"
	ReasonNoSignup         Reason = "no_signup"
	ReasonProperties       Reason = "properties"
	ReasonWrongCredentials Reason = "wrong_credentials"
	ReasonEmailTaken       Reason = "email_taken"
	ReasonRefreshToken     Reason = "refresh_token"
	ReasonOneTimeToken     Reason = "one_time_token"
	ReasonThrottled        Reason = "throttled"
	ReasonHashQueueFull    Reason = "hash_queue_full"
	ReasonStoreUnavailable Reason = "store_unavailable"
	ReasonStoreFull        Reason = "store_full"

	// These are of log-ins at other providers.
	ReasonLoginState          Reason = "login_state"
	ReasonLoginsFull          Reason = "logins_full"
	ReasonLoginDenied         Reason = "login_denied"
	ReasonLoginRefused        Reason = "login_refused"
	ReasonLoginNotFresh       Reason = "login_not_fresh"
	ReasonProviderUnavailable Reason = "provider_unavailable"
	ReasonAccountExists       Reason = "account_exists"
	ReasonIdentityTaken       Reason = "identity_taken"
	ReasonEmailUnverified     Reason = "email_unverified"
	ReasonSignupClosed        Reason = "signup_closed"
	ReasonDisabled            Reason = "disabled"
	ReasonLogoutToken         Reason = "logout_token"
	ReasonNotConfirmed        Reason = "not_confirmed"
	ReasonLastLogin           Reason = "last_login"
)

// Error is a refusal: every error that [Verifier.Verify] returns is one.
type Error struct {
	// Reason is the check that failed.
	Reason Reason
	// Detail is for logs: what was expected and what came. What came from the
	// token is quoted and cut short in it, and it never holds the token.
	Detail string
	// Scope is the scope that a ReasonScope refusal asks for (RFC 6750 §3).
	Scope string
	// RetryAfter says when another try may succeed. It is told as a
	// Retry-After header in whole seconds, 0 for none.
	RetryAfter time.Duration
	// Properties are those of a ReasonProperties refusal.
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
		return refusals[e.Reason].description
	}
	return refusals[e.Reason].description + ": " + e.Detail
}

func refuse(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// quoted makes a value from a token fit for a log line.
func quoted(s string) string {
	const longest = 64
	if len(s) > longest {
		return fmt.Sprintf("%q and %d more bytes", s[:longest], len(s)-longest)
	}
	return fmt.Sprintf("%q", s)
}

// refusal is what a client is told.
type refusal struct {
	// status of the answer.
	status int
	// name of the error in the JSON body.
	name string
	// code of the error in the JSON body and in `{http.jwt.error}`; with a
	// challenge it is also the error of RFC 6750 §3.1, except where the client
	// sent no credentials, for which that section asks for none.
	code string
	// challenge tells whether a WWW-Authenticate header goes with it.
	challenge bool
	// description says which check failed, in the characters that RFC 6750 §3
	// allows. It holds nothing of the token or the configuration.
	description string
}

// refusals is the one table of what each failure answers.
var refusals = map[Reason]refusal{
	ReasonNoCredentials: {401, "UnauthorizedError", "credentials_required", true, "no bearer token was sent"},

	ReasonMalformedCredentials: {400, "BadRequestError", "invalid_request", true, "the credentials must be one scheme and one token, as in Authorization: Bearer xx.yy.zz"},
	ReasonSeveralTokens:        {400, "BadRequestError", "invalid_request", true, "more than one token was sent"},

	ReasonTokenTooLarge:  {401, "UnauthorizedError", "invalid_token", true, "the token is too large"},
	ReasonMalformedToken: {401, "UnauthorizedError", "invalid_token", true, "the token is not a signed JWT in compact form"},
	ReasonHeader:         {401, "UnauthorizedError", "invalid_token", true, "the token header is not valid"},
	ReasonTokenType:      {401, "UnauthorizedError", "invalid_token", true, "the token is of another type than an access token"},
	ReasonClaims:         {401, "UnauthorizedError", "invalid_token", true, "the token claims are not valid"},
	ReasonIssuer:         {401, "UnauthorizedError", "invalid_token", true, "the token issuer is not accepted"},
	ReasonAlgorithm:      {401, "UnauthorizedError", "invalid_token", true, "the token algorithm is not accepted"},
	ReasonUnknownKey:     {401, "UnauthorizedError", "invalid_token", true, "the token was signed with an unknown key"},
	ReasonKeysStale:      {401, "UnauthorizedError", "invalid_token", true, "the keys of the token issuer are out of date"},
	ReasonSignature:      {401, "UnauthorizedError", "invalid_token", true, "the token signature is not valid"},
	ReasonMissingExpiry:  {401, "UnauthorizedError", "invalid_token", true, "the token has no expiry"},
	ReasonExpired:        {401, "UnauthorizedError", "invalid_token", true, "the token has expired"},
	ReasonNotYetValid:    {401, "UnauthorizedError", "invalid_token", true, "the token is not valid yet"},
	ReasonAudience:       {401, "UnauthorizedError", "invalid_token", true, "the token is meant for another audience"},
	ReasonUserID:         {401, "UnauthorizedError", "invalid_token", true, "the token names no user"},

	ReasonPath: {400, "BadRequestError", "invalid_request", false, "the path can be read in more than one way; send it without dot segments, encoded slashes, backslashes and parameters"},

	ReasonScope:      {403, "ForbiddenError", "insufficient_scope", true, "the token lacks a scope that is needed here"},
	ReasonRole:       {403, "ForbiddenError", "forbidden", false, "the user lacks a role that is needed here"},
	ReasonClaim:      {403, "ForbiddenError", "forbidden", false, "the user lacks a claim that is needed here"},
	ReasonExpression: {403, "ForbiddenError", "forbidden", false, "the user is not allowed here"},

	ReasonRevoked:     {401, "UnauthorizedError", "invalid_token", true, "the session of the token has ended"},
	ReasonCrossOrigin: {403, "ForbiddenError", "cross_origin", false, "a page of another site may not do this"},

	ReasonBody:             {400, "BadRequestError", "invalid_body", false, "the body is not a JSON object whose names are unique"},
	ReasonBodyTooLarge:     {413, "PayloadTooLargeError", "body_too_large", false, "the body is too large"},
	ReasonMediaType:        {415, "UnsupportedMediaTypeError", "unsupported_media_type", false, "the Content-Type must be application/json"},
	ReasonMethod:           {405, "MethodNotAllowedError", "method_not_allowed", false, "this route takes another method"},
	ReasonNoSuchRoute:      {404, "NotFoundError", "not_found", false, "there is nothing here"},
	ReasonNoSignup:         {404, "NotFoundError", "not_found", false, "sign-up is closed here; the site's administrator can open it by: signup open"},
	ReasonProperties:       {422, "UnprocessableEntityError", "VALIDATION_FAILED", false, "The request body is invalid. See error object `details` property for more info."},
	ReasonWrongCredentials: {401, "UnauthorizedError", "invalid_credentials", false, "Invalid email or password."},
	ReasonEmailTaken:       {409, "ConflictError", "email_taken", false, "Email value is already taken"},
	ReasonRefreshToken:     {401, "UnauthorizedError", "invalid_refresh_token", false, "the refresh token is not valid"},
	ReasonOneTimeToken:     {401, "UnauthorizedError", "invalid_link", false, "the link was used before or has expired; if you have just set a password by it, log in with that one"},
	ReasonThrottled:        {429, "TooManyRequestsError", "too_many_requests", false, "too many tries; wait before the next one"},
	ReasonHashQueueFull:    {503, "ServiceUnavailableError", "busy", false, "too many passwords are being checked; try again soon"},
	ReasonStoreUnavailable: {503, "ServiceUnavailableError", "store_unavailable", false, "the accounts cannot be read or changed now"},
	ReasonStoreFull:        {507, "InsufficientStorageError", "store_full", false, "there is no room left for accounts"},

	ReasonLoginState:          {400, "BadRequestError", "login_state", false, "this log-in was not begun in this browser, has expired, or was finished already; please begin it again"},
	ReasonLoginsFull:          {503, "ServiceUnavailableError", "busy", false, "too many people are logging in by a provider; try again soon, or log in another way"},
	ReasonLoginDenied:         {401, "UnauthorizedError", "login_denied", false, "the provider did not log you in, or you did not allow it to tell this site who you are"},
	ReasonLoginNotFresh:       {401, "UnauthorizedError", "login_not_fresh", false, "the provider did not ask you for your password again, which is wanted here; log out there first, or log in by password"},
	ReasonLoginRefused:        {401, "UnauthorizedError", "login_refused", false, "the answer of the provider is not valid, so nobody was logged in"},
	ReasonProviderUnavailable: {503, "ServiceUnavailableError", "provider_unavailable", false, "the provider cannot be reached now; try again soon, or log in another way"},
	ReasonAccountExists:       {409, "ConflictError", "account_exists", false, "There is an account with this e-mail address already. Log in to it with its password now, and you are asked whether the two are to be connected. If it has no password, log in as you did before, and connect the provider on the account page."},
	ReasonIdentityTaken:       {409, "ConflictError", "identity_taken", false, "this user of the provider is connected with another account already"},
	ReasonEmailUnverified:     {403, "ForbiddenError", "email_unverified", false, "the provider does not vouch for an e-mail address of yours, so no account was made; verify it there, or log in with a password and connect the provider on your account page"},
	ReasonSignupClosed:        {403, "ForbiddenError", "signup_closed", false, "you have no account here, and accounts are not open to everybody"},
	ReasonDisabled:            {403, "ForbiddenError", "disabled", false, "the account is disabled"},
	ReasonNotConfirmed:        {403, "ForbiddenError", "confirmation_required", false, "your log-in is longer ago than 5 minutes; give your current password, or log in again first"},
	ReasonLastLogin:           {409, "ConflictError", "last_login", false, "there would be no way left to log in; set a password first, by a link from whoever runs this site"},
	ReasonLogoutToken:         {400, "BadRequestError", "invalid_request", false, "the logout token is not valid, or was used before"},

	ReasonKeysUnavailable: {503, "ServiceUnavailableError", "keys_unavailable", false, "the keys of the token issuer could not be loaded yet"},
}
