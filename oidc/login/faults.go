package login

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
)

// fault is what is wrong with the config or the provider, so that log-ins fail until somebody changes
// it: its text says what to change.
type fault string

const (
	faultRequest fault = "the provider refuses the authorization request; compare client_id, scopes, redirect_uri " +
		"and authorization_parameter with the application's page at the provider"
	faultScope  fault = "the provider refuses a scope; allow it there, or set other scopes"
	faultClient fault = "the provider rejects this site's credentials; are client_id and client_secret right? If " +
		"they are, try auth_method client_secret_post, which some providers need without saying so"
	faultExchange fault = "the provider refuses the code; does it know the redirect URI, and PKCE (else: " +
		"without_pkce)?"
	faultTokens  fault = "the token endpoint does not answer as RFC 6749 §5.1 says; is it the right URL?"
	faultIDToken fault = "the provider returned no ID token; is it an OpenID Provider? For OAuth 2.0 alone, set its " +
		"endpoints, or use a preset"
	faultNonce    fault = "the provider leaves out the nonce; if it never sends one, as LinkedIn, set without_nonce"
	faultToken    fault = "the ID token is not valid; compare issuer and client_id with the provider, and the clocks"
	faultTooLarge fault = "the token of the provider is too large; let it send fewer claims, such as only the groups " +
		"that are assigned to the application"
	faultKeys fault = "the key set of the provider is not usable; compare jwks_uri in its discovery document with " +
		"its documentation, and issuer with the provider"
	faultKey fault = "the ID token is signed with a key that the provider does not publish; compare jwks_uri in its " +
		"discovery document with its documentation; a provider that replaces its keys must publish new ones first"
	faultHash    fault = "at_hash of the ID token does not fit the access token; the provider must correct it"
	faultSubject fault = "the ID token has no ID of the user (sub); the provider must set it, maybe by a mapper of " +
		"the application"
	faultIssuedAt fault = "the ID token was issued in the future, or does not say when (iat); compare the clocks of " +
		"the provider and of this machine"
	faultNoIssuer fault = "the response has no iss, although the provider's metadata announces it " +
		"(authorization_response_iss_parameter_supported, RFC 9207); does a proxy remove it? If not, correct the " +
		"provider's metadata"
	faultIssuer   fault = "the token is from another issuer; write issuer exactly as the provider does"
	faultTenant   fault = "the ID token names no tenant; is the issuer one of Microsoft's?"
	faultGroups   fault = "let Entra send app roles, or only the groups that are assigned to the application"
	faultUserinfo fault = "userinfo is not valid; is userinfo_endpoint right?"
	faultID       fault = "userinfo has no ID of the user; set id_claim to the claim that has it"
	faultNoEmail  fault = "the provider sends no e-mail address; request the scope for it, or set email_claim to the " +
		"claim that has it"
	faultEmail fault = "the provider's address is not valid; correct it there, or set email_claim to the claim " +
		"that has it"
	faultVerified fault = "the provider does not say that the address is verified; if it verifies all of them, set " +
		"trust_email"
	faultAuthTime fault = "the provider was asked for a fresh log-in and did not return its time (auth_time)"
)

// faultyError is an error because of a fault.
type faultyError struct {
	fault fault
	error
	reason refusal.Reason
}

// Unwrap returns what the user sees.
func (e *faultyError) Unwrap() error { return refusal.New(e.reason, "%v", e.error) }

// faulty returns an error of a response that is not valid.
func faulty(f fault, format string, values ...any) error {
	return &faultyError{f, fmt.Errorf(format, values...), refusal.LoginRefused}
}

// misconfigured returns an error of a provider that can be reached, but with which no log-in can
// succeed.
func misconfigured(f fault, format string, values ...any) error {
	return &faultyError{f, fmt.Errorf(format, values...), refusal.ProviderMisconfigured}
}

// withoutFault returns an error about a token that anybody can send, so that it says nothing about the
// provider, unless the provider cannot be used at all.
func withoutFault(err error) error {
	if found, ok := errors.AsType[*faultyError](err); ok && found.reason != refusal.ProviderMisconfigured {
		return found.error
	}
	if found, ok := errors.AsType[*notAllowed](err); ok {
		return errors.New(found.why)
	}
	return err
}

