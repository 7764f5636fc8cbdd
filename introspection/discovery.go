package introspection

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddy-jwt/caddy-jwt/internal/clock"
	"github.com/caddy-jwt/caddy-jwt/internal/discovery"
	"github.com/caddy-jwt/caddy-jwt/internal/thismachine"
	"github.com/caddy-jwt/caddy-jwt/jwt"
	"github.com/caddy-jwt/caddy-jwt/refusal"
	"github.com/go-json-experiment/json"
)

const (
	discoveryLasts = time.Hour
	discoveryPause = time.Second // after a failure
)

// location is where the endpoint is, by discovery.
type location struct {
	mu     sync.Mutex // held during discovery: others wait for the result
	url    string
	isHere bool // whether the issuer is on this machine
	next   time.Time
	err    error
}

// find returns the URL of the endpoint, and the context of requests to it.
func (e *endpoint) find(ctx context.Context) (string, context.Context, error) {
	if e.url != "" {
		return e.url, ctx, nil
	}
	l := &e.location
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := clock.Now(); now.After(l.next) || l.next.Sub(now) > discoveryLasts {
		found, isHere, err := e.discover(ctx)
		switch {
		case err == nil:
			l.url, l.isHere, l.err, l.next = found, isHere, nil, clock.Now().Add(discoveryLasts)
		default: // a known endpoint is used as long as there is no other
			l.err, l.next = err, clock.Now().Add(discoveryPause)
		}
	}
	if l.url == "" {
		return "", ctx, l.err
	}
	return l.url, forbidHere(ctx, l.isHere), nil
}

// discover looks for the endpoint in the issuer's metadata.
func (e *endpoint) discover(ctx context.Context) (found string, isHere bool, err error) {
	err = discovery.Find(e.issuer, func(from string) error {
		traced, reached := thismachine.Reached(ctx)
		at, err := e.look(traced, from)
		found, isHere = at, reached()
		return err
	})
	return found, isHere, err
}

func (e *endpoint) look(ctx context.Context, from string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Accept", "application/json")
	text, _, err := e.send(request)
	if errors.Is(err, errClient) { // this site has sent no credentials
		err = errors.New(strings.TrimPrefix(err.Error(), errClient.Error()+": "))
	}
	if err != nil {
		return "", err
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		err = fmt.Errorf("%s: %w", from, jwt.JSONError(err))
		if !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) { // the page of an app
			err = discovery.LackError(err.Error())
		}
		return "", err
	}
	if err := discovery.CheckIssuer(d.Issuer, e.issuer, d.Keys); err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	switch {
	case d.Endpoint == "":
		return "", discovery.LackError(from + " has no introspection_endpoint; if the issuer has one, set its URL")
	case !secure(d.Endpoint, e.allowHTTP) ||
		strings.HasPrefix(d.Endpoint, "http:") && strings.HasPrefix(e.issuer, "https:") && !e.allowHTTP:
		return "", fmt.Errorf("%s: its introspection_endpoint is %s, which must be https", from,
			refusal.Quoted(withoutSecrets(d.Endpoint)))
	}
	return d.Endpoint, nil
}
