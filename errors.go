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
	// RetryAfter says when keys may be there, for ReasonKeysUnavailable.
	RetryAfter time.Duration
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

	ReasonScope:      {403, "ForbiddenError", "insufficient_scope", true, "the token lacks a scope that is needed here"},
	ReasonRole:       {403, "ForbiddenError", "forbidden", false, "the user lacks a role that is needed here"},
	ReasonClaim:      {403, "ForbiddenError", "forbidden", false, "the user lacks a claim that is needed here"},
	ReasonExpression: {403, "ForbiddenError", "forbidden", false, "the user is not allowed here"},

	ReasonKeysUnavailable: {503, "ServiceUnavailableError", "keys_unavailable", false, "the keys of the token issuer could not be loaded yet"},
}
