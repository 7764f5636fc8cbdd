// Package login logs users in through another OpenID Provider: the option `login_with`, the
// Caddy module jwt.logins.oidc.
package login

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/config"
	"github.com/caddy-jwt/caddy-jwt/internal/help"
	"github.com/caddy-jwt/caddy-jwt/oidc/internal/protocol"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/caddy-jwt/caddy-jwt/store"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
)

func init() {
	caddy.RegisterModule(new(Login))
	config.RegisterBlock("login_with", new(Login).options())
}

// Login lets users log in through an OpenID Provider. It uses the authorization code flow
// of OpenID Connect Core 1.0 §3.1 with PKCE (RFC 7636, S256), `nonce`, and `iss` in the
// response (RFC 9207). Discovery runs when it is first needed, and again after a failure,
// so an outage of the provider does not affect anything else.
type Login struct {
	// Name of the log-in. It is part of its paths below the prefix of the accounts:
	// `/login/<name>` starts the log-in, `/callback/<name>` is its redirect URI, and
	// `/backchannel/<name>` receives the provider's logout tokens. Required.
	Name string `json:"name,omitempty"`

	// Label is the text of the button. Default: the name.
	Label string `json:"label,omitempty"`

	// Issuer is the `iss` of the provider: https, or http on this machine. Required.
	Issuer string `json:"issuer,omitempty"`

	// ClientID is the ID of this site at the provider. Required.
	ClientID string `json:"client_id,omitempty"`

	// ClientSecret is the secret of this site at the provider. Default: none, for a public
	// client.
	ClientSecret string `json:"client_secret,omitempty"`

	// Scopes are requested from the provider; `openid` is always included. Default: `openid
	// email profile`.
	Scopes []string `json:"scopes,omitempty"`

	// MapClaim maps claims of the provider to properties of a new user, which must be
	// listed in `profile` of the accounts. Write a claim within another one with a dot.
	// Default: none.
	MapClaim map[string]string `json:"map_claim,omitempty"`

	// TrustEmail accepts the provider's e-mail addresses even if they are not marked as
	// verified. Anybody who can choose any address there can then prevent its owner from
	// creating an account here, and can impersonate the owner if a rule or an application
	// uses the address. Default: `email_verified` must be true.
	TrustEmail bool `json:"trust_email,omitempty"`

	// RedirectURI is the redirect URI that is registered at the provider, if it differs
	// from the URL of the request because a proxy changes the host or path. It must end in
	// `/callback/<name>`. Default: derived from the request.
	RedirectURI string `json:"redirect_uri,omitempty"`

	provider *discovered
	log      *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (*Login) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "jwt.logins.oidc",
		New: func() caddy.Module { return new(Login) },
	}
}

// Provision resolves placeholders and checks the config.
func (l *Login) Provision(ctx caddy.Context) error {
	l.log = ctx.Logger()
	options := map[string]*string{
		"label": &l.Label, "issuer": &l.Issuer, "client_id": &l.ClientID,
		"client_secret": &l.ClientSecret, "redirect_uri": &l.RedirectURI,
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		value := *options[name]
		var err error
		if *options[name], err = caddy.NewReplacer().ReplaceOrErr(value, true, true); err != nil {
			if name == "client_secret" { // the text in braces may be part of the secret
				err = errors.New(
					"it has a placeholder without a value when the config is loaded; use {env.NAME} or {file./path}",
				)
			}
			return fmt.Errorf("%s: %s: %w", l.Name, name, err)
		}
		if value != "" && *options[name] == "" {
			return fmt.Errorf(
				"%s: %s is empty; is the environment variable set, and does the file exist?", l.Name, name,
			)
		}
	}
	if l.Label == "" {
		l.Label = l.Name
	}
	if len(l.Scopes) == 0 {
		l.Scopes = []string{"email", "profile"}
	}
	if !slices.Contains(l.Scopes, gooidc.ScopeOpenID) {
		l.Scopes = append([]string{gooidc.ScopeOpenID}, l.Scopes...)
	}
	if err := l.check(); err != nil {
		return fmt.Errorf("%s: %w", l.Name, err)
	}
	if withoutDiscovery(l.Issuer) {
		l.log.Warn("login_with "+l.Name+": "+l.Issuer+
			" has no OpenID discovery document, so nobody can log in through it; "+
			"set the issuer of an OpenID Provider, whose document is at <issuer>/.well-known/openid-configuration",
			help.See("provider-without-discovery"))
	}
	shared, _, err := discoveries.LoadOrNew(l.Issuer, func() (caddy.Destructor, error) {
		return newDiscovered(l.Issuer)
	})
	if err != nil {
		return err
	}
	l.provider = shared.(*discovered)
	return nil
}

