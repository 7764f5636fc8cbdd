package login

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"github.com/caddy-jwt/caddy-jwt/jwt"
	"golang.org/x/oauth2"
)

// profile returns the userinfo of a provider that knows no OpenID Connect.
func (l *Login) profile(ctx context.Context, tokens *oauth2.Token) (jwt.Claims, error) {
	text, err := l.ask(ctx, tokens, l.UserinfoEndpoint)
	if err != nil {
		return nil, err
	}
	claims, err := jwt.ParseClaims(text)
	if err != nil {
		return nil, misconfigured(faultUserinfo, "userinfo: %v", err)
	}
	return claims, nil
}

// fetch reads a JSON document of the provider's API into a value.
func (l *Login) fetch(ctx context.Context, tokens *oauth2.Token, from string, into any) error {
	text, err := l.ask(ctx, tokens, from)
	if err == nil && json.Unmarshal(text, into) != nil {
		err = misconfigured(faultUserinfo, "%s: the answer is not the expected JSON", from)
	}
	return err
}

// ask requests a document of the provider's API with the access token.
func (l *Login) ask(ctx context.Context, tokens *oauth2.Token, from string) ([]byte, error) {
	at, err := url.Parse(from)
	if err != nil {
		return nil, err
	}
	if l.Preset == "facebook" {
		facebookProof(at, tokens.AccessToken, l.ClientSecret)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Authorization", "Bearer "+tokens.AccessToken) // also if the type is "bearer" or none
	response, err := l.provider.client.Do(request)
	if err != nil {
		return nil, unavailable(withoutURL(err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	at.RawQuery = ""
	switch {
	case err != nil:
		return nil, unavailable(withoutURL(err))
	case response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests:
		return nil, unavailable(&statusError{at.String(), response.Status})
	case response.StatusCode != http.StatusOK:
		return nil, misconfigured(faultUserinfo, "%v", &statusError{at.String(), response.Status})
	}
	return text, nil
}

// statusError is the error of an answer with another status than 200.
type statusError struct{ from, status string }

// Error implements error.
func (e *statusError) Error() string { return e.from + " answered " + e.status }

// withoutURL returns an error without the URL, whose query may have a proof of the secret.
func withoutURL(err error) error {
	if failed, ok := err.(*url.Error); ok { //nolint:errorlint // it is always the outermost
		return failed.Err
	}
	return err
}
