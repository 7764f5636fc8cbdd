package introspection

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/discovery"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/google/uuid"
)

const (
	// MaxResponseBytes is the maximum size of a response.
	MaxResponseBytes = 256 << 10

	jwtAnswer     = "application/token-introspection+jwt" // RFC 9701 §5
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

	// assertionLifetime is how long a client assertion is valid (RFC 7523 §3).
	assertionLifetime = time.Minute
	// maxAnswerAge is how old a signed response may be, so that nobody can replay it later.
	maxAnswerAge = time.Minute
)

// request asks the endpoint about a token (RFC 7662 §2.1). Errors contain neither the token nor
// a secret.
func (e *endpoint) request(ctx context.Context, token string) (remembered, error) {
	at, ctx, err := e.find(ctx)
	if err != nil {
		return remembered{}, err
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	if e.signer != nil {
		assertion, err := e.assertion(at)
		if err != nil {
			return remembered{}, err
		}
		form.Set("client_id", e.clientID)
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		return remembered{}, errors.New("the URL is not valid")
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if e.answers != nil {
		request.Header.Set("Accept", jwtAnswer+", application/json")
	}
	if e.secret != "" { // encoded before base64 (RFC 6749 §2.3.1)
		pair := url.QueryEscape(e.clientID) + ":" + url.QueryEscape(e.secret)
		request.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	}
	text, kind, err := e.send(request)
	if err != nil {
		return remembered{}, err
	}
	claims, err := e.read(ctx, text, kind)
	return remembered{claims: claims, bytes: len(text)}, err
}

// assertion returns a JWT that authenticates this site (RFC 7523 §3). Its audience is the
// issuer, which only the issuer is; the endpoint, if the issuer is unknown.
func (e *endpoint) assertion(at string) (string, error) {
	now := clock.Now()
	audience := e.issuer
	if audience == "" {
		audience = at
	}
	return e.signer.Sign("JWT", map[string]any{
		"iss": e.clientID, "sub": e.clientID, "aud": audience, "jti": uuid.NewString(),
		"iat": now.Unix(), "exp": now.Add(assertionLifetime).Unix(),
	})
}

// send returns the text of a good response and its media type.
func (e *endpoint) send(request *http.Request) (text []byte, kind string, err error) {
	response, err := e.client.Do(request)
	if failure, ok := errors.AsType[*url.Error](err); ok { // the error contains the whole URL
		err = fmt.Errorf("%s: %w", withoutSecrets(request.URL.String()), failure.Err)
	}
	if err != nil {
		return nil, "", err
	}
	defer response.Body.Close()
	from := withoutSecrets(request.URL.String())
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, "", fmt.Errorf("%w: %s answered %s", errClient, from, response.Status)
	default:
		return nil, "", &discovery.StatusError{From: from, Code: response.StatusCode, Status: response.Status}
	}
	text, err = io.ReadAll(io.LimitReader(response.Body, MaxResponseBytes+1))
	if err != nil {
		return nil, "", fmt.Errorf("reading %s: %w", from, err)
	}
	if len(text) > MaxResponseBytes {
		return nil, "", fmt.Errorf("the response of %s is larger than %d bytes", from, MaxResponseBytes)
	}
	kind, _, _ = mime.ParseMediaType(response.Header.Get("Content-Type"))
	return text, kind, nil
}

// verifyAnswers sets how responses that are JWTs are verified: by the keys of the issuer, and
// made for this client (RFC 9701 §5).
func (e *endpoint) verifyAnswers(issuer jwt.Issuer) (err error) {
	if len(issuer.Keys) == 0 || issuer.Name == "" || e.clientID == "" {
		return nil
	}
	e.answers, err = jwt.NewVerifier(jwt.VerifierConfig{
		Issuers: []jwt.Issuer{{
			Name: issuer.Name, MultiTenant: issuer.MultiTenant, Tenants: issuer.Tenants,
			Keys: issuer.Keys, Algorithms: issuer.Algorithms,
			Audience: []string{e.clientID}, TokenTypes: []string{"token-introspection+jwt"},
		}},
		Leeway: jwt.DefaultLeeway, AllowMissingExpiry: true, UserID: []string{"iss"}, // it has neither exp nor sub
	})
	return err
}

// read returns the claims of a response: nil if the token is inactive.
func (e *endpoint) read(ctx context.Context, text []byte, kind string) (jwt.Claims, error) {
	var claims jwt.Claims
	var err error
	if kind == jwtAnswer {
		claims, err = e.verify(ctx, strings.TrimSpace(string(text)))
	} else if claims, err = jwt.ParseClaims(text); err != nil {
		err = fmt.Errorf("the response is not JSON: %w; is the URL that of the introspection endpoint?", err)
	}
	if err != nil {
		return nil, err
	}
	switch claims["active"] {
	case true:
	case false:
		return nil, nil
	default: // also a string: nobody knows what it means
		return nil, errors.New("the response has no member active that is true or false")
	}
	if e.issuer != "" && claims["iss"] == nil { // the issuer says it, for rules that are bound to it
		claims["iss"] = e.issuer
	}
	return claims, nil
}

// verify returns the claims in a response that is a JWT (RFC 9701 §5).
func (e *endpoint) verify(ctx context.Context, text string) (jwt.Claims, error) {
	if e.answers == nil {
		return nil, errors.New("the response is a JWT, but there are no keys or no client_id to verify it with")
	}
	now := clock.Now()
	answer, err := e.answers.Verify(ctx, text, now)
	if err != nil {
		return nil, fmt.Errorf("the response is a JWT that is not valid: %w", err)
	}
	issued, ok := jwt.Time(answer.Claims["iat"])
	if !ok || now.Sub(issued) > maxAnswerAge+jwt.DefaultLeeway {
		return nil, errors.New("the response is a JWT whose iat is missing or too old")
	}
	claims, ok := answer.Claims["token_introspection"].(jwt.Claims)
	if !ok {
		return nil, errors.New("the response is a JWT without the object token_introspection")
	}
	return claims, nil
}

// document is the metadata of an issuer (OpenID Connect Discovery 1.0 §3, RFC 8414 §2).
type document struct {
	Issuer   string `json:"issuer"`
	Endpoint string `json:"introspection_endpoint"`
	Keys     string `json:"jwks_uri"`
}

// forbidHere prevents an issuer on another machine from naming an endpoint on this one.
func forbidHere(ctx context.Context, isHere bool) context.Context {
	if isHere {
		return ctx
	}
	return thismachine.Forbid(ctx)
}
