package provider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of a request, in bytes: of a parameter, of a parameter that is returned unchanged,
// and in total.
const (
	maxParameterBytes = 4096
	maxEchoedBytes    = 1024
	maxRequestBytes   = 8192
)

var errRequestTooLong = refuse(
	"invalid_request", "the parameters have more than "+strconv.Itoa(maxRequestBytes)+" bytes in all",
)

// authorizationRequest is a validated request to log a user in at a client (OpenID Connect
// Core §3.1.2.1).
type authorizationRequest struct {
	client      *Client
	redirectURI string
	state       string
	mode        string // query, fragment or form_post

	responseType  string
	scopes        []string
	resources     []string // for which the access token is, empty for the issuer
	consent       []string // what needs consent, as of [Provider.access], with scopes of claims requested by name
	nonce         string
	challenge     string // of PKCE, S256
	prompts       []string
	maxAge        *time.Duration
	hintedSubject string // from id_token_hint or claims
	loginHint     string
	acrValues     []string
	claims        claimsRequest
}

func (a *authorizationRequest) has(part string) bool {
	return slices.Contains(strings.Fields(a.responseType), part)
}

func (a *authorizationRequest) openID() bool { return slices.Contains(a.scopes, "openid") }

func (a *authorizationRequest) prompt(name string) bool { return slices.Contains(a.prompts, name) }

// asked is an authorization request as it came from a browser.
type asked struct {
	id      string // of a request that waited for its user; empty for a new one
	waiting interaction
	request *authorizationRequest

	canceled bool // the user went back from the log-in
	posted   bool
	framed   bool // in a frame of another page
}

// readRequest reads an authorization request: a new one, or one that waited for its user. If
// there is an error and a request, the error is for its client.
func (p *Provider) readRequest(r *http.Request) (in asked, err error) {
	if !opensPage(r) {
		return in, errNotPage
	}
	in.posted, in.framed = r.Method == http.MethodPost, inFrame(r)
	if in.id, in.waiting, err = p.waiting(r); err == nil {
		in.canceled = in.id != "" && r.URL.Query().Has("cancel")
		in.request, err = p.parseRequest(r.Context(), in.waiting.Parameters)
	}
	return in, err
}

var errNotPage = &oauthError{
	status: http.StatusForbidden, code: "invalid_request",
	description: "a browser must open this URL as a page, not as an image or script of a page",
}

// waiting returns the request: a new one, or one that waited for its user.
func (p *Provider) waiting(r *http.Request) (id string, waiting interaction, err error) {
	parameters := r.URL.Query()
	if r.Method == http.MethodPost {
		if parameters, err = anyForm(r); err != nil {
			return "", waiting, err
		}
	}
	// which replace all others: what is beside them must be read in one way
	for _, name := range []string{"interaction", "request_uri"} {
		if parameters.Get(name) == "" {
			continue
		}
		for _, other := range append(
			[]string{"interaction", "request_uri", "request", "cancel"}, authorizationParameters...,
		) {
			if len(parameters[other]) > 1 && other != "resource" {
				return "", waiting, errTwice
			}
		}
	}
	if id = parameters.Get("interaction"); id != "" {
		waiting, err = p.openInteraction(r.Context(), id)
		return id, waiting, err
	}
	parameters, err = p.pushed(r.Context(), parameters)
	return "", interaction{Parameters: parameters, BeganAt: p.accounts.Now()}, err
}

// authorizationParameters are the supported parameters of an authorization request.
var authorizationParameters = []string{
	"client_id", "redirect_uri", "response_type", "response_mode", "scope", "state",
	"nonce", "code_challenge", "code_challenge_method", "prompt", "max_age", "login_hint",
	"id_token_hint", "acr_values", "claims", "resource", "ui_locales",
}

// known removes unsupported parameters, because the others are kept.
func known(values url.Values) url.Values {
	kept := make(url.Values)
	for _, name := range authorizationParameters {
		if all := values[name]; name == "resource" && len(all) > 0 {
			kept[name] = all
		} else if values.Get(name) != "" {
			kept.Set(name, values.Get(name))
		}
	}
	return kept
}