// withoutDiscovery reports whether an issuer is a well-known service that only supports
// OAuth 2.0.
func withoutDiscovery(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && slices.Contains([]string{
		"github.com", "www.github.com", "api.github.com", "x.com", "api.x.com",
		"twitter.com", "api.twitter.com", "www.reddit.com", "bitbucket.org", "oauth.vk.com",
	}, u.Hostname())
}

func (l *Login) check() error {
	if u, err := url.Parse(l.Issuer); l.Issuer == "" || err != nil || u.Host == "" || u.RawQuery != "" ||
		u.Fragment != "" || u.User != nil || !protocol.SecureURL(u) {
		return fmt.Errorf("issuer %q: it must be the URL of the provider: https, or http on this machine, "+
			"as in https://accounts.google.com", l.Issuer)
	}
	if strings.ContainsAny(strings.TrimRight(l.ClientSecret, "\r\n"), "\r\n") {
		return errors.New("client_secret has several lines; write it on one line, as the provider shows it")
	}
	if l.ClientID == "" {
		return errors.New("client_id is missing; set the ID of this site at the provider")
	}
	for _, scope := range l.Scopes {
		if err := protocol.CheckScope(scope); err != nil {
			return err
		}
	}
	for claim, property := range l.MapClaim {
		if claim == "" || property == "" {
			return errors.New(
				"map_claim has an empty name; set a claim and a property, as in: map_claim given_name name",
			)
		}
	}
	if u, err := url.Parse(l.RedirectURI); l.RedirectURI != "" &&
		(err != nil || u.Host == "" || u.Fragment != "" || !protocol.SecureURL(u) ||
			!strings.HasSuffix(u.Path, "/callback/"+l.Name)) {
		return fmt.Errorf(
			"redirect_uri %q: it must be an https URL that ends in /callback/%s, "+
				"as in https://example.com/auth/callback/%s",
			l.RedirectURI, l.Name, l.Name,
		)
	}
	return nil
}

// Cleanup releases the provider's cached metadata.
func (l *Login) Cleanup() error {
	if l.provider == nil {
		return nil
	}
	_, err := discoveries.Delete(l.Issuer)
	return err
}

// Describe implements caddyjwt.ExternalLogin.
func (l *Login) Describe() accounts.ExternalLoginInfo {
	return accounts.ExternalLoginInfo{Name: l.Name, Label: l.Label, Profile: l.MapClaim}
}

// keptLogin is the state of a log-in until the provider's response.
type keptLogin struct {
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"` // of PKCE
}

// Begin implements caddyjwt.ExternalLogin.
func (l *Login) Begin(ctx context.Context, redirectURL, state string, maxAge *time.Duration) (string, []byte, error) {
	known, err := l.provider.get(ctx, l.log)
	if err != nil {
		return "", nil, err
	}
	kept := keptLogin{Nonce: store.RandomToken(32), Verifier: oauth2.GenerateVerifier()}
	text, err := json.Marshal(kept)
	if err != nil {
		return "", nil, err
	}
	options := []oauth2.AuthCodeOption{gooidc.Nonce(kept.Nonce), oauth2.S256ChallengeOption(kept.Verifier)}
	if maxAge != nil { // with max_age the ID token must have auth_time (OpenID Connect Core §2)
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.Itoa(int(*maxAge/time.Second))))
		if *maxAge == 0 {
			options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
		}
	}
	return l.config(known, redirectURL).AuthCodeURL(state, options...), text, nil
}

