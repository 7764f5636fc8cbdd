package provider

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddy-jwt/caddy-jwt/store"
)

// pushRequest is the endpoint for pushed authorization requests (RFC 9126).
func (p *Provider) pushRequest(w http.ResponseWriter, r *http.Request) error {
	values, err := form(r)
	if err != nil {
		return err
	}
	client, err := p.authenticate(r, values)
	if err != nil {
		return err
	}
	if values.Get("request_uri") != "" {
		return refuse("invalid_request", "request_uri cannot be pushed")
	}
	for _, secret := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		values.Del(secret)
	}
	values.Set("client_id", client.ID)
	if _, err := p.parseRequest(r.Context(), values); err != nil {
		return err
	}
	id := store.RandomToken(32)
	if err := p.limitStrangers(r, client, p.pushes); err != nil {
		return err
	}
	if err := p.state.create(r.Context(), kindPushed, hashed(id), "", known(values), pushedLifetime); err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, map[string]any{
		"request_uri": pushedPrefix + id, "expires_in": int(pushedLifetime / time.Second),
	})
}

const (
	pushedLifetime = time.Minute
	pushedPrefix   = "urn:ietf:params:oauth:request_uri:"
)

// pushed returns pushed parameters, if the request refers to them. They can be used once.
func (p *Provider) pushed(ctx context.Context, values url.Values) (url.Values, error) {
	id, ok := strings.CutPrefix(values.Get("request_uri"), pushedPrefix)
	if !ok {
		return values, nil
	}
	pushed, err := load[url.Values](ctx, p.state, kindPushed, hashed(id))
	if err == nil && pushed.Get("client_id") != values.Get("client_id") { // another client's request does not use it up
		return nil, refuse("invalid_request", "request_uri was pushed by another client")
	}
	if err == nil {
		pushed, err = take[url.Values](ctx, p.state, kindPushed, hashed(id))
	}
	if errors.Is(err, errNotFound) {
		return nil, refuse("invalid_request_uri", "request_uri has expired or was already used")
	}
	return pushed, err
}