// parseRequest validates a request. If it is not valid, the returned request has what is
// needed to send the error to the client; if the client or redirect URI is not valid, it is
// nil (RFC 6749 §4.1.2.1).
func (p *Provider) parseRequest(ctx context.Context, values url.Values) (*authorizationRequest, error) {
	if len(values["client_id"]) > 1 || len(values["redirect_uri"]) > 1 {
		return nil, errTwice
	}
	client, err := p.clients.find(ctx, values.Get("client_id"))
	if errors.Is(err, errNotFound) {
		return nil, refuse("invalid_client", "there is no client with this client_id")
	}
	if err != nil {
		return nil, err
	}
	a := &authorizationRequest{client: client}
	redirect := values.Get("redirect_uri")
	if redirect == "" || !client.allowsRedirect(redirect) {
		p.noteRedirect(client, "redirect_uri", redirect, client.RedirectURIs)
		return nil, refuse(
			"invalid_request", "redirect_uri does not exactly match one that is registered for the client",
		)
	}
	a.redirectURI, a.state = redirect, values.Get("state")
	a.responseType = normalResponseType(values.Get("response_type"))
	a.mode = "query"
	if a.responseType != "code" && a.responseType != "" {
		a.mode = "fragment"
	}
	switch mode := values.Get("response_mode"); mode {
	case "":
	case "query", "fragment", "form_post":
		if mode == "query" && a.mode == "fragment" {
			return a, refuse(
				"invalid_request",
				"response_mode query is not allowed for tokens, which would be kept in logs and browser histories",
			)
		}
		a.mode = mode
	default:
		return a, refuse("invalid_request", "response_mode must be query, fragment or form_post")
	}
	return a, p.parseRest(ctx, a, values)
}

func (p *Provider) parseRest(ctx context.Context, a *authorizationRequest, values url.Values) (err error) {
	all := 0
	for _, name := range authorizationParameters {
		length, longest := len(strings.Join(values[name], "")), maxParameterBytes
		if name == "state" || name == "nonce" {
			longest = maxEchoedBytes
		}
		if length > longest {
			return refuse("invalid_request", name+" has more than "+strconv.Itoa(longest)+" bytes")
		}
		if all += length; all > maxRequestBytes {
			return errRequestTooLong
		}
		if len(values[name]) > 1 && name != "resource" { // other parameters are ignored, even if repeated
			return errTwice
		}
	}
	for parameter, code := range map[string]string{
		"request": "request_not_supported", "request_uri": "request_uri_not_supported",
		"registration": "registration_not_supported",
	} {
		if values.Get(parameter) != "" {
			return refuse(code, "the parameter "+parameter+" is not supported")
		}
	}
	switch {
	case values.Get("response_type") == "":
		return refuse("invalid_request", "response_type is missing")
	case !slices.Contains(responseTypes, a.responseType):
		return refuse("unsupported_response_type", "response_type must be one of "+strings.Join(responseTypes, ", "))
	case !slices.Contains(a.client.ResponseTypes, a.responseType):
		return refuse("unauthorized_client", "the client is not registered for this response_type")
	case a.has("code") && !slices.Contains(a.client.GrantTypes, grantCode):
		return refuse("unauthorized_client", "the client is not registered for authorization_code")
	}
	if a.resources, err = p.parseResources(values["resource"]); err != nil {
		return err
	}
	if a.scopes, err = p.parseScopes(a.client, a.resources, values.Get("scope")); err != nil {
		return err
	}
	if !a.has("code") { // OpenID Connect Core §11
		a.scopes = slices.DeleteFunc(a.scopes, func(scope string) bool { return scope == "offline_access" })
	}
	a.nonce = values.Get("nonce")
	switch {
	case a.has("id_token") && !a.openID():
		return refuse("invalid_scope", "an ID token requires the scope openid")
	case a.has("id_token") && a.nonce == "":
		return refuse(
			"invalid_request",
			"nonce is missing, but required for an ID token from this endpoint (OpenID Connect Core §3.2.2.1)",
		)
	}
	if err := a.parsePKCE(values); err != nil {
		return err
	}
	a.prompts, a.acrValues, a.loginHint = strings.Fields(values.Get("prompt")),
		strings.Fields(values.Get("acr_values")), values.Get("login_hint")
	for _, prompt := range a.prompts {
		if !slices.Contains([]string{"none", "login", "consent", "select_account"}, prompt) {
			return refuse("invalid_request", "prompt must be none, login, consent or select_account")
		}
	}
	if a.prompt("none") && len(a.prompts) > 1 {
		return refuse("invalid_request", "prompt none cannot be combined with other values")
	}
	if text := values.Get("max_age"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds < 0 || seconds > 1<<30 {
			return refuse("invalid_request", "max_age must be a number of seconds")
		}
		age := time.Duration(seconds) * time.Second
		a.maxAge = &age
	}
	if a.claims, err = parseClaimsRequest(values.Get("claims")); err != nil {
		return err
	}
	a.consent = p.access(a.scopes, a.resources)
	for _, scope := range p.limit(&a.claims, a.client) {
		if !slices.Contains(a.consent, scope) {
			a.consent = append(a.consent, scope)
		}
	}
	return p.parseHint(ctx, a, values.Get("id_token_hint"))
}