func (l *Login) config(known *metadata, redirectURL string) *oauth2.Config {
	if l.RedirectURI != "" {
		redirectURL = l.RedirectURI
	}
	endpoint := known.provider.Endpoint()
	// Do not detect the style by trying: a code can only be used once.
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if l.ClientSecret == "" ||
		len(known.AuthMethods) > 0 && !slices.Contains(known.AuthMethods, "client_secret_basic") {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return &oauth2.Config{
		ClientID: l.ClientID, ClientSecret: l.ClientSecret,
		Endpoint: endpoint, RedirectURL: redirectURL, Scopes: l.Scopes,
	}
}

// Finish implements caddyjwt.ExternalLogin.
func (l *Login) Finish(
	ctx context.Context, answer url.Values, redirectURL string, text []byte,
) (*accounts.ExternalIdentity, error) {
	var kept keptLogin
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, err
	}
	known, err := l.provider.get(ctx, l.log)
	if err != nil {
		return nil, err
	}
	// RFC 9207 §2.4: ignore a response from another provider, even an error.
	if iss := answer.Get("iss"); iss != l.Issuer && (iss != "" || answer.Has("iss") || known.IssInAnswer) {
		return nil, fmt.Errorf("iss of the response is %.100q, not %q", iss, l.Issuer)
	}
	if code := answer.Get("error"); code != "" {
		return nil, l.answeredError(code)
	}
	if answer.Get("code") == "" {
		return nil, errors.New("the response has no code")
	}
	identity, err := l.exchange(ctx, known, answer.Get("code"), redirectURL, &kept)
	l.noteOutage(err)
	return identity, err
}

// noteOutage logs when log-ins fail because of the provider or the config, and when they
// work again.
func (l *Login) noteOutage(err error) {
	log, failure := l.log.With(zap.String("login", l.Name)), (*refusal.Error)(nil)
	const works = "log-ins at the provider work again"
	switch {
	case err == nil:
		l.provider.logins.Note(log, time.Now(), nil, help.See("provider-fails"), "", works)
	case errors.Is(err, errUnknownClient):
		l.provider.logins.Note(
			log, time.Now(), err, help.See("provider-refuses-client"),
			"provider rejects this site's credentials; are client_id and client_secret right?", works,
		)
	case errors.As(err, &failure) && failure.Reason == refusal.ProviderUnavailable:
		l.provider.logins.Note(
			log, time.Now(), errors.New(failure.Detail), help.See("provider-fails"),
			"log-ins at the provider fail", works,
		)
	}
}

// errUnknownClient means that the provider rejects the client.
var errUnknownClient = errors.New("the provider rejects client_id or client_secret")

// exchange exchanges the code for tokens and returns the identity of the user.
func (l *Login) exchange(
	ctx context.Context, known *metadata, code, redirectURL string, kept *keptLogin,
) (*accounts.ExternalIdentity, error) {
	ctx = gooidc.ClientContext(ctx, l.provider.client)
	tokens, err := l.config(known, redirectURL).Exchange(ctx, code, oauth2.VerifierOption(kept.Verifier))
	if err != nil {
		return nil, l.exchangeError(err)
	}
	claims, err := l.verifyIDToken(ctx, known, tokens, kept.Nonce)
	if err != nil {
		return nil, err
	}
	if err := l.addUserinfo(ctx, known, tokens, claims); err != nil {
		return nil, err
	}
	return l.identity(claims)
}

// answeredError maps an error in the response (OpenID Connect Core §3.1.2.6, RFC 6749
// §4.1.2.1). The text of the provider is never shown.
func (l *Login) answeredError(code string) error {
	switch code {
	case "server_error", "temporarily_unavailable":
		return &refusal.Error{
			Reason: refusal.ProviderUnavailable, Detail: "it answered " + code, RetryAfter: firstPause,
		}
	case "access_denied", "login_required", "consent_required", "interaction_required", "account_selection_required":
		return &refusal.Error{Reason: refusal.LoginDenied, Detail: "it answered " + code}
	}
	return fmt.Errorf("the provider answered the error %.64q", code)
}

// exchangeError removes the content of the provider's response from an error.
func (l *Login) exchangeError(err error) error {
	answered, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return unavailable(err)
	}
	if status := answered.Response.StatusCode; status >= 500 || status == http.StatusTooManyRequests {
		return unavailable(fmt.Errorf("the token endpoint answered %d", status))
	}
	if answered.ErrorCode == "invalid_client" || answered.ErrorCode == "unauthorized_client" {
		return fmt.Errorf("%w: the token endpoint answered %.64q", errUnknownClient, answered.ErrorCode)
	}
	return fmt.Errorf("the token endpoint answered %d, error %.64q", answered.Response.StatusCode, answered.ErrorCode)
}

func unavailable(err error) error {
	return &refusal.Error{
		Reason: refusal.ProviderUnavailable, Detail: fmt.Sprintf("%.300s", err), RetryAfter: firstPause,
	}
}