// notAllowed is the error of a user who may not log in by `allow` or `tenant`.
type notAllowed struct{ why string }

// Error implements error.
func (e *notAllowed) Error() string { return e.why }

// Unwrap returns what the user sees.
func (e *notAllowed) Unwrap() error { return refusal.New(refusal.LoginNotAllowed, "%s", e.why) }

// complaintPause is how often the same fault is logged.
const complaintPause = 10 * time.Minute

// note logs why a log-in failed, if it is not the user's decision: an outage of the provider once, and
// when it ends; any other fault once in a while.
func (l *Login) note(err error) {
	log := l.log.With(zap.String("login", l.Name))
	const works = "log-ins at the provider work again"
	found, isFault := errors.AsType[*faultyError](err)
	failure, refused := errors.AsType[*refusal.Error](err)
	switch {
	case err == nil:
		l.provider.logins.Note(log, time.Now(), nil, help.See("provider-fails"), "", works)
	case isFault && found.fault == faultClient:
		l.provider.logins.Note(
			log, time.Now(), found.error, help.See("provider-refuses-client"), string(faultClient), works,
		)
	case isFault:
		l.complain(found.fault, found.error)
	case refused && failure.Reason == refusal.ProviderUnavailable:
		l.provider.logins.Note(
			log, time.Now(), errors.New(failure.Detail), help.See("provider-fails"),
			"log-ins at the provider fail", works,
		)
	}
}

// complain logs a fault, once in a while.
func (l *Login) complain(f fault, err error) {
	if l.said.IsNew(string(f), time.Now(), complaintPause) {
		l.log.Warn("log-ins fail: "+string(f), help.See("provider-faulty"), zap.String("login", l.Name), zap.Error(err))
	}
}

// noteEmail logs that new users cannot log in, because of their addresses. It is no error: a user who
// has an account can.
func (l *Login) noteEmail(identity *accounts.ExternalIdentity) {
	_, err := store.EmailKey(identity.Email)
	switch {
	case identity.EmailInvalid:
		l.complain(faultEmail, fmt.Errorf("the claim %s is not a text", l.EmailClaim))
	case identity.Email == "":
		l.complain(faultNoEmail, errors.New("no address"))
	case err != nil:
		l.complain(faultEmail, fmt.Errorf("the claim %s %w", l.EmailClaim, err))
	case !identity.EmailVerified:
		l.complain(faultVerified, errors.New("the address is not verified"))
	}
}

// answeredError maps an error in the response (OpenID Connect Core §3.1.2.6, RFC 6749
// §4.1.2.1). The text of the provider is never shown.
func answeredError(code string) error {
	switch code {
	case "server_error", "temporarily_unavailable":
		return &refusal.Error{
			Reason: refusal.ProviderUnavailable, Detail: "it answered " + code, RetryAfter: firstPause,
		}
	case "access_denied", "login_required", "consent_required", "interaction_required", "account_selection_required",
		"user_cancelled_authorize", "user_cancelled_login":
		return &refusal.Error{Reason: refusal.LoginDenied, Detail: "it answered " + code}
	case "invalid_scope":
		return faulty(faultScope, "the provider answered the error invalid_scope")
	}
	return faulty(faultRequest, "the provider answered the error %.64q", code)
}

// exchangeError removes the content of the provider's response from an error.
func exchangeError(err error) error {
	answered, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		if _, failed := errors.AsType[*url.Error](err); failed {
			return unavailable(err)
		}
		return misconfigured(faultTokens, "the token endpoint answered without an access token")
	}
	if status := answered.Response.StatusCode; status >= 500 || status == http.StatusTooManyRequests {
		return unavailable(fmt.Errorf("the token endpoint answered %d", status))
	}
	what := faultExchange
	switch answered.ErrorCode {
	case "invalid_client", "unauthorized_client", "incorrect_client_credentials": // the last one is GitHub's
		what = faultClient
	case "":
		what = faultTokens
	}
	return faulty(
		what, "the token endpoint answered %d, error %.64q", answered.Response.StatusCode, answered.ErrorCode,
	)
}

func unavailable(err error) error {
	return &refusal.Error{
		Reason: refusal.ProviderUnavailable, Detail: fmt.Sprintf("%.300s", err), RetryAfter: firstPause,
	}
}