// parsePKCE requires a code challenge for public clients, and only accepts S256 (RFC 7636,
// RFC 9700 §2.1.1).
func (a *authorizationRequest) parsePKCE(values url.Values) error {
	a.challenge = values.Get("code_challenge")
	method := values.Get("code_challenge_method")
	switch {
	case a.challenge == "" && method != "":
		return refuse("invalid_request", "code_challenge_method is set without a code_challenge")
	case a.challenge == "" && a.client.Public && a.has("code"):
		return refuse(
			"invalid_request", "code_challenge is missing, and a public client must use PKCE with S256 (RFC 7636)",
		)
	case a.challenge == "":
		return nil
	case method != "S256":
		return refuse("invalid_request", "code_challenge_method must be S256")
	case !isChallenge(a.challenge):
		return refuse("invalid_request", "code_challenge must be the base64url of a SHA-256, 43 characters")
	}
	return nil
}

// parseScopes removes scopes that the client may not request or that mean nothing at the
// resources, and returns an error if none is left (RFC 6749 §3.3).
func (p *Provider) parseScopes(client *Client, resources []string, text string) ([]string, error) {
	if strings.TrimSpace(text) == "" && len(resources) > 0 {
		return p.defaultScopes(client, resources), nil
	}
	var granted []string
	for _, scope := range strings.Fields(text) {
		if slices.Contains(client.Scopes, scope) && !slices.Contains(granted, scope) {
			granted = append(granted, scope)
		}
	}
	if granted = p.scopesAt(granted, resources); len(granted) == 0 {
		return nil, refuse("invalid_scope", "scope contains no scope that the client is allowed to request")
	}
	return granted, nil
}

func (p *Provider) parseHint(ctx context.Context, a *authorizationRequest, hint string) error {
	if hint != "" {
		switch token, err := p.hints.Verify(ctx, hint, p.accounts.Now()); {
		case err == nil:
			a.hintedSubject = token.UserID
		case ofGoneKey(err): // it says who is to be logged in, and gives nothing
			a.hintedSubject = unverifiedClaim(hint, "sub")
		default:
			return refuse("invalid_request", "id_token_hint is not an ID token of this provider")
		}
	}
	for _, claims := range []map[string]*claimRequest{a.claims.IDToken, a.claims.UserInfo} {
		sub := claims["sub"]
		if sub == nil || sub.Value == nil && sub.Values == nil {
			continue
		}
		subject, isText := sub.Value.(string)
		if !isText || sub.Values != nil {
			return refuse("invalid_request", "claims: the value of sub must be a single string")
		}
		if a.hintedSubject != "" && a.hintedSubject != subject {
			return refuse("invalid_request", "id_token_hint and claims name different users")
		}
		a.hintedSubject = subject
	}
	supported := p.acrSupported()
	can := func(value any) bool {
		text, _ := value.(string)
		return slices.Contains(supported, text)
	}
	if acr := a.claims.IDToken["acr"]; acr != nil && acr.Essential &&
		(acr.Value != nil && !can(acr.Value) || acr.Values != nil && !slices.ContainsFunc(acr.Values, can)) {
		return refuse(
			"unmet_authentication_requirements", "acr can only be "+strings.Join(supported, " or "),
		)
	}
	return nil
}

// wantsLogin reports whether the request requires a new log-in.
func (a *authorizationRequest) wantsLogin() bool {
	return a.prompt("login") || a.prompt("select_account")
}