// verifyIDToken verifies the ID token (OpenID Connect Core §3.1.3.7) and that it belongs to
// this log-in. It returns the claims.
func (l *Login) verifyIDToken(
	ctx context.Context, known *metadata, tokens *oauth2.Token, nonce string,
) (map[string]any, error) {
	raw, _ := tokens.Extra("id_token").(string)
	if raw == "" {
		return nil, errors.New("the token endpoint returned no id_token")
	}
	s := &signatures{keys: l.provider.keys}
	token, err := known.verifier(s, l.ClientID).Verify(ctx, raw)
	if err != nil {
		return nil, s.failure(err)
	}
	claims, err := claimsOf(token)
	if err != nil {
		return nil, err
	}
	if claims["nonce"] != nonce {
		return nil, errors.New("nonce of the ID token does not match this log-in")
	}
	if err := l.checkParties(token.Audience, claims); err != nil {
		return nil, err
	}
	if claims["at_hash"] != nil && !s.matches(token.AccessTokenHash, tokens.AccessToken) {
		return nil, errors.New("at_hash of the ID token does not match the access token")
	}
	if sub, _ := claims["sub"].(string); sub == "" {
		return nil, errors.New("sub of the ID token is missing")
	}
	if claims["iat"] == nil || token.IssuedAt.After(time.Now().Add(maxClockDifference)) {
		return nil, errors.New("iat of the ID token is missing, or in the future")
	}
	return claims, nil
}

// checkParties refuses a token with several audiences unless it was issued to this site.
func (l *Login) checkParties(audience []string, claims map[string]any) error {
	if azp := claims["azp"]; azp != l.ClientID && (azp != nil || len(audience) > 1) {
		return errors.New("azp of the ID token is not this site's client_id")
	}
	return nil
}

// claimsOf returns the claims of a token by their exact names.
func claimsOf(token interface{ Claims(into any) error }) (map[string]any, error) {
	var raw json.RawMessage
	if err := token.Claims(&raw); err != nil {
		return nil, err
	}
	return exactClaims(raw)
}

// exactClaims returns claims by their exact names, because encoding/json ignores case.
func exactClaims(raw []byte) (map[string]any, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // keeps every digit
	var claims map[string]any
	err := decoder.Decode(&claims)
	if err == nil && claims == nil {
		err = errors.New("the claims are not a JSON object")
	}
	return claims, err
}

const maxClaimsBytes = 64 << 10

func (l *Login) identity(claims map[string]any) (*accounts.ExternalIdentity, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	if len(text) > maxClaimsBytes {
		return nil, fmt.Errorf("the claims have more than %d bytes", maxClaimsBytes)
	}
	identity := &accounts.ExternalIdentity{Issuer: l.Issuer, Claims: text}
	identity.Subject, _ = claims["sub"].(string)
	identity.Email, _ = claims["email"].(string)
	identity.SessionID, _ = claims["sid"].(string)
	if at, ok := claims["auth_time"].(json.Number); ok {
		if seconds, err := at.Float64(); err == nil && seconds > 0 && seconds < 1<<40 {
			identity.AuthTime = time.Unix(int64(seconds), 0)
		}
	}
	// Some providers send a string.
	identity.EmailVerified = identity.Email != "" &&
		(l.TrustEmail || claims["email_verified"] == true || claims["email_verified"] == "true")
	return identity, nil
}

// VerifyLogout implements caddyjwt.ExternalLogin.
func (l *Login) VerifyLogout(ctx context.Context, raw string) (*accounts.ExternalLogout, error) {
	known, err := l.provider.get(ctx, l.log)
	if err != nil {
		return nil, err
	}
	s := &signatures{keys: l.provider.keys}
	token, err := known.verifier(s, l.ClientID).VerifyLogout(ctx, raw)
	if err != nil {
		return nil, s.failure(err)
	}
	claims, err := claimsOf(token)
	if err != nil {
		return nil, err
	}
	events, _ := claims["events"].(map[string]any)
	if _, isObject := events[protocol.LogoutEvent].(map[string]any); !isObject {
		return nil, fmt.Errorf("events has no %s", protocol.LogoutEvent)
	}
	if _, has := claims["nonce"]; has {
		return nil, errors.New("it has a nonce")
	}
	now := time.Now()
	switch typ := headerType(raw); {
	case typ != "" && typ != "logout+jwt" && typ != "jwt": // of which the last says nothing (RFC 7519 §5.1)
		return nil, errors.New("typ is not logout+jwt")
	case claims["iat"] == nil || token.IssuedAt.After(now.Add(maxClockDifference)):
		return nil, errors.New("iat is missing, or in the future")
	case token.IssuedAt.Before(now.Add(-maxLogoutAge)) || token.Expiry.After(token.IssuedAt.Add(maxLogoutAge)):
		return nil, fmt.Errorf("iat and exp are more than %s apart, or iat is older than that", maxLogoutAge)
	}
	return &accounts.ExternalLogout{
		Issuer: l.Issuer, Subject: token.Subject, SessionID: token.SessionID,
		ID: token.TokenID, ExpiresAt: token.Expiry,
	}, nil
}

