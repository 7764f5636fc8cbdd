package login

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/accounts"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/store"
	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"
	"golang.org/x/oauth2"
)

// keptLogin is the state of a log-in until the provider's response.
type keptLogin struct {
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`        // of PKCE
	Fresh    bool   `json:"fresh,omitempty"` // whether auth_time was asked for
}

// Begin implements accounts.ExternalLogin.
func (l *Login) Begin(ctx context.Context, redirectURL, state string, maxAge *time.Duration) (string, []byte, error) {
	known, err := l.metadata(ctx)
	if err != nil {
		return "", nil, err
	}
	kept := keptLogin{Nonce: store.RandomToken(32), Verifier: oauth2.GenerateVerifier(), Fresh: maxAge != nil}
	text, err := json.Marshal(kept)
	if err != nil {
		return "", nil, err
	}
	var options []oauth2.AuthCodeOption
	for name, value := range l.AuthorizationParameters {
		options = append(options, oauth2.SetAuthURLParam(name, value))
	}
	if !l.plain() {
		options = append(options, gooidc.Nonce(kept.Nonce))
	}
	if !l.WithoutPKCE {
		options = append(options, oauth2.S256ChallengeOption(kept.Verifier))
	}
	if l.ResponseMode != "" {
		options = append(options, oauth2.SetAuthURLParam("response_mode", l.ResponseMode))
	}
	if maxAge != nil { // with max_age the ID token must have auth_time (OpenID Connect Core §2)
		options = append(options, oauth2.SetAuthURLParam("max_age", strconv.Itoa(int(*maxAge/time.Second))))
		if *maxAge == 0 {
			options = append(options, oauth2.SetAuthURLParam("prompt", "login"))
		}
	}
	config, err := l.config(known, redirectURL)
	if err != nil {
		return "", nil, err
	}
	return config.AuthCodeURL(state, options...), text, nil
}

// metadata returns what is known about the provider.
func (l *Login) metadata(ctx context.Context) (*metadata, error) {
	if l.plain() {
		return &metadata{
			endpoint: oauth2.Endpoint{AuthURL: l.AuthorizationEndpoint, TokenURL: l.TokenEndpoint},
			userinfo: l.UserinfoEndpoint,
		}, nil
	}
	return l.provider.get(ctx, l.log.With(zap.String("login", l.Name)))
}

func (l *Login) config(known *metadata, redirectURL string) (*oauth2.Config, error) {
	if l.RedirectURI != "" {
		redirectURL = l.RedirectURI
	}
	secret, err := l.secret()
	if err != nil {
		return nil, err
	}
	endpoint := known.endpoint
	// Do not detect the style by trying: a code can only be used once.
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	takesBasic := len(known.AuthMethods) == 0 || slices.Contains(known.AuthMethods, basicMethod)
	if secret == "" || l.AuthMethod == postMethod || l.AuthMethod == noMethod || l.AuthMethod == "" && !takesBasic {
		endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	if l.AuthMethod == noMethod {
		secret = ""
	}
	return &oauth2.Config{
		ClientID: l.ClientID, ClientSecret: secret,
		Endpoint: endpoint, RedirectURL: redirectURL, Scopes: l.Scopes,
	}, nil
}

// Finish implements accounts.ExternalLogin.
func (l *Login) Finish(
	ctx context.Context, answer url.Values, redirectURL string, text []byte,
) (*accounts.ExternalIdentity, error) {
	identity, err := l.finish(ctx, answer, redirectURL, text)
	l.note(err)
	return identity, err
}

func (l *Login) finish(
	ctx context.Context, answer url.Values, redirectURL string, text []byte,
) (*accounts.ExternalIdentity, error) {
	var kept keptLogin
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, err
	}
	known, err := l.metadata(ctx)
	if err != nil {
		return nil, err
	}
	// RFC 9207 §2.4: ignore a response from another provider, even an error.
	if !answer.Has("iss") && known.IssInAnswer {
		return nil, faulty(faultNoIssuer, "the response has no iss")
	}
	if answer.Has("iss") && !l.answers(answer.Get("iss")) {
		return nil, faulty(faultIssuer, "iss of the response is %.100q, not %q", answer.Get("iss"), l.Issuer)
	}
	if code := answer.Get("error"); code != "" {
		return nil, answeredError(code)
	}
	if answer.Get("code") == "" {
		return nil, errors.New("the response has no code")
	}
	ctx = context.WithValue(ctx, broughtUser{}, answer.Get("user"))
	return l.exchange(ctx, known, answer.Get("code"), redirectURL, &kept)
}

// answers reports whether `iss` of a response (RFC 9207) is that of the provider. That of one with
// several tenants is compared by its ID token.
func (l *Login) answers(iss string) bool {
	before, after, anyTenant := strings.Cut(l.Issuer, tenantPlace)
	switch {
	case iss == l.Issuer:
		return true
	case l.plain(): // whose own name of itself is not known; only its host is
		theirs, err := url.Parse(iss)
		own, ownErr := url.Parse(l.AuthorizationEndpoint)
		return err == nil && ownErr == nil && theirs.Scheme == own.Scheme && theirs.Host == own.Host
	case !anyTenant:
		return false
	}
	return strings.HasPrefix(iss, before) && strings.HasSuffix(iss, after)
}

// exchange exchanges the code for tokens and returns the identity of the user.
func (l *Login) exchange(
	ctx context.Context, known *metadata, code, redirectURL string, kept *keptLogin,
) (*accounts.ExternalIdentity, error) {
	ctx = gooidc.ClientContext(ctx, l.provider.client)
	config, err := l.config(known, redirectURL)
	if err != nil {
		return nil, err
	}
	var options []oauth2.AuthCodeOption
	if !l.WithoutPKCE {
		options = append(options, oauth2.VerifierOption(kept.Verifier))
	}
	tokens, err := config.Exchange(ctx, code, options...)
	if err != nil {
		return nil, exchangeError(err)
	}
	var claims jwt.Claims
	if l.plain() {
		claims, err = l.profile(ctx, tokens)
	} else {
		claims, err = l.verifyIDToken(ctx, tokens, kept.Nonce)
		if err == nil {
			err = l.addUserinfo(ctx, known, tokens, claims)
		}
	}
	if err == nil && l.preset.complete != nil {
		err = l.preset.complete(ctx, l, tokens, claims)
	}
	if err != nil {
		return nil, err
	}
	identity, err := l.identity(claims)
	if err == nil && kept.Fresh && identity.AuthTime.IsZero() {
		l.complain(faultAuthTime, errors.New("there is no auth_time"))
	}
	return identity, err
}