const (
	maxClockDifference = 5 * time.Minute
	// maxLogoutAge is the maximum lifetime of a logout token, and how long its use is
	// remembered. The recommendation is 2 minutes (OpenID Connect Back-Channel Logout 1.0
	// §4).
	maxLogoutAge = time.Hour
)

// headerType returns the typ of a token (RFC 7515 §4.1.9).
func headerType(token string) string {
	header, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(header)
	var values map[string]any
	if err != nil || json.Unmarshal(text, &values) != nil {
		return "?"
	}
	typ, given := values["typ"]
	name, isText := typ.(string)
	if given && !isText {
		return "?"
	}
	return strings.TrimPrefix(strings.ToLower(name), "application/")
}

// UnmarshalCaddyfile sets the log-in up from Caddyfile tokens. Syntax:
//
//	login_with <name> {
//	    label         <text>
//	    issuer        <url>
//	    client_id     <id>
//	    client_secret <secret>
//	    scopes        <scope...>
//	    map_claim     <claim> <property>
//	    trust_email
//	    redirect_uri  <url>
//	}
//
// `map_claim` may be repeated.
func (l *Login) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.NextArg() || d.Val() == "" {
		return d.Errf("login_with takes a name and a block, as in: login_with google {")
	}
	l.Name = d.Val()
	if d.NextArg() {
		return d.Errf("login_with takes a name and a block, as in: login_with google {")
	}
	if err := config.ReadBlock(d, "login_with "+l.Name, l.options()); err != nil {
		return err
	}
	if l.Issuer == "" || l.ClientID == "" {
		return d.Errf("login_with %s needs issuer and client_id, as in: issuer https://accounts.google.com", l.Name)
	}
	return nil
}

func (l *Login) options() []config.Option {
	return []config.Option{
		{Name: "label", Read: config.Word("the text of its button, as in: label Google", &l.Label)},
		{
			Name: "issuer",
			Read: config.Word("the URL of the provider, as in: issuer https://accounts.google.com", &l.Issuer),
		},
		{Name: "client_id", Read: config.Word("the ID that the provider gave this site", &l.ClientID)},
		{Name: "client_secret", Read: config.Word(
			"the secret of this site at the provider, as in: client_secret {env.CLIENT_SECRET}", &l.ClientSecret,
		)},
		{Name: "scopes", Read: config.Words("scopes, as in: scopes openid email profile", &l.Scopes)},
		{Name: "map_claim", Read: l.readMapClaim, Repeatable: true},
		{Name: "trust_email", Read: config.Flag(&l.TrustEmail)},
		{
			Name: "redirect_uri",
			Read: config.Word("a URL, as in: redirect_uri https://example.com/auth/callback/"+l.Name, &l.RedirectURI),
		},
	}
}

func (l *Login) readMapClaim(b *config.Block, _ string) error {
	args := b.RemainingArgs()
	if len(args) != 2 {
		return b.Errf("map_claim takes a claim and a property, as in: map_claim given_name name")
	}
	if l.MapClaim == nil {
		l.MapClaim = make(map[string]string)
	}
	if l.MapClaim[args[0]] != "" {
		return b.Errf("map_claim %s is specified twice; a claim goes into one property", args[0])
	}
	l.MapClaim[args[0]] = args[1]
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner      = (*Login)(nil)
	_ caddy.CleanerUpper     = (*Login)(nil)
	_ caddyfile.Unmarshaler  = (*Login)(nil)
	_ accounts.ExternalLogin = (*Login)(nil)
)
